//! Queues for transfer and sparse binding beside the work queue, and what they do for each other.

use super::{Case, Ctx};
use crate::gpu::{Batch, Gpu, ImageSpec, Need, Owned, Queue, find_format, memory_bind, pattern, region};
use crate::outcome::{Called as _, Outcome, Stop, check};
use ash::vk;
use std::time::Duration;

const SIZE: u64 = 256 << 10;

/// Long enough for anything that does not wait to be over.
const A_WHILE: Duration = Duration::from_millis(30);

pub(crate) fn add(cases: &mut Vec<Case>) {
    let needs: &[Need] = &[Need::Timeline, Need::TwoSparseQueues];
    let batched: &[Need] = &[Need::Timeline, Need::TwoSparseQueues, Need::Synchronization2];
    cases.extend(
        [
            Case::new("queue.added.copies", needs, copies_there),
            Case::new("queue.added.work_waits_first", needs, work_waits_first),
            Case::new("queue.added.threads", needs, threads),
        ]
        .map(Case::detects_missing_maps),
    );
    cases.extend([
        Case::new("queue.added.work_waits_for_host", needs, work_waits_for_host),
        Case::new("queue.added.binary", needs, binary),
        Case::new("queue.added.batches", batched, batches),
        Case::new("queue.added.ownership", needs, ownership),
        Case::new("queue.added.alone", needs, alone),
        Case::new("queue.added.family", needs, family),
    ]);
}

/// The queues of the family for transfer and sparse binding, and a command pool of it.
struct Copies<'g> {
    gpu: &'g Gpu,
    queues: Vec<Queue>,
    pool: vk::CommandPool,
}

impl<'g> Copies<'g> {
    fn new(gpu: &'g Gpu) -> Outcome<Self> {
        let queues: Vec<_> =
            gpu.sparse.iter().copied().filter(|queue| queue.family != gpu.work.family).collect();
        let first = queues.first().ok_or_else(|| Stop::NotSupported("one family takes binds".to_owned()))?;
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(first.family);
        // SAFETY: the device is alive and has the family.
        let pool = unsafe { gpu.raw.create_command_pool(&info, None) }.called("vkCreateCommandPool")?;
        Ok(Self { gpu, queues, pool })
    }

    fn submit(
        &self,
        waits: &[(vk::Semaphore, Option<u64>)],
        signals: &[(vk::Semaphore, Option<u64>)],
        fence: vk::Fence,
        record: impl FnOnce(vk::CommandBuffer),
    ) -> Outcome {
        self.gpu.submit_to(self.queues[0], self.pool, waits, signals, fence, record).map(drop)
    }

    /// A sparse buffer that both families use, and a batch that binds all of it to memory of its own.
    fn buffer(&self) -> Outcome<(vk::Buffer, Batch)> {
        let families = [self.gpu.work.family, self.queues[0].family];
        let info = vk::BufferCreateInfo::default()
            .size(SIZE)
            .usage(vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST)
            .flags(vk::BufferCreateFlags::SPARSE_BINDING)
            .sharing_mode(vk::SharingMode::CONCURRENT)
            .queue_family_indices(&families);
        let buffer = self.gpu.create_buffer(&info)?;
        let memory = self.gpu.memory(SIZE, self.gpu.buffer_requirements(buffer).memory_type_bits)?;
        Ok((buffer, Batch::new().buffer(buffer, vec![memory_bind(0, SIZE, Some((memory, 0)))])))
    }

    fn bind(&self, batch: Batch, fence: vk::Fence) -> Outcome {
        self.gpu.queue_bind(self.queues[0], &[batch], fence).called("vkQueueBindSparse")
    }
}

impl Drop for Copies<'_> {
    fn drop(&mut self) {
        // A case that failed may have left work that never ends, and its pool with it.
        if !std::thread::panicking() && self.gpu.wait_idle().is_ok() {
            // SAFETY: the device is idle.
            unsafe { self.gpu.raw.destroy_command_pool(self.pool, None) };
        }
    }
}

fn words(seed: u32) -> Vec<u32> {
    (0..SIZE as u32 / 4).map(|index| pattern(seed, index)).collect()
}

/// A buffer with the words of `seed`.
fn source(gpu: &Gpu, seed: u32) -> Outcome<vk::Buffer> {
    Ok(gpu.host_words(&words(seed), vk::BufferUsageFlags::empty())?.buffer)
}

fn copy(gpu: &Gpu, command: vk::CommandBuffer, from: vk::Buffer, to: vk::Buffer) {
    let region = vk::BufferCopy { src_offset: 0, dst_offset: 0, size: SIZE };
    // SAFETY: the command buffer is recording; the buffers are this device's.
    unsafe { gpu.raw.cmd_copy_buffer(command, from, to, &[region]) };
}

/// Binds and copies on one queue, reads on another, with binary semaphores between them.
fn copies_there(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let copies = Copies::new(&gpu)?;
    let (buffer, bind) = copies.buffer()?;
    let (from, to) = (source(&gpu, 1)?, gpu.host(SIZE, vk::BufferUsageFlags::empty())?);
    let (bound, copied, fence) = (gpu.semaphore()?, gpu.semaphore()?, gpu.fence()?);
    copies.bind(bind.signal(bound, None), vk::Fence::null())?;
    copies.submit(&[(bound, None)], &[(copied, None)], vk::Fence::null(), |command| {
        copy(&gpu, command, from, buffer);
    })?;
    gpu.submit(&[(copied, None)], &[], fence, |command| copy(&gpu, command, buffer, to.buffer))?;
    gpu.wait_fence(fence)?;
    check!(to.words() == words(1), "the work queue reads other data than the other queue wrote");
    Ok(())
}

/// The work queue waits for what is bound and written on the other queue, submitted later.
fn work_waits_first(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let copies = Copies::new(&gpu)?;
    let timeline = gpu.timeline(0)?;
    let to = gpu.host(SIZE, vk::BufferUsageFlags::empty())?;
    for round in 0..10_u32 {
        let (buffer, bind) = copies.buffer()?;
        let from = source(&gpu, round)?;
        let fence = gpu.fence()?;
        let value = |step| (timeline, Some(u64::from(round) * 2 + step));
        gpu.submit(&[value(2)], &[], fence, |command| copy(&gpu, command, buffer, to.buffer))?;
        if round % 2 == 0 {
            std::thread::sleep(A_WHILE);
        }
        check!(!gpu.fence_signalled(fence)?, "the work queue did not wait");
        copies.submit(&[value(1)], &[value(2)], vk::Fence::null(), |command| {
            copy(&gpu, command, from, buffer);
        })?;
        let bound = value(1);
        gpu.queue_bind(copies.queues[1], &[bind.signal(bound.0, bound.1)], vk::Fence::null())
            .called("vkQueueBindSparse")?;
        gpu.wait_fence(fence)?;
        check!(to.words() == words(round), "round {round}: the work queue reads other data");
    }
    Ok(())
}

/// While the work queue waits for the host, the other queues go on: fences, idle waits, copies.
fn work_waits_for_host(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let copies = Copies::new(&gpu)?;
    let timeline = gpu.timeline(0)?;
    let (held, bound, copied) = (gpu.fence()?, gpu.fence()?, gpu.fence()?);
    gpu.submit(&[(timeline, Some(1))], &[(timeline, Some(2))], held, |_| {})?;
    let (buffer, bind) = copies.buffer()?;
    copies.bind(bind, bound)?;
    gpu.wait_fence(bound)?;
    let from = source(&gpu, 5)?;
    copies.submit(&[], &[], copied, |command| copy(&gpu, command, from, buffer))?;
    gpu.wait_fence(copied)?;
    for &queue in &copies.queues {
        gpu.wait_queue(queue)?;
    }
    check!(!gpu.fence_signalled(held)?, "the work queue did not wait");
    gpu.signal_timeline(timeline, 1)?;
    gpu.wait_fence(held)?;
    gpu.wait_timeline(timeline, 2)
}

/// Binary semaphores whose signals still wait when they are waited for, signalled and waited for again and again.
fn binary(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let copies = Copies::new(&gpu)?;
    let (gate, there, back) = (gpu.timeline(0)?, gpu.semaphore()?, gpu.semaphore()?);
    for round in 1..=60_u64 {
        let fence = gpu.fence()?;
        copies.submit(&[(gate, Some(round))], &[(there, None)], vk::Fence::null(), |_| {})?;
        // The signal of the gate is submitted before anything waits for the binary semaphore.
        let open = Batch::new().signal(gate, Some(round));
        gpu.queue_bind(copies.queues[1], &[open], vk::Fence::null()).called("vkQueueBindSparse")?;
        gpu.submit(&[(there, None)], &[(back, None)], vk::Fence::null(), |_| {})?;
        copies.bind(Batch::new().wait(back, None), fence)?;
        gpu.wait_fence(fence)?;
        gpu.destroy(Owned::Fence(fence));
    }
    Ok(())
}

/// The batches of one submission wait for each other and, in their midst, for another queue; new structures and old.
fn batches(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let copies = Copies::new(&gpu)?;
    let timeline = gpu.timeline(0)?;
    let point = |value| {
        vk::SemaphoreSubmitInfo::default()
            .semaphore(timeline)
            .value(value)
            .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
    };
    for round in 0..8_u64 {
        let at = round * 4;
        let (waits, signals) = (
            [[point(at)], [point(at + 1)], [point(at + 3)]],
            [[point(at + 1)], [point(at + 2)], [point(at + 4)]],
        );
        let all: Vec<_> = waits
            .iter()
            .zip(&signals)
            .map(|(wait, signal)| {
                vk::SubmitInfo2::default().wait_semaphore_infos(wait).signal_semaphore_infos(signal)
            })
            .collect();
        let fence = gpu.fence()?;
        // SAFETY: the arrays live until the call returns; nobody else uses the queue.
        unsafe { gpu.raw.queue_submit2(gpu.work.handle, &all, fence) }.called("vkQueueSubmit2")?;
        copies.submit(&[(timeline, Some(at + 2))], &[(timeline, Some(at + 3))], vk::Fence::null(), |_| {})?;
        gpu.wait_fence(fence)?;
        // lavapipe signals the fence a moment before the counter can be seen.
        gpu.wait_timeline(timeline, at + 4)?;
    }
    gpu.wait_idle()
}

/// Threads that work on the queues at the same time.
fn threads(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let copies = Copies::new(&gpu)?;
    let (sent, taken) = (gpu.timeline(0)?, gpu.timeline(0)?);
    let (buffer, bind) = copies.buffer()?;
    let to = gpu.host(SIZE, vk::BufferUsageFlags::empty())?;
    const ROUNDS: u64 = 30;
    copies.bind(bind.signal(sent, Some(1)), vk::Fence::null())?;
    std::thread::scope(|scope| -> Outcome {
        let writer = scope.spawn(|| -> Outcome {
            for round in 1..=ROUNDS {
                let from = source(&gpu, round as u32)?;
                let waits = [(taken, Some(round - 1)), (sent, Some(round))];
                copies.submit(&waits, &[(sent, Some(round + 1))], vk::Fence::null(), |command| {
                    copy(&gpu, command, from, buffer);
                })?;
                gpu.wait_timeline(sent, round + 1)?;
            }
            Ok(())
        });
        for round in 1..=ROUNDS {
            let fence = gpu.fence()?;
            gpu.submit(&[(sent, Some(round + 1))], &[], fence, |command| {
                copy(&gpu, command, buffer, to.buffer);
            })?;
            gpu.wait_fence(fence)?;
            check!(to.words() == words(round as u32), "round {round}: other data");
            gpu.signal_timeline(taken, round)?;
        }
        writer.join().unwrap_or(Ok(()))
    })
}

/// An image and a buffer change hands between the families and back, the image's layout with it.
fn ownership(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let copies = Copies::new(&gpu)?;
    let spec = ImageSpec {
        ty: vk::ImageType::TYPE_2D,
        format: find_format("r32_uint").vk,
        extent: [256, 256, 1],
        levels: 1,
        layers: 1,
        flags: vk::ImageCreateFlags::empty(),
        usage: vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST,
    };
    let image = gpu.image(&spec)?;
    let requirements = gpu.image_requirements(image);
    gpu.bind_image(image, gpu.memory(requirements.size, requirements.memory_type_bits)?)?;
    let (from, to) = (source(&gpu, 9)?, gpu.host(SIZE, vk::BufferUsageFlags::empty())?);
    let range = vk::ImageSubresourceRange {
        aspect_mask: vk::ImageAspectFlags::COLOR,
        base_mip_level: 0,
        level_count: 1,
        base_array_layer: 0,
        layer_count: 1,
    };
    let (mine, other) = (gpu.work.family, copies.queues[0].family);
    let all = vk::PipelineStageFlags::ALL_COMMANDS;
    let change = |command, (old, new), (give, take)| {
        let access = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
        let image = vk::ImageMemoryBarrier::default()
            .src_access_mask(access)
            .dst_access_mask(access)
            .old_layout(old)
            .new_layout(new)
            .src_queue_family_index(give)
            .dst_queue_family_index(take)
            .image(image)
            .subresource_range(range);
        let buffer = vk::BufferMemoryBarrier::default()
            .src_access_mask(access)
            .dst_access_mask(access)
            .src_queue_family_index(give)
            .dst_queue_family_index(take)
            .buffer(to.buffer)
            .size(vk::WHOLE_SIZE);
        // SAFETY: the command buffer is recording; the image and the buffer are this device's.
        unsafe {
            let none = vk::DependencyFlags::empty();
            gpu.raw.cmd_pipeline_barrier(command, all, all, none, &[], &[buffer], &[image]);
        }
    };
    use vk::ImageLayout as Layout;
    const NONE: (u32, u32) = (vk::QUEUE_FAMILY_IGNORED, vk::QUEUE_FAMILY_IGNORED);
    let whole = [region(0, vk::ImageAspectFlags::COLOR, 0, 0, [0; 3], [256, 256, 1])];
    let there = (Layout::TRANSFER_DST_OPTIMAL, Layout::TRANSFER_SRC_OPTIMAL);
    let back = (Layout::TRANSFER_SRC_OPTIMAL, Layout::GENERAL);
    let (given, returned, fence) = (gpu.semaphore()?, gpu.semaphore()?, gpu.fence()?);
    gpu.submit(&[], &[(given, None)], vk::Fence::null(), |command| {
        change(command, (Layout::UNDEFINED, Layout::TRANSFER_DST_OPTIMAL), NONE);
        // SAFETY: as above.
        unsafe {
            gpu.raw.cmd_copy_buffer_to_image(command, from, image, Layout::TRANSFER_DST_OPTIMAL, &whole);
        }
        change(command, there, (mine, other));
    })?;
    copies.submit(&[(given, None)], &[(returned, None)], vk::Fence::null(), |command| {
        change(command, there, (mine, other));
        // SAFETY: as above.
        unsafe {
            gpu.raw.cmd_copy_image_to_buffer(command, image, Layout::TRANSFER_SRC_OPTIMAL, to.buffer, &whole);
        }
        change(command, back, (other, mine));
    })?;
    gpu.submit(&[(returned, None)], &[], fence, |command| {
        change(command, back, (other, mine));
        // SAFETY: as above.
        unsafe {
            gpu.raw.cmd_copy_image_to_buffer(command, image, Layout::GENERAL, to.buffer, &whole);
        }
    })?;
    gpu.wait_fence(fence)?;
    check!(to.words() == words(9), "the image holds other data after it changed hands");
    Ok(())
}

/// A device with a queue of the family and no other.
fn alone(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let family = Copies::new(&gpu)?.queues[0].family;
    let queue = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queue);
    let host = vk::BufferCreateInfo::default().size(SIZE).usage(vk::BufferUsageFlags::TRANSFER_DST);
    // SAFETY: everything is this device's, is idle when it is destroyed, and is destroyed before it.
    unsafe {
        let device = gpu.instance.raw.create_device(gpu.physical, &info, None).called("vkCreateDevice")?;
        let outcome = (|| -> Outcome {
            let queue = device.get_device_queue(family, 0);
            let buffer = device.create_buffer(&host, None).called("vkCreateBuffer")?;
            let needs = device.get_buffer_memory_requirements(buffer);
            let allocation = vk::MemoryAllocateInfo::default()
                .allocation_size(needs.size)
                .memory_type_index(gpu.memory_type(needs.memory_type_bits)?);
            let memory = device.allocate_memory(&allocation, None).called("vkAllocateMemory")?;
            device.bind_buffer_memory(buffer, memory, 0).called("vkBindBufferMemory")?;
            let pool = vk::CommandPoolCreateInfo::default().queue_family_index(family);
            let pool = device.create_command_pool(&pool, None).called("vkCreateCommandPool")?;
            let command = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
            let command = device.allocate_command_buffers(&command).called("vkAllocateCommandBuffers")?;
            device.begin_command_buffer(command[0], &Default::default()).called("vkBeginCommandBuffer")?;
            device.cmd_fill_buffer(command[0], buffer, 0, SIZE, 0x1357_9bdf);
            device.end_command_buffer(command[0]).called("vkEndCommandBuffer")?;
            let submit = [vk::SubmitInfo::default().command_buffers(&command)];
            device.queue_submit(queue, &submit, vk::Fence::null()).called("vkQueueSubmit")?;
            device.queue_wait_idle(queue).called("vkQueueWaitIdle")?;
            let mapped = device.map_memory(memory, 0, SIZE, vk::MemoryMapFlags::empty());
            let first = mapped.called("vkMapMemory")?.cast::<u32>();
            let filled = (0..SIZE as usize / 4).all(|word| *first.add(word) == 0x1357_9bdf);
            device.destroy_command_pool(pool, None);
            device.destroy_buffer(buffer, None);
            device.free_memory(memory, None);
            check!(filled, "the buffer is not filled");
            Ok(())
        })();
        device.device_wait_idle().called("vkDeviceWaitIdle")?;
        device.destroy_device(None);
        outcome
    }
}

/// What is said of the family, by every name.
fn family(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let copies = Copies::new(&gpu)?;
    let own = copies.queues[0].family as usize;
    let (instance, physical) = (&gpu.instance.raw, gpu.physical);
    // SAFETY: the physical device is the instance's; arrays have the room that they are said to have.
    unsafe {
        let one = instance.get_physical_device_queue_family_properties(physical);
        let mut two = vec![vk::QueueFamilyProperties2::default(); one.len()];
        let count = instance.get_physical_device_queue_family_properties2_len(physical);
        check!(count == one.len(), "{count} families by one name, {} by another", one.len());
        instance.get_physical_device_queue_family_properties2(physical, &mut two);
        for (family, (one, two)) in one.iter().zip(&two).enumerate() {
            let two = two.queue_family_properties;
            check!(
                (one.queue_flags, one.queue_count, one.timestamp_valid_bits)
                    == (two.queue_flags, two.queue_count, two.timestamp_valid_bits),
                "family {family} is one thing by one name, another by another"
            );
        }
        check!(
            one[own].queue_flags.contains(vk::QueueFlags::TRANSFER | vk::QueueFlags::SPARSE_BINDING),
            "{one:?}"
        );
        for room in 0..one.len() {
            let mut some = vec![vk::QueueFamilyProperties2::default(); room];
            let mut written = room as u32;
            let ask = instance.fp_v1_1().get_physical_device_queue_family_properties2;
            // An empty array asks for the number.
            if room > 0 {
                ask(physical, &raw mut written, some.as_mut_ptr());
                check!(written == room as u32, "{written} of {room} entries are written");
            }
        }
        for (number, &queue) in copies.queues.iter().enumerate() {
            let info =
                vk::DeviceQueueInfo2::default().queue_family_index(own as u32).queue_index(number as u32);
            check!(gpu.raw.get_device_queue2(&info) == queue.handle, "queue {number} has two handles");
        }
    }
    Ok(())
}

//! Command pools of the added family, and barriers that name it.
//!
//! The driver knows one family for both sides of an ownership transfer, so the transfer is none to it. The half that releases keeps
//! the image's change of layout, the half that acquires loses it: with both, the layout would change twice.

use super::choose;
use super::family::Family;
use crate::arrays::slice;
use crate::device::{Device, on_device};
use ash::vk;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

/// The command pools of the added family, and the command buffers from them.
#[derive(Default)]
pub struct Recorded {
    pools: Mutex<FxHashSet<vk::CommandPool>>,
    buffers: Mutex<FxHashMap<vk::CommandBuffer, vk::CommandPool>>,
}

/// A barrier of a resource, in the old structure or the new one.
trait Barrier: Copy {
    fn families(&mut self) -> [&mut u32; 2];
    /// Leaves an image's layout as the barrier's other half has made it; a buffer has none.
    fn keep_layout(&mut self) {}
}

macro_rules! barrier {
    ($info:ty $(, $layout:item)?) => {
        impl Barrier for $info {
            fn families(&mut self) -> [&mut u32; 2] {
                [&mut self.src_queue_family_index, &mut self.dst_queue_family_index]
            }
            $($layout)?
        }
    };
}
macro_rules! image_barrier {
    ($info:ty) => {
        barrier!(
            $info,
            fn keep_layout(&mut self) {
                self.old_layout = self.new_layout;
            }
        );
    };
}
barrier!(vk::BufferMemoryBarrier<'_>);
barrier!(vk::BufferMemoryBarrier2<'_>);
image_barrier!(vk::ImageMemoryBarrier<'_>);
image_barrier!(vk::ImageMemoryBarrier2<'_>);

/// The barriers in the driver's words, recorded by a command buffer of `recorder`; `None` where they name no added family.
fn translated<B: Barrier>(family: Family, recorder: impl Fn() -> u32, barriers: &[B]) -> Option<Vec<B>> {
    let names = |mut barrier: B| barrier.families().into_iter().any(|named| *named == family.index);
    if !barriers.iter().copied().any(names) {
        return None;
    }
    let recorder = recorder();
    let translate = |mut barrier: B| {
        let acquires = {
            let [from, to] = barrier.families();
            let (asked_from, asked_to) = (*from, *to);
            (*from, *to) = (family.translate(asked_from), family.translate(asked_to));
            let one = *from == *to;
            if one {
                (*from, *to) = (vk::QUEUE_FAMILY_IGNORED, vk::QUEUE_FAMILY_IGNORED);
            }
            one && asked_from != asked_to && recorder == asked_to
        };
        if acquires {
            barrier.keep_layout();
        }
        barrier
    };
    Some(barriers.iter().copied().map(translate).collect())
}

/// The arrays of a command with barriers.
struct Barriers<'a, B, I> {
    buffers: (Option<Vec<B>>, &'a [B]),
    images: (Option<Vec<I>>, &'a [I]),
}

impl<'a, B: Barrier, I: Barrier> Barriers<'a, B, I> {
    fn new(d: &Device, command: vk::CommandBuffer, buffers: &'a [B], images: &'a [I]) -> Self {
        let Some(added) = &d.added else { return Self { buffers: (None, buffers), images: (None, images) } };
        // Nobody transfers to or from a family other than the serving one and the added one while recording for the third.
        let recorder = || {
            let own = added.recorded.buffers.lock().contains_key(&command);
            if own { added.family.index } else { added.family.serving }
        };
        Self {
            buffers: (translated(added.family, recorder, buffers), buffers),
            images: (translated(added.family, recorder, images), images),
        }
    }

    fn buffers(&self) -> &[B] {
        self.buffers.0.as_deref().unwrap_or(self.buffers.1)
    }

    fn images(&self) -> &[I] {
        self.images.0.as_deref().unwrap_or(self.images.1)
    }
}

type Barriers2<'a> = Barriers<'a, vk::BufferMemoryBarrier2<'a>, vk::ImageMemoryBarrier2<'a>>;

/// The barriers of a dependency.
///
/// # Safety
/// `info` is valid.
unsafe fn of_dependency<'a>(
    d: &Device,
    command: vk::CommandBuffer,
    info: &vk::DependencyInfo<'a>,
) -> Barriers2<'a> {
    // SAFETY: the caller's promise.
    let (buffers, images) = unsafe {
        (
            slice(info.p_buffer_memory_barriers, info.buffer_memory_barrier_count),
            slice(info.p_image_memory_barriers, info.image_memory_barrier_count),
        )
    };
    Barriers::new(d, command, buffers, images)
}

fn with<'a>(info: &vk::DependencyInfo<'a>, barriers: &'a Barriers2<'a>) -> vk::DependencyInfo<'a> {
    info.buffer_memory_barriers(barriers.buffers()).image_memory_barriers(barriers.images())
}

pub(crate) unsafe extern "system" fn cmd_pipeline_barrier(
    command: vk::CommandBuffer,
    from: vk::PipelineStageFlags,
    to: vk::PipelineStageFlags,
    flags: vk::DependencyFlags,
    count: u32,
    memory: *const vk::MemoryBarrier<'_>,
    buffer_count: u32,
    buffers: *const vk::BufferMemoryBarrier<'_>,
    image_count: u32,
    images: *const vk::ImageMemoryBarrier<'_>,
) {
    on_device(command, "vkCmdPipelineBarrier", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            let barriers =
                Barriers::new(d, command, slice(buffers, buffer_count), slice(images, image_count));
            let (buffers, images) = (barriers.buffers().as_ptr(), barriers.images().as_ptr());
            let next = d.next.fp_v1_0().cmd_pipeline_barrier;
            next(command, from, to, flags, count, memory, buffer_count, buffers, image_count, images);
        }
    });
}

pub(crate) unsafe extern "system" fn cmd_wait_events(
    command: vk::CommandBuffer,
    event_count: u32,
    events: *const vk::Event,
    from: vk::PipelineStageFlags,
    to: vk::PipelineStageFlags,
    count: u32,
    memory: *const vk::MemoryBarrier<'_>,
    buffer_count: u32,
    buffers: *const vk::BufferMemoryBarrier<'_>,
    image_count: u32,
    images: *const vk::ImageMemoryBarrier<'_>,
) {
    on_device(command, "vkCmdWaitEvents", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            let barriers =
                Barriers::new(d, command, slice(buffers, buffer_count), slice(images, image_count));
            let (buffers, images) = (barriers.buffers().as_ptr(), barriers.images().as_ptr());
            (d.next.fp_v1_0().cmd_wait_events)(
                command,
                event_count,
                events,
                from,
                to,
                count,
                memory,
                buffer_count,
                buffers,
                image_count,
                images,
            );
        }
    });
}

pub(crate) unsafe extern "system" fn cmd_pipeline_barrier2(
    command: vk::CommandBuffer,
    info: *const vk::DependencyInfo<'_>,
) {
    on_device(command, "vkCmdPipelineBarrier2", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            let barriers = of_dependency(d, command, &*info);
            let info = with(&*info, &barriers);
            (d.next.fp_v1_3().cmd_pipeline_barrier2)(command, &raw const info);
        }
    });
}

pub(crate) unsafe extern "system" fn cmd_set_event2(
    command: vk::CommandBuffer,
    event: vk::Event,
    info: *const vk::DependencyInfo<'_>,
) {
    on_device(command, "vkCmdSetEvent2", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            let barriers = of_dependency(d, command, &*info);
            let info = with(&*info, &barriers);
            (d.next.fp_v1_3().cmd_set_event2)(command, event, &raw const info);
        }
    });
}

pub(crate) unsafe extern "system" fn cmd_wait_events2(
    command: vk::CommandBuffer,
    count: u32,
    events: *const vk::Event,
    infos: *const vk::DependencyInfo<'_>,
) {
    on_device(command, "vkCmdWaitEvents2", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            let infos = slice(infos, count);
            let barriers: Vec<_> = infos.iter().map(|info| of_dependency(d, command, info)).collect();
            let infos: Vec<_> =
                infos.iter().zip(&barriers).map(|(info, barriers)| with(info, barriers)).collect();
            (d.next.fp_v1_3().cmd_wait_events2)(command, count, events, infos.as_ptr());
        }
    });
}

pub(crate) unsafe extern "system" fn create_command_pool(
    device: vk::Device,
    info: *const vk::CommandPoolCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    pool: *mut vk::CommandPool,
) -> vk::Result {
    on_device(device, "vkCreateCommandPool", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let create = |info| unsafe { (d.next.fp_v1_0().create_command_pool)(device, info, allocator, pool) };
        choose(
            d,
            |added| {
                // SAFETY: as above.
                let mut translated = unsafe { *info };
                if translated.queue_family_index != added.family.index {
                    return create(info);
                }
                translated.queue_family_index = added.family.serving;
                let result = create(&raw const translated);
                if result == vk::Result::SUCCESS {
                    // SAFETY: as above, and the call succeeded.
                    added.recorded.pools.lock().insert(unsafe { *pool });
                }
                result
            },
            || create(info),
        )
    })
}

pub(crate) unsafe extern "system" fn destroy_command_pool(
    device: vk::Device,
    pool: vk::CommandPool,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    on_device(device, "vkDestroyCommandPool", |d, _| {
        if let Some(added) = &d.added
            && added.recorded.pools.lock().remove(&pool)
        {
            added.recorded.buffers.lock().retain(|_, of| *of != pool);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().destroy_command_pool)(device, pool, allocator) };
    });
}

pub(crate) unsafe extern "system" fn allocate_command_buffers(
    device: vk::Device,
    info: *const vk::CommandBufferAllocateInfo<'_>,
    buffers: *mut vk::CommandBuffer,
) -> vk::Result {
    on_device(device, "vkAllocateCommandBuffers", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let result = unsafe { (d.next.fp_v1_0().allocate_command_buffers)(device, info, buffers) };
        // SAFETY: as above.
        let (pool, count) = unsafe { ((*info).command_pool, (*info).command_buffer_count) };
        if let (Some(added), vk::Result::SUCCESS) = (&d.added, result)
            && added.recorded.pools.lock().contains(&pool)
        {
            // SAFETY: as above, and the call succeeded.
            let made = unsafe { slice(buffers, count) };
            added.recorded.buffers.lock().extend(made.iter().map(|&buffer| (buffer, pool)));
        }
        result
    })
}

pub(crate) unsafe extern "system" fn free_command_buffers(
    device: vk::Device,
    pool: vk::CommandPool,
    count: u32,
    buffers: *const vk::CommandBuffer,
) {
    on_device(device, "vkFreeCommandBuffers", |d, _| {
        if let Some(added) = &d.added
            && added.recorded.pools.lock().contains(&pool)
        {
            let mut known = added.recorded.buffers.lock();
            // SAFETY: the application's valid arguments.
            for buffer in unsafe { slice(buffers, count) } {
                known.remove(buffer);
            }
        }
        // SAFETY: as above, handed on.
        unsafe { (d.next.fp_v1_0().free_command_buffers)(device, pool, count, buffers) };
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: Family = Family { index: 1, serving: 0, queues: 1 };

    fn image(from: u32, to: u32) -> vk::ImageMemoryBarrier<'static> {
        vk::ImageMemoryBarrier::default()
            .old_layout(vk::ImageLayout::GENERAL)
            .new_layout(vk::ImageLayout::TRANSFER_DST_OPTIMAL)
            .src_queue_family_index(from)
            .dst_queue_family_index(to)
    }

    fn translate(recorder: u32, from: u32, to: u32) -> Option<(u32, u32, vk::ImageLayout)> {
        let barrier = *translated(FAMILY, || recorder, &[image(from, to)])?.first()?;
        Some((barrier.src_queue_family_index, barrier.dst_queue_family_index, barrier.old_layout))
    }

    #[test]
    fn the_layout_changes_once() {
        use vk::QUEUE_FAMILY_IGNORED as NONE;
        const BEFORE: vk::ImageLayout = vk::ImageLayout::GENERAL;
        const AFTER: vk::ImageLayout = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
        for (from, to) in [(0, 1), (1, 0)] {
            assert_eq!(translate(from, from, to), Some((NONE, NONE, BEFORE)));
            assert_eq!(translate(to, from, to), Some((NONE, NONE, AFTER)));
        }
        assert_eq!(translate(1, 1, 1), Some((NONE, NONE, BEFORE)));
        let outside = vk::QUEUE_FAMILY_EXTERNAL;
        assert_eq!(translate(1, outside, 1), Some((outside, 0, BEFORE)));
        assert_eq!(translate(1, 1, outside), Some((0, outside, BEFORE)));
        assert_eq!(translate(0, NONE, NONE), None);
        assert_eq!(translate(0, 0, outside), None);
    }
}

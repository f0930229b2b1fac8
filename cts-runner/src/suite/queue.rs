//! `vkQueueBindSparse` among semaphores, fences, queues and devices.

use super::buffer_rig::{Access, BlockBind, BufferRig, blocks};
use super::{Case, Ctx};
use crate::gpu::{Batch, Gpu, Need, memory_bind};
use crate::outcome::{Called as _, Outcome, check};
use ash::vk;
use std::time::{Duration, Instant};

/// Long enough for anything that does not wait to be over.
const A_WHILE: Duration = Duration::from_millis(60);

const BLOCKS: u64 = 4;

pub(crate) fn add(cases: &mut Vec<Case>) {
    let timeline: &[Need] = &[Need::Timeline];
    let two: &[Need] = &[Need::Timeline, Need::TwoSparseQueues];
    let shared: &[Need] = &[Need::Timeline, Need::ExternalSemaphoreFd];
    cases.extend(
        [
            Case::new("queue.binary.chain", &[], |ctx| chain(ctx, false)),
            Case::new("queue.timeline.chain", timeline, |ctx| chain(ctx, true)),
            Case::new("queue.binary.between_infos", &[], |ctx| between_infos(ctx, false)),
            Case::new("queue.timeline.between_infos", timeline, |ctx| between_infos(ctx, true)),
            Case::new("queue.mixed_semaphores", timeline, mixed_semaphores),
            Case::new("queue.wait_first.host", timeline, wait_first_host),
            Case::new("queue.wait_first.several", timeline, wait_first_several),
            Case::new("queue.wait_first.idle_waits", timeline, idle_waits),
            Case::new("queue.wait_first.other_queue", two, wait_first_other_queue),
            Case::new("queue.wait_first.other_queue_submit", two, wait_first_submit),
            Case::new("queue.wait_first.shared", shared, wait_first_shared),
            Case::new("queue.wait_first.other_device", timeline, waiting_blocks_nobody),
            Case::new("queue.fence.only", &[], fence_only),
            Case::new("queue.idle.queue", &[], |ctx| idle(ctx, |gpu| gpu.wait_queue(gpu.sparse[0]))),
            Case::new("queue.idle.device", &[], |ctx| idle(ctx, Gpu::wait_idle)),
            Case::new("queue.infos.1024", &[], many_infos),
            Case::new("queue.infos.1024_chained", timeline, many_chained_infos),
            Case::new("queue.binds.20000", &[Need::Aliased], many_binds),
            Case::new("queue.every_queue", &[], every_queue),
            Case::new("queue.device_group", &[], device_group),
            Case::new("queue.frames", timeline, frames),
        ]
        .map(Case::detects_missing_maps),
    );
    cases.extend([
        Case::new("queue.fence.empty", &[], fence_empty),
        Case::new("queue.semaphores_only", timeline, semaphores_only),
        Case::new("queue.timeline.value", timeline, timeline_value),
    ]);
}

/// A rig with a buffer, and two memory objects that it can be bound to.
fn rig(gpu: &Gpu) -> Outcome<(BufferRig<'_>, usize, [usize; 2])> {
    let mut rig = BufferRig::new(gpu, Access::Storage, vk::BufferCreateFlags::empty())?;
    let (buffer, memories) = (rig.buffer(BLOCKS)?, [rig.memory(BLOCKS)?, rig.memory(BLOCKS)?]);
    Ok((rig, buffer, memories))
}

fn all(memory: usize) -> [BlockBind; 1] {
    [blocks(0, BLOCKS, Some((memory, 0)))]
}

/// A semaphore and the value that a step waits for or signals; `None` for binary semaphores.
struct Steps {
    timeline: Option<vk::Semaphore>,
    value: u64,
}

impl Steps {
    fn new(gpu: &Gpu, timeline: bool) -> Outcome<Self> {
        Ok(Self { timeline: timeline.then(|| gpu.timeline(0)).transpose()?, value: 0 })
    }

    /// What the next step signals and the one after waits for.
    fn next(&mut self, gpu: &Gpu) -> Outcome<(vk::Semaphore, Option<u64>)> {
        self.value += 1;
        match self.timeline {
            Some(timeline) => Ok((timeline, Some(self.value))),
            None => Ok((gpu.semaphore()?, None)),
        }
    }
}

/// Binds and shaders by turns, ordered by semaphores alone.
fn chain(ctx: &Ctx, timeline: bool) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, memories) = rig(&gpu)?;
    let mut steps = Steps::new(&gpu, timeline)?;
    let fence = gpu.fence()?;
    const ROUNDS: u32 = 24;
    let mut last = None;
    for round in 0..ROUNDS {
        let binds = [
            blocks(0, BLOCKS / 2, Some((memories[round as usize % 2], u64::from(round / 2 % 2) * 2))),
            blocks(2, 2, Some((memories[1], 0))),
        ];
        let bound = steps.next(&gpu)?;
        let mut batch = rig.batch(Batch::new(), buffer, &binds).signal(bound.0, bound.1);
        if let Some((semaphore, value)) = last {
            batch = batch.wait(semaphore, value);
        }
        gpu.queue_bind(gpu.sparse[0], &[batch], vk::Fence::null()).called("vkQueueBindSparse")?;
        rig.note(buffer, &binds);
        let dispatches = [rig.fill(buffer, 0, 2, round)];
        let prepared = gpu.prepare(&dispatches)?;
        let done = steps.next(&gpu)?;
        let (signals, fence) =
            if round + 1 == ROUNDS { (vec![], fence) } else { (vec![done], vk::Fence::null()) };
        gpu.submit(&[bound], &signals, fence, |command| {
            gpu.record_dispatches(command, &dispatches, &prepared.sets);
        })?;
        rig.note_write(buffer, 0, 2, round);
        last = Some(done);
    }
    gpu.wait_fence(fence)?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// The infos of one call, each waiting for the one before it: the last one's binds stay.
fn between_infos(ctx: &Ctx, timeline: bool) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, memories) = rig(&gpu)?;
    let mut steps = Steps::new(&gpu, timeline)?;
    let mut batches = Vec::new();
    let mut last: Option<(vk::Semaphore, Option<u64>)> = None;
    for round in 0..9 {
        let binds = [blocks(0, BLOCKS - 1, Some((memories[round % 2], round as u64 % 2)))];
        let mut batch = rig.batch(Batch::new(), buffer, &binds);
        if let Some((semaphore, value)) = last {
            batch = batch.wait(semaphore, value);
        }
        if round < 8 {
            let next = steps.next(&gpu)?;
            batch = batch.signal(next.0, next.1);
            last = Some(next);
        }
        batches.push(batch);
        rig.note(buffer, &binds);
    }
    gpu.bind(&batches)?;
    rig.verify(buffer)
}

/// Binary and timeline semaphores in one info, on both sides.
fn mixed_semaphores(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, [memory, _]) = rig(&gpu)?;
    let (timeline, other) = (gpu.timeline(5)?, gpu.timeline(0)?);
    let (before, after) = (gpu.semaphore()?, gpu.semaphore()?);
    gpu.submit(&[], &[(before, None), (timeline, Some(7))], vk::Fence::null(), |_| {})?;
    let batch = rig
        .batch(Batch::new(), buffer, &all(memory))
        .wait(timeline, Some(6))
        .wait(before, None)
        .signal(after, None)
        .signal(timeline, Some(8))
        .signal(other, Some(100));
    gpu.queue_bind(gpu.sparse[0], &[batch], vk::Fence::null()).called("vkQueueBindSparse")?;
    rig.note(buffer, &all(memory));
    let dispatches = [rig.fill(buffer, 0, BLOCKS, 1)];
    let prepared = gpu.prepare(&dispatches)?;
    let fence = gpu.fence()?;
    gpu.submit(&[(after, None), (other, Some(100))], &[], fence, |command| {
        gpu.record_dispatches(command, &dispatches, &prepared.sets);
    })?;
    gpu.wait_fence(fence)?;
    rig.note_write(buffer, 0, BLOCKS, 1);
    rig.verify(buffer)?;
    let (value, other) = (gpu.timeline_value(timeline)?, gpu.timeline_value(other)?);
    check!(value == 8 && other == 100, "the timelines stand at {value} and {other}, not at 8 and 100");
    rig.verify_memory()
}

/// A bind waits for a value that the host signals later.
fn wait_first_host(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, [one, two]) = rig(&gpu)?;
    rig.bind(buffer, &all(one))?;
    let timeline = gpu.timeline(0)?;
    let fence = gpu.fence()?;
    let batch = rig.batch(Batch::new(), buffer, &all(two)).wait(timeline, Some(3)).signal(timeline, Some(4));
    let begin = Instant::now();
    gpu.queue_bind(gpu.sparse[0], &[batch], fence).called("vkQueueBindSparse")?;
    check!(begin.elapsed() < Duration::from_secs(5), "vkQueueBindSparse itself waits for the semaphore");
    gpu.signal_timeline(timeline, 2)?;
    std::thread::sleep(A_WHILE);
    check!(!gpu.fence_signalled(fence)?, "the fence is signalled though the wait is not over");
    check!(gpu.timeline_value(timeline)? == 2, "the bind signals though its wait is not over");
    gpu.signal_timeline(timeline, 3)?;
    gpu.wait_fence(fence)?;
    gpu.wait_timeline(timeline, 4)?;
    rig.note(buffer, &all(two));
    rig.verify(buffer)?;
    rig.write(buffer, 0, BLOCKS, 2)?;
    rig.verify_memory()
}

/// Several binds wait for values of their own on one queue, and are let go one by one.
fn wait_first_several(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, memories) = rig(&gpu)?;
    let (gate, done) = (gpu.timeline(0)?, gpu.timeline(0)?);
    for step in 1..=6_u64 {
        let batch = rig
            .batch(Batch::new(), buffer, &all(memories[step as usize % 2]))
            .wait(gate, Some(step))
            .signal(done, Some(step));
        gpu.queue_bind(gpu.sparse[0], &[batch], vk::Fence::null()).called("vkQueueBindSparse")?;
    }
    for step in 1..=6_u64 {
        check!(gpu.timeline_value(done)? == step - 1, "a bind went ahead of its turn");
        gpu.signal_timeline(gate, step)?;
        gpu.wait_timeline(done, step)?;
    }
    rig.note(buffer, &all(memories[0]));
    rig.verify(buffer)
}

/// Waiting for idle waits for binds that wait.
fn idle_waits(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, memories) = rig(&gpu)?;
    let timeline = gpu.timeline(0)?;
    for (round, memory) in (0_u64..).zip([memories[0], memories[1]]) {
        let batch = rig
            .batch(Batch::new(), buffer, &all(memory))
            .wait(timeline, Some(2 * round + 1))
            .signal(timeline, Some(2 * round + 2));
        gpu.queue_bind(gpu.sparse[0], &[batch], vk::Fence::null()).called("vkQueueBindSparse")?;
        std::thread::scope(|scope| -> Outcome {
            let signal = scope.spawn(|| {
                std::thread::sleep(A_WHILE);
                gpu.signal_timeline(timeline, 2 * round + 1)
            });
            if round == 0 { gpu.wait_queue(gpu.sparse[0]) } else { gpu.wait_idle() }?;
            let value = gpu.timeline_value(timeline)?;
            check!(value == 2 * round + 2, "idle, but the timeline stands at {value}");
            signal.join().unwrap_or(Ok(()))
        })?;
        rig.note(buffer, &all(memory));
        rig.verify(buffer)?;
    }
    Ok(())
}

/// A bind waits for a value that a bind of another queue signals, submitted later.
fn wait_first_other_queue(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, memories) = rig(&gpu)?;
    let other = rig.buffer(BLOCKS)?;
    let timeline = gpu.timeline(0)?;
    let fences = [gpu.fence()?, gpu.fence()?];
    let first = rig.batch(Batch::new(), buffer, &all(memories[0])).wait(timeline, Some(1));
    gpu.queue_bind(gpu.sparse[0], &[first], fences[0]).called("vkQueueBindSparse")?;
    let second = rig.batch(Batch::new(), other, &all(memories[1])).signal(timeline, Some(1));
    gpu.queue_bind(gpu.sparse[1], &[second], fences[1]).called("vkQueueBindSparse")?;
    gpu.wait_fence(fences[1])?;
    gpu.wait_fence(fences[0])?;
    rig.note(buffer, &all(memories[0]));
    rig.note(other, &all(memories[1]));
    rig.verify(buffer)?;
    rig.verify(other)
}

/// A bind on a queue of its own waits for a value that command buffers of the other queue signal later.
fn wait_first_submit(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, [memory, _]) = rig(&gpu)?;
    let Some(queue) = gpu.sparse.iter().copied().find(|queue| *queue != gpu.work) else {
        return Err(crate::outcome::Stop::NotSupported(
            "no queue for binds beside the work queue".to_owned(),
        ));
    };
    let timeline = gpu.timeline(0)?;
    let fence = gpu.fence()?;
    let batch =
        rig.batch(Batch::new(), buffer, &all(memory)).wait(timeline, Some(1)).signal(timeline, Some(2));
    gpu.queue_bind(queue, &[batch], vk::Fence::null()).called("vkQueueBindSparse")?;
    gpu.submit(&[], &[(timeline, Some(1))], vk::Fence::null(), |_| {})?;
    rig.note(buffer, &all(memory));
    let dispatches = [rig.fill(buffer, 0, BLOCKS, 3)];
    let prepared = gpu.prepare(&dispatches)?;
    gpu.submit(&[(timeline, Some(2))], &[], fence, |command| {
        gpu.record_dispatches(command, &dispatches, &prepared.sets);
    })?;
    gpu.wait_fence(fence)?;
    rig.note_write(buffer, 0, BLOCKS, 3);
    rig.verify_memory()
}

/// A bind waits for a value that another device signals, through a shared semaphore.
fn wait_first_shared(ctx: &Ctx) -> Outcome {
    let (here, there) = (ctx.gpu()?, ctx.gpu()?);
    let (mut rig, buffer, [memory, _]) = rig(&here)?;
    let (mine, theirs) = here.shared_timeline(&there)?;
    let fence = here.fence()?;
    let batch = rig.batch(Batch::new(), buffer, &all(memory)).wait(mine, Some(1));
    here.queue_bind(here.sparse[0], &[batch], fence).called("vkQueueBindSparse")?;
    std::thread::sleep(A_WHILE);
    check!(!here.fence_signalled(fence)?, "the fence is signalled though the wait is not over");
    let batch = Batch::new().signal(theirs, Some(1));
    there.queue_bind(there.sparse[0], &[batch], vk::Fence::null()).called("vkQueueBindSparse")?;
    here.wait_fence(fence)?;
    rig.note(buffer, &all(memory));
    rig.verify(buffer)
}

/// A bind that waits on one device does not hold up binds on another.
fn waiting_blocks_nobody(ctx: &Ctx) -> Outcome {
    let (here, there) = (ctx.gpu()?, ctx.gpu()?);
    let (mut waiting, buffer, memories) = rig(&here)?;
    let timeline = here.timeline(0)?;
    let fence = here.fence()?;
    let batch = waiting.batch(Batch::new(), buffer, &all(memories[0])).wait(timeline, Some(1));
    here.queue_bind(here.sparse[0], &[batch], fence).called("vkQueueBindSparse")?;
    let (mut running, other, [one, two]) = rig(&there)?;
    for memory in [one, two, one] {
        running.bind(other, &all(memory))?;
        running.verify(other)?;
    }
    check!(!here.fence_signalled(fence)?, "the bind that waits is said to be done");
    here.signal_timeline(timeline, 1)?;
    here.wait_fence(fence)?;
    waiting.note(buffer, &all(memories[0]));
    waiting.verify(buffer)
}

/// A fence, waited for, reset and used again.
fn fence_only(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, memories) = rig(&gpu)?;
    let fence = gpu.fence()?;
    for round in 0..20 {
        let binds = all(memories[round % 2]);
        let batch = rig.batch(Batch::new(), buffer, &binds);
        gpu.queue_bind(gpu.sparse[0], &[batch], fence).called("vkQueueBindSparse")?;
        gpu.wait_fence(fence)?;
        check!(gpu.fence_signalled(fence)?, "a fence that was waited for is not signalled");
        gpu.reset_fence(fence)?;
        check!(!gpu.fence_signalled(fence)?, "a fence that was reset is signalled");
        rig.note(buffer, &binds);
        rig.verify(buffer)?;
    }
    Ok(())
}

/// No infos, and infos with nothing in them: the fence is signalled all the same.
fn fence_empty(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    for batches in [vec![], vec![Batch::new()], vec![Batch::new(); 5]] {
        let fence = gpu.fence()?;
        gpu.queue_bind(gpu.sparse[0], &batches, fence).called("vkQueueBindSparse")?;
        gpu.wait_fence(fence)?;
        gpu.queue_bind(gpu.sparse[0], &batches, vk::Fence::null()).called("vkQueueBindSparse")?;
    }
    gpu.wait_idle()
}

/// Nothing but waits and signals.
fn semaphores_only(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let timeline = gpu.timeline(0)?;
    let binary = gpu.semaphore()?;
    let batches = [
        Batch::new().signal(binary, None),
        Batch::new().signal(timeline, Some(1)),
        Batch::new().wait(binary, None).wait(timeline, Some(1)).signal(timeline, Some(2)),
        Batch::new().wait(timeline, Some(2)),
    ];
    gpu.bind(&batches)?;
    // lavapipe signals the fence a moment before the counter can be seen.
    gpu.wait_timeline(timeline, 2)?;
    // The binary semaphore is unsignalled again, so that it can be signalled again.
    gpu.bind(&[Batch::new().signal(binary, None)])?;
    gpu.bind(&[Batch::new().wait(binary, None)])
}

/// A signalled value is visible to the host.
fn timeline_value(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (rig, buffer, memories) = rig(&gpu)?;
    let timeline = gpu.timeline(10)?;
    for (round, value) in [11, 12, 100, 1 << 40, u64::MAX >> 2].into_iter().enumerate() {
        let batch = rig.batch(Batch::new(), buffer, &all(memories[round % 2])).signal(timeline, Some(value));
        gpu.queue_bind(gpu.sparse[0], &[batch], vk::Fence::null()).called("vkQueueBindSparse")?;
        gpu.wait_timeline(timeline, value)?;
        let read = gpu.timeline_value(timeline)?;
        check!(read == value, "the timeline stands at {read}, not at {value}");
    }
    Ok(())
}

/// No semaphore and no fence: waiting for idle is enough.
fn idle(ctx: &Ctx, wait: fn(&Gpu) -> Outcome) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, memories) = rig(&gpu)?;
    for round in 0..20 {
        let binds = all(memories[round % 2]);
        gpu.queue_bind(gpu.sparse[0], &[rig.batch(Batch::new(), buffer, &binds)], vk::Fence::null())
            .called("vkQueueBindSparse")?;
        wait(&gpu)?;
        rig.note(buffer, &binds);
        rig.verify(buffer)?;
    }
    Ok(())
}

/// 1024 infos in one call, each with a block of its own.
fn many_infos(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Copy, vk::BufferCreateFlags::empty())?;
    let (buffer, memory) = (rig.buffer(1024)?, rig.memory(64)?);
    for round in 0..2 {
        let binds: Vec<_> =
            (0..1024).map(|block| blocks(block, 1, Some((memory, (block * 7 + round) % 64)))).collect();
        let batches: Vec<_> = binds.iter().map(|bind| rig.batch(Batch::new(), buffer, &[*bind])).collect();
        gpu.bind(&batches)?;
        rig.note(buffer, &binds);
        rig.verify(buffer)?;
    }
    Ok(())
}

/// 1024 infos in one call, each after the one before it, on the same blocks.
fn many_chained_infos(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, memories) = rig(&gpu)?;
    let timeline = gpu.timeline(0)?;
    let batches: Vec<_> = (1..=1024_u64)
        .map(|step| {
            let batch = rig.batch(Batch::new(), buffer, &all(memories[step as usize % 2]));
            batch.wait(timeline, Some(step - 1)).signal(timeline, Some(step))
        })
        .collect();
    gpu.bind(&batches)?;
    rig.note(buffer, &all(memories[0]));
    rig.verify(buffer)
}

/// 20000 binds in one call, none next to the one before it in memory.
fn many_binds(ctx: &Ctx) -> Outcome {
    const COUNT: u64 = 20_000;
    let gpu = ctx.gpu()?;
    let flags = vk::BufferCreateFlags::SPARSE_ALIASED;
    let mut rig = BufferRig::new(&gpu, Access::Copy, flags)?;
    let (buffer, memory) = (rig.buffer(COUNT)?, rig.memory(61)?);
    let handle = rig.buffer_handle(buffer);
    let binds: Vec<_> = (0..COUNT)
        .map(|block| {
            let to = Some((rig.memory_handle(memory), block * 13 % 61 * rig.block));
            memory_bind(block * rig.block, rig.block, to)
        })
        .collect();
    gpu.bind(&[Batch::new().buffer(handle, binds)])?;
    for block in (0..COUNT).step_by(1117).chain([COUNT - 1]) {
        let host = gpu.host(rig.block, vk::BufferUsageFlags::empty())?;
        gpu.copy_buffer(handle, host.buffer, &[(block * rig.block, 0, rig.block)])?;
        let expected = rig.memory_words(memory, block * 13 % 61);
        check!(host.words() == expected, "block {block} reads other data");
        host.free();
    }
    // And all of it gone again in one.
    gpu.bind(&[Batch::new().buffer(handle, vec![memory_bind(0, COUNT * rig.block, None)])])
}

/// Every queue that says so takes binds.
fn every_queue(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, memories) = rig(&gpu)?;
    for (round, &queue) in gpu.sparse.iter().enumerate() {
        let fence = gpu.fence()?;
        let binds = all(memories[round % 2]);
        gpu.queue_bind(queue, &[rig.batch(Batch::new(), buffer, &binds)], fence)
            .called("vkQueueBindSparse")?;
        gpu.wait_fence(fence)?;
        gpu.wait_queue(queue)?;
        rig.note(buffer, &binds);
        rig.verify(buffer)?;
    }
    Ok(())
}

/// `VkDeviceGroupBindSparseInfo` with the one device there is.
fn device_group(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut rig, buffer, [one, two]) = rig(&gpu)?;
    gpu.bind(&[rig.batch(Batch::new(), buffer, &all(one)).device_group(0, 0)])?;
    rig.note(buffer, &all(one));
    rig.verify(buffer)?;
    let binds = [blocks(1, 2, Some((two, 0)))];
    gpu.bind(&[Batch::new().device_group(0, 0), rig.batch(Batch::new(), buffer, &binds).device_group(0, 0)])?;
    rig.note(buffer, &binds);
    rig.verify(buffer)
}

/// What a game does: one info a frame, waiting for value n, signalling n + 1, with a fence, mostly the same binds.
fn frames(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, vk::BufferCreateFlags::empty())?;
    let (buffer, other, memory) = (rig.buffer(32)?, rig.buffer(8)?, rig.memory(64)?);
    let timeline = gpu.timeline(0)?;
    let fence = gpu.fence()?;
    for frame in 0..100_u64 {
        let binds: Vec<_> = (0..32)
            .map(|block| {
                blocks(block, 1, Some((memory, if block == frame % 32 { 32 + frame % 24 } else { block })))
            })
            .collect();
        let few = [blocks(frame % 7, 2, Some((memory, 56 + frame % 7)))];
        let batch = rig.batch(rig.batch(Batch::new(), buffer, &binds), other, &few);
        let batch = batch.wait(timeline, Some(2 * frame)).signal(timeline, Some(2 * frame + 1));
        gpu.queue_bind(gpu.sparse[0], &[batch], fence).called("vkQueueBindSparse")?;
        rig.note(buffer, &binds);
        rig.note(other, &few);
        let dispatches = [rig.fill(buffer, frame % 32, 1, frame as u32)];
        let prepared = gpu.prepare(&dispatches)?;
        let waits = [(timeline, Some(2 * frame + 1))];
        let command =
            gpu.submit(&waits, &[(timeline, Some(2 * frame + 2))], vk::Fence::null(), |command| {
                gpu.record_dispatches(command, &dispatches, &prepared.sets);
            })?;
        rig.note_write(buffer, frame % 32, 1, frame as u32);
        gpu.wait_fence(fence)?;
        gpu.reset_fence(fence)?;
        gpu.wait_timeline(timeline, 2 * frame + 2)?;
        gpu.free_command(command);
        gpu.destroy(crate::gpu::Owned::DescriptorPool(prepared.pool));
        if frame % 20 == 19 {
            rig.verify(buffer)?;
            rig.verify(other)?;
        }
    }
    rig.verify_memory()
}

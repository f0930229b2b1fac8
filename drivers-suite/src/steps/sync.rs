//! Semaphores, fences, and the order of things.

use super::{Needs, Resources, Step};
use crate::gpu::{BLOCK, Gpu, Points};
use anyhow::{Result, ensure};
use ash::vk;
use std::time::Duration;

const SIZE: u64 = 64 * BLOCK;

fn with_semaphores(gpu: &Gpu) -> Result<Resources> {
    Ok(Resources {
        buffers: vec![gpu.residency_buffer(SIZE)?, gpu.residency_buffer(SIZE)?],
        semaphores: vec![gpu.timeline()?, gpu.timeline()?, gpu.semaphore()?, gpu.semaphore()?],
        ..Default::default()
    })
}

/// A wait for what is signalled later, and binds behind it; another queue goes on meanwhile.
fn wait_before_signal(gpu: &Gpu, on: &Resources) -> Result<()> {
    let [first, second] = on.buffers[..] else { unreachable!("made two") };
    let [a, b, ..] = on.semaphores[..] else { unreachable!("made four") };
    let none = vk::Fence::null();
    let points = Points { waits: &[(a, 1)], signals: &[(b, 1)] };
    gpu.submit(gpu.queue, Some((first, gpu.part(0, BLOCK, 0))), points, none)?;
    let behind = Points { signals: &[(b, 2)], ..Default::default() };
    gpu.submit(gpu.queue, Some((first, gpu.part(0, 2 * BLOCK, 8 * BLOCK))), behind, none)?;
    let other = gpu.timeline()?;
    let points = Points { signals: &[(other, 1)], ..Default::default() };
    gpu.submit(gpu.other, Some((second, gpu.part(BLOCK, BLOCK, 0))), points, none)?;
    gpu.wait(other, 1)?;
    // SAFETY: a timeline of the device.
    let value = unsafe { gpu.device.get_semaphore_counter_value(b)? };
    ensure!(value == 0, "a bind did not wait");
    gpu.signal(a, 1)?;
    gpu.wait(b, 2)?;
    // SAFETY: nothing is submitted any more.
    unsafe {
        gpu.device.queue_wait_idle(gpu.other)?;
        gpu.device.destroy_semaphore(other, None);
    }
    Ok(())
}

/// Binary semaphores between two queues, again and again, and between binds and submits.
fn binary(gpu: &Gpu, on: &Resources) -> Result<()> {
    let [first, second] = on.buffers[..] else { unreachable!("made two") };
    let [.., c, e] = on.semaphores[..] else { unreachable!("made four") };
    let none = vk::Fence::null();
    for round in 0..8 {
        let bind = |buffer| Some((buffer, gpu.part(round * BLOCK, BLOCK, (7 - round) * BLOCK)));
        gpu.submit(gpu.queue, bind(first), Points { signals: &[(c, 0)], ..Default::default() }, none)?;
        let stages = [vk::PipelineStageFlags::ALL_COMMANDS];
        let (waits, signals) = ([c], [e]);
        let between = vk::SubmitInfo::default()
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signals);
        // SAFETY: valid arguments; one thread uses the queue.
        unsafe { gpu.device.queue_submit(gpu.other, &[between], none)? };
        gpu.submit(gpu.queue, bind(second), Points { waits: &[(e, 0)], ..Default::default() }, none)?;
    }
    // SAFETY: the device is alive.
    unsafe { gpu.device.device_wait_idle()? };
    Ok(())
}

/// Two threads whose queues take turns: each bind waits for one of the other's, most of them for one that is submitted later.
fn turns(gpu: &Gpu, on: &Resources) -> Result<()> {
    const ROUNDS: u64 = 32;
    let [first, second] = on.buffers[..] else { unreachable!("made two") };
    let [a, b, ..] = on.semaphores[..] else { unreachable!("made four") };
    let play = |queue, buffer, (other, ahead), own| {
        (0..ROUNDS).try_for_each(|round| {
            let part = gpu.part(round * BLOCK, 2 * BLOCK, (2 * ROUNDS - 2 * round) * BLOCK);
            let points = Points { waits: &[(other, round + ahead)], signals: &[(own, round + 1)] };
            gpu.submit(queue, Some((buffer, part)), points, vk::Fence::null())
        })
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| play(gpu.other, second, (a, 1), b));
        let result = play(gpu.queue, first, (b, 0), a);
        result.and(other.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))))
    })?;
    gpu.wait(b, ROUNDS)
}

/// A fence and no bind; a bind and nothing else, and waiting for the queue.
fn idle(gpu: &Gpu, on: &Resources) -> Result<()> {
    gpu.bind(&[])?;
    gpu.bind(&[vk::BindSparseInfo::default()])?;
    gpu.submit(
        gpu.queue,
        Some((on.buffers[0], gpu.part(0, BLOCK, 0))),
        Points::default(),
        vk::Fence::null(),
    )?;
    // SAFETY: the device is alive.
    unsafe { gpu.device.queue_wait_idle(gpu.queue)? };
    Ok(())
}

/// A semaphore whose payload came from elsewhere, as the presentation engine's do.
fn imported(gpu: &Gpu, on: &Resources) -> Result<()> {
    let [.., c, e] = on.semaphores[..] else { unreachable!("made four") };
    let fds = gpu.semaphore_fd();
    let kind = vk::ExternalSemaphoreHandleTypeFlags::SYNC_FD;
    let mut export = vk::ExportSemaphoreCreateInfo::default().handle_types(kind);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut export);
    // SAFETY: valid arguments; what is signalled has been submitted when it is exported.
    unsafe {
        let source = gpu.device.create_semaphore(&info, None)?;
        for (round, target) in (0..).zip([c, e]) {
            let points = Points { signals: &[(source, 0)], ..Default::default() };
            gpu.submit(gpu.other, None, points, vk::Fence::null())?;
            let get = vk::SemaphoreGetFdInfoKHR::default().semaphore(source).handle_type(kind);
            let fd = fds.get_semaphore_fd(&get)?;
            let import = vk::ImportSemaphoreFdInfoKHR::default()
                .semaphore(target)
                .flags(vk::SemaphoreImportFlags::TEMPORARY)
                .handle_type(kind)
                .fd(fd);
            fds.import_semaphore_fd(&import)?;
            let part = gpu.part(round * BLOCK, BLOCK, 0);
            let points = Points { waits: &[(target, 0)], ..Default::default() };
            gpu.submit(gpu.queue, Some((on.buffers[0], part)), points, vk::Fence::null())?;
            // The semaphore has its own payload back.
            let points = Points { signals: &[(target, 0)], ..Default::default() };
            gpu.submit(gpu.queue, None, points, vk::Fence::null())?;
            let points = Points { waits: &[(target, 0)], ..Default::default() };
            gpu.submit(gpu.other, None, points, vk::Fence::null())?;
        }
        gpu.device.device_wait_idle()?;
        gpu.device.destroy_semaphore(source, None);
    }
    Ok(())
}

/// The bind queue of the kernel's on which Turnip maps by itself: the first one that it makes.
pub const DRIVERS_OWN: u32 = 1;

/// Binds right after creation, while the driver's own job for the new resource is held up and everything else runs: they must not come
/// before it.
fn right_after_creation(gpu: &Gpu, on: &Resources) -> Result<()> {
    let [timeline, ..] = on.semaphores[..] else { unreachable!("made four") };
    let submitted = gpu.node.without(DRIVERS_OWN, || {
        let buffer = gpu.residency_buffer(SIZE)?;
        for (value, queue) in (1..).zip([gpu.queue, gpu.other]) {
            let points = Points { signals: &[(timeline, value)], ..Default::default() };
            let part = gpu.part((value - 1) * SIZE / 2, SIZE / 2, 0);
            gpu.submit(queue, Some((buffer, part)), points, vk::Fence::null())?;
        }
        std::thread::sleep(Duration::from_millis(50));
        // SAFETY: a timeline of the device.
        let value = unsafe { gpu.device.get_semaphore_counter_value(timeline)? };
        // Without residency the driver maps nothing.
        let maps = gpu.features.sparse_residency_buffer == vk::TRUE;
        ensure!(value == 0 || !maps, "a bind came before the driver's own");
        Ok(buffer)
    });
    let buffer = submitted?;
    gpu.wait(timeline, 2)?;
    let bound = gpu.node.page_table()?;
    let halves = bound.iter().filter(|mapping| mapping.len == SIZE / 2 && mapping.object.is_some());
    ensure!(halves.count() == 2, "the binds are not there");
    // SAFETY: the binds are over.
    unsafe { gpu.device.destroy_buffer(buffer, None) };
    Ok(())
}

pub fn steps() -> Vec<Step> {
    let step =
        |name, needs, run| Step { name, needs, prepare: with_semaphores, run, fewest: None, extra: false };
    vec![
        step("wait before signal", Needs::TwoBindQueues, wait_before_signal),
        step("binary semaphores", Needs::Nothing, binary),
        step("two threads in turns", Needs::TwoBindQueues, turns),
        step("fences and idle", Needs::Nothing, idle),
        step("imported semaphores", Needs::Nothing, imported),
        step("right after creation", Needs::OwnQueue, right_after_creation),
    ]
}

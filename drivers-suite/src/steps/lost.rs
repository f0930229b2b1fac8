//! What fails in the kernel: calls that are refused, and jobs that go wrong when their calls have long returned. Devices that are lost are
//! the steps' own; the suite's must not notice.

use super::{Needs, Resources, Step, is_layered};
use crate::gpu::{BLOCK, Gpu, Points};
use anyhow::{Context as _, Result, ensure};
use ash::vk;
use client::Emulator;
use std::sync::mpsc;
use std::time::Duration;

const SIZE: u64 = 64 * BLOCK;

/// Long enough for anything that ends at all.
const PATIENCE: Duration = Duration::from_secs(60);

fn emulator() -> Result<Emulator> {
    Emulator::find().context("only the emulated node fails when it is asked to")
}

/// Runs `body`, which ends the process with an error if it does not come to its end.
fn in_time<R>(body: impl FnOnce() -> R) -> R {
    let (ended, watch) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        if watch.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!(
                "a call on a lost device does not return, or the device leaves something in the kernel"
            );
            std::process::abort();
        }
    });
    let result = body();
    drop(ended);
    result
}

fn one_buffer(gpu: &Gpu) -> Result<Resources> {
    Ok(Resources { buffers: vec![gpu.residency_buffer(SIZE)?], ..Default::default() })
}

fn is_lost<T>(result: &Result<T>) -> bool {
    matches!(result, Err(error) if error.downcast_ref() == Some(&vk::Result::ERROR_DEVICE_LOST))
}

/// What is to be seen of a device that was lost: binds say so, nothing hangs, and it can be destroyed with all that it has.
fn check_lost(gpu: Gpu, buffer: vk::Buffer) -> Result<()> {
    let fence = gpu.fence()?;
    let queues = [Some(gpu.queue), gpu.other_binds.then_some(gpu.other)];
    for (n, queue) in (2..).zip(queues.into_iter().flatten().cycle().take(4)) {
        let bind = Some((buffer, gpu.part(n * BLOCK, BLOCK, 0)));
        let bound = gpu.submit(queue, bind, Points::default(), fence);
        ensure!(is_lost(&bound), "a bind on a lost device: {bound:?}");
    }
    // SAFETY: the device's own objects; it need not do anything with them any more.
    unsafe {
        // Any of these may say that the device is lost, or nothing of it.
        let _ = gpu.device.queue_submit(gpu.other, &[vk::SubmitInfo::default()], vk::Fence::null());
        let _ = gpu.device.queue_wait_idle(gpu.queue);
        let _ = gpu.device.device_wait_idle();
        if let Ok(another) = gpu.residency_buffer(SIZE) {
            gpu.device.destroy_buffer(another, None);
        }
        gpu.device.destroy_buffer(buffer, None);
        gpu.device.destroy_fence(fence, None);
    }
    drop(gpu);
    Ok(())
}

/// Has a new device be lost, and shows that it leaves nothing behind, and that the suite's own goes on.
fn lose(suite: &Gpu, on: &Resources, lose: fn(&Gpu, vk::Buffer) -> Result<()>) -> Result<()> {
    let emulator = emulator()?;
    let before = emulator.counters().live_bos;
    in_time(|| {
        let gpu = Gpu::new()?;
        let buffer = gpu.residency_buffer(SIZE)?;
        gpu.bind_buffer(buffer, &[gpu.part(0, BLOCK, 0)])?;
        lose(&gpu, buffer)?;
        check_lost(gpu, buffer)?;
        // Its last jobs have threads of their own. The driver alone keeps objects after a call that failed half way.
        while is_layered() && emulator.counters().live_bos > before {
            std::thread::sleep(Duration::from_millis(1));
        }
        anyhow::Ok(())
    })?;
    suite.bind_buffer(on.buffers[0], &[suite.part(BLOCK, 2 * BLOCK, 0)])
}

/// A job of a bind queue fails.
fn failed_job(suite: &Gpu, on: &Resources) -> Result<()> {
    lose(suite, on, |gpu, buffer| {
        emulator()?.fail("op:1")?;
        // Its fence says that it is over, not how it went.
        let bound = gpu.bind_buffer(buffer, &[gpu.part(BLOCK, BLOCK, 0)]);
        ensure!(bound.is_ok() || is_lost(&bound), "{bound:?}");
        Ok(())
    })
}

/// A call fails half way: what it has changed by then nobody knows.
fn failed_call(suite: &Gpu, on: &Resources) -> Result<()> {
    lose(suite, on, |gpu, buffer| {
        // Some of the allocations before are for semaphores.
        emulator()?.fail("alloc:8")?;
        let blocks: Vec<_> = (1..32).map(|n| gpu.part(n * 2 * BLOCK, BLOCK, 0)).collect();
        let bound = gpu.bind_buffer(buffer, &blocks);
        ensure!(is_lost(&bound), "a bind that fails half way: {bound:?}");
        Ok(())
    })
}

/// A job of the GPU hangs, and takes the address space along.
fn hung_gpu(suite: &Gpu, on: &Resources) -> Result<()> {
    lose(suite, on, |gpu, _| {
        emulator()?.fail("job:1")?;
        let (fence, semaphore) = (gpu.fence()?, [gpu.semaphore()?]);
        let info = vk::SubmitInfo::default().signal_semaphores(&semaphore);
        // SAFETY: valid arguments; one thread uses the queue.
        unsafe {
            let submitted = gpu.device.queue_submit(gpu.other, &[info], fence);
            let waited = submitted.and_then(|()| gpu.device.wait_for_fences(&[fence], true, u64::MAX));
            ensure!(matches!(waited, Ok(()) | Err(vk::Result::ERROR_DEVICE_LOST)), "{waited:?}");
            gpu.device.destroy_fence(fence, None);
            gpu.device.destroy_semaphore(semaphore[0], None);
        }
        Ok(())
    })
}

/// How it shows that the device is lost while binds wait.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    /// A bind of another queue is refused; what the others wait for never comes.
    Elsewhere,
    /// What they wait for comes, and they are refused.
    ByThemselves,
}

/// Binds that wait for a semaphore when the device is lost: those who wait for them must not wait for ever.
fn lose_while_waiting(gpu: &Gpu, buffer: vk::Buffer, shown: Shown) -> Result<()> {
    let one = |n| Some((buffer, gpu.part(n * BLOCK, BLOCK, 0)));
    let (timeline, awaited, binary) = (gpu.timeline()?, gpu.timeline()?, gpu.semaphore()?);
    let (fence, failed) = (gpu.fence()?, gpu.fence()?);
    let points = Points { waits: &[(awaited, 1)], signals: &[(timeline, 1)] };
    gpu.submit(gpu.queue, one(1), points, vk::Fence::null())?;
    gpu.submit(gpu.queue, one(2), Points { signals: &[(binary, 0)], ..Default::default() }, fence)?;
    emulator()?.fail("op:1")?;
    gpu.submit(gpu.other, one(8), Points::default(), failed)?;
    let ended = |waited| matches!(waited, Ok(()) | Err(vk::Result::ERROR_DEVICE_LOST));
    // SAFETY: objects of the device.
    unsafe {
        // PanVK looks at its VM, and says that the device is lost.
        ensure!(ended(gpu.device.wait_for_fences(&[failed], true, u64::MAX)), "the fence of the failed bind");
        if shown == Shown::Elsewhere {
            let bound = gpu.submit(gpu.other, one(9), Points::default(), vk::Fence::null());
            ensure!(is_lost(&bound), "a bind on a lost device: {bound:?}");
        } else {
            gpu.signal(awaited, 1)?;
            // PanVK may say that the device is lost before the layer has seen it: until then, binds wait behind the others.
            let bind = || gpu.submit(gpu.queue, one(3), Points::default(), vk::Fence::null());
            while !is_lost(&bind()) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        ensure!(ended(gpu.device.wait_for_fences(&[fence], true, u64::MAX)), "a fence of a lost device");
        let (semaphores, values) = ([timeline], [1]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        ensure!(ended(gpu.device.wait_semaphores(&info, u64::MAX)), "a semaphore of a lost device");
        let _ = gpu.device.queue_wait_idle(gpu.queue);
        for semaphore in [timeline, awaited, binary] {
            gpu.device.destroy_semaphore(semaphore, None);
        }
        for fence in [fence, failed] {
            gpu.device.destroy_fence(fence, None);
        }
    }
    Ok(())
}

fn lost_elsewhere(suite: &Gpu, on: &Resources) -> Result<()> {
    lose(suite, on, |gpu, buffer| lose_while_waiting(gpu, buffer, Shown::Elsewhere))
}

fn lost_by_waiting(suite: &Gpu, on: &Resources) -> Result<()> {
    lose(suite, on, |gpu, buffer| lose_while_waiting(gpu, buffer, Shown::ByThemselves))
}

/// Ioctls that the kernel has no memory for: a bind is done, or says so and has done nothing.
fn no_memory(gpu: &Gpu, on: &Resources) -> Result<()> {
    let emulator = emulator()?;
    let fence = gpu.fence()?;
    // SAFETY: a fence that nothing uses when it is reset and destroyed.
    unsafe {
        for n in 1..7 {
            let bind = || {
                let part = gpu.part(3 * n * BLOCK, 2 * BLOCK, (6 - n) * BLOCK);
                gpu.submit(gpu.queue, Some((on.buffers[0], part)), Points::default(), fence)
            };
            emulator.fail(&format!("ioctl:{n}"))?;
            let bound = bind();
            emulator.fail("")?;
            if let Err(error) = bound {
                let result: Option<&vk::Result> = error.downcast_ref();
                let memory = [vk::Result::ERROR_OUT_OF_HOST_MEMORY, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY];
                ensure!(
                    result.is_some_and(|result| memory.contains(result)),
                    "a bind without memory: {error}"
                );
                bind().context("the second time")?;
            }
            gpu.device.wait_for_fences(&[fence], true, PATIENCE.as_nanos() as u64)?;
            gpu.device.reset_fences(&[fence])?;
        }
        gpu.device.destroy_fence(fence, None);
    }
    Ok(())
}

pub fn steps() -> Vec<Step> {
    let step = |name, needs, prepare, run| Step { name, needs, prepare, run, fewest: None, extra: false };
    vec![
        step("no memory for an ioctl", Needs::Faults, one_buffer, no_memory),
        step("lost: a job of binds fails", Needs::Faults, one_buffer, failed_job),
        step("lost: a bind fails half way", Needs::FaultsOfMsm, one_buffer, failed_call),
        step("lost: a job of the GPU hangs", Needs::FaultsOfMsm, one_buffer, hung_gpu),
        // Under the driver alone, who waits for them waits for ever.
        step("lost: binds that wait", Needs::LayerAndFaults, one_buffer, lost_by_waiting),
        step("lost: binds that wait for nothing", Needs::LayerAndFaults, one_buffer, lost_elsewhere),
    ]
}

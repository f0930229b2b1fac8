//! What is submitted to the queues of a device with added ones, and waiting for it.

use super::schedule::{POLL, Place, Point, Turn, points};
use super::{Added, choose};
use crate::arrays::slice;
use crate::chain;
use crate::device::{Device, on_device};
use crate::queue::BindQueue;
use crate::semaphore::Points;
use ash::vk;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A batch of a submission, in the old structure or the new one.
trait Batch {
    /// # Safety
    /// The batch is valid, here and below.
    unsafe fn waits(&self) -> Vec<Point>;
    /// # Safety
    /// See [`Self::waits`].
    unsafe fn signals(&self) -> Vec<Point>;
    /// Hands a copy on later. Device groups of one have nothing to say in `pNext`, and what else extends a batch belongs to extensions
    /// that no driver has whose binding the layer owns.
    ///
    /// # Safety
    /// See [`Self::waits`].
    unsafe fn to_place(&self, fence: vk::Fence) -> Place;
}

impl Batch for vk::SubmitInfo<'_> {
    unsafe fn waits(&self) -> Vec<Point> {
        // SAFETY: the caller's promise, here and below.
        unsafe {
            let timeline = chain::find::<vk::TimelineSemaphoreSubmitInfo<'_>>(self.p_next);
            let values = timeline.map(|t| (t.p_wait_semaphore_values, t.wait_semaphore_value_count));
            points(Points::new(self.p_wait_semaphores, self.wait_semaphore_count, values)).collect()
        }
    }

    unsafe fn signals(&self) -> Vec<Point> {
        // SAFETY: the caller's promise, here and below.
        unsafe {
            let timeline = chain::find::<vk::TimelineSemaphoreSubmitInfo<'_>>(self.p_next);
            let values = timeline.map(|t| (t.p_signal_semaphore_values, t.signal_semaphore_value_count));
            points(Points::new(self.p_signal_semaphores, self.signal_semaphore_count, values)).collect()
        }
    }

    unsafe fn to_place(&self, fence: vk::Fence) -> Place {
        // SAFETY: the caller's promise.
        let (waits, signals, stages, commands) = unsafe {
            (
                self.waits(),
                self.signals(),
                slice(self.p_wait_dst_stage_mask, self.wait_semaphore_count).to_vec(),
                slice(self.p_command_buffers, self.command_buffer_count).to_vec(),
            )
        };
        let (waits, wait_values): (Vec<_>, Vec<_>) = waits.into_iter().unzip();
        let (signals, signal_values): (Vec<_>, Vec<_>) = signals.into_iter().unzip();
        Box::new(move |d, queue| {
            let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
                .wait_semaphore_values(&wait_values)
                .signal_semaphore_values(&signal_values);
            let submit = vk::SubmitInfo::default()
                .wait_semaphores(&waits)
                .wait_dst_stage_mask(&stages)
                .command_buffers(&commands)
                .signal_semaphores(&signals)
                .push_next(&mut timeline);
            // SAFETY: the application's valid batch, which is pending until it is over.
            unsafe { d.next.queue_submit(queue, &[submit], fence) }
        })
    }
}

/// # Safety
/// The array is valid.
unsafe fn points2(infos: *const vk::SemaphoreSubmitInfo<'_>, count: u32) -> Vec<Point> {
    // SAFETY: the caller's promise.
    unsafe { slice(infos, count) }.iter().map(|info| (info.semaphore, info.value)).collect()
}

impl Batch for vk::SubmitInfo2<'_> {
    unsafe fn waits(&self) -> Vec<Point> {
        // SAFETY: the caller's promise.
        unsafe { points2(self.p_wait_semaphore_infos, self.wait_semaphore_info_count) }
    }

    unsafe fn signals(&self) -> Vec<Point> {
        // SAFETY: the caller's promise.
        unsafe { points2(self.p_signal_semaphore_infos, self.signal_semaphore_info_count) }
    }

    unsafe fn to_place(&self, fence: vk::Fence) -> Place {
        let copy = |infos: &[vk::SemaphoreSubmitInfo<'_>]| -> Vec<_> {
            infos.iter().map(|info| (info.semaphore, info.value, info.stage_mask)).collect()
        };
        // SAFETY: the caller's promise.
        let (waits, signals, commands) = unsafe {
            (
                copy(slice(self.p_wait_semaphore_infos, self.wait_semaphore_info_count)),
                copy(slice(self.p_signal_semaphore_infos, self.signal_semaphore_info_count)),
                slice(self.p_command_buffer_infos, self.command_buffer_info_count),
            )
        };
        let commands: Vec<_> = commands.iter().map(|info| info.command_buffer).collect();
        let flags = self.flags;
        let infos = |points: &[(vk::Semaphore, u64, vk::PipelineStageFlags2)]| -> Vec<_> {
            let info = |&(semaphore, value, stages): &_| {
                vk::SemaphoreSubmitInfo::default().semaphore(semaphore).value(value).stage_mask(stages)
            };
            points.iter().map(info).collect()
        };
        Box::new(move |d, queue| {
            let (waits, signals) = (infos(&waits), infos(&signals));
            let command = |&command| vk::CommandBufferSubmitInfo::default().command_buffer(command);
            let commands: Vec<_> = commands.iter().map(command).collect();
            let submit = vk::SubmitInfo2::default()
                .flags(flags)
                .wait_semaphore_infos(&waits)
                .command_buffer_infos(&commands)
                .signal_semaphore_infos(&signals);
            // SAFETY: the application's valid batch, which is pending until it is over.
            unsafe { d.next.queue_submit2(queue, &[submit], fence) }
        })
    }
}

/// Places the batches that can be, defers the rest. `next` hands the first so many batches to the driver as they are.
///
/// # Safety
/// `batches` is valid.
unsafe fn submit<B: Batch>(
    d: &Arc<Device>,
    added: &Added,
    queue: vk::Queue,
    batches: &[B],
    fence: vk::Fence,
    next: impl FnOnce(vk::Queue, u32, vk::Fence) -> vk::Result,
) -> vk::Result {
    let mut turn = added.schedule.turn(d, queue, added.driver_queue(queue));
    let mut ready = 0;
    // A batch may wait for one before it.
    for batch in batches {
        // SAFETY: the caller's promise, here and below.
        let (waits, signals) = unsafe { (batch.waits(), batch.signals()) };
        if !turn.is_ready(waits.into_iter()) {
            break;
        }
        turn.placed(signals.into_iter());
        ready += 1;
    }
    if ready == batches.len() && turn.is_empty() {
        let result = next(turn.driver_queue(), ready as u32, fence);
        // SAFETY: as above.
        return unsafe { revoked(&mut turn, batches, result) };
    }
    let (placed, rest) = batches.split_at(ready);
    if !placed.is_empty() {
        let result = next(turn.driver_queue(), ready as u32, vk::Fence::null());
        // SAFETY: as above.
        let result = unsafe { revoked(&mut turn, placed, result) };
        if result != vk::Result::SUCCESS {
            return result;
        }
    }
    if rest.is_empty() {
        let place: Place = Box::new(move |d, queue| {
            // SAFETY: the application's fence, which is in use until it is signalled.
            unsafe { d.next.queue_submit(queue, &[], fence) }
        });
        return of(turn.defer([].into_iter(), [].into_iter(), fence, place));
    }
    for (number, batch) in rest.iter().enumerate() {
        let fence = if number + 1 == rest.len() { fence } else { vk::Fence::null() };
        // SAFETY: as above.
        let (waits, signals, place) = unsafe { (batch.waits(), batch.signals(), batch.to_place(fence)) };
        if let Err(error) = turn.defer(waits.into_iter(), signals.into_iter(), fence, place) {
            return error;
        }
    }
    vk::Result::SUCCESS
}

fn of(result: Result<(), vk::Result>) -> vk::Result {
    result.err().unwrap_or(vk::Result::SUCCESS)
}

/// Takes back what was noted for batches that the driver refused.
///
/// # Safety
/// `batches` is valid.
unsafe fn revoked<B: Batch>(turn: &mut Turn<'_>, batches: &[B], result: vk::Result) -> vk::Result {
    if result != vk::Result::SUCCESS {
        for batch in batches {
            // SAFETY: the caller's promise.
            turn.not_placed(unsafe { batch.signals() }.into_iter());
        }
    }
    result
}

pub(crate) unsafe extern "system" fn queue_submit(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    on_device(queue, "vkQueueSubmit", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let next =
            |queue, count, fence| unsafe { (d.next.fp_v1_0().queue_submit)(queue, count, submits, fence) };
        choose(
            d,
            // SAFETY: as above.
            |added| unsafe { submit(d, added, queue, slice(submits, count), fence, next) },
            || next(queue, count, fence),
        )
    })
}

pub(crate) unsafe extern "system" fn queue_submit2(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo2<'_>,
    fence: vk::Fence,
) -> vk::Result {
    on_device(queue, "vkQueueSubmit2", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let next =
            |queue, count, fence| unsafe { (d.next.fp_v1_3().queue_submit2)(queue, count, submits, fence) };
        choose(
            d,
            // SAFETY: as above.
            |added| unsafe { submit(d, added, queue, slice(submits, count), fence, next) },
            || next(queue, count, fence),
        )
    })
}

/// Waits until everything that was placed on a driver's queue is over. `turn` is its holder's, and given up meanwhile.
fn finish(d: &Device, driver: vk::Queue, hold: impl Sized) -> Result<(), vk::Result> {
    // SAFETY: the device is alive; the fence is ours, used once, and destroyed after it was waited for or the device is lost.
    unsafe {
        let fence = d.next.create_fence(&vk::FenceCreateInfo::default(), None)?;
        let submitted = d.next.queue_submit(driver, &[], fence);
        drop(hold);
        let finished = submitted.and_then(|()| d.next.wait_for_fences(&[fence], true, u64::MAX));
        d.next.destroy_fence(fence, None);
        finished
    }
}

/// Waits for the binds of queues too, after the driver has waited for theirs.
fn wait_for_binds(
    waited: vk::Result,
    queues: impl IntoIterator<Item = Arc<Arc<dyn BindQueue>>>,
) -> vk::Result {
    if waited != vk::Result::SUCCESS {
        return waited;
    }
    of(queues.into_iter().try_for_each(|queue| queue.wait_idle()))
}

pub(crate) unsafe extern "system" fn queue_wait_idle(queue: vk::Queue) -> vk::Result {
    on_device(queue, "vkQueueWaitIdle", |d, sparse| {
        let driver = d.added.as_ref().map_or(queue, |added| added.driver_queue(queue));
        let waited = choose(
            d,
            |added| {
                // Waits for other queues' work too, which ends without help, as all that was placed does.
                let turn = added.schedule.turn_after(d, queue, driver, &[]);
                of(finish(d, driver, turn))
            },
            // SAFETY: the application's valid argument, handed on.
            || unsafe { (d.next.fp_v1_0().queue_wait_idle)(queue) },
        );
        wait_for_binds(waited, sparse.and_then(|sparse| sparse.queues.get(driver)))
    })
}

pub(crate) unsafe extern "system" fn device_wait_idle(device: vk::Device) -> vk::Result {
    on_device(device, "vkDeviceWaitIdle", |d, sparse| {
        // SAFETY: the application's valid argument, handed on.
        let next = || unsafe { (d.next.fp_v1_0().device_wait_idle)(device) };
        let waited = choose(
            d,
            |added| {
                // No queue may be used by others meanwhile (host synchronisation of vkDeviceWaitIdle): nothing new comes.
                for driver in added.schedule.drain() {
                    let turn = added.schedule.turn(d, driver, driver);
                    if let Err(error) = finish(d, driver, turn) {
                        return error;
                    }
                }
                added.schedule.alone(next)
            },
            next,
        );
        let waited = wait_for_binds(waited, sparse.iter().flat_map(|sparse| sparse.queues.all()));
        if let Some(sparse) = sparse {
            sparse.address_space.verify_idle();
        }
        waited
    })
}

pub(crate) unsafe extern "system" fn queue_present_khr(
    queue: vk::Queue,
    info: *const vk::PresentInfoKHR<'_>,
) -> vk::Result {
    on_device(queue, "vkQueuePresentKHR", |d, _| {
        // SAFETY: the next layer's function of this name.
        let next = unsafe { d.next_function::<vk::PFN_vkQueuePresentKHR>(c"vkQueuePresentKHR") };
        let Some(next) = next else { return vk::Result::ERROR_EXTENSION_NOT_PRESENT };
        choose(
            d,
            |added| {
                if added.owns(queue) {
                    tracing::error!("vkQueuePresentKHR: queues of the added family present nothing");
                    return vk::Result::ERROR_VALIDATION_FAILED_EXT;
                }
                // SAFETY: the application's valid arguments.
                let waits = unsafe { slice((*info).p_wait_semaphores, (*info).wait_semaphore_count) };
                let _turn = added.schedule.turn_after(d, queue, queue, waits);
                // SAFETY: as above, handed on.
                unsafe { next(queue, info) }
            },
            // SAFETY: as above.
            || unsafe { next(queue, info) },
        )
    })
}

pub(crate) unsafe extern "system" fn signal_semaphore(
    device: vk::Device,
    info: *const vk::SemaphoreSignalInfo<'_>,
) -> vk::Result {
    on_device(device, "vkSignalSemaphore", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let result = unsafe { (d.next.fp_v1_2().signal_semaphore)(device, info) };
        if let Some(added) = &d.added {
            added.schedule.wake();
        }
        result
    })
}

pub(crate) unsafe extern "system" fn get_fence_status(device: vk::Device, fence: vk::Fence) -> vk::Result {
    on_device(device, "vkGetFenceStatus", |d, _| {
        if d.added.as_ref().is_some_and(|added| added.schedule.defers(fence)) {
            return vk::Result::NOT_READY;
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().get_fence_status)(device, fence) }
    })
}

pub(crate) unsafe extern "system" fn wait_for_fences(
    device: vk::Device,
    count: u32,
    fences: *const vk::Fence,
    all: vk::Bool32,
    timeout: u64,
) -> vk::Result {
    on_device(device, "vkWaitForFences", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let next = |fences: &[vk::Fence], timeout| unsafe {
            (d.next.fp_v1_0().wait_for_fences)(device, fences.len() as u32, fences.as_ptr(), all, timeout)
        };
        // SAFETY: as above.
        let asked = unsafe { slice(fences, count) };
        let Some(added) = &d.added else { return next(asked, timeout) };
        // A time that the clock cannot express is none.
        let deadline = Instant::now().checked_add(Duration::from_nanos(timeout));
        loop {
            let mut placed = asked.to_vec();
            if !added.schedule.wait_placed(&mut placed, all == vk::TRUE, deadline) {
                return vk::Result::TIMEOUT;
            }
            let left = deadline.map_or(timeout, |deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                u64::try_from(left.as_nanos()).unwrap_or(u64::MAX)
            });
            if placed.len() == asked.len() {
                return next(&placed, left);
            }
            // One that is not placed yet may be the first to be signalled.
            let result = next(&placed, left.min(POLL.as_nanos() as u64));
            if result != vk::Result::TIMEOUT || left == 0 {
                return result;
            }
        }
    })
}

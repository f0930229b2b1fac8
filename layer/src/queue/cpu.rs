//! vkQueueBindSparse on a CPU driver: binds happen in the calling thread when nothing has to be waited for, otherwise on a worker
//! between two empty submits of the driver's queue.
//!
//! The first empty submit waits for the application's semaphores and signals `begun`; the worker waits for that, binds, and signals
//! `bound`; the second waits for `bound` and makes the application's signals. The driver runs a queue in order, so whatever is
//! submitted later stays behind, and waiting for the queue waits for the binds.

use super::worker::Worker;
use super::{BindQueue, Group, Spare};
use crate::address_space::Want;
use crate::device::{Device, Sparse};
use crate::semaphore::{self, Points};
use ash::vk;
use gpuvm::FenceSignal;
use kmd::Errno;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;

/// How long a worker waits at a time before it looks whether its device is being destroyed, in nanoseconds.
const PATIENCE: u64 = 50_000_000;

/// A queue that binds.
pub struct Queue {
    number: u32,
    begun: vk::Semaphore,
    bound: vk::Semaphore,
    jobs: Mutex<Jobs>,
    wake: Condvar,
    worker: Worker,
    spare: Spare,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Number of the last job that was submitted, and of the last that is done.
    submitted: u64,
    done: u64,
    stop: bool,
}

struct Job {
    number: u64,
    wants: Vec<Want>,
    /// Tells the objects that are named that the bind is done.
    announced: FenceSignal,
}

impl Queue {
    /// `number` names the queue in the log of the address space.
    pub fn new(device: &ash::Device, number: u32) -> Result<Self, vk::Result> {
        let mut timeline = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut timeline);
        // SAFETY: the device has timeline semaphores on.
        let begun = unsafe { device.create_semaphore(&info, None) }?;
        // SAFETY: as above.
        let bound = unsafe { device.create_semaphore(&info, None) }.inspect_err(|_| {
            // SAFETY: made above, used nowhere.
            unsafe { device.destroy_semaphore(begun, None) };
        })?;
        Ok(Self {
            number,
            begun,
            bound,
            jobs: Mutex::default(),
            wake: Condvar::new(),
            worker: Worker::default(),
            spare: Spare::default(),
        })
    }

    /// Whether everything that was handed to the worker is bound.
    fn is_idle(&self) -> bool {
        let jobs = self.jobs.lock();
        jobs.done == jobs.submitted
    }

    fn work(&self, d: &Device) {
        let Some(sparse) = &d.sparse else { return };
        loop {
            let job = {
                let mut jobs = self.jobs.lock();
                loop {
                    if jobs.stop {
                        return;
                    }
                    match jobs.waiting.pop_front() {
                        Some(job) => break job,
                        None => self.wake.wait(&mut jobs),
                    }
                }
            };
            if !self.wait_begun(d, job.number) {
                return;
            }
            match sparse.stats.bind(|| sparse.address_space.bind(self.number, &job.wants)) {
                Ok(()) => job.announced.signal(),
                Err(error) => {
                    job.announced.fail(Errno::IO.raw_os_error());
                    // The call returned long ago: all that is left to say is that the device is lost.
                    sparse
                        .address_space
                        .lose(&format!("a bind that had waited for its semaphores failed: {error}"));
                }
            }
            self.spare.give_back(job.wants);
            self.jobs.lock().done = job.number;
            let info = vk::SemaphoreSignalInfo::default().semaphore(self.bound).value(job.number);
            // SAFETY: our semaphore, whose value only grows.
            if let Err(error) = unsafe { d.next.signal_semaphore(&info) } {
                sparse.address_space.lose(&format!("vkSignalSemaphore: {error}"));
                return;
            }
        }
    }

    /// Waits until the driver's queue has come to the job; false when the device is being destroyed instead.
    fn wait_begun(&self, d: &Device, number: u64) -> bool {
        let (semaphores, values) = ([self.begun], [number]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        loop {
            // SAFETY: our semaphore.
            match unsafe { d.next.wait_semaphores(&info, PATIENCE) } {
                Ok(()) => return true,
                Err(vk::Result::TIMEOUT) if !self.jobs.lock().stop => {}
                Err(error) => {
                    tracing::info!("binds that still waited are dropped with their device ({error})");
                    return false;
                }
            }
        }
    }
}

impl BindQueue for Queue {
    /// Binds a group now if the queue has nothing before it and nothing is to be waited for any more, otherwise in its turn.
    fn submit(
        self: Arc<Self>,
        d: &Arc<Device>,
        sparse: &Sparse,
        queue: vk::Queue,
        group: Group<'_>,
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        if self.is_idle() && semaphore::reached(d, sparse, group.waits) {
            let bound = sparse.stats.bind(|| sparse.address_space.bind(self.number, &group.wants));
            self.spare.give_back(group.wants);
            bound.map_err(|error| {
                tracing::error!("vkQueueBindSparse: {error}");
                sparse.bind_result(&error)
            })?;
            return signal(d, queue, group.signals, fence);
        }
        let number = self.jobs.lock().submitted + 1;
        let numbers = [number];
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; group.waits.semaphores.len().max(1)];
        let (begun, bound) = ([self.begun], [self.bound]);
        let mut first = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(group.waits.values)
            .signal_semaphore_values(&numbers);
        let mut second = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&numbers)
            .signal_semaphore_values(group.signals.values);
        let submits = [
            vk::SubmitInfo::default()
                .wait_semaphores(group.waits.semaphores)
                .wait_dst_stage_mask(&stages[..group.waits.semaphores.len()])
                .signal_semaphores(&begun)
                .push_next(&mut first),
            vk::SubmitInfo::default()
                .wait_semaphores(&bound)
                .wait_dst_stage_mask(&stages[..1])
                .signal_semaphores(group.signals.semaphores)
                .push_next(&mut second),
        ];
        self.worker.start(&self, d, Self::work)?;
        let announced = sparse.address_space.announce(&group.wants);
        // No lock is held: the driver may wait in here for a signal that comes only after an earlier job of the worker's.
        // SAFETY: the application owns the queue during its call; the semaphores are its own or ours.
        unsafe { d.next.queue_submit(queue, &submits, fence) }?;
        let mut jobs = self.jobs.lock();
        jobs.submitted = number;
        jobs.waiting.push_back(Job { number, wants: group.wants, announced });
        self.wake.notify_one();
        Ok(())
    }

    fn spare(&self) -> &Spare {
        &self.spare
    }

    /// Ends the worker and destroys what the queue made.
    fn release(&self, d: &Device) {
        self.jobs.lock().stop = true;
        self.wake.notify_one();
        self.worker.join();
        // SAFETY: the device is idle (valid usage of vkDestroyDevice), the worker gone.
        unsafe {
            d.next.destroy_semaphore(self.begun, None);
            d.next.destroy_semaphore(self.bound, None);
        }
    }
}

/// Makes a call's signals behind everything that the queue has; nothing to signal costs nothing.
fn signal(d: &Device, queue: vk::Queue, signals: Points<'_>, fence: vk::Fence) -> Result<(), vk::Result> {
    if signals.semaphores.is_empty() && fence == vk::Fence::null() {
        return Ok(());
    }
    let mut values = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(signals.values);
    let submit = [vk::SubmitInfo::default().signal_semaphores(signals.semaphores).push_next(&mut values)];
    let submits = if signals.semaphores.is_empty() { &submit[..0] } else { &submit };
    // SAFETY: the application owns the queue during its call, and the semaphores and the fence are its valid arguments.
    unsafe { d.next.queue_submit(queue, submits, fence) }
}

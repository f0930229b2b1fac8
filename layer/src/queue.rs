//! vkQueueBindSparse on a CPU driver: binds happen in the calling thread when nothing has to be waited for, otherwise on a worker
//! between two empty submits of the driver's queue.
//!
//! The first empty submit waits for the application's semaphores and signals `begun`; the worker waits for that, binds, and signals
//! `bound`; the second waits for `bound` and makes the application's signals. The driver runs a queue in order, so whatever is
//! submitted later stays behind, and waiting for the queue waits for the binds.

use crate::added::schedule::{Place, Turn, points};
use crate::address_space::Want;
use crate::arrays::slice;
use crate::chain;
use crate::decode::Decoder;
use crate::device::{Device, Sparse, on_device};
use crate::semaphore::{self, Points};
use ash::vk;
use gpuvm::FenceSignal;
use kmd::Errno;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

/// How long a worker waits at a time before it looks whether its device is being destroyed, in nanoseconds.
const PATIENCE: u64 = 50_000_000;

/// One for the call that is decoded, one for the job that is bound.
const SPARE_BUFFERS: usize = 2;

/// A queue that binds.
pub struct Queue {
    number: u32,
    begun: vk::Semaphore,
    bound: vk::Semaphore,
    jobs: Mutex<Jobs>,
    wake: Condvar,
    worker: Mutex<Option<JoinHandle<()>>>,
    /// Buffers to decode into, kept so that a call with thousands of binds finds its memory warm.
    spare: Mutex<Vec<Vec<Want>>>,
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

/// Consecutive batches that nothing separates: waits only before the first, signals only after the last.
#[derive(Default)]
struct Group<'a> {
    waits: Points<'a>,
    wants: Vec<Want>,
    signals: Points<'a>,
}

/// Decodes all batches of a call into groups, with `buffer` for their wants; a rule broken anywhere leaves everything as it was.
///
/// # Safety
/// `infos` is valid with everything it points to.
unsafe fn decode<'a>(
    d: &Device,
    sparse: &Sparse,
    infos: &'a [vk::BindSparseInfo<'a>],
    buffer: impl Fn() -> Vec<Want>,
) -> Result<Vec<Group<'a>>, vk::Result> {
    let mut decoder = Decoder::new(d, sparse);
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (number, info) in infos.iter().enumerate() {
        // SAFETY: the caller's promise, here and below.
        let timeline = unsafe { chain::find::<vk::TimelineSemaphoreSubmitInfo<'_>>(info.p_next) };
        let values = timeline.map(|t| (t.p_wait_semaphore_values, t.wait_semaphore_value_count));
        // SAFETY: as above.
        let waits = unsafe { Points::new(info.p_wait_semaphores, info.wait_semaphore_count, values) };
        let values = timeline.map(|t| (t.p_signal_semaphore_values, t.signal_semaphore_value_count));
        // SAFETY: as above.
        let signals = unsafe { Points::new(info.p_signal_semaphores, info.signal_semaphore_count, values) };
        let joins = waits.semaphores.is_empty()
            && groups.last().is_some_and(|group| group.signals.semaphores.is_empty());
        if !joins {
            groups.push(Group { waits, wants: buffer(), signals: Points::default() });
        }
        let Some(group) = groups.last_mut() else { unreachable!("a group was just pushed") };
        group.signals = signals;
        // SAFETY: as above.
        if let Err(error) = unsafe { decoder.batch(info, &mut group.wants) } {
            tracing::error!("vkQueueBindSparse: pBindInfo[{number}]: {error}");
            return Err(error.result());
        }
    }
    Ok(groups)
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
            worker: Mutex::default(),
            spare: Mutex::default(),
        })
    }

    fn buffer(&self) -> Vec<Want> {
        self.spare.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<Want>) {
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_BUFFERS {
            buffer.clear();
            spare.push(buffer);
        }
    }

    /// Whether everything that was handed to the worker is bound.
    fn is_idle(&self) -> bool {
        let jobs = self.jobs.lock();
        jobs.done == jobs.submitted
    }

    /// Binds a group now if the queue has nothing before it and nothing is to be waited for any more, otherwise in its turn.
    fn submit(
        self: &Arc<Self>,
        d: &Arc<Device>,
        sparse: &Sparse,
        queue: vk::Queue,
        group: Group<'_>,
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        if self.is_idle() && semaphore::reached(d, sparse, group.waits) {
            let bound = sparse.stats.bind(|| sparse.address_space.bind(self.number, &group.wants));
            self.give_back(group.wants);
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
        self.start_worker(d)?;
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

    fn start_worker(self: &Arc<Self>, d: &Arc<Device>) -> Result<(), vk::Result> {
        let mut worker = self.worker.lock();
        if worker.is_none() {
            let (queue, device) = (self.clone(), d.clone());
            let thread = std::thread::Builder::new().name("tessera bind".into());
            let started = thread.spawn(move || queue.work(&device)).map_err(|error| {
                tracing::error!("vkQueueBindSparse: no thread for waiting binds: {error}");
                vk::Result::ERROR_OUT_OF_HOST_MEMORY
            })?;
            *worker = Some(started);
        }
        Ok(())
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
            self.give_back(job.wants);
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

    /// Ends the worker and destroys what the queue made.
    pub fn release(&self, device: &ash::Device) {
        self.jobs.lock().stop = true;
        self.wake.notify_one();
        if let Some(worker) = self.worker.lock().take()
            && worker.join().is_err()
        {
            tracing::error!("the thread for waiting binds had a fault; please report it");
        }
        // SAFETY: the device is idle (valid usage of vkDestroyDevice), the worker gone.
        unsafe {
            device.destroy_semaphore(self.begun, None);
            device.destroy_semaphore(self.bound, None);
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

pub(crate) unsafe extern "system" fn queue_bind_sparse(
    queue: vk::Queue,
    count: u32,
    infos: *const vk::BindSparseInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    on_device(queue, "vkQueueBindSparse", |d, sparse| {
        let Some(sparse) = sparse else {
            // SAFETY: the application's valid arguments, handed on.
            return unsafe { (d.next.fp_v1_0().queue_bind_sparse)(queue, count, infos, fence) };
        };
        if sparse.address_space.is_lost() {
            return vk::Result::ERROR_DEVICE_LOST;
        }
        // SAFETY: the application's valid arguments.
        match unsafe { bind(d, sparse, queue, slice(infos, count), fence) } {
            Ok(()) => vk::Result::SUCCESS,
            Err(result) => result,
        }
    })
}

/// # Safety
/// The arguments are valid with everything they point to.
unsafe fn bind(
    d: &Arc<Device>,
    sparse: &Sparse,
    queue: vk::Queue,
    infos: &[vk::BindSparseInfo<'_>],
    fence: vk::Fence,
) -> Result<(), vk::Result> {
    let driver = d.added.as_ref().map_or(queue, |added| added.driver_queue(queue));
    let record =
        sparse.queues.get_or_insert(driver, || Queue::new(&d.next, sparse.address_space.add_queue()))?;
    // SAFETY: the caller's promise.
    let groups = unsafe { decode(d, sparse, infos, || record.buffer()) }?;
    if let Some(added) = &d.added {
        return bind_in_turn(d, added.schedule.turn(d, queue, driver), &record, sparse, groups, fence);
    }
    let Some(last) = groups.len().checked_sub(1) else {
        return signal(d, queue, Points::default(), fence);
    };
    for (number, group) in groups.into_iter().enumerate() {
        let fence = if number == last { fence } else { vk::Fence::null() };
        record.submit(d, sparse, queue, group, fence)?;
    }
    Ok(())
}

/// As [`bind`], where the driver's queue serves several of the application's.
fn bind_in_turn(
    d: &Arc<Device>,
    mut turn: Turn<'_>,
    record: &Arc<Queue>,
    sparse: &Sparse,
    mut groups: Vec<Group<'_>>,
    fence: vk::Fence,
) -> Result<(), vk::Result> {
    if groups.is_empty() {
        groups.push(Group::default());
    }
    let last = groups.len() - 1;
    for (number, group) in groups.into_iter().enumerate() {
        let fence = if number == last { fence } else { vk::Fence::null() };
        let (waits, signals) = (group.waits, group.signals);
        if turn.is_ready(points(waits)) {
            record.submit(d, sparse, turn.driver_queue(), group, fence)?;
            turn.placed(points(signals));
            continue;
        }
        let (record, mut own) = (record.clone(), Owned::new(group));
        let place: Place = Box::new(move |d, driver| {
            let sparse = d.sparse.as_ref().ok_or(vk::Result::ERROR_UNKNOWN)?;
            record.submit(d, sparse, driver, own.group(), fence)
        });
        turn.defer(points(waits), points(signals), fence, place)?;
    }
    Ok(())
}

/// A group that outlives its call.
struct Owned {
    waits: (Vec<vk::Semaphore>, Vec<u64>),
    wants: Vec<Want>,
    signals: (Vec<vk::Semaphore>, Vec<u64>),
}

impl Owned {
    fn new(group: Group<'_>) -> Self {
        let own = |points: Points<'_>| (points.semaphores.to_vec(), points.values.to_vec());
        Self { waits: own(group.waits), wants: group.wants, signals: own(group.signals) }
    }

    fn group(&mut self) -> Group<'_> {
        Group {
            waits: Points { semaphores: &self.waits.0, values: &self.waits.1 },
            wants: core::mem::take(&mut self.wants),
            signals: Points { semaphores: &self.signals.0, values: &self.signals.1 },
        }
    }
}

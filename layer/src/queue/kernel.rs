//! vkQueueBindSparse on the driver's own open file: a group is an asynchronous bind of the kernel's. The application's semaphores and
//! its fence are syncobjs that travel with it ([`Payloads`]), so no thread waits and none is woken.
//!
//! What the kernel cannot be given goes a way around:
//! * A wait for what nobody has submitted yet: kernels refuse it. The group goes to a worker until there is something to wait for, and
//!   what comes later on the same queue goes behind it.
//! * Semaphores and fences that only the driver knows (the presentation engine signals such): an empty batch of the driver's waits for
//!   them and signals a timeline semaphore of ours, or the other way round.

use super::worker::Worker;
use super::{BindQueue, Group, Spare};
use crate::address_space::{BindError, Want};
use crate::arrays::slice;
use crate::carrier::{Before, Pending, Queued};
use crate::device::{Device, Sparse};
use crate::payload::{Payload, Payloads};
use crate::semaphore::Points;
use ash::vk;
use gpuvm::VaRange;
use kmd::syncobj::{self, Wait, Waited};
use kmd::{BindOp, Errno, Node, SyncPoint, Syncobj, SyncobjHandle, Vm};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How long the worker waits at a time before it looks whether its device is being destroyed.
const PATIENCE: Duration = Duration::from_millis(50);

/// A semaphore that was made to be exported cannot be.
const NO_BRIDGE: vk::Result = vk::Result::ERROR_INITIALIZATION_FAILED;

/// A queue that binds.
pub struct Queue {
    /// Names the queue in the log of the address space.
    number: u32,
    payloads: Arc<Payloads>,
    /// With a bind queue of its own, where the kernel has several for an address space.
    vm: Arc<dyn Vm>,
    before: Option<Arc<dyn Before>>,
    /// What is in the kernel's queue, where what can be done without it may be.
    pending: Option<Arc<Pending>>,
    /// The call's, of which there is one at a time.
    scratch: Mutex<Scratch>,
    state: Mutex<State>,
    /// Work for the worker, or an end of it.
    wake: Condvar,
    worker: Worker,
    spare: Spare,
}

/// A group's points in the kernel's terms; kept for its memory.
#[derive(Default)]
struct Scratch {
    waits: Vec<SyncPoint>,
    signals: Vec<SyncPoint>,
    /// The binary ones of `waits`, which have to be taken back to unsignalled.
    binary: Vec<SyncobjHandle>,
    /// What all of them belong to.
    held: Vec<Arc<Payload>>,
    bridge: Option<Bridge>,
    /// What the next bind comes behind: a batch that the driver has got.
    behind: Option<SyncPoint>,
}

#[derive(Default)]
struct State {
    /// Behind each other.
    parked: VecDeque<Parked>,
    stop: bool,
    /// [`Before::state`] as of the last bind.
    before: u64,
    /// Kept for its memory.
    batch: Vec<BindOp>,
}

/// A group that waits for what nobody has submitted yet.
struct Parked {
    waits: Vec<SyncPoint>,
    wants: Vec<Want>,
    signals: Vec<SyncPoint>,
    /// What of the waits belongs to the group: payloads of binary semaphores, which the application has back already.
    _taken: Vec<Syncobj>,
    /// The others: an application whose device is lost may destroy them before the worker has signalled them.
    _held: Vec<Arc<Payload>>,
}

/// Timeline semaphores of ours, for waits and signals that only the driver can do.
struct Bridge {
    begun: vk::Semaphore,
    bound: vk::Semaphore,
    number: u64,
}

/// Signals that only the driver can make.
#[derive(Default)]
struct DriverSignals {
    semaphores: Vec<vk::Semaphore>,
    values: Vec<u64>,
    fence: vk::Fence,
    /// What they come behind.
    bound: vk::Semaphore,
    number: u64,
}

impl Queue {
    /// `vm` must have a bind queue that nobody else uses, unless the kernel has only one.
    pub fn new(
        number: u32,
        payloads: Arc<Payloads>,
        vm: Arc<dyn Vm>,
        before: Option<Arc<dyn Before>>,
        pending: Option<Arc<Pending>>,
    ) -> Self {
        Self {
            number,
            payloads,
            vm,
            before,
            pending,
            scratch: Mutex::default(),
            state: Mutex::default(),
            wake: Condvar::new(),
            worker: Worker::default(),
            spare: Spare::default(),
        }
    }

    fn node(&self) -> &dyn Node {
        &**self.payloads.node()
    }

    /// Hands a group to the kernel. On an error nothing has happened.
    fn hand_over(
        &self,
        sparse: &Sparse,
        state: &mut State,
        waits: &[SyncPoint],
        wants: &[Want],
        signals: &[SyncPoint],
    ) -> Result<(), BindError> {
        let State { before, batch, .. } = state;
        let now = self.before.as_ref().map_or(0, |driver| driver.state());
        let behind = self.before.as_deref().filter(|_| now != *before);
        let mut carrier = Queued::new(&*self.vm, batch, behind, self.pending.as_deref(), waits, signals);
        sparse.stats.bind(|| sparse.address_space.bind_through(self.number, wants, &mut carrier))?;
        if carrier.came_behind() {
            *before = now;
        }
        Ok(())
    }

    /// Hands a group to the kernel in its turn; false where that has not come, or there is nothing to wait for yet.
    fn bind_or_wait(&self, sparse: &Sparse, scratch: &Scratch, wants: &[Want]) -> Result<bool, BindError> {
        let mut state = self.state.lock();
        if !state.parked.is_empty() {
            return Ok(false);
        }
        let mut bind = || self.hand_over(sparse, &mut state, &scratch.waits, wants, &scratch.signals);
        match bind() {
            Ok(()) => Ok(true),
            Err(BindError::Refused(Errno::INVAL)) if self.are_early(&scratch.waits) => Ok(false),
            // It may have been submitted since.
            Err(BindError::Refused(Errno::INVAL)) if !scratch.waits.is_empty() => bind().map(|()| true),
            Err(error) => Err(error),
        }
    }

    /// Whether waits were refused because of what nobody has submitted yet.
    fn are_early(&self, waits: &[SyncPoint]) -> bool {
        let poll = Wait::MATERIALISED.within(Duration::ZERO);
        !waits.is_empty() && syncobj::wait(self.node(), waits, poll) == Ok(Waited::TimedOut)
    }

    /// Puts a group behind the ones that wait already.
    fn park(
        self: &Arc<Self>,
        d: &Arc<Device>,
        scratch: &mut Scratch,
        wants: Vec<Want>,
    ) -> Result<(), vk::Result> {
        self.worker.start(self, d, Self::work)?;
        let mut waits = scratch.waits.clone();
        let mut taken = Vec::new();
        // A binary semaphore is the application's again when the call returns. What it waits for has been submitted, by valid usage,
        // if perhaps to a thread that is still on its way; no lock is held that such a thread could need.
        for point in waits.iter_mut().filter(|point| point.point.is_none()) {
            let own = Syncobj::create(self.payloads.node().clone(), false).map_err(refused)?;
            syncobj::transfer(self.node(), *point, own.binary(), true).map_err(refused)?;
            *point = own.binary();
            taken.push(own);
        }
        self.reset_binary(scratch)?;
        let (signals, held) = (scratch.signals.clone(), core::mem::take(&mut scratch.held));
        self.state.lock().parked.push_back(Parked { waits, wants, signals, _taken: taken, _held: held });
        self.wake.notify_all();
        Ok(())
    }

    /// Takes binary semaphores that were waited for back to unsignalled, as a wait of Vulkan's does.
    fn reset_binary(&self, scratch: &Scratch) -> Result<(), vk::Result> {
        if scratch.binary.is_empty() {
            return Ok(());
        }
        syncobj::reset(self.node(), &scratch.binary).map_err(refused)
    }

    fn work(&self, d: &Device) {
        let Some(sparse) = &d.sparse else { return };
        let mut state = self.state.lock();
        while !state.stop {
            if sparse.address_space.is_lost() {
                self.give_up(&mut state);
            }
            let Some(first) = state.parked.front() else {
                self.wake.wait(&mut state);
                continue;
            };
            let waits = first.waits.clone();
            let patience = Wait::MATERIALISED.within(PATIENCE);
            let ready = MutexGuard::unlocked(&mut state, || syncobj::wait(self.node(), &waits, patience));
            let bound = match ready {
                Ok(Waited::TimedOut) => continue,
                // Nobody else takes it away; and what comes next finds it here or, the lock being held, handed over.
                Ok(Waited::Done { .. }) => {
                    let Some(group) = state.parked.pop_front() else { continue };
                    match self.hand_over(sparse, &mut state, &group.waits, &group.wants, &group.signals) {
                        Ok(()) => {
                            self.spare.give_back(group.wants);
                            Ok(())
                        }
                        Err(error) => {
                            state.parked.push_front(group);
                            Err(error.to_string())
                        }
                    }
                }
                Err(errno) => Err(errno.to_string()),
            };
            if let Err(error) = bound {
                // The call returned long ago: all that is left to say is that the device is lost.
                let why = format!("a bind that had waited for its semaphores failed: {error}");
                sparse.address_space.lose(&why);
            }
            self.wake.notify_all();
        }
    }

    /// Signals what the parked groups would have, as the kernel does when a job fails: who waits for them must not wait for ever.
    fn give_up(&self, state: &mut State) {
        for point in state.parked.drain(..).flat_map(|group| group.signals) {
            if let Err(errno) = syncobj::signal(self.node(), point) {
                tracing::error!("a bind of a lost device cannot be signalled: {errno}");
            }
        }
        self.wake.notify_all();
    }

    /// The waits of a group in the kernel's terms; what only the driver can wait for is bridged.
    fn collect_waits(
        &self,
        d: &Device,
        queue: vk::Queue,
        scratch: &mut Scratch,
        points: Points<'_>,
    ) -> Result<(), vk::Result> {
        scratch.waits.clear();
        scratch.waits.extend(scratch.behind.take());
        scratch.binary.clear();
        let mut others: (Vec<vk::Semaphore>, Vec<u64>) = Default::default();
        for (semaphore, value) in points.iter() {
            match self.payloads.semaphore(d, semaphore, value) {
                Some((point, payload)) => {
                    scratch.waits.push(point);
                    scratch.held.push(payload);
                }
                None => {
                    others.0.push(semaphore);
                    others.1.push(value);
                }
            }
        }
        let binary = scratch.waits.iter().filter(|point| point.point.is_none());
        scratch.binary.extend(binary.map(|point| point.syncobj));
        if others.0.is_empty() {
            return Ok(());
        }
        let (begun, number) = {
            let bridge = self.bridge(d, scratch)?;
            bridge.number += 1;
            (bridge.begun, bridge.number)
        };
        scratch.waits.push(self.bridge_point(d, begun, number)?);
        let (signals, values) = ([begun], [number]);
        // No lock is held that the worker needs: the driver may wait in here for what the worker is about to signal.
        submit_empty(d, queue, (&others.0, &others.1), (&signals, &values), vk::Fence::null())
    }

    /// The signals of a group in the kernel's terms. What only the driver can signal is returned: to be submitted behind the bind.
    fn collect_signals(
        &self,
        d: &Device,
        scratch: &mut Scratch,
        points: Points<'_>,
        fence: vk::Fence,
    ) -> Result<Option<DriverSignals>, vk::Result> {
        scratch.signals.clear();
        let mut others = DriverSignals::default();
        for (semaphore, value) in points.iter() {
            match self.payloads.semaphore(d, semaphore, value) {
                Some((point, payload)) => {
                    scratch.signals.push(point);
                    scratch.held.push(payload);
                }
                None => {
                    others.semaphores.push(semaphore);
                    others.values.push(value);
                }
            }
        }
        if fence != vk::Fence::null() {
            match self.payloads.fence(d, fence) {
                Some((point, payload)) => {
                    scratch.signals.push(point);
                    scratch.held.push(payload);
                }
                None => others.fence = fence,
            }
        }
        // What is signalled in the same breath stays signalled.
        let signals = &scratch.signals;
        scratch.binary.retain(|&syncobj| !signals.iter().any(|signal| signal.syncobj == syncobj));
        if others.semaphores.is_empty() && others.fence == vk::Fence::null() {
            return Ok(None);
        }
        let bridge = self.bridge(d, scratch)?;
        bridge.number += 1;
        (others.bound, others.number) = (bridge.bound, bridge.number);
        let point = self.bridge_point(d, others.bound, others.number)?;
        scratch.signals.push(point);
        Ok(Some(others))
    }

    /// Binds a group, or has it wait; what is returned is to be submitted then.
    fn place(
        self: &Arc<Self>,
        d: &Arc<Device>,
        sparse: &Sparse,
        queue: vk::Queue,
        scratch: &mut Scratch,
        group: Group<'_>,
        fence: vk::Fence,
    ) -> Result<Option<DriverSignals>, vk::Result> {
        self.collect_waits(d, queue, scratch, group.waits)?;
        let others = self.collect_signals(d, scratch, group.signals, fence)?;
        match self.bind_or_wait(sparse, scratch, &group.wants) {
            Ok(true) => {
                self.reset_binary(scratch)?;
                self.spare.give_back(group.wants);
            }
            Ok(false) => self.park(d, scratch, group.wants)?,
            Err(error) => {
                tracing::error!("vkQueueBindSparse: {error}");
                return Err(sparse.bind_result(&error));
            }
        }
        Ok(others)
    }

    /// Gives a batch to the driver, between what this queue has got before and what it gets later. The mirror forgets what it names.
    fn pass_on(
        self: &Arc<Self>,
        d: &Arc<Device>,
        sparse: &Sparse,
        queue: vk::Queue,
        info: &vk::BindSparseInfo<'_>,
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        let scratch = &mut *self.scratch.lock();
        let bridge = self.bridge(d, scratch)?;
        bridge.number += 1;
        let (begun, bound, numbers) = (bridge.begun, bridge.bound, [bridge.number]);
        let point = |semaphore| self.bridge_point(d, semaphore, numbers[0]);
        scratch.waits.clear();
        scratch.waits.extend(scratch.behind.take());
        scratch.binary.clear();
        scratch.signals.clear();
        scratch.signals.push(point(bound)?);
        scratch.behind = Some(point(begun)?);
        match self.bind_or_wait(sparse, scratch, &[]) {
            Ok(true) => {}
            Ok(false) => self.park(d, scratch, Vec::new())?,
            Err(error) => return Err(sparse.bind_result(&error)),
        }
        // SAFETY: the application's valid arguments.
        let ranges = unsafe { named(sparse, info) };
        sparse.address_space.forget(&ranges).map_err(|error| sparse.bind_result(&error))?;
        let (waits, signals) = ([bound], [begun]);
        let mut before = vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&numbers);
        let mut after = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&numbers);
        // The driver has one bind queue of the kernel's for the queue, which keeps the order.
        let infos = [
            vk::BindSparseInfo::default().wait_semaphores(&waits).push_next(&mut before),
            *info,
            vk::BindSparseInfo::default().signal_semaphores(&signals).push_next(&mut after),
        ];
        // SAFETY: the application's valid arguments, between batches with semaphores of ours.
        unsafe { d.next.queue_bind_sparse(queue, &infos, fence) }
    }

    /// The bridge, made when it is first needed.
    fn bridge<'a>(&self, d: &Device, scratch: &'a mut Scratch) -> Result<&'a mut Bridge, vk::Result> {
        if scratch.bridge.is_none() {
            let make = || {
                let mut timeline =
                    vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
                let info = vk::SemaphoreCreateInfo::default().push_next(&mut timeline);
                // SAFETY: the device has timeline semaphores on.
                let create =
                    |info: &vk::SemaphoreCreateInfo<'_>| unsafe { d.next.create_semaphore(info, None) };
                // SAFETY: a valid create info.
                unsafe { self.payloads.create_semaphore(&info, create) }
            };
            let begun = make()?;
            let bound = make().inspect_err(|_| self.destroy(d, begun))?;
            scratch.bridge = Some(Bridge { begun, bound, number: 0 });
        }
        scratch.bridge.as_mut().ok_or(NO_BRIDGE)
    }

    /// A point of one of the bridge's semaphores, which live as long as the queue.
    fn bridge_point(
        &self,
        d: &Device,
        semaphore: vk::Semaphore,
        number: u64,
    ) -> Result<SyncPoint, vk::Result> {
        self.payloads.semaphore(d, semaphore, number).map(|(point, _)| point).ok_or(NO_BRIDGE)
    }

    fn destroy(&self, d: &Device, semaphore: vk::Semaphore) {
        self.payloads.forget_semaphore(semaphore);
        // SAFETY: our semaphore, which nothing uses any more.
        unsafe { d.next.destroy_semaphore(semaphore, None) };
    }
}

impl DriverSignals {
    fn submit(&self, d: &Device, queue: vk::Queue) -> Result<(), vk::Result> {
        let (waits, values) = ([self.bound], [self.number]);
        submit_empty(d, queue, (&waits, &values), (&self.semaphores, &self.values), self.fence)
    }
}

/// A batch of the driver's that only waits and signals. Queues that bind need not be the driver's to bind on, but all take submits.
fn submit_empty(
    d: &Device,
    queue: vk::Queue,
    waits: (&[vk::Semaphore], &[u64]),
    signals: (&[vk::Semaphore], &[u64]),
    fence: vk::Fence,
) -> Result<(), vk::Result> {
    let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.0.len()];
    let mut values = vk::TimelineSemaphoreSubmitInfo::default()
        .wait_semaphore_values(waits.1)
        .signal_semaphore_values(signals.1);
    let batch = vk::SubmitInfo::default()
        .wait_semaphores(waits.0)
        .wait_dst_stage_mask(&stages)
        .signal_semaphores(signals.0)
        .push_next(&mut values);
    // SAFETY: the application owns the queue during its call; the semaphores and the fence are its own or ours.
    unsafe { d.next.queue_submit(queue, &[batch], fence) }
}

/// The addresses of all resources that a batch names.
///
/// # Safety
/// `info` is valid with everything it points to.
unsafe fn named(sparse: &Sparse, info: &vk::BindSparseInfo<'_>) -> Vec<VaRange> {
    // SAFETY: the caller's promise.
    let (buffers, opaque, images) = unsafe {
        (
            slice(info.p_buffer_binds, info.buffer_bind_count),
            slice(info.p_image_opaque_binds, info.image_opaque_bind_count),
            slice(info.p_image_binds, info.image_bind_count),
        )
    };
    let buffers = buffers.iter().filter_map(|bind| Some(sparse.buffers.get(bind.buffer)?.range));
    let images = opaque.iter().map(|bind| bind.image).chain(images.iter().map(|bind| bind.image));
    let images = images.filter_map(|image| sparse.images.get(image)).flat_map(|image| image.opaque.clone());
    buffers.chain(images).collect()
}

fn refused(errno: Errno) -> vk::Result {
    tracing::error!("vkQueueBindSparse: the kernel refuses a semaphore: {errno}");
    if errno == Errno::NOMEM { vk::Result::ERROR_OUT_OF_HOST_MEMORY } else { vk::Result::ERROR_UNKNOWN }
}

impl BindQueue for Queue {
    fn submit(
        self: Arc<Self>,
        d: &Arc<Device>,
        sparse: &Sparse,
        queue: vk::Queue,
        group: Group<'_>,
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        if let Some(info) = group.as_is {
            return self.pass_on(d, sparse, queue, info, fence);
        }
        let scratch = &mut *self.scratch.lock();
        let result = self.place(d, sparse, queue, scratch, group, fence);
        scratch.held.clear();
        result?.map_or(Ok(()), |others| others.submit(d, queue))
    }

    fn spare(&self) -> &Spare {
        &self.spare
    }

    fn wait_idle(&self) -> Result<(), vk::Result> {
        let mut state = self.state.lock();
        while !state.parked.is_empty() && !state.stop {
            self.wake.wait(&mut state);
        }
        drop(state);
        let wait = || {
            let over = Syncobj::create(self.payloads.node().clone(), false)?;
            self.vm.bind_async(&[], &[], &[over.binary()])?;
            over.wait(None, Wait::ALL)
        };
        wait().map(drop).map_err(|errno| {
            tracing::error!("waiting for binds: {errno}");
            if errno == Errno::PIPE {
                vk::Result::ERROR_DEVICE_LOST
            } else {
                vk::Result::ERROR_OUT_OF_HOST_MEMORY
            }
        })
    }

    fn release(&self, d: &Device) {
        self.state.lock().stop = true;
        self.wake.notify_all();
        self.worker.join();
        if let Some(bridge) = self.scratch.lock().bridge.take() {
            self.destroy(d, bridge.begun);
            self.destroy(d, bridge.bound);
        }
    }
}

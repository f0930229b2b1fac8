//! vkQueueBindSparse: batches are decoded into groups, and each group goes its driver's way.

pub mod cpu;
pub mod kernel;
mod worker;

use crate::added::schedule::{Place, Turn, points};
use crate::address_space::Want;
use crate::arrays::slice;
use crate::chain;
use crate::decode::{DecodeError, Decoder};
use crate::device::{Device, Sparse, on_device};
use crate::semaphore::Points;
use ash::vk;
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::sync::Arc;

/// One for the call that is decoded, one for the job that is bound.
const SPARE_BUFFERS: usize = 2;

/// Buffers to decode into, kept so that a call with thousands of binds finds its memory warm.
#[derive(Default)]
pub struct Spare(Mutex<Vec<Vec<Want>>>);

impl Spare {
    pub fn take(&self) -> Vec<Want> {
        self.0.lock().pop().unwrap_or_default()
    }

    pub fn give_back(&self, mut buffer: Vec<Want>) {
        let mut spare = self.0.lock();
        if spare.len() < SPARE_BUFFERS {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// A queue that binds: one a queue of the driver's, made by its adapter at the first bind.
pub trait BindQueue: Send + Sync {
    /// Binds a group in its turn, behind all earlier groups of the queue: waits, wants, signals and the fence. On an error nothing of
    /// the group happens.
    fn submit(
        self: Arc<Self>,
        d: &Arc<Device>,
        sparse: &Sparse,
        queue: vk::Queue,
        group: Group<'_>,
        fence: vk::Fence,
    ) -> Result<(), vk::Result>;

    /// Where the wants of groups come from.
    fn spare(&self) -> &Spare;

    /// Waits until everything that was submitted is bound, where waiting for the driver's queue does not.
    fn wait_idle(&self) -> Result<(), vk::Result> {
        Ok(())
    }

    /// Ends what still runs, when the device is destroyed.
    fn release(&self, d: &Device);
}

/// Consecutive batches that nothing separates: waits only before the first, signals only after the last.
#[derive(Default)]
pub struct Group<'a> {
    pub waits: Points<'a>,
    pub wants: Vec<Want>,
    pub signals: Points<'a>,
    /// In place of wants: a single batch that is the driver's to read, with its own waits and signals.
    pub as_is: Option<&'a vk::BindSparseInfo<'a>>,
}

/// Those of a call, of which most have one.
type Groups<'a> = SmallVec<[Group<'a>; 1]>;

/// What the layer knows of a VkBindSparseInfo's chain.
const KNOWN: [vk::StructureType; 2] =
    [vk::StructureType::TIMELINE_SEMAPHORE_SUBMIT_INFO, vk::StructureType::DEVICE_GROUP_BIND_SPARSE_INFO];

/// Decodes all batches of a call into groups, with `buffer` for their wants; a rule broken anywhere leaves everything as it was.
///
/// # Safety
/// `infos` is valid with everything it points to.
unsafe fn decode<'a>(
    d: &Device,
    sparse: &Sparse,
    infos: &'a [vk::BindSparseInfo<'a>],
    buffer: impl Fn() -> Vec<Want>,
) -> Result<Groups<'a>, vk::Result> {
    let mut decoder = Decoder::new(d, sparse);
    let mut groups = Groups::new();
    for (number, info) in infos.iter().enumerate() {
        // SAFETY: the caller's promise, here and below.
        let timeline = unsafe { chain::find::<vk::TimelineSemaphoreSubmitInfo<'_>>(info.p_next) };
        let values = timeline.map(|t| (t.p_wait_semaphore_values, t.wait_semaphore_value_count));
        // SAFETY: as above.
        let waits = unsafe { Points::new(info.p_wait_semaphores, info.wait_semaphore_count, values) };
        let values = timeline.map(|t| (t.p_signal_semaphore_values, t.signal_semaphore_value_count));
        // SAFETY: as above.
        let signals = unsafe { Points::new(info.p_signal_semaphores, info.signal_semaphore_count, values) };
        let as_is = Group { waits, signals, as_is: Some(info), ..Group::default() };
        // SAFETY: as above.
        if sparse.icd.passes_on() && !unsafe { chain::has_only(info.p_next, &KNOWN) } {
            groups.push(as_is);
            continue;
        }
        let joins = waits.semaphores.is_empty()
            && groups
                .last()
                .is_some_and(|group| group.signals.semaphores.is_empty() && group.as_is.is_none());
        if !joins {
            groups.push(Group { waits, wants: buffer(), ..Group::default() });
        }
        let Some(group) = groups.last_mut() else { unreachable!("a group was just pushed") };
        let before = group.wants.len();
        // SAFETY: as above.
        match unsafe { decoder.batch(info, &mut group.wants) } {
            Ok(()) => group.signals = signals,
            Err(DecodeError::AsIs(_)) => {
                group.wants.truncate(before);
                if !joins {
                    groups.pop();
                }
                groups.push(as_is);
            }
            Err(error) => {
                tracing::error!("vkQueueBindSparse: pBindInfo[{number}]: {error}");
                return Err(error.result());
            }
        }
    }
    Ok(groups)
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
        sparse.queues.get_or_insert(driver, || sparse.icd.bind_queue(d, sparse.address_space.add_queue()))?;
    let record = (*record).clone();
    // SAFETY: the caller's promise.
    let mut groups = unsafe { decode(d, sparse, infos, || record.spare().take()) }?;
    if groups.is_empty() {
        groups.push(Group::default());
    }
    if let Some(added) = &d.added {
        return bind_in_turn(d, added.schedule.turn(d, queue, driver), &record, sparse, groups, fence);
    }
    let last = groups.len() - 1;
    for (number, group) in groups.into_iter().enumerate() {
        let fence = if number == last { fence } else { vk::Fence::null() };
        record.clone().submit(d, sparse, queue, group, fence)?;
    }
    Ok(())
}

/// As [`bind`], where the driver's queue serves several of the application's.
fn bind_in_turn(
    d: &Arc<Device>,
    mut turn: Turn<'_>,
    record: &Arc<dyn BindQueue>,
    sparse: &Sparse,
    groups: Groups<'_>,
    fence: vk::Fence,
) -> Result<(), vk::Result> {
    let last = groups.len() - 1;
    for (number, group) in groups.into_iter().enumerate() {
        let fence = if number == last { fence } else { vk::Fence::null() };
        let (waits, signals) = (group.waits, group.signals);
        if turn.is_ready(points(waits)) {
            record.clone().submit(d, sparse, turn.driver_queue(), group, fence)?;
            turn.placed(points(signals));
            continue;
        }
        let (record, mut own) = (record.clone(), Owned::new(group));
        let place: Place = Box::new(move |d, driver| {
            let sparse = d.sparse.as_ref().ok_or(vk::Result::ERROR_UNKNOWN)?;
            record.clone().submit(d, sparse, driver, own.group(), fence)
        });
        turn.defer(points(waits), points(signals), fence, place)?;
    }
    Ok(())
}

/// A group that outlives its call. Devices with added queues have adapters that plan every batch.
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
            as_is: None,
        }
    }
}

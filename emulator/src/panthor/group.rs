//! Scheduling groups: queues of command streams, which are taken and not executed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kmd::uapi::panthor::*;
use rustix::io::Errno;

use super::Panthor;
use super::query::{CSIF_INFO, PRIORITIES, TILER_PRESENT};
use super::vm::Vm;
use crate::drm::Device;
use crate::drm::fence::Fence;
use crate::drm::user::User;
use crate::queue::{Job, Queue, Work};

/// Groups per open file.
pub(super) const MAX_GROUPS: u32 = 128;
/// Queues per group, whatever the firmware has.
const MAX_QUEUES: u32 = 32;
/// Highest priority of a queue in its group.
const MAX_QUEUE_PRIORITY: u8 = 15;
/// Sizes of ring buffers.
const RING_SIZES: core::ops::RangeInclusive<u32> = 4 << 10..=64 << 10;
/// Bits of a flush id that must be zero.
const FLUSH_ID_RESERVED: u32 = 0x7f00_0000;

/// A group.
pub(super) struct Group {
    vm: Arc<Vm>,
    queues: Vec<Arc<Queue<GroupWork>>>,
    /// A job took too long.
    timed_out: AtomicBool,
    destroyed: AtomicBool,
}

impl Group {
    fn can_run(&self) -> bool {
        !self.destroyed.load(Ordering::Acquire) && !self.timed_out.load(Ordering::Acquire)
    }

    /// What is queued is over when its turn comes.
    pub(super) fn destroy(&self) {
        self.destroyed.store(true, Ordering::Release);
        self.queues.iter().for_each(|queue| queue.close());
    }
}

/// A job of a group's queue.
pub(super) struct GroupWork {
    device: Arc<Device>,
    group: Arc<Group>,
    queue: u32,
    /// A job without a stream only comes after those before it.
    has_stream: bool,
}

impl Work for GroupWork {
    fn run(self) {
        if self.has_stream && self.group.can_run() && self.device.faults.job.strikes() {
            tracing::warn!(queue = self.queue, "a job of the GPU hung: its group takes no more");
            self.group.timed_out.store(true, Ordering::Release);
        }
    }
}

impl Panthor {
    fn group(&self, handle: u32) -> Option<Arc<Group>> {
        self.groups.lock().get(handle).cloned()
    }

    pub(super) fn group_create(&self, args: &mut GroupCreate, user: &User) -> Result<(), Errno> {
        if args.queues.count == 0 || args.queues.count > MAX_QUEUES {
            return Err(Errno::INVAL);
        }
        let queues: Vec<QueueCreate> = user.read_array(&args.queues, size_of::<QueueCreate>())?;
        let priority = u32::from(args.priority);
        if priority > GROUP_PRIORITY_REALTIME {
            return Err(Errno::INVAL);
        }
        if PRIORITIES.allowed_mask & 1 << priority == 0 {
            return Err(Errno::ACCESS);
        }
        self.check_cores(args)?;
        if args.pad != 0 || args.queues.count > CSIF_INFO.cs_slot_count {
            return Err(Errno::INVAL);
        }
        // A group needs mappings of its own, which an unusable VM does not take.
        let vm = self.vm(args.vm_id).filter(|vm| !vm.is_unusable()).ok_or(Errno::INVAL)?;
        if self.file.device.faults.alloc.strikes() {
            return Err(Errno::NOMEM);
        }
        let pace = &self.file.device.pace;
        let group = Arc::new(Group {
            vm,
            queues: queues.iter().map(|_| Queue::new(pace.clone(), None)).collect(),
            timed_out: AtomicBool::new(false),
            destroyed: AtomicBool::new(false),
        });
        // The kernel looks for a handle before it looks at the queues.
        let mut groups = self.groups.lock();
        let handle = groups.insert(group).ok_or(Errno::BUSY)?;
        if !queues.iter().all(is_valid) {
            groups.remove(handle);
            return Err(Errno::INVAL);
        }
        args.group_handle = handle;
        Ok(())
    }

    fn check_cores(&self, args: &GroupCreate) -> Result<(), Errno> {
        let shaders = self.mali.shader_present;
        let cores = [
            (args.compute_core_mask, shaders, args.max_compute_cores),
            (args.fragment_core_mask, shaders, args.max_fragment_cores),
            (args.tiler_core_mask, TILER_PRESENT, args.max_tiler_cores),
        ];
        let there = |&(mask, present, most): &(u64, u64, u8)| {
            mask & !present == 0 && mask.count_ones() >= u32::from(most)
        };
        if cores.iter().all(there) { Ok(()) } else { Err(Errno::INVAL) }
    }

    pub(super) fn group_destroy(&self, args: &mut GroupDestroy) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let group = self.groups.lock().remove(args.group_handle).ok_or(Errno::INVAL)?;
        group.destroy();
        Ok(())
    }

    pub(super) fn group_get_state(&self, args: &mut GroupGetState) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let group = self.group(args.group_handle).ok_or(Errno::INVAL)?;
        let timed_out = group.timed_out.load(Ordering::Acquire);
        let state = if timed_out { GROUP_STATE_TIMEDOUT } else { 0 };
        // The handle is not given back.
        *args = GroupGetState { state, ..Default::default() };
        Ok(())
    }

    pub(super) fn group_submit(&self, args: &mut GroupSubmit, user: &User) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let submits: Vec<QueueSubmit> = user.read_array(&args.queue_submits, size_of::<QueueSubmit>())?;
        // The kernel's look-up takes 16 bits.
        let group = self.group(args.group_handle & 0xffff);
        let mut jobs = Vec::with_capacity(submits.len());
        let mut syncs = Vec::with_capacity(submits.len());
        for submit in &submits {
            jobs.push(self.group_job(group.as_ref(), submit)?);
            syncs.push(user.read_array::<SyncOp>(&submit.syncs, size_of::<SyncOp>())?);
        }
        let mut signals = self.collect_signals(&syncs)?;
        let Some(group) = group.filter(|_| !jobs.is_empty()) else { return Ok(()) };
        for submit in &submits {
            group.queues[submit.queue_index as usize].start()?;
        }

        let order = group.vm.submit.lock();
        self.link(&mut jobs, &syncs, &mut signals)?;
        // Nothing can fail from here on.
        self.file.device.stats.submits.add(jobs.len() as u64);
        for (submit, job) in submits.iter().zip(jobs) {
            group.queues[submit.queue_index as usize].push([job]);
        }
        signals.put();
        drop(order);
        Ok(())
    }

    fn group_job(&self, group: Option<&Arc<Group>>, submit: &QueueSubmit) -> Result<Job<GroupWork>, Errno> {
        let has_stream = submit.stream_size != 0;
        let aligned = submit.stream_addr % 64 == 0 && submit.stream_size % 8 == 0;
        let known = submit.pad == 0 && submit.latest_flush & FLUSH_ID_RESERVED == 0;
        if !known || !aligned || has_stream != (submit.stream_addr != 0) {
            return Err(Errno::INVAL);
        }
        let group = group.filter(|group| group.can_run()).ok_or(Errno::INVAL)?;
        if submit.queue_index as usize >= group.queues.len() {
            return Err(Errno::INVAL);
        }
        let device = self.file.device.clone();
        let work = GroupWork { device, group: group.clone(), queue: submit.queue_index, has_stream };
        Ok(Job { work, waits: Vec::new(), done: Fence::new() })
    }
}

fn is_valid(queue: &QueueCreate) -> bool {
    let size = queue.ringbuf_size;
    queue.pad == [0; 3]
        && RING_SIZES.contains(&size)
        && size.is_power_of_two()
        && queue.priority <= MAX_QUEUE_PRIORITY
}

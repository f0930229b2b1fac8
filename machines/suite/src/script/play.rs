//! Plays scripts on a kernel.

use std::collections::{BTreeMap, BTreeSet};

use kmd::uapi::drm::*;
use kmd::uapi::panthor::*;
use kmd::uapi::{user_address, user_address_mut};
use kmd::{Errno, Request};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{Job, Op, Outcome, PAGE, Step, Sync, WINDOW};
use crate::kernel::{Kernel, Mapping};

/// Plays the steps of one script on a kernel, and looks at what they do.
pub struct Player<K> {
    kernel: K,
    /// The VMs that exist, each with the page that the player has bound in it.
    vms: BTreeMap<u32, u64>,
    syncobjs: BTreeSet<u32>,
    files: Vec<OwnedFd>,
    next_marker: u64,
}

/// A VM: its state, and what it maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmView {
    /// The VM's id.
    pub id: u32,
    /// What VM_GET_STATE says.
    pub state: Result<u32, Errno>,
    /// Mappings in order of address, continuing ones joined.
    pub mappings: Vec<Mapping>,
}

impl<K: Kernel> Player<K> {
    /// Starts with an open file in which nothing exists.
    pub fn new(kernel: K) -> Self {
        let next_marker = WINDOW.end;
        Self { kernel, vms: BTreeMap::new(), syncobjs: BTreeSet::new(), files: Vec::new(), next_marker }
    }

    /// Plays one step. Work that it queues may go on.
    pub fn play(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::DevQuery { r#type, size } => self.dev_query(r#type, size),
            Step::VmCreate { flags, user_va_range } => self.vm_create(flags, user_va_range),
            Step::VmDestroy { id } => {
                let outcome = self.ioctl(&mut VmDestroy { id, pad: 0 }, |_| vec![]);
                if outcome.result.is_ok() {
                    self.vms.remove(&id);
                }
                outcome
            }
            Step::VmGetState { id } => {
                self.ioctl(&mut VmGetState { vm_id: id, state: 0 }, |arg| vec![arg.state.into()])
            }
            Step::Bind { id, flags, ref ops } => self.bind(id, flags, ops),
            Step::GroupCreate { ref queues, priority, cores, vm } => {
                let queue =
                    |&(priority, ringbuf_size)| QueueCreate { priority, ringbuf_size, ..Default::default() };
                let queues: Vec<QueueCreate> = queues.iter().map(queue).collect();
                let mut arg = GroupCreate {
                    queues: ObjArray::new(&queues),
                    max_compute_cores: cores.0,
                    compute_core_mask: cores.1,
                    priority,
                    vm_id: vm,
                    ..Default::default()
                };
                self.ioctl(&mut arg, |arg| vec![arg.group_handle.into()])
            }
            Step::GroupDestroy { handle } => {
                self.ioctl(&mut GroupDestroy { group_handle: handle, pad: 0 }, |_| vec![])
            }
            Step::GroupGetState { handle } => {
                let mut arg = GroupGetState { group_handle: handle, ..Default::default() };
                self.ioctl(&mut arg, |arg| vec![arg.state.into(), arg.fatal_queues.into()])
            }
            Step::Submit { handle, ref jobs } => self.submit(handle, jobs),
            Step::HeapCreate { vm, chunks, size } => {
                let mut arg = TilerHeapCreate {
                    vm_id: vm,
                    initial_chunk_count: chunks.0,
                    max_chunks: chunks.1,
                    chunk_size: size,
                    target_in_flight: 1,
                    ..Default::default()
                };
                // Where it is in the kernel's part of the VM is the kernel's affair.
                self.ioctl(&mut arg, |arg| vec![arg.handle.into()])
            }
            Step::HeapDestroy { handle } => self.ioctl(&mut TilerHeapDestroy { handle, pad: 0 }, |_| vec![]),
            Step::BoCreate { size, flags, exclusive } => {
                let mut arg = BoCreate { size, flags, exclusive_vm_id: exclusive, ..Default::default() };
                self.ioctl(&mut arg, |arg| vec![arg.handle.into(), arg.size])
            }
            Step::BoClose { handle } => self.ioctl(&mut GemClose { handle, pad: 0 }, |_| vec![]),
            Step::Export { handle } => {
                let mut arg = PrimeHandleToFd(PrimeHandle { handle, flags: CLOEXEC | RDWR, fd: -1 });
                let outcome = self.ioctl(&mut arg, |_| vec![]);
                if outcome.result.is_ok() {
                    // SAFETY: the kernel has just made this descriptor for us.
                    self.files.push(unsafe { OwnedFd::from_raw_fd(arg.0.fd) });
                }
                outcome
            }
            Step::Import { file } => {
                let fd = self.files.get(file).map_or(-1, AsRawFd::as_raw_fd);
                let mut arg = PrimeFdToHandle(PrimeHandle { handle: 0, flags: 0, fd });
                self.ioctl(&mut arg, |arg| vec![arg.0.handle.into()])
            }
            Step::MmapOffset { handle } => {
                self.ioctl(&mut BoMmapOffset { handle, ..Default::default() }, |_| vec![])
            }
            Step::BoInfo { handle } => self.ioctl(&mut BoQueryInfo { handle, ..Default::default() }, |arg| {
                vec![arg.extra_flags.into(), arg.create_flags.into()]
            }),
            Step::SyncobjCreate { flags } => {
                let mut arg = SyncobjCreate { handle: 0, flags };
                let outcome = self.ioctl(&mut arg, |arg| vec![arg.handle.into()]);
                if outcome.result.is_ok() {
                    self.syncobjs.insert(arg.handle);
                }
                outcome
            }
            Step::SyncobjDestroy { handle } => {
                self.syncobjs.remove(&handle);
                self.ioctl(&mut SyncobjDestroy { handle, pad: 0 }, |_| vec![])
            }
            Step::Reset { handle } => self.ioctl(&mut SyncobjReset(array(&[handle])), |_| vec![]),
            Step::Signal { handle } => self.ioctl(&mut SyncobjSignal(array(&[handle])), |_| vec![]),
            Step::SignalPoint { handle, point } => {
                let (handles, points) = ([handle], [point]);
                let points = user_address(&points);
                let mut arg = SyncobjTimelineSignal(timeline(&handles, points, 0));
                self.ioctl(&mut arg, |_| vec![])
            }
            Step::Transfer { from, to } => {
                let mut arg = SyncobjTransfer {
                    src_handle: from.0,
                    dst_handle: to.0,
                    src_point: from.1,
                    dst_point: to.1,
                    ..Default::default()
                };
                self.ioctl(&mut arg, |_| vec![])
            }
            Step::Query { handle, flags } => {
                let (handles, mut points) = ([handle], [0u64]);
                let at = user_address_mut(&mut points);
                let outcome = self.ioctl(&mut SyncobjQuery(timeline(&handles, at, flags)), |_| vec![]);
                Outcome { values: points.to_vec(), ..outcome }
            }
            Step::Wait { ref points, flags } => {
                let (handles, values): (Vec<u32>, Vec<u64>) = points.iter().copied().unzip();
                let mut arg = SyncobjTimelineWait {
                    handles: user_address(&handles),
                    points: user_address(&values),
                    count_handles: handles.len() as u32,
                    flags,
                    ..Default::default()
                };
                let all = flags & SYNCOBJ_WAIT_FLAGS_WAIT_ALL != 0;
                let outcome = self.ioctl(&mut arg, |_| vec![]);
                let first =
                    if outcome.result.is_ok() && !all { vec![arg.first_signaled.into()] } else { vec![] };
                Outcome { values: first, ..outcome }
            }
            Step::Hold { handle, point } => self.hold(handle, point),
            Step::Release => {
                self.kernel.release();
                Outcome { result: Ok(()), values: vec![] }
            }
        }
    }

    /// Every VM as it is now.
    pub fn view(&self) -> Vec<VmView> {
        let view = |(&id, &marker): (&u32, &u64)| {
            let mut arg = VmGetState { vm_id: id, state: 0 };
            let state = self.ioctl(&mut arg, |_| vec![]).result.map(|()| arg.state);
            VmView { id, state, mappings: join(self.kernel.mappings(id, marker)) }
        };
        self.vms.iter().map(view).collect()
    }

    fn dev_query(&self, r#type: u32, size: u32) -> Outcome {
        let mut answer = [0u64; 32];
        let pointer = if size == 0 { 0 } else { user_address_mut(&mut answer) };
        let mut arg = DevQuery { r#type, size: size.min(size_of_val(&answer) as u32), pointer };
        let outcome = self.ioctl(&mut arg, |arg| vec![arg.size.into()]);
        let everywhere = matches!(r#type, DEV_QUERY_CSIF_INFO | DEV_QUERY_MMU_INFO);
        let answer = if everywhere { &answer[..] } else { &[] };
        Outcome { values: [&outcome.values, answer].concat(), ..outcome }
    }

    fn vm_create(&mut self, flags: u32, user_va_range: u64) -> Outcome {
        let mut arg = VmCreate { flags, id: 0, user_va_range };
        let outcome = self.ioctl(&mut arg, |arg| vec![arg.id.into(), arg.user_va_range]);
        if outcome.result.is_ok() {
            let marker = self.next_marker;
            self.next_marker += PAGE;
            self.vms.insert(arg.id, marker);
            let flags = VM_BIND_OP_TYPE_MAP | VM_BIND_OP_MAP_NOEXEC | VM_BIND_OP_MAP_SPARSE;
            let op = VmBindOp { flags, va: marker, size: PAGE, ..Default::default() };
            let marked = self.bind(arg.id, 0, &[Op { op, syncs: vec![] }]);
            assert_eq!(marked.result, Ok(()), "a new VM takes a page");
        }
        outcome
    }

    fn bind(&self, id: u32, flags: u32, ops: &[Op]) -> Outcome {
        let asynchronous = flags & VM_BIND_ASYNC != 0;
        if asynchronous && self.signals_nothing(ops.iter().map(|op| &op.syncs)) {
            return LEFT_OUT;
        }
        let syncs: Vec<Vec<SyncOp>> = ops.iter().map(|op| sync_ops(&op.syncs)).collect();
        let with_syncs = |(op, syncs): (&Op, &Vec<SyncOp>)| VmBindOp { syncs: ObjArray::new(syncs), ..op.op };
        let ops: Vec<VmBindOp> = ops.iter().zip(&syncs).map(with_syncs).collect();
        let mut arg = VmBind { vm_id: id, flags, ops: ObjArray::new(&ops) };
        self.ioctl(&mut arg, |arg| vec![arg.ops.count.into()])
    }

    fn submit(&self, handle: u32, jobs: &[Job]) -> Outcome {
        if self.signals_nothing(jobs.iter().map(|job| &job.syncs)) {
            return LEFT_OUT;
        }
        let syncs: Vec<Vec<SyncOp>> = jobs.iter().map(|job| sync_ops(&job.syncs)).collect();
        let with_syncs =
            |(job, syncs): (&Job, &Vec<SyncOp>)| QueueSubmit { syncs: ObjArray::new(syncs), ..job.submit };
        let submits: Vec<QueueSubmit> = jobs.iter().zip(&syncs).map(with_syncs).collect();
        let mut arg = GroupSubmit { group_handle: handle, pad: 0, queue_submits: ObjArray::new(&submits) };
        self.ioctl(&mut arg, |_| vec![])
    }

    /// Whether one of the syncs signals what is no syncobj. The kernel (7.3.4) goes through a null pointer for that.
    fn signals_nothing<'a>(&self, mut syncs: impl Iterator<Item = &'a Vec<Sync>>) -> bool {
        let into_nothing = |sync: &Sync| sync.0 & SYNC_OP_SIGNAL != 0 && !self.syncobjs.contains(&sync.1);
        syncs.any(|syncs| syncs.iter().any(into_nothing))
    }

    fn hold(&mut self, handle: u32, point: u64) -> Outcome {
        let file = self.kernel.hold();
        let timeline = if point == 0 { 0 } else { SYNCOBJ_FD_TO_HANDLE_FLAGS_TIMELINE };
        let mut arg = SyncobjFdToHandle(SyncobjHandle {
            handle,
            flags: SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE | timeline,
            fd: file.as_raw_fd(),
            pad: 0,
            point,
        });
        self.ioctl(&mut arg, |_| vec![])
    }

    /// `values` are looked at after success; after a failure, only a bind's count is, which says how far it came.
    fn ioctl<R: Request>(&self, arg: &mut R, values: impl FnOnce(&R) -> Vec<u64>) -> Outcome {
        // SAFETY: every address in the structure is that of an array that lives until the call is over.
        let result = unsafe { self.kernel.node().ioctl(R::REQUEST, (&raw mut *arg).cast()) };
        let bind = R::REQUEST == VmBind::REQUEST;
        let values = if result.is_ok() || bind { values(arg) } else { vec![] };
        Outcome { result, values }
    }
}

/// Instead of a step that must not be played.
const LEFT_OUT: Outcome = Outcome { result: Err(Errno::CANCELED), values: vec![] };

fn sync_ops(syncs: &[Sync]) -> Vec<SyncOp> {
    syncs.iter().map(|&(flags, handle, timeline_value)| SyncOp { flags, handle, timeline_value }).collect()
}

fn array(handles: &[u32]) -> SyncobjArray {
    SyncobjArray { handles: user_address(handles), count_handles: handles.len() as u32, pad: 0 }
}

fn timeline(handles: &[u32], points: u64, flags: u32) -> SyncobjTimelineArray {
    SyncobjTimelineArray {
        handles: user_address(handles),
        points,
        count_handles: handles.len() as u32,
        flags,
    }
}

/// Joins what continues: how many pieces a kernel keeps is its own affair.
fn join(mappings: Vec<Mapping>) -> Vec<Mapping> {
    let mut joined: Vec<Mapping> = Vec::new();
    for mapping in mappings {
        match joined.last_mut() {
            Some(last) if last.continues_as(&mapping) => last.len += mapping.len,
            _ => joined.push(mapping),
        }
    }
    joined
}

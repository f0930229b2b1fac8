//! Plays scripts on panthor.

use std::collections::BTreeMap;

use kmd::uapi::panthor::*;
use kmd::uapi::user_address_mut;

use super::{Job, Op, Step, Sync};
use crate::kernel::Kernel;
use crate::script::{Driver, LEFT_OUT, Outcome, PAGE, Session, VmView, WINDOW};

/// What a player knows of panthor.
pub struct Panthor {
    /// The VMs that exist, each with the page that the player has bound in it.
    vms: BTreeMap<u32, u64>,
    next_marker: u64,
}

impl Default for Panthor {
    fn default() -> Self {
        Self { vms: BTreeMap::new(), next_marker: WINDOW.end }
    }
}

impl Driver for Panthor {
    type Step = Step;

    fn play<K: Kernel>(&mut self, session: &mut Session<K>, step: &Step) -> Outcome {
        match *step {
            Step::DevQuery { r#type, size } => dev_query(session, r#type, size),
            Step::VmCreate { flags, user_va_range } => self.vm_create(session, flags, user_va_range),
            Step::VmDestroy { id } => {
                let outcome = session.ioctl(&mut VmDestroy { id, pad: 0 }, |_| vec![]);
                if outcome.result.is_ok() {
                    self.vms.remove(&id);
                }
                outcome
            }
            Step::VmGetState { id } => {
                session.ioctl(&mut VmGetState { vm_id: id, state: 0 }, |arg| vec![arg.state.into()])
            }
            Step::Bind { id, flags, ref ops } => bind(session, id, flags, ops),
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
                session.ioctl(&mut arg, |arg| vec![arg.group_handle.into()])
            }
            Step::GroupDestroy { handle } => {
                session.ioctl(&mut GroupDestroy { group_handle: handle, pad: 0 }, |_| vec![])
            }
            Step::GroupGetState { handle } => {
                let mut arg = GroupGetState { group_handle: handle, ..Default::default() };
                session.ioctl(&mut arg, |arg| vec![arg.state.into(), arg.fatal_queues.into()])
            }
            Step::Submit { handle, ref jobs } => submit(session, handle, jobs),
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
                session.ioctl(&mut arg, |arg| vec![arg.handle.into()])
            }
            Step::HeapDestroy { handle } => {
                session.ioctl(&mut TilerHeapDestroy { handle, pad: 0 }, |_| vec![])
            }
            Step::BoCreate { size, flags, exclusive } => {
                let mut arg = BoCreate { size, flags, exclusive_vm_id: exclusive, ..Default::default() };
                let outcome = session.ioctl(&mut arg, |arg| vec![arg.handle.into(), arg.size]);
                session.made(&outcome, arg.handle, arg.size);
                outcome
            }
            Step::MmapOffset { handle } => {
                session.ioctl(&mut BoMmapOffset { handle, ..Default::default() }, |_| vec![])
            }
            Step::BoInfo { handle } => session
                .ioctl(&mut BoQueryInfo { handle, ..Default::default() }, |arg| {
                    vec![arg.extra_flags.into(), arg.create_flags.into()]
                }),
        }
    }

    fn changes(step: &Step) -> bool {
        matches!(step, Step::Bind { .. } | Step::Submit { .. } | Step::VmDestroy { .. })
    }

    fn view<K: Kernel>(&mut self, session: &mut Session<K>) -> Vec<VmView> {
        let view = |(&id, &marker): (&u32, &u64)| {
            let mut arg = VmGetState { vm_id: id, state: 0 };
            let state = session.ioctl(&mut arg, |_| vec![]).result.map(|()| arg.state);
            VmView { id, state, mappings: session.kernel.mappings(id, marker) }
        };
        self.vms.iter().map(view).collect()
    }
}

impl Panthor {
    fn vm_create<K: Kernel>(&mut self, session: &Session<K>, flags: u32, user_va_range: u64) -> Outcome {
        let mut arg = VmCreate { flags, id: 0, user_va_range };
        let outcome = session.ioctl(&mut arg, |arg| vec![arg.id.into(), arg.user_va_range]);
        if outcome.result.is_ok() {
            let marker = self.next_marker;
            self.next_marker += PAGE;
            self.vms.insert(arg.id, marker);
            let flags = VM_BIND_OP_TYPE_MAP | VM_BIND_OP_MAP_NOEXEC | VM_BIND_OP_MAP_SPARSE;
            let op = VmBindOp { flags, va: marker, size: PAGE, ..Default::default() };
            let marked = bind(session, arg.id, 0, &[Op { op, syncs: vec![] }]);
            assert_eq!(marked.result, Ok(()), "a new VM takes a page");
        }
        outcome
    }
}

fn dev_query<K: Kernel>(session: &Session<K>, r#type: u32, size: u32) -> Outcome {
    let mut answer = [0u64; 32];
    let pointer = if size == 0 { 0 } else { user_address_mut(&mut answer) };
    let mut arg = DevQuery { r#type, size: size.min(size_of_val(&answer) as u32), pointer };
    let outcome = session.ioctl(&mut arg, |arg| vec![arg.size.into()]);
    let everywhere = matches!(r#type, DEV_QUERY_CSIF_INFO | DEV_QUERY_MMU_INFO);
    let answer = if everywhere { &answer[..] } else { &[] };
    Outcome { values: [&outcome.values, answer].concat(), ..outcome }
}

fn bind<K: Kernel>(session: &Session<K>, id: u32, flags: u32, ops: &[Op]) -> Outcome {
    let asynchronous = flags & VM_BIND_ASYNC != 0;
    if asynchronous && signals_nothing(session, ops.iter().map(|op| &op.syncs)) {
        return LEFT_OUT;
    }
    let syncs: Vec<Vec<SyncOp>> = ops.iter().map(|op| sync_ops(&op.syncs)).collect();
    let with_syncs = |(op, syncs): (&Op, &Vec<SyncOp>)| VmBindOp { syncs: ObjArray::new(syncs), ..op.op };
    let ops: Vec<VmBindOp> = ops.iter().zip(&syncs).map(with_syncs).collect();
    let mut arg = VmBind { vm_id: id, flags, ops: ObjArray::new(&ops) };
    let outcome = session.ioctl(&mut arg, |_| vec![]);
    // After a failure it says how far it came.
    Outcome { values: vec![arg.ops.count.into()], ..outcome }
}

fn submit<K: Kernel>(session: &Session<K>, handle: u32, jobs: &[Job]) -> Outcome {
    if signals_nothing(session, jobs.iter().map(|job| &job.syncs)) {
        return LEFT_OUT;
    }
    let syncs: Vec<Vec<SyncOp>> = jobs.iter().map(|job| sync_ops(&job.syncs)).collect();
    let with_syncs =
        |(job, syncs): (&Job, &Vec<SyncOp>)| QueueSubmit { syncs: ObjArray::new(syncs), ..job.submit };
    let submits: Vec<QueueSubmit> = jobs.iter().zip(&syncs).map(with_syncs).collect();
    let mut arg = GroupSubmit { group_handle: handle, pad: 0, queue_submits: ObjArray::new(&submits) };
    session.ioctl(&mut arg, |_| vec![])
}

/// Whether one of the syncs signals what is no syncobj. The kernel (7.3.4) goes through a null pointer for that.
fn signals_nothing<'a, K: Kernel>(
    session: &Session<K>,
    mut syncs: impl Iterator<Item = &'a Vec<Sync>>,
) -> bool {
    let into_nothing = |sync: &Sync| sync.0 & SYNC_OP_SIGNAL != 0 && !session.syncobjs.contains(&sync.1);
    syncs.any(|syncs| syncs.iter().any(into_nothing))
}

fn sync_ops(syncs: &[Sync]) -> Vec<SyncOp> {
    syncs.iter().map(|&(flags, handle, timeline_value)| SyncOp { flags, handle, timeline_value }).collect()
}

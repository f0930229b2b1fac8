//! Scripts at random: mostly sensible, now and then not.

use kmd::uapi::msm::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::Step;
use crate::script::drm::{self, handle, place, point, size};
use crate::script::{BLOCK, PAGE};

/// A step of a script.
type Any = crate::script::Step<Step>;

/// Objects of the prelude, with their sizes.
const OBJECTS: [(u32, u64); 3] = [(1, BLOCK + 4 * PAGE), (2, 5 * PAGE), (3, 16 * PAGE)];

/// Steps that most scripts build on: the opt-in to VM_BIND, bind queues 1 and 2, queue 3 for the GPU, objects 1 to 3 (the last
/// of this VM alone), syncobjs 1 to 3, the first of which is held back.
pub fn prelude() -> Vec<Any> {
    let queue = |flags| Any::Driver(Step::QueueCreate { flags, prio: 0 });
    let bo = |n: usize, flags| Any::Driver(Step::BoCreate { size: OBJECTS[n].1, flags: BO_WC | flags });
    let syncobj = |flags| Any::Drm(drm::Step::SyncobjCreate { flags });
    let nothing = Step::Bind { queue: 1, flags: 0, ops: vec![], waits: vec![], signals: vec![] };
    vec![
        Any::Driver(Step::SetParam { param: PARAM_EN_VM_BIND, value: 1, len: 0 }),
        queue(SUBMITQUEUE_VM_BIND),
        queue(SUBMITQUEUE_VM_BIND),
        queue(0),
        bo(0, 0),
        bo(1, 0),
        bo(2, BO_NO_SHARE),
        syncobj(0),
        syncobj(1),
        syncobj(0),
        Any::Drm(drm::Step::Hold { handle: 1, point: 0 }),
        // After it there is a first look at the VM.
        Any::Driver(nothing),
    ]
}

/// The prelude, and up to `len` steps of any kind. Nothing is held back in the end.
pub fn any_script(len: usize) -> impl Strategy<Value = Vec<Any>> {
    let release = Any::Drm(drm::Step::Release);
    vec(step(), 1..=len).prop_map(move |steps| [prelude(), steps, vec![release.clone()]].concat())
}

fn step() -> impl Strategy<Value = Any> {
    prop_oneof![
        18 => bind().prop_map(Any::Driver),
        4 => submit().prop_map(Any::Driver),
        2 => param().prop_map(Any::Driver),
        3 => queue().prop_map(Any::Driver),
        4 => object().prop_map(Any::Driver),
        2 => drm::object().prop_map(Any::Drm),
        5 => drm::syncobj().prop_map(Any::Drm),
        2 => drm::fence().prop_map(Any::Drm),
    ]
}

fn param() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![8 => Just(0u32), 1 => Just(4), 1 => Just(4097)];
    prop_oneof![
        // The last ones are of later kernels, or of none.
        4 => (0..0x17u32, len()).prop_map(|(param, len)| Step::GetParam { param, len }),
        1 => (select(vec![PARAM_COMM, PARAM_CMDLINE, PARAM_EN_VM_BIND, PARAM_CHIP_ID, 0]), 0..3u64, len())
            .prop_map(|(param, value, len)| Step::SetParam { param, value, len }),
    ]
}

fn queue() -> impl Strategy<Value = Step> {
    let id = || prop_oneof![8 => 1..4u32, 1 => Just(0), 1 => 4..6u32];
    let flags = prop_oneof![4 => Just(0u32), 4 => Just(SUBMITQUEUE_VM_BIND), 1 => 0..8u32];
    let prio = prop_oneof![6 => Just(0u32), 2 => 1..3u32, 1 => Just(3)];
    prop_oneof![
        3 => (flags, prio).prop_map(|(flags, prio)| Step::QueueCreate { flags, prio }),
        1 => id().prop_map(|id| Step::QueueClose { id }),
        2 => (id(), 0..2u32, select(vec![0u32, 1, 4, 8]))
            .prop_map(|(id, param, len)| Step::QueueQuery { id, param, len }),
        2 => (id(), 0..4u32, prop_oneof![8 => 0..2u32, 1 => Just(2)])
            .prop_map(|(queue, fence, flags)| Step::WaitFence { queue, fence, flags }),
    ]
}

fn object() -> impl Strategy<Value = Step> {
    let size = select(vec![PAGE, 1, 3 * PAGE, 9 * PAGE, 0]);
    let cache = prop_oneof![8 => Just(BO_WC), 2 => Just(BO_CACHED), 1 => (0..16u32).prop_map(|n| n << 16)];
    let flags = prop_oneof![4 => Just(0u32), 4 => 0..8u32, 1 => Just(8)];
    let len = select(vec![0u32, 1, 4, 9, 31, 32, 128, 129]);
    prop_oneof![
        4 => (size, cache, flags).prop_map(|(size, cache, flags)| Step::BoCreate { size, flags: cache | flags }),
        4 => (handle(), 0..9u32, any::<bool>(), len)
            .prop_map(|(handle, info, buffer, len)| Step::BoInfo { handle, info, buffer, len }),
        2 => (handle(), prop_oneof![8 => 0..16u32, 1 => Just(16)])
            .prop_map(|(handle, op)| Step::CpuPrep { handle, op }),
        1 => handle().prop_map(|handle| Step::CpuFini { handle }),
        1 => (handle(), prop_oneof![4 => Just(MADV_WILLNEED), 1 => Just(2)])
            .prop_map(|(handle, madv)| Step::Madvise { handle, madv }),
    ]
}

fn bind() -> impl Strategy<Value = Step> {
    let queue = prop_oneof![20 => Just(1u32), 10 => Just(2), 1 => Just(3), 1 => Just(0), 1 => Just(9)];
    let flags = prop_oneof![30 => Just(0u32), 1 => Just(4)];
    let ops = prop_oneof![1 => Just(Vec::new()), 30 => vec(op(), 1..5)];
    (queue, flags, ops, waits(), signals()).prop_map(|(queue, flags, ops, waits, signals)| Step::Bind {
        queue,
        flags,
        ops,
        waits,
        signals,
    })
}

fn op() -> impl Strategy<Value = VmBindOp> {
    (shape(), defect()).prop_map(|(mut op, defect)| {
        defect(&mut op);
        op
    })
}

/// An operation that is well formed, if its object exists.
fn shape() -> impl Strategy<Value = VmBindOp> {
    let offset = select(vec![0, PAGE, 2 * PAGE, BLOCK]);
    let flags = prop_oneof![4 => Just(0u32), 1 => Just(VM_BIND_OP_DUMP)];
    let object = prop_oneof![8 => select(OBJECTS.to_vec()), 1 => (4..6u32, Just(3 * PAGE))];
    let map = (object, flags, place(), size(), offset).prop_map(|((handle, len), flags, iova, range, at)| {
        let obj_offset = if at < len { at } else { 0 };
        let range = range.min(len - obj_offset);
        VmBindOp { op: VM_BIND_OP_MAP, handle, obj_offset, iova, range, flags, pad: 0 }
    });
    let other = |op| move |(iova, range)| VmBindOp { op, iova, range, ..Default::default() };
    prop_oneof![
        8 => map,
        4 => (place(), size()).prop_map(other(VM_BIND_OP_MAP_NULL)),
        4 => (place(), size()).prop_map(other(VM_BIND_OP_UNMAP)),
    ]
}

/// Something that is wrong with an operation: mostly nothing.
fn defect() -> impl Strategy<Value = fn(&mut VmBindOp)> {
    let defects: Vec<fn(&mut VmBindOp)> = vec![
        |op| op.iova += 1,
        |op| op.range += 8,
        |op| op.obj_offset += 64,
        |op| op.range = 0,
        |op| op.iova = 1 << 48,
        |op| op.iova = PAGE,
        |op| op.iova = u64::MAX - (PAGE - 1),
        |op| op.range = u64::MAX - (PAGE - 1),
        |op| op.obj_offset += PAGE,
        |op| op.handle ^= 1,
        |op| op.flags |= 2,
        |op| op.op ^= 1,
        |op| op.op = 3,
        |op| op.pad = 1,
    ];
    prop_oneof![
        24 => Just((|_| ()) as fn(&mut VmBindOp)),
        1 => select(defects),
    ]
}

fn submit() -> impl Strategy<Value = Step> {
    let queue = prop_oneof![20 => Just(3u32), 4 => Just(0), 1 => Just(1), 1 => Just(9)];
    let flags = prop_oneof![
        20 => Just(0u32),
        4 => Just(SUBMIT_NO_IMPLICIT),
        4 => Just(SUBMIT_FENCE_SN_IN),
        1 => Just(SUBMIT_SUDO),
        1 => Just(0x0100_0000),
    ];
    let used = prop_oneof![20 => 1..4u32, 2 => 0..16u32, 1 => Just(16)];
    let object = (used, handle()).prop_map(|(flags, handle)| SubmitBo { flags, handle, presumed: 0 });
    (queue, flags, vec(object, 0..3), waits(), signals(), 0..5u32).prop_map(
        |(queue, flags, objects, waits, signals, number)| Step::Submit {
            queue,
            flags,
            objects,
            waits,
            signals,
            number,
        },
    )
}

/// What is waited for must have a fence: syncobjs 1 and 2 have one from the start.
fn waits() -> impl Strategy<Value = Vec<Syncobj>> {
    let flags = prop_oneof![8 => Just(0u32), 2 => Just(SYNCOBJ_RESET), 1 => Just(2)];
    let which = prop_oneof![3 => Just((1u32, 0u64)), 2 => Just((2, 0)), 2 => (handle(), point())];
    let wait = (which, flags).prop_map(|((handle, point), flags)| Syncobj { handle, flags, point });
    prop_oneof![3 => Just(Vec::new()), 1 => vec(wait, 1..3)]
}

fn signals() -> impl Strategy<Value = Vec<Syncobj>> {
    let flags = prop_oneof![30 => Just(0u32), 1 => Just(1)];
    // Points are for syncobj 3.
    let signal = (handle(), point(), flags).prop_map(|(handle, point, flags)| {
        let point = if handle == 3 { point } else { 0 };
        Syncobj { handle, flags, point }
    });
    prop_oneof![3 => Just(Vec::new()), 2 => vec(signal, 1..3)]
}

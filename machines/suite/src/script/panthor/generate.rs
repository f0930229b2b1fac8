//! Scripts at random: mostly sensible, now and then not.

use kmd::uapi::panthor::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Job, Op, Step};
use crate::script::drm::{self, handle, place, point, size};
use crate::script::{BLOCK, PAGE};

/// A step of a script.
type Any = crate::script::Step<Step>;

/// Steps that most scripts build on: VMs 1 and 2, objects 1 to 3 (the last of VM 1 alone), syncobjs 1 to 3.
pub fn prelude() -> Vec<Any> {
    let vm = Any::Driver(Step::VmCreate { flags: 0, user_va_range: 0 });
    let bo = |size, exclusive| Any::Driver(Step::BoCreate { size, flags: 0, exclusive });
    let syncobj = |flags| Any::Drm(drm::Step::SyncobjCreate { flags });
    vec![vm.clone(), vm, bo(2 * BLOCK, 0), bo(5 * PAGE, 0), bo(BLOCK, 1), syncobj(0), syncobj(1), syncobj(0)]
}

/// The prelude, and up to `len` steps of any kind.
pub fn any_script(len: usize) -> impl Strategy<Value = Vec<Any>> {
    vec(step(), 1..=len).prop_map(|steps| [prelude(), steps].concat())
}

fn step() -> impl Strategy<Value = Any> {
    prop_oneof![
        12 => bind(0).prop_map(Any::Driver),
        8 => bind(VM_BIND_ASYNC).prop_map(Any::Driver),
        1 => select(vec![2u32, 3, u32::MAX]).prop_flat_map(bind).prop_map(Any::Driver),
        1 => dev_query().prop_map(Any::Driver),
        2 => vm().prop_map(Any::Driver),
        4 => group().prop_map(Any::Driver),
        1 => heap().prop_map(Any::Driver),
        2 => object().prop_map(Any::Driver),
        2 => drm::object().prop_map(Any::Drm),
        5 => drm::syncobj().prop_map(Any::Drm),
        2 => drm::fence().prop_map(Any::Drm),
    ]
}

fn dev_query() -> impl Strategy<Value = Step> {
    let size = select(vec![0u32, 1, 4, 8, 16, 24, 48, 56, 96, 112, 120, 256]);
    (0..6u32, size).prop_map(|(r#type, size)| Step::DevQuery { r#type, size })
}

fn vm() -> impl Strategy<Value = Step> {
    let range = select(vec![0, 1 << 32, 1 << 47, (1 << 47) + PAGE, (1 << 48) - (256 << 20), 1 << 48]);
    let flags = prop_oneof![9 => Just(0u32), 1 => Just(1)];
    prop_oneof![
        (flags, range).prop_map(|(flags, user_va_range)| Step::VmCreate { flags, user_va_range }),
        vm_id().prop_map(|id| Step::VmDestroy { id }),
        vm_id().prop_map(|id| Step::VmGetState { id }),
    ]
}

fn group() -> impl Strategy<Value = Step> {
    let ring = prop_oneof![10 => select(vec![4096u32, 65536]), 1 => select(vec![0u32, 5000, 2048, 131_072])];
    let queue = (prop_oneof![10 => 0..16u8, 1 => Just(16)], ring);
    // The higher two priorities depend on who runs the program.
    let priority = prop_oneof![10 => 0..2u8, 1 => Just(4)];
    let cores = select(vec![(0u8, 0u64), (1, 1), (4, 0x5_0005), (2, 1), (1, 2)]);
    let queues = prop_oneof![12 => vec(queue.clone(), 1..4), 1 => vec(queue, 8..10), 1 => Just(vec![])];
    let create = (queues, priority, cores, vm_id())
        .prop_map(|(queues, priority, cores, vm)| Step::GroupCreate { queues, priority, cores, vm });
    let job = (0..3u32, prop_oneof![20 => Just(0u32), 1 => Just(1u32 << 24)], vec(sync(), 0..3)).prop_map(
        |(queue_index, latest_flush, syncs)| {
            let submit = QueueSubmit { queue_index, latest_flush, ..Default::default() };
            Job { submit, syncs }
        },
    );
    let id = || prop_oneof![8 => 1..3u32, 1 => Just(0u32), 1 => Just(0x1_0001u32)];
    prop_oneof![
        4 => create,
        1 => id().prop_map(|handle| Step::GroupDestroy { handle }),
        1 => id().prop_map(|handle| Step::GroupGetState { handle }),
        4 => (id(), vec(job, 0..4)).prop_map(|(handle, jobs)| Step::Submit { handle, jobs }),
    ]
}

fn heap() -> impl Strategy<Value = Step> {
    let chunks = select(vec![(1u32, 4u32), (2, 2), (0, 1), (3, 2)]);
    let size = select(vec![128u32 << 10, 256 << 10, 8 << 20, (8 << 20) + 4096, 64 << 10, (128 << 10) + 512]);
    let handle = select(vec![0u32, 1 << 16, (1 << 16) + 1, 2 << 16, 5 << 16]);
    prop_oneof![
        2 => (vm_id(), chunks, size).prop_map(|(vm, chunks, size)| Step::HeapCreate { vm, chunks, size }),
        1 => handle.prop_map(|handle| Step::HeapDestroy { handle }),
    ]
}

fn object() -> impl Strategy<Value = Step> {
    let size = select(vec![PAGE, 1, 3 * PAGE, BLOCK, BLOCK + PAGE, 0]);
    let flags = prop_oneof![6 => Just(0u32), 4 => 0..8u32];
    let exclusive = prop_oneof![3 => Just(0u32), 2 => 1..4u32];
    prop_oneof![
        3 => (size, flags, exclusive)
            .prop_map(|(size, flags, exclusive)| Step::BoCreate { size, flags, exclusive }),
        1 => handle().prop_map(|handle| Step::MmapOffset { handle }),
        1 => handle().prop_map(|handle| Step::BoInfo { handle }),
    ]
}

fn bind(flags: u32) -> impl Strategy<Value = Step> {
    let ops = prop_oneof![1 => Just(Vec::new()), 30 => vec(op(flags & VM_BIND_ASYNC != 0), 1..5)];
    (vm_id(), ops).prop_map(move |(id, ops)| Step::Bind { id, flags, ops })
}

fn op(asynchronous: bool) -> impl Strategy<Value = Op> {
    let few = if asynchronous { 3 } else { 1 };
    // Syncs in a synchronous call are an error: one in thirty.
    let syncs = prop_oneof![
        (if asynchronous { 10 } else { 30 }) => Just(Vec::new()),
        (if asynchronous { 10 } else { 1 }) => vec(sync(), 1..=few),
    ];
    (shape(), syncs, defect()).prop_map(|(mut op, syncs, defect)| {
        defect(&mut op);
        Op { op, syncs }
    })
}

/// An operation that is well formed, if its object exists.
fn shape() -> impl Strategy<Value = VmBindOp> {
    let offset = select(vec![0, PAGE, 2 * PAGE, BLOCK]);
    let map = (object_and_size(), map_flags(), place(), size(), offset).prop_map(
        |((bo_handle, bo_size), flags, va, size, bo_offset)| {
            let bo_offset = if bo_offset < bo_size { bo_offset } else { 0 };
            let (flags, size) = (VM_BIND_OP_TYPE_MAP | flags, size.min(bo_size - bo_offset));
            VmBindOp { flags, bo_handle, bo_offset, va, size, ..Default::default() }
        },
    );
    let sparse = (place(), size()).prop_map(|(va, size)| VmBindOp {
        flags: VM_BIND_OP_TYPE_MAP | VM_BIND_OP_MAP_NOEXEC | VM_BIND_OP_MAP_SPARSE,
        va,
        size,
        ..Default::default()
    });
    let unmap = (place(), size()).prop_map(|(va, size)| VmBindOp {
        flags: VM_BIND_OP_TYPE_UNMAP,
        va,
        size,
        ..Default::default()
    });
    let sync_only = Just(VmBindOp { flags: VM_BIND_OP_TYPE_SYNC_ONLY, ..Default::default() });
    prop_oneof![8 => map, 4 => sparse, 4 => unmap, 1 => sync_only]
}

/// Something that is wrong with an operation: mostly nothing.
fn defect() -> impl Strategy<Value = fn(&mut VmBindOp)> {
    let defects: Vec<fn(&mut VmBindOp)> = vec![
        |op| op.va += 1,
        |op| op.size += 8,
        |op| op.bo_offset += 64,
        |op| op.size = 0,
        |op| op.va = 1 << 48,
        |op| op.va = u64::MAX - (PAGE - 1),
        |op| op.size = u64::MAX - (PAGE - 1),
        |op| op.bo_handle ^= 1,
        |op| op.flags |= 1 << 4,
        |op| op.flags ^= 3 << 28,
        |op| op.flags ^= VM_BIND_OP_MAP_SPARSE,
        |op| op.flags ^= VM_BIND_OP_MAP_NOEXEC,
    ];
    prop_oneof![
        24 => Just((|_| ()) as fn(&mut VmBindOp)),
        1 => select(defects),
    ]
}

/// An object of the prelude with its size, or any.
fn object_and_size() -> impl Strategy<Value = (u32, u64)> {
    let prelude = select(vec![(1, 2 * BLOCK), (1, 2 * BLOCK), (2, 5 * PAGE), (3, BLOCK)]);
    prop_oneof![8 => prelude, 1 => (handle(), Just(2 * BLOCK))]
}

fn map_flags() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(VM_BIND_OP_MAP_NOEXEC), 1 => 0..8u32]
}

fn sync() -> impl Strategy<Value = (u32, u32, u64)> {
    let kind = prop_oneof![
        20 => Just(SYNC_OP_HANDLE_TYPE_SYNCOBJ),
        20 => Just(SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ),
        1 => Just(2u32),
        1 => Just(1u32 << 8),
    ];
    let signal = (handle(), point()).prop_map(|(handle, point)| (SYNC_OP_SIGNAL, handle, point));
    // What is waited for must have a fence: syncobj 2 has one from the start.
    let wait =
        (prop_oneof![4 => Just(2u32), 3 => handle()], point()).prop_map(|(handle, point)| (0, handle, point));
    (kind, prop_oneof![2 => signal, 1 => wait]).prop_map(|(kind, (direction, handle, point))| {
        // A point with a binary syncobj is an error, which should not be the rule; nor should a point of syncobj 2.
        let binary = handle == 2 || kind == SYNC_OP_HANDLE_TYPE_SYNCOBJ && handle != 3;
        let kind = if binary && kind == SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ { 0 } else { kind };
        (kind | direction, handle, if binary { 0 } else { point })
    })
}

fn vm_id() -> impl Strategy<Value = u32> {
    prop_oneof![36 => Just(1u32), 8 => Just(2), 1 => Just(3), 1 => Just(0)]
}

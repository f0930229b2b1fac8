//! What VM_BIND refuses, and what is left then.

use kmd::msm::{MsmVm, get_param};
use kmd::uapi::msm::*;
use kmd::{Errno, Refused, Vm};

use crate::rig::*;

/// An operation that is to be refused (or, a few, not), and why. None names an object that does not exist: see [`crate::oops`].
fn cases(bo: u32, size: u64, end: u64) -> Vec<(&'static str, VmBindOp, Result<(), Errno>)> {
    let good = VmBindOp { op: VM_BIND_OP_MAP, handle: bo, iova: BASE, range: PAGE, ..Default::default() };
    let null = VmBindOp { op: VM_BIND_OP_MAP_NULL, handle: 0, ..good };
    let unmap = VmBindOp { op: VM_BIND_OP_UNMAP, handle: 0, ..good };
    let refused = Err(Errno::INVAL);
    vec![
        ("an address between pages", VmBindOp { iova: BASE + 1, ..good }, refused),
        ("a range between pages", VmBindOp { range: PAGE + 1, ..good }, refused),
        ("an offset between pages", VmBindOp { obj_offset: 12, ..good }, refused),
        ("an offset of an unmap between pages", VmBindOp { obj_offset: 12, ..unmap }, refused),
        ("no object", VmBindOp { handle: 0, ..good }, refused),
        ("an unmap with an object", VmBindOp { handle: bo, ..unmap }, refused),
        ("a null mapping with an object", VmBindOp { handle: bo, ..null }, refused),
        ("over the object's end", VmBindOp { obj_offset: size - PAGE, range: 2 * PAGE, ..good }, refused),
        ("behind the object's end", VmBindOp { obj_offset: size, ..good }, refused),
        ("below the VM's range", VmBindOp { iova: PAGE, ..good }, refused),
        ("behind the VM's range", VmBindOp { iova: end, ..good }, refused),
        ("over the end of the VM's range", VmBindOp { iova: end - PAGE, range: 2 * PAGE, ..good }, refused),
        ("a range beyond 2^64", VmBindOp { range: !0xfff, ..unmap }, refused),
        ("an unknown operation", VmBindOp { op: 3, ..unmap }, refused),
        ("an unknown flag", VmBindOp { flags: 2, ..unmap }, refused),
        ("an unmap with an offset", VmBindOp { obj_offset: PAGE, ..unmap }, Ok(())),
        ("an unmap of nothing", VmBindOp { iova: BASE + (1 << 40), ..unmap }, Ok(())),
        ("an unmap that goes to crash dumps", VmBindOp { flags: VM_BIND_OP_DUMP, ..unmap }, Ok(())),
    ]
}

#[test]
fn one_by_one() {
    let rig = Rig::new();
    let (size, end, queue) = (16 * PAGE, rig.vm.limits().va.end, rig.queue());
    let bo = rig.bo(size);
    for (what, op, expected) in cases(bo.handle().0, size, end) {
        assert_eq!(raw_bind(&*rig.node, queue, 0, &[op]).map(drop), expected, "{what}");
        assert_eq!(rig.dump(), [], "{what}");
    }
    assert_eq!(rig.vm.is_usable(), Ok(true), "a refusal harms nothing");
}

/// All operations are checked before the first is done.
#[test]
fn as_the_last_of_a_call() {
    let rig = Rig::new();
    let (size, end, queue) = (16 * PAGE, rig.vm.limits().va.end, rig.queue());
    let bo = rig.bo(size);
    let good =
        VmBindOp { op: VM_BIND_OP_MAP, handle: bo.handle().0, iova: BASE, range: PAGE, ..Default::default() };
    for (what, op, expected) in cases(bo.handle().0, size, end) {
        if expected.is_err() {
            assert_eq!(raw_bind(&*rig.node, queue, 0, &[good, op]).map(drop), expected, "{what}");
            assert_eq!(rig.dump(), [], "{what}");
        }
    }
    assert_eq!(rig.vm.is_usable(), Ok(true));
}

#[test]
fn ranges_without_length() {
    let rig = Rig::new();
    let (bo, queue) = (rig.bo(4 * PAGE), rig.queue());
    let map = VmBindOp { op: VM_BIND_OP_MAP, handle: bo.handle().0, iova: BASE, ..Default::default() };
    for op in [
        map,
        VmBindOp { op: VM_BIND_OP_MAP_NULL, handle: 0, ..map },
        VmBindOp { op: VM_BIND_OP_UNMAP, handle: 0, ..map },
    ] {
        assert_eq!(raw_bind(&*rig.node, queue, 0, &[op]).map(drop), Ok(()));
        assert_eq!(rig.dump(), []);
    }
    assert_eq!(rig.vm.is_usable(), Ok(true));
}

#[test]
fn a_synchronous_bind_of_several_calls() {
    let rig = Rig::new();
    let bo = rig.bo(PAGE);
    let mut ops: Vec<_> = (0..600).map(|i| map(i * 2 * PAGE, PAGE, &bo, 0)).collect();
    ops[599].va += 1;
    assert_eq!(rig.vm.bind(&ops), Err(Refused { applied: 512, errno: Errno::INVAL }));
    assert_eq!(rig.dump().len(), 512, "the first call's");
}

#[test]
fn calls_as_a_whole() {
    let rig = Rig::new();
    let (node, queue) = (&*rig.node, rig.queue());
    let op = [VmBindOp { iova: BASE, range: PAGE, ..Default::default() }];
    let bind = |queue, flags| raw_bind(node, queue, flags, &op).map(drop);
    assert_eq!(bind(99, 4), Err(Errno::INVAL), "an unknown flag");
    assert_eq!(bind(99, 0), Err(Errno::NOENT), "no such queue");
    assert_eq!(bind(0, 0), Err(Errno::INVAL), "no bind queue");
    assert_eq!(bind(queue, VM_BIND_FENCE_FD_IN), Err(Errno::INVAL), "no sync file");
    let call = |arg: VmBind| ioctl(node, &mut VmBind { queue_id: queue, ..arg });
    assert_eq!(call(VmBind::default()), Ok(()), "no operations");
    let ops = |address: u32| VmBindOp { op: address, ..Default::default() };
    assert_eq!(call(VmBind { nr_ops: 2, op: ops(8), ..Default::default() }), Err(Errno::FAULT));
    assert_eq!(call(VmBind { nr_ops: 200_000, op: ops(8), ..Default::default() }), Err(Errno::NOMEM));

    let empty = rig.syncobj();
    let syncs = |handle, flags| [Syncobj { handle, flags, point: 0 }];
    let with = |waits: &[Syncobj], signals: &[Syncobj]| {
        call(VmBind {
            in_syncobjs: kmd::uapi::user_address(waits),
            nr_in_syncobjs: waits.len() as u32,
            out_syncobjs: kmd::uapi::user_address(signals),
            nr_out_syncobjs: signals.len() as u32,
            syncobj_stride: size_of::<Syncobj>() as u32,
            ..Default::default()
        })
    };
    assert_eq!(with(&syncs(77, 0), &[]), Err(Errno::NOENT), "a wait for no syncobj");
    assert_eq!(with(&syncs(77, 2), &[]), Err(Errno::INVAL), "an unknown flag of a wait");
    assert_eq!(with(&syncs(empty.handle().0, 0), &[]), Err(Errno::INVAL), "a wait for an empty one");
    assert_eq!(with(&[], &syncs(77, 0)), Err(Errno::INVAL), "a signal of no syncobj");
    assert_eq!(with(&[], &syncs(empty.handle().0, 1)), Err(Errno::INVAL), "a flag of a signal");
    assert_eq!(with(&[], &syncs(empty.handle().0, 0)), Ok(()));
    wait(&empty, None);
    assert_eq!(with(&syncs(empty.handle().0, SYNCOBJ_RESET), &[]), Ok(()));
    assert!(!is_signaled(&empty, None), "it was reset after the wait");
    let many = VmBind { nr_in_syncobjs: u32::MAX, in_syncobjs: 1 << 20, ..Default::default() };
    assert_eq!(call(many), Err(Errno::NOMEM));
}

#[test]
fn the_opt_in_comes_before_the_vm() {
    let node = open();
    assert_eq!(MsmVm::attach(node.clone()).err(), Some(Errno::INVAL), "nobody has opted in");
    assert_eq!(MsmVm::create(node.clone()).err(), Some(Errno::BUSY), "to ask made the VM");
    assert_eq!(raw_bind(&*node, 0, 0, &[]).map(drop), Err(Errno::INVAL));

    // Here 7.2 and 7.3 differ: in 7.3 this makes the VM, by its source.
    let node = open();
    let mut queue = SubmitqueueNew { flags: SUBMITQUEUE_VM_BIND, ..Default::default() };
    assert_eq!(ioctl(&*node, &mut queue), Err(Errno::INVAL));
    assert!(MsmVm::create(node).is_ok(), "a queue that was refused made no VM");

    let node = open();
    get_param(&*node, PARAM_GPU_ID).unwrap();
    assert_eq!(MsmVm::create(node).err(), Some(Errno::BUSY), "reading a parameter made the VM");

    let node = open();
    let _vm = MsmVm::create(node.clone()).unwrap();
    assert_eq!(MsmVm::create(node.clone()).err(), Some(Errno::BUSY));
    let new = |flags, prio| {
        let mut arg = SubmitqueueNew { flags, prio, id: 0 };
        ioctl(&*node, &mut arg).map(|()| arg.id)
    };
    assert_eq!((new(0, 0), new(0, 2), new(0, 3)), (Ok(1), Ok(2), Err(Errno::INVAL)));
    assert_eq!((new(SUBMITQUEUE_ALLOW_PREEMPT, 0), new(4, 0)), (Err(Errno::INVAL), Err(Errno::INVAL)));
    assert_eq!((new(SUBMITQUEUE_VM_BIND, 1), new(SUBMITQUEUE_VM_BIND, 0)), (Err(Errno::INVAL), Ok(3)));
}

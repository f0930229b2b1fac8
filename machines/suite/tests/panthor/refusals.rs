//! What VM_BIND refuses, and what is left then.

use kmd::uapi::panthor::*;
use kmd::{Errno, GemHandle, Refused, Vm};

use crate::rig::*;

/// An operation that is to be refused (or, a few, not), and why.
fn cases(bo: GemHandle, size: u64, end: u64) -> Vec<(&'static str, VmBindOp, Result<(), Errno>)> {
    let map = VM_BIND_OP_TYPE_MAP | VM_BIND_OP_MAP_NOEXEC;
    let good = VmBindOp { flags: map, bo_handle: bo.0, va: BASE, size: PAGE, ..Default::default() };
    let sparse = VmBindOp { flags: map | VM_BIND_OP_MAP_SPARSE, bo_handle: 0, ..good };
    let unmap = VmBindOp { flags: VM_BIND_OP_TYPE_UNMAP, bo_handle: 0, ..good };
    let sync_only = VmBindOp { flags: VM_BIND_OP_TYPE_SYNC_ONLY, ..Default::default() };
    let refused = Err(Errno::INVAL);
    vec![
        ("an address between pages", VmBindOp { va: BASE + 1, ..good }, refused),
        ("a size between pages", VmBindOp { size: PAGE + 1, ..good }, refused),
        ("an offset between pages", VmBindOp { bo_offset: 12, ..good }, refused),
        ("no size", VmBindOp { size: 0, ..good }, Ok(())),
        ("no size, and nothing else right", VmBindOp { size: 0, va: 1, flags: 0xff, ..good }, Ok(())),
        ("no such object", VmBindOp { bo_handle: 9999, ..good }, refused),
        ("no object", VmBindOp { bo_handle: 0, ..good }, refused),
        ("over the object's end", VmBindOp { bo_offset: size - PAGE, size: 2 * PAGE, ..good }, refused),
        ("behind the object's end", VmBindOp { bo_offset: size, ..good }, refused),
        ("an end beyond 2^64", VmBindOp { bo_offset: !0xfff, size: 2 * PAGE, ..good }, refused),
        ("behind the user's range", VmBindOp { va: end, ..good }, refused),
        ("over the end of the user's range", VmBindOp { va: end - PAGE, size: 2 * PAGE, ..good }, refused),
        ("a range beyond 2^64", VmBindOp { va: !0xfff, size: 2 * PAGE, ..good }, refused),
        ("an unknown flag", VmBindOp { flags: good.flags | 1 << 5, ..good }, refused),
        ("an unknown type", VmBindOp { flags: 3 << 28, ..good }, refused),
        ("unmap with an object", VmBindOp { bo_handle: bo.0, ..unmap }, refused),
        ("unmap with an offset", VmBindOp { bo_offset: PAGE, ..unmap }, refused),
        ("unmap with a flag", VmBindOp { flags: unmap.flags | VM_BIND_OP_MAP_NOEXEC, ..unmap }, refused),
        ("unmap behind the user's range", VmBindOp { va: end, ..unmap }, refused),
        ("unmap of nothing", VmBindOp { va: BASE + (1 << 40), ..unmap }, Ok(())),
        (
            "sparse that executes",
            VmBindOp { flags: sparse.flags & !VM_BIND_OP_MAP_NOEXEC, ..sparse },
            refused,
        ),
        ("sparse with an object", VmBindOp { bo_handle: bo.0, ..sparse }, refused),
        ("sparse with an offset", VmBindOp { bo_offset: PAGE, ..sparse }, refused),
        ("sync-only with a size", VmBindOp { size: PAGE, ..sync_only }, refused),
        ("sync-only in a synchronous call", sync_only, Ok(())),
        (
            "syncs in a synchronous call",
            VmBindOp { syncs: ObjArray { stride: 16, count: 1, array: 0 }, ..good },
            refused,
        ),
    ]
}

#[test]
fn one_by_one() {
    let rig = Rig::new();
    let (size, end) = (16 * PAGE, rig.vm.limits().va.end);
    let bo = rig.bo(size);
    for (what, op, expected) in cases(bo.handle(), size, end) {
        let (result, _) = raw_bind(&*rig.node, rig.vm.id(), 0, &[op]);
        assert_eq!(result, expected, "{what}");
        assert_eq!(rig.dump(), [], "{what}");
    }
    assert_eq!(rig.vm.is_usable(), Ok(true), "a refusal harms nothing");
}

#[test]
fn those_before_it_stay() {
    let rig = Rig::new();
    let bo = rig.bo(16 * PAGE);
    let ops = [
        map(0, PAGE, bo.handle(), 0),
        map(4 * PAGE + 1, PAGE, bo.handle(), 0),
        map(8 * PAGE, PAGE, bo.handle(), 0),
    ];
    assert_eq!(rig.vm.bind(&ops), Err(Refused { applied: 1, errno: Errno::INVAL }));
    assert_eq!(rig.dump(), [(0, PAGE, Some((bo.handle().0, 0)))]);
}

#[test]
fn calls_as_a_whole() {
    let rig = Rig::new();
    let bo = rig.bo(PAGE);
    let op = VmBindOp {
        flags: VM_BIND_OP_TYPE_MAP,
        bo_handle: bo.handle().0,
        va: BASE,
        size: PAGE,
        ..Default::default()
    };
    assert_eq!(raw_bind(&*rig.node, 77, 0, &[op]), (Err(Errno::INVAL), 1), "no such VM");
    assert_eq!(raw_bind(&*rig.node, 0, 0, &[op]), (Err(Errno::INVAL), 1), "no VM");
    assert_eq!(raw_bind(&*rig.node, rig.vm.id(), 0, &[]), (Ok(()), 0), "no operations");

    let array = ObjArray::new(&[op]);
    let call = |ops| ioctl(&*rig.node, &mut VmBind { vm_id: rig.vm.id(), flags: 0, ops });
    assert_eq!(call(ObjArray { array: 0, ..array }), Err(Errno::FAULT));
    assert_eq!(call(ObjArray { stride: 8, ..array }), Err(Errno::INVAL), "too short for an operation");
    assert_eq!(call(ObjArray { count: 0, ..array }), Ok(()));
    assert_eq!(rig.dump(), []);
}

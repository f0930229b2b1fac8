//! Synchronous binds: what is mapped afterwards.

use kmd::Vm;
use kmd::uapi::panthor::*;

use crate::rig::*;

#[test]
fn a_map_and_its_end() {
    let rig = Rig::new();
    let bo = rig.bo(16 * PAGE);
    rig.map(&bo, 2 * PAGE, 0, 4 * PAGE).unwrap();
    assert_eq!(rig.dump(), [(0, 4 * PAGE, Some((bo.handle().0, 2 * PAGE)))]);
    rig.unmap(0, 4 * PAGE).unwrap();
    assert_eq!(rig.dump(), []);
    rig.unmap(0, 1 << 30).unwrap();
}

#[test]
fn a_hole_splits() {
    let rig = Rig::new();
    let bo = rig.private_bo(16 << 20);
    let object = |offset| Some((bo.handle().0, offset));
    rig.map(&bo, 0, 0, 16 << 20).unwrap();
    rig.unmap(5 * PAGE, 3 * PAGE).unwrap();
    assert_eq!(rig.dump(), [(0, 5 * PAGE, object(0)), (8 * PAGE, (16 << 20) - 8 * PAGE, object(8 * PAGE))]);
}

#[test]
fn a_map_replaces_what_it_covers() {
    let rig = Rig::new();
    let (a, b) = (rig.bo(8 * BLOCK), rig.private_bo(8 * BLOCK));
    rig.map(&a, 0, 0, 8 * BLOCK).unwrap();
    rig.map(&b, BLOCK / 2, BLOCK, 2 * BLOCK).unwrap();
    let expected = [
        (0, BLOCK, Some((a.handle().0, 0))),
        (BLOCK, 2 * BLOCK, Some((b.handle().0, BLOCK / 2))),
        (3 * BLOCK, 5 * BLOCK, Some((a.handle().0, 3 * BLOCK))),
    ];
    assert_eq!(rig.dump(), expected);
    rig.map(&b, BLOCK / 2, BLOCK, 2 * BLOCK).unwrap();
    assert_eq!(rig.dump(), expected, "the same again");
    rig.map(&a, BLOCK, BLOCK, 2 * BLOCK).unwrap();
    let page = |n: u64| (n * BLOCK, Some((a.handle().0, n * BLOCK)));
    let starts: Vec<_> = rig.dump().iter().map(|(va, _, object)| (*va, *object)).collect();
    assert_eq!(starts, [page(0), page(1), page(3)], "neighbours are not joined");
}

#[test]
fn null_mappings() {
    let rig = Rig::new();
    let bo = rig.bo(BLOCK);
    rig.null(0, 8 << 20).unwrap();
    rig.map(&bo, 0, 3 << 20, 16 * PAGE).unwrap();
    let end = (3 << 20) + 16 * PAGE;
    assert_eq!(
        rig.dump(),
        [(0, 3 << 20, None), (3 << 20, 16 * PAGE, Some((bo.handle().0, 0))), (end, (8 << 20) - end, None)]
    );
    rig.null(3 << 20, 16 * PAGE).unwrap();
    assert!(rig.dump().iter().all(|(_, _, object)| object.is_none()));
    rig.unmap(0, 8 << 20).unwrap();
    rig.null(PAGE, 3 * PAGE).unwrap();
    rig.null(1 << 32, 8 << 30).unwrap();
    assert_eq!(rig.dump(), [(PAGE, 3 * PAGE, None), (1 << 32, 8 << 30, None)]);
    rig.unmap(0, 16 << 30).unwrap();
    assert_eq!(rig.dump(), []);
}

#[test]
fn a_call_binds_in_order() {
    let rig = Rig::new();
    let bo = rig.bo(4 * PAGE);
    let ops = [map(0, 4 * PAGE, bo.handle(), 0), unmap(PAGE, PAGE), null(2 * PAGE, PAGE)];
    rig.vm.bind(&ops).unwrap();
    let object = |offset| Some((bo.handle().0, offset));
    assert_eq!(
        rig.dump(),
        [(0, PAGE, object(0)), (2 * PAGE, PAGE, None), (3 * PAGE, PAGE, object(3 * PAGE))]
    );
}

#[test]
fn more_operations_than_a_call_takes() {
    let rig = Rig::new();
    let (bo, n) = (rig.bo(PAGE), 1500);
    let mut ops: Vec<_> = (0..n).map(|i| map(i * 2 * PAGE, PAGE, bo.handle(), 0)).collect();
    rig.vm.bind(&ops).unwrap();
    assert_eq!(rig.dump().len() as u64, n);
    ops[1200].va += 1;
    let refused = rig.vm.bind(&ops).unwrap_err();
    assert_eq!((refused.applied, refused.errno), (1200, kmd::Errno::INVAL));
}

#[test]
fn every_flag_of_a_map() {
    let rig = Rig::new();
    let bo = rig.bo(PAGE);
    for flags in 0..8 {
        let op = VmBindOp {
            flags: VM_BIND_OP_TYPE_MAP | flags,
            bo_handle: bo.handle().0,
            va: BASE + u64::from(flags) * PAGE,
            size: PAGE,
            ..Default::default()
        };
        assert_eq!(raw_bind(&*rig.node, rig.vm.id(), 0, &[op]).0, Ok(()), "flags {flags}");
    }
    assert_eq!(rig.dump().len(), 8, "different flags, different mappings");
    let op = VmBindOp { flags: VM_BIND_OP_TYPE_UNMAP, va: BASE, size: 8 * PAGE, ..Default::default() };
    // The kernel looks at no other bit of the call's flags.
    assert_eq!(raw_bind(&*rig.node, rig.vm.id(), 0x80, &[op]).0, Ok(()));
    assert_eq!(rig.dump(), []);
}

#[test]
fn memory_lives_while_it_is_mapped() {
    let rig = Rig::new();
    let bo = rig.private_bo(PAGE);
    let handle = bo.handle().0;
    let cpu = bo.map().unwrap();
    rig.map(&bo, 0, 0, PAGE).unwrap();
    drop(bo);
    assert_eq!(rig.dump(), [(0, PAGE, Some((handle, 0)))]);
    // SAFETY: the mapping is a page, and outlives the handle.
    unsafe { cpu.as_ptr().cast::<u64>().write_volatile(7) };
    rig.unmap(0, PAGE).unwrap();
    assert_eq!(rig.dump(), []);
}

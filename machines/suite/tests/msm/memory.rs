//! Synchronous binds: what is mapped afterwards.

use kmd::Vm;
use kmd::uapi::msm::BO_GPU_READONLY;

use crate::rig::*;

#[test]
fn a_map_and_its_end() {
    let rig = Rig::new();
    assert_eq!(rig.dump(), []);
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
    let bo = rig.private_bo(4 << 20);
    let object = |offset| Some((bo.handle().0, offset));
    rig.map(&bo, 0, 0, 4 << 20).unwrap();
    rig.unmap(5 * PAGE, 3 * PAGE).unwrap();
    assert_eq!(rig.dump(), [(0, 5 * PAGE, object(0)), (8 * PAGE, (4 << 20) - 8 * PAGE, object(8 * PAGE))]);
}

#[test]
fn a_map_replaces_what_it_covers() {
    let rig = Rig::new();
    let (a, b) = (rig.bo(4 * BLOCK), rig.private_bo(4 * BLOCK));
    rig.map(&a, 0, 0, 4 * BLOCK).unwrap();
    rig.map(&b, BLOCK / 2, BLOCK, 2 * BLOCK).unwrap();
    let expected = [
        (0, BLOCK, Some((a.handle().0, 0))),
        (BLOCK, 2 * BLOCK, Some((b.handle().0, BLOCK / 2))),
        (3 * BLOCK, BLOCK, Some((a.handle().0, 3 * BLOCK))),
    ];
    assert_eq!(rig.dump(), expected);
    rig.map(&b, BLOCK / 2, BLOCK, 2 * BLOCK).unwrap();
    assert_eq!(rig.dump(), expected, "the same again");
    rig.map(&a, BLOCK, BLOCK, 2 * BLOCK).unwrap();
    assert_eq!(rig.dump(), [(0, 4 * BLOCK, Some((a.handle().0, 0)))]);
}

#[test]
fn null_mappings() {
    let rig = Rig::new();
    let bo = rig.bo(BLOCK);
    rig.null(0, 4 << 20).unwrap();
    rig.map(&bo, 0, 3 << 20, 16 * PAGE).unwrap();
    let end = (3 << 20) + 16 * PAGE;
    assert_eq!(
        rig.dump(),
        [(0, 3 << 20, None), (3 << 20, 16 * PAGE, Some((bo.handle().0, 0))), (end, (4 << 20) - end, None)]
    );
    rig.null(3 << 20, 16 * PAGE).unwrap();
    assert_eq!(rig.dump(), [(0, 4 << 20, None)]);
    rig.unmap(0, 4 << 20).unwrap();
    rig.null(PAGE, 3 * PAGE).unwrap();
    assert_eq!(rig.dump(), [(PAGE, 3 * PAGE, None)]);
}

#[test]
fn a_call_binds_in_order() {
    let rig = Rig::new();
    let bo = rig.bo(4 * PAGE);
    rig.vm.bind(&[map(0, 4 * PAGE, &bo, 0), unmap(PAGE, PAGE), null(2 * PAGE, PAGE)]).unwrap();
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
    let ops: Vec<_> = (0..n).map(|i| map(i * 2 * PAGE, PAGE, &bo, 0)).collect();
    rig.vm.bind(&ops).unwrap();
    assert_eq!(rig.dump().len() as u64, n);
    assert!(n as usize > rig.vm.limits().max_ops);
}

/// Far apart, every operation has page tables of its own: more than the kernel lets be in flight.
#[test]
fn more_tables_than_may_be_in_flight() {
    let rig = Rig::new();
    let bo = rig.bo(PAGE);
    let ops: Vec<_> = (0..1100).map(|i| map(i << 30, PAGE, &bo, 0)).collect();
    rig.vm.bind(&ops).unwrap();
    assert_eq!(rig.dump().len(), ops.len());
}

#[test]
fn what_the_gpu_only_reads() {
    let rig = Rig::new();
    let (only, both) = (rig.bo_with(PAGE, BO_GPU_READONLY), rig.bo(PAGE));
    rig.map(&only, 0, 0, PAGE).unwrap();
    rig.map(&both, 0, PAGE, PAGE).unwrap();
    assert!(rig.is_read_only(0) && !rig.is_read_only(PAGE));
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
    unsafe { cpu.as_ptr().cast::<u64>().write_volatile(u64::from(handle) << 32) };
    rig.unmap(0, PAGE).unwrap();
    assert_eq!(rig.dump(), []);
}

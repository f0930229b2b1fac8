//! VM_BIND as a CPU sees it.

use emulator::Config;
use kmd::uapi::panthor::*;
use kmd::{BindOp, BindTarget, Vm};

use crate::rig::*;

const SIZE: u64 = 16 << 20;

#[test]
fn map_unmap_and_split() {
    let rig = Rig::new(SIZE);
    let (a, b) = (rig.shared_bo(SIZE, 0xa000), rig.bo(SIZE, 0xb000));
    let v = rig.base;
    let (ha, hb) = (a.handle().0, b.handle().0);
    assert_eq!(peek(v), None);
    assert_eq!(rig.map(&a, 0, v, PAGE), Ok(()));
    assert_eq!((peek(v), peek(v + PAGE)), (Some(0xa000), None));
    assert_eq!(rig.unmap(v, PAGE), Ok(()));
    assert_eq!(peek(v), None);

    let before = rig.node.counters();
    assert_eq!(rig.map(&a, 0, v, SIZE), Ok(()));
    let after = rig.node.counters();
    // Eight 2 MiB entries, and at most the tables above them (twice, where the range crosses a boundary of theirs).
    assert!(after.entries_written - before.entries_written <= 8 + 6);
    assert!((0..SIZE / PAGE).all(|i| peek(v + i * PAGE) == Some(0xa000 + i)));

    assert_eq!(rig.unmap(v + 5 * PAGE, 3 * PAGE), Ok(()));
    assert_eq!(peek(v + 4 * PAGE), Some(0xa004));
    assert_eq!((peek(v + 5 * PAGE), peek(v + 7 * PAGE)), (None, None));
    assert_eq!(peek(v + 8 * PAGE), Some(0xa008));

    assert_eq!(rig.map(&b, 0x10_0000, v + HUGE, 2 * HUGE), Ok(()));
    assert_eq!(peek(v + HUGE - PAGE), Some(0xa000 + 511));
    assert_eq!((peek(v + HUGE), peek(v + 3 * HUGE - PAGE)), (Some(0xb100), Some(0xb100 + 1023)));
    assert_eq!(peek(v + 3 * HUGE), Some(0xa000 + 3 * 512));
    assert_eq!(
        rig.dump(),
        [
            (0, 5 * PAGE, Some((ha, 0))),
            (8 * PAGE, HUGE - 8 * PAGE, Some((ha, 8 * PAGE))),
            (HUGE, 2 * HUGE, Some((hb, 0x10_0000))),
            (3 * HUGE, SIZE - 3 * HUGE, Some((ha, 3 * HUGE))),
        ]
    );

    // Stores go to the object, wherever else it is seen.
    assert!(poke(v + HUGE, 77));
    let cpu = b.map().unwrap();
    // SAFETY: inside the mapping.
    assert_eq!(unsafe { cpu.as_ptr().add(0x10_0000).cast::<u64>().read_volatile() }, 77);
}

#[test]
fn one_object_at_several_addresses() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(PAGE * 2, 5);
    let ops: Vec<_> = (0..4)
        .map(|i| BindOp {
            va: rig.base + i * PAGE,
            len: PAGE,
            target: BindTarget::Map { bo: a.handle(), offset: i % 2 * PAGE },
        })
        .collect();
    rig.vm.bind(&ops).unwrap();
    assert!(poke(rig.base, 1234));
    assert_eq!((peek(rig.base + 2 * PAGE), peek(rig.base + 3 * PAGE)), (Some(1234), Some(6)));
    let h = a.handle().0;
    assert_eq!(rig.dump(), [(0, 2 * PAGE, Some((h, 0))), (2 * PAGE, 2 * PAGE, Some((h, 0)))]);
}

#[test]
fn sparse_inside_and_around() {
    for (rig, readable) in [(Rig::new(16 * HUGE), true), (Rig::trap(16 * HUGE), false)] {
        let a = rig.bo(HUGE, 100);
        let v = rig.base;
        let unbound = |va| assert_eq!((peek(va).is_some(), poke(va, 3)), (readable, readable));
        assert_eq!(rig.sparse(v, 4 * HUGE), Ok(()));
        unbound(v);
        unbound(v + 4 * HUGE - PAGE);
        assert_eq!(peek(v + 4 * HUGE), None);

        assert_eq!(rig.map(&a, 0, v + 0x30_0000, 16 * PAGE), Ok(()));
        assert_eq!(peek(v + 0x30_f000), Some(115));
        unbound(v + 0x2f_f000);
        unbound(v + 0x31_0000);
        let h = a.handle().0;
        assert_eq!(
            rig.dump(),
            [
                (0, 0x30_0000, None),
                (0x30_0000, 16 * PAGE, Some((h, 0))),
                (0x31_0000, 4 * HUGE - 0x31_0000, None),
            ]
        );

        assert_eq!(rig.sparse(v + 0x30_0000, 16 * PAGE), Ok(()));
        unbound(v + 0x30_0000);
        assert_eq!(rig.dump(), [(0, 4 * HUGE, None)]);
        assert_eq!(rig.sparse(v + 5 * HUGE + PAGE, 3 * PAGE), Ok(()));
        unbound(v + 5 * HUGE + 3 * PAGE);
        assert_eq!(rig.unmap(v, 8 * HUGE), Ok(()));
        assert_eq!((peek(v), peek(v + 0x30_0000), rig.dump()), (None, None, vec![]));
    }
}

#[test]
fn sparse_stores_reach_no_object() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(HUGE, 50);
    assert_eq!(rig.map(&a, 0, rig.base, HUGE), Ok(()));
    assert_eq!(rig.sparse(rig.base, HUGE), Ok(()));
    assert!(poke(rig.base, 999));
    assert_eq!(rig.map(&a, 0, rig.base, HUGE), Ok(()));
    assert_eq!(peek(rig.base), Some(50));
}

#[test]
fn read_only_maps() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(2 * PAGE, 9);
    let mut op = map_op(a.handle(), 0, rig.base, 2 * PAGE);
    op.flags |= VM_BIND_OP_MAP_READONLY | VM_BIND_OP_MAP_UNCACHED;
    assert_eq!(bind(&*rig.node, rig.vm.id(), 0, &[op]).0, Ok(()));
    assert_eq!((peek(rig.base), poke(rig.base, 1)), (Some(9), false));
    assert_eq!(rig.map(&a, PAGE, rig.base + PAGE, PAGE), Ok(()));
    assert_eq!((poke(rig.base, 1), poke(rig.base + PAGE, 1)), (false, true));
    // The content is one run all the same.
    assert_eq!(rig.dump(), [(0, 2 * PAGE, Some((a.handle().0, 0)))]);
}

#[test]
fn a_closed_object_lives_while_it_is_mapped() {
    let rig = Rig::new(HUGE);
    let bystander = rig.bo(4 * PAGE, 0);
    for exported in [false, true] {
        let a = if exported { rig.shared_bo(4 * PAGE, 40) } else { rig.bo(4 * PAGE, 40) };
        assert_eq!(rig.map(&a, 0, rig.base, 4 * PAGE), Ok(()));
        drop(a);
        assert_eq!(rig.node.counters().live_bos, 2);
        // Nobody else gets the memory.
        let next = rig.bo(4 * PAGE, 7000);
        assert_eq!((peek(rig.base), peek(rig.base + 3 * PAGE)), (Some(40), Some(43)));
        drop(next);
        assert_eq!(rig.dump(), [(0, 4 * PAGE, Some((0, 0)))], "an object without a handle");
        assert_eq!(rig.unmap(rig.base, 3 * PAGE), Ok(()));
        assert_eq!((peek(rig.base + 3 * PAGE), rig.node.counters().live_bos), (Some(43), 2));
        assert_eq!(rig.sparse(rig.base + 3 * PAGE, PAGE), Ok(()));
        assert_eq!(rig.node.counters().live_bos, 1);
        assert_eq!(rig.unmap(rig.base, HUGE), Ok(()));
    }
    drop(bystander);
    // What comes new is zero.
    let options = kmd::panthor::BoOptions { flags: 0, exclusive_vm_id: Some(rig.vm.id()) };
    let fresh = kmd::panthor::create_bo(rig.dyn_node(), 16 * PAGE, options).unwrap();
    let cpu = fresh.map().unwrap();
    assert!((0..16).all(|i| peek(cpu.as_ptr().addr() as u64 + i * PAGE) == Some(0)));
}

#[test]
fn destroying_a_vm_unmaps_everything() {
    let rig = Rig::new(HUGE);
    let node = rig.node.clone();
    let a = rig.shared_bo(HUGE, 3);
    assert_eq!(rig.map(&a, 0, rig.base, 4 * PAGE), Ok(()));
    assert_eq!(rig.sparse(rig.base + 8 * PAGE, 4 * PAGE), Ok(()));
    drop(a);
    let (base, window) = (rig.base, rig.window);
    drop(rig.vm);
    assert_eq!((peek(base), peek(base + 8 * PAGE)), (None, None));
    assert_eq!((node.counters().live_bos, node.counters().table_pages), (0, 0));
    drop(window);
}

#[test]
fn operations_span_adjoining_windows() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(8 * PAGE, 1);
    let v = rig.base;
    rig.node.remove_window(v..v + HUGE);
    for window in [v..v + 2 * PAGE, v + 2 * PAGE..v + 4 * PAGE, v + 6 * PAGE..v + 8 * PAGE] {
        rig.node.add_window(window).unwrap();
    }
    assert_eq!(rig.map(&a, 0, v, 4 * PAGE), Ok(()));
    assert_eq!(peek(v + 3 * PAGE), Some(4));
    assert!(rig.map(&a, 0, v, 8 * PAGE).is_err());
    assert_eq!(rig.map(&a, 6 * PAGE, v + 6 * PAGE, 2 * PAGE), Ok(()));
    // Unmapping may name the gap; what lies there is left alone.
    // SAFETY: part of the test's own reservation.
    unsafe {
        let gap = (v + 4 * PAGE) as *mut core::ffi::c_void;
        rustix::mm::mprotect(gap, PAGE as usize, rustix::mm::MprotectFlags::READ).unwrap();
    }
    assert_eq!(rig.unmap(v, 8 * PAGE), Ok(()));
    assert_eq!((peek(v), peek(v + 4 * PAGE), peek(v + 7 * PAGE)), (None, Some(0), None));
}

#[test]
fn the_negative_control_maps_nothing() {
    let rig = Rig::with(HUGE, Config { execute: false, ..Config::default() });
    let a = rig.bo(HUGE, 3);
    assert_eq!(rig.map(&a, 0, rig.base, HUGE), Ok(()));
    assert_eq!(rig.dump(), [(0, HUGE, Some((a.handle().0, 0)))]);
    assert_eq!((peek(rig.base), rig.node.counters().map_calls), (None, 0));
}

#[test]
fn counters_of_a_scattered_bind() {
    let rig = Rig::new(64 << 20);
    let a = rig.bo(64 << 20, 0);
    let before = rig.node.counters();
    let tiles = 64u64;
    // Not across a boundary of 1 GiB, where there would be one table more.
    let v = if rig.base >> 30 == (rig.base + 2 * HUGE - 1) >> 30 { rig.base } else { rig.base + 2 * HUGE };
    let ops: Vec<_> =
        (0..tiles).map(|i| map_op(a.handle(), (tiles - 1 - i) * 0x10000, v + i * 0x10000, 0x10000)).collect();
    assert_eq!(bind(&*rig.node, rig.vm.id(), 0, &ops), (Ok(()), 64));
    let after = rig.node.counters();
    assert_eq!((after.ioctls - before.ioctls, after.binds - before.binds), (1, 1));
    assert_eq!((after.ops - before.ops, after.flushes - before.flushes), (64, 64));
    assert_eq!((after.map_calls - before.map_calls, after.jobs), (64, 0));
    // 16 entries a tile, two last-level tables and what leads to them.
    assert_eq!(after.entries_written - before.entries_written, 64 * 16 + 2 + 2);
    assert_eq!(after.table_pages, 1 + 1 + 1 + 2);
    assert_eq!(after.preallocated_pages - before.preallocated_pages, 64 * 3);
}

#[test]
fn threads_bind_side_by_side() {
    let rig = Rig::new(64 * HUGE);
    let a = rig.shared_bo(HUGE, 0);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (rig, a) = (&rig, &a);
            scope.spawn(move || {
                let start = rig.base + thread * 16 * HUGE;
                for round in 0..200u64 {
                    let va = start + round % 7 * HUGE / 2;
                    let pages = 1 + round % 90;
                    rig.map(a, round % 64 * PAGE, va, pages * PAGE).unwrap();
                    assert_eq!(peek(va), Some(round % 64));
                    assert_eq!(peek(va + (pages - 1) * PAGE), Some(round % 64 + pages - 1));
                    rig.unmap(va + PAGE, HUGE).unwrap();
                    assert_eq!((peek(va), peek(va + PAGE)), (Some(round % 64), None));
                }
                rig.unmap(start, 16 * HUGE).unwrap();
            });
        }
    });
    assert_eq!((rig.dump(), rig.node.counters().table_pages), (vec![], 1));
}

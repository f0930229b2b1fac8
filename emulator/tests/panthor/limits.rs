//! The process runs out of mappings (vm.max_map_count).
//!
//! In a process of its own: at the limit, nothing else that the test binary does would work either.

use std::process::Command;

use kmd::{BindOp, BindTarget, Errno, Vm};

use crate::rig::*;

fn limit() -> u64 {
    std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap()
}

fn child(name: &str) {
    let exe = std::env::current_exe().unwrap();
    let output =
        Command::new(exe).args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"]).output();
    let output = output.unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn exhaustion_changes_nothing_and_can_be_undone() {
    child("limits::child_maps_until_the_limit");
}

#[test]
#[ignore = "run by exhaustion_changes_nothing_and_can_be_undone, in a process of its own"]
fn child_maps_until_the_limit() {
    let limit = limit();
    let pages = limit + 1000;
    let rig = Rig::new((pages * PAGE).next_multiple_of(HUGE));
    let a = rig.bo(HUGE, 0);
    // Offsets run against the addresses, so that no two mappings join.
    let tag = |i: u64| 511 - i % 512;
    let op = |i: u64| BindOp {
        va: rig.base + i * PAGE,
        len: PAGE,
        target: BindTarget::Map { bo: a.handle(), offset: tag(i) * PAGE },
    };
    let ops: Vec<_> = (0..pages).map(op).collect();
    let refused = rig.vm.bind(&ops).expect_err("the limit comes first");
    assert_eq!(refused.errno, Errno::NOMEM);
    let n = refused.applied as u64;
    assert!(n + 1000 > limit && n < limit, "{n} of {limit}");
    assert_eq!(rig.vm.is_usable(), Ok(true));

    // The operation that failed did nothing, the others stand, and page table and memory agree.
    assert_eq!(rig.node.mappings(rig.vm.id()).len() as u64, n);
    assert_eq!((peek(rig.base), peek(rig.base + (n - 1) * PAGE)), (Some(tag(0)), Some(tag(n - 1))));
    assert_eq!(peek(rig.base + n * PAGE), None);
    assert_eq!(rig.map(&a, 0, rig.base + n * PAGE, PAGE), Err(Errno::NOMEM), "again");

    // An object that a failed map named is not held by it.
    let live = rig.node.counters().live_bos;
    let b = rig.bo(PAGE, 0);
    assert_eq!(rig.map(&b, 0, rig.base + n * PAGE, PAGE), Err(Errno::NOMEM));
    drop(b);
    assert_eq!(rig.node.counters().live_bos, live);

    // The program still gets memory and threads.
    let large: Vec<Vec<u8>> = (0..8).map(|_| vec![1; 8 << 20]).collect();
    assert_eq!(std::thread::spawn(|| 5).join().unwrap(), 5);
    drop(large);

    // Unbinding works, also in the middle, and makes room for maps.
    assert_eq!(rig.sparse(rig.base + PAGE, PAGE), Ok(()));
    assert_eq!(rig.unmap(rig.base + 3 * PAGE, 500 * PAGE), Ok(()));
    assert_eq!((peek(rig.base + 3 * PAGE), peek(rig.base + 503 * PAGE)), (None, Some(tag(503))));
    assert_eq!(rig.map(&a, 0, rig.base + 100 * PAGE, PAGE), Ok(()));
    assert_eq!(peek(rig.base + 100 * PAGE), Some(0));
    assert_eq!(rig.unmap(rig.base, pages * PAGE), Ok(()));
    assert_eq!((rig.dump(), rig.node.counters().table_pages), (vec![], 1));
}

#[test]
fn a_queued_map_past_the_limit_makes_the_vm_unusable() {
    child("limits::child_queues_past_the_limit");
}

#[test]
#[ignore = "run by a_queued_map_past_the_limit_makes_the_vm_unusable, in a process of its own"]
fn child_queues_past_the_limit() {
    let limit = limit();
    let pages = limit + 1000;
    let rig = Rig::new((pages * PAGE).next_multiple_of(HUGE));
    let a = rig.bo(HUGE, 0);
    let map = |i: u64| BindOp {
        va: rig.base + i * PAGE,
        len: PAGE,
        target: BindTarget::Map { bo: a.handle(), offset: (511 - i % 512) * PAGE },
    };
    let ops: Vec<_> = (0..pages).map(map).collect();
    let done = kmd::Syncobj::create(rig.dyn_node(), false).unwrap();
    for ops in ops.chunks(rig.vm.limits().max_ops) {
        match rig.vm.bind_async(ops, &[], &[done.binary()]) {
            Ok(()) => done.wait(None, kmd::syncobj::Wait::ALL).map(drop).unwrap(),
            Err(errno) => {
                // The VM became unusable in the call before.
                assert_eq!(errno, Errno::INVAL);
                break;
            }
        }
    }
    assert_eq!(rig.vm.is_usable(), Ok(false));
    assert_eq!(rig.map(&a, 0, rig.base, PAGE), Err(Errno::INVAL));
    assert_eq!(rig.unmap(rig.base, pages * PAGE), Ok(()));
    assert_eq!(rig.dump(), []);
}

#[test]
fn unbinding_works_when_others_took_the_last_mapping() {
    child("limits::child_unbinds_at_the_limit");
}

#[test]
#[ignore = "run by unbinding_works_when_others_took_the_last_mapping, in a process of its own"]
fn child_unbinds_at_the_limit() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(HUGE, 0);
    for page in 0..64 {
        assert_eq!(rig.map(&a, (63 - page) * PAGE, rig.base + page * PAGE, PAGE), Ok(()));
    }
    // The program itself uses up the limit: every second page differs from its neighbours.
    let filler = Reservation::new(2 * (limit() + 1000) * PAGE);
    let mut page = filler.start;
    // SAFETY: pages of the test's own reservation.
    while unsafe { rustix::mm::mprotect(page as *mut _, PAGE as usize, rustix::mm::MprotectFlags::READ) }
        .is_ok()
    {
        page += 2 * PAGE;
        assert!(page < filler.range().end, "the limit is within reach");
    }
    // The very last one, which only mmap may take.
    let flags = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::NORESERVE;
    let prot = rustix::mm::ProtFlags::READ;
    // SAFETY: a new mapping.
    while unsafe { rustix::mm::mmap_anonymous(core::ptr::null_mut(), PAGE as usize, prot, flags) }.is_ok() {}

    assert_eq!(rig.sparse(rig.base + 8 * PAGE, PAGE), Ok(()));
    assert_eq!((peek(rig.base + 8 * PAGE), peek(rig.base + 9 * PAGE)), (Some(0), Some(54)));
    assert_eq!(rig.unmap(rig.base + 16 * PAGE, 8 * PAGE), Ok(()));
    assert_eq!((peek(rig.base + 16 * PAGE), peek(rig.base + 24 * PAGE)), (None, Some(39)));
}

//! The process runs out of mappings (vm.max_map_count).
//!
//! In a process of its own: at the limit, nothing else that the test binary does would work either.

use std::process::Command;

use kmd::{BindOp, BindTarget, Errno, Vm};

use crate::rig::*;

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
    let limit: u64 = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let pages = limit + 1000;
    let rig = Rig::new((2 * pages * PAGE).next_multiple_of(HUGE));
    let a = rig.bo(2 * pages * PAGE, 0);
    // Offsets run against the addresses, so that no two mappings join.
    let op = |i: u64| BindOp {
        va: rig.base + i * PAGE,
        len: PAGE,
        target: BindTarget::Map { bo: a.handle(), offset: (2 * pages - 1 - i) * PAGE },
    };
    let ops: Vec<_> = (0..pages).map(op).collect();
    let refused = rig.vm.bind(&ops).expect_err("the limit comes first");
    assert_eq!(refused.errno, Errno::NOMEM);
    let n = refused.applied as u64;
    assert!(n + 1000 > limit && n < limit, "{n} of {limit}");
    assert_eq!(rig.vm.is_usable(), Ok(true));
    let tag = |i: u64| 2 * pages - 1 - i;

    // The operation that failed did nothing, the others stand, and page table and memory agree.
    assert_eq!(rig.node.mappings(rig.vm.id()).len() as u64, n);
    assert_eq!((peek(rig.base), peek(rig.base + (n - 1) * PAGE)), (Some(tag(0)), Some(tag(n - 1))));
    assert_eq!(peek(rig.base + n * PAGE), None);
    assert_eq!(rig.map(&a, 0, rig.base + n * PAGE, PAGE), Err(Errno::NOMEM), "again");

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
    let limit: u64 = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
    let pages = limit + 1000;
    let rig = Rig::new((2 * pages * PAGE).next_multiple_of(HUGE));
    let a = rig.bo(2 * pages * PAGE, 0);
    let map = |i: u64| BindOp {
        va: rig.base + i * PAGE,
        len: PAGE,
        target: BindTarget::Map { bo: a.handle(), offset: (2 * pages - 1 - i) * PAGE },
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

//! A VM among threads: handles that are dropped where the VM is not locked, a log that is read while the VM changes,
//! and VMs that share objects.
#![cfg(not(any(loom, miri)))]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use gpuvm::{
    Contended, Driver, Exec, Fence, Immediate, LogOp, Op, OpKind, Reservation, Target, Usage, VaRange, Vm,
    VmBo,
};

const PAGE: u64 = 0x1000;

/// A cheap generator: the threads have to differ, not more.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *state >> 33
}

fn pages(first: u64, count: u64) -> VaRange {
    VaRange::new(first * PAGE, count * PAGE).unwrap()
}

struct Numbered;

impl Driver for Numbered {
    type Mode = Immediate;
    /// Which `vm_bo` this is, with what tells that it is alive; nothing as long as nobody has looked.
    type BoData = Option<(u64, Arc<()>)>;
    type VaData = ();
}

/// While somebody holds a handle, everybody finds the same `vm_bo`; when nobody does and nothing is mapped, nobody
/// finds it, whether it was cleaned up yet or not.
#[test]
fn a_vm_bo_lives_as_long_as_it_is_held() {
    const OBJECTS: u64 = 4;
    let vm = Mutex::new(Vm::<u64, Numbered>::with_driver(pages(0, 1 << 20), None).unwrap());
    let (made, alive) = (AtomicU64::new(0), Arc::new(()));
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            let (vm, made, alive) = (&vm, &made, &alive);
            scope.spawn(move || {
                let mut rng = worker;
                let mut held: Vec<(VmBo<u64>, u64)> = Vec::new();
                for _ in 0..3000 {
                    let object = random(&mut rng) % OBJECTS;
                    match random(&mut rng) % 6 {
                        0 | 1 => {
                            let mut vm = vm.lock().unwrap();
                            let bo = vm.obtain(object);
                            let data = vm.bo_data_mut(object).expect("it is held");
                            let make = || (made.fetch_add(1, Ordering::Relaxed), Arc::clone(alive));
                            held.push((bo, data.get_or_insert_with(make).0));
                        }
                        2 => {
                            let range = pages(worker * 4 + random(&mut rng) % 4, 1);
                            let target = Target::Object { object, offset: 0 };
                            vm.lock().unwrap().sm_map(range, target, &mut |_| {}).unwrap();
                        }
                        3 => vm.lock().unwrap().sm_unmap(pages(worker * 4, 4), &mut |_| {}).unwrap(),
                        4 => vm.lock().unwrap().deferred_cleanup(),
                        // Without the VM's lock.
                        _ => drop(held.pop()),
                    }
                    if random(&mut rng) % 4 == 0
                        && let Some((bo, number)) = held.first()
                    {
                        let copy = bo.clone();
                        let vm = vm.lock().unwrap();
                        let data = vm.bo(copy.object()).expect("it is held").data();
                        assert_eq!(data.as_ref().map(|data| data.0), Some(*number));
                    }
                }
            });
        }
    });
    let mut vm = vm.into_inner().unwrap();
    vm.sm_unmap(pages(0, 16), &mut |_| {}).unwrap();
    assert!((0..OBJECTS).all(|object| vm.bo(object).is_none()));
    vm.deferred_cleanup();
    assert!((0..OBJECTS).all(|object| vm.bo(object).is_none() && vm.find_bo(object).is_none()));
    assert_eq!(Arc::strong_count(&alive), 1, "all were freed");
    assert!(made.into_inner() > OBJECTS, "some have died and were made anew");
}

/// What is read while the VM changes is a part of what was done.
#[test]
fn the_log_is_read_while_the_vm_runs() {
    let mut vm = Vm::<u32>::new(pages(0, 1 << 40), None).unwrap();
    let log = vm.log(4);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u64;
            while !done.load(Ordering::Relaxed) || reads == 0 {
                let entries = log.read();
                for entry in &entries {
                    let (page, map) = (entry.range.start / PAGE, u64::from(entry.op == LogOp::Map));
                    assert_eq!(entry.range, pages(page, page % 7 + 1));
                    assert_eq!(u64::from(entry.queue), page * 2 + map, "of one update");
                }
                assert!(entries.is_sorted_by_key(|entry| entry.time));
                let numbers: Vec<_> = entries.iter().map(|entry| entry.queue).collect();
                assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]));
                reads += u64::from(!entries.is_empty());
            }
        });
        for page in (0..200_000).step_by(10) {
            let range = pages(page, page % 7 + 1);
            vm.set_queue(page as u32 * 2 + 1);
            vm.sm_map(range, Target::Object { object: 1, offset: 0 }, &mut |_| {}).unwrap();
            vm.set_queue(page as u32 * 2);
            vm.sm_unmap(range, &mut |_| {}).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    assert_eq!((log.written(), log.read().len()), (40_000, 16));
}

/// Submissions to VMs that share external objects: the VM's own lock first, then the reservations of what its
/// operations touch, a fence on each.
#[test]
fn staged_vms_share_objects() {
    const OBJECTS: usize = 5;
    let external: Vec<_> = (0..OBJECTS).map(|_| Reservation::new()).collect();
    let vms: Vec<_> = (0..3).map(|_| Mutex::new(Vm::staged(pages(0, 1 << 20), None).unwrap())).collect();
    // Under an object's reservation; more than one is locked, and none is locked twice.
    let users: Vec<_> = (0..OBJECTS).map(|_| AtomicBool::new(false)).collect();
    thread::scope(|scope| {
        for worker in 0..6_usize {
            let (vms, external, users) = (&vms, &external, &users);
            scope.spawn(move || {
                let mut rng = worker as u64;
                for _ in 0..300 {
                    let mut vm = vms[worker % vms.len()].lock().unwrap();
                    let ops: Vec<_> = (0..3)
                        .map(|_| {
                            let object = random(&mut rng) as usize % OBJECTS;
                            let kind = match random(&mut rng) % 3 {
                                0 => OpKind::Unmap,
                                _ => OpKind::Map { object, offset: 0 },
                            };
                            Op { range: pages(random(&mut rng) % 32, 1 + random(&mut rng) % 8), kind }
                        })
                        .collect();
                    // Held until the operations are done, so that the objects stay external.
                    let bos: Vec<_> =
                        ops.iter().filter_map(|op| op.kind.object()).map(|o| vm.obtain(o)).collect();
                    for bo in &bos {
                        let object = bo.object();
                        if vm.bo(object).is_some_and(|bo| !bo.is_external()) {
                            vm.set_reservation(object, &external[object]).unwrap();
                        }
                    }
                    let exec = Exec::until_all_locked::<_, Contended>(|locking| vm.lock_ops(locking, &ops))
                        .unwrap()
                        .0;
                    let locked: Vec<_> =
                        (0..OBJECTS).filter(|&object| exec.held(&external[object]).is_some()).collect();
                    assert!(bos.iter().all(|bo| locked.contains(&bo.object())));
                    for &object in &locked {
                        assert!(!users[object].swap(true, Ordering::Relaxed), "somebody else has it");
                    }
                    vm.update(&exec).unwrap().prepare(&ops).unwrap().commit();
                    let (signal, fence) = Fence::new();
                    vm.attach(&exec, &fence, Usage::Bookkeep, Usage::Write);
                    for &object in &locked {
                        assert!(external[object].fences(Usage::Write).contains(&fence));
                        users[object].store(false, Ordering::Relaxed);
                    }
                    drop(exec);
                    signal.signal();
                }
            });
        }
    });
    assert!(external.iter().all(|resv| resv.is_signaled(Usage::Bookkeep)));
}

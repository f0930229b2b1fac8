//! Many threads that lock overlapping sets in any order. A deadlock shows as a test that does not end, which is made
//! a failure here.
#![cfg(not(any(loom, miri)))]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use gpuvm::{Contended, Exec, Fence, Reservation, Usage};
use proptest::prelude::*;

/// An object as a VM sees it. Only the lock makes `first` and `second` the same, and `also` may change under it.
struct Object {
    resv: Reservation,
    first: AtomicU64,
    second: AtomicU64,
    /// Another object that has to be locked with this one, known only when this one is.
    also: AtomicU64,
}

impl Object {
    fn new() -> Self {
        let [first, second, also] = [0; 3].map(AtomicU64::new);
        Self { resv: Reservation::new(), first, second, also }
    }
}

/// Fails where `work` does not end in time, so that a deadlock is a failure and no endless test.
fn ends(work: impl FnOnce() + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        work();
        let _ = tell.send(());
    });
    match told.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("threads wait for each other"),
        _ => worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Locks the objects `wanted`, and what they name while they are locked. Counts each, and lets it name another one.
fn locked_work(objects: &[Object], wanted: &[usize], step: u64) -> usize {
    let mut seen = Vec::new();
    let (exec, ()) = Exec::until_all_locked::<_, Contended>(|locking| {
        seen.clear();
        for &index in wanted {
            locking.lock(&objects[index].resv)?;
            let also = objects[index].also.load(Ordering::Relaxed) as usize;
            locking.lock(&objects[also].resv)?;
            seen.extend([index, also]);
        }
        Ok(())
    })
    .unwrap();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(exec.iter().len(), seen.len());
    for &index in &seen {
        let object = &objects[index];
        assert!(exec.held(&object.resv).is_some());
        // Neither is atomic as a whole: without the lock counts would be lost and the two would differ.
        let count = object.first.load(Ordering::Relaxed);
        assert_eq!(count, object.second.load(Ordering::Relaxed));
        object.first.store(count + 1, Ordering::Relaxed);
        if step % 7 == 0 {
            std::thread::yield_now();
        }
        object.second.store(count + 1, Ordering::Relaxed);
        object.also.store((index as u64 * 5 + step) % objects.len() as u64, Ordering::Relaxed);
    }
    seen.len()
}

/// Every thread does its list of sets, `repeat` times; no update is lost.
fn run(object_count: usize, threads: Vec<Vec<Vec<usize>>>, repeat: u64) {
    ends(move || {
        let objects: Vec<_> = (0..object_count).map(|_| Object::new()).collect();
        let updates: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = threads
                .iter()
                .map(|sets| {
                    let objects = &objects;
                    scope.spawn(move || {
                        (0..repeat)
                            .flat_map(|step| sets.iter().map(move |set| (step, set)))
                            .map(|(step, set)| locked_work(objects, set, step))
                            .sum::<usize>()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        let counted: u64 = objects.iter().map(|object| object.first.load(Ordering::Relaxed)).sum();
        assert_eq!(counted, updates as u64);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_threads_with_any_sets_in_any_order(
        threads in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(0..6_usize, 0..8), 1..6), 2..6),
    ) {
        run(6, threads, 40);
    }
}

/// The worst case: everybody wants everything, from a different end.
#[test]
fn opposite_orders() {
    let forth: Vec<_> = (0..12).collect();
    let back: Vec<_> = (0..12).rev().collect();
    let odd_first: Vec<_> = (0..12).map(|n| n * 5 % 12).collect();
    run(12, vec![vec![forth.clone()], vec![back.clone()], vec![odd_first], vec![forth, back]], 1000);
}

/// Who waited for a contended reservation holds it in the next round, even before it asks for it: when the next one
/// is contended too, it has to be released like all others.
#[test]
fn the_one_that_was_waited_for_is_given_up_too() {
    ends(|| {
        let [a, b] = [(); 2].map(|()| Reservation::new());
        let gate = || mpsc::channel::<()>();
        let ((first_has_b, told_first), (end_first, first_may_end)) = (gate(), gate());
        let ((second_is_older, told_second), (begin_second, second_may_begin)) = (gate(), gate());
        let (second_has_a, told_second_has_a) = gate();
        std::thread::scope(|scope| {
            let (a, b) = (&a, &b);
            scope.spawn(move || {
                let lock = |locking: &mut gpuvm::Locking| locking.lock(b);
                let exec = Exec::until_all_locked::<_, Contended>(lock).unwrap();
                first_has_b.send(()).unwrap();
                first_may_end.recv().unwrap();
                drop(exec);
            });
            scope.spawn(move || {
                let lock = |locking: &mut gpuvm::Locking| {
                    second_is_older.send(()).unwrap();
                    second_may_begin.recv().unwrap();
                    locking.lock(a)?;
                    second_has_a.send(()).unwrap();
                    locking.lock(b)
                };
                Exec::until_all_locked::<_, Contended>(lock).unwrap();
            });
            told_first.recv().unwrap();
            told_second.recv().unwrap();
            let mut round = 0;
            let lock = |locking: &mut gpuvm::Locking| {
                round += 1;
                if round == 2 {
                    begin_second.send(()).unwrap();
                    told_second_has_a.recv().unwrap();
                }
                locking.lock(a)?;
                let locked = locking.lock(b);
                if round == 1 {
                    assert!(locked.is_err());
                    end_first.send(()).unwrap();
                }
                locked
            };
            let exec = Exec::until_all_locked::<_, Contended>(lock).unwrap().0;
            assert_eq!((round, exec.iter().len()), (3, 2));
        });
    });
}

/// Threads that come again and again for one lock do not keep those from their turn that want it with many others.
#[test]
fn one_who_wants_much_gets_its_turn() {
    ends(|| {
        let resvs: Vec<_> = (0..16).map(|_| Reservation::new()).collect();
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for few in 0..4 {
                let (resvs, done) = (&resvs, &done);
                scope.spawn(move || {
                    while done.load(Ordering::Relaxed) == 0 {
                        let lock = |locking: &mut gpuvm::Locking| {
                            (0..4).try_for_each(|n| locking.lock(&resvs[few * 4 + n]))
                        };
                        drop(Exec::until_all_locked::<_, Contended>(lock).unwrap());
                    }
                });
            }
            for _ in 0..200 {
                let lock =
                    |locking: &mut gpuvm::Locking| resvs.iter().try_for_each(|resv| locking.lock(resv));
                let exec = Exec::until_all_locked::<_, Contended>(lock).unwrap().0;
                assert_eq!(exec.iter().len(), 16);
            }
            done.store(1, Ordering::Relaxed);
        });
    });
}

/// Jobs that fence what they use while others wait for it: every wait ends, and no fence stays.
#[test]
fn waits_end_while_jobs_attach_fences() {
    ends(|| {
        let resvs: Vec<_> = (0..4).map(|_| Reservation::new()).collect();
        let (jobs, gpu) = mpsc::channel::<gpuvm::FenceSignal>();
        std::thread::scope(|scope| {
            scope.spawn(move || gpu.iter().for_each(gpuvm::FenceSignal::signal));
            for worker in 0..3 {
                let (resvs, jobs) = (&resvs, jobs.clone());
                scope.spawn(move || {
                    for job in 0..200 {
                        let lock = |locking: &mut gpuvm::Locking| {
                            (0..3).try_for_each(|n| locking.lock(&resvs[(worker + job + n) % 4]))
                        };
                        let exec = Exec::until_all_locked::<_, Contended>(lock).unwrap().0;
                        let (signal, fence) = Fence::new();
                        exec.iter().for_each(|held| held.attach(&fence, Usage::Bookkeep));
                        jobs.send(signal).unwrap();
                        drop(exec);
                        resvs[job % 4].wait(Usage::Bookkeep);
                    }
                });
            }
            drop(jobs);
        });
        for resv in &resvs {
            assert!(resv.is_signaled(Usage::Bookkeep));
        }
    });
}

//! What `Exec` promises, one thread at a time or with the order of the threads arranged.
#![cfg(not(loom))]

use std::sync::mpsc;
use std::time::Duration;

use gpuvm::{Contended, Exec, Fence, Reservation, Usage};

fn lock_all(resvs: &[&Reservation]) -> Exec {
    let lock = |locking: &mut gpuvm::Locking| resvs.iter().try_for_each(|resv| locking.lock(resv));
    Exec::until_all_locked::<_, Contended>(lock).unwrap().0
}

/// Whether another thread gets `resv` within `time`.
fn is_got(resv: &Reservation, time: Duration) -> bool {
    let resv = resv.clone();
    let (tell, told) = mpsc::channel();
    // Where it does not, the thread ends when it does.
    std::thread::spawn(move || {
        drop(lock_all(&[&resv]));
        let _ = tell.send(());
    });
    told.recv_timeout(time).is_ok()
}

fn is_locked(resv: &Reservation) -> bool {
    !is_got(resv, Duration::from_millis(20))
}

/// Takes its time where the machine has none.
fn is_free(resv: &Reservation) -> bool {
    is_got(resv, Duration::from_secs(30))
}

#[test]
fn locks_each_once_and_unlocks_all_on_drop() {
    let [a, b, c] = [(); 3].map(|()| Reservation::new());
    let exec = lock_all(&[&b, &a, &b, &b]);
    let locked: Vec<_> = exec.iter().map(|held| held.reservation()).collect();
    assert_eq!(locked, [&b, &a]);
    assert!(exec.held(&a).is_some() && exec.held(&b).is_some() && exec.held(&c).is_none());
    assert!(is_locked(&a) && is_locked(&b) && is_free(&c));
    drop(exec);
    assert!(is_free(&a) && is_free(&b));
}

#[test]
fn an_error_of_the_caller_unlocks_all() {
    #[derive(Debug, PartialEq)]
    enum Error {
        Contended,
        Mine,
    }
    impl From<Contended> for Error {
        fn from(_: Contended) -> Self {
            Self::Contended
        }
    }
    let resv = Reservation::new();
    let failed = Exec::until_all_locked::<(), _>(|locking| {
        locking.lock(&resv)?;
        assert!(locking.held(&resv).is_some());
        Err(Error::Mine)
    });
    assert_eq!(failed.unwrap_err(), Error::Mine);
    assert!(is_free(&resv));
}

#[test]
fn a_panic_unlocks_all_and_leaves_the_thread_usable() {
    let resv = Reservation::new();
    let panicked = std::panic::catch_unwind(|| {
        Exec::until_all_locked::<(), Contended>(|locking| {
            locking.lock(&resv)?;
            panic!("on purpose")
        })
    });
    assert!(panicked.is_err());
    assert!(is_free(&resv));
    drop(lock_all(&[&resv]));
}

#[test]
#[should_panic(expected = "this thread has reservations locked already")]
fn a_second_exec_in_a_thread_is_refused() {
    let exec = lock_all(&[&Reservation::new()]);
    drop(lock_all(&[&Reservation::new()]));
    drop(exec);
}

/// The younger one of two backs off, gets the contended one first, and begins anew; what it did not ask for again is
/// not part of the result.
#[test]
fn the_younger_one_gives_way_and_begins_anew() {
    let [a, b] = [(); 2].map(|()| Reservation::new());
    let (older_has_a, told) = mpsc::channel();
    let (younger_has_b, go_on) = mpsc::channel();
    std::thread::scope(|scope| {
        let older = scope.spawn({
            let (a, b) = (&a, &b);
            move || {
                let mut rounds = 0;
                let (exec, ()) = Exec::until_all_locked::<_, Contended>(|locking| {
                    rounds += 1;
                    locking.lock(a)?;
                    if rounds == 1 {
                        older_has_a.send(()).unwrap();
                        go_on.recv().unwrap();
                    }
                    locking.lock(b)
                })
                .unwrap();
                assert_eq!(exec.iter().len(), 2);
                rounds
            }
        });
        told.recv().unwrap();
        let mut rounds = 0;
        let (exec, ()) = Exec::until_all_locked::<_, Contended>(|locking| {
            rounds += 1;
            if rounds > 1 {
                assert!(locking.held(&a).is_some(), "waited for and locked before the round");
                return locking.lock(&b);
            }
            locking.lock(&b)?;
            younger_has_b.send(()).unwrap();
            assert_eq!(
                locking.lock(&a).unwrap_err().to_string().split(':').next(),
                Some("a reservation is contended")
            );
            // To go on locking, or to keep the error to oneself, changes nothing.
            assert!(locking.lock(&b).is_err());
            Ok(())
        })
        .unwrap();
        assert_eq!(rounds, 2);
        assert_eq!(exec.iter().map(|held| held.reservation()).collect::<Vec<_>>(), [&b]);
        assert!(exec.held(&a).is_none());
        assert_eq!(older.join().unwrap(), 1, "the older one never gives way");
    });
    assert!(is_free(&a) && is_free(&b));
}

#[test]
fn fences_go_where_the_lock_is_held() {
    let [private, external] = [(); 2].map(|()| Reservation::new());
    let (signal, fence) = Fence::new();
    let exec = lock_all(&[&private, &external]);
    for held in exec.iter() {
        held.attach(&fence, if *held.reservation() == private { Usage::Bookkeep } else { Usage::Write });
    }
    drop(exec);
    assert!(private.is_signaled(Usage::Read) && !private.is_signaled(Usage::Bookkeep));
    assert_eq!(external.fences(Usage::Write), [fence]);
    assert!(!external.is_signaled(Usage::Write));
    signal.signal();
    external.wait(Usage::Bookkeep);
    private.wait(Usage::Bookkeep);
}

//! The lock of a reservation: of two who want each other's, the older one waits and the younger one gives way.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::{self, Condvar, Mutex};

/// The age of an acquire context, `ww_acquire_ctx::stamp`: the lower, the older. It is kept over all retries, which
/// is why everybody is the oldest one some day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(NonZeroU64);

impl Ticket {
    pub(crate) fn draw() -> Self {
        // Not of the model checker: only the order of the tickets matters, and every order of the threads is tried.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).expect("2^64 acquire contexts"))
    }
}

/// What came of [`WwLock::lock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The lock is the ticket's now.
    Locked,
    /// It already was (`-EALREADY`).
    AlreadyHeld,
    /// To wait here could be a deadlock (`-EDEADLK`): whoever asked has to release all that it holds first.
    MustBackOff,
}

/// A wait-die lock, as a `ww_mutex` of the class that `dma_resv` uses (`DEFINE_WD_CLASS(reservation_ww_class)`).
///
/// Who holds locks waits only for someone younger, so that no circle of waiting can close; who holds none can wait for
/// anybody. The lock goes to the oldest one that waits.
#[derive(Debug, Default)]
pub(crate) struct WwLock {
    state: Mutex<State>,
    unlocked: Condvar,
}

#[derive(Debug, Default)]
struct State {
    holder: Option<Ticket>,
    /// Who waits. A free lock is already that of the oldest of them, who only has to wake up; else one who comes by
    /// at the right moment, again and again, could starve it.
    waiting: Vec<Ticket>,
}

impl State {
    /// Who is before `ticket` here.
    fn ahead_of(&self, ticket: Ticket) -> Option<Ticket> {
        self.holder.or_else(|| self.waiting.iter().copied().filter(|waiter| *waiter < ticket).min())
    }
}

impl WwLock {
    /// Takes the lock for `ticket`, which holds others or does not. It waits where that is safe.
    pub(crate) fn lock(&self, ticket: Ticket, holds_others: bool) -> Outcome {
        let mut state = sync::lock(&self.state);
        if state.holder == Some(ticket) {
            return Outcome::AlreadyHeld;
        }
        let mut queued = false;
        let outcome = loop {
            match state.ahead_of(ticket) {
                None => {
                    state.holder = Some(ticket);
                    break Outcome::Locked;
                }
                Some(ahead) if holds_others && ahead < ticket => break Outcome::MustBackOff,
                Some(_) => {
                    if !queued {
                        state.waiting.push(ticket);
                        queued = true;
                    }
                    state = sync::wait(&self.unlocked, state);
                }
            }
        };
        if queued {
            state.waiting.retain(|waiter| *waiter != ticket);
        }
        outcome
    }

    /// Gives the lock back. All that wait look again: the oldest takes the lock, those that hold others and have
    /// come to stand behind someone older back off, the rest waits on. No other change needs a wake-up: who goes to
    /// sleep at a free lock does so behind someone who was woken here, and who will unlock it.
    pub(crate) fn unlock(&self, ticket: Ticket) {
        let mut state = sync::lock(&self.state);
        debug_assert_eq!(state.holder, Some(ticket));
        state.holder = None;
        if !state.waiting.is_empty() {
            self.unlocked.notify_all();
        }
    }

    /// Whether the lock is the ticket's.
    pub(crate) fn is_held_by(&self, ticket: Ticket) -> bool {
        sync::lock(&self.state).holder == Some(ticket)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    impl WwLock {
        fn until_waited_for_by(&self, count: usize) {
            while sync::lock(&self.state).waiting.len() < count {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn who_holds_others_waits_for_the_younger_only() {
        let [oldest, middle, youngest] = core::array::from_fn(|_| Ticket::draw());
        assert!(oldest < middle && middle < youngest);
        let lock = WwLock::default();
        assert_eq!(lock.lock(middle, false), Outcome::Locked);
        assert_eq!(lock.lock(middle, true), Outcome::AlreadyHeld);
        assert_eq!(lock.lock(youngest, true), Outcome::MustBackOff);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| lock.lock(oldest, true));
            lock.until_waited_for_by(1);
            lock.unlock(middle);
            assert_eq!(waits.join().unwrap(), Outcome::Locked);
        });
        assert!(lock.is_held_by(oldest) && !lock.is_held_by(middle));
        assert!(sync::lock(&lock.state).waiting.is_empty());
    }

    /// The lock is that of the oldest one that waits, however late it wakes up.
    #[test]
    fn nobody_overtakes_who_is_older_and_waits() {
        let [older, holder, younger] = core::array::from_fn(|_| Ticket::draw());
        let lock = WwLock::default();
        assert_eq!(lock.lock(holder, false), Outcome::Locked);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| lock.lock(older, false));
            lock.until_waited_for_by(1);
            lock.unlock(holder);
            // Whether the other thread has woken up by now or not.
            assert_eq!(lock.lock(younger, true), Outcome::MustBackOff);
            assert_eq!(waits.join().unwrap(), Outcome::Locked);
        });
    }

    /// Who waits for someone younger and then finds someone older in between gives way.
    #[test]
    fn who_waits_backs_off_when_someone_older_comes() {
        let [oldest, middle, youngest] = core::array::from_fn(|_| Ticket::draw());
        let lock = WwLock::default();
        assert_eq!(lock.lock(youngest, false), Outcome::Locked);
        std::thread::scope(|scope| {
            let gives_way = scope.spawn(|| lock.lock(middle, true));
            lock.until_waited_for_by(1);
            let waits = scope.spawn(|| lock.lock(oldest, true));
            lock.until_waited_for_by(2);
            lock.unlock(youngest);
            assert_eq!(gives_way.join().unwrap(), Outcome::MustBackOff);
            assert_eq!(waits.join().unwrap(), Outcome::Locked);
        });
    }
}

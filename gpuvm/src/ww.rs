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
    changed: Condvar,
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
                    state = sync::wait(&self.changed, state);
                }
            }
        };
        if queued {
            state.waiting.retain(|waiter| *waiter != ticket);
            // Others may wait only because this one was before them, or now hold locks and wait for someone older.
            self.changed.notify_all();
        }
        outcome
    }

    /// Gives the lock back.
    pub(crate) fn unlock(&self, ticket: Ticket) {
        let mut state = sync::lock(&self.state);
        debug_assert_eq!(state.holder, Some(ticket));
        state.holder = None;
        if !state.waiting.is_empty() {
            self.changed.notify_all();
        }
    }

    /// Whether the lock is the ticket's.
    pub(crate) fn is_held_by(&self, ticket: Ticket) -> bool {
        sync::lock(&self.state).holder == Some(ticket)
    }
}

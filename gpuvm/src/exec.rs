//! Many reservations locked at once.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;

use smallvec::SmallVec;

use crate::ww::{Outcome, Ticket};
use crate::{Fence, Reservation, Usage};

/// Locked reservations, in the image of the kernel's `drm_exec`. Dropped, it unlocks them all.
///
/// [`Exec::until_all_locked`] takes any number of locks in any order, against any number of threads that do the same.
/// Nobody can deadlock, and nobody starves: see [`Reservation`] for what is locked, and the kernel's `ww_mutex` for how.
/// That is so among reservations; a lock of another kind, such as the one that a [`Vm`](crate::Vm) is under, is taken
/// before them by everybody, or after them by everybody.
///
/// ```
/// use gpuvm::{Contended, Exec, Fence, Reservation, Usage};
///
/// let (vm, external) = (Reservation::new(), Reservation::new());
/// let (exec, ()) = Exec::until_all_locked(|locking| {
///     locking.lock(&vm)?;
///     // Here the VM's lists can be read, and tell what else there is to lock.
///     locking.lock(&external)?;
///     Ok::<_, Contended>(())
/// })?;
/// let (signal, fence) = Fence::new();
/// for held in exec.iter() {
///     let private = *held.reservation() == vm;
///     held.attach(&fence, if private { Usage::Bookkeep } else { Usage::Write });
/// }
/// drop(exec);
/// # signal.signal();
/// # Ok::<(), Contended>(())
/// ```
pub struct Exec {
    ticket: Ticket,
    /// Mostly few: the VM's and here and there one of an external object.
    locks: SmallVec<[Lock; 4]>,
    _alone: AloneInThread,
}

/// The acquire phase of an [`Exec`]: what the body of `drm_exec_until_all_locked()` has.
pub struct Locking {
    exec: Exec,
    /// The one that made the last round fail. It is waited for and locked before the next round begins, and belongs
    /// to that round only when it is asked for again.
    prelocked: Option<Lock>,
    contended: Option<Reservation>,
}

/// Someone older has the reservation, or waits for it (`-EDEADLK`). To be passed up to [`Exec::until_all_locked`],
/// which releases what is locked and begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a reservation is contended: everything has to be locked again")]
pub struct Contended(());

/// The proof that a reservation is locked, `dma_resv_assert_held()` for the compiler.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    resv: &'a Reservation,
}

/// One locked reservation.
struct Lock {
    resv: Reservation,
    ticket: Ticket,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.resv.lock().unlock(self.ticket);
    }
}

impl Exec {
    /// Runs `lock`, which locks what it needs, until it could lock everything. Whenever a reservation is contended
    /// all are unlocked, the contended one is waited for, and `lock` begins anew: what it has learnt from one that was
    /// locked may be wrong by then. An error that it only kept to itself does not end the rounds.
    ///
    /// # Errors
    /// What else `lock` fails with. Nothing is locked then.
    ///
    /// # Panics
    /// Where the thread has an `Exec` already. The second would wait for the first for ever as soon as they need the
    /// same reservation; the kernel's lockdep refuses two acquire contexts in one task too.
    pub fn until_all_locked<T, E: From<Contended>>(
        mut lock: impl FnMut(&mut Locking) -> Result<T, E>,
    ) -> Result<(Self, T), E> {
        let exec = Self { ticket: Ticket::draw(), locks: SmallVec::new(), _alone: AloneInThread::enter() };
        let mut locking = Locking { exec, prelocked: None, contended: None };
        loop {
            let result = lock(&mut locking);
            match locking.contended.take() {
                // What the failed round gives may depend on what was locked: it goes first.
                Some(resv) => {
                    drop(result);
                    locking.back_off(resv);
                }
                None => return Ok((locking.exec, result?)),
            }
        }
    }

    /// The proof that `resv` is locked, if it is.
    pub fn held<'a>(&'a self, resv: &'a Reservation) -> Option<Held<'a>> {
        resv.lock().is_held_by(self.ticket).then_some(Held { resv })
    }

    /// All that is locked, each once, in the order in which it was asked for.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Held<'_>> {
        self.locks.iter().map(|lock| Held { resv: &lock.resv })
    }
}

impl Exec {
    /// In reverse, as `drm_exec_unlock_all()`: who waits for the first one finds the others free.
    fn unlock_all(&mut self) {
        while self.locks.pop().is_some() {}
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        self.unlock_all();
    }
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec").field("ticket", &self.ticket).field("locks", &self.locks.len()).finish()
    }
}

impl Locking {
    /// Locks `resv`, `drm_exec_lock_obj()`. One that is locked already is fine (`DRM_EXEC_IGNORE_DUPLICATES`).
    ///
    /// # Errors
    /// [`Contended`], from then on until the next round.
    pub fn lock(&mut self, resv: &Reservation) -> Result<(), Contended> {
        if self.contended.is_some() {
            return Err(Contended(()));
        }
        if let Some(lock) = self.prelocked.take_if(|lock| lock.resv == *resv) {
            self.exec.locks.push(lock);
            return Ok(());
        }
        let ticket = self.exec.ticket;
        let holds_others = self.prelocked.is_some() || !self.exec.locks.is_empty();
        match resv.lock().lock(ticket, holds_others) {
            Outcome::Locked => self.exec.locks.push(Lock { resv: resv.clone(), ticket }),
            Outcome::AlreadyHeld => {}
            Outcome::MustBackOff => {
                self.contended = Some(resv.clone());
                return Err(Contended(()));
            }
        }
        Ok(())
    }

    /// As [`Exec::held`], of this round so far.
    pub fn held<'a>(&'a self, resv: &'a Reservation) -> Option<Held<'a>> {
        self.exec.held(resv)
    }

    /// Releases everything and waits for `resv`: `drm_exec_cleanup()`, `dma_resv_lock_slow()`.
    fn back_off(&mut self, resv: Reservation) {
        self.prelocked = None;
        self.exec.unlock_all();
        let ticket = self.exec.ticket;
        // Who holds nothing is never sent away.
        let outcome = resv.lock().lock(ticket, false);
        debug_assert_eq!(outcome, Outcome::Locked);
        self.prelocked = Some(Lock { resv, ticket });
    }
}

impl fmt::Debug for Locking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locking").field("exec", &self.exec).field("contended", &self.contended).finish()
    }
}

impl<'a> Held<'a> {
    /// What is locked.
    pub fn reservation(&self) -> &'a Reservation {
        self.resv
    }

    /// Adds a fence: `dma_resv_add_fence()`.
    pub fn attach(&self, fence: &Fence, usage: Usage) {
        self.resv.add_fence(fence, usage);
    }
}

/// That the thread has no other [`Exec`]; it stays in the thread.
struct AloneInThread(PhantomData<*const ()>);

#[cfg(not(loom))]
std::thread_local! {
    static HAS_EXEC: Cell<bool> = const { Cell::new(false) };
}
#[cfg(loom)]
loom::thread_local! {
    static HAS_EXEC: Cell<bool> = Cell::new(false);
}

impl AloneInThread {
    fn enter() -> Self {
        let other = HAS_EXEC.with(|has| has.replace(true));
        assert!(
            !other,
            "this thread has reservations locked already: a second Exec could wait for it for ever"
        );
        Self(PhantomData)
    }
}

impl Drop for AloneInThread {
    fn drop(&mut self) {
        HAS_EXEC.with(|has| has.set(false));
    }
}

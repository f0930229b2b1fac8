//! Sync objects: a place that holds a fence, waits on it, and eventfds told about it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kmd::uapi::drm::{
    SYNCOBJ_WAIT_FLAGS_WAIT_ALL, SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE, SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT,
};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::fence::{Fence, Waiter, Wake};

/// One point that a thread waits for.
struct WaitEntry {
    point: u64,
    /// The fence, once the point has one. It is kept even if the syncobj is reset meanwhile.
    fence: Mutex<Option<Arc<Fence>>>,
    waiter: Arc<Waiter>,
}

/// An eventfd that wants to hear of one point.
struct EventEntry {
    point: u64,
    available: bool,
    fd: OwnedFd,
}

#[derive(Default)]
struct State {
    fence: Option<Arc<Fence>>,
    waits: Vec<Arc<WaitEntry>>,
    events: Vec<EventEntry>,
}

/// A sync object.
#[derive(Default)]
pub(crate) struct Syncobj(Mutex<State>);

impl core::fmt::Debug for Syncobj {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Syncobj").field(&self.0.lock().fence).finish()
    }
}

/// The fence at `point` of what a syncobj holds; `EINVAL` when there is none yet.
fn find(fence: Option<&Arc<Fence>>, point: u64) -> Result<Arc<Fence>, Errno> {
    // A point that is reached and gone still needs something signalled to wait for.
    Ok(fence.ok_or(Errno::INVAL)?.find_seqno(point)?.unwrap_or_else(Fence::stub))
}

impl Syncobj {
    pub(crate) fn new(signaled: bool) -> Arc<Self> {
        let fence = signaled.then(Fence::stub);
        Arc::new(Self(Mutex::new(State { fence, ..State::default() })))
    }

    /// The fence at `point` (0: the whole content); `EINVAL` when nobody has submitted it.
    pub(crate) fn find_fence(&self, point: u64) -> Result<Arc<Fence>, Errno> {
        find(self.0.lock().fence.as_ref(), point)
    }

    pub(crate) fn replace_fence(&self, fence: Option<Arc<Fence>>) {
        let old = self.set(|_| fence);
        drop(old);
    }

    /// Adds a timeline point.
    pub(crate) fn add_point(&self, fence: Arc<Fence>, point: u64) {
        self.set(|prev| Some(Fence::chain(prev, fence, point)));
    }

    /// Changes the content and tells whom it concerns. Returns the old content, to be dropped outside the lock.
    fn set(&self, change: impl FnOnce(Option<Arc<Fence>>) -> Option<Arc<Fence>>) -> Option<Arc<Fence>> {
        let mut due = Vec::new();
        let old = {
            let mut state = self.0.lock();
            let old = state.fence.take();
            state.fence = change(old.clone());
            let State { fence, waits, events } = &mut *state;
            waits.retain(|wait| match find(fence.as_ref(), wait.point) {
                Ok(found) => {
                    *wait.fence.lock() = Some(found);
                    wait.waiter.wake();
                    false
                }
                Err(_) => true,
            });
            for event in core::mem::take(events) {
                match find(fence.as_ref(), event.point) {
                    Ok(found) => due.push((found, event)),
                    Err(_) => events.push(event),
                }
            }
            old
        };
        for (fence, event) in due {
            event.attach(&fence);
        }
        old
    }

    /// Has `fd` (an eventfd) raised when `point` is signalled, or with `available` when it is submitted.
    pub(crate) fn add_event(&self, fd: OwnedFd, point: u64, available: bool) {
        let event = EventEntry { point, available, fd };
        let found = {
            let mut state = self.0.lock();
            match find(state.fence.as_ref(), point) {
                Ok(fence) => Some((fence, event)),
                Err(_) => {
                    state.events.push(event);
                    None
                }
            }
        };
        if let Some((fence, event)) = found {
            event.attach(&fence);
        }
    }

    /// The last submitted or last reached point of a timeline; 0 for a binary syncobj.
    pub(crate) fn timeline_value(&self, last_submitted: bool) -> u64 {
        let fence = self.0.lock().fence.clone();
        fence.map_or(0, |fence| fence.timeline_value(last_submitted))
    }

    fn add_wait(&self, wait: &Arc<WaitEntry>) {
        let mut state = self.0.lock();
        let mut fence = wait.fence.lock();
        if fence.is_none() {
            match find(state.fence.as_ref(), wait.point) {
                Ok(found) => *fence = Some(found),
                Err(_) => state.waits.push(wait.clone()),
            }
        }
    }

    /// Waits until somebody submits `point`, at most five seconds as the kernel does (`ETIME`), and returns its fence.
    pub(crate) fn wait_for_submit(&self, point: u64) -> Result<Arc<Fence>, Errno> {
        let entry =
            Arc::new(WaitEntry { point, fence: Mutex::default(), waiter: Arc::new(Waiter::default()) });
        self.add_wait(&entry);
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(fence) = entry.fence.lock().clone() {
                return Ok(fence);
            }
            if !entry.waiter.sleep(Some(deadline)) {
                self.remove_wait(&entry);
                return Err(Errno::TIME);
            }
        }
    }

    fn remove_wait(&self, wait: &Arc<WaitEntry>) {
        self.0.lock().waits.retain(|w| !Arc::ptr_eq(w, wait));
    }
}

impl EventEntry {
    fn attach(self, fence: &Arc<Fence>) {
        let fd = self.fd;
        let raise = move || {
            // Only a counter at its maximum refuses, and then its reader is woken anyway.
            if let Err(error) = rustix::io::write(&fd, &1u64.to_ne_bytes()) {
                tracing::debug!(%error, "an eventfd was not raised");
            }
        };
        if self.available { raise() } else { fence.on_signal(Wake::Call(Box::new(raise))) }
    }
}

/// Turns the kernel's absolute timeout (`CLOCK_MONOTONIC` nanoseconds; 0 and less, and the past, mean "poll") into a deadline.
/// `Ok(None)` waits for ever, `Err(())` does not wait.
fn deadline(timeout_nsec: i64) -> Result<Option<Instant>, ()> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now_nsec = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    match u64::try_from(timeout_nsec.saturating_sub(now_nsec)) {
        Ok(left) if timeout_nsec > 0 && left > 0 => {
            Ok(Instant::now().checked_add(Duration::from_nanos(left)))
        }
        _ => Err(()),
    }
}

/// Waits for points of several syncobjs, with the flags and errors of `DRM_IOCTL_SYNCOBJ_WAIT` and `_TIMELINE_WAIT`.
///
/// Returns the index of the first signalled one, `u32::MAX` where the kernel does not say. `EINVAL`: a point has no fence and the
/// flags do not ask to wait for one. `ETIME`: the timeout passed.
pub(crate) fn wait(
    syncobjs: &[Arc<Syncobj>],
    points: &[u64],
    flags: u32,
    timeout_nsec: i64,
) -> Result<u32, Errno> {
    let available = flags & SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE != 0;
    let for_submit = available || flags & SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT != 0;
    let all = flags & SYNCOBJ_WAIT_FLAGS_WAIT_ALL != 0;
    let waiter = Arc::new(Waiter::default());

    let (mut first, mut done) = (u32::MAX, 0);
    let mut entries = Vec::with_capacity(syncobjs.len());
    for (i, (syncobj, point)) in syncobjs.iter().zip(points).enumerate() {
        let fence = match syncobj.find_fence(*point) {
            Ok(fence) => Some(fence),
            Err(_) if for_submit => None,
            Err(errno) => return Err(errno),
        };
        if fence.as_ref().is_some_and(|fence| available || fence.is_signaled()) {
            if done == 0 {
                first = i as u32;
            }
            done += 1;
        }
        entries.push(Arc::new(WaitEntry { point: *point, fence: Mutex::new(fence), waiter: waiter.clone() }));
    }
    if done == entries.len() || (done > 0 && !all) {
        return Ok(first);
    }

    if for_submit {
        for (syncobj, entry) in syncobjs.iter().zip(&entries) {
            syncobj.add_wait(entry);
        }
    }
    let deadline = deadline(timeout_nsec);
    let result = loop {
        let (mut done, mut any) = (0, None);
        let mut pending = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            match entry.fence.lock().clone() {
                Some(fence) if available || fence.is_signaled() => {
                    done += 1;
                    any = any.or(Some(i as u32));
                }
                Some(fence) => pending.push(fence),
                None => {}
            }
        }
        match any {
            Some(i) if !all => break Ok(i),
            _ if done == entries.len() => break Ok(first),
            _ => {}
        }
        let Ok(deadline) = deadline else { break Err(Errno::TIME) };
        for fence in pending {
            // Fires at once if it signalled since the look above.
            fence.on_signal(Wake::Thread(Arc::downgrade(&waiter)));
        }
        if !waiter.sleep(deadline) {
            break Err(Errno::TIME);
        }
    };
    for (syncobj, entry) in syncobjs.iter().zip(&entries) {
        syncobj.remove_wait(entry);
    }
    result
}

/// A fence that the program signals itself, as with the kernel's software sync: for tests that must keep a queue waiting.
///
/// Dropping it signals it, so that nothing waits for ever.
#[derive(Debug)]
pub struct SwFence(Arc<Fence>);

impl SwFence {
    /// A fence that is not signalled.
    #[allow(clippy::new_without_default, reason = "a fence is made on purpose, not by default")]
    pub fn new() -> Self {
        Self(Fence::new())
    }

    /// A sync file of this fence, for `SYNCOBJ_FD_TO_HANDLE` with `IMPORT_SYNC_FILE`.
    pub fn sync_file(&self) -> Result<OwnedFd, Errno> {
        super::fd::create(super::fd::Held::SyncFile(self.0.clone()))
    }

    /// Signals it.
    pub fn signal(&self) {
        self.0.signal();
    }
}

impl Drop for SwFence {
    fn drop(&mut self) {
        self.0.signal();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: i64 = i64::MAX;

    #[test]
    fn empty_syncobj_needs_the_flag() {
        let s = Syncobj::new(false);
        assert_eq!(wait(core::slice::from_ref(&s), &[0], 0, FOREVER), Err(Errno::INVAL));
        assert_eq!(wait(&[s], &[0], SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT, 0), Err(Errno::TIME));
        assert_eq!(wait(&[Syncobj::new(true)], &[0], 0, 0), Ok(0));
    }

    #[test]
    fn wait_keeps_the_fence_over_a_reset() {
        let s = Syncobj::new(false);
        let fence = Fence::new();
        std::thread::scope(|scope| {
            let waiting = scope
                .spawn(|| wait(core::slice::from_ref(&s), &[0], SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT, FOREVER));
            while s.0.lock().waits.is_empty() {
                std::thread::yield_now();
            }
            s.replace_fence(Some(fence.clone()));
            s.replace_fence(None);
            fence.signal();
            assert_eq!(waiting.join().unwrap(), Ok(0));
        });
    }

    #[test]
    fn any_all_and_available() {
        let (a, b) = (Syncobj::new(false), Syncobj::new(false));
        let (fa, fb) = (Fence::new(), Fence::new());
        a.add_point(fa.clone(), 1);
        b.add_point(fb.clone(), 1);
        let both = [a.clone(), b.clone()];
        assert_eq!(wait(&both, &[1, 1], 0, 0), Err(Errno::TIME));
        assert_eq!(wait(&both, &[1, 1], SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE, 0), Ok(0));
        fb.signal();
        assert_eq!(wait(&both, &[1, 1], 0, 0), Ok(1));
        assert_eq!(wait(&both, &[1, 1], SYNCOBJ_WAIT_FLAGS_WAIT_ALL, 0), Err(Errno::TIME));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&both, &[1, 1], SYNCOBJ_WAIT_FLAGS_WAIT_ALL, FOREVER));
            fa.signal();
            assert!(waiting.join().unwrap().is_ok());
        });
        assert_eq!((a.timeline_value(false), b.timeline_value(true)), (1, 1));
    }
}

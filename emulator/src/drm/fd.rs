//! Descriptors that stand for kernel objects: syncobj files and sync files.
//!
//! A socket pair gives each one an inode of its own, by which it is recognised again after any number of `dup`s. Our end tells us
//! when the last descriptor is gone; shutting it down makes the other end readable, which is how a sync file reports its fence to
//! `poll`. The table belongs to the process: devices share fences.

use std::collections::HashMap;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::fence::{Fence, Wake};
use super::syncobj::Syncobj;

/// Files that are always kept without asking whether they are still open.
const LEAST_ROOM: usize = 32;

/// What a descriptor stands for.
#[derive(Clone)]
pub(crate) enum Held {
    Syncobj(Arc<Syncobj>),
    SyncFile(Arc<Fence>),
}

struct Entry {
    held: Held,
    ours: Arc<UnixStream>,
}

#[derive(Default)]
struct Open {
    files: HashMap<(u64, u64), Entry>,
    /// How many there may be before the next sweep: a sweep asks about each, so it waits until they have doubled.
    room: usize,
}

static OPEN: LazyLock<Mutex<Open>> = LazyLock::new(Mutex::default);

/// Device and inode of an open file.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// A new descriptor for `held`, closed on exec.
pub(crate) fn create(held: Held) -> Result<OwnedFd, Errno> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::MFILE))?;
    let key = identity(theirs.as_fd())?;
    let ours = Arc::new(ours);
    if let Held::SyncFile(fence) = &held {
        let end = Arc::downgrade(&ours);
        fence.on_signal(Wake::Call(Box::new(move || {
            if let Some(end) = end.upgrade()
                && let Err(error) = end.shutdown(Shutdown::Write)
            {
                tracing::debug!(%error, "a sync file cannot be made readable");
            }
        })));
    }
    let mut open = OPEN.lock();
    if open.files.len() >= open.room {
        sweep(&mut open.files);
        open.room = (2 * open.files.len()).max(LEAST_ROOM);
    }
    open.files.insert(key, Entry { held, ours });
    Ok(theirs.into())
}

/// What `fd` stands for; `None` for a foreign file.
pub(crate) fn lookup(fd: BorrowedFd<'_>) -> Option<Held> {
    let key = identity(fd).ok()?;
    OPEN.lock().files.get(&key).map(|entry| entry.held.clone())
}

/// Forgets what no descriptor stands for any more.
fn sweep(open: &mut HashMap<(u64, u64), Entry>) {
    open.retain(|_, entry| {
        let mut fds = [PollFd::new(&*entry.ours, PollFlags::empty())];
        match poll(&mut fds, Some(&rustix::event::Timespec::default())) {
            Ok(_) => !fds[0].revents().contains(PollFlags::HUP),
            Err(_) => true,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(fd: &OwnedFd) -> bool {
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap();
        fds[0].revents().contains(PollFlags::IN)
    }

    #[test]
    fn sync_files_poll_and_survive_dup() {
        let fence = Fence::new();
        let file = create(Held::SyncFile(fence.clone())).unwrap();
        let twin = file.try_clone().unwrap();
        assert!(!readable(&file));
        drop(file);
        assert!(matches!(lookup(twin.as_fd()), Some(Held::SyncFile(f)) if Arc::ptr_eq(&f, &fence)));
        fence.signal();
        assert!(readable(&twin));
    }

    #[test]
    fn closed_files_are_forgotten() {
        let fence = Fence::new();
        drop(create(Held::SyncFile(fence.clone())).unwrap());
        let other = create(Held::SyncFile(Fence::stub())).unwrap();
        assert!(readable(&other));
        sweep(&mut OPEN.lock().files);
        assert_eq!(Arc::strong_count(&fence), 1);
        assert!(lookup(other.as_fd()).is_some());
    }
}

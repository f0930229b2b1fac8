//! What VM_BIND and GEM_SUBMIT wait for, and where they put their fence.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use kmd::uapi::msm::{SYNCOBJ_FLAGS, SYNCOBJ_RESET, Syncobj};
use rustix::io::Errno;

use super::{LARGEST_ALLOCATION, Msm};
use crate::drm::fd::{Held, create, lookup};
use crate::drm::fence::Fence;
use crate::drm::gem::borrow;
use crate::drm::syncobj::Syncobj as Place;
use crate::drm::user::User;

/// An array of [`Syncobj`]s in user memory. What a short stride lacks is zero, what a long one has more is skipped.
#[derive(Clone, Copy, Default)]
pub(super) struct Syncobjs {
    pub(super) addr: u64,
    pub(super) count: u32,
    pub(super) stride: u32,
}

impl Syncobjs {
    /// Runs `each` on one after the other.
    fn each(&self, user: &User, mut each: impl FnMut(Syncobj) -> Result<(), Errno>) -> Result<(), Errno> {
        // The kernel keeps a pointer for each.
        if u64::from(self.count) * 8 > LARGEST_ALLOCATION {
            return Err(Errno::NOMEM);
        }
        let known = (self.stride as usize).min(size_of::<Syncobj>());
        (0..u64::from(self.count)).try_for_each(|i| {
            let at = self.addr.wrapping_add(i * u64::from(self.stride));
            each(user.read_struct(at, known)?)
        })
    }
}

/// What a call waits for.
#[derive(Default)]
pub(super) struct Waits {
    pub(super) fences: Vec<Arc<Fence>>,
    pub(super) reset: Resets,
}

/// Syncobjs that lose their fence once the job is queued.
#[derive(Default)]
pub(super) struct Resets(Vec<Arc<Place>>);

impl Resets {
    pub(super) fn reset(self) {
        self.0.iter().for_each(|syncobj| syncobj.replace_fence(None));
    }
}

/// Where a call puts its fence: syncobjs, each with its point or zero.
pub(super) struct Signals(Vec<(Arc<Place>, u64)>);

impl Signals {
    pub(super) fn put(self, fence: &Arc<Fence>) {
        for (syncobj, point) in self.0 {
            match point {
                0 => syncobj.replace_fence(Some(fence.clone())),
                point => syncobj.add_point(fence.clone(), point),
            }
        }
    }
}

/// The sync file that a call returns.
pub(super) fn out_fence(wanted: bool, done: &Arc<Fence>) -> Result<Option<OwnedFd>, Errno> {
    wanted.then(|| create(Held::SyncFile(done.clone()))).transpose()
}

impl Msm {
    /// What a call waits for: a sync file, then syncobjs.
    pub(super) fn waits(
        &self,
        sync_file: Option<i32>,
        syncobjs: Syncobjs,
        user: &User,
    ) -> Result<Waits, Errno> {
        let mut waits = Waits::default();
        if let Some(fd) = sync_file {
            match borrow(&fd).ok().and_then(|fd| lookup(fd.as_fd())) {
                Some(Held::SyncFile(fence)) => waits.fences.push(fence),
                _ => return Err(Errno::INVAL),
            }
        }
        syncobjs.each(user, |wait| {
            if wait.flags & !SYNCOBJ_FLAGS != 0 {
                return Err(Errno::INVAL);
            }
            let syncobj = self.file.syncobj(wait.handle).ok_or(Errno::NOENT)?;
            waits.fences.push(syncobj.find_fence(wait.point)?);
            if wait.flags & SYNCOBJ_RESET != 0 {
                waits.reset.0.push(syncobj);
            }
            Ok(())
        })?;
        Ok(waits)
    }

    /// Where a call puts its fence.
    pub(super) fn signals(&self, syncobjs: Syncobjs, user: &User) -> Result<Signals, Errno> {
        let mut signals = Vec::new();
        syncobjs.each(user, |signal| {
            if signal.flags != 0 {
                return Err(Errno::INVAL);
            }
            signals.push((self.file.syncobj(signal.handle).ok_or(Errno::INVAL)?, signal.point));
            Ok(())
        })?;
        Ok(Signals(signals))
    }
}

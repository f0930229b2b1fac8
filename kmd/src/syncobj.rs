//! DRM sync objects: binary and timeline, waits, transfers, files.
//!
//! A syncobj holds a fence, or a chain of fences at growing points (a timeline). A point *materialises* when work that
//! will signal it is submitted; most kernel interfaces refuse a point that has not (EINVAL).

use crate::node::{Node, call};
use crate::uapi::{drm, user_address, user_address_mut};
use crate::vm::SyncPoint;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// A syncobj handle: a small number that stands for a syncobj in one open file. Zero is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SyncobjHandle(pub u32);

/// A syncobj with a handle of our own: destroyed on drop. Unlike GEM handles these do not alias, every import makes a
/// new one.
pub struct Syncobj {
    node: Arc<dyn Node>,
    handle: SyncobjHandle,
}

/// What to wait for, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Give up at this time, absolute `CLOCK_MONOTONIC` nanoseconds; zero polls, `i64::MAX` never gives up.
    pub until_ns: i64,
    /// Wait for all points, not for the first.
    pub all: bool,
    /// Wait for points that have not materialised, instead of failing with EINVAL.
    pub for_submit: bool,
    /// Wait only until the points materialise.
    pub available: bool,
    /// Tell the fences that the result is wanted at this time, absolute `CLOCK_MONOTONIC` nanoseconds.
    pub deadline_ns: Option<u64>,
}

impl Wait {
    /// Waits until all points are signalled, however long it takes; EINVAL for a point that has not materialised.
    pub const ALL: Self =
        Self { until_ns: i64::MAX, all: true, for_submit: false, available: false, deadline_ns: None };

    /// Waits until all points have materialised, however long it takes.
    pub const MATERIALISED: Self = Self { for_submit: true, available: true, ..Self::ALL };

    /// The same, but gives up after `timeout` from now.
    pub fn within(self, timeout: Duration) -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        let until = now + i128::try_from(timeout.as_nanos()).unwrap_or(i128::MAX / 2);
        Self { until_ns: i64::try_from(until).unwrap_or(i64::MAX), ..self }
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Satisfied. When it was not for all points, `first` is the index of one that is.
    Done {
        /// Index into the points; zero when the wait was for all.
        first: usize,
    },
    /// Time was up.
    TimedOut,
}

/// Waits for `points`, binary and timeline mixed.
///
/// The timeline point zero counts as reached, as in Vulkan; the kernel would take it for the newest point of all.
pub fn wait(node: &dyn Node, points: &[SyncPoint], how: Wait) -> Result<Waited, Errno> {
    if let Some(first) = points.iter().position(|p| p.point == Some(0)).filter(|_| !how.all) {
        return Ok(Waited::Done { first });
    }
    let points = || points.iter().filter(|p| p.point != Some(0));
    let handles: Vec<u32> = points().map(|p| p.syncobj.0).collect();
    if handles.is_empty() {
        return Ok(Waited::Done { first: 0 });
    }
    let count_handles = u32::try_from(handles.len()).map_err(|_| Errno::INVAL)?;
    let mut flags = 0;
    for (set, flag) in [
        (how.all, drm::SYNCOBJ_WAIT_FLAGS_WAIT_ALL),
        (how.for_submit, drm::SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT),
        (how.available, drm::SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE),
        (how.deadline_ns.is_some(), drm::SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE),
    ] {
        flags |= if set { flag } else { 0 };
    }
    let handles_at = user_address(&handles);
    let deadline_nsec = how.deadline_ns.unwrap_or(0);
    // The binary wait knows no "available"; the timeline wait takes point zero for a binary syncobj.
    let (result, first) = if how.available || points().any(|p| p.point.is_some()) {
        let values: Vec<u64> = points().map(|p| p.point.unwrap_or(0)).collect();
        let mut arg = drm::SyncobjTimelineWait {
            handles: handles_at,
            points: user_address(&values),
            timeout_nsec: how.until_ns,
            count_handles,
            flags,
            deadline_nsec,
            ..Default::default()
        };
        // SAFETY: both addresses are those of vectors of `count_handles` elements that outlive the call.
        (unsafe { call(node, &mut arg) }, arg.first_signaled)
    } else {
        let mut arg = drm::SyncobjWait {
            handles: handles_at,
            timeout_nsec: how.until_ns,
            count_handles,
            flags,
            deadline_nsec,
            ..Default::default()
        };
        // SAFETY: the address is that of a vector of `count_handles` elements that outlives the call.
        (unsafe { call(node, &mut arg) }, arg.first_signaled)
    };
    match result {
        Ok(()) => Ok(Waited::Done { first: if how.all { 0 } else { first as usize } }),
        Err(Errno::TIME) => Ok(Waited::TimedOut),
        Err(errno) => Err(errno),
    }
}

/// Takes the fences out of syncobjs.
pub fn reset(node: &dyn Node, syncobjs: &[SyncobjHandle]) -> Result<(), Errno> {
    let handles: Vec<u32> = syncobjs.iter().map(|syncobj| syncobj.0).collect();
    let mut arg = drm::SyncobjReset(array(&handles));
    // SAFETY: the array outlives the call.
    unsafe { call(node, &mut arg) }
}

/// Signals a binary syncobj, or adds a signalled point to a timeline.
pub fn signal(node: &dyn Node, point: SyncPoint) -> Result<(), Errno> {
    let handle = [point.syncobj.0];
    if point.point.is_none() {
        // SAFETY: the array has one element and outlives the call.
        return unsafe { call(node, &mut drm::SyncobjSignal(array(&handle))) };
    }
    let value = [point_value(point.point)?];
    let mut arg = drm::SyncobjTimelineSignal(drm::SyncobjTimelineArray {
        handles: user_address(&handle),
        points: user_address(&value),
        count_handles: 1,
        flags: 0,
    });
    // SAFETY: both arrays have one element and outlive the call.
    unsafe { call(node, &mut arg) }
}

/// Copies the fence at `from` to `to`. With `for_submit` it waits until the fence exists, else EINVAL.
pub fn transfer(node: &dyn Node, from: SyncPoint, to: SyncPoint, for_submit: bool) -> Result<(), Errno> {
    let mut arg = drm::SyncobjTransfer {
        src_handle: from.syncobj.0,
        dst_handle: to.syncobj.0,
        src_point: point_value(from.point)?,
        dst_point: point_value(to.point)?,
        flags: if for_submit { drm::SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT } else { 0 },
        pad: 0,
    };
    // SAFETY: the argument holds no pointer.
    unsafe { call(node, &mut arg) }
}

impl Syncobj {
    /// Creates a syncobj, empty or with a signalled fence.
    pub fn create(node: Arc<dyn Node>, signaled: bool) -> Result<Self, Errno> {
        let flags = if signaled { drm::SYNCOBJ_CREATE_SIGNALED } else { 0 };
        let mut arg = drm::SyncobjCreate { handle: 0, flags };
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*node, &mut arg)? };
        Ok(Self { node, handle: SyncobjHandle(arg.handle) })
    }

    /// Imports a syncobj file: the same syncobj, with a handle of its own. What a driver exports as an opaque semaphore or
    /// fence file is one.
    pub fn import(node: Arc<dyn Node>, file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut arg =
            drm::SyncobjFdToHandle(drm::SyncobjHandle { fd: file.as_raw_fd(), ..Default::default() });
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*node, &mut arg)? };
        Ok(Self { node, handle: SyncobjHandle(arg.0.handle) })
    }

    /// The handle.
    pub fn handle(&self) -> SyncobjHandle {
        self.handle
    }

    /// This syncobj as a binary one.
    pub fn binary(&self) -> SyncPoint {
        SyncPoint { syncobj: self.handle, point: None }
    }

    /// A point of this syncobj.
    pub fn point(&self, point: u64) -> SyncPoint {
        SyncPoint { syncobj: self.handle, point: Some(point) }
    }

    /// Exports the syncobj as a file.
    pub fn export(&self) -> Result<OwnedFd, Errno> {
        self.to_fd(0, None)
    }

    /// Exports the fence that the syncobj, or its timeline `point`, has now, as a sync file. EINVAL when it has none.
    pub fn export_sync_file(&self, point: Option<u64>) -> Result<OwnedFd, Errno> {
        self.to_fd(drm::SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE, point)
    }

    /// Puts a sync file's fence into the syncobj, or to its timeline `point`.
    pub fn import_sync_file(&self, file: BorrowedFd<'_>, point: Option<u64>) -> Result<(), Errno> {
        let timeline = point.map_or(0, |_| drm::SYNCOBJ_FD_TO_HANDLE_FLAGS_TIMELINE);
        let mut arg = drm::SyncobjFdToHandle(drm::SyncobjHandle {
            handle: self.handle.0,
            flags: drm::SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE | timeline,
            fd: file.as_raw_fd(),
            pad: 0,
            point: point_value(point)?,
        });
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*self.node, &mut arg) }
    }

    /// Waits for this syncobj, or a timeline `point` of it.
    pub fn wait(&self, point: Option<u64>, how: Wait) -> Result<Waited, Errno> {
        wait(&*self.node, &[SyncPoint { syncobj: self.handle, point }], how)
    }

    /// Takes the fence out.
    pub fn reset(&self) -> Result<(), Errno> {
        reset(&*self.node, &[self.handle])
    }

    /// Puts a signalled fence in.
    pub fn signal(&self) -> Result<(), Errno> {
        signal(&*self.node, self.binary())
    }

    /// Adds a signalled `point` to the timeline.
    pub fn signal_point(&self, point: u64) -> Result<(), Errno> {
        signal(&*self.node, self.point(point))
    }

    /// The last point that is signalled; zero when there is none or the syncobj is binary.
    pub fn last_signaled(&self) -> Result<u64, Errno> {
        self.query(0)
    }

    /// The last point that has materialised; zero when there is none or the syncobj is binary.
    pub fn last_submitted(&self) -> Result<u64, Errno> {
        self.query(drm::SYNCOBJ_QUERY_FLAGS_LAST_SUBMITTED)
    }

    /// Copies the fence at `from` (a point of this syncobj, or none for a binary one) to `to`.
    ///
    /// With `for_submit` it waits until the fence exists, else EINVAL.
    pub fn transfer(&self, from: Option<u64>, to: SyncPoint, for_submit: bool) -> Result<(), Errno> {
        transfer(&*self.node, SyncPoint { syncobj: self.handle, point: from }, to, for_submit)
    }

    /// Has `eventfd` raised by one when the syncobj, or its timeline `point`, is signalled; with `available`, when it has
    /// materialised.
    pub fn notify(&self, point: Option<u64>, eventfd: BorrowedFd<'_>, available: bool) -> Result<(), Errno> {
        let mut arg = drm::SyncobjEventfd {
            handle: self.handle.0,
            flags: if available { drm::SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE } else { 0 },
            point: point_value(point)?,
            fd: eventfd.as_raw_fd(),
            pad: 0,
        };
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*self.node, &mut arg) }
    }

    fn query(&self, flags: u32) -> Result<u64, Errno> {
        let handle = [self.handle.0];
        let mut point = [0u64];
        let mut arg = drm::SyncobjQuery(drm::SyncobjTimelineArray {
            handles: user_address(&handle),
            points: user_address_mut(&mut point),
            count_handles: 1,
            flags,
        });
        // SAFETY: both arrays have one element and outlive the call; the kernel writes the second.
        unsafe { call(&*self.node, &mut arg)? };
        Ok(point[0])
    }

    fn to_fd(&self, flags: u32, point: Option<u64>) -> Result<OwnedFd, Errno> {
        let timeline = point.map_or(0, |_| drm::SYNCOBJ_HANDLE_TO_FD_FLAGS_TIMELINE);
        let mut arg = drm::SyncobjHandleToFd(drm::SyncobjHandle {
            handle: self.handle.0,
            flags: flags | timeline,
            fd: -1,
            pad: 0,
            point: point_value(point)?,
        });
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*self.node, &mut arg)? };
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(arg.0.fd) })
    }
}

impl Drop for Syncobj {
    fn drop(&mut self) {
        let mut arg = drm::SyncobjDestroy { handle: self.handle.0, pad: 0 };
        // SAFETY: the argument holds no pointer.
        if let Err(errno) = unsafe { call(&*self.node, &mut arg) } {
            tracing::warn!(handle = arg.handle, %errno, "cannot destroy a syncobj");
        }
    }
}

/// A point as the kernel's number, in which zero stands for the binary syncobj. The timeline point zero, which is reached
/// before anything is submitted, has no fence that could be copied or exported: EINVAL.
fn point_value(point: Option<u64>) -> Result<u64, Errno> {
    match point {
        Some(0) => Err(Errno::INVAL),
        point => Ok(point.unwrap_or(0)),
    }
}

/// The list of `handles`, which the caller keeps in place until the ioctl.
fn array(handles: &[u32]) -> drm::SyncobjArray {
    drm::SyncobjArray { handles: user_address(handles), count_handles: handles.len() as u32, pad: 0 }
}

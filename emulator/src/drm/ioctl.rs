//! The ioctls of the DRM core, as a render node offers them.

use std::os::fd::{AsFd, IntoRawFd};
use std::sync::Arc;

use kmd::uapi::drm::*;
use rustix::io::Errno;

use super::File;
use super::fd::{Held, create, lookup};
use super::gem::{Object, borrow};
use super::syncobj::{self, Syncobj};
use super::user::{Call, User};

const NR_VERSION: u32 = 0x00;
const NR_GEM_CLOSE: u32 = 0x09;
const NR_GET_CAP: u32 = 0x0c;
const NR_PRIME_HANDLE_TO_FD: u32 = 0x2d;
const NR_PRIME_FD_TO_HANDLE: u32 = 0x2e;
const NR_SYNCOBJ_CREATE: u32 = 0xbf;
const NR_SYNCOBJ_DESTROY: u32 = 0xc0;
const NR_SYNCOBJ_HANDLE_TO_FD: u32 = 0xc1;
const NR_SYNCOBJ_FD_TO_HANDLE: u32 = 0xc2;
const NR_SYNCOBJ_WAIT: u32 = 0xc3;
const NR_SYNCOBJ_RESET: u32 = 0xc4;
const NR_SYNCOBJ_SIGNAL: u32 = 0xc5;
const NR_SYNCOBJ_TIMELINE_WAIT: u32 = 0xca;
const NR_SYNCOBJ_QUERY: u32 = 0xcb;
const NR_SYNCOBJ_TRANSFER: u32 = 0xcc;
const NR_SYNCOBJ_TIMELINE_SIGNAL: u32 = 0xcd;
const NR_SYNCOBJ_EVENTFD: u32 = 0xcf;

const CAP_TIMESTAMP_MONOTONIC: u64 = 0x6;

/// Commands that the core knows but a render node refuses (`EACCES`): authentication, master, names, modes, leases. Ranges of
/// command numbers, ends included.
const NOT_FOR_RENDER_NODES: &[(u32, u32)] = &[
    (0x01, 0x02),
    (0x05, 0x07),
    (0x0a, 0x0b),
    (0x0d, 0x0d),
    (0x10, 0x13),
    (0x1e, 0x1f),
    (0x27, 0x27),
    (0x2c, 0x2c),
    (0x3a, 0x3c),
    (0x3f, 0x3f),
    (0xa0, 0xbe),
    (0xc6, 0xc9),
    (0xce, 0xce),
    (0xd0, 0xd0),
];

/// Name of a command that the core knows on a render node.
pub(crate) fn command_name(nr: u32) -> Option<&'static str> {
    Some(match nr {
        NR_VERSION => "VERSION",
        NR_GEM_CLOSE => "GEM_CLOSE",
        NR_GET_CAP => "GET_CAP",
        NR_PRIME_HANDLE_TO_FD => "PRIME_HANDLE_TO_FD",
        NR_PRIME_FD_TO_HANDLE => "PRIME_FD_TO_HANDLE",
        NR_SYNCOBJ_CREATE => "SYNCOBJ_CREATE",
        NR_SYNCOBJ_DESTROY => "SYNCOBJ_DESTROY",
        NR_SYNCOBJ_HANDLE_TO_FD => "SYNCOBJ_HANDLE_TO_FD",
        NR_SYNCOBJ_FD_TO_HANDLE => "SYNCOBJ_FD_TO_HANDLE",
        NR_SYNCOBJ_WAIT => "SYNCOBJ_WAIT",
        NR_SYNCOBJ_RESET => "SYNCOBJ_RESET",
        NR_SYNCOBJ_SIGNAL => "SYNCOBJ_SIGNAL",
        NR_SYNCOBJ_TIMELINE_WAIT => "SYNCOBJ_TIMELINE_WAIT",
        NR_SYNCOBJ_QUERY => "SYNCOBJ_QUERY",
        NR_SYNCOBJ_TRANSFER => "SYNCOBJ_TRANSFER",
        NR_SYNCOBJ_TIMELINE_SIGNAL => "SYNCOBJ_TIMELINE_SIGNAL",
        NR_SYNCOBJ_EVENTFD => "SYNCOBJ_EVENTFD",
        _ => return None,
    })
}

impl File {
    /// Performs an ioctl of the core. `EINVAL`: no such command. `closed` is told of an object that has lost its handle.
    pub(crate) fn core_ioctl(
        &self,
        call: &Call,
        user: &User,
        closed: impl FnOnce(&Object),
    ) -> Result<(), Errno> {
        match call.nr() {
            NR_VERSION => call.with(|args| self.version(args, user)),
            NR_GET_CAP => call.with(get_cap),
            NR_GEM_CLOSE => call.with(|args: &mut GemClose| self.close_handle(args.handle, closed)),
            NR_PRIME_HANDLE_TO_FD => call.with(|args: &mut PrimeHandleToFd| self.export(&mut args.0)),
            NR_PRIME_FD_TO_HANDLE => call.with(|args: &mut PrimeFdToHandle| self.import(&mut args.0)),
            NR_SYNCOBJ_CREATE => call.with(|args| self.syncobj_create(args)),
            NR_SYNCOBJ_DESTROY => call.with(|args| self.syncobj_destroy(args)),
            NR_SYNCOBJ_HANDLE_TO_FD => {
                call.with(|args: &mut SyncobjHandleToFd| self.syncobj_export(&mut args.0))
            }
            NR_SYNCOBJ_FD_TO_HANDLE => {
                call.with(|args: &mut SyncobjFdToHandle| self.syncobj_import(&mut args.0))
            }
            NR_SYNCOBJ_WAIT => call.with(|args| self.syncobj_wait(args, user)),
            NR_SYNCOBJ_TIMELINE_WAIT => call.with(|args| self.syncobj_timeline_wait(args, user)),
            NR_SYNCOBJ_RESET => call.with(|args: &mut SyncobjReset| {
                self.each(&args.0, user, |syncobj| syncobj.replace_fence(None))
            }),
            NR_SYNCOBJ_SIGNAL => call.with(|args: &mut SyncobjSignal| {
                self.each(&args.0, user, |syncobj| syncobj.replace_fence(Some(super::fence::Fence::stub())))
            }),
            NR_SYNCOBJ_QUERY => call.with(|args: &mut SyncobjQuery| self.syncobj_query(&args.0, user)),
            NR_SYNCOBJ_TRANSFER => call.with(|args| self.syncobj_transfer(args)),
            NR_SYNCOBJ_TIMELINE_SIGNAL => {
                call.with(|args: &mut SyncobjTimelineSignal| self.syncobj_timeline_signal(&args.0, user))
            }
            NR_SYNCOBJ_EVENTFD => call.with(|args| self.syncobj_eventfd(args)),
            nr if NOT_FOR_RENDER_NODES.iter().any(|(from, to)| (*from..=*to).contains(&nr)) => {
                Err(Errno::ACCESS)
            }
            nr => {
                tracing::debug!(nr, "the DRM core has no such command");
                Err(Errno::INVAL)
            }
        }
    }

    fn version(&self, args: &mut Version, user: &User) -> Result<(), Errno> {
        let driver = &self.device.driver;
        (args.version_major, args.version_minor, args.version_patchlevel) = driver.version;
        let copy = |at: usize, len: &mut usize, text: &str| {
            let room = core::mem::replace(len, text.len()).min(text.len());
            if room > 0 && at != 0 { user.write_bytes(at as u64, &text.as_bytes()[..room]) } else { Ok(()) }
        };
        copy(args.name, &mut args.name_len, driver.name)?;
        // The date is deprecated, but must not be empty.
        copy(args.date, &mut args.date_len, "0")?;
        copy(args.desc, &mut args.desc_len, driver.description)
    }

    fn syncobj_create(&self, args: &mut SyncobjCreate) -> Result<(), Errno> {
        if args.flags & !SYNCOBJ_CREATE_SIGNALED != 0 {
            return Err(Errno::INVAL);
        }
        if self.device.faults.alloc.strikes() {
            return Err(Errno::NOMEM);
        }
        args.handle = self.new_handle(Syncobj::new(args.flags != 0))?;
        Ok(())
    }

    fn new_handle(&self, syncobj: Arc<Syncobj>) -> Result<u32, Errno> {
        self.syncobjs.lock().insert(syncobj).ok_or(Errno::BUSY)
    }

    fn syncobj_destroy(&self, args: &mut SyncobjDestroy) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let gone = self.syncobjs.lock().remove(args.handle);
        gone.map(drop).ok_or(Errno::INVAL)
    }

    fn syncobj_export(&self, args: &mut SyncobjHandle) -> Result<(), Errno> {
        const TIMELINE: u32 = SYNCOBJ_HANDLE_TO_FD_FLAGS_TIMELINE;
        const SYNC_FILE: u32 = SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE;
        if args.pad != 0 || args.flags & !(TIMELINE | SYNC_FILE) != 0 {
            return Err(Errno::INVAL);
        }
        let point = if args.flags & TIMELINE != 0 { args.point } else { 0 };
        let held = if args.flags & SYNC_FILE != 0 {
            let syncobj = self.syncobj(args.handle).ok_or(Errno::NOENT)?;
            Held::SyncFile(syncobj.find_fence(point)?)
        } else if args.point != 0 {
            return Err(Errno::INVAL);
        } else {
            Held::Syncobj(self.syncobj(args.handle).ok_or(Errno::INVAL)?)
        };
        args.fd = create(held)?.into_raw_fd();
        Ok(())
    }

    fn syncobj_import(&self, args: &mut SyncobjHandle) -> Result<(), Errno> {
        const TIMELINE: u32 = SYNCOBJ_FD_TO_HANDLE_FLAGS_TIMELINE;
        const SYNC_FILE: u32 = SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE;
        if args.pad != 0 || args.flags & !(TIMELINE | SYNC_FILE) != 0 {
            return Err(Errno::INVAL);
        }
        let point = if args.flags & TIMELINE != 0 { args.point } else { 0 };
        let held = borrow(&args.fd).ok().and_then(|fd| lookup(fd.as_fd()));
        if args.flags & SYNC_FILE != 0 {
            let Some(Held::SyncFile(fence)) = held else { return Err(Errno::INVAL) };
            let syncobj = self.syncobj(args.handle).ok_or(Errno::NOENT)?;
            match point {
                0 => syncobj.replace_fence(Some(fence)),
                point => syncobj.add_point(fence, point),
            }
            return Ok(());
        }
        if args.point != 0 {
            return Err(Errno::INVAL);
        }
        let Some(Held::Syncobj(syncobj)) = held else { return Err(Errno::INVAL) };
        args.handle = self.new_handle(syncobj)?;
        Ok(())
    }

    /// The syncobjs that an array of handles names; `ENOENT` when one is missing.
    fn find_all(&self, handles: u64, count: u32, user: &User) -> Result<Vec<Arc<Syncobj>>, Errno> {
        let handles: Vec<u32> = user.read(handles, count as usize)?;
        let table = self.syncobjs.lock();
        handles.into_iter().map(|handle| table.get(handle).cloned().ok_or(Errno::NOENT)).collect()
    }

    fn each(&self, args: &SyncobjArray, user: &User, act: impl Fn(&Syncobj)) -> Result<(), Errno> {
        if args.pad != 0 || args.count_handles == 0 {
            return Err(Errno::INVAL);
        }
        let syncobjs = self.find_all(args.handles, args.count_handles, user)?;
        syncobjs.iter().for_each(|syncobj| act(syncobj));
        Ok(())
    }

    fn syncobj_wait(&self, args: &mut SyncobjWait, user: &User) -> Result<(), Errno> {
        const FLAGS: u32 = SYNCOBJ_WAIT_FLAGS_WAIT_ALL
            | SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT
            | SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE;
        if args.flags & !FLAGS != 0 {
            return Err(Errno::INVAL);
        }
        if args.count_handles == 0 {
            return Ok(());
        }
        let syncobjs = self.find_all(args.handles, args.count_handles, user)?;
        let points = vec![0; syncobjs.len()];
        args.first_signaled = syncobj::wait(&syncobjs, &points, args.flags, args.timeout_nsec)?;
        Ok(())
    }

    fn syncobj_timeline_wait(&self, args: &mut SyncobjTimelineWait, user: &User) -> Result<(), Errno> {
        const FLAGS: u32 = SYNCOBJ_WAIT_FLAGS_WAIT_ALL
            | SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT
            | SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE
            | SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE;
        if args.flags & !FLAGS != 0 {
            return Err(Errno::INVAL);
        }
        if args.count_handles == 0 {
            return Ok(());
        }
        let syncobjs = self.find_all(args.handles, args.count_handles, user)?;
        let points = points(args.points, args.count_handles, user)?;
        args.first_signaled = syncobj::wait(&syncobjs, &points, args.flags, args.timeout_nsec)?;
        Ok(())
    }

    fn syncobj_query(&self, args: &SyncobjTimelineArray, user: &User) -> Result<(), Errno> {
        if args.flags & !SYNCOBJ_QUERY_FLAGS_LAST_SUBMITTED != 0 || args.count_handles == 0 {
            return Err(Errno::INVAL);
        }
        let syncobjs = self.find_all(args.handles, args.count_handles, user)?;
        let points: Vec<u64> = syncobjs.iter().map(|s| s.timeline_value(args.flags != 0)).collect();
        user.write(args.points, &points)
    }

    fn syncobj_transfer(&self, args: &mut SyncobjTransfer) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let to = self.syncobj(args.dst_handle).ok_or(Errno::NOENT)?;
        let from = self.syncobj(args.src_handle).ok_or(Errno::NOENT)?;
        if args.flags & !SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT != 0 {
            return Err(Errno::INVAL);
        }
        let fence = match from.find_fence(args.src_point) {
            Err(_) if args.flags != 0 => from.wait_for_submit(args.src_point)?,
            found => found?,
        };
        match args.dst_point {
            0 => to.replace_fence(Some(fence)),
            point => to.add_point(fence, point),
        }
        Ok(())
    }

    fn syncobj_timeline_signal(&self, args: &SyncobjTimelineArray, user: &User) -> Result<(), Errno> {
        if args.flags != 0 || args.count_handles == 0 {
            return Err(Errno::INVAL);
        }
        let syncobjs = self.find_all(args.handles, args.count_handles, user)?;
        let points = points(args.points, args.count_handles, user)?;
        for (syncobj, point) in syncobjs.iter().zip(points) {
            syncobj.add_point(super::fence::Fence::stub(), point);
        }
        Ok(())
    }

    fn syncobj_eventfd(&self, args: &mut SyncobjEventfd) -> Result<(), Errno> {
        if args.flags & !SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE != 0 || args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let syncobj = self.syncobj(args.handle).ok_or(Errno::NOENT)?;
        let fd = borrow(&args.fd)?;
        // Nothing but an eventfd reports a counter.
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", args.fd)).unwrap_or_default();
        if !info.contains("eventfd-count:") {
            return Err(Errno::INVAL);
        }
        let fd = rustix::io::fcntl_dupfd_cloexec(fd, 0)?;
        syncobj.add_event(fd, args.point, args.flags != 0);
        Ok(())
    }
}

/// An array of points; none at all means zeroes.
fn points(addr: u64, count: u32, user: &User) -> Result<Vec<u64>, Errno> {
    if addr == 0 { Ok(vec![0; count as usize]) } else { user.read(addr, count as usize) }
}

fn get_cap(args: &mut GetCap) -> Result<(), Errno> {
    args.value = match args.capability {
        CAP_TIMESTAMP_MONOTONIC | CAP_SYNCOBJ | CAP_SYNCOBJ_TIMELINE => 1,
        CAP_PRIME => PRIME_CAP_IMPORT | PRIME_CAP_EXPORT,
        // The rest is for display drivers.
        _ => {
            args.value = 0;
            return Err(Errno::OPNOTSUPP);
        }
    };
    Ok(())
}

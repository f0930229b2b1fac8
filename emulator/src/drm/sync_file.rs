//! The ioctls of sync files. They are made on the sync file itself, whichever device its fence comes from.

use core::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::sync::Arc;

use kmd::uapi::command;
use kmd::uapi::sync_file::{FenceInfo, FileInfo, MAGIC, MergeData, SetDeadline};
use rustix::io::Errno;

use super::fd::{Held, create, lookup};
use super::fence::Fence;
use super::gem::borrow;
use super::user::{Call, User};

const NR_MERGE: u8 = 3;
const NR_FILE_INFO: u8 = 4;
const NR_SET_DEADLINE: u8 = 5;

/// Performs an ioctl on a sync file; `None` when `fd` is something else. Names and times of fences are not kept: they read as
/// empty and zero.
///
/// # Safety
/// As [`kmd::Node::ioctl`].
pub unsafe fn sync_file_ioctl(
    fd: BorrowedFd<'_>,
    request: u32,
    arg: *mut c_void,
) -> Option<Result<(), Errno>> {
    // SAFETY: our caller's promise.
    let (call, user) = unsafe { (Call::new(request, arg), User::promised()) };
    if call.magic() != MAGIC {
        return None;
    }
    let Held::SyncFile(fence) = lookup(fd)? else { return None };
    Some(match command(request) {
        NR_MERGE => call.with(|args| merge(&fence, args)),
        NR_FILE_INFO => call.with(|args| info(&fence, args, &user)),
        // Nothing here works faster when it is asked to.
        NR_SET_DEADLINE => {
            call.with(|args: &mut SetDeadline| if args.pad == 0 { Ok(()) } else { Err(Errno::INVAL) })
        }
        _ => Err(Errno::NOTTY),
    })
}

fn merge(fence: &Arc<Fence>, args: &mut MergeData) -> Result<(), Errno> {
    if args.flags != 0 || args.pad != 0 {
        return Err(Errno::INVAL);
    }
    match borrow(&args.fd2).ok().and_then(|fd| lookup(fd.as_fd())) {
        Some(Held::SyncFile(other)) => {
            args.fence = create(Held::SyncFile(Fence::both(fence.clone(), other)))?.into_raw_fd();
            Ok(())
        }
        _ => Err(Errno::NOENT),
    }
}

fn info(fence: &Arc<Fence>, args: &mut FileInfo, user: &User) -> Result<(), Errno> {
    if args.flags != 0 || args.pad != 0 {
        return Err(Errno::INVAL);
    }
    let pending = fence.pending_leaves().len();
    // A fence that is signalled is one fence, whatever it was made of.
    let one = FenceInfo { status: i32::from(pending == 0), ..FenceInfo::default() };
    let fences = vec![one; pending.max(1)];
    if args.num_fences != 0 {
        if (args.num_fences as usize) < fences.len() {
            return Err(Errno::INVAL);
        }
        user.write(args.sync_fence_info, &fences)?;
    }
    args.name = [0; 32];
    (args.status, args.num_fences) = (one.status, fences.len() as u32);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use kmd::Request;
    use kmd::uapi::user_address_mut;

    use super::*;

    fn sync_file(fence: &Arc<Fence>) -> OwnedFd {
        create(Held::SyncFile(fence.clone())).unwrap()
    }

    fn call<R: Request>(file: &OwnedFd, args: &mut R) -> Option<Result<(), Errno>> {
        // SAFETY: a structure of the test's, with addresses of the test's.
        unsafe { sync_file_ioctl(file.as_fd(), R::REQUEST, (&raw mut *args).cast()) }
    }

    #[test]
    fn a_merged_file_needs_both() {
        let (a, b) = (Fence::new(), Fence::new());
        let (file, other) = (sync_file(&a), sync_file(&b));
        let mut args = MergeData { fd2: other.as_raw_fd(), ..MergeData::default() };
        assert_eq!(call(&file, &mut args), Some(Ok(())));
        // SAFETY: made by the call.
        let merged = unsafe { OwnedFd::from_raw_fd(args.fence) };

        let mut fences = [FenceInfo::default(); 2];
        let mut info =
            FileInfo { num_fences: 1, sync_fence_info: user_address_mut(&mut fences), ..FileInfo::default() };
        assert_eq!(call(&merged, &mut info), Some(Err(Errno::INVAL)));
        info.num_fences = 2;
        assert_eq!(call(&merged, &mut info), Some(Ok(())));
        assert_eq!((info.status, info.num_fences), (0, 2));
        a.signal();
        assert_eq!(call(&merged, &mut info), Some(Ok(())));
        assert_eq!((info.status, info.num_fences), (0, 1));
        b.signal();
        assert_eq!(call(&merged, &mut info), Some(Ok(())));
        assert_eq!((info.status, info.num_fences, fences[0].status), (1, 1, 1));
    }

    #[test]
    fn other_files_are_not_ours() {
        let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        assert_eq!(call(&file, &mut FileInfo::default()), None);
        let fence = sync_file(&Fence::stub());
        let mut args = MergeData { fd2: file.as_raw_fd(), ..MergeData::default() };
        assert_eq!(call(&fence, &mut args), Some(Err(Errno::NOENT)));
        args.pad = 1;
        assert_eq!(call(&fence, &mut args), Some(Err(Errno::INVAL)));
        let mut node = kmd::uapi::drm::GemClose::default();
        assert_eq!(call(&fence, &mut node), None);
    }
}

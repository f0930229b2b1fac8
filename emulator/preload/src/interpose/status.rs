//! `stat` and its kin.

use core::ffi::{c_char, c_int, c_uint};
use core::ptr;
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;

use libc::{AT_EMPTY_PATH, S_IFCHR, statx as Statx};

use super::redirected;
use crate::emulation::{self, FILES};
use crate::real;
use crate::tree::{MAJOR, MINOR, Tree};

/// Makes the placeholder look like the node.
trait Disguise {
    fn disguise(&mut self, tree: &Tree);
}

macro_rules! disguise {
    ($($type:ty),*) => { $(
        impl Disguise for $type {
            fn disguise(&mut self, tree: &Tree) {
                if tree.is_node((self.st_dev, self.st_ino)) {
                    self.st_mode = S_IFCHR | 0o666;
                    self.st_rdev = libc::makedev(MAJOR, MINOR);
                }
            }
        }
    )* };
}
disguise!(libc::stat, libc::stat64);

impl Disguise for Statx {
    fn disguise(&mut self, tree: &Tree) {
        if tree.is_node((libc::makedev(self.stx_dev_major, self.stx_dev_minor), self.stx_ino)) {
            self.stx_mode = (S_IFCHR | 0o666) as u16;
            (self.stx_rdev_major, self.stx_rdev_minor) = (MAJOR, MINOR);
        }
    }
}

/// Makes a successful result look right.
///
/// # Safety
/// Where `result` is 0, `out` holds one.
unsafe fn shown<S: Disguise>(result: c_int, out: *mut S) -> c_int {
    if result == 0
        && let Some(tree) = emulation::get().and_then(|emulation| emulation.tree())
    {
        // SAFETY: our caller's promise.
        unsafe { (*out).disguise(tree) };
    }
    result
}

/// The placeholder's path, if the call is about a descriptor of the node.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn placeholder(fd: c_int, path: *const c_char, flags: c_int) -> Option<CString> {
    // SAFETY: our caller's promise.
    let nameless = path.is_null() || unsafe { *path } == 0;
    if !nameless || flags & AT_EMPTY_PATH == 0 || !FILES.has(fd) {
        return None;
    }
    let path = emulation::get()?.tree()?.placeholder();
    CString::new(path.into_os_string().into_vec()).ok()
}

/// Defines the functions for one form of `stat`.
macro_rules! stats {
    ($($stat:ident, $lstat:ident, $fstat:ident, $fstatat:ident;)*) => { $(
        #[doc = concat!("`", stringify!($stat), "` of the C library.")]
        ///
        /// # Safety
        /// As there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $stat(path: *const c_char, out: *mut libc::$stat) -> c_int {
            // SAFETY: our caller's promise.
            unsafe { shown(redirected(path, |path| real::$stat(path, out)), out) }
        }

        #[doc = concat!("`", stringify!($lstat), "` of the C library.")]
        ///
        /// # Safety
        /// As there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $lstat(path: *const c_char, out: *mut libc::$stat) -> c_int {
            // SAFETY: our caller's promise.
            unsafe { shown(redirected(path, |path| real::$lstat(path, out)), out) }
        }

        #[doc = concat!("`", stringify!($fstat), "` of the C library.")]
        ///
        /// # Safety
        /// As there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $fstat(fd: c_int, out: *mut libc::$stat) -> c_int {
            // SAFETY: our caller's promise.
            unsafe {
                match placeholder(fd, ptr::null(), AT_EMPTY_PATH) {
                    Some(path) => shown(real::$stat(path.as_ptr(), out), out),
                    None => real::$fstat(fd, out),
                }
            }
        }

        #[doc = concat!("`", stringify!($fstatat), "` of the C library.")]
        ///
        /// # Safety
        /// As there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $fstatat(
            dir: c_int,
            path: *const c_char,
            out: *mut libc::$stat,
            flags: c_int,
        ) -> c_int {
            // SAFETY: our caller's promise.
            unsafe {
                match placeholder(dir, path, flags) {
                    Some(path) => shown(real::$stat(path.as_ptr(), out), out),
                    None => shown(redirected(path, |path| real::$fstatat(dir, path, out, flags)), out),
                }
            }
        }
    )* };
}

stats! {
    stat, lstat, fstat, fstatat;
    stat64, lstat64, fstat64, fstatat64;
}

/// `statx` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn statx(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    out: *mut Statx,
) -> c_int {
    // SAFETY: our caller's promise.
    unsafe {
        match placeholder(dir, path, flags) {
            Some(path) => {
                shown(real::statx(libc::AT_FDCWD, path.as_ptr(), flags & !AT_EMPTY_PATH, mask, out), out)
            }
            None => shown(redirected(path, |path| real::statx(dir, path, flags, mask, out)), out),
        }
    }
}

//! Functions that take a path: opening, listing, following links.

use core::ffi::{CStr, c_char, c_int};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libc::{DIR, FILE, dirent, dirent64, mode_t, size_t, ssize_t};
use rustix::io::Errno;

use super::redirected;
use crate::emulation::{self, FILES};
use crate::errno::{check, guard};
use crate::real::{self, Compare, Filter};
use crate::tree;

/// Opens the node if `path`, which has been redirected, names it.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn open_node(dir: c_int, path: *const c_char, flags: c_int) -> Option<c_int> {
    let emulation = emulation::get()?;
    let tree = emulation.tree()?;
    // SAFETY: our caller's promise.
    if path.is_null() || !unsafe { tree.names_node(dir, path) } {
        return None;
    }
    Some(guard(-1, || {
        let file = emulation.open()?;
        let mut kind = 0;
        if flags & libc::O_CLOEXEC != 0 {
            kind |= libc::EFD_CLOEXEC;
        }
        if flags & libc::O_NONBLOCK != 0 {
            kind |= libc::EFD_NONBLOCK;
        }
        // SAFETY: a call without pointers.
        let fd = check(unsafe { libc::eventfd(0, kind) })?;
        if !FILES.insert(fd, file.clone()) {
            // SAFETY: opened above, and nobody else's.
            unsafe { real::close(fd) };
            return Err(Errno::MFILE);
        }
        emulation.say_opened(fd, &file);
        Ok(fd)
    }))
}

/// Defines functions that open a file.
macro_rules! opens {
    ($(fn $name:ident($([$dir:ident: c_int])? path $(, $mode:ident: mode_t)?) by $real:ident($at:expr);)*) => { $(
        #[doc = concat!("`", stringify!($name), "` of the C library.")]
        ///
        /// # Safety
        /// As there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($dir: c_int,)? path: *const c_char, flags: c_int $(, $mode: mode_t)?) -> c_int {
            // SAFETY: our caller's promise, here and within.
            unsafe {
                redirected(path, |path| match open_node($at, path, flags) {
                    Some(fd) => fd,
                    None => real::$real($($dir,)? path, flags, opens!(@mode $($mode)?)),
                })
            }
        }
    )* };
    (@mode) => { 0 };
    (@mode $mode:ident) => { $mode };
}

opens! {
    fn open(path, mode: mode_t) by open(libc::AT_FDCWD);
    fn open64(path, mode: mode_t) by open64(libc::AT_FDCWD);
    fn openat([dir: c_int] path, mode: mode_t) by openat(dir);
    fn openat64([dir: c_int] path, mode: mode_t) by openat64(dir);
    // What the headers make of the others when they check arguments (_FORTIFY_SOURCE) and see that no file is created.
    fn __open_2(path) by open(libc::AT_FDCWD);
    fn __open64_2(path) by open64(libc::AT_FDCWD);
    fn __openat_2([dir: c_int] path) by openat(dir);
    fn __openat64_2([dir: c_int] path) by openat64(dir);
}

/// Defines functions that do what the C library's do, at the redirected path.
macro_rules! redirects {
    ($(fn $name:ident(path $(, $arg:ident: $type:ty)*) -> $result:ty;)*) => { $(
        #[doc = concat!("`", stringify!($name), "` of the C library.")]
        ///
        /// # Safety
        /// As there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char $(, $arg: $type)*) -> $result {
            // SAFETY: our caller's promise.
            unsafe { redirected(path, |path| real::$name(path $(, $arg)*)) }
        }
    )* };
}

redirects! {
    fn fopen(path, mode: *const c_char) -> *mut FILE;
    fn fopen64(path, mode: *const c_char) -> *mut FILE;
    fn access(path, mode: c_int) -> c_int;
    fn opendir(path) -> *mut DIR;
    fn scandir(path, list: *mut *mut *mut dirent, filter: Filter<dirent>, compare: Compare<dirent>) -> c_int;
    fn scandir64(path, list: *mut *mut *mut dirent64, filter: Filter<dirent64>, compare: Compare<dirent64>) -> c_int;
}

/// `faccessat` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn faccessat(dir: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int {
    // SAFETY: our caller's promise.
    unsafe { redirected(path, |path| real::faccessat(dir, path, mode, flags)) }
}

/// What `/proc/self/fd/N` leads to where N is the node's.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn node_behind(path: *const c_char) -> Option<&'static [u8]> {
    emulation::get()?;
    if path.is_null() {
        return None;
    }
    // SAFETY: our caller's promise.
    let text = unsafe { CStr::from_ptr(path) }.to_bytes();
    let number = core::str::from_utf8(text.strip_prefix(b"/proc/self/fd/")?).ok()?;
    FILES.has(number.parse().ok()?).then_some(tree::NODE.as_bytes())
}

/// Copies as much of `text` as there is room for, as `readlink` does.
///
/// # Safety
/// `out` has room for `size` bytes.
unsafe fn cut(text: &[u8], out: *mut c_char, size: size_t) -> ssize_t {
    let len = text.len().min(size);
    // SAFETY: our caller's promise.
    unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), out.cast(), len) };
    len as ssize_t
}

/// `readlink` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn readlink(path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t {
    // SAFETY: our caller's promise, here and within.
    unsafe {
        match node_behind(path) {
            Some(node) => cut(node, out, size),
            None => redirected(path, |path| real::readlink(path, out, size)),
        }
    }
}

/// `readlinkat` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn readlinkat(
    dir: c_int,
    path: *const c_char,
    out: *mut c_char,
    size: size_t,
) -> ssize_t {
    // SAFETY: our caller's promise, here and within.
    unsafe {
        match node_behind(path) {
            Some(node) => cut(node, out, size),
            None => redirected(path, |path| real::readlinkat(dir, path, out, size)),
        }
    }
}

/// `readlink` of the C library, as the headers call it when they check sizes.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __readlink_chk(
    path: *const c_char,
    out: *mut c_char,
    size: size_t,
    room: size_t,
) -> ssize_t {
    // SAFETY: our caller's promise; what there is no room for is not written.
    unsafe { readlink(path, out, size.min(room)) }
}

/// `realpath` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char {
    // SAFETY: our caller's promise.
    let found = unsafe { redirected(path, |path| real::realpath(path, out)) };
    let Some(tree) = emulation::get().and_then(|emulation| emulation.tree()) else { return found };
    if !found.is_null() {
        // SAFETY: a C string, in the caller's buffer or in memory that is the caller's now.
        let text = unsafe { CStr::from_ptr(found) }.to_bytes();
        if let Some(outside) = tree.outside(Path::new(OsStr::from_bytes(text))) {
            let outside = outside.as_os_str().as_bytes();
            // SAFETY: shorter than the string that it replaces.
            unsafe {
                core::ptr::copy_nonoverlapping(outside.as_ptr(), found.cast(), outside.len());
                *found.add(outside.len()) = 0;
            }
        }
    }
    found
}

/// `realpath` of the C library, as the headers call it when they check sizes.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __realpath_chk(path: *const c_char, out: *mut c_char, _room: size_t) -> *mut c_char {
    // SAFETY: our caller's promise: the buffer has the size that realpath asks for.
    unsafe { realpath(path, out) }
}

/// `canonicalize_file_name` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn canonicalize_file_name(path: *const c_char) -> *mut c_char {
    // SAFETY: our caller's promise.
    unsafe { realpath(path, core::ptr::null_mut()) }
}

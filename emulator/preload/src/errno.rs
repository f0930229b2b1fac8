//! Results of C functions.

use core::ffi::{CStr, c_char, c_int};
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;

/// Sets the calling thread's `errno`.
pub(crate) fn set(errno: Errno) {
    // SAFETY: the calling thread's own errno, which is always there.
    unsafe { *libc::__errno_location() = errno.raw_os_error() };
}

/// Runs `body` for a C caller: an error becomes `errno` and `failed`, and so does a panic, as `EIO`: it must not reach C.
pub(crate) fn guard<T>(failed: T, body: impl FnOnce() -> Result<T, Errno>) -> T {
    match catch_unwind(AssertUnwindSafe(body)).unwrap_or(Err(Errno::IO)) {
        Ok(value) => value,
        Err(errno) => {
            set(errno);
            failed
        }
    }
}

/// As [`guard`], for what has no result.
pub(crate) fn contain(body: impl FnOnce()) {
    guard((), || {
        body();
        Ok(())
    });
}

/// Name of an error, such as `EINVAL`.
pub(crate) fn name(errno: Errno) -> Cow<'static, str> {
    unsafe extern "C" {
        fn strerrorname_np(errno: c_int) -> *const c_char;
    }
    // SAFETY: any number may be asked for.
    let name = unsafe { strerrorname_np(errno.raw_os_error()) };
    if name.is_null() {
        return format!("error {}", errno.raw_os_error()).into();
    }
    // SAFETY: a C string that is never freed.
    unsafe { CStr::from_ptr(name) }.to_string_lossy()
}

/// The result of a call that returned an `int`.
pub(crate) fn check(result: c_int) -> Result<c_int, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

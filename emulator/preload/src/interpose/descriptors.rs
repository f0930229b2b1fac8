//! Functions that take a descriptor: closing, duplicating, `ioctl`.

use core::ffi::{c_int, c_uint, c_ulong, c_void};
use std::os::fd::BorrowedFd;

use kmd::uapi::sync_file;

use crate::emulation::{self, FILES};
use crate::errno::{contain, guard};
use crate::log::Outcome;
use crate::real;

/// The `_IOC` type of DRM's ioctls.
const DRM: u8 = b'd';

/// `close` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    // Before the number is free for others. What it stood for goes when it is.
    let closed = FILES.take(fd..=fd);
    // SAFETY: our caller's promise.
    let result = unsafe { real::close(fd) };
    contain(|| drop(closed));
    result
}

/// `close_range` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    const CLOEXEC: c_int = libc::CLOSE_RANGE_CLOEXEC as c_int;
    let number = |fd: c_uint| c_int::try_from(fd).unwrap_or(c_int::MAX);
    let closed = if flags & CLOEXEC == 0 { FILES.take(number(first)..=number(last)) } else { Vec::new() };
    // SAFETY: our caller's promise.
    let result = unsafe { real::close_range(first, last, flags) };
    contain(|| drop(closed));
    result
}

/// `closefrom` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn closefrom(first: c_int) {
    let closed = FILES.take(first..=c_int::MAX);
    // SAFETY: our caller's promise.
    unsafe { real::closefrom(first) };
    contain(|| drop(closed));
}

/// Remembers that `to`, the result of a call, is a duplicate of `from`.
fn duplicated(from: c_int, to: c_int) -> c_int {
    if to >= 0 && (FILES.has(from) || FILES.has(to)) {
        contain(|| FILES.copy(from, to));
    }
    to
}

/// `dup` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup(fd: c_int) -> c_int {
    // SAFETY: our caller's promise.
    duplicated(fd, unsafe { real::dup(fd) })
}

/// `dup2` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    // SAFETY: our caller's promise.
    duplicated(fd, unsafe { real::dup2(fd, to) })
}

/// `dup3` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    // SAFETY: our caller's promise.
    duplicated(fd, unsafe { real::dup3(fd, to, flags) })
}

fn controlled(fd: c_int, command: c_int, result: c_int) -> c_int {
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => duplicated(fd, result),
        _ => result,
    }
}

/// `fcntl` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl(fd: c_int, command: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: our caller's promise.
    controlled(fd, command, unsafe { real::fcntl(fd, command, arg) })
}

/// `fcntl64` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fcntl64(fd: c_int, command: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: our caller's promise.
    controlled(fd, command, unsafe { real::fcntl64(fd, command, arg) })
}

/// Performs an ioctl on a sync file; `None` when `fd` is none of the emulation's.
///
/// # Safety
/// As `ioctl`.
unsafe fn call_sync_file(fd: c_int, request: u32, arg: *mut c_void) -> Option<c_int> {
    if fd < 0 {
        return None;
    }
    guard(Some(-1), || {
        // SAFETY: our caller says that it is open; if it is not, it is found to be nothing.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        // SAFETY: our caller's promise.
        let Some(result) = (unsafe { emulator::sync_file_ioctl(file, request, arg) }) else {
            return Ok(None);
        };
        if let Some(emulation) = emulation::get() {
            let command = kmd::uapi::command(request);
            emulation.say(format_args!("sync file {fd} command {command} = {}", Outcome(result)));
        }
        result.map(|()| Some(0))
    })
}

/// `ioctl` of the C library.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, arg: *mut c_void) -> c_int {
    let magic = kmd::uapi::magic(request as u32);
    // What is not DRM's is everybody's, such as FIOCLEX.
    if magic == DRM
        && let Some(file) = FILES.get(fd)
        && let Some(emulation) = emulation::get()
    {
        return guard(-1, || {
            // SAFETY: our caller's promise. The kernel takes 32 bits of the request too.
            unsafe { emulation.ioctl(&file, request as u32, arg)? };
            Ok(0)
        });
    }
    if magic == sync_file::MAGIC
        && emulation::get().is_some()
        // SAFETY: our caller's promise.
        && let Some(result) = unsafe { call_sync_file(fd, request as u32, arg) }
    {
        return result;
    }
    // SAFETY: our caller's promise.
    unsafe { real::ioctl(fd, request, arg) }
}

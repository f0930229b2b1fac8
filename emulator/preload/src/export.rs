//! C functions for tests and measurements in the same process. Find them with `dlsym(RTLD_DEFAULT, ...)`: they are there when the
//! library is preloaded. In Rust, `client::Emulator` does that.

use core::ffi::{CStr, c_char, c_int};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::{Counters, Functions, Mapping};
use emulator::{Faults, Node};
use rustix::io::Errno;

use crate::dump;
use crate::emulation::{self, FILES, OpenFile};
use crate::errno::{contain, guard};

/// The functions have the types by which programs call them.
const _: Functions = Functions {
    counters: tessera_emulator_counters,
    calls: tessera_emulator_calls,
    mark: tessera_emulator_mark,
    mappings: tessera_emulator_mappings,
    dump: tessera_emulator_dump,
    hold: tessera_emulator_hold,
    single_out: tessera_emulator_single_out,
    delay: tessera_emulator_delay,
    fail: tessera_emulator_fail,
};

/// The open file behind a descriptor; -1: the one that was opened last, of those that are open.
fn file(fd: c_int) -> Result<Arc<OpenFile>, Errno> {
    if fd == -1 { FILES.last() } else { FILES.get(fd) }.ok_or(Errno::BADF)
}

/// The device. `ENODEV`: no node has been opened.
fn device() -> Result<Arc<Node>, Errno> {
    emulation::get().and_then(|emulation| emulation.device()).ok_or(Errno::NODEV)
}

/// `int tessera_emulator_counters(struct *out, size_t size)`: fills the first `size` bytes of `out` with the device's counters.
/// 0, or -1 with `errno` `ENODEV`: no node has been opened.
///
/// # Safety
/// `out` has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tessera_emulator_counters(out: *mut Counters, size: usize) -> c_int {
    guard(-1, || {
        let now = device()?.counters();
        let counters = Counters {
            ioctls: now.ioctls,
            binds: now.binds,
            ops: now.ops,
            jobs: now.jobs,
            table_pages: now.table_pages,
            preallocated_pages: now.preallocated_pages,
            throttled: now.throttled,
            entries_written: now.entries_written,
            flushes: now.flushes,
            live_bos: now.live_bos,
            submits: now.submits,
            ioctl_ns: emulation::get().map_or(0, |emulation| emulation.calls.nanoseconds()),
        };
        let size = size.min(size_of_val(&counters));
        // SAFETY: our caller's promise; integers without padding.
        unsafe { core::ptr::copy_nonoverlapping((&raw const counters).cast::<u8>(), out.cast(), size) };
        Ok(0)
    })
}

/// `uint64_t tessera_emulator_calls(uint8_t command)`: calls of an ioctl so far, by its command number (such as 0x4d for msm's
/// VM_BIND), refused ones included.
#[unsafe(no_mangle)]
pub extern "C" fn tessera_emulator_calls(command: u8) -> u64 {
    guard(0, || Ok(emulation::get().map_or(0, |emulation| emulation.calls.of(command))))
}

/// `void tessera_emulator_mark(const char *text)`: writes a line to the log.
///
/// # Safety
/// `text` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tessera_emulator_mark(text: *const c_char) {
    contain(|| {
        if let Some(emulation) = emulation::get() {
            // SAFETY: our caller's promise.
            let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
            emulation.say(format_args!("MARK {text}"));
        }
    });
}

/// `ssize_t tessera_emulator_mappings(int fd, uint32_t vm, struct *out, size_t count)`: what the page table of a VM maps, in order
/// of address, with pages of continuing content joined. `vm`: its number, which for msm is 1. Fills at most `count` entries and
/// returns how many there are. `fd`: the node's descriptor; -1: the file that was opened last. -1 with `errno` `EBADF`: no such file.
///
/// # Safety
/// `out` has room for `count` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tessera_emulator_mappings(
    fd: c_int,
    vm: u32,
    out: *mut Mapping,
    count: usize,
) -> isize {
    guard(-1, || {
        let runs = file(fd)?.node.mappings(vm);
        for (i, run) in runs.iter().take(count).enumerate() {
            let (handle, offset) = run.bo.map_or((0, 0), |(handle, offset)| (handle.0, offset));
            let entry = Mapping { va: run.va, len: run.len, object: run.object, offset, handle, pad: 0 };
            // SAFETY: our caller's promise.
            unsafe { out.add(i).write(entry) };
        }
        Ok(runs.len() as isize)
    })
}

/// `int tessera_emulator_dump(int fd, const char *path)`: appends the page tables of an open file (see
/// [`tessera_emulator_mappings`]) to a file, as text. 0, or -1 with `errno`.
///
/// # Safety
/// `path` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tessera_emulator_dump(fd: c_int, path: *const c_char) -> c_int {
    guard(-1, || {
        // SAFETY: our caller's promise.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
        let dumped = dump::append(path, "page tables", &file(fd)?.node);
        dumped.map(|()| 0).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    })
}

/// `int tessera_emulator_hold(int hold)`: keeps queued jobs from running (1) until they are let go (0). 0, or -1 with `errno`
/// `ENODEV`: no node has been opened.
#[unsafe(no_mangle)]
pub extern "C" fn tessera_emulator_hold(hold: c_int) -> c_int {
    guard(-1, || {
        device()?.hold_jobs(hold != 0);
        Ok(0)
    })
}

/// `int tessera_emulator_single_out(uint32_t queue)`: only the jobs of this bind queue (msm: a submit queue, panthor: that of a VM) are
/// held or late from now on, so that others overtake them; with 0, all jobs. 0, or -1 with `errno` `ENODEV`: no node has been opened.
#[unsafe(no_mangle)]
pub extern "C" fn tessera_emulator_single_out(queue: u32) -> c_int {
    guard(-1, || {
        device()?.single_out_jobs((queue != 0).then_some(queue));
        Ok(0)
    })
}

/// `int tessera_emulator_delay(uint32_t milliseconds)`: queued jobs run this much late from now on. 0, or -1 with `errno` `ENODEV`:
/// no node has been opened.
#[unsafe(no_mangle)]
pub extern "C" fn tessera_emulator_delay(milliseconds: u32) -> c_int {
    guard(-1, || {
        device()?.delay_jobs(Duration::from_millis(milliseconds.into()));
        Ok(0)
    })
}

/// `int tessera_emulator_fail(const char *faults)`: the N-th of what comes from now on fails, as `TESSERA_EMULATE_FAULT` names it;
/// that takes the place of what was asked for before. 0, or -1 with `errno`: `EINVAL`, no such faults; `ENODEV`, no node has been opened.
///
/// # Safety
/// `faults` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tessera_emulator_fail(faults: *const c_char) -> c_int {
    guard(-1, || {
        // SAFETY: our caller's promise.
        let faults = unsafe { CStr::from_ptr(faults) }.to_str().map_err(|_| Errno::INVAL)?;
        let faults: Faults = faults.parse().map_err(|_| Errno::INVAL)?;
        device()?.inject(&faults);
        Ok(0)
    })
}

//! C functions for tests and measurements in the same process. Find them with `dlsym(RTLD_DEFAULT, ...)`: they are there when the
//! library is preloaded.

use core::ffi::{CStr, c_char, c_int};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::dump;
use crate::emulation::{self, FILES, OpenFile};
use crate::errno::{contain, guard};

/// What the device has done so far, and what there is now; as `emulator::Counters`, and what the library counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EmulatorCounters {
    /// Ioctls, refused ones included.
    pub ioctls: u64,
    /// VM_BIND ioctls, refused ones included.
    pub binds: u64,
    /// VM_BIND operations.
    pub ops: u64,
    /// Jobs that went through a bind queue.
    pub jobs: u64,
    /// Page-table pages now.
    pub table_pages: u64,
    /// Page-table pages that the kernel would have preallocated so far.
    pub preallocated_pages: u64,
    /// VM_BIND ioctls that had to wait for preallocated pages.
    pub throttled: u64,
    /// Page-table entries written so far.
    pub entries_written: u64,
    /// TLB flushes so far.
    pub flushes: u64,
    /// Buffer objects now.
    pub live_bos: u64,
    /// Jobs of the GPU so far.
    pub submits: u64,
    /// Nanoseconds that threads have spent in ioctls: what to take off a caller's time to have its own.
    pub ioctl_ns: u64,
}

/// Pages of a VM that continue each other. Bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EmulatorMapping {
    /// Address of the first page.
    pub va: u64,
    /// Length.
    pub len: u64,
    /// Which object it is: a number that the device never uses twice; 0 for null mappings.
    pub object: u64,
    /// Offset in the object.
    pub offset: u64,
    /// The object's GEM handle in the open file; 0 where it was closed, and for null mappings.
    pub handle: u32,
    /// Zero.
    pub pad: u32,
}

/// The open file behind a descriptor; -1: the one that was opened last, of those that are open.
fn file(fd: c_int) -> Result<Arc<OpenFile>, Errno> {
    if fd == -1 { FILES.last() } else { FILES.get(fd) }.ok_or(Errno::BADF)
}

/// `int tessera_emulator_counters(struct *out, size_t size)`: fills the first `size` bytes of `out` with the device's counters.
/// 0, or -1 with `errno` `ENODEV`: no node has been opened.
///
/// # Safety
/// `out` has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tessera_emulator_counters(out: *mut EmulatorCounters, size: usize) -> c_int {
    guard(-1, || {
        let emulation = emulation::get().ok_or(Errno::NODEV)?;
        let now = emulation.device().ok_or(Errno::NODEV)?.counters();
        let counters = EmulatorCounters {
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
            ioctl_ns: emulation.calls.nanoseconds(),
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
    out: *mut EmulatorMapping,
    count: usize,
) -> isize {
    guard(-1, || {
        let runs = file(fd)?.node.mappings(vm);
        for (i, run) in runs.iter().take(count).enumerate() {
            let (handle, offset) = run.bo.map_or((0, 0), |(handle, offset)| (handle.0, offset));
            let entry =
                EmulatorMapping { va: run.va, len: run.len, object: run.object, offset, handle, pad: 0 };
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
        let device = emulation::get().and_then(|emulation| emulation.device()).ok_or(Errno::NODEV)?;
        device.hold_jobs(hold != 0);
        Ok(0)
    })
}

/// `int tessera_emulator_single_out(uint32_t queue)`: only the jobs of this bind queue (msm: a submit queue, panthor: that of a VM) are
/// held or late from now on, so that others overtake them; with 0, all jobs. 0, or -1 with `errno` `ENODEV`: no node has been opened.
#[unsafe(no_mangle)]
pub extern "C" fn tessera_emulator_single_out(queue: u32) -> c_int {
    guard(-1, || {
        let device = emulation::get().and_then(|emulation| emulation.device()).ok_or(Errno::NODEV)?;
        device.single_out_jobs((queue != 0).then_some(queue));
        Ok(0)
    })
}

/// `int tessera_emulator_delay(uint32_t milliseconds)`: queued jobs run this much late from now on. 0, or -1 with `errno` `ENODEV`:
/// no node has been opened.
#[unsafe(no_mangle)]
pub extern "C" fn tessera_emulator_delay(milliseconds: u32) -> c_int {
    guard(-1, || {
        let device = emulation::get().and_then(|emulation| emulation.device()).ok_or(Errno::NODEV)?;
        device.delay_jobs(Duration::from_millis(milliseconds.into()));
        Ok(0)
    })
}

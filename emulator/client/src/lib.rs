//! The emulated node as `libtessera_emulator.so` shows it to the process that it is preloaded into: the structures and types of the
//! library's C functions, which it builds on too, and a safe way to them.

use core::ffi::{CStr, c_char, c_int, c_void};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What the device has done so far, and what there is now.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
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

/// The library's functions: `tessera_emulator_` and the name of the field.
#[derive(Clone, Copy)]
pub struct Functions {
    /// Fills the first `size` bytes of `out`. 0, or -1 with `errno` `ENODEV`: no node has been opened.
    pub counters: unsafe extern "C" fn(out: *mut Counters, size: usize) -> c_int,
    /// Calls of an ioctl, by its command number.
    pub calls: extern "C" fn(command: u8) -> u64,
    /// Writes a line to the log.
    pub mark: unsafe extern "C" fn(text: *const c_char),
    /// Fills at most `count` entries of what a VM's page table maps, and returns how many there are; -1 with `errno` `EBADF`.
    pub mappings: unsafe extern "C" fn(fd: c_int, vm: u32, out: *mut Mapping, count: usize) -> isize,
    /// Appends page tables to a file. 0, or -1 with `errno`.
    pub dump: unsafe extern "C" fn(fd: c_int, path: *const c_char) -> c_int,
    /// Keeps queued jobs from running. 0, or -1 with `errno`.
    pub hold: extern "C" fn(hold: c_int) -> c_int,
    /// Has one bind queue alone be held or late; 0: all. 0, or -1 with `errno`.
    pub single_out: extern "C" fn(queue: u32) -> c_int,
    /// Lets queued jobs run late. 0, or -1 with `errno`.
    pub delay: extern "C" fn(milliseconds: u32) -> c_int,
    /// Injects faults. 0, or -1 with `errno`.
    pub fail: unsafe extern "C" fn(faults: *const c_char) -> c_int,
}

/// The library in this process.
#[derive(Clone, Copy)]
pub struct Emulator(Functions);

fn function<F: Copy>(name: &CStr) -> Option<F> {
    // SAFETY: a look-up by name in what the process has loaded.
    let found: *mut c_void = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    // SAFETY: callers name the type of the library's function; both are pointers.
    (!found.is_null()).then(|| unsafe { core::mem::transmute_copy(&found) })
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The number by which the library knows a file; none: the one that was opened last.
fn number(file: Option<BorrowedFd<'_>>) -> c_int {
    file.map_or(-1, |file| file.as_raw_fd())
}

impl Emulator {
    /// `None`: it is not loaded.
    pub fn find() -> Option<Self> {
        Some(Self(Functions {
            counters: function(c"tessera_emulator_counters")?,
            calls: function(c"tessera_emulator_calls")?,
            mark: function(c"tessera_emulator_mark")?,
            mappings: function(c"tessera_emulator_mappings")?,
            dump: function(c"tessera_emulator_dump")?,
            hold: function(c"tessera_emulator_hold")?,
            single_out: function(c"tessera_emulator_single_out")?,
            delay: function(c"tessera_emulator_delay")?,
            fail: function(c"tessera_emulator_fail")?,
        }))
    }

    /// All zero as long as no node has been opened.
    pub fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        // SAFETY: as many bytes as are said.
        unsafe { (self.0.counters)(&mut counters, size_of::<Counters>()) };
        counters
    }

    /// Calls of an ioctl so far, refused ones included, by its command number (such as 0x4d for msm's VM_BIND).
    pub fn calls(&self, command: u8) -> u64 {
        (self.0.calls)(command)
    }

    /// Writes a line to the log. What is behind a zero byte is left out.
    pub fn mark(&self, text: &str) {
        let text = CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default();
        // SAFETY: a C string.
        unsafe { (self.0.mark)(text.as_ptr()) };
    }

    /// What the page table of a VM maps, in order of address, with pages of continuing content joined. `file`: an open file of the
    /// node; none: the one that was opened last, of those that are open. `vm`: the VM's number on that file, which for msm is 1.
    ///
    /// `EBADF`: no such file.
    pub fn mappings(&self, file: Option<BorrowedFd<'_>>, vm: u32) -> io::Result<Vec<Mapping>> {
        let mut list = Vec::new();
        loop {
            // SAFETY: room for as many as are said.
            let count = unsafe { (self.0.mappings)(number(file), vm, list.as_mut_ptr(), list.len()) };
            let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
            if count <= list.len() {
                list.truncate(count);
                return Ok(list);
            }
            list.resize(count, Mapping::default());
        }
    }

    /// Keeps queued jobs from running, until they are let go. `ENODEV`: no node has been opened.
    pub fn hold(&self, hold: bool) -> io::Result<()> {
        check((self.0.hold)(hold.into()))
    }

    /// Only the jobs of this bind queue (msm: a submit queue, panthor: that of a VM) are held or late from now on, so that others
    /// overtake them; without one, all jobs. `ENODEV`: no node has been opened.
    pub fn single_out(&self, queue: Option<u32>) -> io::Result<()> {
        check((self.0.single_out)(queue.unwrap_or(0)))
    }

    /// Queued jobs run this much late from now on, in whole milliseconds. `ENODEV`: no node has been opened.
    pub fn delay(&self, delay: Duration) -> io::Result<()> {
        check((self.0.delay)(u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)))
    }

    /// The N-th of what comes from now on fails: `alloc:N`, `op:N`, `ioctl:N`, `job:N`, with commas, in place of what was asked for
    /// before. `EINVAL`: no such faults. `ENODEV`: no node has been opened.
    pub fn fail(&self, faults: &str) -> io::Result<()> {
        let faults = CString::new(faults)?;
        // SAFETY: a C string.
        check(unsafe { (self.0.fail)(faults.as_ptr()) })
    }
}

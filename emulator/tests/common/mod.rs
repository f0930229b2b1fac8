//! What the tests of every driver share: address space of their own, looks at memory that do not crash, raw ioctls.

pub(crate) mod world;

use core::ffi::c_void;
use core::ops::Range;
use core::ptr::null_mut;
use std::os::fd::OwnedFd;

use kmd::{BufferObject, Errno, Node, Request};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

pub(crate) const PAGE: u64 = 4096;
pub(crate) const HUGE: u64 = 2 << 20;

/// Pages that continue each other: address (from the window on), length, object handle and offset.
pub(crate) type Run = (u64, u64, Option<(u32, u64)>);

/// Address space of the test's own, at a multiple of 2 MiB.
pub(crate) struct Reservation {
    mapped: *mut c_void,
    mapped_len: usize,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

// SAFETY: plain address space, which belongs to whoever holds the value.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    pub(crate) fn new(len: u64) -> Self {
        let mapped_len = (len + HUGE) as usize;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping.
        let mapped = unsafe { mmap_anonymous(null_mut(), mapped_len, ProtFlags::empty(), flags).unwrap() };
        let start = (mapped.addr() as u64).next_multiple_of(HUGE);
        Self { mapped, mapped_len, start, len }
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.start..self.start + self.len
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: our own, and nobody keeps pointers into it.
        unsafe { munmap(self.mapped, self.mapped_len).unwrap() };
    }
}

pub(crate) fn fill(bo: &BufferObject, tag: u64) {
    let map = bo.map().unwrap();
    for page in 0..bo.size() / PAGE {
        // SAFETY: within the mapping.
        unsafe { map.as_ptr().add((page * PAGE) as usize).cast::<u64>().write_volatile(tag + page) };
    }
}

/// The word at an address; nothing when a load there would fault.
pub(crate) fn peek(va: u64) -> Option<u64> {
    let mut word = [0u8; 8];
    let local = libc::iovec { iov_base: word.as_mut_ptr().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: va as *mut c_void, iov_len: 8 };
    // SAFETY: writes only `word`; the kernel checks the other address.
    let n = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    match n {
        8 => Some(u64::from_ne_bytes(word)),
        -1 => {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EFAULT));
            None
        }
        n => panic!("{n} of 8 bytes read"),
    }
}

/// Stores a word; `false` when that would fault. Goes through a pipe, as process_vm_writev ignores protection.
pub(crate) fn poke(va: u64, word: u64) -> bool {
    let (mut ends, bytes) = ([0; 2], word.to_ne_bytes());
    // SAFETY: plain calls on descriptors made here; read(2) answers EFAULT where it cannot store.
    unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        assert_eq!(libc::write(ends[1], bytes.as_ptr().cast(), 8), 8);
        let n = libc::read(ends[0], va as *mut c_void, 8);
        libc::close(ends[0]);
        libc::close(ends[1]);
        n == 8
    }
}

/// An ioctl without `kmd`'s retries and checks.
pub(crate) fn ioctl<R: Request>(node: &dyn Node, arg: &mut R) -> Result<(), Errno> {
    // SAFETY: the tests pass structures whose pointers are valid, or values that the node refuses.
    unsafe { node.ioctl(R::REQUEST, (&raw mut *arg).cast()) }
}

/// A memfd of `len` bytes and a shared mapping of it.
pub(crate) fn shared_memory(len: u64) -> (OwnedFd, u64) {
    let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping.
    let at = unsafe { rustix::mm::mmap(null_mut(), len as usize, prot, MapFlags::SHARED, &fd, 0).unwrap() };
    (fd, at.addr() as u64)
}

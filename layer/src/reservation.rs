//! Ranges of the process's address space that belong to nobody else.

use core::ffi::c_void;
use core::ptr::null_mut;
use gpuvm::VaRange;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// A reserved range: inaccessible until something is mapped into it, given back when dropped with whatever is mapped there.
pub struct Reservation(VaRange);

impl Reservation {
    /// Reserves `len` bytes (whole pages) at a multiple of `alignment`, a power of two.
    pub fn new(len: u64, alignment: u64) -> Option<Self> {
        let padded = usize::try_from(len.checked_add(alignment)?).ok()?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping where the kernel finds room.
        let start = unsafe { mmap_anonymous(null_mut(), padded, ProtFlags::empty(), flags) }.ok()? as u64;
        let aligned = start.next_multiple_of(alignment);
        // SAFETY: head and tail of the mapping just made; a failure leaves address space unused, no more.
        unsafe {
            let _ = unmap(start, aligned - start);
            let _ = unmap(aligned + len, start + padded as u64 - (aligned + len));
        }
        Some(Self(VaRange { start: aligned, len }))
    }

    pub fn range(&self) -> VaRange {
        self.0
    }
}

/// # Safety
/// The range belongs to the caller.
unsafe fn unmap(start: u64, len: u64) -> rustix::io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe { munmap(start as usize as *mut c_void, len as usize) }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: reserved in `new`, and whoever put something there is done with it.
        if let Err(error) = unsafe { unmap(self.0.start, self.0.len) } {
            tracing::error!("a reserved range could not be given back: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_aligned_and_apart() {
        let a = Reservation::new(3 << 16, 2 << 20).unwrap().range();
        let (b, c) =
            (Reservation::new(1 << 30, 1 << 16).unwrap(), Reservation::new(1 << 16, 1 << 16).unwrap());
        assert_eq!(a.start % (2 << 20), 0);
        assert_eq!(b.range().start % (1 << 16), 0);
        assert!(!b.range().intersects(c.range()));
        assert!(Reservation::new(u64::MAX, 1 << 16).is_none());
    }
}

//! What buffer objects are made of: ranges of memfds, or somebody else's shared mapping.

use core::ffi::c_void;
use core::ptr::null_mut;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mprotect, mremap, munmap};

use super::ranges::Ranges;
use super::{HUGE_PAGE, PAGE, procmap};
use crate::drm::fd::identity;

/// The arena grows in steps of this size, in bytes.
const ARENA_STEP: u64 = 64 << 20;
/// Objects of at least this size start at a multiple of it, so that equal offsets stay mergeable; larger ones at 2 MiB.
const MEDIUM: u64 = 64 << 10;

/// Where mappings go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Where the kernel likes.
    Anywhere,
    /// Exactly there, over what is mapped there.
    Fixed(u64),
}

/// One growing memfd that is cut into many buffer objects: few descriptors, many objects.
pub(crate) struct Arena {
    fd: OwnedFd,
    file: (u64, u64),
    state: Mutex<ArenaState>,
}

struct ArenaState {
    ranges: Ranges,
    size: u64,
    /// Freed ranges that a CPU mapping still shows: reusing them would show a new object through an old pointer.
    quarantine: Vec<Quarantined>,
}

struct Quarantined {
    offset: u64,
    len: u64,
    cpu: Vec<(u64, u64)>,
}

impl Arena {
    pub(crate) fn new() -> Result<Self, Errno> {
        let fd = memfd_create("tessera-arena", MemfdFlags::CLOEXEC)?;
        let file = identity(fd.as_fd())?;
        let state = ArenaState { ranges: Ranges::new(0, i64::MAX as u64), size: 0, quarantine: Vec::new() };
        Ok(Self { fd, file, state: Mutex::new(state) })
    }

    /// Device and inode of the memfd.
    pub(crate) fn file(&self) -> (u64, u64) {
        self.file
    }

    /// A zeroed range of `len` bytes (a multiple of the page size).
    fn alloc(&self, len: u64) -> Result<u64, Errno> {
        let mut state = self.state.lock();
        for q in core::mem::take(&mut state.quarantine) {
            self.retire(&mut state, q);
        }
        let align = match len {
            HUGE_PAGE.. => HUGE_PAGE,
            MEDIUM.. => MEDIUM,
            _ => PAGE,
        };
        let offset = state.ranges.alloc(len, align).ok_or(Errno::NOMEM)?;
        let end = state.ranges.end();
        if end > state.size {
            let size = end.checked_next_multiple_of(ARENA_STEP).ok_or(Errno::NOMEM)?;
            if let Err(errno) = ftruncate(&self.fd, size) {
                state.ranges.free(offset, len);
                return Err(if errno == Errno::FBIG { Errno::NOMEM } else { errno });
            }
            state.size = size;
        }
        Ok(offset)
    }

    /// Takes a range back. `cpu`: address and length of the mappings that were handed out for it.
    fn free(&self, offset: u64, len: u64, cpu: Vec<(u64, u64)>) {
        let mut state = self.state.lock();
        self.retire(&mut state, Quarantined { offset, len, cpu });
    }

    /// Makes a freed range available, unless some CPU mapping still shows it.
    fn retire(&self, state: &mut ArenaState, mut q: Quarantined) {
        q.cpu.retain(|&(at, len)| {
            [at, at + len - PAGE].into_iter().filter_map(procmap::find).any(|vma| {
                let end = vma.offset + (vma.end - vma.start);
                vma.file == self.file && vma.offset < q.offset + q.len && q.offset < end
            })
        });
        if !q.cpu.is_empty() {
            state.quarantine.push(q);
            return;
        }
        // New objects read zero, and freed memory goes back to the system.
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.fd, punch, q.offset, q.len) {
            Ok(()) => state.ranges.free(q.offset, q.len),
            Err(error) => {
                tracing::error!(%error, q.offset, q.len, "cannot clear freed memory: it is not used again")
            }
        }
    }
}

/// A duplicate of a shared mapping of this process, which keeps its memory alive when no descriptor is to be had.
pub(crate) struct Duplicate {
    at: u64,
    len: u64,
}

impl Duplicate {
    /// Duplicates `len` bytes at `at`.
    ///
    /// # Safety
    /// A shared mapping starts at `at` or covers it, and its file reaches that far.
    pub(crate) unsafe fn of(at: u64, len: u64) -> Result<Self, Errno> {
        // SAFETY: an old size of zero duplicates a shared mapping (mremap(2)) and leaves the old one alone.
        let copy = unsafe { mremap(at as *mut c_void, 0, len as usize, MremapFlags::MAYMOVE)? };
        Ok(Self { at: copy.addr() as u64, len })
    }
}

impl Drop for Duplicate {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nobody got a pointer into it, only duplicates of it.
        if let Err(error) = unsafe { munmap(self.at as *mut c_void, self.len as usize) } {
            tracing::warn!(%error, "a duplicate mapping stays");
        }
    }
}

/// The memory of one buffer object.
pub(crate) enum Backing {
    /// A range of the device's arena.
    Arena { arena: Arc<Arena>, offset: u64, len: u64, cpu: Mutex<Vec<(u64, u64)>> },
    /// A file, from `offset` on.
    File { fd: Arc<OwnedFd>, offset: u64 },
    /// A mapping without a descriptor.
    Duplicate(Duplicate),
}

impl Backing {
    pub(crate) fn in_arena(arena: &Arc<Arena>, len: u64) -> Result<Self, Errno> {
        let offset = arena.alloc(len)?;
        Ok(Self::Arena { arena: arena.clone(), offset, len, cpu: Mutex::default() })
    }

    /// A memfd of its own, which can be exported.
    pub(crate) fn own_file(len: u64) -> Result<Self, Errno> {
        let fd = memfd_create("tessera-bo", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, len).map_err(|errno| if errno == Errno::FBIG { Errno::NOMEM } else { errno })?;
        Ok(Self::File { fd: Arc::new(fd), offset: 0 })
    }

    /// A memfd of its own that starts with `content`.
    pub(crate) fn with_content(len: u64, content: &[u8]) -> Result<Self, Errno> {
        let backing = Self::own_file(len)?;
        if let Self::File { fd, .. } = &backing {
            rustix::io::pwrite(fd, content, 0)?;
        }
        Ok(backing)
    }

    /// Maps `len` bytes from `offset` on, shared.
    ///
    /// # Safety
    /// With [`Place::Fixed`], what is mapped there now is the caller's to replace.
    pub(crate) unsafe fn map(
        &self,
        place: Place,
        offset: u64,
        len: u64,
        readonly: bool,
    ) -> Result<*mut u8, Errno> {
        let (at, flags) = match place {
            Place::Anywhere => (null_mut(), MapFlags::SHARED),
            Place::Fixed(at) => (at as *mut c_void, MapFlags::SHARED | MapFlags::FIXED),
        };
        let prot = if readonly { ProtFlags::READ } else { ProtFlags::READ | ProtFlags::WRITE };
        let (fd, base) = match self {
            Self::Arena { arena, offset, .. } => (arena.fd.as_fd(), *offset),
            Self::File { fd, offset } => (fd.as_fd(), *offset),
            // SAFETY: as ours.
            Self::Duplicate(duplicate) => return unsafe { duplicate.map(place, offset, len, readonly) },
        };
        // SAFETY: a file mapping, anywhere or over memory that the caller gave up.
        let mapped = unsafe { mmap(at, len as usize, prot, flags, fd, base + offset)? };
        if let (Place::Anywhere, Self::Arena { cpu, .. }) = (place, self) {
            cpu.lock().push((mapped.addr() as u64, len.next_multiple_of(PAGE)));
        }
        Ok(mapped.cast())
    }
}

impl Duplicate {
    /// # Safety
    /// As [`Backing::map`].
    unsafe fn map(&self, place: Place, offset: u64, len: u64, readonly: bool) -> Result<*mut u8, Errno> {
        let from = (self.at + offset) as *mut c_void;
        let mapped = match place {
            // SAFETY: an old size of zero duplicates a shared mapping, at a place that the kernel finds.
            Place::Anywhere => unsafe { mremap(from, 0, len as usize, MremapFlags::MAYMOVE)? },
            Place::Fixed(at) => {
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                // SAFETY: as above, over memory that the caller gave up. (rustix passes MAP_FIXED for MREMAP_FIXED here.)
                let mapped = unsafe { libc::mremap(from, 0, len as usize, flags, at as *mut c_void) };
                if mapped == libc::MAP_FAILED {
                    return Err(
                        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOMEM)
                    );
                }
                mapped
            }
        };
        if readonly {
            // SAFETY: the mapping made above.
            if let Err(error) = unsafe { mprotect(mapped, len as usize, rustix::mm::MprotectFlags::READ) } {
                tracing::warn!(%error, "a read-only map of host memory stays writable");
            }
        }
        Ok(mapped.cast())
    }
}

impl Drop for Backing {
    fn drop(&mut self) {
        if let Self::Arena { arena, offset, len, cpu } = self {
            arena.free(*offset, *len, core::mem::take(cpu.get_mut()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(backing: &Backing, len: u64, value: u8) {
        // SAFETY: a mapping of our own, unmapped before anything else.
        unsafe {
            let at = backing.map(Place::Anywhere, 0, len, false).unwrap();
            at.write_bytes(value, len as usize);
            munmap(at.cast(), len as usize).unwrap();
        }
    }

    fn bytes(backing: &Backing, len: u64) -> Vec<u8> {
        // SAFETY: as in `fill`.
        unsafe {
            let at = backing.map(Place::Anywhere, 0, len, true).unwrap();
            let bytes = core::slice::from_raw_parts(at, len as usize).to_vec();
            munmap(at.cast(), len as usize).unwrap();
            bytes
        }
    }

    #[test]
    fn freed_memory_comes_back_zeroed() {
        let arena = Arc::new(Arena::new().unwrap());
        let a = Backing::in_arena(&arena, 3 * PAGE).unwrap();
        fill(&a, 3 * PAGE, 0xab);
        drop(a);
        let b = Backing::in_arena(&arena, 3 * PAGE).unwrap();
        let Backing::Arena { offset, .. } = &b else { unreachable!() };
        assert_eq!(*offset, 0);
        assert_eq!(bytes(&b, 3 * PAGE), vec![0; 3 * PAGE as usize]);
    }

    #[test]
    fn a_range_that_is_still_mapped_is_not_reused() {
        let arena = Arc::new(Arena::new().unwrap());
        let a = Backing::in_arena(&arena, PAGE).unwrap();
        // SAFETY: a mapping of our own, unmapped below.
        let at = unsafe { a.map(Place::Anywhere, 0, PAGE, false).unwrap() };
        drop(a);
        let b = Backing::in_arena(&arena, PAGE).unwrap();
        assert!(matches!(&b, Backing::Arena { offset, .. } if *offset == PAGE));
        // SAFETY: mapped above, not used any more.
        unsafe { munmap(at.cast(), PAGE as usize).unwrap() };
        let c = Backing::in_arena(&arena, PAGE).unwrap();
        assert!(matches!(&c, Backing::Arena { offset: 0, .. }));
    }

    #[test]
    fn large_objects_allow_2m_entries() {
        let arena = Arc::new(Arena::new().unwrap());
        let _small = Backing::in_arena(&arena, PAGE).unwrap();
        let large = Backing::in_arena(&arena, 3 * HUGE_PAGE).unwrap();
        assert!(matches!(&large, Backing::Arena { offset, .. } if offset % HUGE_PAGE == 0));
    }
}

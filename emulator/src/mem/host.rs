//! Finds what is behind shared memory of this process, so that it can be mapped a second time elsewhere.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::backing::{Backing, Duplicate};
use super::{PAGE, procmap};
use crate::drm::fd::identity;

/// Why host memory cannot become a buffer object. Addresses and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The range does not start at a page, or is empty, or wraps around.
    #[error("host memory at {addr:#x} (+{len:#x}) is no page-aligned, non-empty range")]
    Range {
        /// Start of the range.
        addr: u64,
        /// Length of the range.
        len: u64,
    },
    /// Nothing is mapped at an address of the range.
    #[error("host memory is not mapped at {addr:#x}")]
    Unmapped {
        /// The first such address.
        addr: u64,
    },
    /// The memory is private to its mapping: no second mapping of it can exist.
    #[error("host memory at {addr:#x} is a private mapping, which cannot be mapped a second time")]
    Private {
        /// The first such address.
        addr: u64,
    },
    /// The range is made of several files, or of pieces of one that do not follow each other.
    #[error("host memory at {addr:#x} does not continue the file behind the range before it")]
    Scattered {
        /// Where it breaks.
        addr: u64,
    },
    /// The memory belongs to a buffer object of this device already.
    #[error("host memory at {addr:#x} is a buffer object of this device")]
    OwnObject {
        /// Start of the range.
        addr: u64,
    },
    /// The system refused.
    #[error("host memory cannot be imported: {0}")]
    Os(#[from] Errno),
}

/// Descriptors of files behind host memory, shared by the objects that use them and closed with the last.
#[derive(Default)]
pub(crate) struct Importer(Mutex<HashMap<(u64, u64), Weak<OwnedFd>>>);

impl Importer {
    /// The backing behind `len` bytes at `addr`. `own`: the file of the device's arena.
    pub(crate) fn import(
        &self,
        addr: u64,
        len: u64,
        own: Option<(u64, u64)>,
    ) -> Result<Backing, ImportError> {
        let end = addr.checked_add(len).filter(|_| addr % PAGE == 0 && len > 0);
        let end = end.ok_or(ImportError::Range { addr, len })?.next_multiple_of(PAGE);
        let vma = Self::span(addr, end)?;
        if Some(vma.file) == own {
            return Err(ImportError::OwnObject { addr });
        }
        let offset = vma.offset + (addr - vma.start);
        match self.descriptor(vma.file) {
            Some(fd) => Ok(Backing::File { fd, offset }),
            // SAFETY: `span` found shared mappings of one file, in line, over the whole range.
            None => Ok(Backing::Duplicate(unsafe { Duplicate::of(addr, end - addr)? })),
        }
    }

    /// The first mapping of the range, after a check that the others continue it.
    fn span(addr: u64, end: u64) -> Result<procmap::Vma, ImportError> {
        let first = procmap::find(addr).ok_or(ImportError::Unmapped { addr })?;
        let mut vma = first;
        loop {
            let at = vma.start.max(addr);
            if !vma.shared {
                return Err(ImportError::Private { addr: at });
            }
            if vma.file != first.file || vma.offset.wrapping_sub(first.offset) != vma.start - first.start {
                return Err(ImportError::Scattered { addr: at });
            }
            if vma.end >= end {
                return Ok(first);
            }
            vma = procmap::find(vma.end).ok_or(ImportError::Unmapped { addr: vma.end })?;
        }
    }

    /// A descriptor of `file` that can be mapped writable, if this process has one open.
    fn descriptor(&self, file: (u64, u64)) -> Option<Arc<OwnedFd>> {
        let mut known = self.0.lock();
        if let Some(fd) = known.get(&file).and_then(Weak::upgrade) {
            return Some(fd);
        }
        known.retain(|_, fd| fd.strong_count() > 0);
        let fd = Arc::new(scan(file)?);
        known.insert(file, Arc::downgrade(&fd));
        Some(fd)
    }
}

/// Looks through this process's descriptors for one of `file`, and duplicates it.
fn scan(file: (u64, u64)) -> Option<OwnedFd> {
    let usable = |fd: BorrowedFd<'_>| {
        identity(fd) == Ok(file)
            && rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
    };
    let names = std::fs::read_dir("/proc/self/fd").ok()?.filter_map(Result::ok);
    names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find_map(|raw: i32| {
        // SAFETY: only looked at and duplicated. If another thread closes it meanwhile, these calls fail, or they meet the
        // number's next owner, which the second look at the duplicate rejects.
        let fd = unsafe { BorrowedFd::borrow_raw(raw) };
        if !usable(fd) {
            return None;
        }
        let twin = rustix::io::fcntl_dupfd_cloexec(fd, 0).ok()?;
        usable(twin.as_fd()).then_some(twin)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::backing::Place;
    use core::ffi::c_void;
    use core::ptr::null_mut;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

    const RW: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

    fn memfd(pages: u64) -> OwnedFd {
        let fd = memfd_create("import-test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, pages * PAGE).unwrap();
        fd
    }

    fn map(fd: &OwnedFd, at: *mut c_void, pages: u64, offset: u64) -> u64 {
        let flags = if at.is_null() { MapFlags::SHARED } else { MapFlags::SHARED | MapFlags::FIXED };
        // SAFETY: a new mapping, or one over a reservation of the test's own.
        unsafe { mmap(at, (pages * PAGE) as usize, RW, flags, fd, offset * PAGE).unwrap().addr() as u64 }
    }

    /// Writes through the host address, reads through the backing.
    fn check(backing: &Backing, host: u64, len: u64) {
        for page in 0..len / PAGE {
            // SAFETY: the test's own shared mapping.
            unsafe { ((host + page * PAGE) as *mut u64).write_volatile(0x5eed + page) };
        }
        // SAFETY: a new mapping, read and unmapped here.
        unsafe {
            let at = backing.map(Place::Anywhere, 0, len, true).unwrap();
            for page in 0..len / PAGE {
                assert_eq!(at.add((page * PAGE) as usize).cast::<u64>().read_volatile(), 0x5eed + page);
            }
            munmap(at.cast(), len as usize).unwrap();
        }
    }

    #[test]
    fn finds_the_descriptor_and_keeps_it() {
        let fd = memfd(8);
        let at = map(&fd, null_mut(), 6, 2);
        let importer = Importer::default();
        let backing = importer.import(at + PAGE, 2 * PAGE, None).unwrap();
        assert!(matches!(&backing, Backing::File { offset, .. } if *offset == 3 * PAGE));
        let again = importer.import(at, PAGE, None).unwrap();
        let (Backing::File { fd: a, .. }, Backing::File { fd: b, .. }) = (&backing, &again) else { panic!() };
        assert!(Arc::ptr_eq(a, b));
        drop(fd);
        check(&backing, at + PAGE, 2 * PAGE);
    }

    #[test]
    fn duplicates_what_has_no_descriptor() {
        let fd = memfd(4);
        let at = map(&fd, null_mut(), 4, 0);
        drop(fd);
        let backing = Importer::default().import(at, 4 * PAGE, None).unwrap();
        assert!(matches!(backing, Backing::Duplicate(_)));
        check(&backing, at, 4 * PAGE);

        // SAFETY: a new shared anonymous mapping.
        let anon = unsafe { mmap_anonymous(null_mut(), 3 * PAGE as usize, RW, MapFlags::SHARED).unwrap() };
        let backing = Importer::default().import(anon.addr() as u64, 3 * PAGE, None).unwrap();
        check(&backing, anon.addr() as u64, 3 * PAGE);
    }

    #[test]
    fn spans_mappings_in_line_and_refuses_others() {
        let (fd, other) = (memfd(8), memfd(8));
        let at = map(&fd, null_mut(), 6, 0);
        // The same pages again: the kernel keeps them apart because their protection differs for a moment.
        let second = (at + 2 * PAGE) as *mut c_void;
        // SAFETY: part of the mapping above.
        unsafe { rustix::mm::mprotect(second, PAGE as usize, rustix::mm::MprotectFlags::READ).unwrap() };
        let importer = Importer::default();
        assert!(matches!(importer.import(at, 6 * PAGE, None), Ok(Backing::File { offset: 0, .. })));
        map(&fd, second, 1, 5);
        let broken = at + 2 * PAGE;
        assert_eq!(importer.import(at, 6 * PAGE, None).err(), Some(ImportError::Scattered { addr: broken }));
        map(&other, second, 1, 2);
        assert_eq!(importer.import(at, 6 * PAGE, None).err(), Some(ImportError::Scattered { addr: broken }));
        assert!(importer.import(at, 2 * PAGE, None).is_ok());
    }

    #[test]
    fn refuses_private_and_missing_memory() {
        let importer = Importer::default();
        // SAFETY: a new private mapping of two pages, the second of which goes again.
        let at = unsafe {
            let at = mmap_anonymous(null_mut(), 2 * PAGE as usize, RW, MapFlags::PRIVATE).unwrap();
            munmap(at.byte_add(PAGE as usize), PAGE as usize).unwrap();
            at.addr() as u64
        };
        assert_eq!(importer.import(at, PAGE, None).err(), Some(ImportError::Private { addr: at }));
        assert_eq!(
            importer.import(at + 1, PAGE, None).err(),
            Some(ImportError::Range { addr: at + 1, len: PAGE })
        );
        assert_eq!(importer.import(at, 0, None).err(), Some(ImportError::Range { addr: at, len: 0 }));
        assert_eq!(importer.import(PAGE, PAGE, None).err(), Some(ImportError::Unmapped { addr: PAGE }));
        let fd = memfd(1);
        let file = identity(fd.as_fd()).unwrap();
        let shared = map(&fd, null_mut(), 1, 0);
        assert_eq!(
            importer.import(shared, PAGE, Some(file)).err(),
            Some(ImportError::OwnObject { addr: shared })
        );
    }
}

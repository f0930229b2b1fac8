//! GEM buffer objects: ownership of handles, CPU mappings, PRIME.
//!
//! Creating an object and asking where to map it are driver ioctls (see [`crate::panthor`]); the rest is DRM core.
//!
//! **Handles may alias.** A GEM handle is a number in one open file, without a reference count: importing a dma-buf of an
//! object that already has a handle in that file returns *that same number*, and closing it closes it for everybody. So
//! there are two types: [`BufferObject`] owns its handle and closes it, [`BorrowedObject`] is for a handle that belongs
//! to somebody else, such as a Vulkan driver on whose open file we work, and never closes it.

use crate::node::{Node, call};
use crate::uapi::drm;
use core::fmt;
use core::ptr::NonNull;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use std::sync::Arc;

/// A GEM handle: a small number that stands for an object in one open file. Zero is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GemHandle(pub u32);

/// Asks a driver for the fake file offset that maps an object.
pub type MmapOffset = fn(&dyn Node, GemHandle) -> Result<u64, Errno>;

/// A buffer object whose handle is ours: closed on drop.
///
/// The object itself lives on while a VM maps it, another handle or a dma-buf refers to it.
pub struct BufferObject {
    object: BorrowedObject,
}

impl BufferObject {
    /// Takes ownership of `handle`, an object of `size` bytes.
    ///
    /// Nobody else may close it: it must come from a create ioctl, or from an import that is known to be the object's
    /// only one in this file.
    pub fn from_handle(node: Arc<dyn Node>, handle: GemHandle, size: u64, mmap_offset: MmapOffset) -> Self {
        Self { object: BorrowedObject { node, handle, size, mmap_offset } }
    }

    /// Imports a dma-buf that this open file has no handle for yet.
    ///
    /// If it has one, two owners would close the same handle, and the kernel does not tell: use
    /// [`BorrowedObject::import`] on a file that is shared with a driver.
    pub fn import(
        node: Arc<dyn Node>,
        dma_buf: BorrowedFd<'_>,
        mmap_offset: MmapOffset,
    ) -> Result<Self, Errno> {
        Ok(Self { object: BorrowedObject::import(node, dma_buf, mmap_offset)? })
    }
}

impl fmt::Debug for BufferObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferObject").field("handle", &self.handle).field("size", &self.size).finish()
    }
}

impl core::ops::Deref for BufferObject {
    type Target = BorrowedObject;

    fn deref(&self) -> &BorrowedObject {
        &self.object
    }
}

impl Drop for BufferObject {
    fn drop(&mut self) {
        let mut arg = drm::GemClose { handle: self.object.handle.0, pad: 0 };
        // SAFETY: the argument holds no pointer.
        if let Err(errno) = unsafe { call(&*self.object.node, &mut arg) } {
            tracing::warn!(handle = arg.handle, %errno, "cannot close a GEM handle");
        }
    }
}

/// A buffer object whose handle belongs to somebody else: never closed here.
#[derive(Clone)]
pub struct BorrowedObject {
    node: Arc<dyn Node>,
    handle: GemHandle,
    size: u64,
    mmap_offset: MmapOffset,
}

impl BorrowedObject {
    /// Speaks about `handle`, an object of `size` bytes, without owning it.
    pub fn from_handle(node: Arc<dyn Node>, handle: GemHandle, size: u64, mmap_offset: MmapOffset) -> Self {
        Self { node, handle, size, mmap_offset }
    }

    /// Imports a dma-buf, as the handle that the object already has in this file if it has one.
    ///
    /// For a driver's own open file: what the driver exported comes back as the driver's own handle. If the import did
    /// make a new handle it stays open until the file is closed.
    pub fn import(
        node: Arc<dyn Node>,
        dma_buf: BorrowedFd<'_>,
        mmap_offset: MmapOffset,
    ) -> Result<Self, Errno> {
        // A dma-buf's size is the end that seek reports; the import ioctl does not say.
        let size = rustix::fs::seek(dma_buf, rustix::fs::SeekFrom::End(0))?;
        let mut arg = drm::PrimeFdToHandle(drm::PrimeHandle { handle: 0, flags: 0, fd: dma_buf.as_raw_fd() });
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*node, &mut arg)? };
        Ok(Self { node, handle: GemHandle(arg.0.handle), size, mmap_offset })
    }

    /// The handle.
    pub fn handle(&self) -> GemHandle {
        self.handle
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Exports the object as a dma-buf that may be mapped writable. Refused for an object that is private to a VM.
    pub fn export(&self) -> Result<OwnedFd, Errno> {
        let flags = drm::CLOEXEC | drm::RDWR;
        let mut arg = drm::PrimeHandleToFd(drm::PrimeHandle { handle: self.handle.0, flags, fd: -1 });
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*self.node, &mut arg)? };
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(arg.0.fd) })
    }

    /// Maps the whole object, shared, readable and writable.
    pub fn map(&self) -> Result<CpuMapping, Errno> {
        let len = usize::try_from(self.size).map_err(|_| Errno::NOMEM)?;
        let offset = (self.mmap_offset)(&*self.node, self.handle)?;
        // SAFETY: CpuMapping owns the new mapping, and every pointer into it is borrowed from that.
        let start = unsafe { self.node.mmap(offset, len)? };
        let start = NonNull::new(start).ok_or(Errno::NOMEM)?;
        Ok(CpuMapping { start, len })
    }
}

/// A CPU mapping of a buffer object: unmapped on drop. It outlives the handle.
pub struct CpuMapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and the pointer is only handed out raw.
unsafe impl Send for CpuMapping {}
// SAFETY: as above; whoever reads or writes through the pointer answers for data races, with the GPU as much as with threads.
unsafe impl Sync for CpuMapping {}

impl CpuMapping {
    /// The first byte. Valid for [`len`](Self::len) bytes while the mapping lives.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes; the kernel never makes such a mapping.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for CpuMapping {
    fn drop(&mut self) {
        // SAFETY: the range is a mapping of ours, and pointers into it must not outlive self.
        if let Err(errno) = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.len) } {
            tracing::warn!(%errno, "cannot unmap a buffer object");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;
    use crate::fake::{Fake, Seen};
    use rustix::fd::{AsFd, AsRawFd, IntoRawFd};

    fn no_offset(_: &dyn Node, _: GemHandle) -> Result<u64, Errno> {
        Err(Errno::INVAL)
    }

    /// A file with a size, in place of a dma-buf.
    fn file(size: u64) -> OwnedFd {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file.into()
    }

    #[test]
    fn import_takes_the_size_from_the_file() {
        let (fake, dma_buf) = (Fake::new(), file(0x3000));
        let fd = dma_buf.as_raw_fd();
        let answer = move |arg: &mut drm::PrimeFdToHandle| {
            assert_eq!(arg.0, drm::PrimeHandle { handle: 0, flags: 0, fd });
            arg.0.handle = 9;
            Ok(())
        };
        fake.expect(answer);
        let bo = BufferObject::import(fake.clone(), dma_buf.as_fd(), no_offset).unwrap();
        assert_eq!((bo.handle(), bo.size()), (GemHandle(9), 0x3000));
        fake.take();
        drop(bo);
        assert_eq!(fake.take(), [Seen::Other { request: drm::GemClose::REQUEST, words: vec![9, 0] }]);

        fake.expect(answer);
        let borrowed = BorrowedObject::import(fake.clone(), dma_buf.as_fd(), no_offset).unwrap();
        assert_eq!((borrowed.handle(), borrowed.size()), (GemHandle(9), 0x3000));
        fake.take();
        drop(borrowed);
        assert_eq!(fake.take(), [], "a borrowed handle is left alone");
    }

    #[test]
    fn export_returns_the_kernels_file() {
        let fake = Fake::new();
        let bo = BorrowedObject::from_handle(fake.clone(), GemHandle(2), 0x1000, no_offset);
        fake.expect(|arg: &mut drm::PrimeHandleToFd| {
            assert_eq!((arg.0.handle, arg.0.flags), (2, drm::CLOEXEC | drm::RDWR));
            arg.0.fd = file(0x1000).into_raw_fd();
            Ok(())
        });
        let exported = bo.export().unwrap();
        assert_eq!(rustix::fs::fstat(exported).unwrap().st_size, 0x1000);
        fake.expect(|_: &mut drm::PrimeHandleToFd| Err(Errno::INVAL));
        assert_eq!(bo.export().err(), Some(Errno::INVAL));
    }

    #[test]
    fn failed_offset_fails_the_mapping() {
        let bo = BorrowedObject::from_handle(Fake::new(), GemHandle(2), 0x1000, no_offset);
        assert_eq!(bo.map().err(), Some(Errno::INVAL));
    }
}

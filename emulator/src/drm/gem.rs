//! GEM: buffer objects, the handles of an open file, PRIME, fake mmap offsets.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::sync::{Arc, Weak};

use kmd::uapi::drm::{CLOEXEC, PrimeHandle, RDWR};
use parking_lot::Mutex;
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;

use super::fd::identity;
use super::ids::Ids;
use super::resv::Resv;
use super::{Device, File};
use crate::mem::backing::{Backing, Place};
use crate::mem::pagetable::MAX_OBJECT_PAGES;
use crate::mem::{HUGE_PAGE, PAGE};

/// What distinguishes an object besides its memory.
#[derive(Default)]
pub(crate) struct Attributes {
    /// The driver's creation flags.
    pub(crate) flags: u32,
    /// The only VM it may be mapped in.
    pub(crate) exclusive: Option<u64>,
    /// It came from another device.
    pub(crate) imported: bool,
    /// What the GPU still does with it; an object that belongs to a VM can share the VM's.
    pub(crate) resv: Arc<Resv>,
}

/// A buffer object. Handles, mappings in VMs and running operations refer to it; its memory goes with the last of them.
pub(crate) struct Object {
    /// Never used twice.
    pub(crate) id: u64,
    /// Bytes, a multiple of the page size.
    pub(crate) size: u64,
    pub(crate) attributes: Attributes,
    pub(crate) backing: Backing,
    /// What mmap on the node takes for it.
    pub(crate) fake_offset: u64,
    /// A name for debugging.
    pub(crate) label: Mutex<Option<CString>>,
    /// What its maker tells those who import it.
    pub(crate) metadata: Mutex<Vec<u8>>,
    device: Weak<Device>,
}

impl core::fmt::Debug for Object {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Object({}, {:#x} bytes)", self.id, self.size)
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        if let Some(device) = self.device.upgrade() {
            device.stats.live_bos.sub(1);
            device.objects.lock().forget(self);
        }
    }
}

/// Objects as a device knows them beyond handles.
pub(crate) struct Objects {
    /// Objects that have a file of their own, by device and inode.
    by_file: HashMap<(u64, u64), Weak<Object>>,
    by_offset: HashMap<u64, Weak<Object>>,
    offsets: crate::mem::ranges::Ranges,
    next: u64,
}

/// Fake offsets start behind 4 GiB, and there is 1 TiB of them.
const FAKE_OFFSETS: core::ops::Range<u64> = 1 << 32..(1 << 32) + (1 << 40);

impl Objects {
    pub(crate) fn new() -> Self {
        Self {
            by_file: HashMap::new(),
            by_offset: HashMap::new(),
            offsets: crate::mem::ranges::Ranges::new(FAKE_OFFSETS.start, FAKE_OFFSETS.end),
            next: 1,
        }
    }

    fn forget(&mut self, object: &Object) {
        self.offsets.free(object.fake_offset, object.size);
        // The entries may belong to a newer object already.
        if self.by_offset.get(&object.fake_offset).is_some_and(|o| o.strong_count() == 0) {
            self.by_offset.remove(&object.fake_offset);
        }
        self.by_file.retain(|_, o| o.strong_count() > 0);
    }
}

impl Device {
    /// A new object of `size` bytes over memory of its own. An object that no other VM and no other process can see lives in the
    /// shared arena.
    pub(crate) fn create_object(
        self: &Arc<Self>,
        size: u64,
        attributes: Attributes,
    ) -> Result<Arc<Object>, Errno> {
        // drm_vma_offset_add() is what refuses absurd sizes.
        let size = size.checked_next_multiple_of(PAGE).filter(|size| *size <= MAX_OBJECT_PAGES * PAGE);
        let size = size.ok_or(Errno::NOSPC)?;
        if self.faults.alloc.strikes() {
            return Err(Errno::NOMEM);
        }
        let backing = match attributes.exclusive {
            Some(_) => Backing::in_arena(&self.arena()?, size)?,
            None => Backing::own_file(size)?,
        };
        self.adopt(size, attributes, backing)
    }

    /// A new object over given memory.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        size: u64,
        attributes: Attributes,
        backing: Backing,
    ) -> Result<Arc<Object>, Errno> {
        let file = match &backing {
            Backing::File { fd, offset: 0 } if attributes.exclusive.is_none() => Some(identity(fd.as_fd())?),
            _ => None,
        };
        let mut objects = self.objects.lock();
        let align = if size >= HUGE_PAGE { HUGE_PAGE } else { PAGE };
        let fake_offset = objects.offsets.alloc(size, align).ok_or(Errno::NOSPC)?;
        let id = objects.next;
        objects.next += 1;
        let device = Arc::downgrade(self);
        let object = Arc::new(Object {
            id,
            size,
            attributes,
            backing,
            fake_offset,
            label: Mutex::default(),
            metadata: Mutex::default(),
            device,
        });
        objects.by_offset.insert(fake_offset, Arc::downgrade(&object));
        if let Some(file) = file {
            objects.by_file.entry(file).or_insert_with(|| Arc::downgrade(&object));
        }
        self.stats.live_bos.add(1);
        Ok(object)
    }

    /// The object whose dma-buf `fd` is; a foreign one becomes an imported object. `EINVAL`: no dma-buf.
    fn import(self: &Arc<Self>, fd: BorrowedFd<'_>) -> Result<Arc<Object>, Errno> {
        let file = identity(fd)?;
        if let Some(object) = self.objects.lock().by_file.get(&file).and_then(Weak::upgrade) {
            return Ok(object);
        }
        // Another device's dma-buf, or another process's: here, any file of shared memory.
        let stat = fstat(fd)?;
        let size = stat.st_size as u64 / PAGE * PAGE;
        let seals = rustix::fs::fcntl_get_seals(fd);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size == 0 || seals.is_err() {
            return Err(Errno::INVAL);
        }
        let fd = Arc::new(rustix::io::fcntl_dupfd_cloexec(fd, 0)?);
        let attributes = Attributes { imported: true, ..Attributes::default() };
        self.adopt(size, attributes, Backing::File { fd, offset: 0 })
    }
}

/// The GEM handles of an open file. An object has one handle at most, which is what PRIME promises.
pub(crate) struct Handles {
    ids: Ids<Arc<Object>>,
    by_object: HashMap<u64, u32>,
}

impl Handles {
    pub(crate) fn new() -> Self {
        Self { ids: Ids::new(u32::MAX - 1), by_object: HashMap::new() }
    }

    /// The object's handle: the one it has, or a new one.
    fn of(&mut self, object: Arc<Object>) -> Result<u32, Errno> {
        if let Some(handle) = self.by_object.get(&object.id) {
            return Ok(*handle);
        }
        let id = object.id;
        let handle = self.ids.insert(object).ok_or(Errno::NOSPC)?;
        self.by_object.insert(id, handle);
        Ok(handle)
    }

    /// The handle that an object has, if any.
    pub(crate) fn find(&self, object: &Object) -> Option<u32> {
        self.by_object.get(&object.id).copied()
    }

    /// Takes all objects out.
    pub(crate) fn drain(&mut self) -> Vec<Arc<Object>> {
        self.by_object.clear();
        self.ids.drain()
    }
}

impl File {
    /// Looks an object up.
    pub(crate) fn object(&self, handle: u32) -> Option<Arc<Object>> {
        self.handles.lock().ids.get(handle).cloned()
    }

    /// A handle for `object`.
    pub(crate) fn handle_of(&self, object: Arc<Object>) -> Result<u32, Errno> {
        self.handles.lock().of(object)
    }

    /// `DRM_IOCTL_GEM_CLOSE`. `closed` is told the object.
    pub(crate) fn close_handle(&self, handle: u32, closed: impl FnOnce(&Object)) -> Result<(), Errno> {
        let object = {
            let mut handles = self.handles.lock();
            let object = handles.ids.remove(handle).ok_or(Errno::INVAL)?;
            handles.by_object.remove(&object.id);
            object
        };
        closed(&object);
        // Freeing memory takes a while; nobody waits for it with the table locked.
        drop(object);
        Ok(())
    }

    /// `DRM_IOCTL_PRIME_HANDLE_TO_FD`.
    pub(crate) fn export(&self, args: &mut PrimeHandle) -> Result<(), Errno> {
        if args.flags & !(CLOEXEC | RDWR) != 0 {
            return Err(Errno::INVAL);
        }
        let object = self.object(args.handle).ok_or(Errno::NOENT)?;
        let fd = match &object.backing {
            Backing::File { fd, offset: 0 } if object.attributes.exclusive.is_none() => fd,
            _ if object.attributes.exclusive.is_some() => return Err(self.device.driver.export_private),
            // A part of somebody's file cannot be handed on as a whole dma-buf.
            _ => return Err(Errno::INVAL),
        };
        let cloexec = args.flags & CLOEXEC != 0;
        args.fd = if args.flags & RDWR != 0 {
            if cloexec { rustix::io::fcntl_dupfd_cloexec(fd, 0)? } else { rustix::io::dup(fd)? }
        } else {
            // A read-only dma-buf is another open file of the same memory.
            let flags = if cloexec { OFlags::CLOEXEC } else { OFlags::empty() };
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::open(path, OFlags::RDONLY | flags, rustix::fs::Mode::empty())?
        }
        .into_raw_fd();
        Ok(())
    }

    /// `DRM_IOCTL_PRIME_FD_TO_HANDLE`.
    pub(crate) fn import(&self, args: &mut PrimeHandle) -> Result<(), Errno> {
        let object = self.device.import(borrow(&args.fd)?)?;
        args.handle = self.handle_of(object)?;
        Ok(())
    }

    /// What mmap on the node does: `EINVAL` for an offset that is no object's or too long, `EACCES` when this file has no handle.
    ///
    /// # Safety
    /// With [`Place::Fixed`], what is mapped there now is the caller's to replace.
    pub(crate) unsafe fn mmap(&self, place: Place, offset: u64, len: u64) -> Result<*mut u8, Errno> {
        let object = self.device.objects.lock().by_offset.get(&offset).and_then(Weak::upgrade);
        let object = object.filter(|object| len.div_ceil(PAGE) * PAGE <= object.size).ok_or(Errno::INVAL)?;
        if self.handles.lock().find(&object).is_none() {
            return Err(Errno::ACCESS);
        }
        // SAFETY: as ours.
        unsafe { object.backing.map(place, 0, len, false) }
    }
}

/// A descriptor number from user space, borrowed for the length of an ioctl. `EBADF` when nothing is open there.
pub(crate) fn borrow(fd: &i32) -> Result<BorrowedFd<'_>, Errno> {
    if *fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: user space says that it is open. If it is not, every call on it fails with EBADF, which is the answer it gets.
    let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
    rustix::io::fcntl_getfd(fd)?;
    Ok(fd)
}

//! Memory and semaphores from and for elsewhere: file descriptors and host pointers.

use super::{Gpu, Owned};
use crate::outcome::{Called as _, Outcome, Stop, fail};
use ash::vk;
use rustix::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
use rustix::mm::{MapFlags, ProtFlags};
use std::alloc::Layout;

/// Host memory that a case imports.
pub(crate) struct HostPages {
    pointer: *mut u8,
    size: usize,
    /// Heap memory; else a shared mapping of a memfd.
    heap: bool,
}

/// What `HostPages` are aligned to: at least every `minImportedHostPointerAlignment` in practice.
const PAGE: usize = 65536;

impl HostPages {
    /// Pages of a memfd, mapped shared.
    pub(crate) fn shared(size: usize) -> Outcome<Self> {
        let system = |what: &str, errno: rustix::io::Errno| Stop::Fail(format!("{what}: {errno}"));
        let file = rustix::fs::memfd_create("tessera-suite", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|errno| system("memfd_create", errno))?;
        rustix::fs::ftruncate(&file, size as u64).map_err(|errno| system("ftruncate", errno))?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let pointer =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED, &file, 0) }
                .map_err(|errno| system("mmap", errno))?;
        Ok(Self { pointer: pointer.cast(), size, heap: false })
    }

    /// Pages from the allocator: private memory of the process.
    pub(crate) fn heap(size: usize) -> Outcome<Self> {
        let Ok(layout) = Layout::from_size_align(size, PAGE) else { fail!("no layout for {size} bytes") };
        // SAFETY: the size is not zero.
        let pointer = unsafe { std::alloc::alloc_zeroed(layout) };
        if pointer.is_null() {
            fail!("out of memory");
        }
        Ok(Self { pointer, size, heap: true })
    }

    /// All words.
    pub(crate) fn words(&self) -> Vec<u32> {
        let mut bytes = vec![0u8; self.size];
        // SAFETY: the pages are `size` bytes long and live as long as `self`.
        unsafe { self.pointer.copy_to_nonoverlapping(bytes.as_mut_ptr(), self.size) };
        super::memory::to_words(&bytes)
    }

    /// Writes words from the start on.
    pub(crate) fn write(&self, words: &[u32]) {
        let bytes = super::memory::to_bytes(words);
        assert!(bytes.len() <= self.size, "a case writes past its pages");
        // SAFETY: checked against the size of the pages.
        unsafe { self.pointer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

impl Drop for HostPages {
    fn drop(&mut self) {
        // SAFETY: the pages came from exactly this place; whoever imported them has freed its memory object.
        unsafe {
            if self.heap {
                std::alloc::dealloc(self.pointer, Layout::from_size_align_unchecked(self.size, PAGE));
            } else if let Err(errno) = rustix::mm::munmap(self.pointer.cast(), self.size) {
                eprintln!("munmap of a case's own pages: {errno}");
            }
        }
    }
}

/// Mappings that are used up for as long as this lives.
pub(crate) struct Burn {
    start: *mut std::ffi::c_void,
    size: usize,
}

impl Burn {
    /// Uses up mappings until `spare` of `limit` are left.
    pub(crate) fn new(limit: usize, spare: usize) -> Outcome<Self> {
        let used = std::fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count());
        let page = rustix::param::page_size();
        let system = |errno: rustix::io::Errno| Stop::Fail(format!("using up mappings: {errno}"));
        let size = limit.saturating_sub(used + spare).max(2) * page;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::empty(), MapFlags::PRIVATE)
        }
        .map_err(system)?;
        let this = Self { start, size };
        // Every second page with another protection: a mapping a page.
        for offset in (0..size).step_by(2 * page) {
            let flags = rustix::mm::MprotectFlags::READ;
            // SAFETY: the page is within the new mapping, which nobody else knows.
            unsafe { rustix::mm::mprotect(start.byte_add(offset), page, flags) }.map_err(system)?;
        }
        Ok(this)
    }
}

impl Drop for Burn {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's own.
        if let Err(errno) = unsafe { rustix::mm::munmap(self.start, self.size) } {
            eprintln!("munmap of used up mappings: {errno}");
        }
    }
}

impl Gpu {
    /// Imports host pages as memory. The pages have to outlive the memory.
    pub(crate) fn import_host(&self, pages: &HostPages, bits: u32) -> Outcome<vk::DeviceMemory> {
        let extension = ash::ext::external_memory_host::Device::new(&self.instance.raw, &self.raw);
        let ty = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        // SAFETY: the pointer is to live pages; the extension is enabled.
        unsafe {
            (extension.fp().get_memory_host_pointer_properties_ext)(
                self.raw.handle(),
                ty,
                pages.pointer.cast(),
                &mut properties,
            )
        }
        .result()
        .called("vkGetMemoryHostPointerPropertiesEXT")?;
        let bits = bits & properties.memory_type_bits;
        if bits == 0 {
            return Err(Stop::NotSupported("no memory type for both host pointer and resource".to_owned()));
        }
        let mut import =
            vk::ImportMemoryHostPointerInfoEXT::default().handle_type(ty).host_pointer(pages.pointer.cast());
        self.allocate(
            vk::MemoryAllocateInfo::default()
                .allocation_size(pages.size as u64)
                .memory_type_index(self.memory_type(bits)?)
                .push_next(&mut import),
        )
    }

    /// Exports memory as an opaque file descriptor.
    pub(crate) fn export_fd(&self, memory: vk::DeviceMemory) -> Outcome<OwnedFd> {
        let extension = ash::khr::external_memory_fd::Device::new(&self.instance.raw, &self.raw);
        let info = vk::MemoryGetFdInfoKHR::default()
            .memory(memory)
            .handle_type(vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD);
        // SAFETY: the memory was made exportable; the extension is enabled.
        let fd = unsafe { extension.get_memory_fd(&info) }.called("vkGetMemoryFdKHR")?;
        if fd < 0 {
            fail!("vkGetMemoryFdKHR succeeded with descriptor {fd}");
        }
        // SAFETY: the command hands over a descriptor of its own.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Imports memory from an opaque file descriptor of the same kind of memory.
    pub(crate) fn import_fd(&self, fd: OwnedFd, size: u64, bits: u32) -> Outcome<vk::DeviceMemory> {
        let fd = fd.into_raw_fd();
        let mut import = vk::ImportMemoryFdInfoKHR::default()
            .handle_type(vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD)
            .fd(fd);
        let result = self.allocate(
            vk::MemoryAllocateInfo::default()
                .allocation_size(size)
                .memory_type_index(self.memory_type(bits)?)
                .push_next(&mut import),
        );
        if result.is_err() {
            // SAFETY: a failed import leaves the descriptor with the application.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        result
    }

    /// Whether memory of buffers can be exported as an opaque descriptor and imported again.
    pub(crate) fn opaque_fd_memory(
        &self,
        flags: vk::BufferCreateFlags,
        usage: vk::BufferUsageFlags,
    ) -> Outcome {
        let ty = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
        let info = vk::PhysicalDeviceExternalBufferInfo::default().flags(flags).usage(usage).handle_type(ty);
        let mut properties = vk::ExternalBufferProperties::default();
        // SAFETY: the physical device is the instance's.
        unsafe {
            self.instance.raw.get_physical_device_external_buffer_properties(
                self.physical,
                &info,
                &mut properties,
            );
        }
        let features = properties.external_memory_properties.external_memory_features;
        let both = vk::ExternalMemoryFeatureFlags::EXPORTABLE | vk::ExternalMemoryFeatureFlags::IMPORTABLE;
        if features.contains(both) {
            Ok(())
        } else {
            Err(Stop::NotSupported(format!("opaque descriptors of buffers with {flags:?}: {features:?}")))
        }
    }

    /// Exports a semaphore as an opaque file descriptor and imports it into another device.
    ///
    /// # Errors
    /// `NotSupported` where the semaphore type cannot be shared.
    pub(crate) fn shared_timeline(&self, other: &Gpu) -> Outcome<(vk::Semaphore, vk::Semaphore)> {
        let ty = vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD;
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::PhysicalDeviceExternalSemaphoreInfo::default().handle_type(ty).push_next(&mut kind);
        let mut properties = vk::ExternalSemaphoreProperties::default();
        // SAFETY: the physical device is the instance's.
        unsafe {
            self.instance.raw.get_physical_device_external_semaphore_properties(
                self.physical,
                &info,
                &mut properties,
            );
        }
        let both =
            vk::ExternalSemaphoreFeatureFlags::EXPORTABLE | vk::ExternalSemaphoreFeatureFlags::IMPORTABLE;
        if !properties.external_semaphore_features.contains(both) {
            return Err(Stop::NotSupported(
                "timeline semaphores cannot be shared by opaque descriptor".to_owned(),
            ));
        }
        let mut export = vk::ExportSemaphoreCreateInfo::default().handle_types(ty);
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut export).push_next(&mut kind);
        // SAFETY: the chain lives until the call returns.
        let mine = unsafe { self.raw.create_semaphore(&info, None) }.called("vkCreateSemaphore")?;
        self.own(Owned::Semaphore(mine));
        let extension = ash::khr::external_semaphore_fd::Device::new(&self.instance.raw, &self.raw);
        let info = vk::SemaphoreGetFdInfoKHR::default().semaphore(mine).handle_type(ty);
        // SAFETY: the semaphore was made exportable; the extension is enabled on both devices.
        let fd = unsafe { extension.get_semaphore_fd(&info) }.called("vkGetSemaphoreFdKHR")?;
        let theirs = other.timeline(0)?;
        let extension = ash::khr::external_semaphore_fd::Device::new(&other.instance.raw, &other.raw);
        let info = vk::ImportSemaphoreFdInfoKHR::default().semaphore(theirs).handle_type(ty).fd(fd);
        // SAFETY: the descriptor was just exported and becomes the implementation's.
        unsafe { extension.import_semaphore_fd(&info) }.called("vkImportSemaphoreFdKHR")?;
        Ok((mine, theirs))
    }
}

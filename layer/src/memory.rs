//! Device memory: the driver allocates it, the layer makes a buffer object of it when it is bound for the first time.

use crate::address_space::{BindError, BoId, Object};
use crate::chain::{self, ChainCopy};
use crate::device::{Device, Sparse, on_device};
use ash::vk;
use core::ffi::c_void;
use emulator::ImportError;
use parking_lot::Mutex;
use thiserror::Error;

/// Bytes that the driver rounds every allocation up to.
const PAGE: u64 = 4096;

/// What the layer keeps of a `VkDeviceMemory`.
pub struct Memory {
    /// Bytes, as allocated.
    size: u64,
    /// Whether it can be reached from outside of the device: exported, or imported from elsewhere.
    external: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where byte 0 is while the application has the memory mapped.
    mapped: Option<MappedAt>,
    object: Option<Object>,
}

/// An address in a mapping of the application's.
#[derive(Clone, Copy)]
pub struct MappedAt(pub *mut u8);

// SAFETY: an address; it is only handed to the kernel, never read through.
unsafe impl Send for MappedAt {}

/// Memory that cannot be bound.
#[derive(Debug, Error)]
pub enum MemoryError {
    #[error("vkMapMemory failed: {0}")]
    Map(vk::Result),
    #[error("vkGetMemoryFdKHR failed: {0}")]
    Export(vk::Result),
    #[error("what the driver exports is no object of its kernel's: {0}")]
    Handle(kmd::Errno),
    #[error("the memory cannot be shared with other addresses: {0}")]
    Import(#[from] ImportError),
    #[error("the address space does not take it: {0}")]
    AddressSpace(#[from] BindError),
}

impl MemoryError {
    pub fn result(&self) -> vk::Result {
        match self {
            Self::Map(result) | Self::Export(result) => *result,
            Self::Handle(_) | Self::Import(_) => vk::Result::ERROR_INVALID_EXTERNAL_HANDLE,
            Self::AddressSpace(_) => vk::Result::ERROR_UNKNOWN,
        }
    }
}

impl Memory {
    /// # Safety
    /// `info` is valid with everything it points to.
    unsafe fn new(info: &vk::MemoryAllocateInfo<'_>) -> Self {
        // SAFETY: the caller's promise.
        let external = unsafe {
            chain::find::<vk::ExportMemoryAllocateInfo<'_>>(info.p_next).is_some()
                || chain::find::<vk::ImportMemoryFdInfoKHR<'_>>(info.p_next).is_some()
                || chain::find::<vk::ImportMemoryHostPointerInfoEXT<'_>>(info.p_next).is_some()
        };
        Self { size: info.allocation_size, external, state: Mutex::default() }
    }

    /// Bytes that binds can name: whole pages.
    pub fn bindable(&self) -> u64 {
        self.size.next_multiple_of(PAGE)
    }

    /// The buffer object behind the memory, made at the first call.
    pub fn object(
        &self,
        device: &Device,
        sparse: &Sparse,
        handle: vk::DeviceMemory,
    ) -> Result<BoId, MemoryError> {
        let mut state = self.state.lock();
        if let Some(object) = &state.object {
            return Ok(object.object());
        }
        // The lock keeps an application's vkMapMemory out meanwhile.
        let backing = sparse.icd.backing(device, handle, self.bindable(), state.mapped)?;
        let object = sparse.address_space.add_object(backing, self.external)?;
        Ok(state.object.insert(object).object())
    }

    /// Unbinds the memory wherever it is bound, and lets go of its buffer object.
    fn release(&self, sparse: &Sparse) {
        let Some(object) = self.state.lock().object.take() else { return };
        if sparse.icd.keeps_freed_memory() {
            return;
        }
        if let Err(error) = sparse.address_space.evict(object) {
            sparse
                .address_space
                .lose(&format!("vkFreeMemory: memory that is bound could not be unbound: {error}"));
        }
    }
}

/// How memory is exported: what names one object of the kernel's.
pub const EXPORT: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;

/// An allocation that can be exported.
struct Exported<'a> {
    info: vk::MemoryAllocateInfo<'a>,
    _chain: ChainCopy,
}

impl<'a> Exported<'a> {
    /// # Safety
    /// `info` is valid with everything it points to.
    unsafe fn new(info: &vk::MemoryAllocateInfo<'a>) -> Self {
        // SAFETY: the caller's promise.
        let mut chain = unsafe {
            ChainCopy::new_until(
                info.p_next,
                &[
                    vk::StructureType::EXPORT_MEMORY_ALLOCATE_INFO,
                    vk::StructureType::IMPORT_MEMORY_FD_INFO_KHR,
                    vk::StructureType::IMPORT_MEMORY_HOST_POINTER_INFO_EXT,
                ],
            )
        };
        let imported = chain.get_mut::<vk::ImportMemoryFdInfoKHR<'_>>().is_some()
            || chain.get_mut::<vk::ImportMemoryHostPointerInfoEXT<'_>>().is_some();
        if let Some(export) = chain.get_mut::<vk::ExportMemoryAllocateInfo<'_>>() {
            export.handle_types |= EXPORT;
        } else if !imported {
            // What comes from elsewhere can be exported anyway, or not at all.
            chain.push_front(vk::ExportMemoryAllocateInfo::default().handle_types(EXPORT));
        }
        let mut exported = *info;
        exported.p_next = chain.as_ptr();
        Self { info: exported, _chain: chain }
    }
}

pub(crate) unsafe extern "system" fn allocate_memory(
    device: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    memory: *mut vk::DeviceMemory,
) -> vk::Result {
    on_device(device, "vkAllocateMemory", |d, sparse| {
        // SAFETY: the application's valid arguments, here and below.
        let info = unsafe { &*info };
        // SAFETY: as above.
        let exported =
            sparse.filter(|sparse| sparse.icd.exports_memory()).map(|_| unsafe { Exported::new(info) });
        let down = exported.as_ref().map_or(info, |exported| &exported.info);
        // SAFETY: as above, handed on.
        let result = unsafe { (d.next.fp_v1_0().allocate_memory)(device, down, allocator, memory) };
        if let (Some(sparse), vk::Result::SUCCESS) = (sparse, result) {
            // SAFETY: as above, and the call succeeded.
            let (handle, record) = unsafe { (*memory, Memory::new(info)) };
            sparse.memories.insert(handle, record);
        }
        result
    })
}

pub(crate) unsafe extern "system" fn free_memory(
    device: vk::Device,
    memory: vk::DeviceMemory,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    on_device(device, "vkFreeMemory", |d, sparse| {
        if let Some((sparse, record)) =
            sparse.and_then(|sparse| Some((sparse, sparse.memories.remove(memory)?)))
        {
            record.release(sparse);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().free_memory)(device, memory, allocator) }
    });
}

pub(crate) unsafe extern "system" fn map_memory(
    device: vk::Device,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    flags: vk::MemoryMapFlags,
    data: *mut *mut c_void,
) -> vk::Result {
    on_device(device, "vkMapMemory", |d, sparse| {
        note_mapping(sparse, memory, Some((offset, data)), || {
            // SAFETY: the application's valid arguments, handed on.
            unsafe { (d.next.fp_v1_0().map_memory)(device, memory, offset, size, flags, data) }
        })
    })
}

pub(crate) unsafe extern "system" fn unmap_memory(device: vk::Device, memory: vk::DeviceMemory) {
    on_device(device, "vkUnmapMemory", |d, sparse| {
        let _success = note_mapping(sparse, memory, None, || {
            // SAFETY: the application's valid arguments, handed on.
            unsafe { (d.next.fp_v1_0().unmap_memory)(device, memory) };
            vk::Result::SUCCESS
        });
    });
}

pub(crate) unsafe extern "system" fn map_memory2_khr(
    device: vk::Device,
    info: *const vk::MemoryMapInfoKHR<'_>,
    data: *mut *mut c_void,
) -> vk::Result {
    on_device(device, "vkMapMemory2KHR", |d, sparse| {
        // SAFETY: the application's valid arguments.
        let (memory, offset) = unsafe { ((*info).memory, (*info).offset) };
        note_mapping(sparse, memory, Some((offset, data)), || {
            // SAFETY: as above, handed on.
            unsafe { (d.map_memory2.map_memory2_khr)(device, info, data) }
        })
    })
}

pub(crate) unsafe extern "system" fn unmap_memory2_khr(
    device: vk::Device,
    info: *const vk::MemoryUnmapInfoKHR<'_>,
) -> vk::Result {
    on_device(device, "vkUnmapMemory2KHR", |d, sparse| {
        // SAFETY: the application's valid arguments.
        let memory = unsafe { (*info).memory };
        note_mapping(sparse, memory, None, || {
            // SAFETY: as above, handed on.
            unsafe { (d.map_memory2.unmap_memory2_khr)(device, info) }
        })
    })
}

/// Makes a mapping call of the driver's and notes where the memory then is (`mapped`: the call's offset and where its answer goes),
/// with the layer's own mapping kept out meanwhile.
fn note_mapping(
    sparse: Option<&Sparse>,
    memory: vk::DeviceMemory,
    mapped: Option<(vk::DeviceSize, *mut *mut c_void)>,
    call: impl FnOnce() -> vk::Result,
) -> vk::Result {
    let record = sparse.and_then(|sparse| sparse.memories.get(memory));
    let mut state = record.as_ref().map(|record| record.state.lock());
    let result = call();
    if let (Some(state), vk::Result::SUCCESS) = (&mut state, result) {
        // SAFETY: the call succeeded, so it wrote its answer; byte 0 of the memory lies `offset` before it.
        state.mapped = mapped
            .map(|(offset, data)| MappedAt(unsafe { *data }.cast::<u8>().wrapping_sub(offset as usize)));
    }
    result
}

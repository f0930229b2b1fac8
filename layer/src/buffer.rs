//! Sparse buffers: plain buffers of the driver's over a range of addresses that the layer reserves.
//!
//! Better than the driver's own sparse buffers: alignment and size are the layer's, and reads of storage texel buffers come right.

use crate::added::sharing;
use crate::chain::ChainCopy;
use crate::device::{Device, Sparse, on_device};
use crate::layout::BLOCK;
use crate::reservation::Reservation;
use crate::resource::{self, CreateError};
use ash::vk;
use gpuvm::VaRange;

/// The flags that make a buffer sparse.
const SPARSE: vk::BufferCreateFlags = vk::BufferCreateFlags::from_raw(
    vk::BufferCreateFlags::SPARSE_BINDING.as_raw()
        | vk::BufferCreateFlags::SPARSE_RESIDENCY.as_raw()
        | vk::BufferCreateFlags::SPARSE_ALIASED.as_raw(),
);

/// Bytes of a large page: a buffer that has room for one begins at one, so that page tables stay small.
const HUGE: u64 = 2 << 20;

/// A sparse buffer.
pub struct Buffer {
    /// Bytes as created.
    pub size: u64,
    /// What binds may cover: [`requirements`] in addresses.
    pub range: VaRange,
    memory: vk::DeviceMemory,
    /// Dropped last.
    _reservation: Reservation,
}

/// What a sparse buffer of `size` bytes needs: whole blocks. The driver's answer for the plain buffer gives the memory types.
pub fn requirements(size: u64, plain: vk::MemoryRequirements) -> vk::MemoryRequirements {
    vk::MemoryRequirements { size: size.next_multiple_of(BLOCK), alignment: BLOCK, ..plain }
}

/// The create info of the plain buffer behind a sparse one, with its chain.
struct PlainInfo<'a> {
    info: vk::BufferCreateInfo<'a>,
    _chain: ChainCopy,
}

impl<'a> PlainInfo<'a> {
    /// # Safety
    /// `info` and its chain are valid.
    unsafe fn new(info: &vk::BufferCreateInfo<'a>) -> Self {
        // SAFETY: the caller's promise.
        let mut chain = unsafe {
            ChainCopy::new_until(
                info.p_next,
                &[
                    vk::StructureType::EXTERNAL_MEMORY_BUFFER_CREATE_INFO,
                    vk::StructureType::BUFFER_USAGE_FLAGS_2_CREATE_INFO_KHR,
                ],
            )
        };
        // The plain buffer lives in imported host memory, whatever kinds of memory will be bound into the range.
        chain.remove(vk::StructureType::EXTERNAL_MEMORY_BUFFER_CREATE_INFO);
        chain.push_front(
            vk::ExternalMemoryBufferCreateInfo::default()
                .handle_types(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT),
        );
        // With its address the layer checks where the driver put it.
        if let Some(flags) = chain.get_mut::<vk::BufferUsageFlags2CreateInfoKHR<'_>>() {
            flags.usage |= vk::BufferUsageFlags2KHR::SHADER_DEVICE_ADDRESS;
        }
        let mut plain = *info;
        plain.flags &= !SPARSE;
        plain.usage |= vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        plain.p_next = chain.as_ptr();
        Self { info: plain, _chain: chain }
    }
}

/// The rules of VkBufferCreateInfo that concern sparse binding.
fn check(info: &vk::BufferCreateInfo<'_>, sparse: &Sparse) -> Result<(), CreateError> {
    let flags = info.flags;
    let enabled = &sparse.features;
    if info.size == 0 {
        return Err(CreateError::Rule("size must not be 0 (VUID-VkBufferCreateInfo-size-00912)"));
    }
    if !flags.contains(vk::BufferCreateFlags::SPARSE_BINDING) {
        return Err(CreateError::Rule(
            "SPARSE_RESIDENCY and SPARSE_ALIASED need SPARSE_BINDING (VUID-VkBufferCreateInfo-flags-00918)",
        ));
    }
    if flags.contains(vk::BufferCreateFlags::SPARSE_RESIDENCY) && enabled.sparse_residency_buffer == vk::FALSE
    {
        return Err(CreateError::Rule(
            "the feature sparseResidencyBuffer is not enabled (VUID-VkBufferCreateInfo-flags-00916)",
        ));
    }
    if flags.contains(vk::BufferCreateFlags::SPARSE_ALIASED) && enabled.sparse_residency_aliased == vk::FALSE
    {
        return Err(CreateError::Rule(
            "the feature sparseResidencyAliased is not enabled (VUID-VkBufferCreateInfo-flags-00917)",
        ));
    }
    Ok(())
}

/// # Safety
/// `info` is valid; `allocator` too.
unsafe fn create(
    d: &Device,
    sparse: &Sparse,
    info: &vk::BufferCreateInfo<'_>,
    allocator: Option<&vk::AllocationCallbacks<'_>>,
) -> Result<(vk::Buffer, Buffer), CreateError> {
    check(info, sparse)?;
    // SAFETY: the caller's promise.
    let plain = unsafe { PlainInfo::new(info) };
    // SAFETY: the application's valid arguments, edited.
    let handle = unsafe { d.next.create_buffer(&plain.info, allocator) }
        .map_err(|result| CreateError::Driver { call: "vkCreateBuffer", result })?;
    // SAFETY: a new buffer.
    let driver = unsafe { d.next.get_buffer_memory_requirements(handle) };
    match place(d, sparse, handle, info.size, driver) {
        Ok(buffer) => Ok((handle, buffer)),
        Err(error) => {
            // SAFETY: the buffer was made here and nobody knows it.
            unsafe { d.next.destroy_buffer(handle, allocator) };
            Err(error)
        }
    }
}

/// Reserves the buffer's addresses, binds it there for good and opens the window.
fn place(
    d: &Device,
    sparse: &Sparse,
    handle: vk::Buffer,
    size: u64,
    driver: vk::MemoryRequirements,
) -> Result<Buffer, CreateError> {
    let bindable = requirements(size, driver).size;
    // The driver may ask for a little more than what can be bound; it is reserved, but no window covers it.
    let reserved = bindable.max(driver.size.next_multiple_of(BLOCK));
    let alignment = if reserved >= HUGE { HUGE } else { BLOCK };
    let reservation = Reservation::new(reserved, alignment).ok_or(CreateError::AddressSpace(reserved))?;
    let whole = reservation.range();
    // SAFETY: the reservation outlives the memory (see `release`).
    let memory = unsafe { sparse.icd.import_range(&d.next, whole, driver.memory_type_bits) }
        .map_err(|result| CreateError::Driver { call: "importing the reserved range", result })?;
    let range = VaRange { start: whole.start, len: bindable };
    let placed = (|| {
        // SAFETY: a new buffer, and memory that is large enough.
        unsafe { d.next.bind_buffer_memory(handle, memory, 0) }
            .map_err(|result| CreateError::Driver { call: "vkBindBufferMemory", result })?;
        let info = vk::BufferDeviceAddressInfo::default().buffer(handle);
        // SAFETY: created with SHADER_DEVICE_ADDRESS, and bound.
        let address = unsafe { d.next.get_buffer_device_address(&info) };
        if address != range.start {
            return Err(CreateError::Place { driver: address, expected: range.start });
        }
        sparse.open_window(range, None)?;
        Ok(())
    })();
    if let Err(error) = placed {
        // SAFETY: the buffer is about to be destroyed by our caller, nothing else uses the memory.
        unsafe { d.next.free_memory(memory, None) };
        return Err(error);
    }
    Ok(Buffer { size, range, memory, _reservation: reservation })
}

impl Buffer {
    /// Takes the addresses back, after the driver's buffer is gone.
    pub fn release(&self, d: &Device, sparse: &Sparse) {
        sparse.close_window(self.range);
        // SAFETY: only the buffer used it.
        unsafe { d.next.free_memory(self.memory, None) };
    }
}

pub(crate) unsafe extern "system" fn create_buffer(
    device: vk::Device,
    info: *const vk::BufferCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    buffer: *mut vk::Buffer,
) -> vk::Result {
    on_device(device, "vkCreateBuffer", |d, sparse| {
        // SAFETY: the application's valid arguments.
        let create_info = unsafe { &*info };
        // SAFETY: as above.
        let translated = unsafe { sharing::for_driver(d, create_info) };
        let create_info = translated.as_ref().map_or(create_info, |translated| translated.info());
        let Some(sparse) = sparse.filter(|_| create_info.flags.intersects(SPARSE)) else {
            // SAFETY: as above, handed on.
            return unsafe { (d.next.fp_v1_0().create_buffer)(device, create_info, allocator, buffer) };
        };
        // SAFETY: as above.
        unsafe {
            let made = create(d, sparse, create_info, allocator.as_ref());
            resource::hand_out("vkCreateBuffer", made, &sparse.buffers, buffer)
        }
    })
}

pub(crate) unsafe extern "system" fn destroy_buffer(
    device: vk::Device,
    buffer: vk::Buffer,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    on_device(device, "vkDestroyBuffer", |d, sparse| {
        let record = sparse.and_then(|sparse| Some((sparse, sparse.buffers.remove(buffer)?)));
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().destroy_buffer)(device, buffer, allocator) };
        if let Some((sparse, record)) = record {
            record.release(d, sparse);
        }
    });
}

pub(crate) unsafe extern "system" fn get_buffer_memory_requirements(
    device: vk::Device,
    buffer: vk::Buffer,
    out: *mut vk::MemoryRequirements,
) {
    on_device(device, "vkGetBufferMemoryRequirements", |d, sparse| {
        // SAFETY: the application's valid arguments, handed on; then `out` is written.
        unsafe {
            (d.next.fp_v1_0().get_buffer_memory_requirements)(device, buffer, out);
            if let Some(record) = sparse.and_then(|sparse| sparse.buffers.get(buffer)) {
                *out = requirements(record.size, *out);
            }
        }
    });
}

pub(crate) unsafe extern "system" fn get_buffer_memory_requirements2(
    device: vk::Device,
    info: *const vk::BufferMemoryRequirementsInfo2<'_>,
    out: *mut vk::MemoryRequirements2<'_>,
) {
    on_device(device, "vkGetBufferMemoryRequirements2", |d, sparse| {
        // SAFETY: the application's valid arguments, handed on; then `out` is written.
        unsafe {
            (d.next.fp_v1_1().get_buffer_memory_requirements2)(device, info, out);
            if let Some(record) = sparse.and_then(|sparse| sparse.buffers.get((*info).buffer)) {
                (*out).memory_requirements = requirements(record.size, (*out).memory_requirements);
            }
        }
    });
}

pub(crate) unsafe extern "system" fn get_device_buffer_memory_requirements(
    device: vk::Device,
    info: *const vk::DeviceBufferMemoryRequirements<'_>,
    out: *mut vk::MemoryRequirements2<'_>,
) {
    on_device(device, "vkGetDeviceBufferMemoryRequirements", |d, sparse| {
        // SAFETY: the application's valid arguments.
        let (query, create_info) = unsafe { (&*info, &*(*info).p_create_info) };
        let next = d.next.fp_v1_3().get_device_buffer_memory_requirements;
        // SAFETY: as above.
        let translated = unsafe { sharing::for_driver(d, create_info) };
        let create_info = translated.as_ref().map_or(create_info, |translated| translated.info());
        let mut query = *query;
        query.p_create_info = create_info;
        if sparse.is_none() || !create_info.flags.intersects(SPARSE) {
            // SAFETY: as above, handed on.
            return unsafe { next(device, &raw const query, out) };
        }
        // SAFETY: as above.
        let plain = unsafe { PlainInfo::new(create_info) };
        query.p_create_info = &raw const plain.info;
        // SAFETY: the application's query with the plain buffer's create info; then `out` is written.
        unsafe {
            next(device, &raw const query, out);
            (*out).memory_requirements = requirements(create_info.size, (*out).memory_requirements);
        }
    });
}

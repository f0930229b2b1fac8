//! Sparse buffers: an adapter makes them and learns where they are, the layer owns what is bound.

use crate::added::sharing;
use crate::address_space::BoId;
use crate::device::{Sparse, on_device};
use crate::icd::lavapipe;
use crate::resource::{self, CreateError};
use ash::vk;
use gpuvm::{OpKind, VaRange};

/// The flags that make a buffer sparse.
pub const SPARSE: vk::BufferCreateFlags = vk::BufferCreateFlags::from_raw(
    vk::BufferCreateFlags::SPARSE_BINDING.as_raw()
        | vk::BufferCreateFlags::SPARSE_RESIDENCY.as_raw()
        | vk::BufferCreateFlags::SPARSE_ALIASED.as_raw(),
);

/// A sparse buffer.
pub struct Buffer {
    /// Bytes as created.
    pub size: u64,
    /// What binds may cover, in addresses.
    pub range: VaRange,
    /// Bytes that binds are multiples of.
    pub alignment: u64,
    /// What is where no memory is bound.
    pub unbound: OpKind<BoId>,
    /// What the queries for memory requirements answer, where that is not for the driver to say.
    pub requirements: Option<vk::MemoryRequirements>,
    /// Where the driver has a plain buffer.
    pub plain: Option<lavapipe::Plain>,
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
            let made = check(create_info, sparse)
                .and_then(|()| sparse.icd.create_buffer(d, sparse, create_info, allocator.as_ref()));
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
        if let Some((sparse, record)) = &record {
            sparse.icd.release_buffer(d, sparse, record);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().destroy_buffer)(device, buffer, allocator) };
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
            let record = sparse.and_then(|sparse| sparse.buffers.get(buffer));
            if let Some(requirements) = record.and_then(|record| record.requirements) {
                *out = requirements;
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
            let record = sparse.and_then(|sparse| sparse.buffers.get((*info).buffer));
            if let Some(requirements) = record.and_then(|record| record.requirements) {
                (*out).memory_requirements = requirements;
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
        let mut ask = |create_info: &vk::BufferCreateInfo<'_>| {
            let mut query = *query;
            query.p_create_info = create_info;
            // SAFETY: the application's query, with a valid create info.
            unsafe {
                next(device, &raw const query, out);
                (*out).memory_requirements
            }
        };
        let own = sparse
            .filter(|_| create_info.flags.intersects(SPARSE))
            // SAFETY: the application's valid argument.
            .and_then(|sparse| unsafe { sparse.icd.buffer_requirements(create_info, &mut ask) });
        let requirements = own.unwrap_or_else(|| ask(create_info));
        // SAFETY: the application's valid argument.
        unsafe { (*out).memory_requirements = requirements };
    });
}

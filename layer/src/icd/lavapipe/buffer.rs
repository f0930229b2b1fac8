//! Sparse buffers on lavapipe: plain buffers of the driver's over a range of addresses that the layer reserves.
//!
//! Better than the driver's own sparse buffers: alignment and size are the layer's, and reads of storage texel buffers come right.

use super::Lavapipe;
use crate::buffer::{Buffer, SPARSE};
use crate::chain::ChainCopy;
use crate::device::{Device, Sparse};
use crate::layout::BLOCK;
use crate::reservation::Reservation;
use crate::resource::CreateError;
use ash::vk;
use gpuvm::{OpKind, VaRange};

/// Bytes of a large page: a buffer that has room for one begins at one, so that page tables stay small.
const HUGE: u64 = 2 << 20;

/// What a sparse buffer of `size` bytes needs: whole blocks. The driver's answer for the plain buffer gives the memory types.
pub fn requirements(size: u64, plain: vk::MemoryRequirements) -> vk::MemoryRequirements {
    vk::MemoryRequirements { size: size.next_multiple_of(BLOCK), alignment: BLOCK, ..plain }
}

/// The create info of the plain buffer behind a sparse one, with its chain.
pub struct PlainInfo<'a> {
    info: vk::BufferCreateInfo<'a>,
    _chain: ChainCopy,
}

impl<'a> PlainInfo<'a> {
    /// # Safety
    /// `info` and its chain are valid.
    pub unsafe fn new(info: &vk::BufferCreateInfo<'a>) -> Self {
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

    pub fn info(&self) -> &vk::BufferCreateInfo<'a> {
        &self.info
    }
}

/// What stands behind a sparse buffer that is a plain one to the driver.
pub struct Plain {
    memory: vk::DeviceMemory,
    /// Dropped last.
    _reservation: Reservation,
}

impl Plain {
    /// Takes the addresses back, after the window is gone. The reservation stays until the record does.
    pub fn release(&self, d: &Device) {
        // SAFETY: only the buffer used it.
        unsafe { d.next.free_memory(self.memory, None) };
    }
}

impl Lavapipe {
    /// # Safety
    /// `info` is valid; `allocator` too.
    pub(super) unsafe fn make_buffer(
        &self,
        d: &Device,
        sparse: &Sparse,
        info: &vk::BufferCreateInfo<'_>,
        allocator: Option<&vk::AllocationCallbacks<'_>>,
    ) -> Result<(vk::Buffer, Buffer), CreateError> {
        // SAFETY: the caller's promise.
        let plain = unsafe { PlainInfo::new(info) };
        // SAFETY: the application's valid arguments, edited.
        let handle = unsafe { d.next.create_buffer(&plain.info, allocator) }
            .map_err(|result| CreateError::Driver { call: "vkCreateBuffer", result })?;
        // SAFETY: a new buffer.
        let driver = unsafe { d.next.get_buffer_memory_requirements(handle) };
        match self.place_buffer(d, sparse, handle, info.size, driver) {
            Ok(buffer) => Ok((handle, buffer)),
            Err(error) => {
                // SAFETY: the buffer was made here and nobody knows it.
                unsafe { d.next.destroy_buffer(handle, allocator) };
                Err(error)
            }
        }
    }

    /// Reserves the buffer's addresses, binds it there for good and opens the window.
    fn place_buffer(
        &self,
        d: &Device,
        sparse: &Sparse,
        handle: vk::Buffer,
        size: u64,
        driver: vk::MemoryRequirements,
    ) -> Result<Buffer, CreateError> {
        let wanted = requirements(size, driver);
        // The driver may ask for a little more than what can be bound; it is reserved, but no window covers it.
        let reserved = wanted.size.max(driver.size.next_multiple_of(BLOCK));
        let alignment = if reserved >= HUGE { HUGE } else { BLOCK };
        let reservation = Reservation::new(reserved, alignment).ok_or(CreateError::AddressSpace(reserved))?;
        let whole = reservation.range();
        // SAFETY: the reservation outlives the memory (see `Plain`).
        let memory = unsafe { self.functions.import_range(&d.next, whole, driver.memory_type_bits) }
            .map_err(|result| CreateError::Driver { call: "importing the reserved range", result })?;
        let range = VaRange { start: whole.start, len: wanted.size };
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
            self.open_window(sparse, range, None)?;
            Ok(())
        })();
        if let Err(error) = placed {
            // SAFETY: the buffer is about to be destroyed by our caller, nothing else uses the memory.
            unsafe { d.next.free_memory(memory, None) };
            return Err(error);
        }
        let plain = Plain { memory, _reservation: reservation };
        let requirements = Some(wanted);
        Ok(Buffer { size, range, alignment: BLOCK, unbound: OpKind::Null, requirements, plain: Some(plain) })
    }
}

//! Device memory, mappings and buffers.

use super::{Gpu, Owned};
use crate::outcome::{Called as _, Outcome, Stop, fail};
use ash::vk;

/// What memory is made with beyond size and type.
#[derive(Default, Clone, Copy)]
pub(crate) struct MemorySpec {
    /// Handle types to export.
    pub(crate) export: vk::ExternalMemoryHandleTypeFlags,
    pub(crate) dedicated_buffer: vk::Buffer,
    pub(crate) dedicated_image: vk::Image,
}

/// A mapping of a whole memory object by the application.
pub(crate) struct Mapped<'g> {
    gpu: &'g Gpu,
    memory: vk::DeviceMemory,
    pointer: *mut u8,
    size: usize,
}

// SAFETY: the mapping may be used from any thread; the case orders its accesses.
unsafe impl Send for Mapped<'_> {}

impl Mapped<'_> {
    /// Copies `bytes` into the mapping at `offset`.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        assert!(offset + bytes.len() <= self.size, "a case writes past its mapping");
        // SAFETY: the range is within the mapping, which lives as long as `self`.
        unsafe { self.pointer.add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    /// Copies `len` bytes out of the mapping.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let offset = offset as usize;
        assert!(offset + len <= self.size, "a case reads past its mapping");
        let mut bytes = vec![0; len];
        // SAFETY: the range is within the mapping, which lives as long as `self`.
        unsafe { self.pointer.add(offset).copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        bytes
    }

    pub(crate) fn write_words(&self, offset: u64, words: &[u32]) {
        self.write(offset, &to_bytes(words));
    }

    pub(crate) fn read_words(&self, offset: u64, count: usize) -> Vec<u32> {
        to_words(&self.read(offset, count * 4))
    }

    /// Ends the mapping.
    pub(crate) fn unmap(self) {
        // SAFETY: the memory is mapped, and `self`, the only user of the pointer, is gone.
        unsafe { self.gpu.raw.unmap_memory(self.memory) };
    }
}

/// A plain buffer in host visible memory, mapped all the time: what goes to the device and comes back.
pub(crate) struct Host<'g> {
    pub(crate) buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    mapped: Mapped<'g>,
}

impl Host<'_> {
    pub(crate) fn write(&self, bytes: &[u8]) {
        self.mapped.write(0, bytes);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.mapped.read(0, self.mapped.size)
    }

    pub(crate) fn words(&self) -> Vec<u32> {
        to_words(&self.bytes())
    }

    /// Frees buffer and memory before the end of the device.
    pub(crate) fn free(self) {
        self.mapped.gpu.destroy(Owned::Buffer(self.buffer));
        self.mapped.gpu.destroy(Owned::Memory(self.memory));
    }
}

/// Words as bytes in memory order.
pub(crate) fn to_bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Bytes in memory order as words.
pub(crate) fn to_words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|chunk| u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]])).collect()
}

impl Gpu {
    /// The first memory type in `bits` that is host visible and coherent, else the first in `bits`.
    pub(crate) fn memory_type(&self, bits: u32) -> Outcome<u32> {
        let host = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        let types = self.memory_properties.memory_types_as_slice();
        let allowed = || (0..types.len()).filter(|index| bits & (1 << index) != 0);
        let found = allowed().find(|&index| types[index].property_flags.contains(host));
        match found.or_else(|| allowed().next()) {
            Some(index) => Ok(index as u32),
            None => fail!("memoryTypeBits {bits:#x} allows no memory type"),
        }
    }

    /// Allocates memory of a type in `bits`.
    pub(crate) fn memory(&self, size: u64, bits: u32) -> Outcome<vk::DeviceMemory> {
        self.memory_with(size, bits, &MemorySpec::default())
    }

    /// Allocates memory that is exported or dedicated to a resource.
    pub(crate) fn memory_with(&self, size: u64, bits: u32, spec: &MemorySpec) -> Outcome<vk::DeviceMemory> {
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(spec.export);
        let mut dedicated = vk::MemoryDedicatedAllocateInfo::default()
            .buffer(spec.dedicated_buffer)
            .image(spec.dedicated_image);
        let mut info = vk::MemoryAllocateInfo::default();
        if !spec.export.is_empty() {
            info = info.push_next(&mut export);
        }
        if spec.dedicated_buffer != vk::Buffer::null() || spec.dedicated_image != vk::Image::null() {
            info = info.push_next(&mut dedicated);
        }
        self.allocate(info.allocation_size(size).memory_type_index(self.memory_type(bits)?))
    }

    /// `vkAllocateMemory` with the flag for device addresses where the device uses them.
    pub(crate) fn allocate(&self, info: vk::MemoryAllocateInfo<'_>) -> Outcome<vk::DeviceMemory> {
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let info = if self.addresses { info.push_next(&mut flags) } else { info };
        // SAFETY: the chain lives until the call returns.
        let memory = unsafe { self.raw.allocate_memory(&info, None) }.called("vkAllocateMemory")?;
        self.own(Owned::Memory(memory));
        Ok(memory)
    }

    /// Maps all of `memory`, which is `size` bytes long.
    pub(crate) fn map(&self, memory: vk::DeviceMemory, size: u64) -> Outcome<Mapped<'_>> {
        // SAFETY: the memory is this device's and not mapped.
        let pointer = unsafe { self.raw.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty()) }
            .called("vkMapMemory")?;
        Ok(Mapped { gpu: self, memory, pointer: pointer.cast(), size: size as usize })
    }

    /// Whether a memory type in `bits` can be mapped without flushes.
    pub(crate) fn is_host_visible(&self, bits: u32) -> Outcome<bool> {
        let index = self.memory_type(bits)? as usize;
        Ok(self.memory_properties.memory_types[index]
            .property_flags
            .contains(vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT))
    }

    /// A plain buffer in host visible memory.
    pub(crate) fn host(&self, size: u64, usage: vk::BufferUsageFlags) -> Outcome<Host<'_>> {
        let usage = usage | vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let buffer = self.buffer(size, usage, vk::BufferCreateFlags::empty())?;
        let requirements = self.buffer_requirements(buffer);
        if !self.is_host_visible(requirements.memory_type_bits)? {
            return Err(Stop::NotSupported("no host visible memory for buffers".to_owned()));
        }
        let memory = self.memory(requirements.size, requirements.memory_type_bits)?;
        self.bind_buffer(buffer, memory, 0)?;
        Ok(Host { buffer, memory, mapped: self.map(memory, size)? })
    }

    /// A plain buffer that holds `words`.
    pub(crate) fn host_words(&self, words: &[u32], usage: vk::BufferUsageFlags) -> Outcome<Host<'_>> {
        let host = self.host(words.len() as u64 * 4, usage)?;
        host.mapped.write_words(0, words);
        Ok(host)
    }

    /// Creates a buffer; without sparse flags the caller binds memory to it.
    pub(crate) fn buffer(
        &self,
        size: u64,
        usage: vk::BufferUsageFlags,
        flags: vk::BufferCreateFlags,
    ) -> Outcome<vk::Buffer> {
        let types = *self.external.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(types);
        let mut info = vk::BufferCreateInfo::default().size(size).usage(usage).flags(flags);
        if !types.is_empty() {
            info = info.push_next(&mut external);
        }
        self.create_buffer(&info)
    }

    /// `vkCreateBuffer`.
    pub(crate) fn create_buffer(&self, info: &vk::BufferCreateInfo<'_>) -> Outcome<vk::Buffer> {
        // SAFETY: the chain lives until the call returns.
        let buffer = unsafe { self.raw.create_buffer(info, None) }.called("vkCreateBuffer")?;
        self.own(Owned::Buffer(buffer));
        Ok(buffer)
    }

    pub(crate) fn buffer_requirements(&self, buffer: vk::Buffer) -> vk::MemoryRequirements {
        // SAFETY: the buffer is this device's.
        unsafe { self.raw.get_buffer_memory_requirements(buffer) }
    }

    /// Binds memory to a plain buffer.
    pub(crate) fn bind_buffer(&self, buffer: vk::Buffer, memory: vk::DeviceMemory, offset: u64) -> Outcome {
        // SAFETY: both are this device's.
        unsafe { self.raw.bind_buffer_memory(buffer, memory, offset) }.called("vkBindBufferMemory")
    }

    /// The device address of a buffer.
    pub(crate) fn buffer_address(&self, buffer: vk::Buffer) -> u64 {
        let info = vk::BufferDeviceAddressInfo::default().buffer(buffer);
        // SAFETY: the buffer is this device's and was made with the usage for addresses.
        unsafe { self.raw.get_buffer_device_address(&info) }
    }

    /// A view of all of a buffer's texels as R32_UINT.
    pub(crate) fn buffer_view(&self, buffer: vk::Buffer, offset: u64, range: u64) -> Outcome<vk::BufferView> {
        let info = vk::BufferViewCreateInfo::default()
            .buffer(buffer)
            .format(vk::Format::R32_UINT)
            .offset(offset)
            .range(range);
        // SAFETY: the buffer is this device's.
        let view = unsafe { self.raw.create_buffer_view(&info, None) }.called("vkCreateBufferView")?;
        self.own(Owned::BufferView(view));
        Ok(view)
    }

    /// Copies ranges `(source offset, target offset, size)` between buffers and waits.
    pub(crate) fn copy_buffer(
        &self,
        from: vk::Buffer,
        to: vk::Buffer,
        ranges: &[(u64, u64, u64)],
    ) -> Outcome {
        let regions: Vec<_> = ranges
            .iter()
            .map(|&(src_offset, dst_offset, size)| vk::BufferCopy { src_offset, dst_offset, size })
            .collect();
        self.run(|command| {
            // SAFETY: the command buffer is recording; the buffers are this device's.
            unsafe { self.raw.cmd_copy_buffer(command, from, to, &regions) };
        })
    }

    /// Fills a range of a buffer with a word and waits.
    pub(crate) fn fill_buffer(&self, buffer: vk::Buffer, offset: u64, size: u64, word: u32) -> Outcome {
        self.run(|command| {
            // SAFETY: the command buffer is recording; the buffer is this device's.
            unsafe { self.raw.cmd_fill_buffer(command, buffer, offset, size, word) };
        })
    }

    /// Writes `words` to the start of `memory` through a plain buffer bound to it.
    pub(crate) fn write_memory(&self, memory: vk::DeviceMemory, words: &[u32]) -> Outcome {
        let host = self.host_words(words, vk::BufferUsageFlags::empty())?;
        let size = words.len() as u64 * 4;
        let alias = self.alias_buffer(memory, size)?;
        self.copy_buffer(host.buffer, alias, &[(0, 0, size)])?;
        self.destroy(Owned::Buffer(alias));
        host.free();
        Ok(())
    }

    /// Reads `count` words from the start of `memory` through a plain buffer bound to it.
    pub(crate) fn read_memory(&self, memory: vk::DeviceMemory, count: usize) -> Outcome<Vec<u32>> {
        let size = count as u64 * 4;
        let host = self.host(size, vk::BufferUsageFlags::empty())?;
        let alias = self.alias_buffer(memory, size)?;
        self.copy_buffer(alias, host.buffer, &[(0, 0, size)])?;
        self.destroy(Owned::Buffer(alias));
        let words = host.words();
        host.free();
        Ok(words)
    }

    fn alias_buffer(&self, memory: vk::DeviceMemory, size: u64) -> Outcome<vk::Buffer> {
        let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
        let alias = self.buffer(size, usage, vk::BufferCreateFlags::empty())?;
        // The question is asked because the specification wants it asked before a bind.
        let _ = self.buffer_requirements(alias);
        self.bind_buffer(alias, memory, 0)?;
        Ok(alias)
    }
}

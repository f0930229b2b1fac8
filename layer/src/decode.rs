//! From VkBindSparseInfo to wanted bindings: every rule is checked before anything is applied.

use crate::address_space::{BoId, Want};
use crate::arrays::slice;
use crate::buffer::Buffer;
use crate::chain;
use crate::device::{Device, Sparse};
use crate::image::Image;
use crate::layout::BoxError;
use crate::memory::MemoryError;
use ash::vk;
use gpuvm::{OpKind, VaRange};
use thiserror::Error;

/// A bind that breaks a rule of the Vulkan specification, or names memory that cannot be bound.
#[derive(Debug, Error)]
pub enum DecodeError {
    #[error("{0:?} is not a sparse buffer of this device")]
    Buffer(vk::Buffer),
    #[error("{0:?} is not a sparse image of this device")]
    Image(vk::Image),
    #[error("{0:?} was not created with SPARSE_RESIDENCY (VUID-VkSparseImageMemoryBindInfo-image-02901)")]
    NoResidency(vk::Image),
    #[error("{0:?} is not memory of this device")]
    UnknownMemory(vk::DeviceMemory),
    #[error("{0}")]
    Rule(&'static str),
    #[error("{0}")]
    Box(#[from] BoxError),
    #[error("{0:?}: binds of its blocks cannot be planned")]
    AsIs(vk::Image),
    #[error("{memory:?} cannot be bound: {error}")]
    Memory { memory: vk::DeviceMemory, error: MemoryError },
}

impl DecodeError {
    pub fn result(&self) -> vk::Result {
        match self {
            Self::Memory { error, .. } => error.result(),
            _ => vk::Result::ERROR_VALIDATION_FAILED_EXT,
        }
    }
}

const SIZE_ZERO: DecodeError =
    DecodeError::Rule("size must be greater than 0 (VUID-VkSparseMemoryBind-size-01098)");
const OFFSET_OUTSIDE: DecodeError = DecodeError::Rule(
    "resourceOffset must be less than the size of the resource (VUID-VkSparseMemoryBind-resourceOffset-01099)",
);
const SIZE_OUTSIDE: DecodeError = DecodeError::Rule(
    "size must be at most the size of the resource minus resourceOffset (VUID-VkSparseMemoryBind-size-01100)",
);
const MISALIGNED: DecodeError = DecodeError::Rule(
    "resourceOffset, memoryOffset and size must be multiples of the resource's alignment (VUID-VkSparseMemoryBind-memory-01096)",
);
const MEMORY_OUTSIDE: DecodeError = DecodeError::Rule(
    "memoryOffset + size must lie in the memory (VUID-VkSparseMemoryBind-memoryOffset-01101, -size-01102)",
);
const METADATA: DecodeError = DecodeError::Rule(
    "the image has no metadata aspect to bind (VUID-VkSparseImageOpaqueMemoryBindInfo-pBinds-01103)",
);
const DEVICE_INDEX: DecodeError = DecodeError::Rule(
    "resourceDeviceIndex and memoryDeviceIndex must be 0: the device is no group (VUID-VkDeviceGroupBindSparseInfo-resourceDeviceIndex-01118)",
);
const ASPECT: DecodeError = DecodeError::Rule(
    "subresource.aspectMask must name one plane of the image (VUID-VkSparseImageMemoryBind-subresource-01106)",
);

/// Reads binds one after another. Neighbouring binds mostly name the same memory, so the last one is kept at hand.
pub struct Decoder<'a> {
    device: &'a Device,
    sparse: &'a Sparse,
    last: Bindable,
}

/// Memory that was looked up; by default none.
#[derive(Clone, Copy, Default)]
struct Bindable {
    memory: vk::DeviceMemory,
    object: BoId,
    /// Bytes.
    bindable: u64,
}

impl Bindable {
    /// What `len` bytes of it are to the planner.
    #[inline]
    fn kind(&self, offset: u64, len: u64) -> Result<OpKind<BoId>, DecodeError> {
        if offset.checked_add(len).is_none_or(|end| end > self.bindable) {
            return Err(MEMORY_OUTSIDE);
        }
        Ok(OpKind::Map { object: self.object, offset })
    }
}

impl<'a> Decoder<'a> {
    pub fn new(device: &'a Device, sparse: &'a Sparse) -> Self {
        Self { device, sparse, last: Bindable::default() }
    }

    /// Appends what one batch wants.
    ///
    /// # Safety
    /// `info` is valid with everything it points to.
    pub unsafe fn batch(
        &mut self,
        info: &vk::BindSparseInfo<'_>,
        wants: &mut Vec<Want>,
    ) -> Result<(), DecodeError> {
        // SAFETY: the caller's promise, here and below.
        let group = unsafe { chain::find::<vk::DeviceGroupBindSparseInfo<'_>>(info.p_next) };
        if group.is_some_and(|group| group.resource_device_index != 0 || group.memory_device_index != 0) {
            return Err(DEVICE_INDEX);
        }
        // SAFETY: as above.
        let (buffers, opaque, images) = unsafe {
            (
                slice(info.p_buffer_binds, info.buffer_bind_count),
                slice(info.p_image_opaque_binds, info.image_opaque_bind_count),
                slice(info.p_image_binds, info.image_bind_count),
            )
        };
        for bind in buffers {
            let buffer = self.sparse.buffers.get(bind.buffer).ok_or(DecodeError::Buffer(bind.buffer))?;
            // SAFETY: as above.
            self.buffer(&buffer, unsafe { slice(bind.p_binds, bind.bind_count) }, wants)?;
        }
        for bind in opaque {
            let image = self.sparse.images.get(bind.image).ok_or(DecodeError::Image(bind.image))?;
            // SAFETY: as above.
            self.opaque(&image, unsafe { slice(bind.p_binds, bind.bind_count) }, wants)?;
        }
        for bind in images {
            let image = self.sparse.images.get(bind.image).ok_or(DecodeError::Image(bind.image))?;
            if !image.residency {
                return Err(DecodeError::NoResidency(bind.image));
            }
            if image.as_is {
                return Err(DecodeError::AsIs(bind.image));
            }
            // SAFETY: as above.
            self.blocks(&image, unsafe { slice(bind.p_binds, bind.bind_count) }, wants)?;
        }
        Ok(())
    }

    /// Apart from the rest: games bind by the thousand, and every instruction counts.
    #[inline(never)]
    fn buffer(
        &mut self,
        buffer: &Buffer,
        binds: &[vk::SparseMemoryBind],
        wants: &mut Vec<Want>,
    ) -> Result<(), DecodeError> {
        let Buffer { range, size, alignment, unbound, .. } = *buffer;
        let mut last = self.last;
        let before = wants.len();
        wants.resize(before + binds.len(), Want { range, kind: unbound });
        for (bind, want) in binds.iter().zip(&mut wants[before..]) {
            if bind.flags.contains(vk::SparseMemoryBindFlags::METADATA) {
                return Err(METADATA);
            }
            let len = checked_size(bind, range.len, size, alignment)?;
            want.range = VaRange { start: range.start + bind.resource_offset, len };
            if bind.memory != vk::DeviceMemory::null() {
                if bind.memory != last.memory {
                    last = self.look_up(bind.memory)?;
                }
                want.kind = last.kind(bind.memory_offset, len)?;
            }
        }
        Ok(())
    }

    /// Opaque binds: an image is ranges one after another, each somewhere of its own, and regions apart from them.
    fn opaque(
        &mut self,
        image: &Image,
        binds: &[vk::SparseMemoryBind],
        wants: &mut Vec<Want>,
    ) -> Result<(), DecodeError> {
        for bind in binds {
            let metadata = bind.flags.contains(vk::SparseMemoryBindFlags::METADATA);
            if metadata || bind.resource_offset >= image.size {
                let range = in_region(image, bind, metadata)?;
                let kind = self.backing(bind.memory, bind.memory_offset, range.len, image.unbound)?;
                wants.push(Want { range, kind });
                continue;
            }
            let size = checked_size(bind, image.size, image.size, image.alignment)?;
            let mut kind = self.backing(bind.memory, bind.memory_offset, size, image.unbound)?;
            let (mut offset, mut left) = (bind.resource_offset, size);
            for place in &image.opaque {
                if left == 0 {
                    break;
                }
                let span = place.len + image.padding;
                if offset >= span {
                    offset -= span;
                    continue;
                }
                let bound = left.min(place.len.saturating_sub(offset));
                if bound > 0 {
                    wants.push(Want { range: VaRange { start: place.start + offset, len: bound }, kind });
                }
                let len = left.min(span - offset);
                advance(&mut kind, len);
                left -= len;
                offset = 0;
            }
        }
        Ok(())
    }

    fn blocks(
        &mut self,
        image: &Image,
        binds: &[vk::SparseImageMemoryBind],
        wants: &mut Vec<Want>,
    ) -> Result<(), DecodeError> {
        wants.reserve(binds.len());
        for bind in binds {
            if bind.flags.contains(vk::SparseMemoryBindFlags::METADATA) {
                return Err(METADATA);
            }
            let aspects = bind.subresource.aspect_mask;
            let plane =
                image.planes.iter().find(|plane| !aspects.is_empty() && plane.aspects.contains(aspects));
            let plane = plane.ok_or(ASPECT)?;
            let layout = plane.layout.as_ref().ok_or(ASPECT)?;
            let block = layout.block;
            if bind.memory != vk::DeviceMemory::null() && bind.memory_offset % block != 0 {
                return Err(MISALIGNED);
            }
            let base = plane.range.start;
            let vk::ImageSubresource { mip_level, array_layer, .. } = bind.subresource;
            if let Some(at) = layout.single_block(mip_level, array_layer, bind.offset, bind.extent) {
                let kind = self.backing(bind.memory, bind.memory_offset, block, image.unbound)?;
                wants.push(Want { range: VaRange { start: base + at, len: block }, kind });
                continue;
            }
            let blocks = layout.blocks_of(mip_level, array_layer, bind.offset, bind.extent)?;
            let bytes = blocks.blocks() * block;
            let kind = self.backing(bind.memory, bind.memory_offset, bytes, image.unbound)?;
            layout.runs(&blocks, |offset, from, len| {
                let mut kind = kind;
                advance(&mut kind, from);
                wants.push(Want { range: VaRange { start: base + offset, len }, kind });
            });
        }
        Ok(())
    }

    /// What `len` bytes of memory are to the planner, or `unbound` for no memory.
    #[inline]
    fn backing(
        &mut self,
        memory: vk::DeviceMemory,
        offset: u64,
        len: u64,
        unbound: OpKind<BoId>,
    ) -> Result<OpKind<BoId>, DecodeError> {
        if memory == vk::DeviceMemory::null() {
            return Ok(unbound);
        }
        let last = if self.last.memory == memory { self.last } else { self.look_up(memory)? };
        last.kind(offset, len)
    }

    #[cold]
    fn look_up(&mut self, memory: vk::DeviceMemory) -> Result<Bindable, DecodeError> {
        let record = self.sparse.memories.get(memory).ok_or(DecodeError::UnknownMemory(memory))?;
        let object = record
            .object(self.device, self.sparse, memory)
            .map_err(|error| DecodeError::Memory { memory, error })?;
        self.last = Bindable { memory, object, bindable: record.bindable() };
        Ok(self.last)
    }
}

/// Where an opaque bind goes that is not for `[0, size)`.
#[cold]
fn in_region(image: &Image, bind: &vk::SparseMemoryBind, metadata: bool) -> Result<VaRange, DecodeError> {
    let regions = image.regions.iter().filter(|region| region.metadata == metadata);
    let mut holding = regions.filter_map(|region| {
        let resource_offset = bind.resource_offset.checked_sub(region.offset)?;
        (resource_offset < region.range.len).then_some((region.range, resource_offset))
    });
    let found = holding.next().ok_or(if metadata { METADATA } else { OFFSET_OUTSIDE })?;
    let (VaRange { start, len }, resource_offset) = found;
    let bind = vk::SparseMemoryBind { resource_offset, ..*bind };
    let len = checked_size(&bind, len, len, image.alignment)?;
    Ok(VaRange { start: start + resource_offset, len })
}

fn advance(kind: &mut OpKind<BoId>, len: u64) {
    if let OpKind::Map { offset, .. } = kind {
        *offset += len;
    }
}

/// The bytes that a bind of a linear resource covers. `bindable` is the resource's size in whole units of its
/// `alignment`, a power of two; a bind may also end where the application's own size (`asked`) ends, and then means the whole last
/// unit.
#[inline]
fn checked_size(
    bind: &vk::SparseMemoryBind,
    bindable: u64,
    asked: u64,
    alignment: u64,
) -> Result<u64, DecodeError> {
    let aligned = (bind.resource_offset | bind.size | bind.memory_offset) & (alignment - 1) == 0;
    let inside = bind.resource_offset < bindable && bind.size <= bindable - bind.resource_offset;
    if aligned && inside && bind.size != 0 {
        return Ok(bind.size);
    }
    checked_odd_size(bind, bindable, asked, alignment)
}

/// As [`checked_size`]: the binds that are not plainly right, rule by rule.
#[cold]
fn checked_odd_size(
    bind: &vk::SparseMemoryBind,
    bindable: u64,
    asked: u64,
    alignment: u64,
) -> Result<u64, DecodeError> {
    if bind.size == 0 {
        return Err(SIZE_ZERO);
    }
    if bind.resource_offset >= bindable {
        return Err(OFFSET_OUTSIDE);
    }
    if bind.size > bindable - bind.resource_offset {
        return Err(SIZE_OUTSIDE);
    }
    let has_memory = bind.memory != vk::DeviceMemory::null();
    if bind.resource_offset % alignment != 0 || (has_memory && bind.memory_offset % alignment != 0) {
        return Err(MISALIGNED);
    }
    if bind.size % alignment != 0 && bind.resource_offset + bind.size != asked {
        return Err(MISALIGNED);
    }
    Ok(bind.size.next_multiple_of(alignment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Region;
    use crate::layout::BLOCK;

    fn bind(resource_offset: u64, size: u64) -> vk::SparseMemoryBind {
        vk::SparseMemoryBind { resource_offset, size, ..Default::default() }
    }

    #[test]
    fn sizes_follow_the_rules() {
        let whole = 4 * BLOCK;
        assert_eq!(checked_size(&bind(0, whole), whole, whole - 5, BLOCK).unwrap(), whole);
        assert_eq!(checked_size(&bind(0, whole - 5), whole, whole - 5, BLOCK).unwrap(), whole);
        for (offset, size, rule) in [
            (0, 0, "01098"),
            (whole, BLOCK, "01099"),
            (BLOCK, whole, "01100"),
            (u64::MAX, BLOCK, "01099"),
            (BLOCK, u64::MAX, "01100"),
            (4096, BLOCK, "01096"),
            (0, 4096, "01096"),
        ] {
            let error = checked_size(&bind(offset, size), whole, whole - 5, BLOCK).unwrap_err();
            assert!(error.to_string().contains(rule), "{offset:#x} {size:#x}: {error}");
        }
    }
    #[test]
    fn tails_and_metadata_have_offsets_of_their_own() {
        const FAR: u64 = 3 << 61;
        let at = |start| VaRange { start, len: 2 * BLOCK };
        let region = |offset, start, metadata| Region { offset, range: at(start), metadata };
        let image = Image {
            size: BLOCK,
            alignment: BLOCK,
            opaque: vec![VaRange { start: 0, len: BLOCK }],
            padding: 0,
            regions: vec![region(FAR, 0x100_0000, false), region(0, 0x200_0000, true)],
            planes: Vec::new(),
            unbound: OpKind::Null,
            as_is: false,
            residency: true,
            requirements: None,
        };
        let ask = |offset, size, metadata| in_region(&image, &bind(offset, size), metadata);
        assert_eq!(ask(FAR, 2 * BLOCK, false).unwrap(), at(0x100_0000));
        assert_eq!(ask(BLOCK, BLOCK, true).unwrap(), VaRange { start: 0x200_0000 + BLOCK, len: BLOCK });
        for (offset, size, metadata, rule) in [
            (FAR + 2 * BLOCK, BLOCK, false, "01099"),
            (FAR + BLOCK, 2 * BLOCK, false, "01100"),
            (BLOCK, BLOCK, false, "01099"),
            (FAR, BLOCK, true, "01103"),
            (BLOCK / 2, BLOCK, true, "01096"),
        ] {
            let error = ask(offset, size, metadata).unwrap_err();
            assert!(error.to_string().contains(rule), "{offset:#x} {size:#x}: {error}");
        }
    }
}

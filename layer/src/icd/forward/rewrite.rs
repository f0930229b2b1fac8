//! From planned operations back to the binds that Vulkan has.

use super::boxes::{Joiner, Memory, behind};
use super::places::{Area, Part, Places, Resource};
use crate::address_space::BoId;
use crate::carrier::{Backing, Carrier, Objects, Sent};
use crate::layout::{BlockBox, PlaneLayout};
use ash::vk;
use core::ops::Range;
use gpuvm::{Op, OpKind};
use kmd::Errno;

/// The binds of a VkBindSparseInfo; their memory is used again.
#[derive(Default)]
pub struct Binds {
    bytes: Vec<vk::SparseMemoryBind>,
    blocks: Vec<vk::SparseImageMemoryBind>,
    buffers: Vec<(vk::Buffer, Range<usize>)>,
    opaque: Vec<(vk::Image, Range<usize>)>,
    images: Vec<(vk::Image, Range<usize>)>,
    joiner: Joiner,
}

/// The same, resource by resource, as VkBindSparseInfo points to it.
pub struct Infos<'a> {
    pub buffers: Vec<vk::SparseBufferMemoryBindInfo<'a>>,
    pub opaque: Vec<vk::SparseImageOpaqueMemoryBindInfo<'a>>,
    pub images: Vec<vk::SparseImageMemoryBindInfo<'a>>,
}

impl Binds {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.blocks.clear();
        self.buffers.clear();
        self.opaque.clear();
        self.images.clear();
    }

    /// Number of binds.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.blocks.len()
    }

    pub fn infos(&self) -> Infos<'_> {
        let buffers = self.buffers.iter().map(|(buffer, range)| {
            vk::SparseBufferMemoryBindInfo::default().buffer(*buffer).binds(&self.bytes[range.clone()])
        });
        let opaque = self.opaque.iter().map(|(image, range)| {
            vk::SparseImageOpaqueMemoryBindInfo::default().image(*image).binds(&self.bytes[range.clone()])
        });
        let images = self.images.iter().map(|(image, range)| {
            vk::SparseImageMemoryBindInfo::default().image(*image).binds(&self.blocks[range.clone()])
        });
        Infos { buffers: buffers.collect(), opaque: opaque.collect(), images: images.collect() }
    }

    /// Adds operations of one area, in the order of addresses.
    fn area(&mut self, resource: Resource, area: &Area, ops: impl Iterator<Item = (u64, u64, Memory)>) {
        match &area.part {
            Part::Bytes { offset, flags, step } => {
                let first = self.bytes.len();
                for (at, len, memory) in ops {
                    self.push_bytes(offset + at, len, memory, *flags, *step);
                }
                let range = first..self.bytes.len();
                match resource {
                    Resource::Buffer(buffer) => extend(&mut self.buffers, buffer, range),
                    Resource::Image(image) => extend(&mut self.opaque, image, range),
                }
            }
            Part::Blocks { aspects, layout } => {
                let Resource::Image(image) = resource else { return };
                let first = self.blocks.len();
                for (at, len, memory) in ops {
                    self.joiner.run(layout, at, len, memory);
                }
                self.joiner.finish(layout, |found| {
                    self.blocks.push(block_bind(*aspects, layout, &found.at, found.memory));
                });
                extend(&mut self.images, image, first..self.blocks.len());
            }
        }
    }

    fn push_bytes(
        &mut self,
        offset: u64,
        len: u64,
        memory: Memory,
        flags: vk::SparseMemoryBindFlags,
        step: Option<u64>,
    ) {
        let (mut at, mut memory) = (offset, memory);
        while at < offset + len {
            let end = step.map_or(u64::MAX, |step| (at / step + 1) * step).min(offset + len);
            let (handle, memory_offset) = memory.unwrap_or_default();
            self.bytes.push(vk::SparseMemoryBind {
                resource_offset: at,
                size: end - at,
                memory: handle,
                memory_offset,
                flags,
            });
            memory = behind(memory, end - at);
            at = end;
        }
    }
}

/// Adds binds of a resource to those that it has already, if those are the last.
fn extend<H: PartialEq>(spans: &mut Vec<(H, Range<usize>)>, resource: H, range: Range<usize>) {
    match spans.last_mut() {
        Some((last, span)) if *last == resource => span.end = range.end,
        _ if range.is_empty() => {}
        _ => spans.push((resource, range)),
    }
}

/// A box of blocks in texels; at the level's edge it ends with the level.
fn block_bind(
    aspect_mask: vk::ImageAspectFlags,
    layout: &PlaneLayout,
    at: &BlockBox,
    memory: Memory,
) -> vk::SparseImageMemoryBind {
    let level = layout.levels[at.level as usize].extent;
    let axis = |axis: usize, granularity: u32, size: u32| {
        let first = at.first[axis] * granularity;
        (first, at.count[axis].saturating_mul(granularity).min(size - first))
    };
    let (x, width) = axis(0, layout.granularity.width, level.width);
    let (y, height) = axis(1, layout.granularity.height, level.height);
    let (z, depth) = axis(2, layout.granularity.depth, level.depth);
    let (memory, memory_offset) = memory.unwrap_or_default();
    vk::SparseImageMemoryBind {
        subresource: vk::ImageSubresource { aspect_mask, mip_level: at.level, array_layer: at.layer },
        offset: vk::Offset3D { x: x as i32, y: y as i32, z: z as i32 },
        extent: vk::Extent3D { width, height, depth },
        memory,
        memory_offset,
        flags: vk::SparseMemoryBindFlags::empty(),
    }
}

/// Writes a plan down as binds, for a call to the driver that comes after.
pub struct Rewrite<'a> {
    pub places: &'a Places,
    pub binds: &'a mut Binds,
}

impl Carrier for Rewrite<'_> {
    fn carry(&mut self, chunks: &mut dyn Iterator<Item = &[Op<BoId>]>, objects: &Objects<'_>) -> Sent {
        let map = self.places.read();
        let mut sent = Sent { ops: 0, pieces: 0, calls: 0, end: Ok(()) };
        let before = self.binds.len();
        for chunk in chunks {
            let mut memories = Memories { objects, last: None };
            let mut rest = chunk;
            while let Some(op) = rest.first() {
                let Some((place, area)) = map.find(op.range.start) else {
                    sent.end = Err(Errno::FAULT);
                    return sent;
                };
                let count = rest.iter().take_while(|op| area.range.contains(op.range.start)).count();
                let (ops, behind) = rest.split_at(count);
                rest = behind;
                let mut missing = false;
                let ops = ops.iter().filter(|op| op.kind != OpKind::Unmap).map_while(|op| {
                    let memory = memories.of(op.kind);
                    missing |= memory.is_none();
                    Some((op.range.start - area.range.start, op.range.len, memory?))
                });
                self.binds.area(place.resource, area, ops);
                if missing {
                    sent.end = Err(Errno::BADF);
                    return sent;
                }
            }
            sent.ops += chunk.len();
        }
        sent.pieces = self.binds.len() - before;
        sent.calls = usize::from(sent.pieces > 0);
        sent
    }
}

/// Looks up what stands behind objects; neighbours mostly have the same.
struct Memories<'a, 'b> {
    objects: &'a Objects<'b>,
    last: Option<(BoId, vk::DeviceMemory)>,
}

impl Memories<'_, '_> {
    /// `None` where the object is none of the driver's.
    fn of(&mut self, kind: OpKind<BoId>) -> Option<Memory> {
        let OpKind::Map { object, offset } = kind else { return Some(None) };
        let memory = match self.last {
            Some((last, memory)) if last == object => memory,
            _ => match (self.objects)(object) {
                Some(Backing::Memory(memory)) => *memory,
                _ => return None,
            },
        };
        self.last = Some((object, memory));
        Some(Some((memory, offset)))
    }
}

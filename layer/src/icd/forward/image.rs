//! What there is to bind of a sparse image, by what its driver says.

use super::places::{Part, Tail};
use crate::format::{self, Plane};
use crate::image::{Image, ImagePlane, Region};
use crate::layout::PlaneLayout;
use ash::vk;
use gpuvm::VaRange;

/// An image before it has addresses.
pub struct Shape {
    size: u64,
    alignment: u64,
    residency: bool,
    planes: Vec<(vk::ImageAspectFlags, vk::ImageAspectFlags, PlaneLayout)>,
    /// Mip tails in the opaque range.
    tails: Vec<Tail>,
    /// Mip tails outside of it, and metadata.
    regions: Vec<(Tail, bool)>,
    /// Binds of blocks cannot be planned.
    pub as_is: bool,
}

impl Shape {
    /// `needs` and `sparse_needs` are the driver's answers for an image with this create info.
    pub fn new(
        info: &vk::ImageCreateInfo<'_>,
        needs: vk::MemoryRequirements,
        sparse_needs: &[vk::SparseImageMemoryRequirements],
    ) -> Self {
        let residency = info.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY);
        let mut shape = Self {
            size: needs.size,
            alignment: needs.alignment,
            residency,
            planes: Vec::new(),
            tails: Vec::new(),
            regions: Vec::new(),
            as_is: false,
        };
        if !residency {
            return shape;
        }
        let formats = format::planes(info.format);
        let (metadata, color): (Vec<_>, Vec<_>) = sparse_needs.iter().partition(|needs| is_metadata(needs));
        let planes: Option<Vec<_>> =
            color.iter().map(|needs| plane(info, needs, &formats, color.len(), shape.alignment)).collect();
        match planes {
            Some(planes) if !planes.is_empty() => shape.planes = planes,
            _ => {
                shape.as_is = true;
                return shape;
            }
        }
        for needs in sparse_needs.iter().filter(|needs| needs.image_mip_tail_size > 0) {
            let flags = needs.format_properties.flags;
            let single = flags.contains(vk::SparseImageFormatFlags::SINGLE_MIPTAIL);
            let tail = Tail {
                offset: needs.image_mip_tail_offset,
                size: needs.image_mip_tail_size,
                stride: needs.image_mip_tail_stride,
                layers: if single || needs.image_mip_tail_stride == 0 { 1 } else { info.array_layers },
            };
            let is_inside = tail.offset.checked_add(tail.span()).is_some_and(|end| end <= shape.size);
            if is_metadata(needs) || !is_inside {
                shape.regions.push((tail, is_metadata(needs)));
            } else {
                shape.tails.push(tail);
            }
        }
        debug_assert!(metadata.len() + color.len() == sparse_needs.len());
        shape
    }

    /// Its parts with their bytes: the opaque range, planes that have blocks, regions. And the tails in the opaque range.
    pub fn parts(&self, opaque_step: Option<u64>) -> (Vec<(u64, Part)>, Vec<Tail>) {
        let bytes = |offset, flags| Part::Bytes { offset, flags, step: opaque_step };
        let none = vk::SparseMemoryBindFlags::empty();
        let mut parts = vec![(self.size, bytes(0, none))];
        for (aspects, _, layout) in self.planes.iter().filter(|(.., layout)| layout.size > 0) {
            parts.push((layout.size, Part::Blocks { aspects: *aspects, layout: layout.clone() }));
        }
        for (tail, metadata) in &self.regions {
            let flags = if *metadata { vk::SparseMemoryBindFlags::METADATA } else { none };
            parts.push((tail.span(), bytes(tail.offset, flags)));
        }
        (parts, self.tails.clone())
    }

    /// The image, its parts at these addresses.
    pub fn at(self, ranges: &[VaRange]) -> Image {
        let mut ranges = ranges.iter().copied();
        let nowhere = VaRange { start: 0, len: 0 };
        let opaque = ranges.next().into_iter().collect();
        let planes = self.planes.into_iter().map(|(_, aspects, layout)| {
            let range = if layout.size > 0 { ranges.next() } else { None };
            ImagePlane { aspects, range: range.unwrap_or(nowhere), layout: Some(layout) }
        });
        let planes = planes.collect();
        let regions = self.regions.into_iter().zip(ranges);
        let regions =
            regions.map(|((tail, metadata), range)| Region { offset: tail.offset, range, metadata });
        Image {
            size: self.size,
            alignment: self.alignment,
            opaque,
            regions: regions.collect(),
            planes,
            residency: self.residency,
            as_is: self.as_is,
            requirements: None,
        }
    }
}

fn is_metadata(needs: &vk::SparseImageMemoryRequirements) -> bool {
    needs.format_properties.aspect_mask.contains(vk::ImageAspectFlags::METADATA)
}

/// A plane: the aspects to bind it by, those that it may be named by, and its blocks. `None` where what the driver says of it does not
/// fit the format: its binds would not mean what they say.
fn plane(
    info: &vk::ImageCreateInfo<'_>,
    needs: &vk::SparseImageMemoryRequirements,
    formats: &[Plane],
    count: usize,
    block: u64,
) -> Option<(vk::ImageAspectFlags, vk::ImageAspectFlags, PlaneLayout)> {
    let vk::SparseImageFormatProperties { aspect_mask, image_granularity: granularity, .. } =
        needs.format_properties;
    let format = match formats {
        [only] => only,
        several => several.iter().find(|plane| plane.aspects == aspect_mask)?,
    };
    if granularity.width == 0 || granularity.height == 0 || granularity.depth == 0 || block == 0 {
        return None;
    }
    // lavapipe gives the blocks of compressed formats in texel blocks, and takes them in texels.
    if (format.block.width, format.block.height, format.block.depth) != (1, 1, 1) {
        let texel_blocks = u64::from(granularity.width / format.block.width)
            * u64::from(granularity.height / format.block.height)
            * u64::from(granularity.depth / format.block.depth);
        if texel_blocks * u64::from(format.texel_bytes) != block {
            return None;
        }
    }
    // lavapipe says that depth is a colour; whoever binds it may name what it is.
    let is_alone = formats.len() == 1 && count == 1;
    let bound_by =
        if is_alone && !format.aspects.contains(aspect_mask) { format.aspects } else { aspect_mask };
    let named_by = if is_alone { aspect_mask | format.aspects } else { aspect_mask };
    let levels = needs.image_mip_tail_first_lod.min(info.mip_levels);
    let layout =
        PlaneLayout::new(format.extent_of(info.extent), granularity, levels, info.array_layers, block);
    Some((bound_by, named_by, layout))
}

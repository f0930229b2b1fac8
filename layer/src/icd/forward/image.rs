//! What there is to bind of a sparse image, by what its driver says.

use super::places::{Part, Tail};
use crate::format::{self, Plane};
use crate::image::{Image, ImagePlane, Region};
use crate::layout::PlaneLayout;
use ash::vk;
use gpuvm::{OpKind, VaRange};

/// An image before it has addresses.
pub struct Shape {
    size: u64,
    alignment: u64,
    residency: bool,
    planes: Vec<(vk::ImageAspectFlags, vk::ImageAspectFlags, PlaneLayout)>,
    /// Mip tails in the opaque range.
    tails: Vec<Tail>,
    /// Mip tails outside of it, and metadata, layer by layer: first byte, end, and whether it is metadata. No bind may reach from one
    /// layer's to the next.
    regions: Vec<(u64, u64, bool)>,
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
        let color: Vec<_> = sparse_needs.iter().filter(|needs| !is_metadata(needs)).collect();
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
                let pieces = tail.pieces().map(|(start, end)| (start, end, is_metadata(needs)));
                shape.regions.extend(pieces);
            } else {
                shape.tails.push(tail);
            }
        }
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
        for &(start, end, metadata) in &self.regions {
            let flags = if metadata { vk::SparseMemoryBindFlags::METADATA } else { none };
            parts.push((end - start, bytes(start, flags)));
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
        let regions = regions.map(|((offset, _, metadata), range)| Region { offset, range, metadata });
        Image {
            size: self.size,
            alignment: self.alignment,
            opaque,
            padding: 0,
            regions: regions.collect(),
            planes,
            residency: self.residency,
            unbound: OpKind::Null,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::BLOCK;
    use vk::ImageAspectFlags as Aspects;

    fn info(format: vk::Format) -> vk::ImageCreateInfo<'static> {
        vk::ImageCreateInfo::default()
            .flags(vk::ImageCreateFlags::SPARSE_BINDING | vk::ImageCreateFlags::SPARSE_RESIDENCY)
            .image_type(vk::ImageType::TYPE_2D)
            .format(format)
            .extent(vk::Extent3D { width: 2048, height: 1024, depth: 1 })
            .mip_levels(5)
            .array_layers(3)
    }

    fn needs(aspects: Aspects, granularity: (u32, u32), tail: [u64; 3]) -> vk::SparseImageMemoryRequirements {
        let (width, height) = granularity;
        vk::SparseImageMemoryRequirements {
            format_properties: vk::SparseImageFormatProperties {
                aspect_mask: aspects,
                image_granularity: vk::Extent3D { width, height, depth: 1 },
                flags: vk::SparseImageFormatFlags::empty(),
            },
            image_mip_tail_first_lod: 3,
            image_mip_tail_offset: tail[0],
            image_mip_tail_size: tail[1],
            image_mip_tail_stride: tail[2],
        }
    }

    fn shape(format: vk::Format, sparse_needs: &[vk::SparseImageMemoryRequirements]) -> Shape {
        let needs = vk::MemoryRequirements { size: 1024 * BLOCK, alignment: BLOCK, memory_type_bits: 1 };
        Shape::new(&info(format), needs, sparse_needs)
    }

    #[test]
    fn levels_before_the_tail_have_blocks() {
        let color = needs(Aspects::COLOR, (128, 128), [500 * BLOCK, BLOCK, 100 * BLOCK]);
        let shape = shape(vk::Format::R8G8B8A8_UNORM, &[color]);
        let (parts, tails) = shape.parts(None);
        let [(1024, ..), (blocks, Part::Blocks { aspects: Aspects::COLOR, layout })] =
            &parts.iter().map(|(len, part)| (len / BLOCK, part)).collect::<Vec<_>>()[..]
        else {
            panic!("{parts:?}")
        };
        assert_eq!((*blocks, layout.levels.len()), (3 * (16 * 8 + 8 * 4 + 4 * 2), 3));
        let tail = Tail { offset: 500 * BLOCK, size: BLOCK, stride: 100 * BLOCK, layers: 3 };
        assert_eq!(tails, [tail]);
        assert_eq!(tail.span(), 201 * BLOCK);
    }

    #[test]
    fn tails_elsewhere_and_metadata_are_regions() {
        const FAR: u64 = 3 << 61;
        let color = needs(Aspects::COLOR, (128, 128), [FAR, BLOCK, BLOCK]);
        let metadata = needs(Aspects::METADATA, (1, 1), [0, 2 * BLOCK, 2 * BLOCK]);
        let shape = shape(vk::Format::R8G8B8A8_UNORM, &[metadata, color]);
        assert!(!shape.as_is);
        let (parts, tails) = shape.parts(None);
        assert!(tails.is_empty());
        let bytes = |offset, flags| Part::Bytes { offset, flags, step: None };
        for layer in 0..3 {
            let metadata = bytes(layer * 2 * BLOCK, vk::SparseMemoryBindFlags::METADATA);
            assert_eq!(parts[2 + layer as usize], (2 * BLOCK, metadata));
            let tail = bytes(FAR + layer * BLOCK, vk::SparseMemoryBindFlags::empty());
            assert_eq!(parts[5 + layer as usize], (BLOCK, tail));
        }
        let ranges: Vec<_> =
            parts.iter().zip(1..).map(|((len, _), n)| VaRange { start: n << 32, len: *len }).collect();
        let image = shape.at(&ranges);
        let regions: Vec<_> = image.regions.iter().map(|r| (r.offset, r.range, r.metadata)).collect();
        assert_eq!(regions[0], (0, ranges[2], true));
        assert_eq!(regions[4], (FAR + BLOCK, ranges[6], false));
        assert_eq!((image.opaque[0], image.planes[0].range), (ranges[0], ranges[1]));
    }

    #[test]
    fn an_image_that_is_all_tail_has_a_plane_without_blocks() {
        let mut color = needs(Aspects::COLOR, (128, 128), [0, 8 * BLOCK, 8 * BLOCK]);
        color.image_mip_tail_first_lod = 0;
        let shape = shape(vk::Format::R8G8B8A8_UNORM, &[color]);
        let (parts, tails) = shape.parts(None);
        assert_eq!((parts.len(), tails.len()), (1, 1));
        let image = shape.at(&[VaRange { start: 1 << 32, len: 1024 * BLOCK }]);
        assert_eq!((image.planes.len(), image.planes[0].range.len), (1, 0));
    }

    #[test]
    fn blocks_that_do_not_fit_the_format_are_not_planned() {
        let in_texels = needs(Aspects::COLOR, (512, 256), [0; 3]);
        let in_texel_blocks = needs(Aspects::COLOR, (128, 64), [0; 3]);
        assert!(!shape(vk::Format::BC1_RGB_UNORM_BLOCK, &[in_texels]).as_is);
        assert!(shape(vk::Format::BC1_RGB_UNORM_BLOCK, &[in_texel_blocks]).as_is);
        assert!(shape(vk::Format::G8_B8R8_2PLANE_420_UNORM, &[in_texels]).as_is);
        let planes =
            [needs(Aspects::PLANE_0, (256, 256), [0; 3]), needs(Aspects::PLANE_1, (256, 128), [0; 3])];
        let planar = shape(vk::Format::G8_B8R8_2PLANE_420_UNORM, &planes);
        assert!(!planar.as_is);
        assert_eq!(planar.planes[1].2.levels[0].extent, vk::Extent3D { width: 1024, height: 512, depth: 1 });
        assert!(shape(vk::Format::R8G8B8A8_UNORM, &[]).as_is);
    }

    #[test]
    fn depth_goes_by_its_name_whatever_the_driver_calls_it() {
        let misnamed = shape(vk::Format::D32_SFLOAT, &[needs(Aspects::COLOR, (128, 128), [0; 3])]);
        let (bound_by, named_by, _) = misnamed.planes[0];
        assert_eq!((bound_by, named_by), (Aspects::DEPTH, Aspects::DEPTH | Aspects::COLOR));
        let apart = [needs(Aspects::DEPTH, (128, 128), [0; 3]), needs(Aspects::STENCIL, (256, 256), [0; 3])];
        let apart = shape(vk::Format::D32_SFLOAT_S8_UINT, &apart);
        let names: Vec<_> =
            apart.planes.iter().map(|(bound_by, named_by, _)| (*bound_by, *named_by)).collect();
        assert_eq!(names, [(Aspects::DEPTH, Aspects::DEPTH), (Aspects::STENCIL, Aspects::STENCIL)]);
    }
}

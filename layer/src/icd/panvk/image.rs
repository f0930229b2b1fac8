//! Sparse residency images on PanVK ([`INTERLEAVED_64K`]). A block is 64 KiB in one piece, blocks lie row
//! by row; the driver says where levels, layers, slices and rows begin.

use crate::device::Device;
use crate::format;
use crate::icd::direct::{Layout, PAGE, modifier};
use crate::layout::{BLOCK, Level, PlaneLayout};
use ash::vk;
use drm_fourcc::{DrmModifier, DrmVendor};

/// `DRM_FORMAT_MOD_ARM_INTERLEAVED_64K`: of the miscellaneous kind (bits 52 to 55) the second.
const INTERLEAVED_64K: DrmModifier = modifier(DrmVendor::Arm, 1 << 52 | 2);

/// Where the blocks of a residency image of `size` bytes are; `None` where what is known does not fit together.
pub fn layout(d: &Device, handle: vk::Image, size: u64, info: &vk::ImageCreateInfo<'_>) -> Option<Layout> {
    let [plane] = format::planes(info.format)[..] else { return None };
    // SAFETY: a new sparse image.
    let needs = unsafe { d.next.get_image_sparse_memory_requirements(handle) };
    let [needs] = needs[..] else { return None };
    let granularity = needs.format_properties.image_granularity;
    let texels = |granularity: u32, block: u32| u64::from(granularity / block);
    let bytes = texels(granularity.width, plane.block.width)
        * texels(granularity.height, plane.block.height)
        * u64::from(granularity.depth)
        * u64::from(plane.texel_bytes);
    if bytes != BLOCK {
        return None;
    }
    let extent = plane.extent_of(info.extent);
    let mut layout = PlaneLayout::new(extent, granularity, info.mip_levels, info.array_layers, BLOCK);
    let place = |(number, level): (u32, &mut Level)| -> Option<()> {
        let subresource =
            vk::ImageSubresource { aspect_mask: plane.view_aspect, mip_level: number, array_layer: 0 };
        // The specification keeps the answer for linear images to itself; PanVK answers for all.
        // SAFETY: a new image, and a subresource of it.
        let told = unsafe { d.next.get_image_subresource_layout(handle, subresource) };
        level.offset = told.offset;
        level.row_stride = told.row_pitch;
        // Where there is one slice or layer, its stride may be anything.
        if level.blocks.depth > 1 {
            level.slice_stride = told.depth_pitch;
        }
        if info.array_layers > 1 {
            level.layer_stride = told.array_pitch;
        }
        let row = u64::from(level.blocks.width) * BLOCK;
        let slice = u64::from(level.blocks.height - 1) * level.row_stride + row;
        let layer = u64::from(level.blocks.depth - 1) * level.slice_stride + slice;
        let last = u64::from(info.array_layers - 1).checked_mul(level.layer_stride)?;
        let end = level.offset.checked_add(last)?.checked_add(layer)?;
        let fits = level.offset % PAGE == 0
            && level.row_stride >= row
            && (level.blocks.depth == 1 || level.slice_stride >= slice)
            && (info.array_layers == 1 || level.layer_stride >= layer)
            && [level.row_stride, level.slice_stride, level.layer_stride]
                .iter()
                .all(|stride| stride % PAGE == 0)
            && end <= size;
        fits.then_some(())
    };
    let placed = (0..).zip(&mut layout.levels).map_while(place).count();
    // The driver calls the last level the mip tail, which is to be bound as bytes, and takes blocks of it all the same: of an image of one
    // level nobody thinks that it is all tail.
    if placed < needs.image_mip_tail_first_lod.min(info.mip_levels) as usize {
        return None;
    }
    layout.levels.truncate(placed);
    layout.size = size;
    Some(Layout { modifier: INTERLEAVED_64K, aspects: plane.aspects, blocks: layout, made: None })
}

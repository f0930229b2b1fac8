//! Sparse residency images on Turnip: it says where their levels are, and tiles them as the hardware wants it; all of that has to fit
//! together before a block is bound by it.

use crate::device::Device;
use crate::format::{self, Plane};
use crate::icd::direct::{Layout, modifier};
use crate::layout::{BLOCK, PlaneLayout};
use crate::tiles::{Banks, MACROTILE, Tile, Tiled, TiledLevel};
use ash::vk;
use drm_fourcc::{DrmModifier, DrmVendor};

/// `DRM_FORMAT_MOD_QCOM_TILED3`: tiled, and not compressed.
pub const TILED3: DrmModifier = modifier(DrmVendor::Qcom, 3);

/// How a residency image of the driver's is laid out; `None` where what is known does not fit together.
pub fn offered(
    banks: Banks,
    d: &Device,
    handle: vk::Image,
    size: u64,
    info: &vk::ImageCreateInfo<'_>,
) -> Option<Layout> {
    let [plane] = format::planes(info.format)[..] else { return None };
    // Two aspects that are stored apart are two planes of the driver's.
    // SAFETY: a new sparse image.
    let needs = unsafe { d.next.get_image_sparse_memory_requirements(handle) };
    let [needs] = needs[..] else { return None };
    if Some(needs.format_properties.image_granularity) != plane.granularity(info.image_type) {
        return None;
    }
    let blocks = blocks(banks, d, handle, size, info, &plane, needs.image_mip_tail_first_lod)?;
    Some(Layout { modifier: TILED3, aspects: plane.aspects, blocks, made: None })
}

/// Where the blocks of an image are whose levels from `tail` on are bound as bytes.
pub fn blocks(
    banks: Banks,
    d: &Device,
    handle: vk::Image,
    size: u64,
    info: &vk::ImageCreateInfo<'_>,
    plane: &Plane,
    tail: u32,
) -> Option<PlaneLayout> {
    if info.image_type != vk::ImageType::TYPE_2D {
        return None;
    }
    let granularity = plane.granularity(info.image_type)?;
    let tile = Tile::of(plane)?;
    let block =
        tile.macrotiles(granularity.width / plane.block.width, granularity.height / plane.block.height)?;
    if u64::from(block[0] * block[1]) * MACROTILE != BLOCK {
        return None;
    }
    let extent = plane.extent_of(info.extent);
    let mut layout = PlaneLayout::new(extent, granularity, info.mip_levels, info.array_layers, BLOCK);
    let mut tiled = Tiled { block, levels: Vec::new() };
    for (number, level) in (0..).zip(&mut layout.levels) {
        let subresource =
            vk::ImageSubresource { aspect_mask: plane.view_aspect, mip_level: number, array_layer: 0 };
        // The specification keeps the answer for linear images to itself; Turnip answers for all.
        // SAFETY: a new image, and a subresource of it.
        let told = unsafe { d.next.get_image_subresource_layout(handle, subresource) };
        let blocks = |texels: u32, block: u32| texels.div_ceil(block);
        let (width, height) =
            (blocks(level.extent.width, plane.block.width), blocks(level.extent.height, plane.block.height));
        let macrotiles = tile.macrotiles_around(width, height);
        let rows = tile.rows(told.row_pitch, banks);
        // Levels of the mip tail are bound as bytes: they may be too small for macrotiles.
        let rows = if number < tail { rows? } else { rows.unwrap_or_default() };
        level.offset = told.offset;
        level.layer_stride = told.array_pitch;
        let bytes = rows.pitch * u64::from(macrotiles[1]);
        let last_layer = u64::from(info.array_layers - 1) * told.array_pitch;
        let end = told.offset.checked_add(last_layer)?.checked_add(bytes)?;
        let fits =
            u64::from(macrotiles[0]) * MACROTILE <= rows.pitch && told.offset % MACROTILE == 0 && end <= size;
        if number < tail && !fits {
            return None;
        }
        tiled.levels.push(TiledLevel { rows, macrotiles });
    }
    // Blocks are bound in levels before the tail only.
    layout.levels.truncate(tail as usize);
    layout.tiled = Some(tiled);
    layout.size = size;
    Some(layout)
}

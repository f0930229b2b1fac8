//! Residency of 2D images on Adrenos for which Turnip does not offer it: it waits for hardware that sees compressed texels (UBWC) as any
//! format, which the A750 was the first to do. But images with residency are not compressed; and the memory of an image that is not can
//! be bound macrotile by macrotile wherever the kernel has null mappings.
//!
//! So the driver is asked for an image without residency, and has to be brought to tile it and not to compress it. It gives compression
//! up for images that may be seen as formats which it compresses differently, and tiling too for images that may be seen as formats
//! whose components it swaps ([`CLASSES`]). What it made of that is measured ([`layout`]); an image that came out otherwise is refused.

use super::image::{self, TILED3};
use crate::arrays::slice;
use crate::chain::{self, ChainCopy};
use crate::device::Device;
use crate::format::{self, Plane};
use crate::icd::Additions;
use crate::icd::direct::{self, Layout, Made, Named, StandIn};
use crate::layout::BLOCK;
use crate::tiles::{Banks, Tile};
use ash::vk::{self, Format as F, TaggedStructure as _};
use core::ffi::c_void;
use drm_fourcc::DrmModifier;

/// What the layer turns on for itself; and the feature that the driver must not hear of.
pub const ADDITIONS: Additions = Additions {
    edited: &[
        vk::StructureType::PHYSICAL_DEVICE_FEATURES_2,
        direct::ADDITIONS.edited[0],
        direct::ADDITIONS.edited[1],
    ],
    hide: Some(|features| features.sparse_residency_image2_d = vk::FALSE),
    ..direct::ADDITIONS
};

/// Formats of 32 bits that no other is compressed like.
const AS_32: [F; 2] = [F::R32_UINT, F::R32_SFLOAT];

/// Formats, from one number to another, with two that are as large: an image that may be seen as all of these is tiled and not compressed
/// (seen with Turnip 26.1.6 on every Adreno here). Not among them are `R8G8`, which the A740 compresses all the same or does not tile,
/// and what begins with blue.
const CLASSES: [(F, F, [F; 2]); 11] = [
    (F::R8_UNORM, F::R8_SRGB, [F::R8_UNORM, F::R8_UINT]),
    (F::R16_UNORM, F::R16_SFLOAT, [F::R16_UINT, F::R16_SFLOAT]),
    (F::R8G8B8A8_UNORM, F::R8G8B8A8_SRGB, AS_32),
    (F::A8B8G8R8_UNORM_PACK32, F::A8B8G8R8_SRGB_PACK32, AS_32),
    (F::A2B10G10R10_UNORM_PACK32, F::A2B10G10R10_SINT_PACK32, AS_32),
    (F::R16G16_UNORM, F::R16G16_SFLOAT, AS_32),
    (F::R32_UINT, F::R32_SFLOAT, AS_32),
    (F::B10G11R11_UFLOAT_PACK32, F::E5B9G9R9_UFLOAT_PACK32, AS_32),
    (F::R16G16B16A16_UNORM, F::R16G16B16A16_SFLOAT, [F::R32G32_UINT, F::R16G16B16A16_SFLOAT]),
    (F::R32G32_UINT, F::R32G32_SFLOAT, [F::R32G32_UINT, F::R16G16B16A16_SFLOAT]),
    (F::R32G32B32A32_UINT, F::R32G32B32A32_SFLOAT, [F::R32G32B32A32_UINT, F::R32G32B32A32_SFLOAT]),
];

/// Usages for which the driver does not tile, or maps the image's memory as a whole.
const OTHERWISE: vk::ImageUsageFlags = vk::ImageUsageFlags::from_raw(
    vk::ImageUsageFlags::FRAGMENT_DENSITY_MAP_EXT.as_raw() | vk::ImageUsageFlags::HOST_TRANSFER_EXT.as_raw(),
);

/// What is to be known of an image before there is one.
#[derive(Clone, Copy, Debug)]
pub struct Kind<'a> {
    pub format: F,
    pub image_type: vk::ImageType,
    pub tiling: vk::ImageTiling,
    pub usage: vk::ImageUsageFlags,
    pub flags: vk::ImageCreateFlags,
    /// The formats that it may be seen as, where it may be seen as others.
    pub views: &'a [F],
}

/// How the driver is asked for an image of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    pub flags: vk::ImageCreateFlags,
    /// The formats that the image may be seen as; none: what the application says.
    formats: Vec<F>,
}

fn class(format: F) -> Option<[F; 2]> {
    let number = format.as_raw();
    let found = CLASSES.iter().find(|(first, last, _)| (first.as_raw()..=last.as_raw()).contains(&number));
    found.map(|&(_, _, others)| others)
}

impl Asked {
    /// `None`: such an image cannot have residency.
    pub fn of(kind: &Kind<'_>) -> Option<Self> {
        let is_compressed = |format| format::info(format).is_some_and(|info| info.compressed);
        let mutable = kind.flags.contains(vk::ImageCreateFlags::MUTABLE_FORMAT);
        if kind.image_type != vk::ImageType::TYPE_2D
            || kind.tiling != vk::ImageTiling::OPTIMAL
            || kind.usage.intersects(OTHERWISE)
            // What may be seen as anything may be seen as what begins with blue.
            || (mutable && kind.views.is_empty())
        {
            return None;
        }
        let mut flags = kind.flags & !vk::ImageCreateFlags::SPARSE_RESIDENCY;
        let mut formats = if mutable { kind.views.to_vec() } else { Vec::new() };
        // Block-compressed formats are never compressed once more.
        if !is_compressed(kind.format) {
            let others = class(kind.format)?;
            flags |= vk::ImageCreateFlags::MUTABLE_FORMAT;
            formats.extend([kind.format, others[0], others[1]]);
            formats.sort_unstable();
            formats.dedup();
        }
        let stay_tiled = formats.iter().all(|&format| is_compressed(format) || class(format).is_some());
        stay_tiled.then_some(Self { flags, formats })
    }

    /// A chain that says so.
    ///
    /// # Safety
    /// `p_next` is null or a valid chain; it and `self` outlive every use of the answer.
    pub unsafe fn chain(&self, p_next: *const c_void) -> ChainCopy {
        const LIST: vk::StructureType = vk::ImageFormatListCreateInfo::STRUCTURE_TYPE;
        // SAFETY: the caller's promise.
        let mut chain = unsafe { ChainCopy::new_until(p_next, &[LIST]) };
        if !self.formats.is_empty() {
            chain.remove(LIST);
            chain.push_front(vk::ImageFormatListCreateInfo {
                view_format_count: self.formats.len() as u32,
                p_view_formats: self.formats.as_ptr(),
                ..Default::default()
            });
        }
        chain
    }
}

/// The formats that a chain lists.
///
/// # Safety
/// `p_next` is null or a chain that is valid for `'a`.
pub unsafe fn views<'a>(p_next: *const c_void) -> &'a [F] {
    // SAFETY: the caller's promise, here and below.
    let list = unsafe { chain::find::<vk::ImageFormatListCreateInfo<'a>>(p_next) };
    // SAFETY: as above.
    list.map_or(&[], |list| unsafe { slice(list.p_view_formats, list.view_format_count) })
}

/// What the driver is asked for in place of a residency image; `None`: it cannot be had.
///
/// # Safety
/// The create info is valid, and outlives the answer.
pub unsafe fn stand_in<'a>(info: &vk::ImageCreateInfo<'a>) -> Option<StandIn<'a>> {
    let kind = Kind {
        format: info.format,
        image_type: info.image_type,
        tiling: info.tiling,
        usage: info.usage,
        flags: info.flags,
        // SAFETY: the caller's promise.
        views: unsafe { views(info.p_next) },
    };
    let asked = Asked::of(&kind)?;
    // SAFETY: as above; the formats stay where they are when they are moved.
    let chain = unsafe { asked.chain(info.p_next) };
    let info = vk::ImageCreateInfo { flags: asked.flags, p_next: chain.as_ptr(), ..*info };
    Some(StandIn { info, _formats: asked.formats, _chain: chain })
}

/// How an image is laid out that takes the place of one with residency: as the driver would have laid out that one, apart from what it
/// leaves free behind the tail of a layer. `None` where what is known does not fit together.
pub fn layout(
    banks: Banks,
    d: &Device,
    handle: vk::Image,
    size: u64,
    info: &vk::ImageCreateInfo<'_>,
) -> Option<Layout> {
    let [plane] = format::planes(info.format)[..] else { return None };
    let modifier = measured(d, info, &plane)?;
    if modifier != TILED3 {
        tracing::info!(format = ?info.format, modifier = %Named(modifier), "not laid out as residency takes it");
        return None;
    }
    let granularity = plane.granularity(info.image_type)?;
    let levels = 0..info.mip_levels;
    let tail = levels.clone().find(|level| {
        let [width, height] = [info.extent.width, info.extent.height].map(|texels| (texels >> level).max(1));
        width < granularity.width || height < granularity.height
    });
    let blocks = image::blocks(banks, d, handle, size, info, &plane, tail.unwrap_or(levels.end))?;
    let told = |mip_level| {
        let subresource = vk::ImageSubresource { aspect_mask: plane.view_aspect, mip_level, array_layer: 0 };
        // SAFETY: a new image, and a subresource of it.
        unsafe { d.next.get_image_subresource_layout(handle, subresource) }
    };
    let layer = told(0).array_pitch;
    // What is compressed takes more.
    if layer.checked_mul(info.array_layers.into()) != Some(size) {
        return None;
    }
    let tail = tail.map(|level| (level, told(level).offset));
    let properties = vk::SparseImageFormatProperties {
        aspect_mask: plane.aspects,
        image_granularity: granularity,
        flags: vk::SparseImageFormatFlags::empty(),
    };
    // SAFETY: as above.
    let memory_type_bits = unsafe { d.next.get_image_memory_requirements(handle) }.memory_type_bits;
    let made = made(layer, tail, info, properties, memory_type_bits)?;
    Some(Layout { modifier, aspects: plane.aspects, blocks, made: Some(made) })
}

/// What an image needs whose layers are `layer` bytes, with the first level and the offset of its mip tail: the numbers that Turnip gives
/// for its own.
fn made(
    layer: u64,
    tail: Option<(u32, u64)>,
    info: &vk::ImageCreateInfo<'_>,
    format_properties: vk::SparseImageFormatProperties,
    memory_type_bits: u32,
) -> Option<Made> {
    let (first_level, offset) = tail.unwrap_or((info.mip_levels, layer.next_multiple_of(BLOCK)));
    let tail_size = layer.saturating_sub(offset).next_multiple_of(BLOCK);
    let span = offset + tail_size;
    Some(Made {
        memory: vk::MemoryRequirements {
            size: span.checked_mul(info.array_layers.into())?.checked_next_multiple_of(BLOCK)?,
            alignment: BLOCK,
            memory_type_bits,
        },
        sparse: vk::SparseImageMemoryRequirements {
            format_properties,
            image_mip_tail_first_lod: first_level,
            image_mip_tail_size: tail_size,
            image_mip_tail_offset: offset,
            image_mip_tail_stride: span,
        },
        layer,
        span,
    })
}

/// How the driver lays out what is asked for, by the memory that it wants for a small one; `None` where that says nothing.
fn measured(d: &Device, info: &vk::ImageCreateInfo<'_>, plane: &Plane) -> Option<DrmModifier> {
    let ([width, height], tiled) = Tile::of(plane)?.probe();
    let [width, height] = [width * plane.block.width, height * plane.block.height];
    let small = vk::ImageCreateInfo {
        // A cube's sides are squares.
        flags: info.flags & !vk::ImageCreateFlags::CUBE_COMPATIBLE,
        extent: vk::Extent3D { width, height, depth: 1 },
        mip_levels: 1,
        array_layers: 1,
        ..*info
    };
    let query = vk::DeviceImageMemoryRequirements::default().create_info(&small);
    let mut needs = vk::MemoryRequirements2::default();
    // SAFETY: a create info like that of an image that was made.
    unsafe { d.next.get_device_image_memory_requirements(&query, &mut needs) };
    Some(match needs.memory_requirements.size {
        size if size == tiled => TILED3,
        size if size > tiled => DrmModifier::Qcom_compressed,
        _ => DrmModifier::Linear,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESIDENCY: vk::ImageCreateFlags = vk::ImageCreateFlags::from_raw(
        vk::ImageCreateFlags::SPARSE_BINDING.as_raw() | vk::ImageCreateFlags::SPARSE_RESIDENCY.as_raw(),
    );

    fn kind(format: F) -> Kind<'static> {
        Kind {
            format,
            image_type: vk::ImageType::TYPE_2D,
            tiling: vk::ImageTiling::OPTIMAL,
            usage: vk::ImageUsageFlags::SAMPLED,
            flags: RESIDENCY,
            views: &[],
        }
    }

    #[test]
    fn the_driver_never_hears_of_residency() {
        for format in [F::R8_UNORM, F::R8G8B8A8_SRGB, F::R32G32_SFLOAT, F::BC7_SRGB_BLOCK] {
            let asked = Asked::of(&kind(format)).unwrap();
            assert!(asked.flags.contains(vk::ImageCreateFlags::SPARSE_BINDING));
            assert!(!asked.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY));
        }
    }

    #[test]
    fn images_may_be_seen_as_what_is_compressed_differently() {
        let asked = Asked::of(&kind(F::R8G8B8A8_UNORM)).unwrap();
        assert!(asked.flags.contains(vk::ImageCreateFlags::MUTABLE_FORMAT));
        assert_eq!(asked.formats, [F::R8G8B8A8_UNORM, F::R32_UINT, F::R32_SFLOAT]);
        let bc = Asked::of(&kind(F::BC1_RGBA_UNORM_BLOCK)).unwrap();
        assert!(!bc.flags.contains(vk::ImageCreateFlags::MUTABLE_FORMAT) && bc.formats.is_empty());
        // All that an image may be seen as is as large as it is.
        for (first, last, others) in CLASSES {
            for format in (first.as_raw()..=last.as_raw()).map(F::from_raw) {
                let bytes = |format| format::info(format).unwrap().block_bytes;
                assert!(others.iter().all(|&other| bytes(other) == bytes(format)), "{format:?}");
                assert!(format::planes(format)[0].aspects == vk::ImageAspectFlags::COLOR, "{format:?}");
            }
        }
    }

    #[test]
    fn what_the_application_lists_stays_listed() {
        let mutable = |format, views| {
            let flags = RESIDENCY | vk::ImageCreateFlags::MUTABLE_FORMAT;
            Asked::of(&Kind { flags, views, ..kind(format) })
        };
        let asked = mutable(F::R8G8B8A8_UNORM, &[F::R8G8B8A8_UNORM, F::R8G8B8A8_SRGB]).unwrap();
        assert_eq!(asked.formats, [F::R8G8B8A8_UNORM, F::R8G8B8A8_SRGB, F::R32_UINT, F::R32_SFLOAT]);
        let views = [F::BC1_RGBA_UNORM_BLOCK, F::BC1_RGBA_SRGB_BLOCK];
        assert_eq!(mutable(F::BC1_RGBA_UNORM_BLOCK, &views).unwrap().formats, views);
        // These would make the image linear.
        assert_eq!(mutable(F::R8G8B8A8_UNORM, &[]), None);
        assert_eq!(mutable(F::R8G8B8A8_UNORM, &[F::R8G8B8A8_UNORM, F::B8G8R8A8_UNORM]), None);
        assert_eq!(mutable(F::R16_UNORM, &[F::R16_UNORM, F::R8G8_UNORM]), None);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        for format in [F::R8G8_UNORM, F::B8G8R8A8_UNORM, F::R5G6B5_UNORM_PACK16, F::D32_SFLOAT, F::S8_UINT] {
            assert_eq!(Asked::of(&kind(format)), None, "{format:?}");
        }
        assert_eq!(Asked::of(&kind(F::R32G32B32_SFLOAT)), None);
        assert_eq!(Asked::of(&kind(F::G8_B8R8_2PLANE_420_UNORM)), None);
        let rgba = kind(F::R8G8B8A8_UNORM);
        for other in [
            Kind { image_type: vk::ImageType::TYPE_3D, ..rgba },
            Kind { tiling: vk::ImageTiling::LINEAR, ..rgba },
            Kind { usage: vk::ImageUsageFlags::HOST_TRANSFER_EXT, ..rgba },
        ] {
            assert_eq!(Asked::of(&other), None, "{other:?}");
        }
    }

    /// The numbers that the stock driver gave for images of four bytes a texel with residency of its own.
    #[test]
    fn requirements_are_the_drivers() {
        let numbers = |layer, tail, mip_levels, array_layers| {
            let info = vk::ImageCreateInfo { mip_levels, array_layers, ..Default::default() };
            let made = made(layer, tail, &info, Default::default(), 1).unwrap();
            let vk::SparseImageMemoryRequirements {
                image_mip_tail_first_lod: first,
                image_mip_tail_size: size,
                image_mip_tail_offset: offset,
                image_mip_tail_stride: stride,
                ..
            } = made.sparse;
            (made.memory.size, first, size, offset, stride)
        };
        let large = numbers(0x555_9000, Some((6, 0x555_0000)), 13, 1);
        assert_eq!(large, (0x556_0000, 6, 0x1_0000, 0x555_0000, 0x556_0000));
        let odd = numbers(0x3a_b000, Some((3, 0x39_c000)), 5, 3);
        assert_eq!(odd, (0xb1_0000, 3, 0x1_0000, 0x39_c000, 0x3a_c000));
        assert_eq!(numbers(0x1_4000, Some((0, 0)), 3, 2), (0x4_0000, 0, 0x2_0000, 0, 0x2_0000));
        assert_eq!(numbers(0x1_b000, None, 1, 1), (0x2_0000, 1, 0, 0x2_0000, 0x2_0000));
    }
}

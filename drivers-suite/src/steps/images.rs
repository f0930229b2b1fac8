//! Binds of images; a driver without residency of images skips them.

use super::{Needs, Resources, Step, shuffled};
use crate::gpu::{BLOCK, Gpu};
use anyhow::Result;
use ash::vk;

fn made(gpu: &Gpu, format: vk::Format, size: [u32; 2], levels: u32, layers: u32) -> Result<Resources> {
    if gpu.features.sparse_residency_image2_d == vk::FALSE {
        return Ok(Resources::default());
    }
    Ok(Resources { images: vec![gpu.image(format, size, levels, layers)?], ..Default::default() })
}

/// What the driver says of the blocks of an image.
fn needs(gpu: &Gpu, image: vk::Image) -> Vec<vk::SparseImageMemoryRequirements> {
    // SAFETY: a sparse image.
    unsafe { gpu.device.get_image_sparse_memory_requirements(image) }
}

fn block(gpu: &Gpu, aspect: vk::ImageAspectFlags, level: u32, layer: u32) -> vk::SparseImageMemoryBind {
    let subresource = vk::ImageSubresource { aspect_mask: aspect, mip_level: level, array_layer: layer };
    vk::SparseImageMemoryBind::default().subresource(subresource).memory(gpu.memory)
}

/// Binds all blocks of all levels before the tail one by one, in a shuffled order of memory.
fn every_block(gpu: &Gpu, image: vk::Image, size: [u32; 2], levels: u32, layers: u32) -> Result<()> {
    for needs in needs(gpu, image) {
        let properties = needs.format_properties;
        let [width, height] = [properties.image_granularity.width, properties.image_granularity.height];
        let aspect = properties.aspect_mask;
        let aspect = vk::ImageAspectFlags::from_raw(aspect.as_raw() & aspect.as_raw().wrapping_neg());
        let mut binds = Vec::new();
        for level in 0..levels.min(needs.image_mip_tail_first_lod) {
            let [w, h] = size.map(|size| (size >> level).max(1));
            for layer in 0..layers {
                for y in (0..h).step_by(height as usize) {
                    for x in (0..w).step_by(width as usize) {
                        let extent =
                            vk::Extent3D { width: width.min(w - x), height: height.min(h - y), depth: 1 };
                        let offset = vk::Offset3D { x: x as i32, y: y as i32, z: 0 };
                        binds.push(block(gpu, aspect, level, layer).offset(offset).extent(extent));
                    }
                }
            }
        }
        let order = shuffled(binds.len() as u64);
        for (bind, place) in binds.iter_mut().zip(order) {
            bind.memory_offset = place % 1024 * BLOCK;
        }
        gpu.bind_blocks(image, &binds)?;
    }
    Ok(())
}

/// Binds the mip tails.
fn tails(gpu: &Gpu, image: vk::Image, levels: u32, layers: u32) -> Result<()> {
    for needs in needs(gpu, image) {
        if needs.image_mip_tail_first_lod >= levels {
            continue;
        }
        let binds: Vec<_> = (0..u64::from(layers))
            .map(|layer| {
                let offset = needs.image_mip_tail_offset + layer * needs.image_mip_tail_stride;
                gpu.part(offset, needs.image_mip_tail_size, layer * needs.image_mip_tail_size)
            })
            .collect();
        gpu.bind_opaque(image, &binds)?;
    }
    Ok(())
}

const LARGE: [u32; 2] = [4096, 4096];
const ODD: [u32; 2] = [1000, 700];

fn large(gpu: &Gpu) -> Result<Resources> {
    made(gpu, vk::Format::R8G8B8A8_UNORM, LARGE, 13, 1)
}

fn blocks(gpu: &Gpu, on: &Resources, width: u32, height: u32) -> Result<()> {
    let Some(&image) = on.images.first() else { return Ok(()) };
    let extent = vk::Extent3D { width, height, depth: 1 };
    gpu.bind_blocks(image, &[block(gpu, vk::ImageAspectFlags::COLOR, 0, 0).extent(extent)])
}

fn one_block(gpu: &Gpu, on: &Resources) -> Result<()> {
    blocks(gpu, on, 128, 128)
}

fn square(gpu: &Gpu, on: &Resources) -> Result<()> {
    blocks(gpu, on, 2048, 2048)
}

fn level(gpu: &Gpu, on: &Resources) -> Result<()> {
    blocks(gpu, on, 4096, 4096)
}

fn unbound(gpu: &Gpu, on: &Resources) -> Result<()> {
    let Some(&image) = on.images.first() else { return Ok(()) };
    square(gpu, on)?;
    let extent = vk::Extent3D { width: 1024, height: 1024, depth: 1 };
    let bind = block(gpu, vk::ImageAspectFlags::COLOR, 0, 0).extent(extent);
    gpu.bind_blocks(image, &[bind.memory(vk::DeviceMemory::null())])
}

/// A step for a format: an odd size with several levels and layers, every block and the tails.
macro_rules! format {
    ($format:ident) => {
        Step {
            name: concat!("every block of ", stringify!($format)),
            needs: Needs::Nothing,
            prepare: |gpu| made(gpu, vk::Format::$format, ODD, 5, 3),
            run: |gpu, on| {
                let Some(&image) = on.images.first() else { return Ok(()) };
                every_block(gpu, image, ODD, 5, 3)?;
                tails(gpu, image, 5, 3)
            },
            fewest: None,
        }
    };
}

pub fn steps() -> Vec<Step> {
    let step = |name, prepare, run, fewest| Step { name, needs: Needs::Nothing, prepare, run, fewest };
    vec![
        step("one block of an image", large, one_block, Some(8)),
        step("16x16 blocks", large, square, Some(2048)),
        step("a whole level", large, level, Some(8192)),
        step("blocks bound and unbound", large, unbound, None),
        Step {
            name: "every block and the tail of a large image",
            needs: Needs::Nothing,
            prepare: large,
            run: |gpu, on| {
                let Some(&image) = on.images.first() else { return Ok(()) };
                every_block(gpu, image, LARGE, 13, 1)?;
                tails(gpu, image, 13, 1)
            },
            fewest: None,
        },
        format!(R8_UNORM),
        format!(R8G8_UNORM),
        format!(R16_UNORM),
        format!(R5G6B5_UNORM_PACK16),
        format!(R16G16_SFLOAT),
        format!(R32_SFLOAT),
        format!(A2B10G10R10_UNORM_PACK32),
        format!(B10G11R11_UFLOAT_PACK32),
        format!(R16G16B16A16_SFLOAT),
        format!(R32G32_UINT),
        format!(R32G32B32A32_SFLOAT),
        format!(BC1_RGBA_UNORM_BLOCK),
        format!(BC4_UNORM_BLOCK),
        format!(BC5_UNORM_BLOCK),
        format!(BC7_UNORM_BLOCK),
        format!(ETC2_R8G8B8_UNORM_BLOCK),
        format!(ASTC_6X5_UNORM_BLOCK),
        format!(D16_UNORM),
        format!(D32_SFLOAT),
        format!(D24_UNORM_S8_UINT),
        format!(S8_UINT),
        // Depth and stencil are stored apart.
        format!(D32_SFLOAT_S8_UINT),
    ]
}

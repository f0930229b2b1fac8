//! Binds of images; a driver without residency of images skips them.

use super::sync::DRIVERS_OWN;
use super::{Needs, Resources, Step, shuffled};
use crate::gpu::{BLOCK, Gpu};
use crate::image::Layers;
use anyhow::{Result, ensure};
use ash::vk;
use std::time::Duration;

fn made(gpu: &Gpu, format: vk::Format, size: [u32; 2], levels: u32, layers: u32) -> Result<Resources> {
    if !gpu.has_residency(format) {
        return Ok(Resources::default());
    }
    let image = gpu.image(format, size, levels, layers)?;
    let told = format!("{:?}", gpu.needs(format, size, levels, layers));
    let layers = Layers::of(gpu, image, levels, layers, told);
    Ok(Resources { images: vec![image], layers: Some(layers), ..Default::default() })
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

/// All queries say the same of an image.
fn same_needs(
    gpu: &Gpu,
    image: vk::Image,
    format: vk::Format,
    size: [u32; 2],
    levels: u32,
    layers: u32,
) -> Result<()> {
    let (memory, sparse) = gpu.needs(format, size, levels, layers);
    // SAFETY: a sparse image.
    let told = unsafe { gpu.device.get_image_memory_requirements(image) };
    ensure!(format!("{memory:?}") == format!("{told:?}"), "{memory:?}, and of the image {told:?}");
    let told = needs(gpu, image);
    ensure!(format!("{sparse:?}") == format!("{told:?}"), "{sparse:?}, and of the image {told:?}");
    Ok(())
}

/// A format that is offered can be had, and one that is not has no block shape.
fn formats(gpu: &Gpu, _: &Resources) -> Result<()> {
    let offered = gpu.features.sparse_residency_image2_d == vk::TRUE;
    for format in (1..=vk::Format::ASTC_12X12_SRGB_BLOCK.as_raw()).map(vk::Format::from_raw) {
        let has = gpu.has_residency(format);
        let shapes = gpu.sparse_properties(format).len();
        ensure!(!offered || has == (shapes > 0), "{format:?}: {shapes} block shapes, residency: {has}");
        if has {
            let image = gpu.image(format, ODD, 5, 3)?;
            // SAFETY: nothing uses it.
            unsafe { gpu.device.destroy_image(image, None) };
        }
    }
    Ok(())
}

/// Images come and go at the same addresses.
fn come_and_go(gpu: &Gpu, _: &Resources) -> Result<()> {
    for round in 0..20 {
        let image = gpu.image(vk::Format::R8G8B8A8_UNORM, ODD, 5, 3)?;
        let extent = vk::Extent3D { width: 128, height: 128, depth: 1 };
        let bind = block(gpu, vk::ImageAspectFlags::COLOR, round % 3, round % 2).extent(extent);
        gpu.bind_blocks(image, &[bind])?;
        // SAFETY: the bind is over.
        unsafe { gpu.device.destroy_image(image, None) };
    }
    Ok(())
}

/// A bind right after creation, while the job that leaves the new image unbound is held up: it must not come before it.
fn right_after_creation(gpu: &Gpu, _: &Resources) -> Result<()> {
    let timeline = gpu.timeline()?;
    let image = gpu.node.without(DRIVERS_OWN, || {
        let image = gpu.image(vk::Format::R8G8B8A8_UNORM, ODD, 5, 3)?;
        let extent = vk::Extent3D { width: 128, height: 128, depth: 1 };
        let binds = [block(gpu, vk::ImageAspectFlags::COLOR, 0, 0).extent(extent)];
        let images = [vk::SparseImageMemoryBindInfo::default().image(image).binds(&binds)];
        let mut values = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&[1]);
        let signals = [timeline];
        let info = vk::BindSparseInfo::default()
            .image_binds(&images)
            .signal_semaphores(&signals)
            .push_next(&mut values);
        // SAFETY: valid arguments; nobody else uses the queue.
        unsafe { gpu.device.queue_bind_sparse(gpu.queue, &[info], vk::Fence::null())? };
        std::thread::sleep(Duration::from_millis(50));
        // SAFETY: a timeline of the device.
        let value = unsafe { gpu.device.get_semaphore_counter_value(timeline)? };
        ensure!(value == 0, "a bind came before what it must come behind");
        Ok(image)
    })?;
    gpu.wait(timeline, 1)?;
    // SAFETY: the bind is over.
    unsafe {
        gpu.device.destroy_image(image, None);
        gpu.device.destroy_semaphore(timeline, None);
    }
    Ok(())
}

/// A step for a format: an odd size with several levels and layers, every block and the tails.
macro_rules! format {
    ($format:ident) => {
        format!($format, true)
    };
    ($format:ident, $extra:literal) => {
        Step {
            name: concat!("every block of ", stringify!($format)),
            needs: Needs::Nothing,
            prepare: |gpu| made(gpu, vk::Format::$format, ODD, 5, 3),
            run: |gpu, on| {
                let Some(&image) = on.images.first() else { return Ok(()) };
                every_block(gpu, image, ODD, 5, 3)?;
                tails(gpu, image, 5, 3)?;
                same_needs(gpu, image, vk::Format::$format, ODD, 5, 3)
            },
            fewest: None,
            extra: $extra,
        }
    };
}

pub fn steps() -> Vec<Step> {
    let step =
        |name, prepare, run, fewest| Step { name, needs: Needs::Nothing, prepare, run, fewest, extra: true };
    // With banks of which the GPU is told, the pieces of a block are others.
    let told = std::env::var("TESSERA_EMULATE").is_ok_and(|gpu| gpu.contains("hbb="));
    let fewest = |ops| (!told).then_some(ops);
    vec![
        step("one block of an image", large, one_block, fewest(8)),
        step("16x16 blocks", large, square, fewest(2048)),
        step("a whole level", large, level, fewest(8192)),
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
            extra: true,
        },
        Step {
            name: "what is said of formats",
            needs: Needs::Nothing,
            prepare: large,
            run: formats,
            fewest: None,
            extra: true,
        },
        Step {
            name: "an image right after creation",
            needs: Needs::OwnQueue,
            prepare: large,
            run: right_after_creation,
            fewest: None,
            extra: true,
        },
        Step {
            name: "images created, bound, destroyed",
            needs: Needs::Nothing,
            prepare: large,
            run: come_and_go,
            fewest: None,
            extra: true,
        },
        format!(R8_UNORM),
        format!(R8G8_UNORM, false),
        format!(R16_UNORM),
        format!(R5G6B5_UNORM_PACK16, false),
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
        format!(D16_UNORM, false),
        format!(D32_SFLOAT, false),
        format!(D24_UNORM_S8_UINT, false),
        format!(S8_UINT, false),
        // Depth and stencil are stored apart.
        format!(D32_SFLOAT_S8_UINT, false),
    ]
}

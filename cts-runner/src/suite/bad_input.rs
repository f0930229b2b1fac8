//! Invalid usage: the layer answers with an error (or does nothing where the rule allows it), and what was bound stays.

use super::buffer_rig::{Access, BufferRig, blocks};
use super::image_residency::{Shape, rig as image_rig};
use super::image_rig::ImageRig;
use super::{Case, Ctx};
use crate::gpu::{Batch, Gpu, Need, find_format, image_bind, memory_bind};
use crate::outcome::{Outcome, check};
use ash::vk;
use ash::vk::Handle as _;

const BLOCKS: u64 = 8;

/// What a bad call finds: a bound buffer, memory, and things that do not belong to it.
struct Scene<'g> {
    rig: BufferRig<'g>,
    buffer: usize,
    memory: usize,
}

impl<'g> Scene<'g> {
    fn new(gpu: &'g Gpu) -> Outcome<Self> {
        let mut rig = BufferRig::new(gpu, Access::Storage, vk::BufferCreateFlags::SPARSE_RESIDENCY)?;
        let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
        rig.bind(buffer, &[blocks(0, BLOCKS - 1, Some((memory, 1)))])?;
        rig.verify(buffer)?;
        Ok(Self { rig, buffer, memory })
    }

    fn handle(&self) -> vk::Buffer {
        self.rig.buffer_handle(self.buffer)
    }

    fn memory(&self) -> vk::DeviceMemory {
        self.rig.memory_handle(self.memory)
    }

    /// One bind of the bound buffer.
    fn bind(&self, offset: u64, size: u64, at: u64) -> Batch {
        Batch::new().buffer(self.handle(), vec![memory_bind(offset, size, Some((self.memory(), at)))])
    }

    /// Everything bound before is as it was, and a valid bind works.
    fn unharmed(&mut self) -> Outcome {
        self.rig.verify(self.buffer)?;
        self.rig.verify_memory()?;
        self.rig.bind(self.buffer, &[blocks(2, 3, Some((self.memory, 4)))])?;
        self.rig.write(self.buffer, 2, 1, 80)?;
        self.rig.verify(self.buffer)
    }
}

type Bad = fn(&Scene<'_>) -> Batch;

/// Binds of buffers that break a rule, by name.
const BUFFER: &[(&str, Bad)] = &[
    ("past_end", |s| s.bind((BLOCKS - 1) * s.rig.block, 2 * s.rig.block, 0)),
    ("offset_at_end", |s| s.bind(BLOCKS * s.rig.block, s.rig.block, 0)),
    ("far_offset", |s| s.bind(1 << 50, s.rig.block, 0)),
    ("overflowing_range", |s| s.bind(u64::MAX - s.rig.block + 1, s.rig.block, 0)),
    ("overflowing_size", |s| s.bind(s.rig.block, u64::MAX - s.rig.block + 1, 0)),
    ("misaligned_offset", |s| s.bind(16, s.rig.block, 0)),
    ("misaligned_size", |s| s.bind(0, s.rig.block + 100, 0)),
    ("misaligned_memory_offset", |s| s.bind(0, s.rig.block, 256)),
    ("zero_size", |s| s.bind(0, 0, 0)),
    ("memory_past_end", |s| s.bind(0, 2 * s.rig.block, (BLOCKS - 1) * s.rig.block)),
    ("memory_offset_at_end", |s| s.bind(0, s.rig.block, BLOCKS * s.rig.block)),
    ("memory_overflow", |s| s.bind(0, s.rig.block, u64::MAX - s.rig.block + 1)),
    ("metadata_flag", |s| {
        let mut bind = memory_bind(0, s.rig.block, Some((s.memory(), 0)));
        bind.flags = vk::SparseMemoryBindFlags::METADATA;
        Batch::new().buffer(s.handle(), vec![bind])
    }),
    ("null_buffer", |s| {
        let bind = memory_bind(0, s.rig.block, Some((s.memory(), 0)));
        Batch::new().buffer(vk::Buffer::null(), vec![bind])
    }),
    ("unknown_buffer", |s| {
        let bind = memory_bind(0, s.rig.block, Some((s.memory(), 0)));
        Batch::new().buffer(vk::Buffer::from_raw(0xdead_0000), vec![bind])
    }),
    ("unknown_memory", |s| {
        let memory = vk::DeviceMemory::from_raw(0xdead_0000);
        Batch::new().buffer(s.handle(), vec![memory_bind(0, s.rig.block, Some((memory, 0)))])
    }),
    ("device_index", |s| s.bind(0, s.rig.block, 0).device_group(1, 0)),
    ("unbind_past_end", |s| {
        Batch::new().buffer(s.handle(), vec![memory_bind((BLOCKS - 1) * s.rig.block, 2 * s.rig.block, None)])
    }),
    ("unbind_misaligned", |s| Batch::new().buffer(s.handle(), vec![memory_bind(20, s.rig.block, None)])),
    ("one_bad_among_good", |s| {
        let block = s.rig.block;
        let good = |index: u64| memory_bind(index * block, block, Some((s.memory(), 0)));
        let bad = memory_bind(3 * block, block, Some((s.memory(), BLOCKS * block)));
        Batch::new().buffer(s.handle(), vec![good(0), good(1), bad, good(4)])
    }),
];

type BadImage = fn(&mut vk::SparseImageMemoryBind, [u32; 3], &ImageRig<'_>);

/// What is done to a good bind of one tile of an image with full tiles at its origin: granularity and rig come along.
const IMAGE: &[(&str, BadImage)] = &[
    ("misaligned_offset", |bind, _, _| bind.offset.x = 1),
    ("negative_offset", |bind, granularity, _| bind.offset.y = -(granularity[1] as i32)),
    ("misaligned_extent", |bind, _, _| bind.extent.width -= 1),
    ("past_the_edge", |bind, granularity, _| bind.extent.width = granularity[0] * 100),
    ("offset_outside", |bind, granularity, _| bind.offset.x = granularity[0] as i32 * 100),
    ("zero_extent", |bind, _, _| bind.extent.height = 0),
    ("deep", |bind, _, _| bind.extent.depth = 2),
    ("level", |bind, _, rig| bind.subresource.mip_level = rig.spec.levels),
    ("layer", |bind, _, rig| bind.subresource.array_layer = rig.spec.layers),
    ("aspect", |bind, _, _| bind.subresource.aspect_mask = vk::ImageAspectFlags::DEPTH),
    ("no_aspect", |bind, _, _| bind.subresource.aspect_mask = vk::ImageAspectFlags::empty()),
    ("misaligned_memory_offset", |bind, _, _| bind.memory_offset += 256),
    ("memory_past_end", |bind, _, _| bind.memory_offset = 1 << 40),
    ("unknown_memory", |bind, _, _| bind.memory = vk::DeviceMemory::from_raw(0xdead_0000)),
];

pub(crate) fn add(cases: &mut Vec<Case>) {
    let buffer: &[Need] = &[Need::ResidencyBuffer];
    let image: &[Need] = &[Need::ResidencyBuffer, Need::ResidencyImage2D];
    for (name, bad) in BUFFER {
        let run = move |ctx: &Ctx| bad_buffer(ctx, *bad);
        cases.push(Case::new(format!("bad_input.buffer.{name}"), buffer, run).breaks_rules());
    }
    for (name, bad) in IMAGE {
        let run = move |ctx: &Ctx| bad_image(ctx, *bad);
        cases.push(Case::new(format!("bad_input.image.{name}"), image, run).breaks_rules());
    }
    cases.extend(
        [
            Case::new("bad_input.buffer.not_sparse", buffer, not_sparse),
            Case::new("bad_input.buffer.destroyed", buffer, destroyed),
            Case::new("bad_input.buffer.other_device", buffer, other_device),
            Case::new("bad_input.memory.other_device", buffer, other_device_memory),
            Case::new("bad_input.memory.freed", buffer, freed_memory),
            Case::new("bad_input.call.later_batch", buffer, later_batch),
            Case::new("bad_input.overlap.buffer", buffer, overlap),
            Case::new("bad_input.overlap.image", image, image_overlap),
            Case::new("bad_input.image.null", image, |ctx| other_image(ctx, Some(vk::Image::null()))),
            Case::new("bad_input.image.unknown", image, |ctx| {
                other_image(ctx, Some(vk::Image::from_raw(0xdead_0000)))
            }),
            Case::new("bad_input.image.without_residency", image, |ctx| other_image(ctx, None)),
            Case::new("bad_input.opaque.past_end", image, |ctx| opaque(ctx, |size, unit| (size, unit, 0))),
            Case::new("bad_input.opaque.misaligned", image, |ctx| opaque(ctx, |_, unit| (unit / 2, unit, 0))),
            Case::new("bad_input.opaque.zero_size", image, |ctx| opaque(ctx, |_, _| (0, 0, 0))),
            Case::new("bad_input.opaque.memory_past_end", image, |ctx| {
                opaque(ctx, |size, unit| (0, unit, size + 64 * unit))
            }),
        ]
        .map(Case::breaks_rules),
    );
}

/// The call fails without costing the device, and neither fence nor semaphore is touched.
fn refused(gpu: &Gpu, batches: &[Batch]) -> Outcome {
    let fence = gpu.fence()?;
    let answer = gpu.queue_bind(gpu.sparse[0], batches, fence);
    check!(answer.is_err(), "vkQueueBindSparse succeeded");
    check!(answer != Err(vk::Result::ERROR_DEVICE_LOST), "a bad bind cost the device");
    gpu.wait_idle()?;
    check!(!gpu.fence_signalled(fence)?, "the fence of a refused call is signalled");
    // The fence can be used as if the call had not been.
    gpu.queue_bind(gpu.sparse[0], &[], fence)
        .or_else(|error| crate::outcome::fail!("an empty call: {error:?}"))?;
    gpu.wait_fence(fence)
}

fn bad_buffer(ctx: &Ctx, bad: Bad) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut scene = Scene::new(&gpu)?;
    refused(&gpu, &[bad(&scene)])?;
    scene.unharmed()
}

/// A plain buffer.
fn not_sparse(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut scene = Scene::new(&gpu)?;
    let plain = gpu.host(4 * scene.rig.block, vk::BufferUsageFlags::empty())?;
    let bind = memory_bind(0, scene.rig.block, Some((scene.memory(), 0)));
    refused(&gpu, &[Batch::new().buffer(plain.buffer, vec![bind])])?;
    scene.unharmed()
}

/// A buffer that is no more.
fn destroyed(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut scene = Scene::new(&gpu)?;
    let gone = scene.rig.buffer(4)?;
    let gone = scene.rig.buffer_handle(gone);
    gpu.destroy(crate::gpu::Owned::Buffer(gone));
    let bind = memory_bind(0, scene.rig.block, Some((scene.memory(), 0)));
    refused(&gpu, &[Batch::new().buffer(gone, vec![bind])])?;
    scene.unharmed()
}

/// A buffer of another device.
fn other_device(ctx: &Ctx) -> Outcome {
    let (gpu, other) = (ctx.gpu()?, ctx.gpu()?);
    let mut scene = Scene::new(&gpu)?;
    let mut theirs = Scene::new(&other)?;
    let bind = memory_bind(0, scene.rig.block, Some((scene.memory(), 0)));
    refused(&gpu, &[Batch::new().buffer(theirs.handle(), vec![bind])])?;
    theirs.unharmed()?;
    scene.unharmed()
}

/// Memory of another device.
fn other_device_memory(ctx: &Ctx) -> Outcome {
    let (gpu, other) = (ctx.gpu()?, ctx.gpu()?);
    let mut scene = Scene::new(&gpu)?;
    let mut theirs = Scene::new(&other)?;
    let bind = memory_bind(0, scene.rig.block, Some((theirs.memory(), 0)));
    refused(&gpu, &[Batch::new().buffer(scene.handle(), vec![bind])])?;
    theirs.unharmed()?;
    scene.unharmed()
}

/// Memory that is no more.
fn freed_memory(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut scene = Scene::new(&gpu)?;
    let gone = gpu.memory(4 * scene.rig.block, scene.rig.memory_bits())?;
    gpu.destroy(crate::gpu::Owned::Memory(gone));
    let bind = memory_bind(0, scene.rig.block, Some((gone, 0)));
    refused(&gpu, &[Batch::new().buffer(scene.handle(), vec![bind])])?;
    scene.unharmed()
}

/// Good batches before and after a bad one: none of the call is done.
fn later_batch(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut scene = Scene::new(&gpu)?;
    let block = scene.rig.block;
    let batches =
        [scene.bind(0, block, 0), scene.bind(BLOCKS * block, block, 0), scene.bind(block, block, 0)];
    refused(&gpu, &batches)?;
    scene.unharmed()
}

/// One range twice in a batch: refused, or one of the two holds.
fn overlap(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut scene = Scene::new(&gpu)?;
    let first = [blocks(0, 4, Some((scene.memory, 0)))];
    let second = [blocks(2, 4, Some((scene.memory, 4)))];
    let both: Vec<_> = first.iter().chain(&second).copied().collect();
    let batch = scene.rig.batch(Batch::new(), scene.buffer, &both);
    match gpu.queue_bind(gpu.sparse[0], &[batch], vk::Fence::null()) {
        Err(error) => check!(error != vk::Result::ERROR_DEVICE_LOST, "an overlap cost the device"),
        Ok(()) => {
            gpu.wait_idle()?;
            scene.rig.note(scene.buffer, &first);
            scene.rig.note(scene.buffer, &second);
            if scene.rig.verify(scene.buffer).is_err() {
                scene.rig.note(scene.buffer, &first);
            }
        }
    }
    scene.unharmed()
}

/// A rig whose first image is bound and filled.
fn bound_image(gpu: &Gpu) -> Outcome<ImageRig<'_>> {
    let mut rig = image_rig(gpu, Shape::Array, find_format("r32_uint"), vk::ImageCreateFlags::empty())?;
    let tiles = rig.tiles(0);
    let first = rig.memory(tiles.len())?;
    let boxes: Vec<_> =
        tiles.iter().zip(first..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect();
    rig.bind(0, &boxes)?;
    rig.upload(0, &rig.bound(0), 1)?;
    Ok(rig)
}

/// What was bound is as it was, and tiles can be bound still.
fn image_unharmed(rig: &mut ImageRig<'_>) -> Outcome {
    rig.verify(0)?;
    let tiles = rig.tiles(0);
    let other = rig.memory(2)?;
    let boxes = [rig.single(0, tiles[0], Some(other)), rig.single(0, tiles[1], Some(other + 1))];
    let home =
        [rig.single(0, tiles[0], rig.slot(0, tiles[0])), rig.single(0, tiles[1], rig.slot(0, tiles[1]))];
    rig.bind(0, &boxes)?;
    rig.upload(0, &tiles[..2], 2)?;
    rig.verify(0)?;
    rig.bind(0, &home)?;
    rig.verify(0)
}

/// A good bind of one full tile to fresh memory.
fn good_tile(rig: &mut ImageRig<'_>) -> Outcome<vk::SparseImageMemoryBind> {
    let slot = rig.memory(1)?;
    let color = vk::ImageAspectFlags::COLOR;
    let subresource = vk::ImageSubresource { aspect_mask: color, mip_level: 0, array_layer: 0 };
    Ok(image_bind(subresource, [0; 3], rig.granularity, Some((rig.memory_of(slot), 0))))
}

fn bad_image(ctx: &Ctx, bad: BadImage) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = bound_image(&gpu)?;
    let mut bind = good_tile(&mut rig)?;
    bad(&mut bind, rig.granularity, &rig);
    refused(&gpu, &[Batch::new().image(rig.handle(0), vec![bind])])?;
    image_unharmed(&mut rig)
}

/// A handle that takes no tiles: one given, or else an image without partial residency.
fn other_image(ctx: &Ctx, handle: Option<vk::Image>) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = bound_image(&gpu)?;
    let bind = good_tile(&mut rig)?;
    let handle = match handle {
        Some(handle) => handle,
        None => {
            let flags = vk::ImageCreateFlags::SPARSE_BINDING;
            gpu.image(&crate::gpu::ImageSpec { flags, ..rig.spec })?
        }
    };
    refused(&gpu, &[Batch::new().image(handle, vec![bind])])?;
    image_unharmed(&mut rig)
}

/// One tile twice in a batch: refused, or one of the two holds.
fn image_overlap(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = bound_image(&gpu)?;
    let tile = rig.tiles(0)[0];
    let home = rig.single(0, tile, rig.slot(0, tile));
    let slot = rig.memory(2)?;
    let twice = [rig.single(0, tile, Some(slot)), rig.single(0, tile, Some(slot + 1))];
    let batch = rig.batch(Batch::new(), 0, &twice);
    match gpu.queue_bind(gpu.sparse[0], &[batch], vk::Fence::null()) {
        Err(error) => check!(error != vk::Result::ERROR_DEVICE_LOST, "an overlap cost the device"),
        Ok(()) => {
            gpu.wait_idle()?;
            rig.bind(0, &[home])?;
        }
    }
    image_unharmed(&mut rig)
}

/// An opaque bind `(offset, size, memory offset)` made from the image's size and alignment.
fn opaque(ctx: &Ctx, bad: fn(u64, u64) -> (u64, u64, u64)) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = bound_image(&gpu)?;
    let flags = vk::ImageCreateFlags::SPARSE_BINDING;
    let image = gpu.image(&crate::gpu::ImageSpec { flags, ..rig.spec })?;
    let requirements = gpu.image_requirements(image);
    let memory = gpu.memory(requirements.size, requirements.memory_type_bits)?;
    let (offset, size, at) = bad(requirements.size, requirements.alignment);
    refused(&gpu, &[Batch::new().opaque(image, vec![memory_bind(offset, size, Some((memory, at)))])])?;
    gpu.bind(&[Batch::new().opaque(image, vec![memory_bind(0, requirements.size, Some((memory, 0)))])])?;
    image_unharmed(&mut rig)
}

//! Ends: memory freed while it is bound, resources and devices destroyed with binds in them, handles used again.

use super::buffer_rig::{Access, BufferRig, blocks};
use super::image_residency::{Shape, rig as image_rig};
use super::{Case, Ctx};
use crate::gpu::{Batch, Gpu, Need, Owned, find_format, memory_bind, pattern};
use crate::outcome::{Outcome, Stop, check};
use ash::vk;

const BINDING: vk::BufferCreateFlags = vk::BufferCreateFlags::empty();
const BLOCKS: u64 = 8;

pub(crate) fn add(cases: &mut Vec<Case>) {
    let image: &[Need] = &[Need::ResidencyImage2D];
    let mistake = "validation takes a buffer with one freed block for freed as a whole";
    cases.extend(
        [
            Case::new("lifetime.memory.freed", &[], memory_freed).mistaken_above(mistake),
            Case::new("lifetime.memory.freed_partly", &[], memory_freed_partly).mistaken_above(mistake),
            Case::new("lifetime.memory.freed_then_unbound", &[], freed_then_unbound),
            Case::new("lifetime.memory.freed_image", image, image_memory_freed),
            Case::new("lifetime.memory.same_place_again", &[], same_place_again),
            Case::new("lifetime.buffer.destroyed_bound", &[], buffer_destroyed),
            Case::new("lifetime.image.destroyed_bound", image, image_destroyed),
            Case::new("lifetime.device.destroyed_bound", image, device_destroyed),
        ]
        .map(Case::detects_missing_maps),
    );
    cases.extend([
        Case::new("lifetime.nothing_bound", image, nothing_bound),
        Case::new("lifetime.churn.memory", &[], churn_memory),
        Case::new("lifetime.churn.buffers", &[], churn_buffers),
        Case::new("lifetime.churn.images", image, churn_images),
        Case::new("lifetime.churn.devices", &[], churn_devices),
    ]);
}

/// All memory of a buffer goes while it is bound; new memory takes its place.
fn memory_freed(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (buffer, one) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((one, 0)))])?;
    rig.verify(buffer)?;
    gpu.destroy(Owned::Memory(rig.memory_handle(one)));
    rig.forget_memory(one);
    let two = rig.memory(BLOCKS)?;
    rig.bind(buffer, &[blocks(2, 3, Some((two, 1)))])?;
    rig.verify(buffer)?;
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((two, 0)))])?;
    rig.verify(buffer)?;
    rig.write(buffer, 0, BLOCKS, 60)?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// Some of a buffer's memory goes; the rest works on.
fn memory_freed_partly(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (buffer, one, two) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?, rig.memory(BLOCKS)?);
    let binds: Vec<_> = (0..BLOCKS)
        .map(|block| blocks(block, 1, Some((if block % 2 == 0 { one } else { two }, block))))
        .collect();
    rig.bind(buffer, &binds)?;
    gpu.destroy(Owned::Memory(rig.memory_handle(one)));
    rig.forget_memory(one);
    rig.verify(buffer)?;
    for block in [1, 5] {
        rig.write(buffer, block, 1, 61)?;
    }
    rig.verify(buffer)?;
    // Binds that cross what is gone.
    rig.bind(buffer, &[blocks(3, 4, Some((two, 1)))])?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// What is gone may still be unbound, and bound again.
fn freed_then_unbound(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (buffer, one, two) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?, rig.memory(BLOCKS)?);
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((one, 0)))])?;
    gpu.destroy(Owned::Memory(rig.memory_handle(one)));
    rig.forget_memory(one);
    rig.bind(buffer, &[blocks(0, BLOCKS, None)])?;
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((two, 0)))])?;
    rig.verify(buffer)
}

/// The memory of some tiles goes; the others keep their texels, and new memory takes the place.
fn image_memory_freed(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = image_rig(&gpu, Shape::Array, find_format("r32_uint"), vk::ImageCreateFlags::empty())?;
    let tiles = rig.tiles(0);
    let (even, odd): (Vec<_>, Vec<_>) = tiles.iter().copied().partition(|tile| tile % 2 == 0);
    let (one, two) = (rig.memory(even.len())?, rig.memory(odd.len())?);
    let bind_to = |rig: &super::image_rig::ImageRig<'_>, tiles: &[usize], first: usize| -> Vec<_> {
        tiles.iter().zip(first..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect()
    };
    let (evens, odds) = (bind_to(&rig, &even, one), bind_to(&rig, &odd, two));
    rig.bind(0, &evens)?;
    rig.bind(0, &odds)?;
    rig.upload(0, &rig.bound(0), 1)?;
    rig.verify(0)?;
    gpu.destroy(Owned::Memory(rig.memory_of(one)));
    let gone: Vec<_> = even.iter().map(|&tile| rig.single(0, tile, None)).collect();
    rig.note(0, &gone);
    rig.verify(0)?;
    let three = rig.memory(even.len())?;
    let again = bind_to(&rig, &even, three);
    rig.bind(0, &again)?;
    rig.upload(0, &even, 2)?;
    rig.verify(0)?;
    // The tiles that stayed have their memory still, wherever they have been meanwhile.
    let four = rig.memory(odd.len())?;
    let away = bind_to(&rig, &odd, four);
    rig.bind(0, &away)?;
    rig.upload(0, &odd, 3)?;
    rig.verify(0)?;
    rig.bind(0, &odds)?;
    rig.verify(0)
}

/// New memory often gets the handle of memory just freed, and a new buffer the address of one destroyed: what was bound
/// before must not pass for bound.
fn same_place_again(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let sample = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (block, bits) = (sample.block, sample.memory_bits());
    let size = 4 * block;
    let usage = Access::Storage.usage();
    let sparse = vk::BufferCreateFlags::SPARSE_BINDING;
    let host = gpu.host(size, vk::BufferUsageFlags::empty())?;
    let mut buffer = gpu.buffer(size, usage, sparse)?;
    for round in 0..40_u32 {
        let words: Vec<u32> = (0..(size / 4) as u32).map(|index| pattern(70 + round, index)).collect();
        let memory = gpu.memory(size, bits)?;
        gpu.write_memory(memory, &words)?;
        gpu.bind(&[Batch::new().buffer(buffer, vec![memory_bind(0, size, Some((memory, 0)))])])?;
        gpu.copy_buffer(buffer, host.buffer, &[(0, 0, size)])?;
        check!(host.words() == words, "round {round}: the buffer shows other data than its new memory holds");
        match round % 3 {
            0 => gpu.destroy(Owned::Memory(memory)),
            1 => {
                gpu.destroy(Owned::Buffer(buffer));
                gpu.destroy(Owned::Memory(memory));
                buffer = gpu.buffer(size, usage, sparse)?;
            }
            _ => {
                gpu.destroy(Owned::Memory(memory));
                gpu.destroy(Owned::Buffer(buffer));
                buffer = gpu.buffer(size, usage, sparse)?;
            }
        }
    }
    Ok(())
}

/// A buffer goes with binds in it; its memory keeps the data and can be bound elsewhere.
fn buffer_destroyed(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (one, two, memory) = (rig.buffer(BLOCKS)?, rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
    rig.bind(one, &[blocks(0, BLOCKS, Some((memory, 0)))])?;
    rig.write(one, 0, BLOCKS, 62)?;
    gpu.destroy(Owned::Buffer(rig.buffer_handle(one)));
    rig.verify_memory()?;
    rig.bind(two, &[blocks(0, BLOCKS, Some((memory, 0)))])?;
    rig.verify(two)?;
    let three = rig.buffer(BLOCKS)?;
    rig.bind(three, &[blocks(1, 3, Some((memory, 4)))])?;
    rig.verify(three)?;
    rig.verify(two)
}

/// An image goes with binds in it; its memory keeps the texels for another image of its kind.
fn image_destroyed(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = image_rig(&gpu, Shape::Array, find_format("r16_uint"), vk::ImageCreateFlags::empty())?;
    let tiles = rig.tiles(0);
    let first = rig.memory(tiles.len())?;
    let boxes = |rig: &super::image_rig::ImageRig<'_>, image: usize| -> Vec<_> {
        tiles.iter().zip(first..).map(|(&tile, slot)| rig.single(image, tile, Some(slot))).collect()
    };
    let mine = boxes(&rig, 0);
    rig.bind(0, &mine)?;
    rig.upload(0, &tiles, 1)?;
    gpu.destroy(Owned::Image(rig.handle(0)));
    let second = rig.image()?;
    let theirs = boxes(&rig, second);
    rig.bind(second, &theirs)?;
    rig.verify(second)
}

/// Devices end with everything bound; the next one is not affected.
fn device_destroyed(ctx: &Ctx) -> Outcome {
    for _ in 0..3 {
        let gpu = ctx.gpu()?;
        let mut buffers = BufferRig::new(&gpu, Access::Storage, BINDING)?;
        let (buffer, memory) = (buffers.buffer(BLOCKS)?, buffers.memory(BLOCKS)?);
        buffers.bind(buffer, &[blocks(0, BLOCKS, Some((memory, 0)))])?;
        buffers.verify(buffer)?;
        let mut images =
            image_rig(&gpu, Shape::Flat, find_format("r32_uint"), vk::ImageCreateFlags::empty())?;
        let tiles = images.tiles(0);
        let first = images.memory(2 * tiles.len())?;
        for round in 0..3 {
            let slot = first + (round % 2) * tiles.len();
            let boxes: Vec<_> =
                tiles.iter().zip(slot..).map(|(&tile, slot)| images.single(0, tile, Some(slot))).collect();
            images.bind(0, &boxes)?;
            if round < 2 {
                images.upload(0, &tiles, round as u32)?;
            }
            images.verify(0)?;
        }
    }
    Ok(())
}

/// Sparse resources that nothing is ever bound to.
fn nothing_bound(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    for _ in 0..10 {
        rig.buffer(BLOCKS)?;
    }
    image_rig(&gpu, Shape::Flat, find_format("r32_uint"), vk::ImageCreateFlags::empty())?;
    Ok(())
}

/// Open file descriptors and mappings of this process.
fn usage() -> Outcome<(usize, usize)> {
    let failed = |error: std::io::Error| Stop::Fail(format!("/proc/self: {error}"));
    let descriptors = std::fs::read_dir("/proc/self/fd").map_err(failed)?.count();
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(failed)?.lines().count();
    Ok((descriptors, maps))
}

/// Runs `round` a few times to warm up and then `count` times more: neither descriptors nor mappings may pile up.
fn churn(count: usize, mut round: impl FnMut() -> Outcome) -> Outcome {
    for _ in 0..10 {
        round()?;
    }
    let before = usage()?;
    for _ in 0..count {
        round()?;
    }
    let after = usage()?;
    check!(after.0 <= before.0 + 8, "{} descriptors became {} in {count} rounds", before.0, after.0);
    check!(after.1 <= before.1 + 64, "{} mappings became {} in {count} rounds", before.1, after.1);
    Ok(())
}

/// Memory is allocated, bound and freed over and over.
fn churn_memory(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Copy, BINDING)?;
    let (buffer, bits, block) = (rig.buffer(4)?, rig.memory_bits(), rig.block);
    let buffer = rig.buffer_handle(buffer);
    churn(500, || {
        let memory = gpu.memory(2 * block, bits)?;
        let bind = memory_bind(block, 2 * block, Some((memory, 0)));
        gpu.bind(&[Batch::new().buffer(buffer, vec![bind])])?;
        gpu.destroy(Owned::Memory(memory));
        Ok(())
    })
}

/// Buffers are created, bound and destroyed over and over.
fn churn_buffers(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let rig = BufferRig::new(&gpu, Access::Copy, BINDING)?;
    let memory = gpu.memory(4 * rig.block, rig.memory_bits())?;
    churn(500, || {
        let flags = vk::BufferCreateFlags::SPARSE_BINDING;
        let buffer = gpu.buffer(8 * rig.block, Access::Copy.usage(), flags)?;
        let binds = [0, 2, 5].map(|block| memory_bind(block * rig.block, rig.block, Some((memory, 0))));
        gpu.bind(&[Batch::new().buffer(buffer, binds.to_vec())])?;
        gpu.destroy(Owned::Buffer(buffer));
        Ok(())
    })
}

/// Images are created, bound and destroyed over and over.
fn churn_images(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    churn(40, || {
        let mut rig = image_rig(&gpu, Shape::Flat, find_format("r32_uint"), vk::ImageCreateFlags::empty())?;
        let tiles = rig.tiles(0);
        let first = rig.memory(tiles.len())?;
        let boxes: Vec<_> = tiles
            .iter()
            .step_by(2)
            .zip(first..)
            .map(|(&tile, slot)| rig.single(0, tile, Some(slot)))
            .collect();
        rig.bind(0, &boxes)?;
        gpu.destroy(Owned::Image(rig.handle(0)));
        gpu.destroy(Owned::Memory(rig.memory_of(first)));
        Ok(())
    })
}

/// Devices are created, used and destroyed over and over.
fn churn_devices(ctx: &Ctx) -> Outcome {
    churn(20, || {
        let gpu: Gpu = ctx.gpu()?;
        let mut rig = BufferRig::new(&gpu, Access::Copy, BINDING)?;
        let (buffer, memory) = (rig.buffer(2)?, rig.memory(2)?);
        rig.bind(buffer, &[blocks(0, 2, Some((memory, 0)))])?;
        rig.verify(buffer)
    })
}

//! Sparse buffers through every way to read and write them: binding, residency, aliasing, rebinding, unbinding.

use super::buffer_rig::{Access, BlockBind, BufferRig, blocks};
use super::random::Random;
use super::{Case, Ctx};
use crate::gpu::{Batch, Need};
use crate::outcome::{Outcome, check};
use ash::vk;

const BINDING: vk::BufferCreateFlags = vk::BufferCreateFlags::empty();
const RESIDENCY: vk::BufferCreateFlags = vk::BufferCreateFlags::SPARSE_RESIDENCY;
const ALIASED: vk::BufferCreateFlags = vk::BufferCreateFlags::SPARSE_ALIASED;

/// The blocks of most buffers here: enough for patterns, little enough to read them all.
const BLOCKS: u64 = 12;

pub(crate) fn add(cases: &mut Vec<Case>) {
    for access in Access::ALL {
        let needs = match access {
            Access::Address => vec![Need::Address],
            Access::Vertex | Access::Index => vec![Need::VertexStores],
            _ => vec![],
        };
        let mut case = |what: &str, more: &[Need], run: fn(&Ctx, Access) -> Outcome| {
            let name = format!("buffer.{}.{what}", access.name());
            let needs: Vec<_> = needs.iter().chain(more).copied().collect();
            cases.push(Case::new(name, &needs, move |ctx| run(ctx, access)).detects_missing_maps());
        };
        case("whole", &[], whole);
        case("pieces", &[], pieces);
        case("rebind", &[], rebind);
        case("residency", &[Need::ResidencyBuffer], residency);
        case("aliased", &[Need::Aliased], aliased_in_one_buffer);
        case("two_buffers", &[Need::Aliased], two_buffers);
    }
    let residency = &[Need::ResidencyBuffer];
    cases.push(Case::new("buffer.walk.binding", &[], |ctx| walk(ctx, BINDING)).detects_missing_maps());
    cases.push(
        Case::new("buffer.walk.residency", residency, |ctx| walk(ctx, RESIDENCY)).detects_missing_maps(),
    );
    cases.push(Case::new("buffer.address.stays", &[Need::Address], address_stays).detects_missing_maps());
    cases.push(Case::new("buffer.size.odd", &[], odd_size).detects_missing_maps());
    cases.push(Case::new("buffer.size.last_block", &[], last_block).detects_missing_maps());
    cases.push(Case::new("buffer.batch.two_buffers", &[], one_batch).detects_missing_maps());
    cases.push(Case::new("buffer.batch.several_infos", &[], same_buffer_twice).detects_missing_maps());
    cases.push(Case::new("buffer.busy", &[Need::Timeline], busy).detects_missing_maps());
    cases.push(Case::new("buffer.many", &[], many).detects_missing_maps());
    cases.push(Case::new("buffer.huge", residency, huge).detects_missing_maps());
    cases.push(Case::new("buffer.unbound.survives", residency, unbound_survives).touches_unbound());
    let strict = &[Need::ResidencyBuffer, Need::Strict];
    cases.push(Case::new("buffer.unbound.strict", strict, unbound_strict).touches_unbound());
}

/// One bind of everything, read, then written and read again.
fn whole(ctx: &Ctx, access: Access) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, access, BINDING)?;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS + 2)?);
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((memory, 1)))])?;
    rig.verify(buffer)?;
    rig.write(buffer, 0, BLOCKS, 7)?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// A bind a block in an odd order, each block from another place of two memory objects.
fn pieces(ctx: &Ctx, access: Access) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, access, BINDING)?;
    let (buffer, one, two) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?, rig.memory(BLOCKS)?);
    let mut random = Random::new(1);
    let mut places: Vec<_> = (0..BLOCKS).collect();
    random.shuffle(&mut places);
    let mut binds: Vec<BlockBind> = (0..BLOCKS)
        .map(|block| blocks(block, 1, Some((if block % 3 == 0 { one } else { two }, places[block as usize]))))
        .collect();
    random.shuffle(&mut binds);
    rig.bind(buffer, &binds)?;
    rig.verify(buffer)?;
    rig.write(buffer, 0, BLOCKS, 8)?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// Moves parts of a bound buffer to other memory and back: contents belong to memory.
fn rebind(ctx: &Ctx, access: Access) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, access, BINDING)?;
    let (buffer, one, two) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?, rig.memory(BLOCKS)?);
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((one, 0)))])?;
    rig.write(buffer, 0, BLOCKS, 9)?;
    rig.bind(buffer, &[blocks(3, 4, Some((two, 2)))])?;
    rig.verify(buffer)?;
    rig.write(buffer, 2, 6, 10)?;
    rig.verify(buffer)?;
    rig.bind(buffer, &[blocks(3, 4, Some((one, 3)))])?;
    rig.verify(buffer)?;
    // The same binds again change nothing.
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((one, 0)))])?;
    rig.verify(buffer)?;
    // One block later, across the boundary of what was one mapping.
    rig.bind(buffer, &[blocks(0, BLOCKS - 1, Some((one, 1)))])?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// Parts stay unbound; others are unbound and bound again.
fn residency(ctx: &Ctx, access: Access) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, access, RESIDENCY)?;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
    rig.bind(
        buffer,
        &[blocks(1, 3, Some((memory, 0))), blocks(6, 1, Some((memory, 5))), blocks(9, 3, Some((memory, 7)))],
    )?;
    rig.verify(buffer)?;
    rig.write(buffer, 1, 3, 11)?;
    rig.write(buffer, 9, 3, 11)?;
    rig.verify(buffer)?;
    rig.bind(buffer, &[blocks(2, 1, None), blocks(9, 2, None)])?;
    rig.verify(buffer)?;
    // Unbinding what is unbound is no mistake.
    rig.bind(buffer, &[blocks(2, 1, None), blocks(4, 2, None)])?;
    rig.verify(buffer)?;
    rig.bind(buffer, &[blocks(2, 1, Some((memory, 1))), blocks(4, 2, Some((memory, 10)))])?;
    rig.verify(buffer)?;
    rig.bind(buffer, &[blocks(0, BLOCKS, None)])?;
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((memory, 0)))])?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// Two ranges of one buffer show the same memory.
fn aliased_in_one_buffer(ctx: &Ctx, access: Access) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, access, ALIASED)?;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
    let half = BLOCKS / 2;
    rig.bind(buffer, &[blocks(0, half, Some((memory, 1))), blocks(half, half, Some((memory, 1)))])?;
    rig.verify(buffer)?;
    rig.write(buffer, 0, half, 12)?;
    rig.verify(buffer)?;
    rig.write(buffer, half + 1, 2, 13)?;
    rig.verify(buffer)?;
    // Every block the same one.
    let binds: Vec<_> = (0..BLOCKS).map(|block| blocks(block, 1, Some((memory, 2)))).collect();
    rig.bind(buffer, &binds)?;
    rig.write(buffer, 5, 1, 14)?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// Two buffers show the same memory, in another order.
fn two_buffers(ctx: &Ctx, access: Access) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, access, ALIASED)?;
    let (one, two, memory) = (rig.buffer(BLOCKS)?, rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
    rig.bind(one, &[blocks(0, BLOCKS, Some((memory, 0)))])?;
    let backwards: Vec<_> =
        (0..BLOCKS).map(|block| blocks(block, 1, Some((memory, BLOCKS - 1 - block)))).collect();
    rig.bind(two, &backwards)?;
    rig.write(one, 0, BLOCKS, 15)?;
    rig.verify(two)?;
    rig.write(two, 2, 5, 16)?;
    rig.verify(one)?;
    rig.verify(two)?;
    rig.verify_memory()
}

/// Random binds and writes, everything checked after each step.
fn walk(ctx: &Ctx, flags: vk::BufferCreateFlags) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, flags)?;
    let size = 24;
    let (buffer, one, two) = (rig.buffer(size)?, rig.memory(size)?, rig.memory(size)?);
    rig.bind(buffer, &[blocks(0, size, Some((one, 0)))])?;
    let mut random = Random::new(2);
    for step in 0..60 {
        let mut binds = Vec::new();
        let mut first = random.below(4);
        while first < size {
            let count = 1 + random.below((size - first).min(5));
            let to = match random.below(if flags.is_empty() { 2 } else { 3 }) {
                0 => Some((one, random.below(size - count + 1))),
                1 => Some((two, random.below(size - count + 1))),
                _ => None,
            };
            binds.push(blocks(first, count, to));
            first += count + random.below(4);
        }
        random.shuffle(&mut binds);
        rig.bind(buffer, &binds)?;
        let block = random.below(size);
        if rig.is_bound(buffer, block) {
            rig.write(buffer, block, 1, 100 + step)?;
        }
        rig.verify(buffer)?;
    }
    rig.verify_memory()
}

/// The address of a buffer is the same before and after binds.
fn address_stays(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Address, BINDING)?;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
    let handle = rig.buffer_handle(buffer);
    let before = gpu.buffer_address(handle);
    check!(before != 0, "the address of a sparse buffer is null");
    for shift in [0, 1, 2] {
        rig.bind(buffer, &[blocks(0, BLOCKS - 2, Some((memory, shift)))])?;
        let after = gpu.buffer_address(handle);
        check!(after == before, "the address moved from {before:#x} to {after:#x}");
        rig.verify(buffer)?;
    }
    Ok(())
}

/// A size that is no multiple of the block: the last block is bound whole, as its requirements say.
fn odd_size(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let usage = Access::Storage.usage();
    for size in [4, 1000, 65_532, 65_540, 200_004] {
        let buffer = gpu.buffer(size, usage, vk::BufferCreateFlags::SPARSE_BINDING)?;
        let requirements = gpu.buffer_requirements(buffer);
        check!(
            requirements.size >= size && requirements.size % requirements.alignment == 0,
            "a sparse buffer of {size} bytes has requirements {requirements:?}"
        );
        let words: Vec<u32> = (0..(requirements.size / 4) as u32)
            .map(|index| crate::gpu::pattern(size as u32, index))
            .collect();
        let memory = gpu.memory(requirements.size, requirements.memory_type_bits)?;
        gpu.write_memory(memory, &words)?;
        let bind = crate::gpu::memory_bind(0, requirements.size, Some((memory, 0)));
        gpu.bind(&[Batch::new().buffer(buffer, vec![bind])])?;
        let host = gpu.host(size, vk::BufferUsageFlags::empty())?;
        gpu.copy_buffer(buffer, host.buffer, &[(0, 0, size)])?;
        check!(host.words() == words[..(size / 4) as usize], "a buffer of {size} bytes reads other data");
    }
    Ok(())
}

/// The last block alone, then the first alone.
fn last_block(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.memory(2)?);
    rig.bind(buffer, &[blocks(BLOCKS - 1, 1, Some((memory, 1)))])?;
    rig.verify_through(buffer, Access::Copy)?;
    rig.bind(buffer, &[blocks(0, 1, Some((memory, 0)))])?;
    rig.verify_through(buffer, Access::Copy)
}

/// Two buffers in one batch.
fn one_batch(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (one, two, memory) = (rig.buffer(4)?, rig.buffer(7)?, rig.memory(11)?);
    let (first, second) = ([blocks(0, 4, Some((memory, 7)))], [blocks(0, 7, Some((memory, 0)))]);
    let batch = rig.batch(rig.batch(Batch::new(), one, &first), two, &second);
    gpu.bind(&[batch])?;
    rig.note(one, &first);
    rig.note(two, &second);
    rig.verify(one)?;
    rig.verify(two)
}

/// One buffer in several infos of one batch, each with several binds.
fn same_buffer_twice(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (buffer, memory) = (rig.buffer(8)?, rig.memory(8)?);
    let first = [blocks(6, 2, Some((memory, 0))), blocks(0, 2, Some((memory, 6)))];
    let second = [blocks(2, 4, Some((memory, 2)))];
    let batch = rig.batch(rig.batch(Batch::new(), buffer, &first), buffer, &second);
    gpu.bind(&[batch])?;
    rig.note(buffer, &first);
    rig.note(buffer, &second);
    rig.verify(buffer)
}

/// Parts are rebound while a shader works on others.
fn busy(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (buffer, memory) = (rig.buffer(16)?, rig.memory(32)?);
    rig.bind(buffer, &[blocks(0, 16, Some((memory, 0)))])?;
    let timeline = gpu.timeline(0)?;
    for step in 1..=20_u64 {
        // The lower half is written by a shader, the upper half is rebound, neither waits for the other.
        let dispatches = [rig.fill(buffer, 0, 8, step as u32)];
        let prepared = gpu.prepare(&dispatches)?;
        let fence = gpu.fence()?;
        let command = gpu.submit(&[], &[], fence, |command| {
            gpu.record_dispatches(command, &dispatches, &prepared.sets);
        })?;
        let place = 16 + step % 8;
        let binds: Vec<_> = (0..8).map(|block| blocks(8 + block, 1, Some((memory, place + block)))).collect();
        let batch = rig.batch(Batch::new(), buffer, &binds).signal(timeline, Some(step));
        let answer = gpu.queue_bind(gpu.sparse[0], &[batch], vk::Fence::null());
        check!(answer.is_ok(), "vkQueueBindSparse beside a running shader: {answer:?}");
        rig.note(buffer, &binds);
        gpu.wait_timeline(timeline, step)?;
        gpu.wait_fence(fence)?;
        gpu.free_command(command);
        gpu.destroy(crate::gpu::Owned::DescriptorPool(prepared.pool));
        rig.note_write(buffer, 0, 8, step as u32);
        rig.verify(buffer)?;
    }
    rig.verify_memory()
}

/// A thousand buffers at once.
fn many(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Copy, BINDING)?;
    let memory = rig.memory(64)?;
    let mut all = Vec::new();
    for number in 0..1000 {
        all.push((rig.buffer(2)?, [blocks(0, 2, Some((memory, number % 63)))]));
    }
    let batch = all.iter().fold(Batch::new(), |batch, (buffer, binds)| rig.batch(batch, *buffer, binds));
    gpu.bind(&[batch])?;
    for (buffer, binds) in &all {
        rig.note(*buffer, binds);
    }
    for (buffer, _) in all.iter().step_by(37) {
        rig.verify(*buffer)?;
    }
    Ok(())
}

/// A buffer of half of the address space that the limits promise, bound at both ends and in the middle.
fn huge(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let space = gpu.properties.limits.sparse_address_space_size;
    let size = (space / 2).min(1 << 30);
    let (usage, flags) = (Access::Copy.usage(), vk::BufferCreateFlags::SPARSE_BINDING | RESIDENCY);
    let buffer = gpu.buffer(size, usage, flags)?;
    let requirements = gpu.buffer_requirements(buffer);
    let block = requirements.alignment.max(4096);
    let words: Vec<u32> = (0..(3 * block / 4) as u32).map(|index| crate::gpu::pattern(5, index)).collect();
    let memory = gpu.memory(3 * block, requirements.memory_type_bits)?;
    gpu.write_memory(memory, &words)?;
    let places = [0, (size / 2) & !(block - 1), (size - block) & !(block - 1)];
    let binds = places
        .iter()
        .enumerate()
        .map(|(index, &place)| crate::gpu::memory_bind(place, block, Some((memory, index as u64 * block))))
        .collect();
    gpu.bind(&[Batch::new().buffer(buffer, binds)])?;
    let host = gpu.host(3 * block, vk::BufferUsageFlags::empty())?;
    let ranges: Vec<_> =
        places.iter().enumerate().map(|(index, &place)| (place, index as u64 * block, block)).collect();
    gpu.copy_buffer(buffer, host.buffer, &ranges)?;
    check!(host.words() == words, "a buffer of {size} bytes reads other data at {places:x?}");
    Ok(())
}

/// Without strictness unbound reads are undefined, but they end nothing and bound blocks keep their data.
fn unbound_survives(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, RESIDENCY)?;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
    rig.bind(buffer, &[blocks(2, 4, Some((memory, 0)))])?;
    rig.write(buffer, 0, BLOCKS, 17)?;
    rig.verify(buffer)?;
    rig.bind(buffer, &[blocks(3, 1, None)])?;
    rig.write(buffer, 0, BLOCKS, 18)?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// With strictness unbound reads are zero, also after writes to them.
fn unbound_strict(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, RESIDENCY)?;
    let (buffer, memory) = (rig.buffer(4)?, rig.memory(4)?);
    rig.bind(buffer, &[blocks(0, 4, Some((memory, 0)))])?;
    rig.bind(buffer, &[blocks(1, 2, None)])?;
    rig.write(buffer, 0, 4, 19)?;
    let host = gpu.host(2 * rig.block, vk::BufferUsageFlags::empty())?;
    gpu.copy_buffer(rig.buffer_handle(buffer), host.buffer, &[(rig.block, 0, 2 * rig.block)])?;
    check!(host.words().iter().all(|&word| word == 0), "unbound blocks do not read as zero");
    rig.verify(buffer)
}

//! Binds of buffers.

use super::{Needs, Resources, Step, shuffled};
use crate::gpu::{BLOCK, Gpu, POOL, unbind};
use anyhow::Result;
use ash::vk;

const BLOCKS: u64 = 1024;
const SIZE: u64 = BLOCKS * BLOCK;

fn residency(gpu: &Gpu) -> Result<Resources> {
    Ok(Resources { buffers: vec![gpu.residency_buffer(SIZE)?], ..Default::default() })
}

fn bound(gpu: &Gpu) -> Result<Resources> {
    let made = residency(gpu)?;
    contiguous(gpu, &made)?;
    Ok(made)
}

fn binding(gpu: &Gpu) -> Result<Resources> {
    let made =
        Resources { buffers: vec![gpu.buffer(SIZE, vk::BufferCreateFlags::empty())?], ..Default::default() };
    contiguous(gpu, &made)?;
    Ok(made)
}

fn contiguous(gpu: &Gpu, on: &Resources) -> Result<()> {
    let binds: Vec<_> = (0..BLOCKS).map(|n| gpu.part(n * BLOCK, BLOCK, n * BLOCK)).collect();
    gpu.bind_buffer(on.buffers[0], &binds)
}

fn whole(gpu: &Gpu, on: &Resources) -> Result<()> {
    gpu.bind_buffer(on.buffers[0], &[gpu.part(0, SIZE, 0)])
}

fn shuffled_linear(gpu: &Gpu, on: &Resources) -> Result<()> {
    let binds: Vec<_> = shuffled(BLOCKS).into_iter().map(|n| gpu.part(n * BLOCK, BLOCK, n * BLOCK)).collect();
    gpu.bind_buffer(on.buffers[0], &binds)
}

fn scattered(gpu: &Gpu, on: &Resources) -> Result<()> {
    // In reverse no two blocks continue each other.
    let binds: Vec<_> = (0..BLOCKS).map(|n| gpu.part(n * BLOCK, BLOCK, (BLOCKS - 1 - n) * BLOCK)).collect();
    gpu.bind_buffer(on.buffers[0], &binds)
}

fn many_infos(gpu: &Gpu, on: &Resources) -> Result<()> {
    let binds: Vec<_> = (0..BLOCKS).map(|n| [gpu.part(n * BLOCK, BLOCK, n * BLOCK)]).collect();
    let buffers: Vec<_> = binds
        .iter()
        .map(|binds| [vk::SparseBufferMemoryBindInfo::default().buffer(on.buffers[0]).binds(binds)])
        .collect();
    let infos: Vec<_> =
        buffers.iter().map(|buffers| vk::BindSparseInfo::default().buffer_binds(buffers)).collect();
    gpu.bind(&infos)
}

fn pages(gpu: &Gpu, on: &Resources) -> Result<()> {
    let binds: Vec<_> = (0..SIZE / 4096).map(|n| gpu.part(n * 4096, 4096, n * 4096)).collect();
    gpu.bind_buffer(on.buffers[0], &binds)
}

fn unbind_each(gpu: &Gpu, on: &Resources) -> Result<()> {
    let binds: Vec<_> = (0..BLOCKS).map(|n| unbind(n * BLOCK, BLOCK)).collect();
    gpu.bind_buffer(on.buffers[0], &binds)
}

/// Every third block goes, every fifth moves.
fn holes(gpu: &Gpu, on: &Resources) -> Result<()> {
    let gone = (0..BLOCKS).filter(|n| n % 3 == 0).map(|n| unbind(n * BLOCK, BLOCK));
    let moved = (0..BLOCKS)
        .filter(|n| n % 5 == 0 && n % 3 != 0)
        .map(|n| gpu.part(n * BLOCK, BLOCK, POOL - (n + 1) * BLOCK));
    let binds: Vec<_> = gone.chain(moved).collect();
    gpu.bind_buffer(on.buffers[0], &binds)
}

fn overlapping(gpu: &Gpu, on: &Resources) -> Result<()> {
    for binds in [[gpu.part(BLOCK, BLOCK, 16 * BLOCK)], [gpu.part(0, 2 * BLOCK, 32 * BLOCK)]] {
        gpu.bind_buffer(on.buffers[0], &binds)?;
    }
    gpu.bind_buffer(on.buffers[0], &[gpu.part(BLOCK / 2, BLOCK, 48 * BLOCK)])
}

fn two_buffers(gpu: &Gpu) -> Result<Resources> {
    let buffers = vec![gpu.residency_buffer(SIZE)?, gpu.residency_buffer(SIZE)?];
    Ok(Resources { buffers, ..Default::default() })
}

/// The same memory in two buffers, and twice in one.
fn aliased(gpu: &Gpu, on: &Resources) -> Result<()> {
    let binds = [gpu.part(0, 16 * BLOCK, 0), gpu.part(32 * BLOCK, 16 * BLOCK, 0)];
    gpu.bind_buffer(on.buffers[0], &binds)?;
    gpu.bind_buffer(on.buffers[1], &binds[1..])
}

/// Buffers come and go at the same addresses.
fn again_and_again(gpu: &Gpu, _: &Resources) -> Result<()> {
    for round in 0..20 {
        let buffer = gpu.residency_buffer(SIZE)?;
        gpu.bind_buffer(buffer, &[gpu.part(round * BLOCK, BLOCK, 0)])?;
        // SAFETY: the bind is over.
        unsafe { gpu.device.destroy_buffer(buffer, None) };
    }
    Ok(())
}

/// Memory that is freed while it is bound.
fn freed(gpu: &Gpu, on: &Resources) -> Result<()> {
    let memory = gpu.allocate(4 * BLOCK)?;
    let bind = vk::SparseMemoryBind::default().size(4 * BLOCK).memory(memory);
    gpu.bind_buffer(on.buffers[0], &[bind])?;
    // SAFETY: memory that nothing uses when it is freed.
    unsafe { gpu.device.free_memory(memory, None) };
    gpu.bind_buffer(on.buffers[0], &[gpu.part(2 * BLOCK, BLOCK, 0)])
}

pub fn steps() -> Vec<Step> {
    let step =
        |name, prepare, run, fewest| Step { name, needs: Needs::Nothing, prepare, run, fewest, extra: false };
    vec![
        step("1024 blocks in order", residency, contiguous, Some(1)),
        step("one bind of all", residency, whole, Some(1)),
        step("1024 blocks shuffled, linear", residency, shuffled_linear, Some(1)),
        step("1024 blocks scattered", residency, scattered, Some(1024)),
        step("the same again", bound, contiguous, Some(0)),
        step("1024 VkBindSparseInfo", residency, many_infos, Some(1)),
        step("16384 pages", residency, pages, Some(1)),
        step("unbind 1024", bound, unbind_each, Some(1)),
        step("unbind 1024, no residency", binding, unbind_each, Some(1)),
        step("holes", bound, holes, None),
        step("overlapping", residency, overlapping, None),
        step("aliased", two_buffers, aliased, Some(3)),
        step("created, bound, destroyed", two_buffers, again_and_again, None),
        step("freed while bound", residency, freed, None),
    ]
}

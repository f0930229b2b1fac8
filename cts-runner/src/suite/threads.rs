//! Several threads, instances and devices at once.

use super::buffer_rig::{Access, BufferRig, blocks};
use super::image_residency::{Shape, rig as image_rig};
use super::random::Random;
use super::{Case, Ctx};
use crate::gpu::{Gpu, Need, find_format};
use crate::outcome::{Outcome, fail};
use ash::vk;

const THREADS: u32 = 4;

pub(crate) fn add(cases: &mut Vec<Case>) {
    let residency: &[Need] = &[Need::ResidencyBuffer];
    cases.extend(
        [
            Case::new("threads.devices", residency, each_a_device),
            Case::new("threads.one_device", residency, one_device),
            Case::new("threads.images", &[Need::ResidencyImage2D], images),
            Case::new("threads.instances", residency, instances),
        ]
        .map(Case::detects_missing_maps),
    );
}

/// Runs `work` in several threads and hands the first failure on.
fn spread(work: impl Fn(u32) -> Outcome + Sync) -> Outcome {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => fail!("a thread of the case panicked"),
        })
    })
}

/// Random binds, writes and reads on buffers of the thread's own.
fn walk(gpu: &Gpu, seed: u32) -> Outcome {
    const SIZE: u64 = 10;
    let mut rig = BufferRig::new(gpu, Access::Storage, vk::BufferCreateFlags::SPARSE_RESIDENCY)?;
    let (buffer, memory) = (rig.buffer(SIZE)?, rig.memory(SIZE)?);
    let mut random = Random::new(seed);
    for step in 0..30 {
        let first = random.below(SIZE);
        let count = 1 + random.below(SIZE - first);
        let to = (random.below(4) > 0).then(|| (memory, random.below(SIZE - count + 1)));
        rig.bind(buffer, &[blocks(first, count, to)])?;
        if to.is_some() {
            rig.write(buffer, first, 1, seed * 100 + step)?;
        }
        if step % 5 == 4 {
            rig.verify(buffer)?;
        }
    }
    rig.verify_memory()
}

/// Every thread with an instance and a device of its own.
fn each_a_device(ctx: &Ctx) -> Outcome {
    spread(|number| walk(&ctx.gpu()?, number))
}

/// Every thread with resources of its own on one device.
fn one_device(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    spread(|number| walk(&gpu, number + 10))
}

/// Images of several devices.
fn images(ctx: &Ctx) -> Outcome {
    spread(|number| {
        let gpu = ctx.gpu()?;
        let format = find_format(["r8_uint", "r32_uint", "rg32_uint", "rgba32_uint"][number as usize % 4]);
        let mut rig = image_rig(&gpu, Shape::Flat, format, vk::ImageCreateFlags::empty())?;
        let tiles = rig.tiles(0);
        let first = rig.memory(2 * tiles.len())?;
        for round in 0..6 {
            let slot = first + (round % 2) * tiles.len();
            let boxes: Vec<_> =
                tiles.iter().zip(slot..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect();
            rig.bind(0, &boxes)?;
            if round < 2 {
                rig.upload(0, &tiles, number * 2 + round as u32)?;
            }
            rig.verify(0)?;
        }
        Ok(())
    })
}

/// Three devices of three instances by turns; the others go on when one is gone.
fn instances(ctx: &Ctx) -> Outcome {
    let mut gpus = vec![Some(ctx.gpu()?), Some(ctx.gpu()?), Some(ctx.gpu()?)];
    for gone in [1, 0, 2] {
        for (seed, gpu) in (0..).zip(&gpus) {
            if let Some(gpu) = gpu {
                walk(gpu, 20 + seed)?;
            }
        }
        gpus[gone] = None;
    }
    walk(&ctx.gpu()?, 30)
}

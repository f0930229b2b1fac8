//! Failures on demand, and the end of the process's mappings: an error, nothing changed, and life goes on.

use super::buffer_rig::{Access, BufferRig, blocks};
use super::image_residency::{Shape, rig as image_rig};
use super::random::Random;
use super::{Case, Ctx};
use crate::gpu::{Batch, Burn, Need, find_format, memory_bind};
use crate::outcome::{Outcome, Stop, check, fail, out_of_memory};
use ash::vk;

pub(crate) fn add(cases: &mut Vec<Case>) {
    let needs: &[Need] = &[Need::ResidencyBuffer, Need::ResidencyImage2D];
    let faults: [(&str, &[u32]); 3] = [
        ("op", &[1, 2, 3, 5, 8, 21]),
        ("ioctl", &[1, 2, 3, 5, 8, 13, 21, 34]),
        ("alloc", &[1, 2, 3, 5, 8, 13]),
    ];
    for (what, numbers) in faults {
        for number in numbers {
            let case = Case::new(format!("fault.{what}.{number}"), needs, fault);
            cases.push(case.fault(format!("{what}:{number}")).layer_only("faults are the emulated kernel's"));
        }
    }
    let ignored = "the driver by itself does not see failures of mmap";
    cases.extend([
        Case::new("limit.mappings", &[Need::Aliased], mappings).layer_only(ignored),
        Case::new("limit.mappings_unbind", &[Need::Aliased], unbind_at_the_limit).layer_only(ignored),
    ]);
}

/// Runs something that a fault may strike: then it has to say that memory ran out, and work when it is tried again.
fn again<T>(struck: &mut u32, mut run: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    match run() {
        Err(Stop::Vulkan { call, result }) => {
            let expected = if call == "vkCreateDevice" { is_refusal(result) } else { out_of_memory(result) };
            check!(expected, "a fault makes {call} return {result:?}");
            *struck += 1;
            run()
        }
        outcome => outcome,
    }
}

/// What a device that cannot be made is answered with.
fn is_refusal(result: vk::Result) -> bool {
    out_of_memory(result) || result == vk::Result::ERROR_INITIALIZATION_FAILED
}

/// A fault strikes somewhere in a life of binds: state is as before the call, and the call works when repeated.
fn fault(ctx: &Ctx) -> Outcome {
    const SIZE: u64 = 12;
    let mut struck = 0;
    let gpu = match again(&mut struck, || ctx.gpu()) {
        // Every device counts anew, so a fault that strikes while one is made strikes always; an error is all there is.
        Err(Stop::Vulkan { call: "vkCreateDevice", result }) if struck > 0 && is_refusal(result) => {
            return Ok(());
        }
        gpu => gpu?,
    };
    let mut rig = again(&mut struck, || {
        BufferRig::new(&gpu, Access::Storage, vk::BufferCreateFlags::SPARSE_RESIDENCY)
    })?;
    let buffer = again(&mut struck, || rig.buffer(SIZE))?;
    let memories = [again(&mut struck, || rig.memory(SIZE))?, again(&mut struck, || rig.memory(SIZE))?];
    let mut random = Random::new(90);
    for step in 0..12_u32 {
        let mut binds = Vec::new();
        for block in 0..SIZE {
            let memory = memories[random.below(2) as usize];
            match random.below(4) {
                0 => binds.push(blocks(block, 1, None)),
                1 => {}
                _ => binds.push(blocks(block, 1, Some((memory, random.below(SIZE))))),
            }
        }
        let batch = [rig.batch(Batch::new(), buffer, &binds)];
        if let Err(stop) = gpu.bind(&batch) {
            check!(stop.is_out_of_memory(), "a fault makes a bind fail otherwise: {stop}");
            struck += 1;
            rig.verify(buffer)?;
            rig.verify_memory()?;
            gpu.bind(&batch)?;
        }
        rig.note(buffer, &binds);
        again(&mut struck, || rig.verify(buffer))?;
        if let Some(bind) = binds.iter().find(|bind| bind.to.is_some()) {
            again(&mut struck, || rig.write(buffer, bind.first, 1, step))?;
        }
    }
    again(&mut struck, || rig.verify_memory())?;

    let mut images = again(&mut struck, || {
        image_rig(&gpu, Shape::Flat, find_format("r32_uint"), vk::ImageCreateFlags::empty())
    })?;
    let tiles = images.tiles(0);
    let first = again(&mut struck, || images.memory(2 * tiles.len()))?;
    for round in 0..4 {
        let slot = first + (round % 2) * tiles.len();
        let boxes: Vec<_> =
            tiles.iter().zip(slot..).map(|(&tile, slot)| images.single(0, tile, Some(slot))).collect();
        let batch = images.batch(Batch::new(), 0, &boxes);
        again(&mut struck, || gpu.bind(std::slice::from_ref(&batch)))?;
        images.note(0, &boxes);
        if round < 2 {
            again(&mut struck, || images.upload(0, &tiles, round as u32))?;
        }
        again(&mut struck, || images.verify(0))?;
    }
    check!(struck < 2, "one fault struck {struck} times");
    if struck == 0 {
        return Err(Stop::Skip("the fault struck where no call can say so".to_owned()));
    }
    Ok(())
}

/// Uses up all of the process's mappings but these.
const SPARE: usize = 1000;

fn burn() -> Outcome<Burn> {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    match text.trim().parse() {
        Ok(limit) if limit <= 1 << 18 => Burn::new(limit, SPARE),
        _ => Err(Stop::Skip(format!("vm.max_map_count is {:?}: too many mappings to use up", text.trim()))),
    }
}

/// A bind that needs more mappings than there are: refused, nothing changed; with mappings to spare it works.
fn mappings(ctx: &Ctx) -> Outcome {
    const COUNT: u64 = 2 * SPARE as u64;
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Copy, vk::BufferCreateFlags::SPARSE_ALIASED)?;
    let (small, large, memory) = (rig.buffer(16)?, rig.buffer(COUNT)?, rig.memory(16)?);
    rig.bind(small, &[blocks(0, 16, Some((memory, 0)))])?;
    rig.bind(large, &[blocks(0, 8, Some((memory, 3)))])?;
    rig.verify(small)?;
    let handle = rig.buffer_handle(large);
    // No block continues the one before it, so that each takes a mapping.
    let place = |block: u64| block * 5 % 16;
    let binds: Vec<_> = (0..COUNT)
        .map(|block| {
            let to = Some((rig.memory_handle(memory), place(block) * rig.block));
            memory_bind(block * rig.block, rig.block, to)
        })
        .collect();
    let batch = Batch::new().buffer(handle, binds);
    let burnt = burn()?;
    let answer = gpu.queue_bind(gpu.sparse[0], std::slice::from_ref(&batch), vk::Fence::null());
    // Whatever is said next may need mappings of its own.
    drop(burnt);
    match answer {
        Ok(()) => fail!("{COUNT} mappings were made where {SPARE} are left"),
        Err(error) => check!(out_of_memory(error), "running out of mappings is answered with {error:?}"),
    }
    rig.verify(small)?;
    rig.verify(large)?;
    rig.verify_memory()?;
    gpu.bind(&[batch])?;
    for block in (0..COUNT).step_by(997) {
        let host = gpu.host(rig.block, vk::BufferUsageFlags::empty())?;
        gpu.copy_buffer(handle, host.buffer, &[(block * rig.block, 0, rig.block)])?;
        check!(host.words() == rig.memory_words(memory, place(block)), "block {block} reads other data");
        host.free();
    }
    rig.verify(small)
}

/// Single blocks are bound one by one until mappings run out; then unbinding makes room for others.
fn unbind_at_the_limit(ctx: &Ctx) -> Outcome {
    const COUNT: u64 = 2 * SPARE as u64;
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Copy, vk::BufferCreateFlags::SPARSE_ALIASED)?;
    let (buffer, memory) = (rig.buffer(COUNT)?, rig.memory(16)?);
    let handle = rig.buffer_handle(buffer);
    let place = |block: u64| block * 5 % 16;
    let to = rig.memory_handle(memory);
    let size = rig.block;
    let bind = |block: u64| memory_bind(block * size, size, Some((to, place(block) * size)));
    let burnt = burn()?;
    let mut bound = 0;
    let mut answer = Ok(());
    while bound < COUNT && answer.is_ok() {
        let batch = Batch::new().buffer(handle, vec![bind(bound)]);
        answer = gpu.queue_bind(gpu.sparse[0], &[batch], vk::Fence::null());
        bound += u64::from(answer.is_ok());
    }
    let room = Batch::new().buffer(handle, vec![memory_bind(0, 64 * size, None)]);
    let room = gpu.queue_bind(gpu.sparse[0], &[room], vk::Fence::null());
    let again = Batch::new().buffer(handle, (0..8).map(bind).collect());
    let again = gpu.queue_bind(gpu.sparse[0], &[again], vk::Fence::null());
    drop(burnt);
    match answer {
        Ok(()) => fail!("{COUNT} mappings were made where {SPARE} are left"),
        Err(error) => check!(out_of_memory(error), "running out of mappings is answered with {error:?}"),
    }
    check!(room.is_ok(), "unbinding without mappings to spare is answered with {room:?}");
    check!(again.is_ok(), "binding where others were unbound is answered with {again:?}");
    gpu.wait_idle()?;
    for block in (0..8).chain(64..bound) {
        let host = gpu.host(size, vk::BufferUsageFlags::empty())?;
        gpu.copy_buffer(handle, host.buffer, &[(block * size, 0, size)])?;
        check!(
            host.words() == rig.memory_words(memory, place(block)),
            "block {block} of {bound} reads other data"
        );
        host.free();
    }
    Ok(())
}

//! Kinds of memory: exported, imported, dedicated, from the host, and mapped by the application.

use super::buffer_rig::{Access, BufferRig, blocks};
use super::{Case, Ctx};
use crate::gpu::{Batch, Gpu, HostPages, ImageSpec, MemorySpec, Need, Owned, memory_bind, pattern, region};
use crate::outcome::{Outcome, Stop, check};
use ash::vk;

const FD: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;
const BINDING: vk::BufferCreateFlags = vk::BufferCreateFlags::empty();
const BLOCKS: u64 = 8;

pub(crate) fn add(cases: &mut Vec<Case>) {
    let fd: &[Need] = &[Need::ExternalMemoryFd];
    let host: &[Need] = &[Need::ExternalMemoryHost];
    let refused = "the driver by itself binds private memory as if it were shared";
    cases.extend([
        Case::new("memory.exported.bound", fd, exported_bound).detects_missing_maps(),
        Case::new("memory.exported.imported_again", fd, imported_again).detects_missing_maps(),
        Case::new("memory.exported.other_device", fd, other_device).detects_missing_maps(),
        Case::new("memory.dedicated.beside", &[], dedicated_beside).detects_missing_maps(),
        Case::new("memory.host.shared", host, host_shared),
        Case::new("memory.host.heap", host, host_heap),
        Case::new("memory.host.heap_refused", host, host_heap_refused).layer_only(refused),
        Case::new("memory.mapped.before", &[], |ctx| mapped(ctx, &[Step::Map, Step::Bind]))
            .detects_missing_maps(),
        Case::new("memory.mapped.after", &[], |ctx| mapped(ctx, &[Step::Bind, Step::Map]))
            .detects_missing_maps(),
        Case::new("memory.mapped.across", &[], |ctx| {
            mapped(ctx, &[Step::Map, Step::Bind, Step::Rebind, Step::Bind, Step::Rebind])
        })
        .detects_missing_maps(),
        Case::new("memory.mapped.again", &[], |ctx| {
            mapped(
                ctx,
                &[Step::Map, Step::Bind, Step::Unmap, Step::Rebind, Step::Map, Step::Unmap, Step::Map],
            )
        })
        .detects_missing_maps(),
        Case::new("memory.types", &[], types).detects_missing_maps(),
        Case::new("memory.size.odd", &[], odd_size).detects_missing_maps(),
        Case::new("memory.size.large", &[], large).detects_missing_maps(),
        Case::new("memory.many", &[], many).detects_missing_maps(),
        Case::new("memory.plain_beside", &[], plain_beside).detects_missing_maps(),
    ]);
}

/// A rig on storage buffers, and whether buffers' memory can travel as a descriptor.
fn exportable(gpu: &Gpu) -> Outcome<BufferRig<'_>> {
    gpu.opaque_fd_memory(vk::BufferCreateFlags::empty(), Access::Copy.usage())?;
    gpu.make_buffers_external(FD);
    BufferRig::new(gpu, Access::Storage, BINDING)
}

fn exported_memory(rig: &BufferRig<'_>) -> Outcome<vk::DeviceMemory> {
    let spec = MemorySpec { export: FD, ..MemorySpec::default() };
    rig.gpu.memory_with(BLOCKS * rig.block, rig.memory_bits(), &spec)
}

/// Exportable memory can be bound, and exported while it is bound.
fn exported_bound(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = exportable(&gpu)?;
    let handle = exported_memory(&rig)?;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.adopt_memory(handle, BLOCKS)?);
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((memory, 0)))])?;
    rig.verify(buffer)?;
    drop(gpu.export_fd(handle)?);
    rig.write(buffer, 1, 5, 21)?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// The same memory under two handles, one of them imported.
fn imported_again(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = exportable(&gpu)?;
    let handle = exported_memory(&rig)?;
    let imported = gpu.import_fd(gpu.export_fd(handle)?, BLOCKS * rig.block, rig.memory_bits())?;
    let (one, two, memory) = (rig.buffer(BLOCKS)?, rig.buffer(BLOCKS)?, rig.adopt_memory(handle, BLOCKS)?);
    rig.bind(one, &[blocks(0, BLOCKS, Some((memory, 0)))])?;
    let halves = [
        memory_bind(0, 4 * rig.block, Some((imported, 4 * rig.block))),
        memory_bind(4 * rig.block, 4 * rig.block, Some((imported, 0))),
    ];
    gpu.bind(&[Batch::new().buffer(rig.buffer_handle(two), halves.to_vec())])?;
    // For the model the imported memory is the exported one.
    rig.note(two, &[blocks(0, 4, Some((memory, 4))), blocks(4, 4, Some((memory, 0)))]);
    rig.verify(two)?;
    rig.write(one, 0, BLOCKS, 22)?;
    rig.verify(two)?;
    rig.write(two, 2, 4, 23)?;
    rig.verify(one)
}

/// Memory exported by one device and bound by another, of another instance.
fn other_device(ctx: &Ctx) -> Outcome {
    let (here, there) = (ctx.gpu()?, ctx.gpu()?);
    let mut rig = exportable(&here)?;
    let handle = exported_memory(&rig)?;
    let size = BLOCKS * rig.block;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.adopt_memory(handle, BLOCKS)?);
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((memory, 0)))])?;
    there.make_buffers_external(FD);
    let imported = there.import_fd(here.export_fd(handle)?, size, rig.memory_bits())?;
    let far = there.buffer(size, Access::Storage.usage(), vk::BufferCreateFlags::SPARSE_BINDING)?;
    check!(there.buffer_requirements(far).size == size, "two devices have other requirements for one buffer");
    there.bind(&[Batch::new().buffer(far, vec![memory_bind(0, size, Some((imported, 0)))])])?;
    rig.write(buffer, 0, BLOCKS, 24)?;
    let host = there.host(size, vk::BufferUsageFlags::empty())?;
    there.copy_buffer(far, host.buffer, &[(0, 0, size)])?;
    let expected: Vec<u32> = (0..(size / 4) as u32).map(|index| pattern(24, index)).collect();
    check!(host.words() == expected, "the other device does not see what this one wrote");
    there.fill_buffer(far, 0, size, 0x5eed_5eed)?;
    let back = here.host(size, vk::BufferUsageFlags::empty())?;
    here.copy_buffer(rig.buffer_handle(buffer), back.buffer, &[(0, 0, size)])?;
    check!(
        back.words().iter().all(|&word| word == 0x5eed_5eed),
        "this device does not see what the other wrote"
    );
    Ok(())
}

/// Dedicated memory of other resources lives on beside sparse binds.
fn dedicated_beside(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let size = 1 << 18;
    let plain = gpu.buffer(size, Access::Copy.usage(), BINDING)?;
    let requirements = gpu.buffer_requirements(plain);
    let spec = MemorySpec { dedicated_buffer: plain, ..MemorySpec::default() };
    let memory = gpu.memory_with(requirements.size, requirements.memory_type_bits, &spec)?;
    gpu.bind_buffer(plain, memory, 0)?;
    let words: Vec<u32> = (0..(size / 4) as u32).map(|index| pattern(25, index)).collect();
    let host = gpu.host_words(&words, vk::BufferUsageFlags::empty())?;
    gpu.copy_buffer(host.buffer, plain, &[(0, 0, size)])?;

    let image = ImageSpec {
        ty: vk::ImageType::TYPE_2D,
        format: vk::Format::R32_UINT,
        extent: [256, 256, 1],
        levels: 1,
        layers: 1,
        flags: vk::ImageCreateFlags::empty(),
        usage: vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST,
    };
    let color = vk::ImageAspectFlags::COLOR;
    let handle = gpu.image(&image)?;
    let requirements = gpu.image_requirements(handle);
    let spec = MemorySpec { dedicated_image: handle, ..MemorySpec::default() };
    let memory = gpu.memory_with(requirements.size, requirements.memory_type_bits, &spec)?;
    gpu.bind_image(handle, memory)?;
    gpu.make_general(handle, color)?;
    let all = [region(0, color, 0, 0, [0; 3], image.extent)];
    let texels: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    gpu.upload(handle, &texels, &all)?;

    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
    rig.bind(buffer, &[blocks(0, BLOCKS, Some((memory, 0)))])?;
    rig.write(buffer, 0, BLOCKS, 26)?;
    rig.verify(buffer)?;

    gpu.copy_buffer(plain, host.buffer, &[(0, 0, size)])?;
    check!(host.words() == words, "a dedicated buffer changed");
    check!(gpu.download(handle, texels.len() as u64, &all)? == texels, "a dedicated image changed");
    Ok(())
}

/// Binds imported pages; where that is taken, data has to be seen from both sides.
fn bind_pages(gpu: &Gpu, pages: &HostPages, size: u64) -> Outcome<Result<(), vk::Result>> {
    gpu.make_buffers_external(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT);
    let buffer = gpu.buffer(size, Access::Storage.usage(), vk::BufferCreateFlags::SPARSE_BINDING)?;
    let requirements = gpu.buffer_requirements(buffer);
    let memory = gpu.import_host(pages, requirements.memory_type_bits)?;
    let words: Vec<u32> = (0..(size / 4) as u32).map(|index| pattern(27, index)).collect();
    pages.write(&words);
    // A plain buffer over imported pages works in any case.
    check!(gpu.read_memory(memory, words.len())? == words, "a plain buffer does not see the imported pages");
    let fence = gpu.fence()?;
    let bind = memory_bind(0, size, Some((memory, 0)));
    if let Err(error) = gpu.queue_bind(gpu.sparse[0], &[Batch::new().buffer(buffer, vec![bind])], fence) {
        return Ok(Err(error));
    }
    gpu.wait_fence(fence)?;
    let host = gpu.host(size, vk::BufferUsageFlags::empty())?;
    gpu.copy_buffer(buffer, host.buffer, &[(0, 0, size)])?;
    check!(host.words() == words, "the bind was taken, but the buffer does not show the pages");
    gpu.fill_buffer(buffer, 0, size, 0x0123_4567)?;
    check!(
        pages.words().iter().all(|&word| word == 0x0123_4567),
        "the bind was taken, but what the buffer was given is not in the pages"
    );
    Ok(Ok(()))
}

/// Pages that can be mapped a second time: bound, or refused with an error.
fn host_shared(ctx: &Ctx) -> Outcome {
    let size = 1 << 18;
    let pages = HostPages::shared(size)?;
    let gpu = ctx.gpu()?;
    match bind_pages(&gpu, &pages, size as u64)? {
        Ok(()) => rebind_works(&gpu),
        Err(error) => refused(&gpu, error),
    }
}

/// Private pages: nobody can map them a second time, so the honest answer is an error.
fn host_heap(ctx: &Ctx) -> Outcome {
    let size = 1 << 18;
    let pages = HostPages::heap(size)?;
    let gpu = ctx.gpu()?;
    match bind_pages(&gpu, &pages, size as u64)? {
        Ok(()) => rebind_works(&gpu),
        Err(error) => refused(&gpu, error),
    }
}

/// The layer cannot bind private pages and says so.
fn host_heap_refused(ctx: &Ctx) -> Outcome {
    let size = 1 << 18;
    let pages = HostPages::heap(size)?;
    let gpu = ctx.gpu()?;
    match bind_pages(&gpu, &pages, size as u64)? {
        Ok(()) => Err(Stop::Fail("private host memory was bound".to_owned())),
        Err(error) => refused(&gpu, error),
    }
}

/// A refusal is an error of memory or handles, not the end of the device.
fn refused(gpu: &Gpu, error: vk::Result) -> Outcome {
    check!(error != vk::Result::ERROR_DEVICE_LOST, "refused memory cost the device");
    rebind_works(gpu)
}

fn rebind_works(gpu: &Gpu) -> Outcome {
    let mut rig = BufferRig::new(gpu, Access::Storage, BINDING)?;
    let (buffer, memory) = (rig.buffer(2)?, rig.memory(2)?);
    rig.bind(buffer, &[blocks(0, 2, Some((memory, 0)))])?;
    rig.verify(buffer)
}

/// A step of a case with a mapping of bound memory.
#[derive(Clone, Copy)]
enum Step {
    Map,
    Unmap,
    /// All of the buffer to the start of the memory.
    Bind,
    /// All of the buffer, each half to the other's place.
    Rebind,
}

/// Data goes both ways between a mapping and a bound buffer after each of `steps`.
fn mapped(ctx: &Ctx, steps: &[Step]) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    if !gpu.is_host_visible(rig.memory_bits())? {
        return Err(Stop::NotSupported("no host visible memory for sparse buffers".to_owned()));
    }
    let size = BLOCKS * rig.block;
    let half = size / 2;
    let words = (size / 4) as usize;
    let (buffer, memory) = (rig.buffer(BLOCKS)?, rig.memory(BLOCKS)?);
    let (buffer, memory) = (rig.buffer_handle(buffer), rig.memory_handle(memory));
    let host = gpu.host(size, vk::BufferUsageFlags::empty())?;
    let (mut view, mut swapped) = (None, None);
    for (step, action) in steps.iter().enumerate() {
        match action {
            Step::Map => view = Some(gpu.map(memory, size)?),
            Step::Unmap => view.take().into_iter().for_each(crate::gpu::Mapped::unmap),
            Step::Bind => {
                gpu.bind(&[Batch::new().buffer(buffer, vec![memory_bind(0, size, Some((memory, 0)))])])?;
                swapped = Some(false);
            }
            Step::Rebind => {
                let binds = vec![
                    memory_bind(0, half, Some((memory, half))),
                    memory_bind(half, half, Some((memory, 0))),
                ];
                gpu.bind(&[Batch::new().buffer(buffer, binds)])?;
                swapped = Some(true);
            }
        }
        let (Some(view), Some(swapped)) = (&view, swapped) else { continue };
        let turned = |mut words: Vec<u32>| {
            if swapped {
                let middle = words.len() / 2;
                words.rotate_left(middle);
            }
            words
        };
        let seed = 30 + step as u32;
        let written: Vec<u32> = (0..words as u32).map(|index| pattern(seed, index)).collect();
        view.write_words(0, &written);
        gpu.copy_buffer(buffer, host.buffer, &[(0, 0, size)])?;
        check!(
            host.words() == turned(written),
            "step {step}: the buffer does not show what the mapping was given"
        );
        gpu.fill_buffer(buffer, 0, half, seed)?;
        gpu.fill_buffer(buffer, half, half, seed + 100)?;
        let mut expected = vec![seed; words];
        expected[words / 2..].fill(seed + 100);
        check!(
            view.read_words(0, words) == turned(expected),
            "step {step}: the mapping does not show what the buffer was given"
        );
    }
    Ok(())
}

/// Every memory type that the requirements allow.
fn types(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let buffer = rig.buffer(2)?;
    for index in 0..gpu.memory_properties.memory_type_count {
        let bit = 1 << index;
        if rig.memory_bits() & bit == 0 {
            continue;
        }
        let handle = gpu.memory(2 * rig.block, bit)?;
        let memory = rig.adopt_memory(handle, 2)?;
        rig.bind(buffer, &[blocks(0, 2, Some((memory, 0)))])?;
        rig.verify(buffer)?;
    }
    Ok(())
}

/// Memory whose size is no multiple of a block: its whole blocks can be bound.
fn odd_size(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let handle = gpu.memory(3 * rig.block + 100, rig.memory_bits())?;
    let (buffer, memory) = (rig.buffer(3)?, rig.adopt_memory(handle, 3)?);
    rig.bind(buffer, &[blocks(0, 3, Some((memory, 0)))])?;
    rig.write(buffer, 2, 1, 50)?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

/// A large allocation, bound at its ends.
fn large(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let rig = BufferRig::new(&gpu, Access::Copy, BINDING)?;
    let size = 512 << 20;
    let memory = gpu.memory(size, rig.memory_bits())?;
    let usage = Access::Copy.usage();
    let buffer = gpu.buffer(2 * rig.block, usage, vk::BufferCreateFlags::SPARSE_BINDING)?;
    let plain = gpu.buffer(size, usage, BINDING)?;
    check!(gpu.buffer_requirements(plain).size <= size, "a plain buffer of {size} bytes needs more");
    gpu.bind_buffer(plain, memory, 0)?;
    let places = [0, size - rig.block];
    let binds = places
        .iter()
        .zip(0..)
        .map(|(&place, index)| memory_bind(index * rig.block, rig.block, Some((memory, place))));
    gpu.bind(&[Batch::new().buffer(buffer, binds.collect())])?;
    for (place, index) in places.into_iter().zip(0..) {
        let word = 0x1357_0000 + index as u32;
        gpu.fill_buffer(plain, place, rig.block, word)?;
        let host = gpu.host(rig.block, vk::BufferUsageFlags::empty())?;
        gpu.copy_buffer(buffer, host.buffer, &[(index * rig.block, 0, rig.block)])?;
        check!(
            host.words().iter().all(|&read| read == word),
            "block at {place:#x} of the memory is not bound"
        );
    }
    Ok(())
}

/// More allocations than file descriptors that a process usually may open.
fn many(ctx: &Ctx) -> Outcome {
    const COUNT: u64 = 1200;
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Copy, BINDING)?;
    let buffer = rig.buffer(COUNT)?;
    let handle = rig.buffer_handle(buffer);
    let binds = (0..COUNT)
        .map(|block| {
            let memory = gpu.memory(rig.block, rig.memory_bits())?;
            Ok(memory_bind(block * rig.block, rig.block, Some((memory, 0))))
        })
        .collect::<Outcome<Vec<_>>>()?;
    gpu.bind(&[Batch::new().buffer(handle, binds.clone())])?;
    for block in (0..COUNT).step_by(100) {
        gpu.fill_buffer(handle, block * rig.block, rig.block, block as u32 + 1)?;
        let read = gpu.read_memory(binds[block as usize].memory, (rig.block / 4) as usize)?;
        check!(read.iter().all(|&word| word == block as u32 + 1), "block {block} is bound to other memory");
    }
    gpu.destroy(Owned::Buffer(handle));
    Ok(())
}

/// A plain buffer in the same memory object sees the same data.
fn plain_beside(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = BufferRig::new(&gpu, Access::Storage, BINDING)?;
    let (buffer, memory) = (rig.buffer(4)?, rig.memory(BLOCKS)?);
    rig.bind(buffer, &[blocks(0, 4, Some((memory, 3)))])?;
    let plain = gpu.buffer(2 * rig.block, Access::Copy.usage(), BINDING)?;
    let requirements = gpu.buffer_requirements(plain);
    check!(
        rig.block % requirements.alignment == 0,
        "a plain buffer asks for alignment {}",
        requirements.alignment
    );
    gpu.bind_buffer(plain, rig.memory_handle(memory), 4 * rig.block)?;
    gpu.fill_buffer(plain, 0, 2 * rig.block, 0xfeed_f00d)?;
    let host = gpu.host(4 * rig.block, vk::BufferUsageFlags::empty())?;
    gpu.copy_buffer(rig.buffer_handle(buffer), host.buffer, &[(0, 0, 4 * rig.block)])?;
    let words = (rig.block / 4) as usize;
    check!(
        host.words()[words..3 * words].iter().all(|&word| word == 0xfeed_f00d),
        "a sparse buffer does not show what a plain one wrote to the same memory"
    );
    rig.write(buffer, 0, 4, 51)?;
    rig.verify(buffer)?;
    rig.verify_memory()
}

//! Many threads, and many resources.

use super::{Needs, Resources, Step, is_layered, shuffled};
use crate::gpu::{BLOCK, Gpu, POOL, Points, unbind};
use anyhow::{Result, anyhow};
use ash::vk;
use std::sync::Mutex;

const THREADS: u64 = 8;
const ROUNDS: u64 = 32;
/// Bytes of each thread's buffer and part of the memory.
const SIZE: u64 = POOL / THREADS;

const RESOURCES: u64 = 2048;
/// Blocks of each of them.
const BLOCKS: u64 = 4;
const MEMORIES: u64 = 256;

fn a_buffer_each(gpu: &Gpu) -> Result<Resources> {
    let buffers = (0..THREADS).map(|_| gpu.residency_buffer(SIZE)).collect::<Result<_>>()?;
    Ok(Resources { buffers, ..Default::default() })
}

/// What a thread does: binds in its own buffer, and with the layer resources and memory that come and go, which the driver alone
/// does not always survive (26.1.6: rarely, the kernel gives the VM up). Nothing is waited for but before something goes.
fn bind_on(gpu: &Gpu, number: u64, buffer: vk::Buffer, queue: &Mutex<vk::Queue>) -> Result<()> {
    let timeline = gpu.timeline()?;
    let submit = |buffer, bind, value| {
        let points = Points { signals: &[(timeline, value)], ..Default::default() };
        let queue = queue.lock().map_err(|_| anyhow!("another thread panicked"))?;
        gpu.submit(*queue, Some((buffer, bind)), points, vk::Fence::null())
    };
    for (round, place) in (0..).zip(shuffled(SIZE / BLOCK)).take(ROUNDS as usize) {
        let value = 3 * round;
        submit(buffer, gpu.part(place * BLOCK, BLOCK, number * SIZE + round * BLOCK), value + 1)?;
        submit(buffer, unbind(round * BLOCK, BLOCK), value + 2)?;
        if !is_layered() {
            continue;
        }
        let temporary = gpu.residency_buffer(SIZE)?;
        // SAFETY: the device's own objects, which go when nothing uses them any more.
        unsafe {
            let memory = gpu.allocate(4 * BLOCK)?;
            let bind =
                vk::SparseMemoryBind::default().resource_offset(place * BLOCK).size(BLOCK).memory(memory);
            submit(temporary, bind, value + 3)?;
            gpu.wait(timeline, value + 3)?;
            gpu.device.destroy_buffer(temporary, None);
            gpu.device.free_memory(memory, None);
        }
    }
    let last = 3 * ROUNDS + 1;
    submit(buffer, unbind(0, BLOCK), last)?;
    gpu.wait(timeline, last)?;
    // SAFETY: all binds are over.
    unsafe { gpu.device.destroy_semaphore(timeline, None) };
    Ok(())
}

fn threads(gpu: &Gpu, on: &Resources) -> Result<()> {
    // A queue takes one thread at a time.
    let queues = [Mutex::new(gpu.queue), Mutex::new(if gpu.other_binds { gpu.other } else { gpu.queue })];
    let queues = if gpu.other_binds { &queues[..] } else { &queues[..1] };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(&on.buffers)
            .map(|(number, &buffer)| {
                let queue = &queues[number as usize % queues.len()];
                scope.spawn(move || bind_on(gpu, number, buffer, queue))
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
    })
}

fn thousands(gpu: &Gpu) -> Result<Resources> {
    let buffers = (0..RESOURCES).map(|_| gpu.residency_buffer(BLOCKS * BLOCK)).collect::<Result<_>>()?;
    Ok(Resources { buffers, ..Default::default() })
}

/// Binds every resource in one call, unbinds the middle of every third in another, and binds memory of its own to some, half of which
/// is freed.
fn bind_thousands(gpu: &Gpu, on: &Resources) -> Result<()> {
    let order: Vec<usize> = shuffled(RESOURCES).into_iter().map(|n| n as usize).collect();
    let call = |binds: Vec<(usize, vk::SparseMemoryBind)>| {
        let binds: Vec<_> = binds.into_iter().map(|(n, bind)| (on.buffers[n], [bind])).collect();
        let infos: Vec<_> = binds
            .iter()
            .map(|(buffer, binds)| vk::SparseBufferMemoryBindInfo::default().buffer(*buffer).binds(binds))
            .collect();
        gpu.bind(&[vk::BindSparseInfo::default().buffer_binds(&infos)])
    };
    let place = |n: usize| n as u64 * BLOCKS * BLOCK % POOL;
    call(order.iter().map(|&n| (n, gpu.part(0, BLOCKS * BLOCK, place(n)))).collect())?;
    call(order.iter().filter(|&n| n % 3 == 0).map(|&n| (n, unbind(BLOCK, 2 * BLOCK))).collect())?;
    // SAFETY: memory of the device, which may go while it is bound to what is not used.
    unsafe {
        let memories = (0..MEMORIES).map(|_| gpu.allocate(BLOCK)).collect::<Result<Vec<_>>>()?;
        let binds = order.iter().zip(&memories);
        let binds =
            binds.map(|(&n, &memory)| (n, vk::SparseMemoryBind::default().size(BLOCK).memory(memory)));
        call(binds.collect())?;
        let (first, second) = memories.split_at(memories.len() / 2);
        first.iter().for_each(|&memory| gpu.device.free_memory(memory, None));
        call(order.iter().take(first.len()).map(|&n| (n, gpu.part(0, BLOCK, place(n)))).collect())?;
        second.iter().for_each(|&memory| gpu.device.free_memory(memory, None));
    }
    Ok(())
}

pub fn steps() -> Vec<Step> {
    let step =
        |name, prepare, run| Step { name, needs: Needs::Nothing, prepare, run, fewest: None, extra: false };
    vec![step("eight threads", a_buffer_each, threads), step("2048 resources", thousands, bind_thousands)]
}

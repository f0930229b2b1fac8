//! Processes that end while their binds are pending, and what is left for others.

use super::{Needs, Resources, Step};
use crate::gpu::{BLOCK, Gpu, Points};
use anyhow::{Context as _, Result, bail, ensure};
use ash::vk;
use clap::ValueEnum;
use client::Emulator;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const SIZE: u64 = 16 * BLOCK;
const OPAQUE: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD;

/// Long enough for a process to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a process says when its binds are pending.
const READY: &str = "ready";

/// How a process ends.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum End {
    /// By `exit`, in the thread that binds.
    Exit,
    /// By returning from `main`.
    Return,
    /// By a signal.
    Kill,
}

/// Memory that another process can import, and its descriptor.
fn shared_memory(gpu: &Gpu) -> Result<(vk::DeviceMemory, OwnedFd)> {
    let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(OPAQUE);
    let info = vk::MemoryAllocateInfo::default().allocation_size(SIZE).push_next(&mut export);
    // SAFETY: valid arguments; the descriptor is made for us.
    unsafe {
        let memory = gpu.device.allocate_memory(&info, None)?;
        let get = vk::MemoryGetFdInfoKHR::default().memory(memory).handle_type(OPAQUE);
        let fd = gpu.memory_fd().get_memory_fd(&get)?;
        Ok((memory, OwnedFd::from_raw_fd(fd)))
    }
}

/// The other process: binds the memory behind `shared`, leaves binds pending in every place where they can be, says so, and ends.
pub fn other(end: End, shared: RawFd) -> Result<()> {
    let emulator = Emulator::find().context("the emulated node is not there")?;
    let gpu = Gpu::new()?;
    // SAFETY: a descriptor that was passed to this process, and is nobody else's in it.
    let shared = unsafe { OwnedFd::from_raw_fd(shared) };
    let mut import = vk::ImportMemoryFdInfoKHR::default().handle_type(OPAQUE).fd(shared.into_raw_fd());
    let info = vk::MemoryAllocateInfo::default().allocation_size(SIZE).push_next(&mut import);
    // SAFETY: valid arguments; the driver takes the descriptor.
    let memory = unsafe { gpu.device.allocate_memory(&info, None)? };
    let buffer = gpu.residency_buffer(SIZE)?;
    let bind = |n: u64| {
        let bind = vk::SparseMemoryBind::default().resource_offset(n * BLOCK).size(BLOCK).memory(memory);
        Some((buffer, bind.memory_offset((15 - n) * BLOCK)))
    };
    // In force.
    let done = gpu.timeline()?;
    let points = Points { signals: &[(done, 1)], ..Default::default() };
    gpu.submit(gpu.queue, bind(0), points, vk::Fence::null())?;
    gpu.wait(done, 1)?;
    // Waiting for what nobody signals, with more behind it.
    let never = gpu.timeline()?;
    let points = Points { waits: &[(never, 1)], signals: &[(done, 2)] };
    gpu.submit(gpu.queue, bind(1), points, vk::Fence::null())?;
    gpu.submit(gpu.queue, bind(2), Points::default(), gpu.fence()?)?;
    // In the kernel's queues.
    emulator.hold(true)?;
    for n in 3..6 {
        gpu.submit(
            if gpu.other_binds { gpu.other } else { gpu.queue },
            bind(n),
            Points::default(),
            vk::Fence::null(),
        )?;
    }
    println!("{READY}");
    match end {
        End::Exit => std::process::exit(0),
        End::Return => std::mem::forget(gpu),
        End::Kill => std::thread::sleep(2 * PATIENCE),
    }
    Ok(())
}

/// Waits for the end of a process.
fn wait(child: &mut Child) -> Result<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait()?;
    bail!("a process with pending binds does not end")
}

fn run(end: End, shared: &OwnedFd) -> Result<()> {
    // Without the flag it is not closed in the other process.
    let inherited = shared.try_clone()?;
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty())?;
    let name = end.to_possible_value().context("an end without a name")?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["end", name.get_name(), &inherited.as_raw_fd().to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    BufReader::new(child.stdout.take().context("no output")?).read_line(&mut said)?;
    if end == End::Kill {
        child.kill()?;
    }
    let status = wait(&mut child)?;
    ensure!(said.trim_end() == READY, "the other process has bound nothing: {status}");
    ensure!(status.success() == (end != End::Kill), "the other process ended with {status}");
    Ok(())
}

fn ends(gpu: &Gpu, on: &Resources, end: End) -> Result<()> {
    let (memory, shared) = shared_memory(gpu)?;
    let bind = |n: u64| {
        let bind = vk::SparseMemoryBind::default().resource_offset(n * BLOCK).size(BLOCK).memory(memory);
        gpu.bind_buffer(on.buffers[0], &[bind])
    };
    bind(1)?;
    // SAFETY: memory that this thread alone maps, and the other process does not write to.
    unsafe {
        let map = |device: &ash::Device| device.map_memory(memory, 0, SIZE, vk::MemoryMapFlags::empty());
        let word = map(&gpu.device)?.cast::<u32>();
        word.write_volatile(0x7e55_e7a0);
        run(end, &shared)?;
        // What the other has left is still ours: bound, mapped, to be bound elsewhere, and to be freed.
        ensure!(word.read_volatile() == 0x7e55_e7a0, "memory of an ended process is gone for the others too");
        gpu.device.unmap_memory(memory);
    }
    bind(3)?;
    gpu.bind_buffer(on.buffers[0], &[gpu.part(5 * BLOCK, BLOCK, 0)])?;
    // SAFETY: memory that is bound, and that nothing uses.
    unsafe { gpu.device.free_memory(memory, None) };
    Ok(())
}

fn one_buffer(gpu: &Gpu) -> Result<Resources> {
    Ok(Resources { buffers: vec![gpu.residency_buffer(SIZE)?], ..Default::default() })
}

pub fn steps() -> Vec<Step> {
    let step = |name, run| Step {
        name,
        needs: Needs::Processes,
        prepare: one_buffer,
        run,
        fewest: None,
        extra: false,
    };
    vec![
        step("a process exits amid binds", |gpu, on| ends(gpu, on, End::Exit)),
        step("a process returns amid binds", |gpu, on| ends(gpu, on, End::Return)),
        step("a process is killed amid binds", |gpu, on| ends(gpu, on, End::Kill)),
    ]
}

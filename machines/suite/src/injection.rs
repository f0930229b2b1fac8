//! Breaks the emulated Mali, on machines that have one: a register that no real one has, through /dev/mem.

use core::sync::atomic::{AtomicU32, Ordering};
use std::fs::File;
use std::time::{Duration, Instant};
use std::{io, thread};

use mali::registers as r;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use wire::map;

/// The GPU's registers.
pub struct Injector(&'static [AtomicU32]);

impl Injector {
    /// Maps the registers. It takes root, and a kernel that was started with `iomem=relaxed`.
    pub fn open() -> io::Result<Self> {
        let len = (map::GPU_REGISTERS.end - map::GPU_REGISTERS.start) as usize;
        let mem = File::options().read(true).write(true).open("/dev/mem")?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let start = core::ptr::null_mut();
        // SAFETY: a new mapping where the kernel likes, of what the device reads and writes as words.
        let start = unsafe { mmap(start, len, prot, MapFlags::SHARED, &mem, map::GPU_REGISTERS.start) }?;
        // SAFETY: `len` bytes, page-aligned, never unmapped.
        Ok(Self(unsafe { core::slice::from_raw_parts(start.cast(), len / 4) }))
    }

    /// The microcontroller stops, until the GPU is reset or without power.
    pub fn hang_mcu(&self) {
        self.write(r::INJECT_MCU_HANG);
    }

    /// The MMU does not finish commands any more, until then.
    pub fn hang_mmu(&self) {
        self.write(r::INJECT_MMU_HANG);
        // The driver does not wait for the device to see its commands: it has to find it busy.
        self.wait(r::AS + r::AS_STATUS, |status| status != 0, "there is no emulated Mali here");
    }

    /// Waits for the driver to reset what hangs. What else makes it flush caches meanwhile may overwrite its command: plain memory
    /// holds one.
    pub fn wait_for_reset(&self) {
        self.wait(r::INJECT, |broken| broken == 0, "the driver does not reset the GPU");
    }

    fn wait(&self, offset: u32, is_done: impl Fn(u32) -> bool, otherwise: &str) {
        let start = Instant::now();
        while !is_done(self.word(offset).load(Ordering::SeqCst)) {
            assert!(start.elapsed() < Duration::from_secs(30), "{otherwise}");
            thread::sleep(Duration::from_micros(100));
        }
    }

    fn write(&self, value: u32) {
        self.word(r::INJECT).store(value, Ordering::SeqCst);
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        &self.0[offset as usize / 4]
    }
}

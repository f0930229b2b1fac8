//! Physical memory through /dev/mem: reserved memory and device registers, as 32-bit words.

use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use std::fs::File;

use anyhow::{Context, Result};
use rustix::mm::{MapFlags, ProtFlags};

/// A mapped range of physical addresses, for as long as the process lives.
#[derive(Clone, Copy)]
pub struct Physical {
    words: &'static [AtomicU32],
}

impl Physical {
    /// Maps `range`, whole pages. The kernel must have been started with `iomem=relaxed` for memory that a driver claims.
    pub fn map(range: Range<u64>) -> Result<Self> {
        let len = (range.end - range.start) as usize;
        let mem = File::options().read(true).write(true).open("/dev/mem").context("cannot open /dev/mem")?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes. What is there belongs to us: see `wire::map`.
        let start = unsafe {
            rustix::mm::mmap(core::ptr::null_mut(), len, prot, MapFlags::SHARED, &mem, range.start)
        }
        .with_context(|| format!("cannot map {range:#x?} of /dev/mem"))?;
        // SAFETY: `len` bytes, page-aligned, never unmapped. Others change them only as words, as the atomics allow.
        let words = unsafe { core::slice::from_raw_parts(start.cast(), len / 4) };
        Ok(Self { words })
    }

    /// Reads the word at byte `offset`.
    pub fn read(&self, offset: u32) -> u32 {
        self.words[offset as usize / 4].load(Ordering::SeqCst)
    }

    /// Writes the word at byte `offset`.
    pub fn write(&self, offset: u32, value: u32) {
        self.words[offset as usize / 4].store(value, Ordering::SeqCst);
    }

    /// Takes the word at byte `offset`, and leaves zero.
    pub fn take(&self, offset: u32) -> u32 {
        let word = &self.words[offset as usize / 4];
        // Most words are zero most of the time, and a load costs less than an exchange.
        if word.load(Ordering::SeqCst) == 0 { 0 } else { word.swap(0, Ordering::SeqCst) }
    }
}

//! Physical memory through /dev/mem: reserved memory and device registers, as 32-bit words.

use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::fs::File;
use std::path::Path;

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
        Self::map_file(Path::new("/dev/mem"), range)
    }

    /// Maps `range` of a file that stands for physical memory.
    pub fn map_file(path: &Path, range: Range<u64>) -> Result<Self> {
        let len = (range.end - range.start) as usize;
        let shown = || path.display().to_string();
        let file = File::options().read(true).write(true).open(path).with_context(shown)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes. What is there belongs to us, or to the device that we play: see `wire::map`.
        let start = unsafe {
            rustix::mm::mmap(core::ptr::null_mut(), len, prot, MapFlags::SHARED, &file, range.start)
        }
        .with_context(|| format!("cannot map {range:#x?} of {}", shown()))?;
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

    /// Gives the bits of `mask` in the word at byte `offset` the values that they have in `bits`; returns the word as it was.
    pub fn update(&self, offset: u32, mask: u32, bits: u32) -> u32 {
        let change = |word| Some(word & !mask | bits & mask);
        let word = &self.words[offset as usize / 4];
        // It always succeeds, as there always is a change.
        word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, change).unwrap_or_else(|word| word)
    }

    /// Takes the word at byte `offset`, and leaves zero.
    pub fn take(&self, offset: u32) -> u32 {
        let word = &self.words[offset as usize / 4];
        // Most words are zero most of the time, and a load costs less than an exchange.
        if word.load(Ordering::SeqCst) == 0 { 0 } else { word.swap(0, Ordering::SeqCst) }
    }

    /// The word at byte `offset`, a multiple of four, if it is in the range.
    pub fn word(&self, offset: u64) -> Option<&'static AtomicU32> {
        self.words.get(usize::try_from(offset / 4).ok()?)
    }

    /// The 64 bits at byte `offset`, a multiple of eight, if they are in the range.
    pub fn long(&self, offset: u64) -> Option<&'static AtomicU64> {
        let index = usize::try_from(offset / 8).ok()? * 2;
        let [low, _high] = self.words.get(index..index + 2)? else { return None };
        let long: *const AtomicU32 = low;
        // SAFETY: eight bytes of the mapping, which starts with a page; atomics of both sizes may meet there.
        Some(unsafe { &*core::ptr::slice_from_raw_parts(long, 2).cast::<AtomicU64>() })
    }
}

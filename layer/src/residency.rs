//! Residency bits that shaders read: one bit a 64 KiB block, in memory that the driver's compiled shaders look at.

use crate::layout::BLOCK;
use core::sync::atomic::{AtomicU32, Ordering};
use gpuvm::VaRange;

/// The residency bitmap of one plane of an image.
///
/// It belongs to the driver's image and lives as long; the layer is its only writer because the driver never sees a bind.
pub struct Residency {
    words: *const AtomicU32,
    base: u64,
}

// SAFETY: the words are only touched with atomic operations.
unsafe impl Send for Residency {}
// SAFETY: as above.
unsafe impl Sync for Residency {}

impl Residency {
    /// # Safety
    /// `words` points to one bit for every block of the plane that begins at address `base`, rounded up to whole words, and stays
    /// valid until this is dropped.
    pub unsafe fn new(words: *mut u32, base: u64) -> Self {
        Self { words: words.cast(), base }
    }

    /// Sets or clears the bits of every block that `range` touches, a word at a time.
    ///
    /// `range` is part of the plane that this was made for.
    pub fn set(&self, range: VaRange, resident: bool) {
        let first = (range.start - self.base) / BLOCK;
        let end = (range.end() - self.base).div_ceil(BLOCK);
        let mut bit = first;
        while bit < end {
            let until = end.min((bit / 32 + 1) * 32);
            let ones = until - bit;
            let mask = (u32::MAX >> (32 - ones)) << (bit % 32);
            // SAFETY: the bits lie in the plane (contract of `new`), and `range` in the plane.
            let word = unsafe { &*self.words.add((bit / 32) as usize) };
            if resident {
                word.fetch_or(mask, Ordering::Release);
            } else {
                word.fetch_and(!mask, Ordering::Release);
            }
            bit = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_follow_ranges(steps in prop::collection::vec((0u64..200, 1u64..100, any::<bool>()), 1..20)) {
            const BASE: u64 = 0x7000_1000;
            let mut words = [0u32; 10];
            let mut model = [false; 320];
            // SAFETY: ten words are 320 bits, and no range below reaches further.
            let residency = unsafe { Residency::new(words.as_mut_ptr(), BASE) };
            for (first, count, resident) in steps {
                residency.set(VaRange { start: BASE + first * BLOCK, len: count * BLOCK }, resident);
                model[first as usize..(first + count) as usize].fill(resident);
            }
            for (bit, &expected) in model.iter().enumerate() {
                prop_assert_eq!(words[bit / 32] >> (bit % 32) & 1 == 1, expected, "bit {}", bit);
            }
        }
    }
}

//! Reproducible choices.

use crate::gpu::pattern;

/// A sequence of numbers that is the same in every run.
pub(crate) struct Random {
    seed: u32,
    index: u32,
}

impl Random {
    pub(crate) fn new(seed: u32) -> Self {
        Self { seed, index: 0 }
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.index += 1;
        u64::from(pattern(self.seed, self.index)) % bound
    }

    /// Brings `items` into another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index as u64 + 1) as usize);
        }
    }
}

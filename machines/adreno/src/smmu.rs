//! The SMMU: who it says it is, and the way from GPU addresses to physical ones.

use crate::page_table::{ADDRESS, PAGE, translate};
use crate::registers as r;
use crate::{Memory, Registers};

/// Stage 1 only; coherent walks; stream matching with eight groups, 32768 streams; eight interrupts.
const ID0: u32 = 1 << 30 | 1 << 27 | 8 << 16 | 1 << 14 | 15 << 9 | 8;
/// Pages of 4 KiB, eight of them before the context banks, of which there are eight.
const ID1: u32 = 2 << 28 | 8;
/// Granules of 4, 16 and 64 KiB; 49 bits from the GPU, 48 out and in.
const ID2: u32 = 0b111 << 12 | 5 << 8 | 5 << 4 | 5;
/// Revision 2.
const ID7: u32 = 2 << 4;

/// The bit of a GPU address that chooses the table.
const HALF: u64 = 1 << 48;

pub(crate) fn reset(registers: &impl Registers) {
    let ids = [(r::SMMU_ID0, ID0), (r::SMMU_ID1, ID1), (r::SMMU_ID2, ID2), (r::SMMU_ID7, ID7)];
    for (offset, value) in ids {
        registers.write(offset, value);
    }
}

/// The GPU's view of memory.
pub(crate) struct View<'a, R, M> {
    pub(crate) registers: &'a R,
    pub(crate) memory: &'a M,
}

impl<R: Registers, M: Memory> View<'_, R, M> {
    fn physical(&self, va: u64) -> Option<u64> {
        let table = if va & HALF != 0 { r::SMMU_TTBR1 } else { r::SMMU_TTBR0 };
        let root = self.registers.read_long(table);
        if root & ADDRESS == 0 {
            return None;
        }
        translate(self.memory, root, va & (HALF - 1))
    }

    /// Reads the word at `va`; nothing when that faults.
    pub(crate) fn read(&self, va: u64) -> Option<u32> {
        self.memory.load(self.physical(va)?)
    }

    /// Writes the word at `va`. Whether that did not fault.
    pub(crate) fn write(&self, va: u64, value: u32) -> bool {
        let Some(address) = self.physical(va) else { return false };
        let prr = self.registers.read_long(r::SMMU_PRR_ADDRESS);
        // What is written to the partially resident region is dropped.
        (prr != 0 && address & !(PAGE - 1) == prr) || self.memory.store(address, value)
    }
}

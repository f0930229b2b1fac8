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

/// An access to an address that is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) va: u64,
    pub(crate) write: bool,
}

/// Leaves a fault for the driver to read.
pub(crate) fn report(registers: &impl Registers, fault: Fault) {
    registers.write_long(r::SMMU_FAR, fault.va);
    registers.write(r::SMMU_FSYNR0, if fault.write { r::FSYNR0_WRITE } else { 0 });
    registers.write(r::SMMU_FSR, r::FSR_TRANSLATION);
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

    /// Reads the word at `va`.
    pub(crate) fn read(&self, va: u64) -> Result<u32, Fault> {
        let word = self.physical(va).and_then(|address| self.memory.load(address));
        word.ok_or(Fault { va, write: false })
    }

    /// Writes the word at `va`.
    pub(crate) fn write(&self, va: u64, value: u32) -> Result<(), Fault> {
        let fault = Fault { va, write: true };
        let address = self.physical(va).ok_or(fault)?;
        let prr = self.registers.read_long(r::SMMU_PRR_ADDRESS);
        // What is written to the partially resident region is dropped.
        let is_null = prr != 0 && address & !(PAGE - 1) == prr;
        if is_null || self.memory.store(address, value) { Ok(()) } else { Err(fault) }
    }
}

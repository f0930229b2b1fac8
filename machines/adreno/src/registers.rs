//! Byte offsets of the registers, and the bits in them that mean something here.
//!
//! 64-bit registers are named by their low word, the high word follows.

/// The parts of the register file, each a device of its own for the driver: offset and length.
pub mod part {
    use core::ops::Range;

    /// The SMMU.
    pub const SMMU: Range<u32> = 0..0x1_0000;
    /// The GPU proper.
    pub const GPU: Range<u32> = 0x10_0000..0x14_0000;
    /// What is there of a GMU without one: counters, for the most part. At the distance from the GPU that the driver expects.
    pub const GMU_WRAPPER: Range<u32> = 0x16_a000..0x19_a000;
    /// The controller of clocks and power domains.
    pub const CLOCK_CONTROLLER: Range<u32> = 0x1a_0000..0x1a_9000;
}

use part::{CLOCK_CONTROLLER, GPU, SMMU};

/// The GPU's registers are counted in words.
const fn word(index: u32) -> u32 {
    GPU.start + index * 4
}

/// Acknowledges that the bus interface is halted, the part near the GPU.
pub const RBBM_GBIF_HALT_ACK: u32 = word(0x17);
/// Write ones to forget interrupts.
pub const RBBM_INT_CLEAR_CMD: u32 = word(0x37);
/// What may interrupt.
pub const RBBM_INT_0_MASK: u32 = word(0x38);
/// What has happened.
pub const RBBM_INT_0_STATUS: u32 = word(0x201);
/// GPU address of the ring buffer, 64 bits.
pub const CP_RB_BASE: u32 = word(0x800);
/// Ring buffer: log2 of its length in units of eight bytes in the low six bits.
pub const CP_RB_CNTL: u32 = word(0x802);
/// GPU address of the word that shadows [`CP_RB_RPTR`], 64 bits.
pub const CP_RB_RPTR_ADDR: u32 = word(0x804);
/// Index of the next word that the command processor will read.
pub const CP_RB_RPTR: u32 = word(0x806);
/// Index of the first word that the driver has not written.
pub const CP_RB_WPTR: u32 = word(0x807);
/// The command processor's switch.
pub const CP_SQE_CNTL: u32 = word(0x808);
/// A counter of 19.2 MHz, 64 bits.
pub const CP_ALWAYS_ON_COUNTER: u32 = word(0x980);
/// Acknowledges that the bus interface is halted.
pub const GBIF_HALT_ACK: u32 = word(0x3c46);

/// Interrupt: an event has written its timestamp.
pub const INT_CACHE_FLUSH_TS: u32 = 1 << 20;

/// [`CP_SQE_CNTL`]: run.
pub const SQE_RUN: u32 = 1;

/// Identification of the SMMU: stages, streams.
pub const SMMU_ID0: u32 = SMMU.start + 0x20;
/// Identification of the SMMU: pages and context banks.
pub const SMMU_ID1: u32 = SMMU.start + 0x24;
/// Identification of the SMMU: address sizes and granules.
pub const SMMU_ID2: u32 = SMMU.start + 0x28;
/// Identification of the SMMU: revision.
pub const SMMU_ID7: u32 = SMMU.start + 0x3c;
/// Physical address of the page that stands for the partially resident region, 64 bits.
pub const SMMU_PRR_ADDRESS: u32 = SMMU.start + 0x6008;
/// The first context bank, which the driver gives to the GPU: the table of addresses whose bit 48 is clear, 64 bits.
pub const SMMU_TTBR0: u32 = SMMU.start + SMMU_BANKS + 0x20;
/// The table of addresses whose bit 48 is set, 64 bits.
pub const SMMU_TTBR1: u32 = SMMU.start + SMMU_BANKS + 0x28;

/// The first context bank: what kind of fault there was. The driver clears it by writing what it has read, which in memory changes
/// nothing: it looks there when it is interrupted.
pub const SMMU_FSR: u32 = SMMU.start + SMMU_BANKS + 0x58;
/// The first context bank: the address of the fault, 64 bits.
pub const SMMU_FAR: u32 = SMMU.start + SMMU_BANKS + 0x60;
/// The first context bank: the access that faulted.
pub const SMMU_FSYNR0: u32 = SMMU.start + SMMU_BANKS + 0x68;

/// [`SMMU_FSR`]: nothing is mapped there.
pub const FSR_TRANSLATION: u32 = 1 << 1;
/// [`SMMU_FSYNR0`]: it was a write.
pub const FSYNR0_WRITE: u32 = 1 << 4;

/// Context banks come after as many pages as [`SMMU_ID1`] says.
const SMMU_BANKS: u32 = 0x8000;

/// A power domain (GDSC): where it is switched, and where it shows that it is on.
pub struct PowerDomain {
    /// [`GDSC_COLLAPSE`] switches it off.
    pub control: u32,
    /// [`GDSC_ON`] shows that it is on.
    pub status: u32,
}

/// The two domains: that of the GPU's core, and that of what surrounds it, which has a status register of its own.
pub const POWER_DOMAINS: [PowerDomain; 2] = [
    PowerDomain { control: CLOCK_CONTROLLER.start + 0x100c, status: CLOCK_CONTROLLER.start + 0x100c },
    PowerDomain { control: CLOCK_CONTROLLER.start + 0x106c, status: CLOCK_CONTROLLER.start + 0x1540 },
];

/// Switches a power domain off.
pub const GDSC_COLLAPSE: u32 = 1;
/// The power domain is on.
pub const GDSC_ON: u32 = 1 << 31;

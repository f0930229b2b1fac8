//! An emulated Qualcomm Adreno A702 as far as a kernel driver sees it: the command processor with its ring buffer, the SMMU
//! (an Arm MMU-500) that it looks through, and the controller of its clocks and power domains. It is the smallest GPU of its
//! family, the one without a power-management processor (GMU).
//!
//! [`Gpu`] does not know how it is reached. Its registers are a [`Registers`], its interrupt a call of [`Interrupts`], the
//! machine's RAM a [`Memory`]; a back end is whatever provides the three and calls [`Gpu::step`]: often enough where registers
//! are plain memory that is polled, after every write where each access is trapped.
//!
//! What executes is what a submission needs to come to its end: the packets of the ring buffer and of the command streams that
//! it calls which write memory, switch page tables and signal fences. No shader and no drawing: those packets are skipped.
//! Every address goes through the page tables that the driver has written.
//!
//! Names and offsets are those of the Linux drivers (`a6xx_gpu.c`, `arm-smmu.c`, `gpucc-sm6115.c`).

mod gpu;
mod packet;
pub mod page_table;
mod power;
pub mod registers;
mod ring;
mod smmu;

pub use gpu::{Counters, Gpu};

use core::time::Duration;

/// Bytes that the register file covers.
pub const REGISTERS_LEN: u64 = 0x20_0000;

/// The code of the command processor that the driver wants to load, `qcom/a702_sqe.fw`. The first word is a header; ours is
/// never executed.
pub const FIRMWARE: [u8; 8] = [0; 8];

/// The register file: 32-bit words at byte offsets below [`REGISTERS_LEN`], seen by the driver and by the device. Its parts
/// are where [`registers`] says.
pub trait Registers {
    /// Reads the word at `offset`.
    fn read(&self, offset: u32) -> u32;

    /// Writes the word at `offset`.
    fn write(&self, offset: u32, value: u32);

    /// Gives the bits of `mask` in the word at `offset` the values that they have in `bits`, and returns the word as it was, in
    /// one step: what the driver writes meanwhile is seen now or by the next call, never lost.
    fn update(&self, offset: u32, mask: u32, bits: u32) -> u32;

    /// Reads the 64-bit register at `offset`, low word first.
    fn read_long(&self, offset: u32) -> u64 {
        u64::from(self.read(offset)) | u64::from(self.read(offset + 4)) << 32
    }

    /// Writes the 64-bit register at `offset`, low word first.
    fn write_long(&self, offset: u32, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }
}

/// The machine's RAM: 32-bit words at physical addresses, aligned.
pub trait Memory {
    /// Reads the word at `address`; nothing when there is no RAM.
    fn load(&self, address: u64) -> Option<u32>;

    /// Writes the word at `address`. Whether there is RAM.
    fn store(&self, address: u64, value: u32) -> bool;
}

/// An interrupt line, by its distance from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// The GPU's.
    Gpu = 0,
    /// That of the SMMU's first context bank, behind the one for all of the SMMU: an access faulted.
    Fault = 2,
}

/// The interrupt lines to the CPU, edge triggered.
pub trait Interrupts {
    /// Raises one. All writes to registers and memory before it are visible to whoever handles the interrupt.
    fn raise(&self, line: Line);
}

/// Time since any fixed moment.
pub type Instant = Duration;

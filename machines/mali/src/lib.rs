//! An emulated Arm Mali GPU with a command stream front end (CSF), as far as a kernel driver sees it: identification,
//! interrupts, resets, power, address spaces, and a microcontroller (MCU) that boots a firmware image.
//!
//! [`Gpu`] does not know how it is reached. Its registers are a [`Registers`], its interrupt lines an [`Interrupts`]; a back
//! end is whatever provides the two and calls [`Gpu::step`]: often enough where registers are plain memory that is polled,
//! after every write where each access is trapped.
//!
//! Without access to memory the device is *passive*: its firmware ([`firmware`]) lays the words in which the driver requests
//! and the words in which the MCU acknowledges over each other, so that every request acknowledges itself. That carries a
//! driver through probe, power management and all of VM_BIND. With a [`Memory`] it is *active*: the MCU takes requests,
//! starts, suspends and ends groups, and executes their command streams through the tables of their address spaces, with
//! faults where the real one would have them. No shader executes: draws and dispatches are passed over.
//!
//! Names and offsets are those of the Linux driver (`panthor_gpu_regs.h`, `panthor_mmu_regs.h`, `panthor_fw_regs.h`).

pub mod firmware;
mod gpu;
mod identity;
mod interrupt;
mod mcu;
mod memory;
pub mod page_table;
pub mod registers;

pub use gpu::{Counters, Gpu};
pub use identity::Identity;
pub use interrupt::Line;
pub use memory::Memory;

use core::time::Duration;

/// Bytes that the register file covers, from the identification registers to the last doorbell that is used.
pub const REGISTERS_LEN: u64 = 0x20_0000;

/// The register file: 32-bit words at byte offsets below [`REGISTERS_LEN`], seen by the driver and by the device.
pub trait Registers {
    /// Reads the word at `offset`.
    fn read(&self, offset: u32) -> u32;

    /// Writes the word at `offset`.
    fn write(&self, offset: u32, value: u32);

    /// Takes the word at `offset` and leaves zero, in one step: a value that the driver writes meanwhile is taken now or by
    /// the next call, never lost.
    fn take(&self, offset: u32) -> u32;
}

/// The interrupt lines to the CPU, edge triggered.
pub trait Interrupts {
    /// Raises a line. All writes to registers before it are visible to whoever handles the interrupt.
    fn raise(&self, line: Line);
}

/// Time since any fixed moment.
pub type Instant = Duration;

//! Byte offsets of the registers, and the bits in them that mean something here.
//!
//! 64-bit registers are named by their low word, the high word follows.

/// Architecture, product and version of the GPU.
pub const GPU_ID: u32 = 0x0;
/// L2 cache: log2 of the line size in the low byte.
pub const L2_FEATURES: u32 = 0x4;
/// Tells variants of the shader core apart.
pub const CORE_FEATURES: u32 = 0x8;
/// Tiler: bin size and levels.
pub const TILER_FEATURES: u32 = 0xc;
/// Memory system; bit 0: core groups are coherent.
pub const MEM_FEATURES: u32 = 0x10;
/// Address bits: virtual in byte 0, physical in byte 1.
pub const MMU_FEATURES: u32 = 0x14;
/// Mask of address spaces.
pub const AS_PRESENT: u32 = 0x18;
/// Version of the command stream front end.
pub const CSF_ID: u32 = 0x1c;
/// GPU interrupts, a block of four registers.
pub const GPU_INT: u32 = 0x20;
/// Commands to the GPU: type in the low byte.
pub const GPU_CMD: u32 = 0x30;
/// Limits of a core: threads, workgroup, barrier, features.
pub const THREAD_MAX_THREADS: u32 = 0xa0;
/// Largest workgroup.
pub const THREAD_MAX_WORKGROUP_SIZE: u32 = 0xa4;
/// Most threads at a barrier.
pub const THREAD_MAX_BARRIER_SIZE: u32 = 0xa8;
/// Registers and task queue of a core.
pub const THREAD_FEATURES: u32 = 0xac;
/// First of four masks of texture formats.
pub const TEXTURE_FEATURES: u32 = 0xb0;
/// Mask of shader cores, 64 bits.
pub const SHADER_PRESENT: u32 = 0x100;
/// Mask of tilers, 64 bits.
pub const TILER_PRESENT: u32 = 0x110;
/// Mask of L2 slices, 64 bits.
pub const L2_PRESENT: u32 = 0x120;
/// Coherency protocols that the GPU knows, `1 << protocol`.
pub const COHERENCY_FEATURES: u32 = 0x300;
/// The protocol in use; 31 is none.
pub const COHERENCY_PROTOCOL: u32 = 0x304;
/// The MCU's switch.
pub const MCU_CONTROL: u32 = 0x700;
/// What the MCU does: a `MCU_STATUS_` value.
pub const MCU_STATUS: u32 = 0x704;
/// Job interrupts, a block: bit n for group slot n, bit 31 for the global interface.
pub const JOB_INT: u32 = 0x1000;
/// MMU interrupts, a block: bit n for a fault in address space n.
pub const MMU_INT: u32 = 0x2000;
/// First address space; they are [`AS_STRIDE`] apart.
pub const AS: u32 = 0x2400;
/// From one address space to the next.
pub const AS_STRIDE: u32 = 0x40;
/// Within an address space: physical address of the translation table's root, 64 bits.
pub const AS_TRANSTAB: u32 = 0x0;
/// Within an address space: the command register.
pub const AS_COMMAND: u32 = 0x18;
/// Within an address space: what the last fault was. The exception, and from bit 8 the access.
pub const AS_FAULTSTATUS: u32 = 0x1c;
/// Within an address space: where the last fault was, 64 bits.
pub const AS_FAULTADDRESS: u32 = 0x20;
/// Within an address space: bit 0 while a command is executed.
pub const AS_STATUS: u32 = 0x28;
/// Within an address space: how it translates, 64 bits.
pub const AS_TRANSCFG: u32 = 0x30;
/// What of [`AS_TRANSCFG`] is the mode.
pub const AS_TRANSCFG_ADRMODE: u32 = 0xf;
/// Mode of [`AS_TRANSCFG`]: tables of AArch64 with a granule of 4 KiB.
pub const AS_TRANSCFG_ADRMODE_AARCH64_4K: u32 = 6;
/// Access in [`AS_FAULTSTATUS`]: a load.
pub const AS_FAULTSTATUS_READ: u32 = 2 << 8;
/// Access in [`AS_FAULTSTATUS`]: a store.
pub const AS_FAULTSTATUS_WRITE: u32 = 3 << 8;
/// Not of the hardware: what a test writes here, an `INJECT_` value, breaks something until a reset, or until the power is off.
pub const INJECT: u32 = 0x7_0000;
/// [`INJECT`]: the MCU stops, and answers nothing.
pub const INJECT_MCU_HANG: u32 = 1 << 0;
/// [`INJECT`]: address spaces do not finish any command.
pub const INJECT_MMU_HANG: u32 = 1 << 1;
/// The page with the number of the last cache flush, which user space maps.
pub const LATEST_FLUSH_ID: u32 = 0x1_0000;
/// First doorbell, the MCU's own; they are [`DOORBELL_STRIDE`] apart.
pub const DOORBELL: u32 = 0x8_0000;
/// From one doorbell page to the next.
pub const DOORBELL_STRIDE: u32 = 0x1_0000;

/// Within an interrupt block: what has happened.
pub const INT_RAWSTAT: u32 = 0x0;
/// Within an interrupt block: write ones to forget.
pub const INT_CLEAR: u32 = 0x4;
/// Within an interrupt block: what may interrupt.
pub const INT_MASK: u32 = 0x8;
/// Within an interrupt block: what has happened and may interrupt.
pub const INT_STAT: u32 = 0xc;

/// GPU interrupt: a reset is over.
pub const GPU_IRQ_RESET_COMPLETED: u32 = 1 << 8;
/// GPU interrupt: caches are clean.
pub const GPU_IRQ_CLEAN_CACHES_COMPLETED: u32 = 1 << 17;
/// Job interrupt: the global interface has news.
pub const JOB_INT_GLOBAL_IF: u32 = 1 << 31;

/// Type of a [`GPU_CMD`]: soft or hard reset.
pub const GPU_CMD_RESET: u32 = 1;
/// Type of a [`GPU_CMD`]: flush caches.
pub const GPU_CMD_FLUSH_CACHES: u32 = 4;

/// [`AS_COMMAND`]: take translation table and attributes.
pub const AS_COMMAND_UPDATE: u32 = 1;
/// [`AS_COMMAND`]: stop accesses to a region.
pub const AS_COMMAND_LOCK: u32 = 2;
/// [`AS_COMMAND`]: let accesses go on.
pub const AS_COMMAND_UNLOCK: u32 = 3;

/// The MCU is off.
pub const MCU_STATUS_DISABLED: u32 = 0;
/// The MCU runs its firmware.
pub const MCU_STATUS_ENABLED: u32 = 1;
/// The firmware has halted, as it was asked to.
pub const MCU_STATUS_HALT: u32 = 2;
/// The firmware cannot go on.
pub const MCU_STATUS_FATAL: u32 = 3;

/// Mask of L2 slices that are on: without any, all is off.
pub const L2_READY: u32 = 0x160;

/// The power domains that are switched here: what is there, and where it is switched on, off, and seen.
pub struct PowerDomain {
    /// Turns on, by a mask.
    pub on: u32,
    /// Turns off, by a mask.
    pub off: u32,
    /// Mask of what is on.
    pub ready: u32,
}

/// Shader cores, tilers and L2 slices.
pub const POWER_DOMAINS: [PowerDomain; 3] = [
    PowerDomain { on: 0x180, off: 0x1c0, ready: 0x140 },
    PowerDomain { on: 0x190, off: 0x1d0, ready: 0x150 },
    PowerDomain { on: 0x1a0, off: 0x1e0, ready: L2_READY },
];

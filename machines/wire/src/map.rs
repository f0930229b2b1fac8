//! Physical addresses of the machine: those of QEMU's `virt` board, and what we reserve of its memory.

use core::ops::Range;

/// Memory, in bytes.
pub const RAM: Range<u64> = 0x4000_0000..0x6000_0000;

/// The registers of the emulated GPU, and of what belongs to it: reserved memory, which Linux leaves alone and drivers take for
/// devices.
pub const GPU_REGISTERS: Range<u64> = 0x5fe0_0000..0x6000_0000;

/// The [channel](crate::channel): reserved memory that only the guest's init writes and only the host reads.
pub const CHANNEL: Range<u64> = 0x5be0_0000..0x5fe0_0000;

/// The distributor of the interrupt controller, a GICv2.
pub const GIC_DISTRIBUTOR: Range<u64> = 0x0800_0000..0x0801_0000;

/// The CPU interface of the interrupt controller.
pub const GIC_CPU: Range<u64> = 0x0801_0000..0x0802_0000;

/// The console, a PL011.
pub const UART: Range<u64> = 0x0900_0000..0x0900_1000;

/// The console's interrupt, a shared peripheral interrupt (SPI) of the GIC.
pub const UART_SPI: u32 = 1;

/// The first SPI of the emulated GPU; none of the board's devices uses it or the next eleven.
pub const GPU_SPI: u32 = 100;

/// The configuration space of the PCI Express bridge, there where a machine has an [alias of its memory](RAM_ALIAS).
pub const PCIE_CONFIG: Range<u64> = 0x40_1000_0000..0x40_2000_0000;

/// What the PCI Express bridge passes on to small regions.
pub const PCIE_MEMORY: Range<u64> = 0x1000_0000..0x3eff_0000;

/// What it passes on to large ones.
pub const PCIE_LARGE_MEMORY: Range<u64> = 0x80_0000_0000..0x81_0000_0000;

/// Vendor and device of the PCI function (QEMU's `ivshmem`) whose third region is [`RAM`] once more: Linux lets no program
/// map what it uses as memory, but it does let it map this.
pub const RAM_ALIAS: (u16, u16) = (0x1af4, 0x1110);

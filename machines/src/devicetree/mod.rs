//! The device tree: QEMU's `virt` board as far as Linux needs it here, and the emulated GPU.
//!
//! QEMU itself adds memory, command line and initramfs when it boots.

mod msm;
mod panthor;

use core::ops::Range;

use anyhow::Result;
use vm_fdt::{FdtReserveEntry, FdtWriter};
use wire::map;

use crate::gpu::Gpu;

const GIC: u32 = 1;
const UART_CLOCK: u32 = 2;
/// The first number that is free for what a GPU needs.
const FIRST_FREE: u32 = 3;

const UART_HZ: u32 = 24_000_000;
const GPU_HZ: u32 = 500_000_000;

/// Kinds and flags in an `interrupts` property.
const SPI: u32 = 0;
const PPI: u32 = 1;
const EDGE_RISING: u32 = 1;
const LEVEL_HIGH: u32 = 4;

/// Kinds of windows in the `ranges` of a PCI bridge.
const PCI_MEMORY_32: u32 = 0x0200_0000;
const PCI_MEMORY_64: u32 = 0x0300_0000;

/// What there is besides what every board has.
pub struct Board {
    /// The GPU, whose registers are reserved memory.
    pub gpu: Gpu,
    /// Number of processors.
    pub processors: u32,
    /// Whether the memory is there a second time, as a PCI function's.
    pub ram_alias: bool,
}

impl Board {
    /// The tree, flattened.
    pub fn devicetree(&self) -> Result<Vec<u8>> {
        let mut fdt = FdtWriter::new_with_mem_reserv(&[] as &[FdtReserveEntry])?;
        let root = fdt.begin_node("")?;
        let compatible = match self.gpu {
            Gpu::Panthor => panthor::BOARD,
            Gpu::Msm => msm::BOARD,
        };
        fdt.property_string_list("compatible", compatible.iter().map(|&name| name.into()).collect())?;
        fdt.property_string("model", "tessera: virt with an emulated GPU")?;
        fdt.property_u32("#address-cells", 2)?;
        fdt.property_u32("#size-cells", 2)?;
        fdt.property_u32("interrupt-parent", GIC)?;
        board(&mut fdt, self)?;
        reserved(&mut fdt)?;
        if self.ram_alias {
            pcie(&mut fdt)?;
        }
        match self.gpu {
            Gpu::Panthor => panthor::write(&mut fdt)?,
            Gpu::Msm => msm::write(&mut fdt)?,
        }
        fdt.end_node(root)?;
        Ok(fdt.finish()?)
    }
}

fn board(fdt: &mut FdtWriter, board: &Board) -> Result<()> {
    let processors = board.processors;
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    for n in 0..processors {
        let cpu = fdt.begin_node(&format!("cpu@{n}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", "arm,cortex-a57")?;
        fdt.property_string("enable-method", "psci")?;
        fdt.property_u32("reg", n)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(cpus)?;

    let psci = fdt.begin_node("psci")?;
    fdt.property_string_list("compatible", vec!["arm,psci-1.0".into(), "arm,psci-0.2".into()])?;
    // A hypervisor gets no calls of a kernel that could be one itself.
    fdt.property_string("method", if board.gpu.has_secure_world() { "smc" } else { "hvc" })?;
    fdt.end_node(psci)?;

    let timer = fdt.begin_node("timer")?;
    fdt.property_string("compatible", "arm,armv8-timer")?;
    fdt.property_null("always-on")?;
    // Secure, non-secure, virtual, hypervisor; each to every processor.
    let flags = ((1 << processors) - 1) << 8 | LEVEL_HIGH;
    let interrupts: Vec<u32> = [13, 14, 11, 10].into_iter().flat_map(|n| [PPI, n, flags]).collect();
    fdt.property_array_u32("interrupts", &interrupts)?;
    fdt.end_node(timer)?;

    let gic = fdt.begin_node(&format!("intc@{:x}", map::GIC_DISTRIBUTOR.start))?;
    fdt.property_string("compatible", "arm,cortex-a15-gic")?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_array_u64("reg", &[reg(&map::GIC_DISTRIBUTOR), reg(&map::GIC_CPU)].concat())?;
    fdt.property_u32("phandle", GIC)?;
    fdt.end_node(gic)?;

    clock(fdt, "uart-clock", UART_CLOCK, UART_HZ)?;
    let uart = fdt.begin_node(&format!("pl011@{:x}", map::UART.start))?;
    fdt.property_string_list("compatible", vec!["arm,pl011".into(), "arm,primecell".into()])?;
    fdt.property_array_u64("reg", &reg(&map::UART))?;
    fdt.property_array_u32("interrupts", &[SPI, map::UART_SPI, LEVEL_HIGH])?;
    fdt.property_array_u32("clocks", &[UART_CLOCK, UART_CLOCK])?;
    fdt.property_string_list("clock-names", vec!["uartclk".into(), "apb_pclk".into()])?;
    Ok(fdt.end_node(uart)?)
}

/// What Linux must neither use nor map: otherwise its own mapping would be a second, cached one.
fn reserved(fdt: &mut FdtWriter) -> Result<()> {
    let reserved = fdt.begin_node("reserved-memory")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    for (name, range) in [("channel", map::CHANNEL), ("gpu-registers", map::GPU_REGISTERS)] {
        let node = fdt.begin_node(&format!("{name}@{:x}", range.start))?;
        fdt.property_array_u64("reg", &reg(&range))?;
        fdt.property_null("no-map")?;
        fdt.end_node(node)?;
    }
    Ok(fdt.end_node(reserved)?)
}

/// A bridge without interrupts: what is behind it has none.
fn pcie(fdt: &mut FdtWriter) -> Result<()> {
    let node = fdt.begin_node(&format!("pcie@{:x}", map::PCIE_CONFIG.start))?;
    fdt.property_string("compatible", "pci-host-ecam-generic")?;
    fdt.property_string("device_type", "pci")?;
    fdt.property_u32("#address-cells", 3)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_array_u32("bus-range", &[0, 0xff])?;
    fdt.property_array_u64("reg", &reg(&map::PCIE_CONFIG))?;
    // At the same addresses on both sides.
    let windows = [(PCI_MEMORY_32, map::PCIE_MEMORY), (PCI_MEMORY_64, map::PCIE_LARGE_MEMORY)];
    let cells = |(kind, range): (u32, Range<u64>)| {
        let [start, len] = reg(&range);
        let halves = [start, start, len].into_iter().flat_map(|value| [(value >> 32) as u32, value as u32]);
        core::iter::once(kind).chain(halves)
    };
    let ranges: Vec<u32> = windows.into_iter().flat_map(cells).collect();
    fdt.property_array_u32("ranges", &ranges)?;
    fdt.property_null("dma-coherent")?;
    Ok(fdt.end_node(node)?)
}

/// A table with the one clock rate that the GPU has: drivers do not probe without one.
fn opp_table(fdt: &mut FdtWriter, phandle: u32) -> Result<()> {
    let table = fdt.begin_node("gpu-opp-table")?;
    fdt.property_string("compatible", "operating-points-v2")?;
    fdt.property_u32("phandle", phandle)?;
    let opp = fdt.begin_node(&format!("opp-{GPU_HZ}"))?;
    fdt.property_u64("opp-hz", GPU_HZ.into())?;
    fdt.end_node(opp)?;
    Ok(fdt.end_node(table)?)
}

fn clock(fdt: &mut FdtWriter, name: &str, phandle: u32, hz: u32) -> Result<()> {
    let clock = fdt.begin_node(name)?;
    fdt.property_string("compatible", "fixed-clock")?;
    fdt.property_u32("#clock-cells", 0)?;
    fdt.property_u32("clock-frequency", hz)?;
    fdt.property_u32("phandle", phandle)?;
    Ok(fdt.end_node(clock)?)
}

fn reg(range: &Range<u64>) -> [u64; 2] {
    [range.start, range.end - range.start]
}

//! The device tree: QEMU's `virt` board as far as Linux needs it here, and the emulated GPU.
//!
//! QEMU itself adds memory, command line and initramfs when it boots.

use core::ops::Range;

use anyhow::Result;
use mali::Line;
use vm_fdt::{FdtReserveEntry, FdtWriter};
use wire::map;

const GIC: u32 = 1;
const UART_CLOCK: u32 = 2;
const GPU_CLOCK: u32 = 3;
const GPU_OPP_TABLE: u32 = 4;

const UART_HZ: u32 = 24_000_000;
const GPU_HZ: u64 = 500_000_000;

/// Kinds and flags in an `interrupts` property.
const SPI: u32 = 0;
const PPI: u32 = 1;
const EDGE_RISING: u32 = 1;
const LEVEL_HIGH: u32 = 4;

/// The board with `processors` and a Mali GPU whose registers are reserved memory.
pub fn with_mali(processors: u32) -> Result<Vec<u8>> {
    let mut fdt = FdtWriter::new_with_mem_reserv(&[] as &[FdtReserveEntry])?;
    let root = fdt.begin_node("")?;
    fdt.property_string("compatible", "linux,dummy-virt")?;
    fdt.property_string("model", "tessera: virt with an emulated Mali")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", GIC)?;
    board(&mut fdt, processors)?;
    reserved(&mut fdt)?;
    gpu(&mut fdt)?;
    fdt.end_node(root)?;
    Ok(fdt.finish()?)
}

fn board(fdt: &mut FdtWriter, processors: u32) -> Result<()> {
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
    fdt.property_string("method", "hvc")?;
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

fn gpu(fdt: &mut FdtWriter) -> Result<()> {
    clock(fdt, "gpu-clock", GPU_CLOCK, GPU_HZ as u32)?;
    // The driver does not probe without one.
    let table = fdt.begin_node("gpu-opp-table")?;
    fdt.property_string("compatible", "operating-points-v2")?;
    fdt.property_u32("phandle", GPU_OPP_TABLE)?;
    let opp = fdt.begin_node(&format!("opp-{GPU_HZ}"))?;
    fdt.property_u64("opp-hz", GPU_HZ)?;
    fdt.end_node(opp)?;
    fdt.end_node(table)?;

    let gpu = fdt.begin_node(&format!("gpu@{:x}", map::GPU_REGISTERS.start))?;
    fdt.property_string("compatible", "arm,mali-valhall-csf")?;
    fdt.property_array_u64("reg", &reg(&map::GPU_REGISTERS))?;
    let interrupts: Vec<u32> =
        Line::ALL.iter().flat_map(|line| [SPI, map::GPU_SPI + *line as u32, EDGE_RISING]).collect();
    fdt.property_array_u32("interrupts", &interrupts)?;
    fdt.property_string_list("interrupt-names", Line::ALL.iter().map(|line| line.name().into()).collect())?;
    fdt.property_u32("clocks", GPU_CLOCK)?;
    fdt.property_string("clock-names", "core")?;
    fdt.property_u32("operating-points-v2", GPU_OPP_TABLE)?;
    fdt.property_null("dma-coherent")?;
    Ok(fdt.end_node(gpu)?)
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

//! A Mali, for panthor.

use anyhow::Result;
use mali::Line;
use vm_fdt::FdtWriter;
use wire::map;

use super::{EDGE_RISING, FIRST_FREE, GPU_HZ, SPI, clock, opp_table, reg};

const CLOCK: u32 = FIRST_FREE;
const OPP_TABLE: u32 = FIRST_FREE + 1;

/// What the board is compatible with.
pub(super) const BOARD: &[&str] = &["linux,dummy-virt"];

pub(super) fn write(fdt: &mut FdtWriter) -> Result<()> {
    clock(fdt, "gpu-clock", CLOCK, GPU_HZ)?;
    opp_table(fdt, OPP_TABLE)?;

    let gpu = fdt.begin_node(&format!("gpu@{:x}", map::GPU_REGISTERS.start))?;
    fdt.property_string("compatible", "arm,mali-valhall-csf")?;
    fdt.property_array_u64("reg", &reg(&map::GPU_REGISTERS))?;
    let interrupts: Vec<u32> =
        Line::ALL.iter().flat_map(|line| [SPI, map::GPU_SPI + *line as u32, EDGE_RISING]).collect();
    fdt.property_array_u32("interrupts", &interrupts)?;
    fdt.property_string_list("interrupt-names", Line::ALL.iter().map(|line| line.name().into()).collect())?;
    fdt.property_u32("clocks", CLOCK)?;
    fdt.property_string("clock-names", "core")?;
    fdt.property_u32("operating-points-v2", OPP_TABLE)?;
    fdt.property_null("dma-coherent")?;
    Ok(fdt.end_node(gpu)?)
}

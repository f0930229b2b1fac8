//! An Adreno with its SMMU and the controller of its clocks, for msm.

use core::ops::Range;

use adreno::registers::part;
use anyhow::Result;
use vm_fdt::FdtWriter;
use wire::map;

use super::{EDGE_RISING, FIRST_FREE, GPU_HZ, SPI, clock, opp_table, reg};

const CLOCK: u32 = FIRST_FREE;
const OPP_TABLE: u32 = FIRST_FREE + 1;
const CLOCK_CONTROLLER: u32 = FIRST_FREE + 2;
const SMMU: u32 = FIRST_FREE + 3;
const GMU: u32 = FIRST_FREE + 4;

/// Power domains of the clock controller (`dt-bindings/clock/qcom,gpucc-sm6115.h`).
const POWER_SURROUNDINGS: u32 = 0;
const POWER_CORE: u32 = 1;

/// Interrupts of the SMMU, one for all and one for each context bank: the first bank's is [`adreno::Line::Fault`].
const SMMU_INTERRUPTS: Range<u32> = map::GPU_SPI + 1..map::GPU_SPI + 10;

/// What the board is compatible with: the driver takes the layout of compressed images from the SoC.
pub(super) const BOARD: &[&str] = &["linux,dummy-virt", "qcom,qcm2290"];

pub(super) fn write(fdt: &mut FdtWriter) -> Result<()> {
    clock(fdt, "gpu-clock", CLOCK, GPU_HZ)?;
    opp_table(fdt, OPP_TABLE)?;

    // The SMMU's driver wants to be able to ask the secure world, which here knows no answer to anything.
    let firmware = fdt.begin_node("firmware")?;
    let scm = fdt.begin_node("scm")?;
    compatible(fdt, &["qcom,scm-sc7180", "qcom,scm"])?;
    fdt.end_node(scm)?;
    fdt.end_node(firmware)?;

    let node = begin(fdt, "clock-controller", &part::CLOCK_CONTROLLER)?;
    compatible(fdt, &["qcom,sm6115-gpucc"])?;
    fdt.property_array_u32("clocks", &[CLOCK; 3])?;
    for cells in ["#clock-cells", "#reset-cells", "#power-domain-cells"] {
        fdt.property_u32(cells, 1)?;
    }
    fdt.property_u32("phandle", CLOCK_CONTROLLER)?;
    fdt.end_node(node)?;

    let node = begin(fdt, "iommu", &part::SMMU)?;
    compatible(fdt, &["qcom,qcm2290-smmu-500", "qcom,adreno-smmu", "qcom,smmu-500", "arm,mmu-500"])?;
    fdt.property_u32("#iommu-cells", 2)?;
    fdt.property_u32("#global-interrupts", 1)?;
    interrupts(fdt, SMMU_INTERRUPTS)?;
    fdt.property_array_u32("power-domains", &[CLOCK_CONTROLLER, POWER_SURROUNDINGS])?;
    fdt.property_null("dma-coherent")?;
    fdt.property_u32("phandle", SMMU)?;
    fdt.end_node(node)?;

    let node = begin(fdt, "gmu", &part::GMU_WRAPPER)?;
    compatible(fdt, &["qcom,adreno-gmu-wrapper"])?;
    fdt.property_string("reg-names", "gmu")?;
    let domains = [CLOCK_CONTROLLER, POWER_SURROUNDINGS, CLOCK_CONTROLLER, POWER_CORE];
    fdt.property_array_u32("power-domains", &domains)?;
    fdt.property_string_list("power-domain-names", vec!["cx".into(), "gx".into()])?;
    fdt.property_u32("phandle", GMU)?;
    fdt.end_node(node)?;

    let node = begin(fdt, "gpu", &part::GPU)?;
    compatible(fdt, &["qcom,adreno-07000200", "qcom,adreno"])?;
    fdt.property_string("reg-names", "kgsl_3d0_reg_memory")?;
    interrupts(fdt, map::GPU_SPI..map::GPU_SPI + 1)?;
    fdt.property_array_u32("clocks", &[CLOCK; 2])?;
    fdt.property_string_list("clock-names", vec!["core".into(), "mem_iface".into()])?;
    // Stream 0, whatever its low bit.
    fdt.property_array_u32("iommus", &[SMMU, 0, 1])?;
    fdt.property_u32("operating-points-v2", OPP_TABLE)?;
    fdt.property_u32("qcom,gmu", GMU)?;
    fdt.property_null("dma-coherent")?;
    Ok(fdt.end_node(node)?)
}

/// A device whose registers are a part of the GPU's.
fn begin(fdt: &mut FdtWriter, name: &str, part: &Range<u32>) -> Result<vm_fdt::FdtWriterNode> {
    let start = map::GPU_REGISTERS.start;
    let range = start + u64::from(part.start)..start + u64::from(part.end);
    let node = fdt.begin_node(&format!("{name}@{:x}", range.start))?;
    fdt.property_array_u64("reg", &reg(&range))?;
    Ok(node)
}

fn compatible(fdt: &mut FdtWriter, names: &[&str]) -> Result<()> {
    Ok(fdt.property_string_list("compatible", names.iter().map(|&name| name.into()).collect())?)
}

fn interrupts(fdt: &mut FdtWriter, spis: Range<u32>) -> Result<()> {
    let cells: Vec<u32> = spis.flat_map(|spi| [SPI, spi, EDGE_RISING]).collect();
    Ok(fdt.property_array_u32("interrupts", &cells)?)
}

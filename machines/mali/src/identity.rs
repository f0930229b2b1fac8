//! Who the GPU says it is.

use crate::Registers;
use crate::registers as r;

/// The values of the identification registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Architecture, product, version.
    pub gpu_id: u32,
    /// Virtual address bits.
    pub va_bits: u8,
    /// Physical address bits.
    pub pa_bits: u8,
    /// Address spaces.
    pub address_spaces: u8,
    /// Mask of shader cores.
    pub shader_cores: u64,
    /// Masks of texture formats.
    pub texture_features: [u32; 4],
}

impl Identity {
    /// A Mali-G610 as in the RK3588, architecture 10.8.
    pub const G610: Self = Self {
        gpu_id: 0xa867_0005,
        va_bits: 48,
        pa_bits: 40,
        address_spaces: 8,
        shader_cores: 0x5_0005,
        texture_features: [0xc1ff_ff9e, 0xffff, 0, 0xc000_0000],
    };

    /// The folder below `/lib/firmware/arm/mali` where the driver looks for this GPU's firmware.
    pub fn firmware_dir(&self) -> String {
        format!("arch{}.{}", self.gpu_id >> 28, self.gpu_id >> 24 & 0xf)
    }

    pub(crate) fn write(&self, registers: &impl Registers) {
        let words = [
            (r::GPU_ID, self.gpu_id),
            (r::L2_FEATURES, 0x0712_0306),
            (r::CORE_FEATURES, 0),
            (r::TILER_FEATURES, 0x809),
            (r::MEM_FEATURES, 0x301),
            (r::MMU_FEATURES, u32::from(self.pa_bits) << 8 | u32::from(self.va_bits)),
            (r::AS_PRESENT, (1 << self.address_spaces) - 1),
            (r::CSF_ID, 0x040a_0412),
            (r::THREAD_MAX_THREADS, 0x800),
            (r::THREAD_MAX_WORKGROUP_SIZE, 0x400),
            (r::THREAD_MAX_BARRIER_SIZE, 0x400),
            (r::THREAD_FEATURES, 0x0401_0000),
            (r::SHADER_PRESENT, self.shader_cores as u32),
            (r::SHADER_PRESENT + 4, (self.shader_cores >> 32) as u32),
            (r::TILER_PRESENT, 1),
            (r::L2_PRESENT, 1),
            (r::COHERENCY_FEATURES, 1),
            (r::COHERENCY_PROTOCOL, 31),
            (r::LATEST_FLUSH_ID, 1),
        ];
        for (offset, value) in words {
            registers.write(offset, value);
        }
        for (offset, value) in (r::TEXTURE_FEATURES..).step_by(4).zip(self.texture_features) {
            registers.write(offset, value);
        }
    }
}

//! The GPUs that can be emulated, and what each of them asks of a machine.

use clap::ValueEnum;

use crate::run::Profile;

/// A GPU, by the name of its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Gpu {
    /// A Mali-G610, for the driver panthor.
    Panthor,
    /// An Adreno A702, for the driver msm.
    Msm,
}

impl Gpu {
    /// The driver.
    pub fn name(self) -> &'static str {
        match self {
            Self::Panthor => "panthor",
            Self::Msm => "msm",
        }
    }

    /// The kernel's series, unless another one is asked for.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::Panthor => "7.3",
            // From 7.3 on, this driver wants to share memory with processors that are not there (SMEM).
            Self::Msm => "7.2",
        }
    }

    /// The modules to load, with their parameters, besides those that they depend on: the last makes fences for tests.
    pub fn modules(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Panthor => &[("panthor", ""), ("vgem", "")],
            // There is no display to wait for.
            Self::Msm => &[("gpucc-sm6115", ""), ("msm", "separate_gpu_kms=1"), ("vgem", "")],
        }
    }

    /// What the driver loads into the GPU: path below `/lib/firmware`, and content.
    pub fn firmware(self, profile: Profile) -> (String, Vec<u8>) {
        match self {
            Self::Panthor => {
                let folder = mali::Identity::G610.firmware_dir();
                let image = match profile {
                    Profile::Passive => mali::firmware::passive(),
                    Profile::Active => mali::firmware::active(),
                };
                (format!("arm/mali/{folder}/mali_csffw.bin"), image)
            }
            Self::Msm => ("qcom/a702_sqe.fw".into(), adreno::FIRMWARE.into()),
        }
    }

    /// Whether drivers call the secure world. QEMU answers for it.
    pub fn has_secure_world(self) -> bool {
        self == Self::Msm
    }

    /// Whether the GPU looks into memory by itself.
    pub fn reads_memory(self, profile: Profile) -> bool {
        self == Self::Msm || profile == Profile::Active
    }
}

//! The GPUs that the emulated panthor can be, as data.

/// What a program can learn about a GPU and its kernel. Change what a test needs changed: `Mali { minor: 8, ..Mali::G610 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mali {
    /// Name, such as `g610`.
    pub name: &'static str,
    /// Architecture (major, minor, revision), product and version: `GPU_ID`.
    pub gpu_id: u32,
    /// Mask of the shader cores: `SHADER_PRESENT`.
    pub shader_present: u64,
    /// Minor version of the driver, 8 or 9: sparse maps came with 9.
    pub minor: i32,
}

impl Mali {
    /// Mali-G610 with four cores, as in the RK3588.
    pub const G610: Self = Self { name: "g610", gpu_id: 0xa867_0005, shader_present: 0x5_0005, minor: 9 };

    /// Mali-G310 with one core. What its other registers hold is taken from the G610, which has the same architecture.
    pub const G310: Self = Self { name: "g310", gpu_id: 0xac74_0000, shader_present: 1, minor: 9 };

    /// All of them.
    pub const ALL: [Self; 2] = [Self::G310, Self::G610];

    /// The GPU with this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mali| mali.name == name)
    }

    /// Whether the kernel maps sparse ranges and tells of its page sizes.
    pub(super) fn has_sparse(&self) -> bool {
        self.minor >= 9
    }
}

//! The GPUs that the emulated msm can be, as data.

/// What a program can learn about a GPU through parameters. Change what a test needs changed:
/// `Gpu { highest_bank_bit: 14, ..Gpu::A750 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Name, such as `a750`.
    pub name: &'static str,
    /// Core, major, minor and patch number, a byte each from the top.
    pub chip_id: u64,
    /// The number by which GPUs were known before there were chip ids; zero for newer ones.
    pub gpu_id: u64,
    /// Bytes of tile memory.
    pub gmem_size: u64,
    /// GPU address of the tile memory.
    pub gmem_base: u64,
    /// Highest clock in hertz.
    pub max_freq: u64,
    /// Ring buffers: four where the GPU can preempt, else one. Each has three priorities.
    pub rings: u64,
    /// Size of a process's GPU addresses, which start at 4 GiB.
    pub va_size: u64,
    /// Highest address bit that chooses a bank of the memory: depends on the board as much as on the GPU.
    pub highest_bank_bit: u64,
    /// Mask of the levels at which addresses are swizzled: bit 0 for level 1.
    pub ubwc_swizzle: u64,
    /// Macrotiles for eight channels (1) or for four (0).
    pub macrotile_mode: u64,
    /// Whether it can look into the CPU's caches (`MSM_BO_CACHED_COHERENT`).
    pub cached_coherent: bool,
    /// Whether it traces rays.
    pub raytracing: bool,
    /// Whether its MMU has a partially resident region, and so `MAP_NULL` exists.
    pub prr: bool,
}

/// First GPU address of a process.
pub(super) const VA_START: u64 = 1 << 32;

/// What most have in common, as on a board with UBWC 4 and memory with 16 as highest bank bit.
const COMMON: Gpu = Gpu {
    name: "",
    chip_id: 0,
    gpu_id: 0,
    gmem_size: 0,
    gmem_base: 0,
    max_freq: 0,
    rings: 1,
    va_size: (1 << 48) - VA_START,
    highest_bank_bit: 16,
    ubwc_swizzle: 0b110,
    macrotile_mode: 1,
    cached_coherent: true,
    raytracing: false,
    prr: true,
};

impl Gpu {
    /// Adreno 630, of SDM845.
    pub const A630: Self = Self {
        name: "a630",
        chip_id: 0x0603_0001,
        gpu_id: 630,
        gmem_size: 1 << 20,
        gmem_base: 0x10_0000,
        max_freq: 710_000_000,
        va_size: 1 << 32,
        highest_bank_bit: 15,
        macrotile_mode: 0,
        ..COMMON
    };

    /// Adreno 660, of SM8350.
    pub const A660: Self = Self {
        name: "a660",
        chip_id: 0x0606_0001,
        gpu_id: 660,
        gmem_size: 3 << 19,
        max_freq: 840_000_000,
        ..COMMON
    };

    /// Adreno 702, of QCM2290: without UBWC.
    pub const A702: Self = Self {
        name: "a702",
        chip_id: 0x0700_0200,
        gmem_size: 128 << 10,
        gmem_base: 0x10_0000,
        max_freq: 845_000_000,
        highest_bank_bit: 15,
        ubwc_swizzle: 0,
        macrotile_mode: 0,
        cached_coherent: false,
        ..COMMON
    };

    /// Adreno 730, of SM8450.
    pub const A730: Self = Self {
        name: "a730",
        chip_id: 0x0703_0001,
        gmem_size: 2 << 20,
        max_freq: 818_000_000,
        rings: 4,
        ..COMMON
    };

    /// Adreno 740, of SM8550.
    pub const A740: Self = Self {
        name: "a740",
        chip_id: 0x4305_0a01,
        gmem_size: 3 << 20,
        max_freq: 680_000_000,
        rings: 4,
        raytracing: true,
        ..COMMON
    };

    /// Adreno 750, of SM8650.
    pub const A750: Self = Self {
        name: "a750",
        chip_id: 0x4305_1401,
        gmem_size: 3 << 20,
        max_freq: 903_000_000,
        rings: 4,
        raytracing: true,
        ..COMMON
    };

    /// All of them.
    pub const ALL: [Self; 6] = [Self::A630, Self::A660, Self::A702, Self::A730, Self::A740, Self::A750];

    /// The GPU with this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|gpu| gpu.name == name)
    }
}

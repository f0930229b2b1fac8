//! The rows of the tables, in their order.

use crate::calls::Call;
use crate::gpu::Driver;
use crate::workload::{self, BLOCK, Resource, Workload};
use clap::ValueEnum;

/// What is measured.
pub(crate) enum Work {
    Bind(fn() -> Workload),
    /// A call that binds nothing; whether the device enables the sparse features.
    Call(Call, bool),
}

/// Where it is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Suite {
    /// lavapipe, on a kernel that the layer emulates
    Lavapipe,
    /// The driver of the emulated node that is preloaded
    Drivers,
}

/// A kernel's driver with Mesa's on top of it, in a machine of scripts/machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Machine {
    /// PanVK on panthor
    Panthor,
    /// Turnip on msm
    Msm,
}

impl Suite {
    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Lavapipe => "lavapipe",
            Self::Drivers => "drivers",
        }
    }

    pub(crate) const fn rows(self) -> &'static [Row] {
        match self {
            Self::Lavapipe => LAVAPIPE,
            Self::Drivers => DRIVERS,
        }
    }

    /// Whose driver it is.
    pub(crate) const fn driver(self) -> Driver {
        match self {
            Self::Lavapipe => Driver::Lavapipe,
            Self::Drivers => Driver::Emulated,
        }
    }
}

impl Machine {
    /// As on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Panthor => "panthor",
            Self::Msm => "msm",
        }
    }

    pub(crate) const fn rows(self) -> &'static [Row] {
        match self {
            Self::Panthor => PANTHOR,
            Self::Msm => MSM,
        }
    }
}

/// A row of a table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    /// How many times faster than the driver the layer has to be.
    pub(crate) target: Option<f64>,
    /// Nanoseconds that the layer may take.
    pub(crate) limit: Option<f64>,
}

/// A cost of at most 1.1 of the driver's, as a speed-up.
const ABOUT_NATIVE: f64 = 1.0 / 1.1;

const fn bind(name: &'static str, work: fn() -> Workload, target: Option<f64>) -> Row {
    Row { name, work: Work::Bind(work), target, limit: None }
}

/// On a device that enables the sparse features the layer prepares for binds, which has its price; on others it has to cost nothing, which
/// cannot be told from noise: within a tenth.
const fn call(name: &'static str, call: Call, sparse: bool) -> Row {
    Row {
        name,
        work: Work::Call(call, sparse),
        target: if sparse { None } else { Some(ABOUT_NATIVE) },
        limit: None,
    }
}

const BUFFER: Resource = Resource::Buffer { pages: 8192, page: BLOCK };
const IMAGE: Resource = Resource::Image { side: 64 };

const LAVAPIPE: &[Row] = &[
    bind("buffer: contiguous", || workload::contiguous(BUFFER), Some(50.0)),
    bind("buffer: shuffled order", || workload::shuffled_order(BUFFER), Some(50.0)),
    bind("buffer: scattered memory", || workload::scattered(BUFFER), Some(ABOUT_NATIVE)),
    bind("buffer: identical rebind", || workload::identical(BUFFER), Some(100.0)),
    bind("buffer: unbind page by page", || workload::unbind(BUFFER), Some(50.0)),
    bind("buffer: one bind", || workload::one(BUFFER), Some(1.0)),
    bind("buffer: 1024 VkBindSparseInfo", || workload::many_infos(BUFFER), Some(20.0)),
    bind("buffer: 1024 calls", || workload::many_calls(BUFFER), None),
    bind("image: contiguous", || workload::contiguous(IMAGE), Some(50.0)),
    bind("image: shuffled order", || workload::shuffled_order(IMAGE), Some(50.0)),
    bind("image: scattered memory", || workload::scattered(IMAGE), Some(ABOUT_NATIVE)),
    bind("image: identical rebind", || workload::identical(IMAGE), Some(100.0)),
    bind("image: unbind block by block", || workload::unbind(IMAGE), Some(50.0)),
    bind("image: whole level at once", || workload::at_once(IMAGE), None),
    bind("image: game-like frame", || workload::flight(64), None),
    call("vkQueueSubmit, empty", Call::Submit, false),
    call("vkAllocateMemory + vkFreeMemory, 1 MiB", Call::Allocate, false),
    call("vkCreateBuffer + vkDestroyBuffer", Call::CreateBuffer, false),
    call("vkQueueSubmit, empty; sparse device", Call::Submit, true),
    call("vkAllocateMemory + vkFreeMemory, 1 MiB; sparse device", Call::Allocate, true),
    call("vkCreateBuffer + vkDestroyBuffer; sparse device", Call::CreateBuffer, true),
];

/// At most half of the driver's time.
const HALF: Option<f64> = Some(2.0);
/// For a single bind, at most 1.2 of it.
const ONE: Option<f64> = Some(1.0 / 1.2);

const BUFFER_64_MIB: Resource = Resource::Buffer { pages: 1024, page: BLOCK };
const BUFFER_OF_4_KIB: Resource = Resource::Buffer { pages: 65536, page: 4096 };
/// 4096x4096 texels.
const IMAGE_64_MIB: Resource = Resource::Image { side: 32 };

const DRIVERS: &[Row] = &[
    bind("buffer: 1024 contiguous", || workload::contiguous(BUFFER_64_MIB), HALF),
    bind("buffer: the same as one bind", || workload::at_once(BUFFER_64_MIB), ONE),
    bind("buffer: 1024 shuffled, linear", || workload::shuffled_order(BUFFER_64_MIB), HALF),
    bind("buffer: 1024 scattered", || workload::scattered(BUFFER_64_MIB), HALF),
    bind("buffer: identical rebind", || workload::identical(BUFFER_64_MIB), HALF),
    bind("buffer: identical rebind, no fence", || workload::identical_unsignalled(BUFFER_64_MIB), HALF),
    bind("buffer: unbind 1024", || workload::unbind(BUFFER_64_MIB), HALF),
    bind("buffer: 1024 VkBindSparseInfo", || workload::many_infos(BUFFER_64_MIB), Some(50.0)),
    bind("buffer: 1024 calls", || workload::many_calls(BUFFER_64_MIB), ONE),
    bind("buffer: one bind", || workload::one(BUFFER_64_MIB), ONE),
    Row { limit: Some(2e6), ..bind("buffer: 65536 x 4 KiB", || workload::contiguous(BUFFER_OF_4_KIB), HALF) },
    bind("image: one tile", || workload::one(IMAGE_64_MIB), ONE),
    bind("image: 16x16 tiles", || workload::rectangle(32), HALF),
    bind("image: identical rebind", || workload::identical(IMAGE_64_MIB), HALF),
    bind("image: whole level at once", || workload::at_once(IMAGE_64_MIB), ONE),
    bind("image: game-like frame", || workload::flight(32), None),
    call("vkQueueSubmit, empty", Call::Submit, false),
    Row { target: Some(ABOUT_NATIVE), ..call("vkQueueSubmit, empty; sparse device", Call::Submit, true) },
    call("vkAllocateMemory + vkFreeMemory, 1 MiB; sparse device", Call::Allocate, true),
    call("vkCreateBuffer + vkDestroyBuffer; sparse device", Call::CreateBuffer, true),
];

/// 2048x2048 texels.
const IMAGE_16_MIB: Resource = Resource::Image { side: 16 };
const BUFFER_32_MIB: Resource = Resource::Buffer { pages: 512, page: BLOCK };

const PANTHOR: &[Row] = &[
    bind("buffer: one bind", || workload::one(BUFFER_64_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: 64 contiguous", || workload::first(64, BUFFER_64_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: 1024 contiguous", || workload::contiguous(BUFFER_64_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: the same as one bind", || workload::at_once(BUFFER_64_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: 1024 shuffled, linear", || workload::shuffled_order(BUFFER_64_MIB), Some(40.0)),
    bind("buffer: 1024 scattered", || workload::scattered(BUFFER_64_MIB), Some(2.0)),
    bind("buffer: identical rebind", || workload::identical(BUFFER_64_MIB), Some(200.0)),
    bind("buffer: two memories by turns", || workload::alternating(BUFFER_64_MIB), Some(2.0)),
    bind("buffer: unbind 1024", || workload::unbind(BUFFER_64_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: 1024 VkBindSparseInfo", || workload::many_infos(BUFFER_64_MIB), Some(50.0)),
    bind("image: 256 blocks in order", || workload::contiguous(IMAGE_16_MIB), Some(ABOUT_NATIVE)),
    bind("image: whole level at once", || workload::at_once(IMAGE_16_MIB), Some(ABOUT_NATIVE)),
    bind("image: 256 blocks scattered", || workload::scattered(IMAGE_16_MIB), Some(2.0)),
    bind("image: identical rebind", || workload::identical(IMAGE_16_MIB), Some(40.0)),
    bind("image: game-like frame", || workload::flight(32), Some(2.5)),
];

const MSM: &[Row] = &[
    bind("buffer: one bind", || workload::one(BUFFER_32_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: 64 contiguous", || workload::first(64, BUFFER_32_MIB), None),
    bind("buffer: 512 contiguous", || workload::contiguous(BUFFER_32_MIB), Some(8.0)),
    bind("buffer: the same as one bind", || workload::at_once(BUFFER_32_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: 512 shuffled, linear", || workload::shuffled_order(BUFFER_32_MIB), Some(8.0)),
    bind("buffer: 512 scattered", || workload::scattered(BUFFER_32_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: identical rebind", || workload::identical(BUFFER_32_MIB), Some(20.0)),
    bind("buffer: two memories by turns", || workload::alternating(BUFFER_32_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: unbind 512", || workload::unbind(BUFFER_32_MIB), Some(ABOUT_NATIVE)),
    bind("buffer: 512 VkBindSparseInfo", || workload::many_infos(BUFFER_32_MIB), Some(8.0)),
];

//! The rows of the table, in its order.

use crate::calls::Call;
use crate::workload::{self, Resource, Workload};

/// What is measured.
pub(crate) enum Work {
    Bind(fn() -> Workload),
    /// A call that binds nothing; whether the device enables the sparse features.
    Call(Call, bool),
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    /// How many times faster than the driver the layer has to be.
    pub(crate) target: Option<f64>,
}

/// A cost of at most 1.1 of the driver's, as a speed-up.
const ABOUT_NATIVE: f64 = 1.0 / 1.1;

const fn bind(name: &'static str, work: fn() -> Workload, target: Option<f64>) -> Row {
    Row { name, work: Work::Bind(work), target }
}

/// On a device that enables the sparse features the layer prepares for binds, which has its price; on others it has to cost nothing, which
/// cannot be told from noise: within a tenth.
const fn call(name: &'static str, call: Call, sparse: bool) -> Row {
    Row { name, work: Work::Call(call, sparse), target: if sparse { None } else { Some(ABOUT_NATIVE) } }
}

pub(crate) const ROWS: &[Row] = &[
    bind("buffer: contiguous", || workload::contiguous(Resource::Buffer), Some(50.0)),
    bind("buffer: shuffled order", || workload::shuffled_order(Resource::Buffer), Some(50.0)),
    bind("buffer: scattered memory", || workload::scattered(Resource::Buffer), Some(ABOUT_NATIVE)),
    bind("buffer: identical rebind", || workload::identical(Resource::Buffer), Some(100.0)),
    bind("buffer: unbind page by page", || workload::unbind(Resource::Buffer), Some(50.0)),
    bind("buffer: one bind", || workload::one(Resource::Buffer), Some(1.0)),
    bind("buffer: 1024 VkBindSparseInfo", || workload::many_infos(Resource::Buffer), Some(20.0)),
    bind("buffer: 1024 calls", || workload::many_calls(Resource::Buffer), None),
    bind("image: contiguous", || workload::contiguous(Resource::Image), Some(50.0)),
    bind("image: shuffled order", || workload::shuffled_order(Resource::Image), Some(50.0)),
    bind("image: scattered memory", || workload::scattered(Resource::Image), Some(ABOUT_NATIVE)),
    bind("image: identical rebind", || workload::identical(Resource::Image), Some(100.0)),
    bind("image: unbind block by block", || workload::unbind(Resource::Image), Some(50.0)),
    bind("image: whole level at once", || workload::whole_level(Resource::Image), None),
    bind("image: game-like frame", workload::flight, None),
    call("vkQueueSubmit, empty", Call::Submit, false),
    call("vkAllocateMemory + vkFreeMemory, 1 MiB", Call::Allocate, false),
    call("vkCreateBuffer + vkDestroyBuffer", Call::CreateBuffer, false),
    call("vkQueueSubmit, empty; sparse device", Call::Submit, true),
    call("vkAllocateMemory + vkFreeMemory, 1 MiB; sparse device", Call::Allocate, true),
    call("vkCreateBuffer + vkDestroyBuffer; sparse device", Call::CreateBuffer, true),
];

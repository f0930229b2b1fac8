//! Scripts for panthor.

mod generate;
mod play;

pub use generate::{any_script, prelude};
pub use play::Panthor;

use kmd::uapi::panthor::{QueueSubmit, VmBindOp};

/// An ioctl of panthor.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// DEV_QUERY. What comes back is compared where it does not depend on the machine: firmware and page sizes.
    DevQuery {
        /// A `DEV_QUERY_` value.
        r#type: u32,
        /// Bytes that the program knows of; none asks for the size.
        size: u32,
    },
    /// VM_CREATE. If it succeeds, the player binds a page above [`WINDOW`] in the new VM.
    VmCreate {
        /// Must be zero.
        flags: u32,
        /// The user's part of the address space.
        user_va_range: u64,
    },
    /// VM_DESTROY.
    VmDestroy {
        /// VM.
        id: u32,
    },
    /// VM_GET_STATE.
    VmGetState {
        /// VM.
        id: u32,
    },
    /// VM_BIND.
    Bind {
        /// VM.
        id: u32,
        /// Flags of the call.
        flags: u32,
        /// Operations, each with its syncs.
        ops: Vec<Op>,
    },
    /// GROUP_CREATE.
    GroupCreate {
        /// Priority and size of the ring buffer of each queue.
        queues: Vec<(u8, u32)>,
        /// Priority of the group.
        priority: u8,
        /// Shader cores for compute work: most of them, and their mask.
        cores: (u8, u64),
        /// VM.
        vm: u32,
    },
    /// GROUP_DESTROY.
    GroupDestroy {
        /// Group.
        handle: u32,
    },
    /// GROUP_GET_STATE.
    GroupGetState {
        /// Group.
        handle: u32,
    },
    /// GROUP_SUBMIT.
    Submit {
        /// Group.
        handle: u32,
        /// Jobs, each with its syncs.
        jobs: Vec<Job>,
    },
    /// TILER_HEAP_CREATE.
    HeapCreate {
        /// VM.
        vm: u32,
        /// Chunks to start with, and at most.
        chunks: (u32, u32),
        /// Bytes of a chunk.
        size: u32,
    },
    /// TILER_HEAP_DESTROY.
    HeapDestroy {
        /// Heap.
        handle: u32,
    },
    /// BO_CREATE.
    BoCreate {
        /// Bytes.
        size: u64,
        /// Flags.
        flags: u32,
        /// The only VM that may map it, or zero.
        exclusive: u32,
    },
    /// BO_MMAP_OFFSET; the offset itself is nobody's business.
    MmapOffset {
        /// GEM handle.
        handle: u32,
    },
    /// BO_QUERY_INFO.
    BoInfo {
        /// GEM handle.
        handle: u32,
    },
}

/// A sync operation: flags, handle, point.
pub type Sync = (u32, u32, u64);

/// A job of GROUP_SUBMIT. Only jobs without a stream are over by themselves: nothing executes streams.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// All but the array of syncs.
    pub submit: QueueSubmit,
    /// Its syncs.
    pub syncs: Vec<Sync>,
}

/// An operation of VM_BIND.
#[derive(Clone, Debug, PartialEq)]
pub struct Op {
    /// All but the array of syncs.
    pub op: VmBindOp,
    /// Its syncs.
    pub syncs: Vec<Sync>,
}

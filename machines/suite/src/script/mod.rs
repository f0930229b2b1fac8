//! Scripts: ioctls in order, as data.
//!
//! Everything is named by the numbers that the kernel gives, which both kernels must give alike: handles and ids count from
//! one, the lowest free one first. Nothing keeps a script from naming what does not exist.

mod generate;
mod play;

pub use generate::{any_script, prelude};
pub use play::{Player, VmView};

use core::ops::Range;

use kmd::Errno;
use kmd::uapi::panthor::{QueueSubmit, VmBindOp};

/// Smallest page, in bytes.
pub const PAGE: u64 = 4096;

/// What one block entry maps, in bytes.
pub const BLOCK: u64 = 2 << 20;

/// The addresses that scripts bind.
pub const WINDOW: Range<u64> = 0x10_0000_0000..0x10_0400_0000;

/// One ioctl, or what takes its place where an ioctl needs a partner.
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
    /// GEM_CLOSE.
    BoClose {
        /// GEM handle.
        handle: u32,
    },
    /// PRIME_HANDLE_TO_FD; the file is kept for [`Step::Import`].
    Export {
        /// GEM handle.
        handle: u32,
    },
    /// PRIME_FD_TO_HANDLE.
    Import {
        /// Which of the files exported so far.
        file: usize,
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
    /// SYNCOBJ_CREATE.
    SyncobjCreate {
        /// Flags: one for "signalled".
        flags: u32,
    },
    /// SYNCOBJ_DESTROY.
    SyncobjDestroy {
        /// Syncobj.
        handle: u32,
    },
    /// SYNCOBJ_RESET.
    Reset {
        /// Syncobj.
        handle: u32,
    },
    /// SYNCOBJ_SIGNAL.
    Signal {
        /// Syncobj.
        handle: u32,
    },
    /// SYNCOBJ_TIMELINE_SIGNAL.
    SignalPoint {
        /// Syncobj.
        handle: u32,
        /// Point.
        point: u64,
    },
    /// SYNCOBJ_TRANSFER.
    Transfer {
        /// Syncobj and point to take from.
        from: (u32, u64),
        /// Syncobj and point to put to.
        to: (u32, u64),
    },
    /// SYNCOBJ_QUERY.
    Query {
        /// Syncobj.
        handle: u32,
        /// Flags: one for "last submitted".
        flags: u32,
    },
    /// SYNCOBJ_TIMELINE_WAIT that polls.
    Wait {
        /// Syncobjs and points.
        points: Vec<(u32, u64)>,
        /// Flags.
        flags: u32,
    },
    /// SYNCOBJ_FD_TO_HANDLE with the sync file of a fence that is signalled by [`Step::Release`].
    Hold {
        /// Syncobj.
        handle: u32,
        /// Point, or zero.
        point: u64,
    },
    /// Signals every fence that is held.
    Release,
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

/// What a step answered: the numbers that came back, or the error. With an error, a bind also says how far it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Success, or the error.
    pub result: Result<(), Errno>,
    /// What came back.
    pub values: Vec<u64>,
}

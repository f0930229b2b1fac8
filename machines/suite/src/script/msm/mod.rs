//! Scripts for msm.

mod generate;
mod play;

pub use generate::{any_script, prelude};
pub use play::Msm;

use kmd::uapi::msm::{SubmitBo, Syncobj, VmBindOp};

/// An ioctl of msm.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// GET_PARAM. What comes back is compared, but for the time and for how often the GPU slept.
    GetParam {
        /// A `PARAM_` value.
        param: u32,
        /// Must be zero.
        len: u32,
    },
    /// SET_PARAM.
    SetParam {
        /// A `PARAM_` value.
        param: u32,
        /// The value; the player gives an address instead where there is a length.
        value: u64,
        /// Length of a string.
        len: u32,
    },
    /// GEM_NEW.
    BoCreate {
        /// Bytes.
        size: u64,
        /// `BO_` flags.
        flags: u32,
    },
    /// GEM_INFO. Where the object can be mapped is nobody's business.
    BoInfo {
        /// GEM handle.
        handle: u32,
        /// An `INFO_` value.
        info: u32,
        /// Whether there is a buffer, for what takes one.
        buffer: bool,
        /// Length of the buffer, or of what is not one.
        len: u32,
    },
    /// GEM_CPU_PREP that polls.
    CpuPrep {
        /// GEM handle.
        handle: u32,
        /// `PREP_` flags.
        op: u32,
    },
    /// GEM_CPU_FINI.
    CpuFini {
        /// GEM handle.
        handle: u32,
    },
    /// GEM_MADVISE.
    Madvise {
        /// GEM handle.
        handle: u32,
        /// A `MADV_` value.
        madv: u32,
    },
    /// SUBMITQUEUE_NEW.
    QueueCreate {
        /// `SUBMITQUEUE_` flags.
        flags: u32,
        /// Priority.
        prio: u32,
    },
    /// SUBMITQUEUE_CLOSE.
    QueueClose {
        /// Queue.
        id: u32,
    },
    /// SUBMITQUEUE_QUERY.
    QueueQuery {
        /// Queue.
        id: u32,
        /// A `SUBMITQUEUE_PARAM_` value.
        param: u32,
        /// Bytes that the program wants; none asks for the size.
        len: u32,
    },
    /// VM_BIND.
    Bind {
        /// Bind queue.
        queue: u32,
        /// `VM_BIND_` flags, none of those that have to do with sync files.
        flags: u32,
        /// Operations.
        ops: Vec<VmBindOp>,
        /// What to wait for.
        waits: Vec<Syncobj>,
        /// What to signal.
        signals: Vec<Syncobj>,
    },
    /// GEM_SUBMIT without a command stream: the GPU has nothing to do.
    Submit {
        /// GPU queue.
        queue: u32,
        /// `SUBMIT_` flags besides those for syncobjs.
        flags: u32,
        /// Objects.
        objects: Vec<SubmitBo>,
        /// What to wait for.
        waits: Vec<Syncobj>,
        /// What to signal.
        signals: Vec<Syncobj>,
        /// The number that is chosen, with the flag for that.
        number: u32,
    },
    /// WAIT_FENCE that polls.
    WaitFence {
        /// GPU queue.
        queue: u32,
        /// Number of a submission.
        fence: u32,
        /// Flags.
        flags: u32,
    },
}

//! What the layer asks of a kernel's address space: one small table of functions, one implementation a driver.

use crate::bo::GemHandle;
use crate::syncobj::SyncobjHandle;
use core::ops::Range;
use rustix::io::Errno;

/// One VM_BIND operation. Bytes; aligned to [`Limits::page_size`], inside [`Limits::va`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindOp {
    /// GPU virtual address.
    pub va: u64,
    /// Length, not zero.
    pub len: u64,
    /// What the range points at afterwards.
    pub target: BindTarget,
}

/// What a bound range points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindTarget {
    /// Memory of a buffer object, from `offset` bytes on.
    Map {
        /// The object's handle in the VM's own open file.
        bo: GemHandle,
        /// Offset in the object.
        offset: u64,
    },
    /// The null mapping: accesses do not fault. What a read returns is the driver's affair; nothing else is touched.
    Null,
    /// Nothing: accesses fault.
    Unmap,
}

/// A binary syncobj, or a point of a timeline syncobj.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncPoint {
    /// The syncobj's handle in the VM's own open file.
    pub syncobj: SyncobjHandle,
    /// The timeline point; none for a binary syncobj.
    pub point: Option<u64>,
}

/// What an address space can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Smallest page, in bytes: every address, length and offset is a multiple of it.
    pub page_size: u64,
    /// The addresses that user space may bind, in bytes.
    pub va: Range<u64>,
    /// The addresses right below or above those that the kernel keeps for itself, if it does.
    pub kernel: Option<Range<u64>>,
    /// Most operations that one call should carry.
    pub max_ops: usize,
    /// Whether [`BindTarget::Null`] exists; where it does not, an unbound range has to be unmapped.
    pub null_mapping: bool,
    /// Bytes that one last-level page table covers.
    pub block_size: u64,
    /// Whether what the GPU is using may be mapped again as it is: no access can fall between the old entries and the new.
    pub remap_in_use: bool,
    /// Whether a bind that has nothing to wait for costs the kernel less at once ([`Vm::bind`]) than in its queue.
    pub prefers_at_once: bool,
    /// Whether disjoint operations in a block of null mappings cost less when the last of them is the first.
    pub last_first: bool,
    /// Whether the operations of one call, when sorted by address, share the page tables that are allocated for them.
    pub shares_tables: bool,
    /// What is cheap and what is dear.
    pub cost: Cost,
}

/// What a bind costs the kernel, in rough nanoseconds: good for choosing between plans, not for predicting time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// An operation: its job, its locks and flushes.
    pub op: u32,
    /// A last-level page table that is allocated in advance.
    pub table: u32,
    /// A page table entry that is written, and the old one that is cleared.
    pub entry: u32,
    /// A block ([`Limits::block_size`]) that is mapped by pages although one entry could map it; zero where none can.
    pub pages: u32,
}

/// A synchronous bind that the kernel did not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel refused bind operation {applied}: {errno}")]
pub struct Refused {
    /// The first `applied` operations of the call stay in force, the others had no effect. If the VM is not usable any more
    /// ([`Vm::is_usable`]), what became of the others is unknown.
    pub applied: usize,
    /// Why the next one was refused.
    pub errno: Errno,
}

/// A GPU's address space with its bind queue.
pub trait Vm: Send + Sync {
    /// What it can do.
    fn limits(&self) -> &Limits;

    /// Performs `ops` in order, and returns when the page tables are as they say.
    ///
    /// Does not wait for earlier asynchronous calls.
    fn bind(&self, ops: &[BindOp]) -> Result<(), Refused>;

    /// Queues `ops`: they run in order, behind earlier calls, when all `waits` are signalled, and then signal `signals`.
    ///
    /// At most [`Limits::max_ops`] operations (E2BIG). Without `ops` it only waits and signals. When it fails, nothing was
    /// queued. EINVAL may mean that a point of `waits` has no fence yet: kernels do not wait for a submission.
    fn bind_async(&self, ops: &[BindOp], waits: &[SyncPoint], signals: &[SyncPoint]) -> Result<(), Errno>;

    /// Whether the kernel still takes operations; false after a failure that left the address space in an unknown state, such as
    /// that of a queued operation.
    fn is_usable(&self) -> Result<bool, Errno>;
}

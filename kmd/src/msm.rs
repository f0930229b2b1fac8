//! msm: the VM and buffer objects of Qualcomm Adreno.

use crate::bo::{BufferObject, GemHandle};
use crate::node::{DriverVersion, Node, call};
use crate::syncobj::{Syncobj, Wait};
use crate::uapi::{msm as uapi, user_address};
use crate::vm::{BindOp, BindTarget, Cost, Limits, Refused, SyncPoint, Vm};
use parking_lot::Mutex;
use rustix::io::Errno;
use std::sync::{Arc, OnceLock};

#[cfg(test)]
mod tests;

/// First minor version with `VM_BIND`.
const MINOR_VM_BIND: i32 = 13;

/// What a last-level page table covers.
const BLOCK_SIZE: u64 = 2 << 20;

/// Operations a call.
///
/// The kernel keeps them in one allocation of 40 bytes each, which may fail under fragmentation when it needs more than eight
/// pages in a row. And the page tables of a call are allocated before it is queued, three pages for each operation that shares
/// none: 512 of those are 1536 pages, where further calls block as long as more than 1024 are in flight
/// (`vm_bind_prealloc_count`).
const MAX_OPS: usize = 512;

/// What one operation, table and entry cost.
///
/// All operations of a call are one job. Each is an update of the tree and an allocation or two; unmapping flushes the TLB
/// once. Page tables are allocated for the worst case, where sorted operations in the same 2 MiB count once. With VM_BIND
/// the kernel maps nothing but pages (`msm_iommu_pagetable_create`), so no block is ever lost.
const COST: Cost = Cost { op: 300, table: 300, entry: 5, pages: 0 };

/// How many queues [`BorrowedQueue::first`] looks at: a driver makes its own before those of the application.
const MAX_QUEUES: u32 = 16;

/// A queue id that no open file gets to: ids count up from zero.
const NO_QUEUE: u32 = u32::MAX;

/// The address space of an open file of msm, with up to two bind queues: each is made when it is first needed, as each is a thread of
/// the kernel's.
///
/// An open file has one VM, which lives as long as the file. Its mappings change *when a call is made*, its page tables
/// when the call's job runs: what is bound synchronously must not overlap what an asynchronous call that has not ended
/// binds, else the two orders differ, and the kernel may give the VM up.
///
/// A call that fails in its first operation changes nothing. One that fails later, or when its job runs, leaves the VM
/// unusable, for good.
pub struct MsmVm {
    node: Arc<dyn Node>,
    limits: Limits,
    /// For synchronous calls, which wait for nothing: with a queue of their own they do not wait for asynchronous ones.
    now: OnceLock<Now>,
    later: OnceLock<OwnQueue>,
}

/// What synchronous calls take.
struct Now {
    queue: OwnQueue,
    /// Signalled by the last call.
    done: Syncobj,
}

/// A bind queue.
struct Queue {
    node: Arc<dyn Node>,
    id: u32,
    scratch: Mutex<Scratch>,
}

/// The arrays of a call, kept so that a bind allocates nothing.
#[derive(Default)]
struct Scratch {
    ops: Vec<uapi::VmBindOp>,
    waits: Vec<uapi::Syncobj>,
    signals: Vec<uapi::Syncobj>,
}

impl MsmVm {
    /// Opts in to VM_BIND on the open file behind `node`, and works on its VM.
    ///
    /// ENODEV: the driver is not msm. EOPNOTSUPP: it has no VM_BIND. EBUSY: the file has a VM already, which most requests
    /// create, even reading a parameter. EINVAL: the GPU has no page tables for each process.
    pub fn create(node: Arc<dyn Node>) -> Result<Self, Errno> {
        check_driver(&*node)?;
        let value = 1;
        let mut arg = uapi::SetParam(uapi::Param {
            pipe: uapi::PIPE_3D0,
            param: uapi::PARAM_EN_VM_BIND,
            value,
            ..Default::default()
        });
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*node, &mut arg)? };
        Self::on(node)
    }

    /// Works on the VM of an open file on which a driver has opted in to VM_BIND. EINVAL: it has not. EPIPE: the VM is unusable.
    pub fn attach(node: Arc<dyn Node>) -> Result<Self, Errno> {
        check_driver(&*node)?;
        Self::on(node)
    }

    fn on(node: Arc<dyn Node>) -> Result<Self, Errno> {
        // Tells, too, whether somebody has opted in.
        if !is_usable(&*node)? {
            return Err(Errno::PIPE);
        }
        let start = get_param(&*node, uapi::PARAM_VA_START)?;
        let size = get_param(&*node, uapi::PARAM_VA_SIZE)?;
        let limits = Limits {
            // The kernel checks for whole pages of its own, not of the GPU.
            page_size: rustix::param::page_size() as u64,
            va: start..start.checked_add(size).ok_or(Errno::NODEV)?,
            // It starts above 32 bits (`ADRENO_VM_START`).
            kernel: (start > 0).then_some(0..start),
            max_ops: MAX_OPS,
            null_mapping: get_param(&*node, uapi::PARAM_HAS_PRR)? != 0,
            block_size: BLOCK_SIZE,
            // The old entries are cleared before the new ones are written, under the eyes of the GPU.
            remap_in_use: false,
            // There is no other way than through a queue.
            prefers_at_once: false,
            last_first: false,
            shares_tables: true,
            cost: COST,
        };
        tracing::debug!(?limits, "msm VM");
        Ok(Self { node, limits, now: OnceLock::new(), later: OnceLock::new() })
    }

    fn now(&self) -> Result<&Now, Errno> {
        once(&self.now, || {
            let done = Syncobj::create(self.node.clone(), false)?;
            Ok(Now { queue: OwnQueue::create(self.node.clone())?, done })
        })
    }

    fn check(&self, ops: &[BindOp]) -> Result<(), Errno> {
        if !self.limits.null_mapping && ops.iter().any(|op| op.target == BindTarget::Null) {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(())
    }
}

impl Vm for MsmVm {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn bind(&self, ops: &[BindOp]) -> Result<(), Refused> {
        self.check(ops).map_err(|errno| Refused { applied: 0, errno })?;
        if ops.is_empty() {
            return Ok(());
        }
        let Now { queue: OwnQueue(queue), done } =
            self.now().map_err(|errno| Refused { applied: 0, errno })?;
        let scratch = &mut *queue.scratch.lock();
        // One queue runs in order, so the last job's end is the end of all. Every call signals, as it may be the last that is
        // accepted.
        scratch.waits.clear();
        scratch.signals.clear();
        scratch.signals.push(syncobj(&done.binary()));
        let mut queued = 0;
        let mut refused = None;
        for chunk in ops.chunks(MAX_OPS) {
            match queue.submit(scratch, chunk) {
                Ok(()) => queued += chunk.len(),
                Err(errno) => {
                    refused = Some(errno);
                    break;
                }
            }
        }
        if queued > 0
            && let Err(errno) = twice(|| done.wait(None, Wait::ALL))
        {
            // They will be done all the same.
            return Err(Refused { applied: queued, errno });
        }
        // A job's fence is signalled whether or not the job went well; and jobs that have not run when the VM is given up map
        // nothing.
        match (twice(|| self.is_usable()), refused) {
            (Ok(true), None) => Ok(()),
            (Ok(true), Some(errno)) => Err(Refused { applied: queued, errno }),
            (Ok(false), refused) => Err(Refused { applied: 0, errno: refused.unwrap_or(Errno::PIPE) }),
            (Err(errno), refused) => Err(Refused { applied: 0, errno: refused.unwrap_or(errno) }),
        }
    }

    fn bind_async(&self, ops: &[BindOp], waits: &[SyncPoint], signals: &[SyncPoint]) -> Result<(), Errno> {
        self.check(ops)?;
        if ops.len() > MAX_OPS {
            // Two ioctls could be half accepted.
            return Err(Errno::TOOBIG);
        }
        let later = once(&self.later, || OwnQueue::create(self.node.clone()))?;
        later.0.bind_async(ops, waits, signals)
    }

    fn is_usable(&self) -> Result<bool, Errno> {
        is_usable(&*self.node)
    }
}

impl Queue {
    fn new(node: Arc<dyn Node>, id: u32) -> Self {
        Self { node, id, scratch: Mutex::default() }
    }

    /// As [`Vm::bind_async`].
    fn bind_async(&self, ops: &[BindOp], waits: &[SyncPoint], signals: &[SyncPoint]) -> Result<(), Errno> {
        if signals.iter().any(|signal| signal.point == Some(0)) {
            return Err(Errno::INVAL);
        }
        let scratch = &mut *self.scratch.lock();
        scratch.waits.clear();
        // A timeline has reached zero from the start, while the kernel takes a wait for zero as one for the newest point.
        scratch.waits.extend(waits.iter().filter(|wait| wait.point != Some(0)).map(syncobj));
        scratch.signals.clear();
        scratch.signals.extend(signals.iter().map(syncobj));
        if ops.is_empty() && scratch.waits.is_empty() && scratch.signals.is_empty() {
            return Ok(());
        }
        self.submit(scratch, ops)
    }

    /// Queues `ops`, with the syncobjs that are in `scratch`, which is this queue's.
    fn submit(&self, scratch: &mut Scratch, ops: &[BindOp]) -> Result<(), Errno> {
        scratch.ops.clear();
        scratch.ops.extend(ops.iter().map(vm_bind_op));
        // The kernel takes an address of zero for "none", and looks at no array that has no elements.
        let array = |list: &[uapi::Syncobj]| if list.is_empty() { 0 } else { user_address(list) };
        let mut arg = uapi::VmBind {
            queue_id: self.id,
            in_syncobjs: array(&scratch.waits),
            out_syncobjs: array(&scratch.signals),
            nr_in_syncobjs: count(&scratch.waits)?,
            nr_out_syncobjs: count(&scratch.signals)?,
            syncobj_stride: size_of::<uapi::Syncobj>() as u32,
            ..Default::default()
        };
        arg.set_ops(&scratch.ops);
        // SAFETY: the arrays are those in scratch, which nobody touches until the call is over. Again after a signal is fine:
        // the kernel can be interrupted only before it changes anything.
        unsafe { call(&*self.node, &mut arg) }
    }
}

/// A bind queue that is closed on drop.
struct OwnQueue(Queue);

impl OwnQueue {
    fn create(node: Arc<dyn Node>) -> Result<Self, Errno> {
        let mut arg = uapi::SubmitqueueNew { flags: uapi::SUBMITQUEUE_VM_BIND, ..Default::default() };
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*node, &mut arg)? };
        Ok(Self(Queue::new(node, arg.id)))
    }
}

impl Drop for OwnQueue {
    fn drop(&mut self) {
        let mut arg = uapi::SubmitqueueClose(self.0.id);
        // SAFETY: the argument holds no pointer.
        if let Err(errno) = unsafe { call(&*self.0.node, &mut arg) } {
            tracing::warn!(id = self.0.id, %errno, "cannot close a bind queue");
        }
    }
}

/// A bind queue of somebody else on the same open file, such as the one on which a driver maps and unmaps by itself. What is sent to it
/// comes in the order of its jobs: what waits and signals tells when they are over, or keeps later ones back.
pub struct BorrowedQueue(Queue);

impl BorrowedQueue {
    /// The bind queue of an open file that was made first. ENOENT: the file has none.
    pub fn first(node: Arc<dyn Node>) -> Result<Self, Errno> {
        // Ids count up from the queue that every open file begins with.
        for id in 0..MAX_QUEUES {
            let mut arg = uapi::VmBind { queue_id: id, ..Default::default() };
            // SAFETY: the argument holds no pointer.
            match unsafe { call(&*node, &mut arg) } {
                Ok(()) => return Ok(Self(Queue::new(node, id))),
                // Of another kind, or closed.
                Err(Errno::INVAL | Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::NOENT)
    }

    /// Binds behind everything that the queue has got so far; no more than fits into one call.
    pub fn bind(&self, ops: &[BindOp]) -> Result<(), Errno> {
        if ops.len() > MAX_OPS {
            return Err(Errno::TOOBIG);
        }
        self.0.bind_async(ops, &[], &[])
    }

    /// Signals when everything is over that the queue has got so far.
    pub fn signal(&self, point: SyncPoint) -> Result<(), Errno> {
        self.0.bind_async(&[], &[], &[point])
    }

    /// What the queue gets later does not run before all `points` are signalled, which must have materialised.
    pub fn wait(&self, points: &[SyncPoint]) -> Result<(), Errno> {
        self.0.bind_async(&[], points, &[])
    }
}

/// How a buffer object is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoOptions {
    /// `BO_` flags (see [`crate::uapi::msm`]); without a cache mode it is [`uapi::BO_WC`].
    pub flags: u32,
    /// The object is for this open file's VM alone. It then costs less to bind, and cannot be exported.
    pub private: bool,
}

/// Creates a buffer object of at least `size` bytes; the kernel rounds up to pages.
pub fn create_bo(node: Arc<dyn Node>, size: u64, options: BoOptions) -> Result<BufferObject, Errno> {
    let mut flags = options.flags;
    if flags & uapi::BO_CACHE_MASK == 0 {
        flags |= uapi::BO_WC;
    }
    if options.private {
        flags |= uapi::BO_NO_SHARE;
    }
    let size = size.checked_next_multiple_of(rustix::param::page_size() as u64).ok_or(Errno::INVAL)?;
    let mut arg = uapi::GemNew { size, flags, handle: 0 };
    // SAFETY: the argument holds no pointer.
    unsafe { call(&*node, &mut arg)? };
    Ok(BufferObject::from_handle(node, GemHandle(arg.handle), size, mmap_offset))
}

/// The fake file offset at which the node maps an object; for the constructors of [`crate::bo`].
pub fn mmap_offset(node: &dyn Node, handle: GemHandle) -> Result<u64, Errno> {
    let mut arg = uapi::GemInfo { handle: handle.0, info: uapi::INFO_GET_OFFSET, ..Default::default() };
    // SAFETY: the argument holds no pointer.
    unsafe { call(node, &mut arg)? };
    Ok(arg.value)
}

/// A parameter of the device. Reading one creates the open file's VM.
pub fn get_param(node: &dyn Node, param: u32) -> Result<u64, Errno> {
    let mut arg = uapi::GetParam(uapi::Param { pipe: uapi::PIPE_3D0, param, ..Default::default() });
    // SAFETY: the argument holds no pointer.
    unsafe { call(node, &mut arg)? };
    Ok(arg.0.value)
}

fn check_driver(node: &dyn Node) -> Result<(), Errno> {
    let version = DriverVersion::query(node)?;
    if version.name != uapi::DRIVER_NAME || version.major != 1 {
        tracing::debug!(?version, "not the msm driver we know");
        return Err(Errno::NODEV);
    }
    if version.minor < MINOR_VM_BIND {
        return Err(Errno::OPNOTSUPP);
    }
    Ok(())
}

/// As [`Vm::is_usable`]. EINVAL: nobody has opted in to VM_BIND on this file.
fn is_usable(node: &dyn Node) -> Result<bool, Errno> {
    // The state of the VM is the first thing that the kernel looks at, the queue the last one.
    let mut arg = uapi::VmBind { queue_id: NO_QUEUE, ..Default::default() };
    // SAFETY: the argument holds no pointer.
    match unsafe { call(node, &mut arg) } {
        Err(Errno::PIPE) => Ok(false),
        Err(Errno::NOENT) => Ok(true),
        Err(errno) => Err(errno),
        Ok(()) => Err(Errno::PROTO),
    }
}

/// What is made when it is first needed. Of two threads that make it at once, one lets go of its own.
fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T, Errno>) -> Result<&T, Errno> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
}

/// For calls that come when the kernel has accepted what it is to do: a moment's lack of memory must not leave it unknown how that went.
fn twice<T>(call: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    call().or_else(|_| call())
}

fn count<T>(list: &[T]) -> Result<u32, Errno> {
    u32::try_from(list.len()).map_err(|_| Errno::INVAL)
}

/// A bind operation as msm's.
fn vm_bind_op(op: &BindOp) -> uapi::VmBindOp {
    let (kind, handle, obj_offset) = match op.target {
        BindTarget::Map { bo, offset } => (uapi::VM_BIND_OP_MAP, bo.0, offset),
        BindTarget::Null => (uapi::VM_BIND_OP_MAP_NULL, 0, 0),
        BindTarget::Unmap => (uapi::VM_BIND_OP_UNMAP, 0, 0),
    };
    uapi::VmBindOp { op: kind, handle, obj_offset, iova: op.va, range: op.len, flags: 0, pad: 0 }
}

/// A point as msm's: zero stands for a binary syncobj.
fn syncobj(point: &SyncPoint) -> uapi::Syncobj {
    uapi::Syncobj { handle: point.syncobj.0, flags: 0, point: point.point.unwrap_or(0) }
}

//! panthor: VMs and buffer objects of Arm Mali v10 and later.

use crate::bo::{BufferObject, GemHandle};
use crate::node::{DriverVersion, Node, Request, call};
use crate::uapi::panthor as uapi;
use crate::uapi::user_address_mut;
use crate::vm::{BindOp, BindTarget, Cost, Limits, Refused, SyncPoint, Vm};
use core::ops::Range;
use parking_lot::Mutex;
use rustix::io::Errno;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// First minor version with `MAP_SPARSE` and `DEV_QUERY_MMU_INFO`.
const MINOR_SPARSE: i32 = 9;

/// The only page size that a kernel before [`MINOR_SPARSE`] takes as granule.
const PAGE_SIZE: u64 = 4096;

/// What a last-level page table covers, and what a block entry maps.
const BLOCK_SIZE: u64 = 2 << 20;

/// Bytes at the end of the address space that are the kernel's in every VM (`PANTHOR_VM_MIN_KERNEL_VA_SIZE`).
const MIN_KERNEL_VA: u64 = 256 << 20;

/// Ids go from 1 to this (`PANTHOR_MAX_VMS_PER_FILE`).
const MAX_VMS: u32 = 32;

/// Operations a call.
///
/// The kernel copies the whole array before it starts, and for an asynchronous call makes a job of every operation, each
/// with at least three preallocated page-table pages, before it queues the first: 1024 operations are 48 KiB of array
/// and 12 MiB of page tables in flight. The cost of the system call is long gone in that many address-space flushes, and
/// the memory cgroup of the process pays for more.
const MAX_OPS: usize = 1024;

/// What one operation, table and entry cost.
///
/// Every operation is a job of its own: a LOCK of the region before and a flush after, each polled through registers
/// (`panthor_vm_lock_region`, `panthor_vm_unlock_region`), far above all else. Its page tables are allocated for the worst
/// case, each a page that is cleared. A block entry is taken wherever address and memory allow.
const COST: Cost = Cost { op: 4000, table: 300, entry: 5, pages: 3000 };

/// An address space of panthor, with its bind queue.
pub struct PanthorVm {
    node: Arc<dyn Node>,
    id: u32,
    owned: bool,
    limits: Limits,
    scratch: Mutex<Scratch>,
}

/// The arrays of a call, kept so that a bind allocates nothing.
#[derive(Default)]
struct Scratch {
    ops: Vec<uapi::VmBindOp>,
    syncs: Vec<uapi::SyncOp>,
}

impl PanthorVm {
    /// Creates a VM and lets the kernel choose how much of the address space is the user's.
    ///
    /// ENODEV when the node's driver is not panthor.
    pub fn create(node: Arc<dyn Node>) -> Result<Self, Errno> {
        Self::create_with(node, 0)
    }

    /// Creates a VM whose first `user_va_range` bytes are the user's; zero lets the kernel choose. The kernel may round
    /// up: [`Limits::va`] tells.
    pub fn create_with(node: Arc<dyn Node>, user_va_range: u64) -> Result<Self, Errno> {
        let mut limits = limits(&*node)?;
        let mut arg = uapi::VmCreate { flags: 0, id: 0, user_va_range };
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*node, &mut arg)? };
        limits.set_va(0..arg.user_va_range);
        tracing::debug!(id = arg.id, ?limits, "panthor VM");
        Ok(Self { node, id: arg.id, owned: true, limits, scratch: Mutex::default() })
    }

    /// Works on a VM that a driver has made on the open file behind `node`, in the addresses `va`, and leaves it alive on
    /// drop.
    pub fn attach(node: Arc<dyn Node>, id: u32, va: Range<u64>) -> Result<Self, Errno> {
        let mut limits = limits(&*node)?;
        limits.set_va(va);
        let vm = Self { node, id, owned: false, limits, scratch: Mutex::default() };
        // EINVAL for an id that is none.
        vm.is_usable()?;
        Ok(vm)
    }

    /// The id that names the VM on its open file.
    pub fn id(&self) -> u32 {
        self.id
    }

    fn check(&self, ops: &[BindOp]) -> Result<(), Errno> {
        if !self.limits.null_mapping && ops.iter().any(|op| op.target == BindTarget::Null) {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(())
    }
}

impl Vm for PanthorVm {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn bind(&self, ops: &[BindOp]) -> Result<(), Refused> {
        self.check(ops).map_err(|errno| Refused { applied: 0, errno })?;
        let scratch = &mut *self.scratch.lock();
        let mut applied = 0;
        while applied < ops.len() {
            let rest = &ops[applied..];
            let rest = &rest[..rest.len().min(MAX_OPS)];
            scratch.ops.clear();
            scratch.ops.extend(rest.iter().map(vm_bind_op));
            let mut arg = uapi::VmBind { vm_id: self.id, flags: 0, ops: uapi::ObjArray::new(&scratch.ops) };
            // Not `call`: an operation that a signal interrupts ends the call with EINTR *and its index in `count`*, so the
            // same argument once more would leave out that operation and all behind it. Go on from there instead.
            // SAFETY: `ops` is the array in scratch, which nobody touches until the call is over, and has no syncs.
            let result = unsafe { self.node.ioctl(uapi::VmBind::REQUEST, (&raw mut arg).cast()) };
            let count = arg.ops.count as usize;
            match result {
                // `count` is what was asked for, or less if the kernel itself started the call again after a signal.
                Ok(()) => applied += count.min(rest.len()),
                Err(errno) => {
                    // A failure before the first operation leaves `count` as it was.
                    applied += if count < rest.len() { count } else { 0 };
                    if !matches!(errno, Errno::INTR | Errno::AGAIN) {
                        return Err(Refused { applied, errno });
                    }
                }
            }
        }
        Ok(())
    }

    fn bind_async(&self, ops: &[BindOp], waits: &[SyncPoint], signals: &[SyncPoint]) -> Result<(), Errno> {
        self.check(ops)?;
        if ops.len() > MAX_OPS {
            // Two ioctls could be half accepted.
            return Err(Errno::TOOBIG);
        }
        let Scratch { ops: bind, syncs } = &mut *self.scratch.lock();
        syncs.clear();
        // A timeline has reached zero from the start, while the kernel takes a wait for zero as one for the newest point.
        let waits = waits.iter().filter(|wait| wait.point != Some(0));
        syncs.extend(waits.map(|wait| sync_op(wait, uapi::SYNC_OP_WAIT)));
        let waits = syncs.len();
        for signal in signals {
            if signal.point == Some(0) {
                return Err(Errno::INVAL);
            }
            syncs.push(sync_op(signal, uapi::SYNC_OP_SIGNAL));
        }
        bind.clear();
        bind.extend(ops.iter().map(vm_bind_op));
        if bind.is_empty() {
            if syncs.is_empty() {
                return Ok(());
            }
            bind.push(uapi::VmBindOp { flags: uapi::VM_BIND_OP_TYPE_SYNC_ONLY, ..Default::default() });
        }
        // A VM has one bind queue, in order: what the first operation waits for holds up the others, and when the last is
        // done so are they.
        match &mut bind[..] {
            [only] => only.syncs = uapi::ObjArray::new(syncs),
            [first, .., last] => {
                first.syncs = uapi::ObjArray::new(&syncs[..waits]);
                last.syncs = uapi::ObjArray::new(&syncs[waits..]);
            }
            [] => unreachable!("a sync-only operation stands in for none"),
        }
        let ops = uapi::ObjArray::new(bind);
        let mut arg = uapi::VmBind { vm_id: self.id, flags: uapi::VM_BIND_ASYNC, ops };
        // SAFETY: `ops` and the `syncs` inside are the arrays in scratch, which nobody touches until the call is over. Again
        // after a signal is fine here: the kernel queues all or nothing.
        unsafe { call(&*self.node, &mut arg) }
    }

    fn is_usable(&self) -> Result<bool, Errno> {
        let mut arg = uapi::VmGetState { vm_id: self.id, state: 0 };
        // SAFETY: the argument holds no pointer.
        unsafe { call(&*self.node, &mut arg)? };
        Ok(arg.state == uapi::VM_STATE_USABLE)
    }
}

impl Drop for PanthorVm {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        let mut arg = uapi::VmDestroy { id: self.id, pad: 0 };
        // SAFETY: the argument holds no pointer.
        if let Err(errno) = unsafe { call(&*self.node, &mut arg) } {
            tracing::warn!(id = self.id, %errno, "cannot destroy a VM");
        }
    }
}

/// How a buffer object is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BoOptions {
    /// `BO_NO_MMAP` or `BO_WB_MMAP` (see [`crate::uapi::panthor`]), or zero.
    pub flags: u32,
    /// The id of the only VM that may map the object. It then costs less to bind, and cannot be exported.
    pub exclusive_vm_id: Option<u32>,
}

/// Creates a buffer object of at least `size` bytes; the kernel rounds up to pages.
pub fn create_bo(node: Arc<dyn Node>, size: u64, options: BoOptions) -> Result<BufferObject, Errno> {
    let exclusive_vm_id = options.exclusive_vm_id.unwrap_or(0);
    let mut arg = uapi::BoCreate { size, flags: options.flags, exclusive_vm_id, ..Default::default() };
    // SAFETY: the argument holds no pointer.
    unsafe { call(&*node, &mut arg)? };
    Ok(BufferObject::from_handle(node, GemHandle(arg.handle), arg.size, mmap_offset))
}

/// The fake file offset at which the node maps an object; for the constructors of [`crate::bo`].
pub fn mmap_offset(node: &dyn Node, handle: GemHandle) -> Result<u64, Errno> {
    let mut arg = uapi::BoMmapOffset { handle: handle.0, ..Default::default() };
    // SAFETY: the argument holds no pointer.
    unsafe { call(node, &mut arg)? };
    Ok(arg.offset)
}

/// The ids of the VMs that the open file behind `node` has.
pub fn vms(node: &dyn Node) -> Result<Vec<u32>, Errno> {
    let mut ids = Vec::new();
    for id in 1..=MAX_VMS {
        let mut arg = uapi::VmGetState { vm_id: id, state: 0 };
        // SAFETY: the argument holds no pointer.
        match unsafe { call(node, &mut arg) } {
            Ok(()) => ids.push(id),
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(ids)
}

/// The addresses that a VM can have at most. How many of them the one that made it has asked for the kernel does not tell.
pub fn user_addresses(node: &dyn Node) -> Result<Range<u64>, Errno> {
    Ok(0..addresses(node)?.end.saturating_sub(MIN_KERNEL_VA))
}

/// All addresses of the GPU's MMU, in bytes; a VM leaves the upper ones to the kernel.
fn addresses(node: &dyn Node) -> Result<Range<u64>, Errno> {
    let bits = uapi::mmu_va_bits(query::<uapi::GpuInfo>(node)?.mmu_features);
    Ok(0..1 << bits.min(63))
}

impl Limits {
    /// Gives a VM the addresses `va`; those above stay the kernel's.
    fn set_va(&mut self, va: Range<u64>) {
        self.kernel = self.kernel.take().map(|kernel| va.end..kernel.end).filter(|kernel| !kernel.is_empty());
        self.va = va;
    }
}

/// What the driver behind `node` can do; all addresses are still the kernel's.
fn limits(node: &dyn Node) -> Result<Limits, Errno> {
    let version = DriverVersion::query(node)?;
    if version.name != uapi::DRIVER_NAME || version.major != 1 {
        tracing::debug!(?version, "not the panthor driver we know");
        return Err(Errno::NODEV);
    }
    let null_mapping = version.minor >= MINOR_SPARSE;
    let page_size = if null_mapping { smallest_page(node)? } else { PAGE_SIZE };
    Ok(Limits {
        page_size,
        va: 0..0,
        kernel: Some(addresses(node)?),
        max_ops: MAX_OPS,
        null_mapping,
        block_size: BLOCK_SIZE,
        // The GPU's accesses to the region wait while it is locked, and see only the finished state.
        remap_in_use: true,
        // In the queue every operation is a job, with a fence and a place in the scheduler (`panthor_vm_bind_job_create`).
        prefers_at_once: true,
        // As long as a null mapping reaches the end of its block, every operation in there unmaps and maps the rest of it, page by page
        // (`unmap_hugepage_align`).
        last_first: true,
        // Every operation allocates for itself, and gives back what it did not need.
        shares_tables: false,
        cost: COST,
    })
}

/// The smallest page that VM_BIND maps, in bytes.
fn smallest_page(node: &dyn Node) -> Result<u64, Errno> {
    match query::<uapi::MmuInfo>(node)?.page_size_bitmap {
        0 => Err(Errno::NODEV),
        bitmap => Ok(bitmap & bitmap.wrapping_neg()),
    }
}

/// What `DEV_QUERY` tells.
///
/// # Safety
/// Plain integers, in the layout of the structure that [`Self::QUERY`] asks for.
unsafe trait Info: Default {
    const QUERY: u32;
}
// SAFETY: a structure of the uapi, asked for by its number; here and below.
unsafe impl Info for uapi::GpuInfo {
    const QUERY: u32 = uapi::DEV_QUERY_GPU_INFO;
}
// SAFETY: as above.
unsafe impl Info for uapi::MmuInfo {
    const QUERY: u32 = uapi::DEV_QUERY_MMU_INFO;
}

fn query<T: Info>(node: &dyn Node) -> Result<T, Errno> {
    let mut info = [T::default()];
    let mut arg = uapi::DevQuery {
        r#type: T::QUERY,
        size: size_of_val(&info) as u32,
        pointer: user_address_mut(&mut info),
    };
    // SAFETY: the pointer is to `size` bytes that outlive the call and may hold whatever comes.
    unsafe { call(node, &mut arg)? };
    let [info] = info;
    Ok(info)
}

/// A bind operation as panthor's.
fn vm_bind_op(op: &BindOp) -> uapi::VmBindOp {
    // What is bound sparsely is buffers and images. Shaders, which alone are executed, live elsewhere; and MAP_SPARSE demands
    // NOEXEC.
    let (flags, bo_handle, bo_offset) = match op.target {
        BindTarget::Map { bo, offset } => {
            (uapi::VM_BIND_OP_TYPE_MAP | uapi::VM_BIND_OP_MAP_NOEXEC, bo.0, offset)
        }
        BindTarget::Null => {
            let sparse = uapi::VM_BIND_OP_MAP_SPARSE | uapi::VM_BIND_OP_MAP_NOEXEC;
            (uapi::VM_BIND_OP_TYPE_MAP | sparse, 0, 0)
        }
        BindTarget::Unmap => (uapi::VM_BIND_OP_TYPE_UNMAP, 0, 0),
    };
    uapi::VmBindOp { flags, bo_handle, bo_offset, va: op.va, size: op.len, syncs: uapi::ObjArray::default() }
}

/// A wait or a signal as panthor's.
fn sync_op(point: &SyncPoint, direction: u32) -> uapi::SyncOp {
    let kind = match point.point {
        Some(_) => uapi::SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ,
        None => uapi::SYNC_OP_HANDLE_TYPE_SYNCOBJ,
    };
    uapi::SyncOp {
        flags: kind | direction,
        handle: point.syncobj.0,
        timeline_value: point.point.unwrap_or(0),
    }
}

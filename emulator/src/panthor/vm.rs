//! VMs of panthor: creation, state, and the two ways to run an operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kmd::uapi::panthor::{VM_STATE_UNUSABLE, VM_STATE_USABLE, VmCreate, VmDestroy, VmGetState};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::Panthor;
use super::heap::Heaps;
use crate::drm::Device;
use crate::mem::TASK_SIZE;
use crate::queue::{Queue, Work};
use crate::vm::{AddressSpace, Operation};

/// Virtual addresses of the GPU (`MMU_FEATURES`): 48 bits.
const FULL_VA_RANGE: u64 = 1 << super::query::VA_BITS;
/// What the kernel keeps for itself at least.
const MIN_KERNEL_VA: u64 = 256 << 20;
/// VMs per open file.
pub(super) const MAX_VMS: u32 = 32;

/// A job of the bind queue: one operation, or nothing where it only synchronises.
pub(super) struct BindWork {
    pub(super) vm: Arc<Vm>,
    pub(super) operation: Option<Operation>,
}

impl Work for BindWork {
    fn run(self) {
        if let Some(operation) = &self.operation {
            self.vm.run_job(operation);
        }
    }
}

/// A VM with its bind queue.
pub(super) struct Vm {
    pub(super) space: AddressSpace,
    /// End of the range that user space may bind.
    pub(super) user_va_range: u64,
    pub(super) queue: Arc<Queue<BindWork>>,
    /// Held from the moment a submission looks at fences until its jobs are queued and its signals are in place.
    pub(super) submit: Mutex<()>,
    pub(super) heaps: Mutex<Heaps>,
    unusable: AtomicBool,
    destroyed: AtomicBool,
}

impl Vm {
    fn new(device: Arc<Device>, id: u32, user_va_range: u64) -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(device.pace.clone(), Some(id)),
            space: AddressSpace::new(device, true),
            user_va_range,
            submit: Mutex::new(()),
            heaps: Heaps::new(user_va_range),
            unusable: AtomicBool::new(false),
            destroyed: AtomicBool::new(false),
        })
    }

    pub(super) fn is_unusable(&self) -> bool {
        self.unusable.load(Ordering::Acquire)
    }

    pub(super) fn is_destroyed(&self) -> bool {
        self.destroyed.load(Ordering::Acquire)
    }

    /// Runs an operation now, in the caller's thread.
    pub(super) fn run(&self, op: &Operation) -> Result<(), Errno> {
        let device = self.space.device();
        device.stats.ops.add(1);
        // The region is locked before, and flushed after.
        device.stats.flushes.add(1);
        if device.faults.op.strikes() {
            return Err(Errno::NOMEM);
        }
        // A VM can lose the right to map while an operation waits for its turn.
        self.space.run(op, |_| !self.is_unusable())
    }

    /// Runs an operation in the queue's thread. Its failure can no longer be reported to anybody: the VM becomes unusable.
    fn run_job(&self, op: &Operation) {
        if let Err(error) = self.run(op)
            && !self.unusable.swap(true, Ordering::AcqRel)
        {
            tracing::warn!(%error, va = format_args!("{:#x}", op.va), "a queued bind failed: the VM is unusable");
        }
    }

    /// Unmaps everything; what is queued still runs, without effect.
    pub(super) fn destroy(&self) {
        self.destroyed.store(true, Ordering::Release);
        self.heaps.lock().destroy();
        self.space.destroy();
        self.queue.close();
    }
}

/// The user range that VM_CREATE gives: the kernel's part is a power of two at the end.
fn user_va_range(wanted: u64) -> Result<u64, Errno> {
    let most = FULL_VA_RANGE - MIN_KERNEL_VA;
    // What the CPU can address, so that both can use the same addresses; half of the range if that is no less than all of it.
    let default = if TASK_SIZE < FULL_VA_RANGE { TASK_SIZE } else { FULL_VA_RANGE / 2 };
    let user = if wanted != 0 { wanted } else { default }.min(most);
    if wanted > user {
        return Err(Errno::INVAL);
    }
    let kernel = 1 << (FULL_VA_RANGE - user).ilog2();
    Ok(FULL_VA_RANGE - kernel)
}

impl Panthor {
    pub(super) fn vm(&self, id: u32) -> Option<Arc<Vm>> {
        self.vms.lock().get(id).cloned()
    }

    pub(super) fn vm_create(&self, args: &mut VmCreate) -> Result<(), Errno> {
        if args.flags != 0 {
            return Err(Errno::INVAL);
        }
        let user = user_va_range(args.user_va_range)?;
        if self.file.device.faults.alloc.strikes() {
            return Err(Errno::NOMEM);
        }
        let new = |id| Vm::new(self.file.device.clone(), id, user);
        args.id = self.vms.lock().insert_with(new).ok_or(Errno::BUSY)?;
        args.user_va_range = user;
        Ok(())
    }

    pub(super) fn vm_destroy(&self, args: &mut VmDestroy) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let vm = self.vms.lock().remove(args.id).ok_or(Errno::INVAL)?;
        vm.destroy();
        Ok(())
    }

    pub(super) fn vm_get_state(&self, args: &mut VmGetState) -> Result<(), Errno> {
        let vm = self.vm(args.vm_id).ok_or(Errno::INVAL)?;
        args.state = if vm.is_unusable() { VM_STATE_UNUSABLE } else { VM_STATE_USABLE };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ranges_as_the_kernel_splits_them() {
        assert_eq!(user_va_range(0), Ok(1 << 47));
        assert_eq!(user_va_range(1 << 32), Ok(1 << 47));
        assert_eq!(user_va_range((1 << 47) + 4096), Ok(FULL_VA_RANGE - (1 << 46)));
        assert_eq!(user_va_range(FULL_VA_RANGE - MIN_KERNEL_VA), Ok(FULL_VA_RANGE - MIN_KERNEL_VA));
        assert_eq!(user_va_range(FULL_VA_RANGE - MIN_KERNEL_VA + 1), Err(Errno::INVAL));
        assert_eq!(user_va_range(u64::MAX), Err(Errno::INVAL));
    }
}

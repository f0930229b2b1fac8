//! VM_BIND of panthor: the checks in the kernel's order, the synchronous and the asynchronous form.

use kmd::uapi::panthor::*;
use rustix::io::Errno;

use super::Panthor;
use super::vm::{BindWork, Vm};
use crate::drm::fence::Fence;
use crate::drm::user::User;
use crate::mem::PAGE;
use crate::queue::Job;
use crate::vm::{Action, Operation, preallocation};

const MAP_FLAGS: u32 = VM_BIND_OP_MAP_READONLY
    | VM_BIND_OP_MAP_NOEXEC
    | VM_BIND_OP_MAP_UNCACHED
    | VM_BIND_OP_MAP_SPARSE
    | VM_BIND_OP_TYPE_MASK;

impl Panthor {
    pub(super) fn vm_bind(&self, args: &mut VmBind, user: &User) -> Result<(), Errno> {
        self.file.device.stats.binds.add(1);
        // Other flag bits are ignored, as in the kernel.
        if args.flags & VM_BIND_ASYNC != 0 {
            self.vm_bind_async(args, user)
        } else {
            self.vm_bind_sync(args, user)
        }
    }

    fn vm_bind_sync(&self, args: &mut VmBind, user: &User) -> Result<(), Errno> {
        let vm = self.vm(args.vm_id).ok_or(Errno::INVAL)?;
        let ops: Vec<VmBindOp> = user.read_array(&args.ops, size_of::<VmBindOp>())?;
        for (i, op) in ops.iter().enumerate() {
            if let Err(errno) = self.bind_now(&vm, op) {
                // Tells user space which one it was; those before it stay.
                args.ops.count = i as u32;
                return Err(errno);
            }
        }
        Ok(())
    }

    fn bind_now(&self, vm: &Vm, op: &VmBindOp) -> Result<(), Errno> {
        if op.syncs.count != 0 {
            return Err(Errno::INVAL);
        }
        if op.size == 0 {
            return Ok(());
        }
        match self.prepare(vm, op)? {
            Some(operation) => vm.run(&operation),
            None => Ok(()),
        }
    }

    /// Checks an operation and takes what it needs. Nothing comes back for one that only synchronises.
    fn prepare(&self, vm: &Vm, op: &VmBindOp) -> Result<Option<Operation>, Errno> {
        if (op.va | op.size | op.bo_offset) % PAGE != 0 {
            return Err(Errno::INVAL);
        }
        if op.va >= vm.user_va_range || op.size > vm.user_va_range - op.va {
            return Err(Errno::INVAL);
        }
        let no_object = op.bo_handle == 0 && op.bo_offset == 0;
        let no_flags = op.flags & !VM_BIND_OP_TYPE_MASK == 0;
        let action = match op.flags & VM_BIND_OP_TYPE_MASK {
            VM_BIND_OP_TYPE_MAP => self.prepare_map(vm, op)?,
            VM_BIND_OP_TYPE_UNMAP if no_flags && no_object => Action::Unmap,
            VM_BIND_OP_TYPE_SYNC_ONLY
                if no_flags && no_object && op.va == 0 && op.size == 0 && op.syncs.count != 0 =>
            {
                return Ok(None);
            }
            _ => return Err(Errno::INVAL),
        };
        let operation = Operation { va: op.va, len: op.size, action };
        if self.file.device.faults.alloc.strikes() {
            return Err(Errno::NOMEM);
        }
        if !vm.space.permits(&operation) {
            // The one check that the kernel does not have: there, the range is the GPU's alone.
            tracing::warn!(
                va = format_args!("{:#x}", op.va),
                len = format_args!("{:#x}", op.size),
                "a bind outside of the registered windows is refused"
            );
            return Err(Errno::INVAL);
        }
        self.file.device.stats.preallocated_pages.add(preallocation(&operation));
        Ok(Some(operation))
    }

    fn prepare_map(&self, vm: &Vm, op: &VmBindOp) -> Result<Action, Errno> {
        if op.flags & VM_BIND_OP_MAP_SPARSE != 0 {
            let known = self.mali.has_sparse() && op.flags & !MAP_FLAGS == 0;
            if !known || op.flags & VM_BIND_OP_MAP_NOEXEC == 0 {
                return Err(Errno::INVAL);
            }
            if op.bo_handle != 0 || op.bo_offset != 0 {
                return Err(Errno::INVAL);
            }
            return Ok(Action::MapSparse);
        }
        let object = self.file.object(op.bo_handle).ok_or(Errno::INVAL)?;
        if op.flags & !MAP_FLAGS != 0 {
            return Err(Errno::INVAL);
        }
        if op.size > object.size || op.bo_offset > object.size - op.size {
            return Err(Errno::INVAL);
        }
        if object.attributes.exclusive.is_some_and(|only| only != vm.space.id) {
            return Err(Errno::INVAL);
        }
        Ok(Action::Map { object, offset: op.bo_offset, readonly: op.flags & VM_BIND_OP_MAP_READONLY != 0 })
    }

    fn vm_bind_async(&self, args: &VmBind, user: &User) -> Result<(), Errno> {
        let vm = self.vm(args.vm_id).ok_or(Errno::INVAL)?;
        let ops: Vec<VmBindOp> = user.read_array(&args.ops, size_of::<VmBindOp>())?;
        let mut jobs = Vec::with_capacity(ops.len());
        let mut syncs = Vec::with_capacity(ops.len());
        for op in &ops {
            if vm.is_destroyed() || vm.is_unusable() {
                return Err(Errno::INVAL);
            }
            let operation = self.prepare(&vm, op)?;
            syncs.push(user.read_array::<SyncOp>(&op.syncs, size_of::<SyncOp>())?);
            let work = BindWork { vm: vm.clone(), operation };
            jobs.push(Job { work, waits: Vec::new(), done: Fence::new() });
        }
        let mut signals = self.collect_signals(&syncs)?;
        if !jobs.is_empty() {
            vm.queue.start()?;
        }

        let order = vm.submit.lock();
        self.link(&mut jobs, &syncs, &mut signals)?;
        // Nothing can fail from here on.
        self.file.device.stats.jobs.add(jobs.len() as u64);
        if !jobs.is_empty() {
            vm.queue.push(jobs);
        }
        signals.put();
        drop(order);
        Ok(())
    }
}

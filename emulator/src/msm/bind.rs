//! VM_BIND of msm: the checks in the kernel's order, and the job.

use std::os::fd::IntoRawFd;

use kmd::uapi::msm::*;
use rustix::io::Errno;

use super::queue::Kind;
use super::sync::{Syncobjs, out_fence};
use super::tree::Request;
use super::vm::{BindOp, BindWork, Vm, preallocation};
use super::{LARGEST_ALLOCATION, Msm};
use crate::drm::fence::Fence;
use crate::drm::user::User;
use crate::mem::PAGE;
use crate::queue::Job;

impl Msm {
    pub(super) fn vm_bind(&self, args: &mut VmBind, user: &User) -> Result<(), Errno> {
        let stats = &self.file.device.stats;
        stats.binds.add(1);
        let vm = self.vm()?;
        if vm.is_unusable() {
            return Err(Errno::PIPE);
        }
        if !self.is_user_managed() || args.flags & !VM_BIND_FLAGS != 0 {
            return Err(Errno::INVAL);
        }
        let queue = self.submit_queue(args.queue_id)?;
        let Kind::Bind(jobs) = &queue.kind else { return Err(Errno::INVAL) };
        let done = Fence::new();
        let sync_file = out_fence(args.flags & VM_BIND_FENCE_FD_OUT != 0, &done)?;
        if u64::from(args.nr_ops) * size_of::<VmBindOp>() as u64 > LARGEST_ALLOCATION {
            return Err(Errno::NOMEM);
        }

        let _order = queue.order.lock();
        let in_fence = (args.flags & VM_BIND_FENCE_FD_IN != 0).then_some(args.fence_fd);
        // An array without an address is none.
        let array = |addr, count| Syncobjs {
            addr,
            count: if addr == 0 { 0 } else { count },
            stride: args.syncobj_stride,
        };
        let waits = self.waits(in_fence, array(args.in_syncobjs, args.nr_in_syncobjs), user)?;
        let signals = self.signals(array(args.out_syncobjs, args.nr_out_syncobjs), user)?;
        let ops = self.lookup(&vm, args, user)?;
        let pages = preallocation(&ops);
        let reserved = vm.reserve(pages);
        jobs.start()?;

        let mut tree = vm.tree.lock();
        let steps = vm.stage(&mut tree, &ops)?;
        // Nothing can fail from here on.
        stats.preallocated_pages.add(pages);
        stats.ops.add(ops.len() as u64);
        stats.jobs.add(1);
        // The CPU, and submissions that name an object, wait until it is mapped.
        for op in &ops {
            if let Request::Map { object, .. } = &op.request {
                object.attributes.resv.add(done.clone(), true);
            }
        }
        let work = BindWork { queue: args.queue_id, steps, reserved };
        jobs.push([Job { work, waits: waits.fences, done: done.clone() }]);
        waits.reset.reset();
        signals.put(&done);
        drop(tree);
        if let Some(file) = sync_file {
            args.fence_fd = file.into_raw_fd();
        }
        Ok(())
    }

    /// Checks the operations and finds their objects.
    fn lookup(&self, vm: &Vm, args: &VmBind, user: &User) -> Result<Vec<BindOp>, Errno> {
        // The kernel does not look at the stride.
        let ops = match args.nr_ops {
            1 => vec![args.op],
            count => user.read(args.ops_address(), count as usize)?,
        };
        ops.iter().try_for_each(|op| self.check(vm, op))?;
        let ops: Vec<BindOp> = ops.iter().map(|op| self.find_object(op)).collect::<Result<_, _>>()?;
        let space = &self.file.device.space;
        let inside = |op: &BindOp| matches!(op.request, Request::Unmap) || space.covers(op.va, op.len);
        if let Some(op) = ops.iter().find(|op| !inside(op)) {
            // The one check that the kernel does not have: there, the range is the GPU's alone.
            tracing::warn!(
                va = format_args!("{:#x}", op.va),
                len = format_args!("{:#x}", op.len),
                "a bind outside of the registered windows is refused"
            );
            return Err(Errno::INVAL);
        }
        Ok(ops)
    }

    fn check(&self, vm: &Vm, op: &VmBindOp) -> Result<(), Errno> {
        let aligned = (op.iova | op.obj_offset | op.range) % PAGE == 0;
        let end = op.iova.checked_add(op.range);
        let inside = op.iova >= vm.va.start && end.is_some_and(|end| end <= vm.va.end);
        let known = match op.op {
            VM_BIND_OP_MAP => op.handle != 0,
            VM_BIND_OP_UNMAP => op.handle == 0,
            VM_BIND_OP_MAP_NULL => op.handle == 0 && self.gpu.prr,
            _ => false,
        };
        if op.flags & !VM_BIND_OP_FLAGS == 0 && aligned && inside && known {
            Ok(())
        } else {
            Err(Errno::INVAL)
        }
    }

    fn find_object(&self, op: &VmBindOp) -> Result<BindOp, Errno> {
        let request = match op.op {
            VM_BIND_OP_MAP => {
                let object = self.file.object(op.handle).ok_or(Errno::INVAL)?;
                // The kernel's sum wraps, and what wraps maps nothing there; here it would be somebody's memory.
                let end = op.range.checked_add(op.obj_offset);
                if end.is_none_or(|end| end > object.size) {
                    return Err(Errno::INVAL);
                }
                Request::Map { object, offset: op.obj_offset, dump: op.flags & VM_BIND_OP_DUMP != 0 }
            }
            VM_BIND_OP_UNMAP => Request::Unmap,
            _ => Request::MapNull,
        };
        Ok(BindOp { va: op.iova, len: op.range, request })
    }
}

//! VM_BIND of msm: the checks in the kernel's order, and the job.

use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use kmd::uapi::msm::*;
use rustix::io::Errno;

use super::Msm;
use super::tree::Request;
use super::vm::{BindOp, BindWork, Vm, preallocation};
use crate::drm::fd::{Held, create, lookup};
use crate::drm::fence::Fence;
use crate::drm::gem::borrow;
use crate::drm::syncobj::Syncobj as Place;
use crate::drm::user::User;
use crate::mem::PAGE;
use crate::queue::Job;

/// The largest allocation in one piece that the kernel has; a job keeps its operations in one.
const LARGEST_ALLOCATION: u64 = 4 << 20;

/// What a call waits for.
#[derive(Default)]
struct Waits {
    fences: Vec<Arc<Fence>>,
    /// Syncobjs that lose their fence once the job is queued.
    reset: Vec<Arc<Place>>,
}

impl Msm {
    pub(super) fn vm_bind(&self, args: &mut VmBind, user: &User) -> Result<(), Errno> {
        let stats = &self.file.device.stats;
        stats.binds.add(1);
        let vm = self.vm()?;
        if vm.is_unusable() {
            return Err(Errno::PIPE);
        }
        if !self.is_user_managed() || args.flags & !(VM_BIND_FENCE_FD_IN | VM_BIND_FENCE_FD_OUT) != 0 {
            return Err(Errno::INVAL);
        }
        let queue = self.submit_queue(args.queue_id)?;
        let jobs = queue.jobs.as_ref().ok_or(Errno::INVAL)?;
        let done = Fence::new();
        let sync_file = self.out_fence(args, &done)?;
        if u64::from(args.nr_ops) * size_of::<VmBindOp>() as u64 > LARGEST_ALLOCATION {
            return Err(Errno::NOMEM);
        }

        let _order = queue.order.lock();
        let waits = self.waits(args, user)?;
        let signals = self.signals(args, user)?;
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
        let work = BindWork { queue: args.queue_id, steps, reserved };
        jobs.push([Job { work, waits: waits.fences, done: done.clone() }]);
        for syncobj in waits.reset {
            syncobj.replace_fence(None);
        }
        for (syncobj, point) in signals {
            match point {
                0 => syncobj.replace_fence(Some(done.clone())),
                point => syncobj.add_point(done.clone(), point),
            }
        }
        drop(tree);
        if let Some(file) = sync_file {
            args.fence_fd = file.into_raw_fd();
        }
        Ok(())
    }

    /// The sync file that a call returns.
    fn out_fence(&self, args: &VmBind, done: &Arc<Fence>) -> Result<Option<OwnedFd>, Errno> {
        let wanted = args.flags & VM_BIND_FENCE_FD_OUT != 0;
        wanted.then(|| create(Held::SyncFile(done.clone()))).transpose()
    }

    /// What a call waits for: a sync file, then syncobjs.
    fn waits(&self, args: &VmBind, user: &User) -> Result<Waits, Errno> {
        let mut waits = Waits::default();
        if args.flags & VM_BIND_FENCE_FD_IN != 0 {
            match borrow(&args.fence_fd).ok().and_then(|fd| lookup(fd.as_fd())) {
                Some(Held::SyncFile(fence)) => waits.fences.push(fence),
                _ => return Err(Errno::INVAL),
            }
        }
        for wait in syncobjs(args.in_syncobjs, args.nr_in_syncobjs, args.syncobj_stride, user)? {
            if wait.flags & !SYNCOBJ_RESET != 0 {
                return Err(Errno::INVAL);
            }
            let syncobj = self.file.syncobj(wait.handle).ok_or(Errno::NOENT)?;
            waits.fences.push(syncobj.find_fence(wait.point)?);
            if wait.flags & SYNCOBJ_RESET != 0 {
                waits.reset.push(syncobj);
            }
        }
        Ok(waits)
    }

    /// Where a call puts its fence: syncobjs, each with its point or zero.
    fn signals(&self, args: &VmBind, user: &User) -> Result<Vec<(Arc<Place>, u64)>, Errno> {
        syncobjs(args.out_syncobjs, args.nr_out_syncobjs, args.syncobj_stride, user)?
            .iter()
            .map(|signal| {
                if signal.flags != 0 {
                    return Err(Errno::INVAL);
                }
                Ok((self.file.syncobj(signal.handle).ok_or(Errno::INVAL)?, signal.point))
            })
            .collect()
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
        if op.flags & !VM_BIND_OP_DUMP == 0 && aligned && inside && known {
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

/// The syncobjs of an array, whose address is zero when there is none. What a short stride lacks is zero, what a long one has
/// more is skipped.
fn syncobjs(addr: u64, count: u32, stride: u32, user: &User) -> Result<Vec<Syncobj>, Errno> {
    let count = if addr == 0 { 0 } else { u64::from(count) };
    // The kernel keeps a pointer for each.
    if count * 8 > LARGEST_ALLOCATION {
        return Err(Errno::NOMEM);
    }
    let known = (stride as usize).min(size_of::<Syncobj>());
    (0..count).map(|i| user.read_struct(addr.wrapping_add(i * u64::from(stride)), known)).collect()
}

//! GEM_SUBMIT: the checks in the kernel's order. Command streams are taken, and not executed.

use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kmd::uapi::msm::*;
use rustc_hash::FxHashSet;
use rustix::io::Errno;

use super::queue::{Kind, SubmitQueue};
use super::sync::{Syncobjs, out_fence};
use super::vm::Vm;
use super::{LARGEST_ALLOCATION, Msm};
use crate::drm::fence::Fence;
use crate::drm::gem::Object;
use crate::drm::user::User;
use crate::queue::{Job, Work};

/// What the kernel keeps of each object of a submission, in bytes.
const BO_SIZE: u64 = 32;
/// What the kernel keeps of each command stream.
const CMD_SIZE: u64 = 40;

/// A submission on its way through the GPU.
pub(super) struct SubmitWork {
    queue: Arc<SubmitQueue>,
    vm: Arc<Vm>,
    /// Kept alive until it is over.
    _objects: Vec<Arc<Object>>,
}

impl Work for SubmitWork {
    fn run(self) {
        if self.vm.space.device().faults.job.strikes() {
            self.queue.faults.fetch_add(1, Ordering::Relaxed);
            self.vm.count_fault();
        }
    }
}

/// An object of a submission.
struct SubmitObject {
    object: Arc<Object>,
    flags: u32,
}

impl SubmitObject {
    fn writes(&self) -> bool {
        self.flags & SUBMIT_BO_WRITE != 0
    }
}

impl Msm {
    pub(super) fn gem_submit(&self, args: &mut GemSubmit, user: &User) -> Result<(), Errno> {
        let vm = self.vm()?;
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        if vm.is_unusable() {
            return Err(Errno::PIPE);
        }
        let has = |flag| args.flags & flag != 0;
        let known = args.flags & PIPE_ID_MASK == PIPE_3D0 && !has(!(PIPE_ID_MASK | SUBMIT_FLAGS));
        // Streams in the ring buffer are for kernels that are built for it.
        if !known || has(SUBMIT_SUDO) {
            return Err(Errno::INVAL);
        }
        let queue = self.submit_queue(args.queueid)?;
        let Kind::Gpu(jobs) = &queue.kind else { return Err(Errno::INVAL) };
        let done = Fence::new();
        let sync_file = out_fence(has(SUBMIT_FENCE_FD_OUT), &done)?;
        if u64::from(args.nr_bos) * BO_SIZE + u64::from(args.nr_cmds) * CMD_SIZE > LARGEST_ALLOCATION {
            return Err(Errno::NOMEM);
        }

        let mut numbers = queue.order.lock();
        let array = |flag, addr, count| match has(flag) {
            true => Syncobjs { addr, count, stride: args.syncobj_stride },
            false => Syncobjs::default(),
        };
        let in_fence = has(SUBMIT_FENCE_FD_IN).then_some(args.fence_fd);
        let wanted = array(SUBMIT_SYNCOBJ_IN, args.in_syncobjs, args.nr_in_syncobjs);
        let mut waits = self.waits(in_fence, wanted, user)?;
        let signals = array(SUBMIT_SYNCOBJ_OUT, args.out_syncobjs, args.nr_out_syncobjs);
        let signals = self.signals(signals, user)?;
        let objects = self.submit_objects(args, user)?;
        let cmds = self.submit_cmds(args, user)?;
        if !vm.is_user_managed() {
            check_locks(&vm, &objects)?;
        }
        for used in &objects {
            if !has(SUBMIT_NO_IMPLICIT) && used.flags & SUBMIT_BO_NO_IMPLICIT == 0 {
                waits.fences.extend(used.object.attributes.resv.fences(used.writes()));
            }
        }
        objects.iter().try_for_each(|used| vm.pin(&used.object))?;
        if !vm.is_user_managed() {
            cmds.iter().try_for_each(|cmd| check_placement(cmd, &objects))?;
        }
        let chosen = has(SUBMIT_FENCE_SN_IN).then_some(args.fence);
        if chosen.is_some_and(|number| !numbers.is_free(number)) {
            return Err(Errno::INVAL);
        }
        jobs.start()?;

        // Nothing can fail from here on.
        self.file.device.stats.submits.add(1);
        args.fence = numbers.add(chosen, &done);
        if !vm.is_user_managed() {
            for used in &objects {
                used.object.attributes.resv.add(done.clone(), used.writes());
            }
        }
        let objects = objects.into_iter().map(|used| used.object).collect();
        let work = SubmitWork { queue: queue.clone(), vm, _objects: objects };
        jobs.push([Job { work, waits: waits.fences, done: done.clone() }]);
        waits.reset.reset();
        signals.put(&done);
        if let Some(file) = sync_file {
            args.fence_fd = file.into_raw_fd();
        }
        Ok(())
    }

    /// The objects that a submission names.
    fn submit_objects(&self, args: &GemSubmit, user: &User) -> Result<Vec<SubmitObject>, Errno> {
        let bos: Vec<SubmitBo> = user.read(args.bos, args.nr_bos as usize)?;
        let bad = |bo: &SubmitBo| {
            bo.flags & !SUBMIT_BO_FLAGS != 0 || bo.flags & (SUBMIT_BO_READ | SUBMIT_BO_WRITE) == 0
        };
        if bos.iter().any(bad) {
            return Err(Errno::INVAL);
        }
        let find = |bo: &SubmitBo| {
            let object = self.file.object(bo.handle).ok_or(Errno::INVAL)?;
            Ok(SubmitObject { object, flags: bo.flags })
        };
        bos.iter().map(find).collect()
    }

    /// The command streams of a submission.
    fn submit_cmds(&self, args: &GemSubmit, user: &User) -> Result<Vec<SubmitCmd>, Errno> {
        let cmds: Vec<SubmitCmd> = user.read(args.cmds, args.nr_cmds as usize)?;
        for cmd in &cmds {
            let known =
                matches!(cmd.r#type, SUBMIT_CMD_BUF | SUBMIT_CMD_IB_TARGET_BUF | SUBMIT_CMD_CTX_RESTORE_BUF);
            let placed = cmd.nr_relocs != 0 || cmd.submit_idx != 0 || cmd.submit_offset != 0;
            if !known || cmd.size % 4 != 0 || self.is_user_managed() && placed {
                return Err(Errno::INVAL);
            }
            if u64::from(cmd.nr_relocs) * size_of::<SubmitReloc>() as u64 > LARGEST_ALLOCATION {
                return Err(Errno::NOMEM);
            }
            user.read::<SubmitReloc>(cmd.relocs, cmd.nr_relocs as usize)?;
        }
        Ok(cmds)
    }
}

/// The kernel locks each reservation once, that of the VM first: `EALREADY` for an object that is named twice or shares the VM's.
fn check_locks(vm: &Vm, objects: &[SubmitObject]) -> Result<(), Errno> {
    let mut locked = FxHashSet::from_iter([Arc::as_ptr(&vm.resv)]);
    let all_new = objects.iter().all(|used| locked.insert(Arc::as_ptr(&used.object.attributes.resv)));
    if all_new { Ok(()) } else { Err(Errno::ALREADY) }
}

/// Whether a command stream lies in one of the submission's objects, and needs no relocs: GPUs from a6xx on have none.
fn check_placement(cmd: &SubmitCmd, objects: &[SubmitObject]) -> Result<(), Errno> {
    let object = &objects.get(cmd.submit_idx as usize).ok_or(Errno::INVAL)?.object;
    let end = u64::from(cmd.size / 4) + u64::from(cmd.submit_offset / 4);
    if cmd.size == 0 || end > object.size / 4 || cmd.nr_relocs != 0 {
        return Err(Errno::INVAL);
    }
    Ok(())
}

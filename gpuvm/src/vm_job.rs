//! Jobs of a VM in immediate mode: prepared where memory may be allocated, done where it may not.

use core::hash::Hash;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering};
use crate::vm_bo::{VmBo, VmBoAlloc};
use crate::{Driver, Immediate, Op, Step, Vm, VmError};

/// Each operation adds at most this many mappings: its own, and what is left above it of another one.
const MAPPINGS_PER_OP: usize = 2;

/// Where what has gone stays until the clean-up, what is left below an operation is a new mapping beside the old one.
const fn links_per_op(defers: bool) -> usize {
    MAPPINGS_PER_OP + defers as usize
}

/// What has been promised memory.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    ops: AtomicU64,
    bos: AtomicU64,
}

impl Pending {
    fn any(&self) -> bool {
        self.ops.load(Ordering::Relaxed) > 0 || self.bos.load(Ordering::Relaxed) > 0
    }
}

/// A share of what is pending, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    pending: Arc<Pending>,
    ops: u64,
    bos: u64,
}

impl Claim {
    fn new(pending: &Arc<Pending>, ops: u64, bos: u64) -> Self {
        pending.ops.fetch_add(ops, Ordering::Relaxed);
        pending.bos.fetch_add(bos, Ordering::Relaxed);
        Self { pending: Arc::clone(pending), ops, bos }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.pending.ops.fetch_sub(self.ops, Ordering::Relaxed);
        self.pending.bos.fetch_sub(self.bos, Ordering::Relaxed);
    }
}

/// Operations that can be done without an allocation, whatever happens to the VM until then: what
/// `panthor_vm_prepare_map_op_ctx()` and its like prepare. Made by [`Vm::prepare`]. A job that is dropped is not done.
///
/// `P` holds the operations: a [`Plan`](crate::Plan), a `Vec`, a slice.
#[must_use = "a job that is dropped is not done"]
#[derive(Debug)]
pub struct Job<O, P> {
    ops: P,
    /// Keeps the objects that are mapped in the VM.
    _bos: Vec<VmBo<O>>,
    claim: Claim,
}

impl<O, P: AsRef<[Op<O>]>> Job<O, P> {
    /// The operations.
    pub fn ops(&self) -> &[Op<O>] {
        self.ops.as_ref()
    }
}

/// A job on its way, from [`Vm::begin`]: the place of `run_job()`. Nothing here allocates. What is done of the job
/// stays done when this is dropped; what is not is not.
#[must_use = "the rest of the job is not done"]
pub struct Running<'vm, O, D: Driver, P> {
    vm: &'vm mut Vm<O, D>,
    job: Job<O, P>,
    done: usize,
}

/// The next operation of a running job. It is consumed to complete it, or to say that it failed; dropped it is as if
/// it had not been looked at.
#[must_use = "the operation is not done yet"]
pub struct NextOp<'run, O, D: Driver> {
    vm: &'run mut Vm<O, D>,
    op: Op<O>,
    done: &'run mut usize,
}

impl<O: Copy + Eq + Hash, D: Driver> Vm<O, D> {
    /// Sets memory aside for what is pending.
    fn reserve(&mut self) {
        let ops = self.pending.ops.load(Ordering::Relaxed) as usize;
        self.tree.reserve(MAPPINGS_PER_OP * ops);
        self.links.reserve(links_per_op(D::DEFER_MAPPINGS) * ops);
        self.bos.reserve(self.pending.bos.load(Ordering::Relaxed) as usize);
        self.has_reserve = self.pending.any();
    }

    /// Gives back memory that is set aside for jobs, beyond what is for those that are still to be done. To be called
    /// now and then: the next job of the same size then has to set it aside anew, which can take more time than the
    /// job.
    pub fn trim(&mut self) {
        self.tree.trim(MAPPINGS_PER_OP * self.pending.ops.load(Ordering::Relaxed) as usize);
    }

    /// Memory for a new `vm_bo` of `object`: `drm_gpuvm_bo_create()`.
    pub fn prealloc(&mut self, object: O, data: D::BoData) -> VmBoAlloc<O, D::BoData> {
        let claim = Claim::new(&self.pending, 0, 1);
        self.reserve();
        self.bos.prealloc(object, data, claim)
    }

    /// Gives back the memory of links that are no more.
    #[inline]
    pub(crate) fn compact(&mut self) {
        if self.links.is_sparse(self.tree.len()) {
            self.renew_links();
        }
        self.settle();
    }

    /// Makes all links anew, as many as there are mappings.
    #[cold]
    fn renew_links(&mut self) {
        let mut old = self.links.renew(self.tree.len());
        let Self { tree, links, bos, .. } = self;
        bos.unlink_all();
        tree.for_each_mut(|start, body| {
            let data = core::mem::take(old.data_mut(body.link));
            body.link = links.link(start, body.bo, data, bos);
        });
    }

    /// After a request that may allocate, and that may have used what is set aside for others.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.has_reserve {
            self.reserve();
        }
    }
}

impl<O: Copy + Eq + Hash, D: Driver<Mode = Immediate>> Vm<O, D> {
    /// Makes a job of operations, and sets aside all memory that it can need. Objects that are to be mapped have
    /// their `vm_bo` from now on. The VM may change in any way until the job is done.
    ///
    /// # Errors
    /// As [`Vm::check`] for the first bad operation, or [`VmError::Unusable`].
    pub fn prepare<P: AsRef<[Op<O>]>>(&mut self, ops: P) -> Result<Job<O, P>, VmError> {
        let mut bos: Vec<VmBo<O>> = Vec::new();
        for op in ops.as_ref() {
            self.check(op.range)?;
            let Some(target) = op.kind.target() else { continue };
            self.check_usable()?;
            if let Some(object) = target.object()
                && bos.last().is_none_or(|last| last.object() != object)
            {
                bos.push(self.bos.obtain_handle(object));
            }
        }
        let claim = Claim::new(&self.pending, ops.as_ref().len() as u64, 0);
        self.reserve();
        Ok(Job { ops, _bos: bos, claim })
    }

    /// Begins to do a job. From here to the end of the job nothing is allocated.
    ///
    /// # Errors
    /// [`VmError::OtherVm`] for a job that another VM has prepared.
    pub fn begin<P: AsRef<[Op<O>]>>(&mut self, job: Job<O, P>) -> Result<Running<'_, O, D, P>, VmError> {
        if !Arc::ptr_eq(&self.pending, &job.claim.pending) {
            return Err(VmError::OtherVm);
        }
        Ok(Running { vm: self, job, done: 0 })
    }

    /// Does a job at once, all of it, and gives the operations back.
    ///
    /// # Errors
    /// As [`Vm::begin`] and [`NextOp::complete`].
    pub fn commit<P: AsRef<[Op<O>]>>(&mut self, job: Job<O, P>) -> Result<P, VmError> {
        self.commit_first(job, usize::MAX)
    }

    /// Does exactly the first `count` operations of a job, those that the kernel has accepted, and gives all back.
    ///
    /// # Errors
    /// As [`Vm::begin`] and [`NextOp::complete`].
    pub fn commit_first<P: AsRef<[Op<O>]>>(&mut self, job: Job<O, P>, count: usize) -> Result<P, VmError> {
        let mut running = self.begin(job)?;
        while running.done < count
            && let Some(next) = running.next()
        {
            next.complete(|_| {})?;
        }
        Ok(running.finish())
    }
}

impl<O: Copy + Eq + Hash, D: Driver<Mode = Immediate>, P: AsRef<[Op<O>]>> Running<'_, O, D, P> {
    /// The next operation, if one is left. The same again, if the one before was dropped.
    #[expect(clippy::should_implement_trait, reason = "an operation borrows the job")]
    pub fn next(&mut self) -> Option<NextOp<'_, O, D>> {
        let op = *self.job.ops().get(self.done)?;
        Some(NextOp { vm: self.vm, op, done: &mut self.done })
    }

    /// Number of operations that are done.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Ends the job where it is, and gives the operations back. The references to its objects go; where one was the
    /// last, the object becomes a zombie.
    pub fn finish(self) -> P {
        self.job.ops
    }
}

impl<O: Copy + Eq + Hash, D: Driver<Mode = Immediate>> NextOp<'_, O, D> {
    /// The operation.
    pub fn op(&self) -> &Op<O> {
        &self.op
    }

    /// The VM as it is before the operation.
    pub fn vm(&self) -> &Vm<O, D> {
        self.vm
    }

    /// The operation has been done: the VM follows, and gives the steps in which it does.
    ///
    /// # Errors
    /// [`VmError::Unusable`] for a map, if that has happened to the VM meanwhile. The operation is not done then.
    pub fn complete(self, step: impl FnMut(Step<O>)) -> Result<(), VmError> {
        let target = self.op.kind.target();
        if target.is_some() {
            self.vm.check_usable()?;
        }
        self.vm.request(self.op.range, target, step);
        *self.done += 1;
        Ok(())
    }

    /// The operation has failed on its way, so that nobody knows what the GPU sees: the VM becomes unusable.
    pub fn fail(self, reason: &str) {
        self.vm.mark_unusable(reason);
    }
}

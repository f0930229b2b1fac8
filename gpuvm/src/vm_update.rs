//! Changes of a VM in staged mode.

use core::hash::Hash;

use crate::vm_ops::Ops;
use crate::{Driver, Exec, Mapping, Op, OpKind, Staged, Step, Target, VaRange, Vm, VmBo, VmError};

/// A VM in staged mode with its reservation locked: [`Vm::update`]. Each change needs the reservations of the objects
/// that it touches too; see [`Vm::lock_ops`].
///
/// ```
/// # use gpuvm::{Contended, Exec, Op, OpKind, VaRange, Vm};
/// # fn submit(ops: &[Op<u32>]) -> usize { ops.len() - 1 }
/// let mut vm = Vm::staged(VaRange::new(0, 1 << 40)?, None)?;
/// let map = |start| Ok(Op { range: VaRange::new(start, 0x1000)?, kind: OpKind::Map { object: 7, offset: 0 } });
/// let ops = [map(0x1000)?, map(0x4000)?];
/// let (exec, ()) = Exec::until_all_locked::<_, Contended>(|locking| vm.lock_ops(locking, &ops)).unwrap();
/// let prepared = vm.update(&exec)?.prepare(ops)?;
/// // From here on nothing can be refused but by the kernel.
/// let queued = submit(prepared.ops());
/// prepared.commit_first(queued);
/// assert_eq!(vm.len(), 1);
/// # Ok::<(), gpuvm::VmError>(())
/// ```
pub struct Update<'vm, O, D: Driver = Staged> {
    vm: &'vm mut Vm<O, D>,
    exec: &'vm Exec,
}

impl<O: Copy + Eq + Hash, D: Driver<Mode = Staged>> Vm<O, D> {
    /// Begins to change the VM.
    ///
    /// # Errors
    /// [`VmError::NotLocked`] where the VM's reservation is not locked.
    pub fn update<'vm>(&'vm mut self, exec: &'vm Exec) -> Result<Update<'vm, O, D>, VmError> {
        if exec.held(self.reservation()).is_none() {
            return Err(VmError::NotLocked);
        }
        Ok(Update { vm: self, exec })
    }
}

impl<'vm, O: Copy + Eq + Hash, D: Driver<Mode = Staged>> Update<'vm, O, D> {
    /// The VM as it is now.
    pub fn vm(&self) -> &Vm<O, D> {
        self.vm
    }

    fn check(&self, ops: &[Op<O>]) -> Result<(), VmError> {
        for op in ops {
            self.vm.check(op.range)?;
            if op.kind != OpKind::Unmap {
                self.vm.check_usable()?;
            }
        }
        self.vm.check_locked(self.exec, ops)
    }

    fn check_map(&self, range: VaRange, target: Target<O>) -> Result<(), VmError> {
        self.check(&[Op { range, kind: target.into() }])
    }

    fn check_unmap(&self, range: VaRange) -> Result<(), VmError> {
        self.check(&[Op { range, kind: OpKind::Unmap }])
    }

    /// Maps `target` at `range` and gives the steps in which that is done: `drm_gpuvm_sm_map()`; otherwise as
    /// [`Vm::sm_map`](Vm::sm_map) of a VM in immediate mode.
    ///
    /// # Errors
    /// As [`Vm::check`], [`VmError::Unusable`] or [`VmError::NotLocked`], before any step.
    pub fn sm_map(
        &mut self,
        range: VaRange,
        target: Target<O>,
        step: &mut impl FnMut(Step<O>),
    ) -> Result<(), VmError> {
        self.check_map(range, target)?;
        self.vm.request(range, Some(target), step);
        self.vm.settle();
        Ok(())
    }

    /// Unmaps `range` and gives the steps in which that is done: `drm_gpuvm_sm_unmap()`.
    ///
    /// # Errors
    /// As [`Vm::check`] or [`VmError::NotLocked`], before any step.
    pub fn sm_unmap(&mut self, range: VaRange, step: &mut impl FnMut(Step<O>)) -> Result<(), VmError> {
        self.check_unmap(range)?;
        self.vm.request(range, None, step);
        self.vm.settle();
        Ok(())
    }

    /// Checks operations for a submission that is still to be tried, `vm_bind_job_lock_objects()` of msm; what they
    /// touch is locked. `P` holds the operations: a [`Plan`](crate::Plan), a `Vec`, a slice.
    ///
    /// # Errors
    /// As [`Update::sm_map`] for the first bad one.
    pub fn prepare<P: AsRef<[Op<O>]>>(self, ops: P) -> Result<Prepared<'vm, O, D, P>, VmError> {
        self.check(ops.as_ref())?;
        Ok(Prepared { vm: self.vm, ops })
    }

    /// The steps of [`Update::sm_map`], without doing them: `drm_gpuvm_sm_map_ops_create()`.
    ///
    /// # Errors
    /// As [`Update::sm_map`].
    pub fn map_ops(&mut self, range: VaRange, target: Target<O>) -> Result<Ops<'_, O, D>, VmError> {
        self.check_map(range, target)?;
        self.vm.list_map(range, target)
    }

    /// The steps of [`Update::sm_unmap`], without doing them: `drm_gpuvm_sm_unmap_ops_create()`.
    ///
    /// # Errors
    /// As [`Update::sm_unmap`].
    pub fn unmap_ops(&mut self, range: VaRange) -> Result<Ops<'_, O, D>, VmError> {
        self.check_unmap(range)?;
        self.vm.list_unmap(range)
    }

    /// A [`Step::Unmap`] for each mapping of an object: `drm_gpuvm_bo_unmap_ops_create()`. None for an object that the
    /// VM does not know.
    ///
    /// # Errors
    /// [`VmError::NotLocked`].
    pub fn object_unmap_ops(&mut self, object: O) -> Result<Ops<'_, O, D>, VmError> {
        if let Some(index) = self.vm.bos.find(object) {
            self.vm.check_held(self.exec, index)?;
        }
        Ok(self.vm.list_object(object))
    }

    /// Adds a mapping where there is none: `drm_gpuva_insert()` and `drm_gpuva_link()`.
    ///
    /// # Errors
    /// As [`Update::sm_map`], and [`VmError::Occupied`].
    pub fn insert(&mut self, mapping: Mapping<O>) -> Result<(), VmError> {
        self.check_map(mapping.range, mapping.target)?;
        self.vm.insert_checked(mapping)?;
        self.vm.settle();
        Ok(())
    }

    /// Takes the mapping away that starts at `start`, if there is one: `drm_gpuva_remove()` and `drm_gpuva_unlink()`.
    ///
    /// # Errors
    /// [`VmError::NotLocked`].
    pub fn remove(&mut self, start: u64) -> Result<Option<Mapping<O>>, VmError> {
        if let Some(mapping) = self.vm.find(start) {
            self.check_unmap(mapping.range)?;
        }
        Ok(self.vm.remove_at(start))
    }
}

/// Operations that nothing but the kernel can refuse any more, over a VM that cannot change meanwhile:
/// [`Update::prepare`]. They are tried on the kernel; then this is consumed to do all of them, or as many as the
/// kernel has taken. Dropped, nothing has changed.
#[must_use = "operations that are dropped are not done"]
pub struct Prepared<'vm, O, D: Driver, P> {
    vm: &'vm mut Vm<O, D>,
    ops: P,
}

impl<O: Copy + Eq + Hash, D: Driver<Mode = Staged>, P: AsRef<[Op<O>]>> Prepared<'_, O, D, P> {
    /// The operations.
    pub fn ops(&self) -> &[Op<O>] {
        self.ops.as_ref()
    }

    /// The VM before the operations.
    pub fn vm(&self) -> &Vm<O, D> {
        self.vm
    }

    /// As [`Vm::find_bo`]: for an object of which the operations may take the last mapping.
    pub fn find_bo(&mut self, object: O) -> Option<VmBo<O>> {
        self.vm.find_bo(object)
    }

    /// Does all operations, and gives them back: `vm_bind_job_prepare()` of msm.
    pub fn commit(self) -> P {
        self.commit_steps(usize::MAX, &mut |_| {})
    }

    /// Does exactly the first `count` operations, those that the kernel has taken, and gives all back.
    pub fn commit_first(self, count: usize) -> P {
        self.commit_steps(count, &mut |_| {})
    }

    /// As [`Prepared::commit_first`], with the steps in which they are done.
    pub fn commit_steps(self, count: usize, step: &mut impl FnMut(Step<O>)) -> P {
        for op in self.ops.as_ref().iter().take(count) {
            self.vm.request(op.range, op.kind.target(), &mut *step);
        }
        self.vm.settle();
        self.ops
    }
}

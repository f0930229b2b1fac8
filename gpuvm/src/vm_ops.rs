//! Operation lists, and single mappings.

use core::hash::Hash;

use crate::split::walk;
use crate::{Driver, Immediate, Mapping, Step, Target, Unmapped, VaRange, Vm, VmError};

/// The steps of a request that has not been done, to be walked as often as needed: the kernel's `drm_gpuva_ops`. The VM
/// cannot change meanwhile. The list is consumed to do it; dropped it is abandoned.
#[must_use = "the request is not done yet"]
pub struct Ops<'vm, O, D: Driver = Immediate> {
    vm: &'vm mut Vm<O, D>,
    steps: Vec<Step<O>>,
    request: Request<O>,
}

/// What gives the steps of a list.
enum Request<O> {
    /// A request for a range; without a target it is to be unmapped.
    Range(VaRange, Option<Target<O>>),
    /// All mappings of an object are to be unmapped.
    Object,
}

impl<O: Copy + Eq + Hash, D: Driver> Ops<'_, O, D> {
    /// The steps, in the order in which they are to be processed.
    pub fn steps(&self) -> &[Step<O>] {
        &self.steps
    }

    /// The VM before the steps.
    pub fn vm(&self) -> &Vm<O, D> {
        self.vm
    }

    /// Does the steps and gives them, to be walked again later: `drm_gpuva_map()`, `drm_gpuva_remap()` and
    /// `drm_gpuva_unmap()`.
    pub fn commit(self) -> Vec<Step<O>> {
        match self.request {
            Request::Range(range, target) => self.vm.request(range, target, |_| {}),
            Request::Object => {
                for step in &self.steps {
                    if let Step::Unmap(Unmapped { mapping, .. }) = step {
                        self.vm.request(mapping.range, None, |_| {});
                    }
                }
            }
        }
        self.vm.settle();
        self.steps
    }
}

impl<O: Copy + Eq + Hash, D: Driver> Vm<O, D> {
    fn list(&mut self, range: VaRange, target: Option<Target<O>>) -> Ops<'_, O, D> {
        let mut steps = Vec::new();
        walk(self.tree(), self.tree.seek(range.start), range, target, &mut |step| steps.push(step));
        Ops { vm: self, steps, request: Request::Range(range, target) }
    }

    pub(crate) fn list_map(&mut self, range: VaRange, target: Target<O>) -> Result<Ops<'_, O, D>, VmError> {
        self.check(range)?;
        self.check_usable()?;
        Ok(self.list(range, Some(target)))
    }

    pub(crate) fn list_unmap(&mut self, range: VaRange) -> Result<Ops<'_, O, D>, VmError> {
        self.check(range)?;
        Ok(self.list(range, None))
    }

    pub(crate) fn list_object(&mut self, object: O) -> Ops<'_, O, D> {
        let unmap = |mapping| Step::Unmap(Unmapped { mapping, keep: false });
        let steps = self.bo(object).map_or_else(Vec::new, |bo| bo.mappings().map(unmap).collect());
        Ops { vm: self, steps, request: Request::Object }
    }

    /// The mappings to fetch before `range` is used, all of which a part is in it: `drm_gpuvm_prefetch_ops_create()`.
    ///
    /// # Errors
    /// As [`Vm::check`].
    pub fn prefetch_ops(&self, range: VaRange) -> Result<Vec<Mapping<O>>, VmError> {
        self.check(range)?;
        Ok(self.iter_range(range).collect())
    }

    pub(crate) fn insert_checked(&mut self, mapping: Mapping<O>) -> Result<(), VmError> {
        let range = mapping.range;
        self.check(range)?;
        self.check_usable()?;
        if let Some(other) = self.iter_range(range).next() {
            return Err(VmError::Occupied { range, mapped: other.range });
        }
        self.request(range, Some(mapping.target), |_| {});
        Ok(())
    }

    pub(crate) fn remove_at(&mut self, start: u64) -> Option<Mapping<O>> {
        let (key, body) = self.tree.get(self.tree.floor(start))?;
        if key != start {
            return None;
        }
        let mapping = body.at(key, self.bos.objects());
        self.request(mapping.range, None, |_| {});
        self.settle();
        Some(mapping)
    }
}

impl<O: Copy + Eq + Hash, D: Driver<Mode = Immediate>> Vm<O, D> {
    /// The steps of [`Vm::sm_map`], without doing them: `drm_gpuvm_sm_map_ops_create()`.
    ///
    /// # Errors
    /// As [`Vm::sm_map`].
    pub fn map_ops(&mut self, range: VaRange, target: Target<O>) -> Result<Ops<'_, O, D>, VmError> {
        self.list_map(range, target)
    }

    /// The steps of [`Vm::sm_unmap`], without doing them: `drm_gpuvm_sm_unmap_ops_create()`.
    ///
    /// # Errors
    /// As [`Vm::check`].
    pub fn unmap_ops(&mut self, range: VaRange) -> Result<Ops<'_, O, D>, VmError> {
        self.list_unmap(range)
    }

    /// A [`Step::Unmap`] for each mapping of an object: `drm_gpuvm_bo_unmap_ops_create()`. None for an object that the
    /// VM does not know.
    pub fn object_unmap_ops(&mut self, object: O) -> Ops<'_, O, D> {
        self.list_object(object)
    }

    /// Adds a mapping where there is none: `drm_gpuva_insert()` and `drm_gpuva_link()`.
    ///
    /// # Errors
    /// As [`Vm::sm_map`], and [`VmError::Occupied`].
    pub fn insert(&mut self, mapping: Mapping<O>) -> Result<(), VmError> {
        self.insert_checked(mapping)?;
        self.settle();
        Ok(())
    }

    /// Takes the mapping away that starts at `start`, if there is one: `drm_gpuva_remove()` and
    /// `drm_gpuva_unlink_defer()`.
    pub fn remove(&mut self, start: u64) -> Option<Mapping<O>> {
        self.remove_at(start)
    }
}

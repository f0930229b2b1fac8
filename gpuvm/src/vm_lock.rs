//! Objects in a VM: their lists and their reservations.

use core::hash::Hash;

use crate::vm_bo::{NONE, VmBo, VmBoAlloc};
use crate::{
    Contended, Driver, Exec, Fence, Locking, Mapping, Op, OpKind, Reservation, Usage, VaRange, Vm, VmError,
};

/// What a VM knows of an object: [`Vm::bo`].
pub struct Bo<'vm, O, D: Driver> {
    vm: &'vm Vm<O, D>,
    index: u32,
}

impl<'vm, O: Copy + Eq, D: Driver> Bo<'vm, O, D> {
    /// The object.
    pub fn object(&self) -> O {
        self.vm.bos.object(self.index)
    }

    /// The mappings of the object, in no order, in time O(log n) for each of them whatever else is mapped:
    /// `drm_gpuvm_bo_for_each_va()`.
    pub fn mappings(&self) -> impl Iterator<Item = Mapping<O>> + use<'vm, O, D> {
        let vm = self.vm;
        let mut link = vm.bos.slot(self.index).first;
        core::iter::from_fn(move || {
            if link == NONE {
                return None;
            }
            let start = vm.links.start(link);
            link = vm.links.next(link);
            let (key, body) = vm.tree.get(vm.tree.floor(start)).expect("a link leads to its mapping");
            debug_assert_eq!(key, start);
            Some(body.at(start, vm.bos.objects()))
        })
    }

    /// Number of references: one of each mapping, one of each [`VmBo`].
    pub fn references(&self) -> usize {
        self.vm.bos.references(self.index)
    }

    /// The driver's data.
    pub fn data(&self) -> &'vm D::BoData {
        &self.vm.bos.slot(self.index).data
    }

    /// The reservation that protects the object.
    pub fn reservation(&self) -> &'vm Reservation {
        self.vm.reservation_of(self.index)
    }

    /// Whether its reservation is not that of the VM: `drm_gpuvm_is_extobj()`.
    pub fn is_external(&self) -> bool {
        self.vm.bos.slot(self.index).reservation.is_some()
    }

    /// Whether it is on the list of evicted objects.
    pub fn is_evicted(&self) -> bool {
        self.vm.bos.is_evicted(self.index)
    }
}

impl<O: Copy + Eq, D: Driver> Vm<O, D> {
    fn reservation_of(&self, index: u32) -> &Reservation {
        self.bos.slot(index).reservation.as_ref().unwrap_or(self.reservation())
    }

    /// The objects that have another reservation than the VM's: its `extobj` list.
    pub fn external(&self) -> impl Iterator<Item = Bo<'_, O, D>> {
        self.bos.external().map(|index| Bo { vm: self, index })
    }

    /// The objects that are evicted: its `evict` list.
    pub fn evicted(&self) -> impl Iterator<Item = Bo<'_, O, D>> {
        self.bos.evicted().map(|index| Bo { vm: self, index })
    }

    /// Locks the VM's reservation and that of every external object, in [`Exec::until_all_locked`]:
    /// `drm_gpuvm_prepare_vm()` and `drm_gpuvm_prepare_objects()`.
    ///
    /// # Errors
    /// [`Contended`]: everything has to be locked again.
    pub fn lock_all(&self, locking: &mut Locking) -> Result<(), Contended> {
        locking.lock(self.reservation())?;
        self.external().try_for_each(|bo| locking.lock(bo.reservation()))
    }

    /// Attaches a fence to every reservation that is locked: `drm_gpuvm_resv_add_fence()`.
    pub fn attach(&self, exec: &Exec, fence: &Fence, private: Usage, external: Usage) {
        for held in exec.iter() {
            let usage = if held.reservation() == self.reservation() { private } else { external };
            held.attach(fence, usage);
        }
    }
}

impl<O: Copy + Eq + Hash, D: Driver> Vm<O, D> {
    /// A reference to the `vm_bo` of an object, made where there is none: `drm_gpuvm_bo_obtain_locked()`.
    pub fn obtain(&mut self, object: O) -> VmBo<O> {
        self.bos.obtain_handle(object)
    }

    /// The same without an allocation; the memory comes from [`Vm::prealloc`] and is dropped where there is one
    /// already: `drm_gpuvm_bo_obtain_prealloc()`.
    ///
    /// # Errors
    /// [`VmError::OtherVm`] for the memory of another VM.
    pub fn obtain_prealloc(&mut self, alloc: VmBoAlloc<O, D::BoData>) -> Result<VmBo<O>, VmError> {
        if self.bos.owns(&alloc) { Ok(self.bos.obtain_prealloc(alloc)) } else { Err(VmError::OtherVm) }
    }

    /// A reference to the `vm_bo` of an object, if there is one: `drm_gpuvm_bo_find()`. Zombies are not found.
    pub fn find_bo(&mut self, object: O) -> Option<VmBo<O>> {
        self.bos.find_handle(object)
    }

    /// What the VM knows of an object, if it has a `vm_bo`.
    pub fn bo(&self, object: O) -> Option<Bo<'_, O, D>> {
        self.bos.find(object).map(|index| Bo { vm: self, index })
    }

    /// The driver's data of an object, if it has a `vm_bo`.
    pub fn bo_data_mut(&mut self, object: O) -> Option<&mut D::BoData> {
        let index = self.bos.find(object)?;
        Some(&mut self.bos.slot_mut(index).data)
    }

    /// Says which reservation protects an object. With another one than the VM's it is external and goes on that
    /// list: `drm_gpuvm_bo_extobj_add()`. Until this is called an object is private. To be called as long as nothing
    /// of the object is mapped, or with both reservations locked.
    ///
    /// # Errors
    /// [`VmError::UnknownObject`].
    pub fn set_reservation(&mut self, object: O, reservation: &Reservation) -> Result<(), VmError> {
        let index = self.index_of(object)?;
        let external = reservation != self.reservation();
        self.bos.slot_mut(index).reservation = external.then(|| reservation.clone());
        self.bos.set_external(index, external);
        Ok(())
    }

    /// Puts an object on the list of evicted ones, or takes it off: `drm_gpuvm_bo_evict()`. The object's reservation
    /// is locked.
    ///
    /// # Errors
    /// [`VmError::UnknownObject`], [`VmError::NotLocked`].
    pub fn evict(&mut self, exec: &Exec, object: O, evicted: bool) -> Result<(), VmError> {
        let index = self.index_of(object)?;
        self.check_held(exec, index)?;
        self.bos.set_evicted(index, evicted);
        Ok(())
    }

    /// Shows every evicted object to `validate`, which makes it usable again or prepares what takes its place, and says
    /// whether it is usable: such a one leaves the list. `drm_gpuvm_validate()`, where `vm_bo_validate()` says so with
    /// `drm_gpuvm_bo_evict()`. The reservations of all objects are locked, see [`Vm::lock_all`].
    ///
    /// # Errors
    /// The first one of `validate`, and [`VmError::NotLocked`]. The objects from there on stay evicted.
    pub fn validate<E: From<VmError>>(
        &mut self,
        exec: &Exec,
        mut validate: impl FnMut(Bo<'_, O, D>) -> Result<bool, E>,
    ) -> Result<(), E> {
        let evicted: Vec<u32> = self.bos.evicted().collect();
        for index in evicted {
            self.check_held(exec, index)?;
            let is_usable = validate(Bo { vm: self, index })?;
            self.bos.set_evicted(index, !is_usable);
        }
        Ok(())
    }

    /// Locks the VM's reservation and those of the objects that are mapped in `range`, in
    /// [`Exec::until_all_locked`]: `drm_gpuvm_prepare_vm()` and `drm_gpuvm_prepare_range()`.
    ///
    /// # Errors
    /// As [`Vm::lock_all`].
    pub fn lock_range(&self, locking: &mut Locking, range: VaRange) -> Result<(), Contended> {
        self.lock_ops(locking, &[Op { range, kind: OpKind::Unmap }])
    }

    /// Locks the reservations of everything that operations touch, in [`Exec::until_all_locked`]: those of the
    /// objects that are mapped in their ranges and of those that they map. `drm_gpuvm_sm_map_exec_lock()` and
    /// `drm_gpuvm_sm_unmap_exec_lock()`. As there, that an earlier operation changes what a later one meets makes no
    /// difference: it meets objects that were locked for the earlier one.
    ///
    /// # Errors
    /// As [`Vm::lock_all`].
    pub fn lock_ops(&self, locking: &mut Locking, ops: &[Op<O>]) -> Result<(), Contended> {
        locking.lock(self.reservation())?;
        self.each_external(ops, |resv| locking.lock(resv))
    }

    /// Calls `visit` for the reservations of the external objects that operations touch, until it fails; not again for
    /// the same object in a row.
    fn each_external<E>(
        &self,
        ops: &[Op<O>],
        mut visit: impl FnMut(&Reservation) -> Result<(), E>,
    ) -> Result<(), E> {
        // Most VMs have none, and then there is nothing to look for.
        if !self.bos.has_external() {
            return Ok(());
        }
        let mut cursor = self.tree.first();
        let (mut met, mut mapped) = (NONE, None);
        for Op { range, kind } in ops {
            if let Some(object) = kind.object()
                && mapped.replace(object) != Some(object)
                && let Some(index) = self.bos.find(object)
                && let Some(resv) = self.bos.external_reservation(index)
            {
                visit(resv)?;
            }
            let mut result = Ok(());
            cursor = self.tree.floor_near(cursor, range.start);
            self.tree.scan(cursor, |_, start, body| {
                if start < range.end()
                    && body.end > range.start
                    && core::mem::replace(&mut met, body.bo) != body.bo
                    && let Some(resv) = self.bos.external_reservation(body.bo)
                {
                    result = visit(resv);
                }
                start < range.end() && result.is_ok()
            });
            result?;
        }
        Ok(())
    }

    fn index_of(&self, object: O) -> Result<u32, VmError> {
        self.bos.find(object).ok_or(VmError::UnknownObject)
    }

    pub(crate) fn check_held(&self, exec: &Exec, index: u32) -> Result<(), VmError> {
        exec.held(self.reservation_of(index)).map(|_| ()).ok_or(VmError::NotLocked)
    }

    /// Whether the reservations of all that operations touch are locked; that of the VM is.
    pub(crate) fn check_locked(&self, exec: &Exec, ops: &[Op<O>]) -> Result<(), VmError> {
        self.each_external(ops, |resv| exec.held(resv).map(drop).ok_or(VmError::NotLocked))
    }
}

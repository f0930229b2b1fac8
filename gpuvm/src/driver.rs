//! What the user of a VM decides when the VM is made.

use core::fmt;

/// The locking scheme of a [`Vm`](crate::Vm): [`Immediate`] or [`Staged`].
pub trait Mode: sealed::Sealed {
    /// Whether a `vm_bo` whose last reference goes is freed by
    /// [`Vm::deferred_cleanup`](crate::Vm::deferred_cleanup) only.
    const DEFERS: bool;
}

/// Immediate mode, the kernel's `DRM_GPUVM_IMMEDIATE_MODE` (panthor, Tyr, Nova): the VM changes when the GPU's page
/// tables do, in the fence-signalling critical path, where nothing may be allocated and no reservation locked. The
/// lists of the objects' mappings are under the VM's own lock, which in Rust is the `&mut` that every change takes;
/// that is the part of the kernel's `gpuva.lock`. What dies is freed later.
///
/// It is also the [`Driver`] of a VM in immediate mode without data of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Immediate;

/// Staged mode (msm, nouveau): the VM changes when a request is submitted and runs ahead of the page tables. The
/// reservations of all objects that a request touches have to be locked, see [`Vm::update`](crate::Vm::update). What
/// dies is freed at once.
///
/// It is also the [`Driver`] of a VM in staged mode without data of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Staged;

impl Mode for Immediate {
    const DEFERS: bool = true;
}

impl Mode for Staged {
    const DEFERS: bool = false;
}

/// What a driver adds to a VM: the types that embed `drm_gpuvm_bo` and `drm_gpuva` in C, `DriverGpuVm` in the kernel's
/// Rust.
pub trait Driver {
    /// The locking scheme.
    type Mode: Mode;
    /// Data of each object in the VM. It is dropped with the `vm_bo`, never in the critical path of an immediate VM.
    type BoData: Default + fmt::Debug;
    /// Data of each mapping, that of a new one [`Default`].
    type VaData: Default + fmt::Debug;
    /// Whether the data of a mapping, and the mapping's reference to its object, outlive the mapping until the
    /// deferred clean-up. The mapping itself leaves the tree and the object's list at once all the same.
    const DEFER_MAPPINGS: bool = false;

    /// Data of what is left of a mapping that is cut, made of the mapping's own: the part of `sm_step_remap()` that
    /// every driver of the kernel does by itself. New by default. What is left below a request is the mapping as it
    /// was and keeps its data, unless [`Driver::DEFER_MAPPINGS`] has that go with the whole mapping, as the kernel's
    /// remap does.
    fn remapped(_data: &Self::VaData) -> Self::VaData {
        Self::VaData::default()
    }
}

impl Driver for Immediate {
    type Mode = Self;
    type BoData = ();
    type VaData = ();
}

impl Driver for Staged {
    type Mode = Self;
    type BoData = ();
    type VaData = ();
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Immediate {}
    impl Sealed for super::Staged {}
}

//! A GPU virtual address space manager in the image of the kernel's `drm_gpuvm` (Linux 7.3), and a planner that
//! turns wanted bindings into the fewest VM_BIND operations.
//!
//! * [`Vm`] is the mirror of one VM, `drm_gpuvm`: after the operations that the kernel accepted it holds exactly the
//!   [`Mapping`]s (`drm_gpuva`) that the kernel's own tree holds, split the same way. A request to map or unmap a
//!   range is done in [`Step`]s: unmap, remap, map. They come through a callback, [`Vm::sm_map`], or as a list that
//!   is committed or abandoned, [`Ops`]. What is refused is refused before the first step, with a [`VmError`].
//! * [`VmBo`], `drm_gpuvm_bo`, is a reference to the combination of a VM and an object. There is one such combination
//!   from the first mapping or reference of an object to the last; [`Bo`] shows what belongs to it: its mappings, its
//!   reservation, whether it is external or evicted, the driver's data.
//! * A [`Reservation`], `dma_resv`, is what a job locks and attaches [`Fence`]s to. The VM's private objects share the
//!   VM's, an external object has its own. [`Exec`], `drm_exec`, locks any number of them without a deadlock.
//! * A VM is made for one of two locking schemes, its [`Driver`]'s [`Mode`]. In [`Immediate`] mode the VM changes when
//!   the page tables do: [`Vm::prepare`] makes a [`Job`] with all memory that it can need, and nothing is allocated
//!   between [`Vm::begin`] and its end; a `vm_bo` that dies there waits in [`Zombies`] for [`Vm::deferred_cleanup`].
//!   In [`Staged`] mode the VM changes ahead of the page tables, through [`Vm::update`], which wants the reservations
//!   locked; operations that are still to be tried on the kernel are [`Prepared`] before.
//! * [`LogRing`] keeps the last updates, to be read while the VM runs.
//! * [`Planner`] takes wanted bindings in the order in which they were asked for, and gives a [`Plan`]: disjoint,
//!   sorted, joined [`Op`]s that turn what is mapped into what is wanted, at the least [`Cost`] that the [`Policy`] of
//!   the kernel's back end can see. A plan changes nothing: it is tried on the kernel, and then committed, in full or
//!   as far as the kernel came, or dropped.
//!
//! Underneath, `tree` is a B+ tree from addresses to mappings, `vm_bo` and `vm_bo_list` keep the objects and the list
//! of mappings of each, `split` finds the steps, `overlay`, `run`, `line` and `cover` are the planner's stages, `ww` is
//! the lock of a reservation. docs/gpuvm.md has the pictures.
//!
//! The crate knows no Vulkan, makes no system call and has no `unsafe`. All addresses, lengths and offsets are bytes.
//!
//! ```
//! use gpuvm::{OpKind, Planner, Policy, VaRange, Vm};
//!
//! let mut vm = Vm::<u32>::new(VaRange::new(0, 1 << 40)?, None)?;
//! let mut planner = Planner::new(Policy::default());
//! for page in [2, 0, 1] {
//!     let range = VaRange::new(0x10_0000 + page * 0x1000, 0x1000)?;
//!     planner.want(range, OpKind::Map { object: 7, offset: page * 0x1000 })?;
//! }
//! let plan = planner.plan(&vm);
//! assert_eq!(plan.ops().len(), 1);
//! for op in plan.ops() {
//!     vm.apply(op)?;
//! }
//! assert_eq!(vm.find(0x10_2fff).unwrap().range, VaRange::new(0x10_0000, 0x3000)?);
//! # Ok::<(), gpuvm::VmError>(())
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cover;
mod driver;
mod error;
mod exec;
mod fence;
mod line;
mod log;
mod mapping;
mod op;
mod overlay;
mod plan;
mod planner;
mod policy;
mod range;
mod resv;
mod run;
mod split;
mod sync;
mod tree;
mod vm;
mod vm_bo;
mod vm_bo_list;
mod vm_job;
mod vm_lock;
mod vm_ops;
mod vm_update;
mod ww;
mod zombies;

pub use driver::{Driver, Immediate, Mode, Staged};
pub use error::VmError;
pub use exec::{Contended, Exec, Held, Locking};
pub use fence::{Fence, FenceError, FenceSignal};
pub use log::{LogEntry, LogOp, LogReader, LogRing};
pub use mapping::{Mapping, Target};
pub use op::{Op, OpKind};
pub use plan::Plan;
pub use planner::Planner;
pub use policy::{Cost, Policy};
pub use range::VaRange;
pub use resv::{Reservation, Usage};
pub use split::{Step, Unmapped};
pub use vm::Vm;
pub use vm_bo::{VmBo, VmBoAlloc};
pub use vm_job::{Job, NextOp, Running};
pub use vm_lock::Bo;
pub use vm_ops::Ops;
pub use vm_update::{Prepared, Update};
pub use zombies::{TakenZombies, ZombieLink, Zombies};

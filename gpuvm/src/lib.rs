//! A GPU virtual address space manager in the image of the kernel's `drm_gpuvm` (Linux 7.3), and a planner that
//! turns wanted bindings into the fewest VM_BIND operations.
//!
//! * [`Vm`] is the mirror of one VM: after the operations that the kernel accepted it holds exactly the mappings that
//!   the kernel's own tree holds, split the same way. [`Vm::sm_map`] and [`Vm::sm_unmap`] say how a request is done,
//!   as [`Step`]s.
//! * [`Planner`] takes wanted bindings in the order in which they were asked for, and gives a [`Plan`]: disjoint,
//!   sorted, joined operations that turn what is mapped into what is wanted, and nothing else.
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
pub use vm_lock::{Bo, Update};
pub use vm_ops::Ops;
pub use zombies::{TakenZombies, ZombieLink, Zombies};

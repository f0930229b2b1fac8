//! Kernel drivers with VM_BIND: uapi structures, render nodes, buffer objects, syncobjs, bind queues.
//!
//! Everything speaks to a [`Node`], which is a render node of the running kernel or an emulated one. [`Vm`] is what a
//! driver's address space looks like to the layer.

pub mod bo;
pub mod gpuvas;
pub mod msm;
pub mod node;
pub mod panthor;
pub mod syncobj;
pub mod uapi;
pub mod vm;

#[cfg(test)]
mod fake;

pub use bo::{BorrowedObject, BufferObject, GemHandle};
pub use node::{DriverVersion, Node, RenderNode, Request, call};
pub use rustix::io::Errno;
pub use syncobj::{Syncobj, SyncobjHandle};
pub use vm::{BindOp, BindTarget, Cost, Limits, Refused, SyncPoint, Vm};

//! Kernel drivers with VM_BIND: uapi structures, render nodes, buffer objects, syncobjs, bind queues.

pub mod node;
pub mod uapi;

pub use node::{Node, Request, call};
pub use rustix::io::Errno;

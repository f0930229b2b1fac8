//! The panthor and msm kernel drivers emulated on CPU pages: a DRM node in process, as strict as the kernel's.
//!
//! Ioctls go through the same [`kmd::Node`] as with the real driver, and get the same checks in the same order, the same errors
//! and the same partial effects. VM_BIND really maps: the user range of a VM is the process's own address space, buffer objects
//! are memfds, and a MAP is an mmap at that address. There is no GPU behind it; a CPU driver's shaders read the result.
//!
//! * `drm` – the core that every driver shares: ioctl arguments, GEM and PRIME, fences and syncobjs.
//! * `mem` – backing memory, page tables, and the part of the process's address space that VM_BIND may touch.
//! * `vm` – an address space: a page table, the objects it holds, and the memory that shows it.
//! * `node`, `queue` – an open file, and the thread that runs what is queued; the same for every driver.
//! * `panthor`, `msm` – the drivers.

mod config;
mod drm;
mod mem;
mod msm;
mod node;
mod panthor;
mod queue;
mod vm;

pub use config::{Config, Counters, Faults, FaultsError, Unbound};
pub use drm::sync_file::sync_file_ioctl;
pub use drm::syncobj::SwFence;
pub use mem::host::ImportError;
pub use msm::Gpu;
pub use node::{Node, PageRun, VmUpdate};
pub use panthor::Mali;

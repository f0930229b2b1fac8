//! Memory: object backing, page tables, and the process's address space.

pub(crate) mod backing;
pub(crate) mod host;
pub(crate) mod pagetable;
pub(crate) mod procmap;
pub(crate) mod ranges;
pub(crate) mod space;

/// The smallest page, in bytes.
pub(crate) const PAGE: u64 = 4096;
/// The large page, in bytes.
pub(crate) const HUGE_PAGE: u64 = 2 << 20;
/// End of what this process can address (`TASK_SIZE`), with four-level page tables.
pub(crate) const TASK_SIZE: u64 = if cfg!(target_arch = "x86_64") { (1 << 47) - PAGE } else { 1 << 48 };

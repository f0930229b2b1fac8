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

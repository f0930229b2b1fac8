//! What a measuring process tells of its calls.

use serde::{Deserialize, Serialize};
use std::ops::{AddAssign, Div};

/// A measurement. Nanoseconds.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// In the calls.
    pub(crate) calls: u64,
    /// Of that, in the emulated node's ioctls.
    pub(crate) node: u64,
    /// From the first call to the completion of the last one's fence.
    pub(crate) done: u64,
}

impl AddAssign for Sample {
    fn add_assign(&mut self, more: Self) {
        self.calls += more.calls;
        self.node += more.node;
        self.done += more.done;
    }
}

impl Div<u32> for Sample {
    type Output = Self;

    fn div(self, by: u32) -> Self {
        let by = u64::from(by);
        Self { calls: self.calls / by, node: self.node / by, done: self.done / by }
    }
}

/// What the emulated node did in a measurement, and the least that would have led to the same page tables.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// In the calls: waiting for their end is not counted, here and in what ioctls do at once.
    pub(crate) ioctls: u64,
    /// VM_BIND ioctls and their operations.
    pub(crate) binds: u64,
    pub(crate) ops: u64,
    /// Jobs of bind queues.
    pub(crate) jobs: u64,
    /// Page-table pages that the kernel allocates before it knows whether it needs them.
    pub(crate) preallocated_pages: u64,
    /// Page-table entries written.
    pub(crate) entries_written: u64,
    /// TLB flushes.
    pub(crate) flushes: u64,
    /// Operations that the difference of the page tables before and after each call takes, and the ioctls for these.
    pub(crate) fewest_ops: u64,
    pub(crate) fewest_binds: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.ioctls += more.ioctls;
        self.binds += more.binds;
        self.ops += more.ops;
        self.jobs += more.jobs;
        self.preallocated_pages += more.preallocated_pages;
        self.entries_written += more.entries_written;
        self.flushes += more.flushes;
        self.fewest_ops += more.fewest_ops;
        self.fewest_binds += more.fewest_binds;
    }
}

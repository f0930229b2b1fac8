//! How an emulated device is set up, and what it counts.

use core::num::NonZeroU64;
use core::str::FromStr;
use core::sync::atomic::{AtomicU64, Ordering};

/// What the CPU finds at an address that the VM maps to nothing real (`MAP_SPARSE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unbound {
    /// Ordinary anonymous memory, as panthor's dummy object: reads are undefined (zero until written), writes matter to nobody.
    #[default]
    Zero,
    /// Inaccessible: an access faults, so a program that survives proves that every page it touched was bound.
    Trap,
}

/// Failures to inject. Each number is 1-based, counts over the whole device from when it is given, and strikes once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The n-th allocation fails with `ENOMEM`: object backing, VM, syncobj, preparation of a VM_BIND operation.
    pub alloc: Option<u64>,
    /// The n-th executed MAP or UNMAP fails with `ENOMEM` when it runs. On msm these are the steps through the page table that
    /// operations come to, and whichever fails makes the VM unusable.
    pub op: Option<u64>,
    /// The n-th ioctl fails with `ENOMEM` before it does anything.
    pub ioctl: Option<u64>,
    /// The n-th job of the GPU hangs when it runs, and is given up: its VM becomes unusable (msm with VM_BIND), or its group
    /// (panthor).
    pub job: Option<u64>,
}

/// A text that names no faults.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no fault: alloc:N, op:N, ioctl:N, job:N (N from 1), several with commas")]
pub struct FaultsError(String);

impl FromStr for Faults {
    type Err = FaultsError;

    /// Reads `alloc:N`, `op:N`, `ioctl:N` and `job:N`, with commas between. Nothing at all means no faults.
    fn from_str(text: &str) -> Result<Self, FaultsError> {
        let mut faults = Self::default();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let wrong = || FaultsError(item.to_owned());
            let (kind, number) = item.split_once(':').ok_or_else(wrong)?;
            let number = number.parse::<NonZeroU64>().map_err(|_| wrong())?.get();
            match kind {
                "alloc" => faults.alloc = Some(number),
                "op" => faults.op = Some(number),
                "ioctl" => faults.ioctl = Some(number),
                "job" => faults.job = Some(number),
                _ => return Err(wrong()),
            }
        }
        Ok(faults)
    }
}

/// How an emulated device behaves.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// What unbound pages are.
    pub unbound: Unbound,
    /// Failures to inject.
    pub faults: Faults,
    /// Whether VM_BIND changes the process's address space. `false`: page table only, as for a driver whose GPU addresses are not
    /// CPU addresses; and the negative control of a test.
    pub execute: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { unbound: Unbound::default(), faults: Faults::default(), execute: true }
    }
}

/// What a device has done so far, and what is alive in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Ioctls, refused ones included.
    pub ioctls: u64,
    /// VM_BIND ioctls.
    pub binds: u64,
    /// VM_BIND operations that were executed (MAP, UNMAP), failed ones included.
    pub ops: u64,
    /// Jobs that went through a bind queue.
    pub jobs: u64,
    /// Jobs of the GPU: submissions of msm, command streams and synchronisation points of panthor.
    pub submits: u64,
    /// Page-table pages that exist now, over all VMs.
    pub table_pages: u64,
    /// Page-table pages that the kernel would have preallocated for the operations so far.
    pub preallocated_pages: u64,
    /// VM_BIND ioctls that had to wait because too many preallocated pages were in flight (msm).
    pub throttled: u64,
    /// Page-table entries written so far, cleared ones included.
    pub entries_written: u64,
    /// TLB flushes so far: one an executed operation on panthor, one an unmapped mapping on msm.
    pub flushes: u64,
    /// Buffer objects that exist now.
    pub live_bos: u64,
    /// Calls that changed the process's mappings for the VMs (mmap, mremap, mprotect).
    pub map_calls: u64,
}

/// A counter that any thread may bump; nobody orders anything by it.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The running form of [`Counters`].
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) ioctls: Count,
    pub(crate) binds: Count,
    pub(crate) ops: Count,
    pub(crate) jobs: Count,
    pub(crate) submits: Count,
    pub(crate) table_pages: Count,
    pub(crate) preallocated_pages: Count,
    pub(crate) throttled: Count,
    pub(crate) entries_written: Count,
    pub(crate) flushes: Count,
    pub(crate) live_bos: Count,
    pub(crate) map_calls: Count,
}

impl Stats {
    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            ioctls: self.ioctls.get(),
            binds: self.binds.get(),
            ops: self.ops.get(),
            jobs: self.jobs.get(),
            submits: self.submits.get(),
            table_pages: self.table_pages.get(),
            preallocated_pages: self.preallocated_pages.get(),
            throttled: self.throttled.get(),
            entries_written: self.entries_written.get(),
            flushes: self.flushes.get(),
            live_bos: self.live_bos.get(),
            map_calls: self.map_calls.get(),
        }
    }
}

/// One kind of fault: counts its events down to the one that is to fail.
#[derive(Debug, Default)]
pub(crate) struct Injector {
    /// Zero: none is to fail.
    left: AtomicU64,
}

impl Injector {
    /// The n-th event from now on is to fail.
    pub(crate) fn set(&self, n: Option<u64>) {
        self.left.store(n.unwrap_or(0), Ordering::Relaxed);
    }

    /// Counts one event; `true` when it is the one that must fail.
    pub(crate) fn strikes(&self) -> bool {
        let count_down = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count_down) == Ok(1)
    }
}

/// Faults to inject, one counter a kind.
#[derive(Debug, Default)]
pub(crate) struct Injectors {
    pub(crate) alloc: Injector,
    pub(crate) op: Injector,
    pub(crate) ioctl: Injector,
    pub(crate) job: Injector,
}

impl Injectors {
    pub(crate) fn new(faults: &Faults) -> Self {
        let injectors = Self::default();
        injectors.set(faults);
        injectors
    }

    /// Counts anew, in place of what was asked for before.
    pub(crate) fn set(&self, faults: &Faults) {
        let Self { alloc, op, ioctl, job } = self;
        alloc.set(faults.alloc);
        op.set(faults.op);
        ioctl.set(faults.ioctl);
        job.set(faults.job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read() {
        assert_eq!("".parse(), Ok(Faults::default()));
        assert_eq!("op:3,ioctl:7".parse(), Ok(Faults { op: Some(3), ioctl: Some(7), ..Faults::default() }));
        for wrong in ["op", "op:0", "op:x", "map:1"] {
            let error = format!("alloc:1,{wrong}").parse::<Faults>().unwrap_err();
            assert_eq!(error, FaultsError(wrong.to_owned()));
        }
    }
}

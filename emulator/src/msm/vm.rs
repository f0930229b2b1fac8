//! The VM of an open file of msm: a tree that moves when a call is made, a page table that follows when the call's job runs.

use core::ops::Range;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::managed::Managed;
use super::tree::{Request, Tree};
use crate::config::Count;
use crate::drm::Device;
use crate::drm::gem::Object;
use crate::drm::resv::Resv;
use crate::mem::HUGE_PAGE;
use crate::node::VmUpdate;
use crate::queue::Work;
use crate::vm::{Action, AddressSpace, Operation, tables};

/// Calls block while more preallocated pages than this are in flight.
const THROTTLE: u64 = 1024;
/// Updates that are kept: the most that the kernel can be told to keep (`vm_log_shift`).
const LOG: usize = 1 << 8;

/// A bind operation after all checks. Bytes.
pub(super) struct BindOp {
    pub(super) va: u64,
    pub(super) len: u64,
    pub(super) request: Request,
}

/// The VM of an open file.
pub(super) struct Vm {
    pub(super) space: AddressSpace,
    /// The addresses that there are.
    pub(super) va: Range<u64>,
    /// The reservation of the objects that belong to this VM alone.
    pub(super) resv: Arc<Resv>,
    /// The addresses that the kernel has given to objects; nothing where user space has opted in to VM_BIND.
    pub(super) managed: Option<Mutex<Managed>>,
    /// Submissions that went wrong on the GPU.
    pub(super) faults: Count,
    /// Locked from the first change that a call makes until its job is queued, as the VM's reservation is.
    pub(super) tree: Mutex<Tree>,
    /// Locked by the job that changes the page table, which notes its steps here.
    mmu: Mutex<VecDeque<VmUpdate>>,
    unusable: AtomicBool,
    /// Preallocated pages of jobs that have not ended.
    in_flight: Mutex<u64>,
    room: Condvar,
}

impl Vm {
    pub(super) fn new(device: Arc<Device>, va: Range<u64>, user_managed: bool) -> Arc<Self> {
        Arc::new(Self {
            // With VM_BIND the kernel restricts itself to single pages, as a part of a block could not be unmapped.
            space: AddressSpace::new(device, !user_managed),
            resv: Arc::default(),
            managed: (!user_managed).then(|| Mutex::new(Managed::new(va.clone()))),
            faults: Count::default(),
            va,
            tree: Mutex::default(),
            mmu: Mutex::default(),
            unusable: AtomicBool::new(false),
            in_flight: Mutex::default(),
            room: Condvar::new(),
        })
    }

    pub(super) fn is_unusable(&self) -> bool {
        self.unusable.load(Ordering::Acquire)
    }

    /// Whether user space chooses the addresses.
    pub(super) fn is_user_managed(&self) -> bool {
        self.managed.is_none()
    }

    /// Sees that an object that a submission names is mapped. `EINVAL`: it is not, and user space chooses the addresses.
    pub(super) fn pin(&self, object: &Arc<Object>) -> Result<(), Errno> {
        match &self.managed {
            Some(managed) => managed.lock().pin(&self.space, object),
            None if self.tree.lock().maps(object) => Ok(()),
            None => Err(Errno::INVAL),
        }
    }

    /// A submission went wrong on the GPU: what user space has mapped cannot be trusted any more.
    pub(super) fn count_fault(&self) {
        self.faults.add(1);
        if self.is_user_managed() {
            self.give_up("a submission hung", Errno::TIMEDOUT);
        }
    }

    fn give_up(&self, why: &str, errno: Errno) {
        if !self.unusable.swap(true, Ordering::AcqRel) {
            tracing::warn!(%errno, "{why}: the VM is unusable");
        }
    }

    /// Waits until there is room for more preallocated pages, and takes it.
    pub(super) fn reserve(self: &Arc<Self>, pages: u64) -> Reserved {
        let mut in_flight = self.in_flight.lock();
        if *in_flight > THROTTLE {
            self.space.device().stats.throttled.add(1);
            self.room.wait_while(&mut in_flight, |in_flight| *in_flight > THROTTLE);
        }
        *in_flight += pages;
        Reserved { vm: self.clone(), pages }
    }

    /// Changes the tree by `ops`, and returns the steps that the page table will take. `ENOMEM` in the first operation changes
    /// nothing; in a later one nobody could tell what was changed, so the VM is given up.
    pub(super) fn stage(&self, tree: &mut Tree, ops: &[BindOp]) -> Result<Vec<Operation>, Errno> {
        let mut steps = Vec::with_capacity(ops.len());
        for (i, op) in ops.iter().enumerate() {
            if self.space.device().faults.alloc.strikes() {
                if i > 0 {
                    self.give_up("a call failed half way", Errno::NOMEM);
                }
                return Err(Errno::NOMEM);
            }
            tree.apply(op.va, op.len, &op.request, &mut steps);
        }
        Ok(steps)
    }

    /// The last updates of the page table.
    pub(super) fn log(&self) -> Vec<VmUpdate> {
        self.mmu.lock().iter().copied().collect()
    }

    /// Takes the steps. After the first failure nothing is mapped any more, but everything is still unmapped.
    fn run_job(&self, queue: u32, steps: &[Operation]) {
        let device = self.space.device();
        let mut failure = self.is_unusable().then_some(Errno::INVAL);
        let mut log = self.mmu.lock();
        let mut note = |step: &Operation, map| {
            if log.len() == LOG {
                log.pop_front();
            }
            log.push_back(VmUpdate { map, va: step.va, len: step.len, queue });
        };
        for step in steps {
            let mut failed = device.faults.op.strikes().then_some(Errno::NOMEM);
            if matches!(step.action, Action::Unmap) {
                note(step, false);
                device.stats.flushes.add(1);
                // The kernel cannot fail to unmap. This process can, when it has reached its limit of mappings.
                failed = failed.or(self.space.run(step, |_| true).err());
            } else if failure.is_none() && failed.is_none() {
                note(step, true);
                // The kernel maps over nothing, and takes back what it mapped before it came upon something. That happens
                // where two queues do what they do in another order than the calls were made in.
                failed = self.space.run(step, |table| table.is_free(step.va, step.len)).err();
            }
            failure = failure.or(failed);
        }
        drop(log);
        if let Some(errno) = failure {
            self.give_up("a queued bind failed", errno);
        }
    }
}

/// Preallocated pages in flight, until it is dropped.
pub(super) struct Reserved {
    vm: Arc<Vm>,
    pages: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        *self.vm.in_flight.lock() -= self.pages;
        self.vm.room.notify_all();
    }
}

/// A job: all operations of a call.
pub(super) struct BindWork {
    /// The bind queue's id.
    pub(super) queue: u32,
    pub(super) steps: Vec<Operation>,
    pub(super) reserved: Reserved,
}

impl Work for BindWork {
    fn run(self) {
        self.reserved.vm.run_job(self.queue, &self.steps);
    }
}

/// Page-table pages that the kernel preallocates for a call. Operations share them when each starts in the 2 MiB in which the
/// one before it ends; unmaps need none.
pub(super) fn preallocation(ops: &[BindOp]) -> u64 {
    let mut pages = 0;
    let mut run: Option<(u64, u64)> = None;
    for op in ops.iter().filter(|op| !matches!(op.request, Request::Unmap)) {
        let end = op.va + op.len;
        match &mut run {
            Some((_, last)) if *last / HUGE_PAGE == op.va / HUGE_PAGE => *last = end,
            run => {
                if let Some((start, end)) = run.replace((op.va, end)) {
                    pages += tables(start, end);
                }
            }
        }
    }
    pages + run.map_or(0, |(start, end)| tables(start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(ranges: &[(u64, u64)]) -> Vec<BindOp> {
        ranges.iter().map(|&(va, len)| BindOp { va, len, request: Request::MapNull }).collect()
    }

    #[test]
    fn sorted_operations_share_preallocated_pages() {
        const P: u64 = 4096;
        const H: u64 = HUGE_PAGE;
        assert_eq!(preallocation(&[]), 0);
        // A table of each level.
        assert_eq!(preallocation(&ops(&[(H, P)])), 3);
        assert_eq!(preallocation(&ops(&[(H, P), (H + 8 * P, P), (H + 2 * P, P)])), 3);
        // An operation that ends at a boundary shares with what starts there.
        assert_eq!(preallocation(&ops(&[(H, H), (2 * H, P)])), 4);
        assert_eq!(preallocation(&ops(&[(H, P), (2 * H, P)])), 6);
        assert_eq!(preallocation(&ops(&[(2 * H, P), (H, P), (2 * H, P)])), 9);
        assert_eq!(preallocation(&ops(&[(0, 1 << 30)])), 512 + 2);
        let unmap = BindOp { va: H, len: P, request: Request::Unmap };
        assert_eq!(preallocation(&[unmap]), 0);
    }
}

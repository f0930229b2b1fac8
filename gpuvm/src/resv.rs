//! What protects an object's bindings, and the fences that say who still uses it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::Fence;
use crate::sync::{self, Mutex};
use crate::ww::WwLock;

/// How what a fence stands for uses an object: `enum dma_resv_usage`. Who asks for one kind gets those before it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// Memory management, such as moving or clearing it. Everybody has to wait for it.
    Kernel,
    /// Implicitly synchronised writing.
    Write,
    /// Implicitly synchronised reading.
    Read,
    /// No implicit synchronisation: binds, explicitly synchronised work. Only who frees or moves waits for it.
    Bookkeep,
}

/// A lock and fences, in the image of the kernel's `dma_resv`. The clones are the same reservation.
///
/// All objects that are private to a VM share the VM's own; an external object has one of its own, which all VMs
/// that it is in share (`drm_gpuvm_is_extobj()`). [`Exec`](crate::Exec) takes the lock, and only a
/// [`Held`](crate::Held) adds fences. To read the fences, and to wait, takes no lock.
#[derive(Clone, Debug, Default)]
pub struct Reservation {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lock: WwLock,
    fences: Mutex<Vec<(Usage, Fence)>>,
}

impl Reservation {
    /// An unlocked reservation without fences.
    pub fn new() -> Self {
        Self::default()
    }

    /// The fences that are not signaled yet, of the kind `usage` and those before it (`dma_resv_get_fences()`).
    pub fn fences(&self, usage: Usage) -> Vec<Fence> {
        let fences = sync::lock(&self.inner.fences);
        fences
            .iter()
            .filter(|(kind, fence)| *kind <= usage && !fence.is_signaled())
            .map(|(_, fence)| fence.clone())
            .collect()
    }

    /// Whether there is nothing to wait for: `dma_resv_test_signaled()`.
    pub fn is_signaled(&self, usage: Usage) -> bool {
        let fences = sync::lock(&self.inner.fences);
        fences.iter().all(|(kind, fence)| *kind > usage || fence.is_signaled())
    }

    /// Waits for the fences that are there now, whatever comes of them.
    pub fn wait(&self, usage: Usage) {
        for fence in self.fences(usage) {
            // A failure belongs to the one who submitted the work.
            let _ = fence.wait();
        }
    }

    /// Adds `fence`, `dma_resv_add_fence()`; for a holder of the lock. Those that are signaled make place.
    pub(crate) fn add_fence(&self, fence: &Fence, usage: Usage) {
        let mut fences = sync::lock(&self.inner.fences);
        fences.retain(|(_, there)| !there.is_signaled());
        match fences.iter_mut().find(|(_, there)| there == fence) {
            Some((kind, _)) => *kind = usage.min(*kind),
            None => fences.push((usage, fence.clone())),
        }
    }

    pub(crate) fn lock(&self) -> &WwLock {
        &self.inner.lock
    }
}

/// The same reservation.
impl PartialEq for Reservation {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Reservation {}

impl Hash for Reservation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.inner).hash(state);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::FenceError;

    const USAGES: [Usage; 4] = [Usage::Kernel, Usage::Write, Usage::Read, Usage::Bookkeep];

    #[test]
    fn a_kind_has_those_before_it() {
        let resv = Reservation::new();
        let (signals, fences): (Vec<_>, Vec<_>) = USAGES.iter().map(|_| Fence::new()).unzip();
        // In any order.
        for kind in [2, 0, 3, 1] {
            resv.add_fence(&fences[kind], USAGES[kind]);
        }
        for (asked, usage) in USAGES.into_iter().enumerate() {
            let got = resv.fences(usage);
            assert_eq!(got.len(), asked + 1);
            assert!(fences[..=asked].iter().all(|fence| got.contains(fence)));
        }
        for (done, signal) in signals.into_iter().enumerate() {
            signal.signal();
            for (asked, usage) in USAGES.into_iter().enumerate() {
                assert_eq!(resv.is_signaled(usage), asked <= done);
            }
        }
        resv.wait(Usage::Bookkeep);
    }

    #[test]
    fn the_same_fence_is_there_once_with_its_strongest_kind() {
        let resv = Reservation::new();
        let (_signal, fence) = Fence::new();
        for (usage, kernel) in [(Usage::Read, 0), (Usage::Kernel, 1), (Usage::Bookkeep, 1)] {
            resv.add_fence(&fence, usage);
            assert_eq!(resv.fences(Usage::Kernel).len(), kernel);
            assert_eq!(resv.fences(Usage::Bookkeep).len(), 1);
        }
    }

    #[test]
    fn done_fences_make_place() {
        let resv = Reservation::new();
        for _ in 0..100 {
            let (signal, fence) = Fence::new();
            resv.add_fence(&fence, Usage::Write);
            signal.signal();
        }
        assert_eq!(sync::lock(&resv.inner.fences).len(), 1);
        assert_eq!(resv.fences(Usage::Bookkeep), []);
    }

    #[test]
    fn a_failed_fence_ends_the_wait() {
        let resv = Reservation::new();
        let (signal, fence) = Fence::new();
        resv.add_fence(&fence, Usage::Read);
        std::thread::scope(|scope| {
            scope.spawn(|| resv.wait(Usage::Read));
            drop(signal);
        });
        assert_eq!(fence.status(), Some(Err(FenceError::Canceled)));
    }
}

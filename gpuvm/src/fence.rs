//! Something that will be done.

use std::sync::Arc;

use crate::sync::{self, Condvar, Mutex};

/// Why what a fence stands for was not done. To wait for a failed fence is no failure: as in the kernel the wait is
/// over, and who wants to know asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// It was given up: the [`FenceSignal`] was dropped.
    #[error("the work was given up before it was done")]
    Canceled,
    /// It was tried and failed, `dma_fence_set_error()`.
    #[error("the work failed with error {errno}")]
    Failed {
        /// The positive error number of the operating system.
        errno: i32,
    },
}

/// A point in time that comes once, in the image of the kernel's `dma_fence`. The clones are the same fence.
///
/// The duty to signal lies with one [`FenceSignal`], which every way out consumes; the kernel can only ask drivers
/// not to signal twice, and not to forget.
///
/// ```
/// use gpuvm::{Fence, FenceError};
///
/// let (signal, fence) = Fence::new();
/// assert_eq!(fence.status(), None);
/// std::thread::spawn(move || signal.fail(5));
/// assert_eq!(fence.wait(), Err(FenceError::Failed { errno: 5 }));
/// ```
#[derive(Clone, Debug)]
pub struct Fence {
    inner: Arc<Inner>,
}

/// The duty to signal a [`Fence`].
#[must_use = "dropped, it cancels the fence"]
#[derive(Debug)]
pub struct FenceSignal {
    fence: Fence,
}

#[derive(Debug, Default)]
struct Inner {
    status: Mutex<Option<Result<(), FenceError>>>,
    signaled: Condvar,
}

impl Fence {
    /// A fence that is not signaled, and the duty to signal it: `dma_fence_init()`.
    pub fn new() -> (FenceSignal, Self) {
        let fence = Self { inner: Arc::default() };
        (FenceSignal { fence: fence.clone() }, fence)
    }

    /// How it ended, [`None`] where it has not yet: `dma_fence_get_status()`.
    pub fn status(&self) -> Option<Result<(), FenceError>> {
        *sync::lock(&self.inner.status)
    }

    /// Whether it was signaled, whatever came of it: `dma_fence_is_signaled()`.
    pub fn is_signaled(&self) -> bool {
        self.status().is_some()
    }

    /// Waits until it is signaled: `dma_fence_wait()`.
    ///
    /// # Errors
    /// The fence's own, after the wait.
    pub fn wait(&self) -> Result<(), FenceError> {
        let mut status = sync::lock(&self.inner.status);
        loop {
            match *status {
                Some(status) => return status,
                None => status = sync::wait(&self.inner.signaled, status),
            }
        }
    }
}

/// The same fence, not the same status.
impl PartialEq for Fence {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Fence {}

impl FenceSignal {
    /// It is done: `dma_fence_signal()`.
    pub fn signal(self) {
        self.settle(Ok(()));
    }

    /// It failed with the positive error number `errno`: `dma_fence_set_error()` and `dma_fence_signal()`.
    pub fn fail(self, errno: i32) {
        self.settle(Err(FenceError::Failed { errno }));
    }

    fn settle(&self, status: Result<(), FenceError>) {
        // The drop that follows `signal` and `fail` comes second.
        sync::lock(&self.fence.inner.status).get_or_insert(status);
        self.fence.inner.signaled.notify_all();
    }
}

impl Drop for FenceSignal {
    fn drop(&mut self) {
        self.settle(Err(FenceError::Canceled));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn is_signaled_once_and_keeps_its_status() {
        let (signal, fence) = Fence::new();
        let same = fence.clone();
        assert_eq!((fence.status(), same.is_signaled()), (None, false));
        signal.signal();
        assert_eq!(fence.status(), Some(Ok(())));
        assert_eq!(same.wait(), Ok(()));
    }

    #[test]
    fn says_what_went_wrong() {
        let (signal, fence) = Fence::new();
        signal.fail(12);
        assert_eq!(fence.wait(), Err(FenceError::Failed { errno: 12 }));
        let (signal, fence) = Fence::new();
        drop(signal);
        assert_eq!(fence.wait(), Err(FenceError::Canceled));
    }

    #[test]
    fn wakes_every_waiter() {
        let (signal, fence) = Fence::new();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..4)
                .map(|_| {
                    let fence = fence.clone();
                    scope.spawn(move || fence.wait())
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(5));
            signal.signal();
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), Ok(()));
            }
        });
    }
}

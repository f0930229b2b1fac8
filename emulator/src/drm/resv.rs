//! Reservation objects: what the GPU still does with memory, for those who have to wait for it.

use std::sync::Arc;

use parking_lot::Mutex;

use super::fence::Fence;

/// The fences of the work that uses an object, or all objects that belong to one VM.
#[derive(Default)]
pub(crate) struct Resv(Mutex<Vec<Use>>);

struct Use {
    fence: Arc<Fence>,
    write: bool,
}

impl Resv {
    /// Adds work that reads, or writes.
    pub(crate) fn add(&self, fence: Arc<Fence>, write: bool) {
        let mut uses = self.0.lock();
        // The same work with many objects of one VM.
        if uses.last().is_some_and(|last| Arc::ptr_eq(&last.fence, &fence) && last.write == write) {
            return;
        }
        uses.retain(|used| !used.fence.is_signaled());
        uses.push(Use { fence, write });
    }

    /// What somebody who wants to read, or to write, waits for: readers wait for writers, writers for all.
    pub(crate) fn fences(&self, write: bool) -> Vec<Arc<Fence>> {
        let uses = self.0.lock();
        uses.iter().filter(|used| used.write || write).map(|used| used.fence.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_wait_for_writers_and_writers_for_all() {
        let resv = Resv::default();
        let (read, write) = (Fence::new(), Fence::new());
        resv.add(read.clone(), false);
        resv.add(write.clone(), true);
        assert_eq!((resv.fences(false).len(), resv.fences(true).len()), (1, 2));
        assert!(Arc::ptr_eq(&resv.fences(false)[0], &write));
        resv.add(write.clone(), true);
        assert_eq!(resv.fences(true).len(), 2, "nothing is there twice");
        // What is over is forgotten.
        read.signal();
        resv.add(Fence::new(), false);
        assert_eq!(resv.fences(true).len(), 2);
    }
}

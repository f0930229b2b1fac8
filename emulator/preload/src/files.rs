//! Which descriptors of the process are open files of the node.
//!
//! A descriptor of the node is an eventfd: real, so that it can be polled, duplicated and inherited like any other. What it
//! stands for is in this table. Asking about a descriptor that is not the node's costs the look at one bit.

use core::ffi::c_int;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::Arc;

use parking_lot::RwLock;

/// Descriptors beyond cannot be the node's.
pub(crate) const LIMIT: c_int = 1 << 16;

/// A table from descriptors to `T`.
pub(crate) struct Table<T> {
    /// One bit a descriptor: whether the list has it.
    known: [AtomicU64; LIMIT as usize / 64],
    list: RwLock<Vec<(c_int, Arc<T>)>>,
    /// The process whose descriptors these are.
    owner: AtomicI32,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            known: [const { AtomicU64::new(0) }; LIMIT as usize / 64],
            list: RwLock::new(Vec::new()),
            owner: AtomicI32::new(0),
        }
    }

    fn bit(&self, fd: c_int) -> Option<(&AtomicU64, u64)> {
        let index = usize::try_from(fd).ok()?;
        Some((self.known.get(index / 64)?, 1 << (index % 64)))
    }

    /// Whether the descriptor is in the table.
    pub(crate) fn has(&self, fd: c_int) -> bool {
        self.bit(fd).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// What the descriptor stands for.
    pub(crate) fn get(&self, fd: c_int) -> Option<Arc<T>> {
        if !self.has(fd) {
            return None;
        }
        self.list.read().iter().find(|(known, _)| *known == fd).map(|(_, file)| file.clone())
    }

    /// The file that was opened last, of those that are open.
    pub(crate) fn last(&self) -> Option<Arc<T>> {
        self.list.read().last().map(|(_, file)| file.clone())
    }

    /// All open files, each once.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let mut all: Vec<Arc<T>> = Vec::new();
        for (_, file) in self.list.read().iter() {
            if !all.iter().any(|known| Arc::ptr_eq(known, file)) {
                all.push(file.clone());
            }
        }
        all
    }

    /// Makes `fd` stand for `file`. `false`: the number is too high.
    pub(crate) fn insert(&self, fd: c_int, file: Arc<T>) -> bool {
        let Some((word, bit)) = self.bit(fd) else { return false };
        self.owner.store(process(), Ordering::Relaxed);
        let mut list = self.list.write();
        // A descriptor that was closed behind our back.
        let stale = list.iter().position(|(known, _)| *known == fd).map(|at| list.remove(at));
        list.push((fd, file));
        word.fetch_or(bit, Ordering::Relaxed);
        drop(list);
        drop(stale);
        true
    }

    /// Makes `to` stand for what `from` does, after a `dup`: for nothing, where that is nothing.
    pub(crate) fn copy(&self, from: c_int, to: c_int) {
        if from == to || self.is_borrowed() {
            return;
        }
        let closed = self.take(to..=to);
        if let Some(file) = self.get(from) {
            self.insert(to, file);
        }
        drop(closed);
    }

    /// Takes descriptors out that are about to be closed. Where the last one of a file is among them, the file goes when the result
    /// does.
    pub(crate) fn take(&self, fds: RangeInclusive<c_int>) -> Vec<Arc<T>> {
        if (fds.start() == fds.end() && !self.has(*fds.start())) || self.is_borrowed() {
            return Vec::new();
        }
        let mut list = self.list.write();
        let (gone, stay) = core::mem::take(&mut *list).into_iter().partition(|(fd, _)| fds.contains(fd));
        *list = stay;
        let gone: Vec<(c_int, Arc<T>)> = gone;
        for (fd, _) in &gone {
            if let Some((word, bit)) = self.bit(*fd) {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
        gone.into_iter().map(|(_, file)| file).collect()
    }

    /// Whether this is a `vfork` child, which has descriptors of its own but its parent's memory.
    fn is_borrowed(&self) -> bool {
        let owner = self.owner.load(Ordering::Relaxed);
        owner != 0 && owner != process()
    }

    /// Keeps the table as it is until [`Self::unlock`], for a `fork`.
    pub(crate) fn lock(&self) {
        core::mem::forget(self.list.write());
    }

    /// Ends what [`Self::lock`] began.
    ///
    /// # Safety
    /// This thread has called `lock`, or its counterpart in the process that it was forked from.
    pub(crate) unsafe fn unlock(&self) {
        // SAFETY: locked by `lock`, whose guard was forgotten.
        unsafe { self.list.force_unlock_write() };
    }

    /// Forgets all without dropping anything: what a `fork`ed child inherits belongs to threads that it does not have.
    pub(crate) fn abandon(&self) {
        for (_, file) in core::mem::take(&mut *self.list.write()) {
            core::mem::forget(file);
        }
        self.known.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

fn process() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_live_as_long_as_a_descriptor() {
        let table = Table::new();
        let file = Arc::new(());
        assert!(table.insert(5, file.clone()) && !table.insert(LIMIT, file.clone()));
        table.copy(5, 9);
        table.copy(5, 5);
        table.copy(5, 70);
        assert!(table.has(5) && table.has(9) && table.has(70) && !table.has(6) && !table.has(-1));
        assert_eq!(table.all().len(), 1);
        assert_eq!(Arc::strong_count(&file), 4);
        drop(table.take(6..=100));
        assert!(table.has(5) && !table.has(9) && table.get(70).is_none());
        // dup2 of something else over it.
        table.copy(3, 5);
        assert!(table.get(5).is_none() && table.last().is_none());
        assert_eq!(Arc::strong_count(&file), 1);
    }

    #[test]
    fn a_stale_entry_is_replaced() {
        let table = Table::new();
        let old = Arc::new(1);
        table.insert(4, old.clone());
        table.insert(4, Arc::new(2));
        assert_eq!((table.get(4).as_deref(), Arc::strong_count(&old)), (Some(&2), 1));
    }

    #[test]
    fn what_is_abandoned_is_not_dropped() {
        let table = Table::new();
        let file = Arc::new(());
        table.insert(4, file.clone());
        table.lock();
        // SAFETY: locked above.
        unsafe { table.unlock() };
        table.abandon();
        assert!(!table.has(4) && table.last().is_none());
        assert_eq!(Arc::strong_count(&file), 2);
    }
}

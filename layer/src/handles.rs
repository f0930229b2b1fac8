//! Tables from Vulkan handles to what the layer keeps of them.

use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use std::hash::Hash;
use std::sync::Arc;

/// A table that several threads use: look-ups share, and what they find outlives a removal.
pub struct Table<H, T>(RwLock<FxHashMap<H, Arc<T>>>);

impl<H: Copy + Eq + Hash, T> Table<H, T> {
    pub fn insert(&self, handle: H, value: T) {
        self.0.write().insert(handle, Arc::new(value));
    }

    pub fn get(&self, handle: H) -> Option<Arc<T>> {
        self.0.read().get(&handle).cloned()
    }

    pub fn remove(&self, handle: H) -> Option<Arc<T>> {
        self.0.write().remove(&handle)
    }

    /// Finds the handle's value, or makes it; only one of two threads that ask at once makes it.
    pub fn get_or_insert<E>(&self, handle: H, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        if let Some(found) = self.get(handle) {
            return Ok(found);
        }
        let mut table = self.0.write();
        if let Some(found) = table.get(&handle) {
            return Ok(found.clone());
        }
        let made = Arc::new(make()?);
        table.insert(handle, made.clone());
        Ok(made)
    }

    /// What the table has now.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.0.read().values().cloned().collect()
    }

    /// Empties the table.
    pub fn take_all(&self) -> Vec<(H, Arc<T>)> {
        self.0.write().drain().collect()
    }
}

impl<H, T> Default for Table<H, T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

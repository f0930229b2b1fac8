//! Handles as the kernel's idr and xarray give them out: small integers from 1, the lowest free one first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A table of things that user space names by small integers.
#[derive(Debug)]
pub(crate) struct Ids<T> {
    slots: Vec<Option<T>>,
    free: BinaryHeap<Reverse<u32>>,
    limit: u32,
}

impl<T> Ids<T> {
    /// A table whose ids are 1..=`limit`.
    pub(crate) fn new(limit: u32) -> Self {
        Self { slots: Vec::new(), free: BinaryHeap::new(), limit }
    }

    /// Stores `value` under the lowest free id; `None` when all ids are taken.
    pub(crate) fn insert(&mut self, value: T) -> Option<u32> {
        self.insert_with(|_| value)
    }

    /// Stores what `make` makes of the lowest free id; `None` when all ids are taken.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(u32) -> T) -> Option<u32> {
        if let Some(Reverse(id)) = self.free.pop() {
            self.slots[id as usize - 1] = Some(make(id));
            return Some(id);
        }
        let id = u32::try_from(self.slots.len() + 1).ok().filter(|id| *id <= self.limit)?;
        self.slots.push(Some(make(id)));
        Some(id)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        self.slots.get((id as usize).wrapping_sub(1))?.as_ref()
    }

    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let value = self.slots.get_mut((id as usize).wrapping_sub(1))?.take()?;
        self.free.push(Reverse(id));
        Some(value)
    }

    /// The ids in use, in order.
    pub(crate) fn ids(&self) -> Vec<u32> {
        (1..).zip(&self.slots).filter(|(_, slot)| slot.is_some()).map(|(id, _)| id).collect()
    }

    /// Takes everything out, in order of id.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.free.clear();
        self.slots.drain(..).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_free_id_first() {
        let mut ids = Ids::new(3);
        assert_eq!((ids.insert('a'), ids.insert('b'), ids.insert('c')), (Some(1), Some(2), Some(3)));
        assert_eq!(ids.insert('d'), None);
        assert_eq!(ids.remove(3), Some('c'));
        assert_eq!(ids.remove(1), Some('a'));
        assert_eq!(ids.remove(1), None);
        assert_eq!(ids.get(0), None);
        assert_eq!(ids.insert('e'), Some(1));
        assert_eq!(ids.ids(), [1, 2]);
        assert_eq!(ids.drain(), ['e', 'b']);
    }
}

//! An inner node: which keys belong to which child.

use arrayvec::ArrayVec;

use super::keys::{FAN, Keys};

/// Up to [`FAN`] children. `keys[i]` is the smallest key that belongs to child `i`, whether it is present or not.
#[derive(Clone, Debug)]
pub(crate) struct Inner {
    pub(super) keys: Keys,
    pub(super) children: ArrayVec<u32, FAN>,
}

impl Inner {
    pub(super) const fn new() -> Self {
        Self { keys: Keys::new(), children: ArrayVec::new_const() }
    }

    pub(super) fn len(&self) -> usize {
        self.children.len()
    }

    pub(super) fn key(&self, index: usize) -> Option<u64> {
        (index < self.len()).then(|| self.keys.0[index])
    }

    /// The position of the child to which `key` belongs.
    #[inline]
    pub(super) fn position(&self, key: u64) -> usize {
        self.keys.up_to(key) - 1
    }

    /// Adds a child at `index`; there has to be room.
    pub(super) fn insert(&mut self, index: usize, key: u64, child: u32) {
        self.keys.insert(index, self.len(), key);
        self.children.insert(index, child);
    }

    /// Takes the child at `index` out.
    pub(super) fn remove(&mut self, index: usize) {
        self.keys.remove(index, 1, self.len());
        self.children.remove(index);
    }

    /// Moves the children from `at` on behind those of `to`, where they belong and fit.
    pub(super) fn move_tail(&mut self, at: usize, to: &mut Self) {
        let (len, to_len) = (self.len(), to.len());
        to.keys.0[to_len..][..len - at].copy_from_slice(&self.keys.0[at..len]);
        to.children.extend(self.children[at..].iter().copied());
        self.keys.0[at..len].fill(u64::MAX);
        self.children.truncate(at);
    }

    /// Evens out the children of two neighbours, of which this is the left one.
    pub(super) fn share(&mut self, right: &mut Self) {
        let mut all: ArrayVec<(u64, u32), { 2 * FAN }> = ArrayVec::new();
        for node in [&*self, &*right] {
            all.extend(node.keys.0.iter().copied().zip(node.children.iter().copied()));
        }
        let (low, high) = all.split_at(all.len() / 2);
        for (node, part) in [(self, low), (right, high)] {
            *node = Self::new();
            node.children.extend(part.iter().map(|&(_, child)| child));
            node.keys.0.iter_mut().zip(part).for_each(|(key, &(first, _))| *key = first);
        }
    }
}

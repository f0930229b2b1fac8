//! Memory for nodes.

use core::mem::size_of;
use core::ops::{Index, IndexMut};

/// Spare nodes that are kept from one small job to the next.
const KEEP: usize = 4;

/// Boxed nodes with stable indices. A freed node's memory goes back at once, or first fills up what [`Arena::reserve`]
/// put aside.
#[derive(Clone, Debug)]
pub(crate) struct Arena<T> {
    slots: Vec<Option<Box<T>>>,
    free: Vec<u32>,
    /// Boxes that were allocated ahead of their use.
    spare: Vec<Box<T>>,
}

impl<T> Arena<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), spare: Vec::new() }
    }

    /// Number of nodes.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts memory for `count` nodes aside, so that there can be as many more without an allocation.
    pub(super) fn reserve(&mut self, count: usize, node: impl Fn() -> T) {
        let most = count.max(KEEP);
        if self.spare.capacity() < most {
            self.spare.reserve_exact(most - self.spare.len());
        }
        while self.spare.len() < count {
            self.spare.push(Box::new(node()));
        }
        if count > 0 {
            self.slots.reserve(count);
            self.free.reserve(self.slots.capacity() - self.free.len());
        }
    }

    /// Gives back what was put aside beyond `count` nodes, and beyond the [`KEEP`] that are always kept.
    pub(super) fn trim(&mut self, count: usize) {
        let most = count.max(KEEP);
        self.spare.truncate(most);
        self.spare.shrink_to(most);
    }

    pub(super) fn insert(&mut self, node: T) -> u32 {
        let node = match self.spare.pop() {
            Some(mut spare) => {
                *spare = node;
                spare
            }
            None => Box::new(node),
        };
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(node);
            return id;
        }
        self.slots.push(Some(node));
        (self.slots.len() - 1) as u32
    }

    /// Takes a node out of its place, to which [`Arena::put`] brings it back unless [`Arena::free`] gets it.
    pub(super) fn take(&mut self, id: u32) -> Box<T> {
        self.slots[id as usize].take().expect("links lead to live nodes")
    }

    pub(super) fn put(&mut self, id: u32, node: Box<T>) {
        self.slots[id as usize] = Some(node);
    }

    /// Gives up a node that was taken out of its place.
    pub(super) fn free(&mut self, id: u32, node: Box<T>) {
        self.free.push(id);
        if self.spare.len() < self.spare.capacity() {
            self.spare.push(node);
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        (self.len() + self.spare.len()) * size_of::<T>()
            + self.slots.capacity() * size_of::<Option<Box<T>>>()
            + self.spare.capacity() * size_of::<Box<T>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Arena<T> {
    type Output = T;
    #[inline]
    fn index(&self, id: u32) -> &T {
        self.slots[id as usize].as_deref().expect("links lead to live nodes")
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.slots[id as usize].as_deref_mut().expect("links lead to live nodes")
    }
}

//! The address tree: a B+ tree from addresses to small `Copy` values.
//!
//! Cache lines decide how fast an address space is, so the nodes are fat, the keys lie apart from the values, and the
//! leaf that was changed last is remembered together with the addresses that belong to it: what follows nearby
//! needs no descent. A leaf that is full and grows at its end keeps what it has and gets an empty neighbour, so
//! sequential inserts leave full leaves behind. Leaves that shrink are merged until two neighbours together fill more
//! than 7/8 of a leaf, which bounds the memory a mapping whatever the history.
//!
//! Nodes live in arenas and refer to each other by index, which is what makes linked leaves possible in safe Rust.

use core::mem::size_of;
use core::ops::{Index, IndexMut};

use arrayvec::ArrayVec;

/// Entries in a leaf.
const LEAF: usize = 64;
/// Children of an inner node.
const INNER: usize = 64;
/// Neighbouring leaves with no more entries than this become one.
const MERGE: usize = LEAF * 7 / 8;
/// Levels of inner nodes; with at least `INNER / 4` children each, far more than 2^32 leaves can need.
const LEVELS: usize = 12;
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Leaf<V> {
    prev: u32,
    next: u32,
    keys: ArrayVec<u64, LEAF>,
    values: ArrayVec<V, LEAF>,
}

impl<V> Leaf<V> {
    fn new(prev: u32, next: u32) -> Self {
        Self { prev, next, keys: ArrayVec::new(), values: ArrayVec::new() }
    }
}

/// `keys[i]` is the smallest key that belongs to `children[i]`, whether it is present or not.
#[derive(Clone, Debug, Default)]
struct Inner {
    keys: ArrayVec<u64, INNER>,
    children: ArrayVec<u32, INNER>,
}

impl Inner {
    fn position(&self, key: u64) -> usize {
        self.keys.partition_point(|&k| k <= key).saturating_sub(1)
    }

    fn remove(&mut self, position: usize) -> u32 {
        self.keys.remove(position);
        self.children.remove(position)
    }
}

/// Boxed nodes with stable indices; a freed node's memory goes back at once.
#[derive(Clone, Debug)]
struct Arena<T> {
    slots: Vec<Option<Box<T>>>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    fn insert(&mut self, node: T) -> u32 {
        let node = Some(Box::new(node));
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = node;
            return id;
        }
        self.slots.push(node);
        (self.slots.len() - 1) as u32
    }

    fn remove(&mut self, id: u32) -> Box<T> {
        self.free.push(id);
        self.slots[id as usize].take().expect("a node is freed once")
    }

    fn memory_bytes(&self) -> usize {
        (self.slots.len() - self.free.len()) * size_of::<T>()
            + self.slots.capacity() * size_of::<Option<Box<T>>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Arena<T> {
    type Output = T;
    fn index(&self, id: u32) -> &T {
        self.slots[id as usize].as_deref().expect("links lead to live nodes")
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.slots[id as usize].as_deref_mut().expect("links lead to live nodes")
    }
}

/// A leaf and the keys `low..high` that belong to it.
#[derive(Clone, Copy, Debug)]
struct Home {
    leaf: u32,
    low: u64,
    high: u64,
}

impl Home {
    const NOWHERE: Self = Self { leaf: NONE, low: 1, high: 0 };
}

/// The inner nodes from the root down, each with the position of the child taken.
type Path = ArrayVec<(u32, usize), LEVELS>;

/// The place of an entry, valid until the tree changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    leaf: u32,
    index: usize,
}

/// An ordered map from `u64` (below `u64::MAX`) to `V`.
#[derive(Clone, Debug)]
pub(crate) struct Tree<V> {
    leaves: Arena<Leaf<V>>,
    inners: Arena<Inner>,
    root: u32,
    first: u32,
    height: usize,
    len: usize,
    hint: Home,
}

impl<V: Copy> Tree<V> {
    pub(crate) fn new() -> Self {
        let mut leaves = Arena::new();
        let root = leaves.insert(Leaf::new(NONE, NONE));
        Self { leaves, inners: Arena::new(), root, first: root, height: 0, len: 0, hint: Home::NOWHERE }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes on the heap.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.leaves.memory_bytes() + self.inners.memory_bytes()
    }

    /// The first entry.
    pub(crate) fn first(&self) -> Cursor {
        Cursor { leaf: self.first, index: 0 }
    }

    /// The last entry at or below `key`, or the first entry of all where there is none.
    pub(crate) fn floor(&self, key: u64) -> Cursor {
        self.floor_in(self.home(key).leaf, key)
    }

    /// [`Tree::floor`] for a key that is likely in the leaf of `near`.
    pub(crate) fn floor_near(&self, near: Cursor, key: u64) -> Cursor {
        let leaf = &self.leaves[near.leaf];
        let here = match (leaf.keys.first(), leaf.keys.last()) {
            (Some(&first), Some(&last)) => {
                first <= key && (key <= last || leaf.next == NONE || key < self.leaves[leaf.next].keys[0])
            }
            _ => true,
        };
        if here { self.floor_in(near.leaf, key) } else { self.floor(key) }
    }

    fn floor_in(&self, leaf: u32, key: u64) -> Cursor {
        let node = &self.leaves[leaf];
        match node.keys.partition_point(|&k| k <= key) {
            0 if node.prev != NONE => {
                Cursor { leaf: node.prev, index: self.leaves[node.prev].keys.len() - 1 }
            }
            above => Cursor { leaf, index: above.saturating_sub(1) },
        }
    }

    /// The entry at `cursor`; none behind the last.
    pub(crate) fn get(&self, cursor: Cursor) -> Option<(u64, V)> {
        let leaf = &self.leaves[cursor.leaf];
        leaf.keys.get(cursor.index).map(|&key| (key, leaf.values[cursor.index]))
    }

    /// The place behind `cursor`.
    pub(crate) fn next(&self, cursor: Cursor) -> Cursor {
        let leaf = &self.leaves[cursor.leaf];
        if cursor.index + 1 >= leaf.keys.len() && leaf.next != NONE {
            Cursor { leaf: leaf.next, index: 0 }
        } else {
            Cursor { leaf: cursor.leaf, index: (cursor.index + 1).min(leaf.keys.len()) }
        }
    }

    /// Changes the value at `cursor`, which has to be at an entry.
    pub(crate) fn set(&mut self, cursor: Cursor, value: V) {
        self.leaves[cursor.leaf].values[cursor.index] = value;
    }

    /// Puts `items` in place of all entries with keys in `from..to`. The items are in order, with keys in
    /// `from..=to`, and none of their keys is present outside `from..to`.
    pub(crate) fn replace(&mut self, from: u64, to: u64, items: &[(u64, V)]) {
        let home = self.home(from);
        let leaf = &mut self.leaves[home.leaf];
        let begin = leaf.keys.partition_point(|&k| k < from);
        let gone = leaf.keys[begin..].iter().take_while(|&&k| k < to).count();
        let fits = leaf.keys.len() - gone + items.len() <= LEAF;
        if to <= home.high && items.last().is_none_or(|&(key, _)| key < home.high) && fits {
            splice(&mut leaf.keys, begin, gone, items.iter().map(|&(key, _)| key));
            splice(&mut leaf.values, begin, gone, items.iter().map(|&(_, value)| value));
            self.len = self.len - gone + items.len();
            self.hint = home;
            if gone > items.len() {
                self.shrunk(home.leaf, from);
            }
            return;
        }
        self.remove_range(from, to);
        for &(key, value) in items {
            self.insert(key, value);
        }
    }

    fn home(&self, key: u64) -> Home {
        if self.hint.low <= key && key < self.hint.high { self.hint } else { self.descend(key) }
    }

    fn descend(&self, key: u64) -> Home {
        let mut home = Home { leaf: self.root, low: 0, high: u64::MAX };
        for _ in 0..self.height {
            let node = &self.inners[home.leaf];
            let position = node.position(key);
            home.low = node.keys[position];
            home.high = node.keys.get(position + 1).copied().unwrap_or(home.high);
            home.leaf = node.children[position];
        }
        home
    }

    fn path(&self, key: u64) -> Path {
        let mut path = Path::new();
        let mut id = self.root;
        for _ in 0..self.height {
            let node = &self.inners[id];
            let position = node.position(key);
            path.push((id, position));
            id = node.children[position];
        }
        path
    }

    fn remove_range(&mut self, from: u64, to: u64) {
        let mut key = from;
        loop {
            let home = self.home(key);
            let leaf = &mut self.leaves[home.leaf];
            let begin = leaf.keys.partition_point(|&k| k < key);
            let end = leaf.keys.partition_point(|&k| k < to);
            if begin < end {
                leaf.keys.drain(begin..end);
                leaf.values.drain(begin..end);
                self.len -= end - begin;
                self.shrunk(home.leaf, key);
            }
            if home.high >= to {
                break;
            }
            key = home.high;
        }
    }

    fn insert(&mut self, key: u64, value: V) {
        let mut id = self.home(key).leaf;
        let leaf = &mut self.leaves[id];
        let mut index = leaf.keys.partition_point(|&k| k < key);
        if leaf.keys.is_full() {
            // Where the growth is at an end it will go on there: leave the old entries together, and the new leaf empty.
            let at = if index == LEAF {
                LEAF
            } else if index == 0 {
                0
            } else {
                LEAF / 2
            };
            let mut right = Leaf::new(id, leaf.next);
            right.keys.extend(leaf.keys.drain(at..));
            right.values.extend(leaf.values.drain(at..));
            let (first, after) = (*right.keys.first().unwrap_or(&key), leaf.next);
            let right = self.leaves.insert(right);
            self.leaves[id].next = right;
            if after != NONE {
                self.leaves[after].prev = right;
            }
            self.add_child(self.path(key), first, right);
            if first <= key {
                (id, index) = (right, index - at);
            }
        }
        let leaf = &mut self.leaves[id];
        leaf.keys.insert(index, key);
        leaf.values.insert(index, value);
        self.len += 1;
        self.hint = self.descend(key);
    }

    /// Adds a node to the right of the child that `path` leads to, splitting inner nodes upwards as needed.
    fn add_child(&mut self, mut path: Path, mut key: u64, mut child: u32) {
        while let Some((id, position)) = path.pop() {
            let node = &mut self.inners[id];
            if !node.children.is_full() {
                node.keys.insert(position + 1, key);
                node.children.insert(position + 1, child);
                return;
            }
            let mut right = Inner::default();
            right.keys.extend(node.keys.drain(INNER / 2..));
            right.children.extend(node.children.drain(INNER / 2..));
            let (target, position) =
                if position < INNER / 2 { (node, position) } else { (&mut right, position - INNER / 2) };
            target.keys.insert(position + 1, key);
            target.children.insert(position + 1, child);
            key = right.keys[0];
            child = self.inners.insert(right);
        }
        let mut root = Inner::default();
        root.keys.extend([0, key]);
        root.children.extend([self.root, child]);
        self.root = self.inners.insert(root);
        self.height += 1;
    }

    /// After entries left `leaf`, to which `key` belongs: merges it with a neighbour where both fit in one leaf.
    fn shrunk(&mut self, leaf: u32, key: u64) {
        let mine = self.leaves[leaf].keys.len();
        if mine >= LEAF / 2 || self.height == 0 {
            return;
        }
        let path = self.path(key);
        let (parent, position) = path[path.len() - 1];
        let children = &self.inners[parent].children;
        let most = if mine == 0 { LEAF } else { MERGE };
        let fits = |&left: &usize| {
            let entries = |child: usize| children.get(child).map(|&id| self.leaves[id].keys.len());
            entries(left).zip(entries(left + 1)).is_some_and(|(left, right)| left + right <= most)
        };
        let Some(left) = [Some(position), position.checked_sub(1)].into_iter().flatten().find(fits) else {
            return;
        };
        let (into, from) = (children[left], self.inners[parent].remove(left + 1));
        let from = self.leaves.remove(from);
        let leaf = &mut self.leaves[into];
        leaf.keys.extend(from.keys);
        leaf.values.extend(from.values);
        leaf.next = from.next;
        if from.next != NONE {
            self.leaves[from.next].prev = into;
        }
        self.hint = Home::NOWHERE;
        self.inner_shrunk(path);
    }

    /// After the last node of `path` lost a child: keeps every inner node but the root at `INNER / 4` children at
    /// least, so that a leaf always has a neighbour under the same parent.
    fn inner_shrunk(&mut self, mut path: Path) {
        while let Some((id, _)) = path.pop() {
            let node = &self.inners[id];
            let Some(&(parent, position)) = path.last() else {
                if node.children.len() == 1 {
                    self.root = node.children[0];
                    self.inners.remove(id);
                    self.height -= 1;
                }
                return;
            };
            if node.children.len() >= INNER / 4 {
                return;
            }
            let left =
                if position + 1 < self.inners[parent].children.len() { position } else { position - 1 };
            let right_id = self.inners[parent].remove(left + 1);
            let left_id = self.inners[parent].children[left];
            let mut right = self.inners.remove(right_id);
            let node = &mut self.inners[left_id];
            if node.children.len() + right.children.len() <= INNER {
                node.keys.extend(right.keys);
                node.children.extend(right.children);
                continue;
            }
            let keys: ArrayVec<u64, { 2 * INNER }> =
                node.keys.drain(..).chain(right.keys.drain(..)).collect();
            let children: ArrayVec<u32, { 2 * INNER }> =
                node.children.drain(..).chain(right.children.drain(..)).collect();
            let half = keys.len() / 2;
            node.keys.extend(keys[..half].iter().copied());
            node.children.extend(children[..half].iter().copied());
            right.keys.extend(keys[half..].iter().copied());
            right.children.extend(children[half..].iter().copied());
            let right = self.inners.insert(*right);
            let parent = &mut self.inners[parent];
            parent.keys.insert(left + 1, keys[half]);
            parent.children.insert(left + 1, right);
            return;
        }
    }
}

/// Puts `items` in place of the `gone` entries from `begin` on; the caller knows that the result fits.
fn splice<T: Copy, const N: usize>(
    array: &mut ArrayVec<T, N>,
    begin: usize,
    gone: usize,
    items: impl ExactSizeIterator<Item = T> + Clone,
) {
    let (len, new) = (array.len(), items.len());
    if new > gone {
        // What is pushed here only makes room: the moved tail or the items overwrite it.
        array.extend(items.clone().take(new - gone));
        array.copy_within(begin + gone..len, begin + new);
    } else if new < gone {
        array.copy_within(begin + gone.., begin + new);
        array.truncate(len - (gone - new));
    }
    for (slot, item) in array[begin..].iter_mut().zip(items) {
        *slot = item;
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;

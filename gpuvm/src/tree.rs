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
use core::ops::{Deref, DerefMut, Index, IndexMut};

use arrayvec::ArrayVec;

/// Entries in a node: values in a leaf, children in an inner node.
const FAN: usize = 64;
/// Keys in a cache line.
const LINE: usize = 8;
/// Neighbouring leaves with no more entries than this become one.
const MERGE: usize = FAN * 7 / 8;
/// Fewest children of an inner node that is not the root.
const LEAST: usize = FAN / 4;
/// Levels of inner nodes; with [`LEAST`] children each, more than 2^32 leaves can need.
const LEVELS: usize = 12;
const NONE: u32 = u32::MAX;

/// Sorted keys, padded with `u64::MAX`: the fixed length makes the search free of branches.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Keys([u64; FAN]);

impl Keys {
    /// Number of keys for which `below` holds; it has to hold for a prefix of the keys and not for the padding.
    /// One key of every cache line is looked at first, so that a node that is not in the cache costs the latency of
    /// one miss and not of one for each step of a binary search.
    fn count(&self, below: impl Fn(u64) -> bool) -> usize {
        let full: usize = (1..FAN / LINE).map(|line| usize::from(below(self.0[line * LINE - 1]))).sum();
        let line = &self.0[full * LINE..][..LINE];
        full * LINE + line.iter().map(|&key| usize::from(below(key))).sum::<usize>()
    }

    /// Number of keys below `key`.
    fn below(&self, key: u64) -> usize {
        self.count(|k| k < key)
    }

    /// Number of keys up to `key`, which is below `u64::MAX`.
    fn up_to(&self, key: u64) -> usize {
        self.count(|k| k <= key)
    }
}

/// Keys and what belongs to them. In an inner node `keys[i]` is the smallest key that belongs to child `items[i]`,
/// whether it is present or not.
#[derive(Clone, Debug)]
struct Node<T> {
    keys: Keys,
    items: ArrayVec<T, FAN>,
}

impl<T: Copy> Node<T> {
    const fn new() -> Self {
        Self { keys: Keys([u64::MAX; FAN]), items: ArrayVec::new_const() }
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn key(&self, index: usize) -> Option<u64> {
        (index < self.len()).then(|| self.keys.0[index])
    }

    /// Puts `new` in place of the `gone` entries from `begin` on; the caller knows that they fit.
    fn splice(&mut self, begin: usize, gone: usize, new: &[(u64, T)]) {
        let len = self.len();
        if new.len() != gone {
            self.keys.0.copy_within(begin + gone..len, begin + new.len());
        }
        if new.len() > gone {
            // What is pushed here only makes room: the moved tail or the new entries overwrite it.
            self.items.extend(new[gone..].iter().map(|&(_, item)| item));
            self.items.copy_within(begin + gone..len, begin + new.len());
        } else if new.len() < gone {
            self.items.copy_within(begin + gone.., begin + new.len());
            self.truncate(len + new.len() - gone);
        }
        for (i, &(key, item)) in (begin..).zip(new) {
            (self.keys.0[i], self.items[i]) = (key, item);
        }
    }

    /// Moves the entries from `at` on behind those of `to`, where they belong and fit.
    fn move_tail(&mut self, at: usize, to: &mut Self) {
        let (len, to_len) = (self.len(), to.len());
        to.keys.0[to_len..][..len - at].copy_from_slice(&self.keys.0[at..len]);
        to.items.extend(self.items[at..].iter().copied());
        self.truncate(at);
    }

    fn truncate(&mut self, len: usize) {
        self.keys.0[len..self.items.len()].fill(u64::MAX);
        self.items.truncate(len);
    }
}

type Inner = Node<u32>;

impl Inner {
    /// The position of the child to which `key` belongs.
    fn position(&self, key: u64) -> usize {
        self.keys.up_to(key) - 1
    }
}

#[derive(Clone, Debug)]
struct Leaf<V> {
    node: Node<V>,
    prev: u32,
    next: u32,
}

impl<V> Deref for Leaf<V> {
    type Target = Node<V>;
    fn deref(&self) -> &Node<V> {
        &self.node
    }
}

impl<V> DerefMut for Leaf<V> {
    fn deref_mut(&mut self) -> &mut Node<V> {
        &mut self.node
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

/// The place where a key is or would be inserted, valid until the tree changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    home: Home,
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
        let root = leaves.insert(Leaf { node: Node::new(), prev: NONE, next: NONE });
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

    /// The last entry up to `key`, or the first entry of all where there is none.
    pub(crate) fn floor(&self, key: u64) -> Cursor {
        let key = key.min(u64::MAX - 1);
        self.floor_in(self.home(key).leaf, key)
    }

    /// [`Tree::floor`] for a key that is likely behind the entry at `near`, or else in its leaf.
    pub(crate) fn floor_near(&self, near: Cursor, key: u64) -> Cursor {
        let leaf = &self.leaves[near.leaf];
        if let Some(&[from, to]) = leaf.keys.0.get(near.index + 1..).and_then(|keys| keys.first_chunk())
            && from <= key
            && key < to
            && near.index + 2 < leaf.len()
        {
            return Cursor { leaf: near.leaf, index: near.index + 1 };
        }
        let here = leaf.keys.0[0] <= key
            && (leaf.items.is_empty()
                || key <= leaf.keys.0[leaf.len() - 1]
                || leaf.next == NONE
                || key < self.leaves[leaf.next].keys.0[0]);
        if here { self.floor_in(near.leaf, key.min(u64::MAX - 1)) } else { self.floor(key) }
    }

    fn floor_in(&self, leaf: u32, key: u64) -> Cursor {
        let node = &self.leaves[leaf];
        match node.keys.up_to(key).checked_sub(1) {
            Some(index) => Cursor { leaf, index },
            None => self.end_of(node.prev).unwrap_or(Cursor { leaf, index: 0 }),
        }
    }

    /// Where `key` (below `u64::MAX`) is or would be.
    pub(crate) fn seek(&self, key: u64) -> Seat {
        let home = self.home(key);
        Seat { home, index: self.leaves[home.leaf].keys.below(key) }
    }

    /// The last entry before `seat`, or the first entry of all where there is none.
    pub(crate) fn before(&self, seat: Seat) -> Cursor {
        let Seat { home: Home { leaf, .. }, index } = seat;
        match index.checked_sub(1) {
            Some(index) => Cursor { leaf, index },
            None => self.end_of(self.leaves[leaf].prev).unwrap_or(Cursor { leaf, index }),
        }
    }

    /// The last entry of a leaf, if it is one.
    fn end_of(&self, leaf: u32) -> Option<Cursor> {
        (leaf != NONE).then(|| Cursor { leaf, index: self.leaves[leaf].len() - 1 })
    }

    /// Shows the entries from `cursor` on until `visit` says no.
    pub(crate) fn scan(&self, cursor: Cursor, mut visit: impl FnMut(Cursor, u64, &V) -> bool) {
        let Cursor { mut leaf, mut index } = cursor;
        while leaf != NONE {
            let node = &self.leaves[leaf];
            for (index, value) in (index..).zip(&node.items[index..]) {
                if !visit(Cursor { leaf, index }, node.keys.0[index], value) {
                    return;
                }
            }
            (leaf, index) = (node.next, 0);
        }
    }

    /// The entry at `cursor`; none behind the last.
    pub(crate) fn get(&self, cursor: Cursor) -> Option<(u64, V)> {
        let leaf = &self.leaves[cursor.leaf];
        leaf.items.get(cursor.index).map(|&value| (leaf.keys.0[cursor.index], value))
    }

    /// The place behind `cursor`.
    pub(crate) fn next(&self, cursor: Cursor) -> Cursor {
        let leaf = &self.leaves[cursor.leaf];
        if cursor.index + 1 >= leaf.len() && leaf.next != NONE {
            return Cursor { leaf: leaf.next, index: 0 };
        }
        Cursor { leaf: cursor.leaf, index: (cursor.index + 1).min(leaf.len()) }
    }

    /// Changes the value at `cursor`, which has to be at an entry.
    pub(crate) fn set(&mut self, cursor: Cursor, value: V) {
        self.leaves[cursor.leaf].items[cursor.index] = value;
    }

    /// Puts `new` in place of the `gone` entries from `seat`, the seat of `from`, on, which are all with keys in
    /// `from..to`. The new entries are in order, with keys in `from..=to`, none of them present outside `from..to`.
    pub(crate) fn replace(&mut self, seat: Seat, gone: usize, (from, to): (u64, u64), new: &[(u64, V)]) {
        let Seat { home, index } = seat;
        let leaf = &mut self.leaves[home.leaf];
        let fits = index + gone <= leaf.len() && leaf.len() - gone + new.len() <= FAN;
        if fits && new.last().is_none_or(|&(key, _)| key < home.high) {
            leaf.splice(index, gone, new);
            self.len = self.len - gone + new.len();
            self.hint = home;
            if gone > new.len() {
                self.shrunk(home.leaf, from);
            }
            return;
        }
        if gone > 0 {
            self.remove_range(from, to);
        }
        for &(key, value) in new {
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
            home.low = node.keys.0[position];
            home.high = node.key(position + 1).unwrap_or(home.high);
            home.leaf = node.items[position];
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
            id = node.items[position];
        }
        path
    }

    fn remove_range(&mut self, from: u64, to: u64) {
        let mut key = from;
        loop {
            let home = self.home(key);
            let leaf = &mut self.leaves[home.leaf];
            let (begin, end) = (leaf.keys.below(key), leaf.keys.below(to));
            if begin < end {
                leaf.splice(begin, end - begin, &[]);
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
        let mut index = leaf.keys.below(key);
        if leaf.items.is_full() {
            // Growth at an end will go on there: the old entries stay together and the other leaf begins empty.
            let at = if index == FAN || index == 0 { index } else { FAN / 2 };
            let after = leaf.next;
            let mut right = Leaf { node: Node::new(), prev: id, next: after };
            leaf.move_tail(at, &mut right);
            let first = right.key(0).unwrap_or(key);
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
        self.leaves[id].splice(index, 0, &[(key, value)]);
        self.len += 1;
        self.hint = self.descend(key);
    }

    /// Adds a node to the right of the child that `path` leads to, splitting inner nodes upwards as needed.
    fn add_child(&mut self, mut path: Path, mut key: u64, mut child: u32) {
        while let Some((id, position)) = path.pop() {
            let node = &mut self.inners[id];
            if !node.items.is_full() {
                node.splice(position + 1, 0, &[(key, child)]);
                return;
            }
            let mut right = Inner::new();
            node.move_tail(FAN / 2, &mut right);
            match position.checked_sub(FAN / 2) {
                Some(position) => right.splice(position + 1, 0, &[(key, child)]),
                None => node.splice(position + 1, 0, &[(key, child)]),
            }
            key = right.keys.0[0];
            child = self.inners.insert(right);
        }
        let mut root = Inner::new();
        root.splice(0, 0, &[(0, self.root), (key, child)]);
        self.root = self.inners.insert(root);
        self.height += 1;
    }

    /// After entries left `leaf`, to which `key` belongs: merges it with a neighbour where both fit in one leaf.
    fn shrunk(&mut self, leaf: u32, key: u64) {
        let mine = self.leaves[leaf].len();
        if mine >= FAN / 2 || self.height == 0 {
            return;
        }
        let path = self.path(key);
        let (parent, position) = path[path.len() - 1];
        let children = &self.inners[parent].items;
        let most = if mine == 0 { FAN } else { MERGE };
        let fits = |&left: &usize| {
            let entries = |child: usize| children.get(child).map(|&id| self.leaves[id].len());
            entries(left).zip(entries(left + 1)).is_some_and(|(left, right)| left + right <= most)
        };
        let Some(left) = [Some(position), position.checked_sub(1)].into_iter().flatten().find(fits) else {
            return;
        };
        let (into, from) = (children[left], children[left + 1]);
        self.inners[parent].splice(left + 1, 1, &[]);
        let mut from = self.leaves.remove(from);
        let leaf = &mut self.leaves[into];
        from.move_tail(0, leaf);
        leaf.next = from.next;
        if from.next != NONE {
            self.leaves[from.next].prev = into;
        }
        self.hint = Home::NOWHERE;
        self.inner_shrunk(path);
    }

    /// After the last node of `path` lost a child: keeps every inner node but the root at [`LEAST`] children, so that
    /// a leaf always has a neighbour under the same parent.
    fn inner_shrunk(&mut self, mut path: Path) {
        while let Some((id, _)) = path.pop() {
            let node = &self.inners[id];
            let Some(&(parent, position)) = path.last() else {
                if node.len() == 1 {
                    self.root = node.items[0];
                    self.inners.remove(id);
                    self.height -= 1;
                }
                return;
            };
            if node.len() >= LEAST {
                return;
            }
            let siblings = &self.inners[parent].items;
            let left = if position + 1 < siblings.len() { position } else { position - 1 };
            let (into, from) = (siblings[left], siblings[left + 1]);
            self.inners[parent].splice(left + 1, 1, &[]);
            let mut from = self.inners.remove(from);
            let node = &mut self.inners[into];
            if node.len() + from.len() <= FAN {
                from.move_tail(0, node);
                continue;
            }
            let mut entries: ArrayVec<(u64, u32), { 2 * FAN }> = ArrayVec::new();
            for node in [&*node, &*from] {
                entries.extend(node.items.iter().enumerate().map(|(i, &child)| (node.keys.0[i], child)));
            }
            let (low, high) = entries.split_at(entries.len() / 2);
            node.splice(0, node.len(), low);
            from.splice(0, from.len(), high);
            let from = self.inners.insert(*from);
            self.inners[parent].splice(left + 1, 0, &[(high[0].0, from)]);
            return;
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;

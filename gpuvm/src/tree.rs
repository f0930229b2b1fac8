//! The address tree: a B+ tree from addresses to small `Copy` values.
//!
//! Cache lines decide how fast an address space is, so the nodes are fat, the keys lie apart from the values, and the
//! leaf that was changed last is remembered together with the addresses that belong to it: what follows nearby
//! needs no descent. A leaf that is full and grows at an end keeps what it has and gets an empty neighbour, so
//! sequential inserts leave full leaves behind. Leaves that shrink are merged until two neighbours together fill more
//! than 7/8 of a leaf, which bounds the memory a mapping whatever the history.
//!
//! Nodes live in arenas and refer to each other by index, which is what makes linked leaves possible in safe Rust.

mod arena;
mod inner;
mod keys;
mod leaf;

use arrayvec::ArrayVec;

use arena::Arena;
use inner::Inner;
use keys::FAN;
pub(crate) use leaf::Leaf;

/// Neighbouring leaves with no more entries than this become one.
const MERGE: usize = FAN * 7 / 8;
/// Fewest children of an inner node that is not the root.
const LEAST: usize = FAN / 4;
/// Levels of inner nodes; with [`LEAST`] children each, more than 2^32 leaves can need.
const LEVELS: usize = 12;
const NONE: u32 = u32::MAX;

/// A leaf and the keys `low..high` that belong to it.
#[derive(Clone, Copy, Debug)]
struct Home {
    leaf: u32,
    low: u64,
    high: u64,
}

impl Home {
    const NOWHERE: Self = Self { leaf: NONE, low: 0, high: 0 };

    /// Whether `key` belongs to the leaf. One comparison: keys that jump about would make two of them two guesses.
    #[inline]
    fn has(&self, key: u64) -> bool {
        key.wrapping_sub(self.low) < self.high - self.low
    }
}

/// The inner nodes from the root down, each with the position of the child taken.
type Path = ArrayVec<(u32, usize), LEVELS>;

/// The place of an entry, valid until the tree changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    leaf: u32,
    index: usize,
}

impl Cursor {
    /// Which entry of its leaf it is at.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.index
    }

    /// Goes to the next entry of the leaf, or not.
    #[inline]
    pub(crate) fn step(&mut self, goes: bool) {
        self.index += usize::from(goes);
    }
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
    /// Where the last change was: the leaf, and the index behind it.
    hint: Home,
    near: usize,
}

impl<V: Copy + Default> Tree<V> {
    pub(crate) fn new() -> Self {
        let mut leaves = Arena::new();
        let root = leaves.insert(Leaf::new());
        Self {
            leaves,
            inners: Arena::new(),
            root,
            first: root,
            height: 0,
            len: 0,
            hint: Home::NOWHERE,
            near: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Leaves and inner nodes that `count` inserts, with any number of removals between them, can need.
    fn needs(&self, count: usize) -> (usize, usize) {
        let (mut leaves, mut inners) = (0, 0);
        if count > 0 {
            // Each insert can split one leaf, but two neighbours always hold more than [`MERGE`] entries.
            leaves = count.min(((self.len + count) * 2 / MERGE + 2).saturating_sub(self.leaves.len()));
            // All inner nodes but the root and the one that is being split have [`LEAST`] children.
            let mut below = self.leaves.len() + leaves;
            while below > 1 {
                below = below / LEAST + 1;
                inners += below;
            }
        }
        (leaves, inners.saturating_sub(self.inners.len()))
    }

    /// Sees to it that `count` inserts, with any number of removals between them, need no allocation.
    pub(crate) fn reserve(&mut self, count: usize) {
        let (leaves, inners) = self.needs(count);
        self.leaves.reserve(leaves, Leaf::new);
        self.inners.reserve(inners, Inner::new);
    }

    /// Gives back what is set aside beyond that.
    pub(crate) fn trim(&mut self, count: usize) {
        let (leaves, inners) = self.needs(count);
        self.leaves.trim(leaves);
        self.inners.trim(inners);
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
            && (leaf.len() == 0
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
    #[inline]
    pub(crate) fn seek(&self, key: u64) -> Seat {
        if self.hint.has(key) {
            // What comes next is often the same again, or right behind it.
            let (home, near) = (self.hint, self.near);
            let leaf = &self.leaves[home.leaf];
            if let Some(last) = near.checked_sub(1)
                && leaf.key(last) <= key
                && key <= leaf.key(near)
            {
                return Seat { home, index: last + usize::from(leaf.key(last) < key) };
            }
        }
        self.search(key)
    }

    fn search(&self, key: u64) -> Seat {
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
    #[inline]
    pub(crate) fn scan(&self, cursor: Cursor, mut visit: impl FnMut(Cursor, u64, &V) -> bool) {
        let Cursor { mut leaf, mut index } = cursor;
        while leaf != NONE {
            let node = &self.leaves[leaf];
            for (key, value) in node.entries(index) {
                if !visit(Cursor { leaf, index }, key, value) {
                    return;
                }
                index += 1;
            }
            (leaf, index) = (node.next, 0);
        }
    }

    /// The entry at `cursor`; none behind the last.
    #[inline]
    pub(crate) fn get(&self, cursor: Cursor) -> Option<(u64, &V)> {
        let leaf = &self.leaves[cursor.leaf];
        (cursor.index < leaf.len()).then(|| (leaf.keys.0[cursor.index], leaf.value(cursor.index)))
    }

    /// The leaf of an entry, its first key, 0 where it is the first leaf, and the first key of the next leaf.
    pub(crate) fn leaf(&self, cursor: Cursor) -> (&Leaf<V>, u64, u64) {
        let leaf = &self.leaves[cursor.leaf];
        let low = if leaf.prev == NONE { 0 } else { leaf.key(0) };
        let high = if leaf.next == NONE { u64::MAX } else { self.leaves[leaf.next].key(0) };
        (leaf, low, high)
    }

    /// The place behind `cursor`.
    pub(crate) fn next(&self, cursor: Cursor) -> Cursor {
        let leaf = &self.leaves[cursor.leaf];
        if cursor.index + 1 >= leaf.len() && leaf.next != NONE {
            return Cursor { leaf: leaf.next, index: 0 };
        }
        Cursor { leaf: cursor.leaf, index: (cursor.index + 1).min(leaf.len()) }
    }

    /// The entry at `cursor`, where there has to be one.
    #[inline]
    pub(crate) fn entry_mut(&mut self, cursor: Cursor) -> (u64, &mut V) {
        let leaf = &mut self.leaves[cursor.leaf];
        (leaf.key(cursor.index), leaf.value_mut(cursor.index))
    }

    /// All values in the order of their keys, which come with them.
    pub(crate) fn for_each_mut(&mut self, mut visit: impl FnMut(u64, &mut V)) {
        let mut id = self.first;
        while id != NONE {
            let leaf = &mut self.leaves[id];
            for index in 0..leaf.len() {
                visit(leaf.key(index), leaf.value_mut(index));
            }
            id = leaf.next;
        }
    }

    /// The leaf of a seat, and where in it the seat is.
    pub(crate) fn leaf_at(&self, seat: Seat) -> (&Leaf<V>, usize) {
        (&self.leaves[seat.home.leaf], seat.index)
    }

    /// Whether an entry at `seat` fits into the leaf, and no key up to `end` follows it.
    #[inline]
    pub(crate) fn has_room(&self, seat: Seat, end: u64) -> bool {
        let leaf = &self.leaves[seat.home.leaf];
        !leaf.is_full() && end <= leaf.key(seat.index).min(seat.home.high)
    }

    /// Adds an entry at `seat`, which [`Tree::has_room`].
    #[inline]
    pub(crate) fn insert_at(&mut self, seat: Seat, key: u64, value: V) {
        self.leaves[seat.home.leaf].insert(seat.index, key, value);
        self.len += 1;
        (self.hint, self.near) = (seat.home, seat.index + 1);
    }

    /// Whether an entry for `key`, which is between the entry at `seat` and the next one, fits into the leaf and belongs there.
    #[inline]
    pub(crate) fn can_split(&self, seat: Seat, key: u64) -> bool {
        !self.leaves[seat.home.leaf].is_full() && key < seat.home.high
    }

    /// Adds an entry behind the one at `seat`, which [`Tree::can_split`].
    #[inline]
    pub(crate) fn split(&mut self, seat: Seat, key: u64, value: V) {
        self.insert_at(Seat { index: seat.index + 1, ..seat }, key, value);
    }

    /// The place of a seat, if there is an entry at or behind it in the same leaf.
    pub(crate) fn at(&self, seat: Seat) -> Cursor {
        Cursor { leaf: seat.home.leaf, index: seat.index }
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
            (self.hint, self.near) = (home, index + new.len());
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
        if self.hint.has(key) { self.hint } else { self.descend(key) }
    }

    fn descend(&self, key: u64) -> Home {
        let mut home = Home { leaf: self.root, low: 0, high: u64::MAX };
        for _ in 0..self.height {
            let node = &self.inners[home.leaf];
            let position = node.position(key);
            home.low = node.keys.0[position];
            home.high = node.key(position + 1).unwrap_or(home.high);
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
            let (begin, end) = (leaf.keys.below(key), leaf.keys.below(to));
            if begin < end {
                leaf.remove(begin, end - begin);
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
        if leaf.is_full() {
            // Growth at an end will go on there: the old entries stay together and the other leaf begins empty. All
            // keys between belong to the empty one, or the full one would be split again and again.
            let at = if index == FAN || index == 0 { index } else { FAN / 2 };
            let after = leaf.next;
            let mut right = Leaf::new();
            (right.prev, right.next) = (id, after);
            leaf.move_tail(at, &mut right);
            let first = if index == FAN { leaf.key(FAN - 1) + 1 } else { right.key(0) };
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
        self.leaves[id].insert(index, key, value);
        self.len += 1;
        (self.hint, self.near) = (self.descend(key), index + 1);
    }

    /// Adds a node to the right of the child that `path` leads to, splitting inner nodes upwards as needed.
    fn add_child(&mut self, mut path: Path, mut key: u64, mut child: u32) {
        while let Some((id, position)) = path.pop() {
            let node = &mut self.inners[id];
            if !node.children.is_full() {
                node.insert(position + 1, key, child);
                return;
            }
            let mut right = Inner::new();
            node.move_tail(FAN / 2, &mut right);
            match position.checked_sub(FAN / 2) {
                Some(position) => right.insert(position + 1, key, child),
                None => node.insert(position + 1, key, child),
            }
            key = right.keys.0[0];
            child = self.inners.insert(right);
        }
        let mut root = Inner::new();
        root.insert(0, 0, self.root);
        root.insert(1, key, child);
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
        let children = &self.inners[parent].children;
        let most = if mine == 0 { FAN } else { MERGE };
        let fits = |&left: &usize| {
            let entries = |child: usize| children.get(child).map(|&id| self.leaves[id].len());
            entries(left).zip(entries(left + 1)).is_some_and(|(left, right)| left + right <= most)
        };
        let Some(left) = [Some(position), position.checked_sub(1)].into_iter().flatten().find(fits) else {
            return;
        };
        let (into, from) = (children[left], children[left + 1]);
        self.inners[parent].remove(left + 1);
        let mut gone = self.leaves.take(from);
        let leaf = &mut self.leaves[into];
        gone.move_tail(0, leaf);
        leaf.next = gone.next;
        if gone.next != NONE {
            self.leaves[gone.next].prev = into;
        }
        self.leaves.free(from, gone);
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
                    self.root = node.children[0];
                    let root = self.inners.take(id);
                    self.inners.free(id, root);
                    self.height -= 1;
                }
                return;
            };
            if node.len() >= LEAST {
                return;
            }
            let siblings = &self.inners[parent].children;
            let left = if position + 1 < siblings.len() { position } else { position - 1 };
            let (left_id, right_id) = (siblings[left], siblings[left + 1]);
            let mut right_node = self.inners.take(right_id);
            let left_node = &mut self.inners[left_id];
            let total = left_node.len() + right_node.len();
            if total <= FAN {
                right_node.move_tail(0, left_node);
                self.inners.free(right_id, right_node);
                self.inners[parent].remove(left + 1);
                continue;
            }
            left_node.share(&mut right_node);
            self.inners[parent].keys.0[left + 1] = right_node.keys.0[0];
            self.inners.put(right_id, right_node);
            return;
        }
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;

//! The tree against `BTreeMap`, with every invariant checked.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

impl<V: Copy + Default> Tree<V> {
    /// Panics where an invariant is broken; gives the number of leaves.
    fn check(&self) -> usize {
        let mut leaves = Vec::new();
        self.check_node(self.root, self.height, 0, u64::MAX, &mut leaves);
        assert_eq!(self.leaves.len(), leaves.len(), "no leaf leaks");
        assert_eq!(self.first, leaves[0]);
        let mut before = NONE;
        let mut len = 0;
        for (i, &id) in leaves.iter().enumerate() {
            let leaf = &self.leaves[id];
            assert_eq!(leaf.prev, before);
            assert_eq!(leaf.next, leaves.get(i + 1).copied().unwrap_or(NONE));
            assert!(leaf.len() > 0 || leaves.len() == 1);
            before = id;
            len += leaf.len();
        }
        assert_eq!(len, self.len);
        leaves.len()
    }

    fn check_node(&self, id: u32, height: usize, low: u64, high: u64, leaves: &mut Vec<u32>) {
        if height == 0 {
            let leaf = &self.leaves[id];
            let (keys, padding) = leaf.keys.0.split_at(leaf.len());
            assert!(keys.is_sorted_by(|a, b| a < b));
            assert!(keys.iter().all(|&key| low <= key && key < high));
            assert!(padding.iter().all(|&key| key == u64::MAX));
            if self.hint.leaf == id {
                assert_eq!((self.hint.low, self.hint.high), (low, high));
            }
            leaves.push(id);
            return;
        }
        let node = &self.inners[id];
        let least = if id == self.root { 2 } else { LEAST };
        assert!(node.children.len() >= least);
        assert_eq!(node.keys.0[0], low);
        for (i, &child) in node.children.iter().enumerate() {
            let high = node.key(i + 1).unwrap_or(high);
            self.check_node(child, height - 1, node.keys.0[i], high, leaves);
        }
    }

    /// Puts `new` in place of what is in `from..to`.
    fn edit(&mut self, from: u64, to: u64, new: &[(u64, V)]) {
        let seat = self.seek(from);
        let mut gone = 0;
        self.scan(self.before(seat), |_, key, _| {
            gone += usize::from((from..to).contains(&key));
            key < to
        });
        self.replace(seat, gone, (from, to), new);
    }

    fn entries(&self) -> Vec<(u64, V)> {
        let mut cursor = self.first();
        std::iter::from_fn(|| {
            let (key, &value) = self.get(cursor)?;
            cursor = self.next(cursor);
            Some((key, value))
        })
        .collect()
    }
}

#[derive(Clone, Debug)]
struct Edit {
    from: u64,
    to: u64,
    items: Vec<(u64, u32)>,
}

/// Key space small enough for collisions, edits wide enough to empty whole subtrees.
fn edits(space: u64) -> impl Strategy<Value = Vec<Edit>> {
    let width = prop_oneof![6 => 1..4u64, 2 => 1..300u64, 1 => 1..space];
    let edit = (0..space, width, any::<u32>(), 0..4usize).prop_map(move |(from, width, value, count)| {
        let to = from + width;
        let keys = [from, from + width / 2, to].into_iter().take(count).enumerate();
        let mut items: Vec<_> = keys.map(|(i, key)| (key, value.wrapping_add(i as u32))).collect();
        items.dedup_by_key(|&mut (key, _)| key);
        Edit { from, to, items }
    });
    proptest::collection::vec(edit, 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 32 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn is_an_ordered_map(preset in 0..6000u64, step in prop_oneof![1..3u64, 5..30u64], edits in edits(8000)) {
        let mut tree = Tree::new();
        let mut model = BTreeMap::new();
        for i in 0..preset {
            let key = i * step;
            tree.edit(key, key + 1, &[(key, 0)]);
            model.insert(key, 0);
        }
        for mut edit in edits {
            edit.items.retain(|(key, _)| *key < edit.to || !model.contains_key(key));
            tree.edit(edit.from, edit.to, &edit.items);
            let gone: Vec<u64> = model.range(edit.from..edit.to).map(|(&key, _)| key).collect();
            for key in gone {
                model.remove(&key);
            }
            model.extend(edit.items);
            tree.check();
            let floor = model.range(..=edit.from).next_back().or_else(|| model.iter().next());
            let seat = tree.seek(edit.from);
            let before = model.range(..edit.from).next_back().or_else(|| model.iter().next());
            prop_assert_eq!(tree.get(tree.before(seat)), before.map(|(&key, value)| (key, value)));
            let near = tree.floor_near(tree.floor(edit.to), edit.from);
            prop_assert_eq!(near, tree.floor(edit.from));
            prop_assert_eq!(tree.floor_near(near, edit.to), tree.floor(edit.to));
            prop_assert_eq!(tree.get(near), floor.map(|(&key, value)| (key, value)));
        }
        prop_assert_eq!(tree.entries(), model.into_iter().collect::<Vec<_>>());
    }
}

/// Deep enough for three levels of nodes, emptied in an order that has to merge and share inner nodes.
#[test]
fn grows_and_shrinks_through_levels() {
    let count = if cfg!(miri) { 5_000 } else { 400_000u64 };
    let mut tree = Tree::new();
    let mix = |i: u64| (i * 7919) % count;
    for i in 0..count {
        tree.edit(mix(i), mix(i) + 1, &[(mix(i), ())]);
    }
    tree.check();
    for i in (0..count).filter(|i| i % 50 != 0) {
        tree.edit(i, i + 1, &[]);
        if i % 20_001 == 0 {
            tree.check();
        }
    }
    assert_eq!(tree.len(), (count / 50) as usize);
    let leaves = tree.check();
    assert!(leaves <= tree.len() * 2 / MERGE + 2 + leaves / 16, "{leaves} leaves for {}", tree.len());
    tree.edit(0, count, &[]);
    assert_eq!((tree.len(), tree.check(), tree.height), (0, 1, 0));
}

#[test]
fn sequential_inserts_fill_leaves() {
    for descending in [false, true] {
        let mut tree = Tree::new();
        for i in 0..64 * 100u64 {
            let key = if descending { 10_000 - i } else { i };
            tree.edit(key, key + 1, &[(key, i)]);
        }
        assert_eq!(tree.check(), 100);
    }
}

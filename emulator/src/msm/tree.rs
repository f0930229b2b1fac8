//! The mappings of a VM as the kernel's tree has them, ahead of the page table: a plain map by address.
//!
//! An operation changes the tree at once and leaves behind the steps that a job will take through the page table.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::drm::gem::Object;
use crate::vm::{Action, Operation};

/// What a bind operation asks for.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Unmap,
    Map {
        object: Arc<Object>,
        offset: u64,
        /// To be in crash dumps.
        dump: bool,
    },
    MapNull,
}

/// A mapping.
#[derive(Clone, Debug)]
struct Mapping {
    len: u64,
    /// The object and the offset in it; nothing for a null mapping.
    object: Option<(Arc<Object>, u64)>,
    dump: bool,
}

impl Mapping {
    /// The part from `from` bytes on, `len` long.
    fn part(&self, from: u64, len: u64) -> Self {
        let object = self.object.as_ref().map(|(object, offset)| (object.clone(), offset + from));
        Self { len, object, dump: self.dump }
    }
}

/// The mappings of a VM, by address. Bytes, page-aligned.
#[derive(Default)]
pub(super) struct Tree(BTreeMap<u64, Mapping>);

impl Tree {
    /// Changes the mappings of `va..va + len`, and appends what the page table will have to follow.
    pub(super) fn apply(&mut self, va: u64, len: u64, request: &Request, steps: &mut Vec<Operation>) {
        if len == 0 {
            return;
        }
        if let Request::Map { object, offset, dump } = request
            && let Some(there) = self.0.get_mut(&va)
            && there.len == len
            && there.object.as_ref().is_some_and(|(o, at)| Arc::ptr_eq(o, object) && at == offset)
        {
            // An in-place remap, by which drivers change the flags: the page table stays as it is.
            there.dump = *dump;
            return;
        }
        self.cut(va, va + len, steps);
        let (object, dump, action) = match request {
            Request::Unmap => return,
            Request::MapNull => (None, false, Action::MapSparse),
            Request::Map { object, offset, dump } => {
                let readonly = object.attributes.flags & kmd::uapi::msm::BO_GPU_READONLY != 0;
                let action = Action::Map { object: object.clone(), offset: *offset, readonly };
                (Some((object.clone(), *offset)), *dump, action)
            }
        };
        self.0.insert(va, Mapping { len, object, dump });
        steps.push(Operation { va, len, action });
    }

    /// Whether something of `object` is mapped.
    pub(super) fn maps(&self, object: &Arc<Object>) -> bool {
        self.0.values().any(|m| m.object.as_ref().is_some_and(|(mapped, _)| Arc::ptr_eq(mapped, object)))
    }

    /// Takes `start..end` out of every mapping, each by a step of its own.
    fn cut(&mut self, start: u64, end: u64, steps: &mut Vec<Operation>) {
        let first = self.0.range(..=start).next_back().map_or(start, |(va, _)| *va);
        let hit: Vec<u64> =
            self.0.range(first..end).filter(|(va, m)| *va + m.len > start).map(|(va, _)| *va).collect();
        for va in hit {
            let Some(old) = self.0.remove(&va) else { continue };
            let (from, to) = (va.max(start), (va + old.len).min(end));
            if va < from {
                self.0.insert(va, old.part(0, from - va));
            }
            if to < va + old.len {
                self.0.insert(to, old.part(to - va, va + old.len - to));
            }
            steps.push(Operation { va: from, len: to - from, action: Action::Unmap });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u64 = 4096;

    /// Steps as (is a map, page, pages).
    fn run(tree: &mut Tree, page: u64, pages: u64, request: Request) -> Vec<(bool, u64, u64)> {
        let mut steps = Vec::new();
        tree.apply(page * P, pages * P, &request, &mut steps);
        steps.iter().map(|s| (!matches!(s.action, Action::Unmap), s.va / P, s.len / P)).collect()
    }

    #[test]
    fn splits_as_the_kernel_does() {
        let mut tree = Tree::default();
        assert_eq!(run(&mut tree, 10, 10, Request::MapNull), [(true, 10, 10)]);
        assert_eq!(run(&mut tree, 13, 2, Request::Unmap), [(false, 13, 2)]);
        assert_eq!(run(&mut tree, 13, 2, Request::Unmap), []);
        // Over the end of one, the gap, and the start of the next.
        assert_eq!(run(&mut tree, 12, 5, Request::MapNull), [(false, 12, 1), (false, 15, 2), (true, 12, 5)]);
        let at: Vec<_> = tree.0.iter().map(|(va, m)| (va / P, m.len / P)).collect();
        assert_eq!(at, [(10, 2), (12, 5), (17, 3)]);
        // The kernel keeps no null mapping in place.
        assert_eq!(run(&mut tree, 12, 5, Request::MapNull), [(false, 12, 5), (true, 12, 5)]);
        assert_eq!(run(&mut tree, 12, 0, Request::MapNull), []);
    }
}

//! Joining what continues, and trimming it to what differs.

use crate::mapping::{Body, View};
use crate::tree::{Cursor, Leaf};
use crate::vm_bo::NONE;
use crate::{Op, OpKind, VaRange};

/// A piece of wanted content that continues in address and content, and where it differs from what is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<O> {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) kind: OpKind<O>,
    /// First and behind last differing byte; empty (first above last) while nothing differs.
    first: u64,
    last: u64,
}

impl<O: Copy + Eq> Run<O> {
    pub(crate) fn new(start: u64, end: u64, kind: OpKind<O>) -> Self {
        Self { start, end, kind, first: u64::MAX, last: 0 }
    }

    /// Takes the piece in if it continues the run.
    pub(crate) fn try_extend(&mut self, start: u64, end: u64, kind: OpKind<O>) -> bool {
        let joins = self.end == start && self.kind.advance(start - self.start) == kind;
        if joins {
            self.end = end;
        }
        joins
    }

    /// Notes that `start..end`, a part of the run, is not there yet. Parts come in order.
    pub(crate) fn differs(&mut self, start: u64, end: u64) {
        self.first = self.first.min(start);
        self.last = end;
    }

    /// The one operation that makes the run true; none where it is.
    pub(crate) fn op(&self) -> Option<Op<O>> {
        (self.first < self.last).then(|| Op {
            range: VaRange::span(self.first, self.last),
            kind: self.kind.advance(self.first - self.start),
        })
    }
}

/// Reads what is mapped, holes included, best in the order of addresses.
pub(crate) struct Content<'a, O> {
    view: View<'a, O>,
    cursor: Cursor,
    /// The leaf that the cursor is in, and what of the addresses around it has no other: from its first mapping on,
    /// or from 0, up to the first one of the next leaf.
    leaf: &'a Leaf<Body>,
    low: u64,
    high: u64,
}

impl<'a, O: Copy + Eq> Content<'a, O> {
    pub(crate) fn new(view: View<'a, O>) -> Self {
        let cursor = view.tree.first();
        let (leaf, low, high) = view.tree.leaf(cursor);
        Self { view, cursor, leaf, low, high }
    }

    /// Gives what is mapped in `start..end`, piece by piece and without a gap.
    pub(crate) fn pieces(&mut self, start: u64, end: u64, mut piece: impl FnMut(u64, u64, OpKind<O>)) {
        let objects = self.view.objects;
        self.parts(start, end, |from, to, mapping| {
            let show = |(key, body): (u64, &Body)| body.target(objects).advance(from - key).into();
            piece(from, to, mapping.map_or(OpKind::Unmap, show));
        });
    }

    /// Says part by part and without a gap whether `start..end` differs from what `kind` shows from `start` on.
    #[inline]
    pub(crate) fn compare(
        &mut self,
        start: u64,
        end: u64,
        kind: OpKind<O>,
        mut part: impl FnMut(u64, u64, bool),
    ) {
        let objects = self.view.objects;
        self.parts(start, end, |from, to, mapping| part(from, to, !shows(mapping, kind, start, objects)));
    }

    /// Whether `start..end` is as `kind` has it from `start` on.
    #[inline]
    pub(crate) fn is(&mut self, start: u64, end: u64, kind: OpKind<O>) -> bool {
        match self.one_part(start, end) {
            Some(mapping) => shows(mapping, kind, start, self.view.objects),
            None => self.is_in_parts(start, end, kind),
        }
    }

    #[inline(never)]
    fn is_in_parts(&mut self, start: u64, end: u64, kind: OpKind<O>) -> bool {
        if kind != OpKind::Unmap {
            return self.shows(start, end, kind);
        }
        let mut is_hole = true;
        self.many_parts(start, end, |_, _, mapping| is_hole &= mapping.is_none());
        is_hole
    }

    /// Whether all of `start..end` is mapped and shows what `kind` shows from `start` on.
    pub(crate) fn shows(&mut self, start: u64, end: u64, kind: OpKind<O>) -> bool {
        let mut at = start;
        let View { tree, objects } = self.view;
        let mut last = tree.floor_near(self.cursor, start);
        tree.scan(last, |cursor, key, body| {
            if body.end > at {
                if key > at || !shows(Some((key, body)), kind, start, objects) {
                    return false;
                }
                (last, at) = (cursor, body.end);
            }
            at < end
        });
        self.go(last);
        at >= end
    }

    fn go(&mut self, to: Cursor) {
        self.cursor = to;
        (self.leaf, self.low, self.high) = self.view.tree.leaf(to);
    }

    /// Gives the parts of `start..end` that belong to one mapping each, and those that belong to none.
    #[inline]
    fn parts(&mut self, start: u64, end: u64, mut part: impl FnMut(u64, u64, Option<(u64, &Body)>)) {
        match self.one_part(start, end) {
            Some(mapping) => part(start, end, mapping),
            None => self.many_parts(start, end, part),
        }
    }

    #[inline(never)]
    fn many_parts(&mut self, start: u64, end: u64, mut part: impl FnMut(u64, u64, Option<(u64, &Body)>)) {
        let mut at = start;
        let tree = self.view.tree;
        let mut last = tree.floor_near(self.cursor, start);
        tree.scan(last, |cursor, key, body| {
            if key >= end {
                return false;
            }
            last = cursor;
            if body.end > at {
                if key > at {
                    part(at, key, None);
                    at = key;
                }
                let stop = body.end.min(end);
                part(at, stop, Some((key, body)));
                at = stop;
            }
            at < end
        });
        self.go(last);
        if at < end {
            part(at, end, None);
        }
    }

    /// The short way for one part right here or next, in the leaf: in the mapping at the cursor, in the one behind it, or
    /// in the hole beside one of the two.
    #[inline]
    fn one_part(&mut self, start: u64, end: u64) -> Option<Option<(u64, &'a Body)>> {
        let leaf = self.leaf;
        self.cursor.step(leaf.key(self.cursor.index() + 1) <= start);
        let index = self.cursor.index();
        let key = leaf.key(index);
        if start < key {
            return (self.low <= start && index == 0 && end <= key.min(self.high)).then_some(None);
        }
        let body = leaf.value(index);
        if end <= body.end {
            return Some(Some((key, body)));
        }
        (body.end <= start && end <= leaf.key(index + 1).min(self.high)).then_some(None)
    }
}

/// Whether a mapping, or none, shows what `kind` shows from `start` on.
#[inline]
fn shows<O: Copy + Eq>(mapping: Option<(u64, &Body)>, kind: OpKind<O>, start: u64, objects: &[O]) -> bool {
    match (mapping, kind) {
        (Some((key, body)), OpKind::Map { object, offset }) => {
            // Where the object begins, or would.
            body.offset.wrapping_sub(key) == offset.wrapping_sub(start)
                && objects.get(body.bo as usize) == Some(&object)
        }
        (Some((_, body)), OpKind::Null) => body.bo == NONE,
        (mapping, OpKind::Unmap) => mapping.is_none(),
        (None, _) => false,
    }
}

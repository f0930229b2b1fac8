//! Joining what continues, and trimming it to what differs.

use crate::mapping::{Body, View};
use crate::tree::Cursor;
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
}

impl<'a, O: Copy + Eq> Content<'a, O> {
    pub(crate) fn new(view: View<'a, O>) -> Self {
        Self { view, cursor: view.tree.first() }
    }

    /// Gives what is mapped in `start..end`, piece by piece and without a gap.
    pub(crate) fn pieces(&mut self, start: u64, end: u64, mut piece: impl FnMut(u64, u64, OpKind<O>)) {
        if let Some(present) = self.one_piece(start, end) {
            return piece(start, end, present);
        }
        let mut at = start;
        let View { tree, objects } = self.view;
        let mut last = tree.floor_near(self.cursor, start);
        tree.scan(last, |cursor, key, body| {
            if key >= end {
                return false;
            }
            last = cursor;
            if body.end > at {
                if key > at {
                    piece(at, key, OpKind::Unmap);
                    at = key;
                }
                let stop = body.end.min(end);
                piece(at, stop, body.target(objects).advance(at - key).into());
                at = stop;
            }
            at < end
        });
        self.cursor = last;
        if at < end {
            piece(at, end, OpKind::Unmap);
        }
    }

    /// The short way for one piece right here or next: in the mapping at the cursor, in the one behind it, or in the
    /// hole between the two.
    #[inline]
    pub(crate) fn one_piece(&mut self, start: u64, end: u64) -> Option<OpKind<O>> {
        let View { tree, objects } = self.view;
        let within = |key: u64, body: &Body| key <= start && end <= body.end;
        let next = tree.next(self.cursor);
        let behind = tree.get(next);
        if let Some((key, body)) = behind
            && within(key, &body)
        {
            self.cursor = next;
            return Some(body.target(objects).advance(start - key).into());
        }
        // There is nothing at the cursor only where there is nothing at all.
        let Some((key, body)) = tree.get(self.cursor) else { return Some(OpKind::Unmap) };
        if within(key, &body) {
            return Some(body.target(objects).advance(start - key).into());
        }
        let hole = key <= start && body.end <= start && behind.is_none_or(|(key, _)| end <= key);
        hole.then_some(OpKind::Unmap)
    }

    /// Whether all of `start..end` is mapped and shows what `kind` shows from `start` on.
    pub(crate) fn shows(&mut self, start: u64, end: u64, kind: OpKind<O>) -> bool {
        let mut at = start;
        let View { tree, objects } = self.view;
        self.cursor = tree.floor_near(self.cursor, start);
        tree.scan(self.cursor, |_, key, body| {
            if body.end > at {
                if key > at || kind.advance(at - start) != body.target(objects).advance(at - key).into() {
                    return false;
                }
                at = body.end;
            }
            at < end
        });
        at >= end
    }
}

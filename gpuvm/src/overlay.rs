//! Laying requests over each other: later beats earlier, the result is disjoint and in the order of addresses.

use std::collections::BinaryHeap;

use crate::OpKind;

/// One request, or several that continue each other and came one after the other.
#[derive(Clone, Copy, Debug)]
struct Piece<O> {
    start: u64,
    end: u64,
    kind: OpKind<O>,
}

/// A batch of requests in the order in which they came. All buffers stay allocated from batch to batch.
#[derive(Clone, Debug)]
pub(crate) struct Overlay<O> {
    pieces: Vec<Piece<O>>,
    /// Whether every piece starts at or behind the end of those before it.
    sorted: bool,
    /// Start and index of each piece, to be sorted without moving the pieces.
    order: Vec<(u64, u32)>,
    /// Index and end of the pieces over the current address; the greatest index is the one on top.
    open: BinaryHeap<(u32, u64)>,
}

impl<O: Copy + Eq> Overlay<O> {
    pub(crate) fn new() -> Self {
        Self { pieces: Vec::new(), sorted: true, order: Vec::new(), open: BinaryHeap::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.sorted = true;
    }

    /// Lays a request over those before it.
    #[inline]
    pub(crate) fn push(&mut self, start: u64, end: u64, kind: OpKind<O>) {
        if let Some(last) = self.pieces.last_mut() {
            if last.end == start && last.kind.advance(start - last.start) == kind {
                last.end = end;
                return;
            }
            self.sorted &= start >= last.end;
        }
        self.pieces.push(Piece { start, end, kind });
    }

    /// Whether the requests came in the order of addresses, and each `is_true`.
    #[inline]
    pub(crate) fn all_in_order(&self, mut is_true: impl FnMut(u64, u64, OpKind<O>) -> bool) -> bool {
        self.sorted && self.pieces.iter().all(|piece| is_true(piece.start, piece.end, piece.kind))
    }

    /// Gives what can be seen from above, in the order of addresses, and says whether a request hid (part of)
    /// another.
    pub(crate) fn visit(&mut self, mut seen: impl FnMut(u64, u64, OpKind<O>)) -> bool {
        if self.sorted {
            for piece in &self.pieces {
                seen(piece.start, piece.end, piece.kind);
            }
            return false;
        }
        self.order.clear();
        self.order.extend(self.pieces.iter().zip(0u32..).map(|(piece, index)| (piece.start, index)));
        self.order.sort_unstable_by_key(|&(start, _)| start);
        self.sweep(&mut seen)
    }

    /// Moves from boundary to boundary with the open pieces on a heap; a piece that ended leaves the heap when it
    /// comes to the top. What is alone never gets there.
    fn sweep(&mut self, seen: &mut dyn FnMut(u64, u64, OpKind<O>)) -> bool {
        let mut coming = self.order.iter().copied().peekable();
        let (mut at, mut overlapped) = (0, false);
        self.open.clear();
        loop {
            if self.open.is_empty() {
                let Some((start, index)) = coming.next() else { return overlapped };
                let &Piece { end, kind, .. } = &self.pieces[index as usize];
                if coming.peek().is_none_or(|&(next, _)| end <= next) {
                    seen(start, end, kind);
                    continue;
                }
                overlapped = true;
                at = start;
                self.open.push((index, end));
            }
            while let Some((_, index)) = coming.next_if(|&(start, _)| start <= at) {
                self.open.push((index, self.pieces[index as usize].end));
            }
            let Some(&(index, end)) = self.open.peek() else { continue };
            if end <= at {
                self.open.pop();
                continue;
            }
            let stop = coming.peek().map_or(end, |&(start, _)| end.min(start));
            let piece = &self.pieces[index as usize];
            seen(at, stop, piece.kind.advance(at - piece.start));
            at = stop;
        }
    }
}

//! Wanted content that continues, and the operations that make it true.

use crate::cover::{Cover, Piece, Prices};
use crate::run::{Content, Run};
use crate::{Op, OpKind, Policy, VaRange};

/// What a policy means for lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    prices: Prices,
    /// What unmaps cost.
    of_unmaps: Prices,
    remap_in_use: bool,
    longest_bridge: u64,
}

impl Rules {
    pub(crate) fn new(policy: &Policy) -> Self {
        let prices = Prices::new(policy);
        Self {
            prices,
            of_unmaps: prices.of_unmaps(),
            remap_in_use: policy.remap_in_use,
            longest_bridge: prices.longest_bridge(),
        }
    }
}

/// Addresses without a gap whose content, as it shall be, continues: an object with offsets in line, null mappings,
/// or nothing. They were wanted, or are mappings between what was wanted that show already what the line continues
/// with.
#[derive(Clone, Debug)]
pub(crate) struct Line<O> {
    start: u64,
    end: u64,
    kind: OpKind<O>,
    /// In turn what differs from what is mapped and what does not.
    pieces: Vec<Piece>,
    /// The end of the line before.
    floor: u64,
    cover: Cover,
}

impl<O: Copy + Eq> Line<O> {
    pub(crate) fn new() -> Self {
        let (pieces, cover) = (Vec::new(), Cover::default());
        Self { start: 0, end: 0, kind: OpKind::Unmap, pieces, floor: 0, cover }
    }

    /// Forgets where the line before was: the next one may be anywhere.
    pub(crate) fn restart(&mut self) {
        (self.start, self.end, self.kind, self.floor) = (0, 0, OpKind::Unmap, 0);
    }

    /// Takes in a run, behind those before it. The operations of a line are given when it is known that the run
    /// does not continue it. Kept out of what is done for every piece.
    #[inline(never)]
    pub(crate) fn add(
        &mut self,
        run: &Run<O>,
        content: &mut Content<'_, O>,
        rules: &Rules,
        ops: &mut Vec<Op<O>>,
    ) {
        if rules.remap_in_use && self.reaches(run, content, rules) {
            self.push(self.end, run.start, false);
        } else {
            self.finish(run.start, content, rules, ops);
            (self.start, self.kind) = (run.start, run.kind);
        }
        self.end = run.end;
        content.compare(run.start, run.end, run.kind, |from, to, differs| self.push(from, to, differs));
    }

    #[inline]
    fn push(&mut self, start: u64, end: u64, differs: bool) {
        match self.pieces.last_mut() {
            Some(last) if last.differs == differs => last.end = end,
            _ => self.pieces.push(Piece { start, end, differs }),
        }
    }

    /// What shall be at `va`, in the line or next to it.
    fn at(&self, va: u64) -> OpKind<O> {
        self.kind.advance(va.wrapping_sub(self.start))
    }

    /// Whether the run continues the line with nothing in between that would have to change. Holes are no bridges:
    /// in the VM of a driver something may be there that nobody told us of.
    fn reaches(&self, run: &Run<O>, content: &mut Content<'_, O>, rules: &Rules) -> bool {
        run.kind != OpKind::Unmap
            && run.start - self.end <= rules.longest_bridge
            && self.at(run.start) == run.kind
            && content.shows(self.end, run.start, self.at(self.end))
    }

    /// Gives the operations of the line and leaves it empty. Nothing is wanted from its end up to `next`.
    #[inline]
    pub(crate) fn finish(
        &mut self,
        next: u64,
        content: &mut Content<'_, O>,
        rules: &Rules,
        ops: &mut Vec<Op<O>>,
    ) {
        let floor = core::mem::replace(&mut self.floor, self.end);
        self.pieces.pop_if(|last| !last.differs);
        if !self.pieces.is_empty() {
            self.give(floor..next, content, rules, ops);
            self.pieces.clear();
        }
    }

    /// Gives the operations of a line that ends with what differs. Around it what is in `free` was not wanted.
    #[inline(never)]
    fn give(
        &mut self,
        free: core::ops::Range<u64>,
        content: &mut Content<'_, O>,
        rules: &Rules,
        ops: &mut Vec<Op<O>>,
    ) {
        let prices = if self.kind == OpKind::Unmap { &rules.of_unmaps } else { &rules.prices };
        let in_line = self.is_in_line(prices.block);
        if in_line && prices.rewards_blocks() {
            self.complete_blocks(free, content, rules);
        } else if !self.pieces[0].differs {
            self.pieces[0].start = self.pieces[0].end;
        }
        self.cover(prices, in_line, ops);
    }

    /// Lets the line begin and end, where that is not with what differs, at multiples of a block, as far as what is there already may be
    /// mapped again.
    fn complete_blocks(&mut self, free: core::ops::Range<u64>, content: &mut Content<'_, O>, rules: &Rules) {
        let block = rules.prices.block;
        let begins = self.pieces[0].differs;
        let first = if begins { self.pieces[0].start } else { self.pieces[0].end };
        let last = self.pieces[self.pieces.len() - 1].end;
        let mut may = |from: u64, to: u64| {
            from >= to
                || (rules.remap_in_use
                    && free.start <= from
                    && to <= free.end
                    && content.shows(from, to, self.at(from)))
        };
        let head = first & !(block - 1);
        let head = if may(head, self.start) { head } else { first };
        let tail = last.checked_next_multiple_of(block).filter(|&tail| may(self.end, tail)).unwrap_or(last);
        if !begins {
            self.pieces[0].start = head;
        } else if head < first {
            self.pieces.insert(0, Piece { start: head, end: first, differs: false });
        }
        if tail > last {
            self.pieces.push(Piece { start: last, end: tail, differs: false });
        }
    }

    /// Whether blocks of the line can be mapped as a whole.
    fn is_in_line(&self, block: u64) -> bool {
        match self.kind {
            OpKind::Map { offset, .. } => offset.wrapping_sub(self.start) & (block - 1) == 0,
            OpKind::Null => true,
            OpKind::Unmap => false,
        }
    }

    fn cover(&mut self, prices: &Prices, in_line: bool, ops: &mut Vec<Op<O>>) {
        let (start, kind) = (self.start, self.kind);
        let op = |from: u64, to: u64| Op {
            range: VaRange::span(from, to),
            kind: kind.advance(from.wrapping_sub(start)),
        };
        let head = self.pieces[0];
        let pieces = &self.pieces[usize::from(head.start == head.end)..];
        if let &[Piece { start, end, .. }] = pieces {
            ops.push(op(start, end));
        } else {
            let done = ops.len();
            ops.extend(self.cover.operations(pieces, prices, in_line).map(|(from, to)| op(from, to)));
            ops[done..].reverse();
        }
    }
}

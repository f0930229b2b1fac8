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
    /// The other half of what the sort moves things between.
    sorting: Vec<(u64, u32)>,
    /// Index and end of the pieces over the current address; the greatest index is the one on top.
    open: BinaryHeap<(u32, u64)>,
}

impl<O: Copy + Eq> Overlay<O> {
    pub(crate) fn new() -> Self {
        Self {
            pieces: Vec::new(),
            sorted: true,
            order: Vec::new(),
            sorting: Vec::new(),
            open: BinaryHeap::new(),
        }
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
        sort(&mut self.order, &mut self.sorting);
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

/// Bits of an address that a pass of [`sort`] looks at, at most.
const DIGIT: u32 = 11;
/// Requests from which on a pass is cheaper than comparisons.
const LEAST: usize = 128;

/// Sorts by address: digit by digit from the lowest up, of those in which the addresses differ. Batches are of one resource, mostly, so
/// these are few, and a pass costs less than a comparison of each with some others. `other` is for the memory.
fn sort(order: &mut Vec<(u64, u32)>, other: &mut Vec<(u64, u32)>) {
    let Some(&(first, _)) = order.first() else { return };
    let differing = order.iter().fold(0, |bits, &(start, _)| bits | (start ^ first));
    let low = differing.trailing_zeros();
    let bits = (u64::BITS - differing.leading_zeros()).saturating_sub(low);
    let passes = bits.div_ceil(DIGIT);
    if order.len() < LEAST * passes as usize {
        order.sort_unstable_by_key(|&(start, _)| start);
        return;
    }
    other.clear();
    other.resize(order.len(), (0, 0));
    for pass in 0..passes {
        let width = bits.div_ceil(passes);
        let digit = |start: u64| (start >> (low + pass * width)) as usize % (1 << width);
        let mut places = [0_u32; 1 << DIGIT];
        order.iter().for_each(|&(start, _)| places[digit(start)] += 1);
        let mut before = 0;
        places.iter_mut().for_each(|place| before += core::mem::replace(place, before));
        for &piece in &*order {
            let place = &mut places[digit(piece.0)];
            other[*place as usize] = piece;
            *place += 1;
        }
        core::mem::swap(order, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorts_whatever_differs(
            base in any::<u64>(),
            shift in 0_u32..60,
            bits in 0_u32..64,
            count in 0_usize..2000,
            seed in any::<u64>(),
        ) {
            let mut state = seed;
            let mut order: Vec<_> = (0..count as u32).map(|index| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (base.wrapping_add(((state >> 1) & ((1 << bits) - 1)) << shift), index)
            }).collect();
            let mut expected = order.clone();
            // Requests for the same address stay in their order only where digits are sorted; nobody asks for it.
            expected.sort();
            sort(&mut order, &mut vec![(7, 7)]);
            prop_assert!(order.is_sorted_by_key(|&(start, _)| start));
            order.sort();
            prop_assert_eq!(order, expected);
        }
    }
}

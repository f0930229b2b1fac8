//! An allocator of ranges of numbers: file offsets of an arena, fake mmap offsets.

use std::collections::{BTreeMap, BTreeSet};

/// Hands out ranges below a limit, the tightest free one first.
#[derive(Debug)]
pub(crate) struct Ranges {
    /// Free ranges below `end`, by start.
    free: BTreeMap<u64, u64>,
    /// The same, by length.
    by_len: BTreeSet<(u64, u64)>,
    /// Everything from here on is free.
    end: u64,
    limit: u64,
}

impl Ranges {
    /// An allocator for `start..limit`.
    pub(crate) fn new(start: u64, limit: u64) -> Self {
        Self { free: BTreeMap::new(), by_len: BTreeSet::new(), end: start, limit }
    }

    fn insert(&mut self, start: u64, len: u64) {
        if len > 0 {
            self.free.insert(start, len);
            self.by_len.insert((len, start));
        }
    }

    fn remove(&mut self, start: u64, len: u64) {
        self.free.remove(&start);
        self.by_len.remove(&(len, start));
    }

    /// A range of `len` that starts at a multiple of `align` (a power of two); `None` when there is no room.
    pub(crate) fn alloc(&mut self, len: u64, align: u64) -> Option<u64> {
        let fits = |start: u64, room: u64| {
            let at = start.checked_next_multiple_of(align)?;
            (at.checked_add(len)? <= start + room).then_some(at)
        };
        let found =
            self.by_len.range((len, 0)..).find_map(|&(room, start)| Some((fits(start, room)?, start, room)));
        if let Some((at, start, room)) = found {
            self.remove(start, room);
            self.insert(start, at - start);
            self.insert(at + len, start + room - (at + len));
            return Some(at);
        }
        let at = self.end.checked_next_multiple_of(align)?;
        let end = at.checked_add(len).filter(|end| *end <= self.limit)?;
        let gap = (self.end, at - self.end);
        self.end = end;
        self.insert(gap.0, gap.1);
        Some(at)
    }

    /// Takes `len` from `start` on; `false` when some of it is not free.
    pub(crate) fn alloc_at(&mut self, start: u64, len: u64) -> bool {
        let Some(end) = start.checked_add(len).filter(|end| *end <= self.limit) else { return false };
        if start >= self.end {
            let (gap, room) = (self.end, start - self.end);
            self.end = end;
            self.insert(gap, room);
            return true;
        }
        let around = self.free.range(..=start).next_back().map(|(at, room)| (*at, *room));
        let Some((at, room)) = around.filter(|(at, room)| end <= at + room) else { return false };
        self.remove(at, room);
        self.insert(at, start - at);
        self.insert(end, at + room - end);
        true
    }

    /// Gives back what `alloc` or `alloc_at` returned.
    pub(crate) fn free(&mut self, start: u64, len: u64) {
        let (mut start, mut len) = (start, len);
        if let Some((&before, &room)) = self.free.range(..start).next_back()
            && before + room == start
        {
            self.remove(before, room);
            (start, len) = (before, len + room);
        }
        if let Some((&after, &room)) = self.free.range(start + len..).next()
            && start + len == after
        {
            self.remove(after, room);
            len += room;
        }
        if start + len == self.end {
            self.end = start;
        } else {
            self.insert(start, len);
        }
    }

    /// The end of the highest range in use, or free below one in use.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reuses_and_shrinks() {
        let mut ranges = Ranges::new(0, 100);
        let (a, b) = (ranges.alloc(10, 1).unwrap(), ranges.alloc(20, 16).unwrap());
        assert_eq!((a, b), (0, 16));
        assert_eq!(ranges.alloc(6, 2), Some(10));
        assert_eq!(ranges.alloc(70, 1), None);
        ranges.free(a, 10);
        assert_eq!(ranges.alloc(8, 1), Some(0));
        ranges.free(b, 20);
        assert_eq!(ranges.end(), 16);
    }

    #[test]
    fn takes_what_is_asked_for() {
        let mut ranges = Ranges::new(10, 100);
        assert!(ranges.alloc_at(50, 10) && !ranges.alloc_at(55, 10) && !ranges.alloc_at(45, 6));
        assert!(!ranges.alloc_at(95, 6) && !ranges.alloc_at(u64::MAX, 2) && !ranges.alloc_at(5, 6));
        assert!(ranges.alloc_at(20, 5) && ranges.alloc_at(10, 10) && ranges.alloc_at(60, 40));
        assert_eq!(ranges.alloc(25, 1), Some(25));
        assert_eq!(ranges.alloc(1, 1), None);
        for (start, len) in [(50, 10), (10, 10), (60, 40), (20, 5), (25, 25)] {
            ranges.free(start, len);
        }
        assert_eq!((ranges.end(), ranges.free.len()), (10, 0));
    }

    proptest! {
        #[test]
        fn ranges_never_overlap(ops in prop::collection::vec((1u64..40, 0u32..6, any::<bool>()), 1..200)) {
            let mut ranges = Ranges::new(3, 2000);
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (len, align, release) in ops {
                if release && !live.is_empty() {
                    let (start, len) = live.swap_remove(len as usize % live.len());
                    ranges.free(start, len);
                } else if let Some(at) = ranges.alloc(len, 1 << align) {
                    prop_assert_eq!(at % (1 << align), 0);
                    prop_assert!(at >= 3 && at + len <= 2000);
                    prop_assert!(live.iter().all(|(s, l)| at + len <= *s || s + l <= at));
                    live.push((at, len));
                }
            }
            for (start, len) in live.drain(..) {
                ranges.free(start, len);
            }
            prop_assert_eq!(ranges.end(), 3);
            prop_assert!(ranges.free.is_empty() && ranges.by_len.is_empty());
        }
    }
}

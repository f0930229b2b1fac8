//! What a VM is, page by page: slow, plain, and with nothing in common with the crate but its types.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use gpuvm::{Mapping, Op, OpKind, Target, VaRange};

pub const PAGE: u64 = 0x1000;

/// What one page shows; `None` is a hole.
pub type Page = Option<Target<u8>>;

pub fn pages(start: usize, end: usize) -> VaRange {
    VaRange::between(start as u64 * PAGE, end as u64 * PAGE).unwrap()
}

pub fn span(range: VaRange) -> std::ops::Range<usize> {
    (range.start / PAGE) as usize..(range.end() / PAGE) as usize
}

/// What page `index` of a range shows of what the first page shows.
pub fn nth(kind: OpKind<u8>, index: usize) -> Page {
    match kind {
        OpKind::Map { object, offset } => {
            Some(Target::Object { object, offset: offset.wrapping_add(index as u64 * PAGE) })
        }
        OpKind::Null => Some(Target::Null),
        OpKind::Unmap => None,
    }
}

/// Whether `next`, on the page behind `page`, continues it.
pub fn in_line(page: Page, next: Page) -> bool {
    match (page, next) {
        (Some(Target::Object { object: a, offset: x }), Some(Target::Object { object: b, offset: y })) => {
            a == b && y == x.wrapping_add(PAGE)
        }
        (a, b) => a == b,
    }
}

/// Whether `next` continues `op` in address and content, so that one operation could do both.
pub fn continues(op: &Op<u8>, next: &Op<u8>) -> bool {
    op.range.end() == next.range.start && op.kind.advance(op.range.len) == next.kind
}

/// Lays operations over pages.
pub fn paint(content: &mut [Page], ops: &[Op<u8>]) {
    for op in ops {
        for (index, page) in span(op.range).enumerate() {
            content[page] = nth(op.kind, index);
        }
    }
}

/// The fewest disjoint operations that turn `present` into `wanted` (`None`: not wanted, not to be touched), found
/// by trying every interval.
pub fn fewest(present: &[Page], wanted: &[Option<Page>]) -> usize {
    let mut best = vec![0usize; present.len() + 1];
    for end in 1..=present.len() {
        let last = end - 1;
        let right = wanted[last].is_none_or(|page| page == present[last]);
        best[end] = if right { best[last] } else { usize::MAX };
        for start in (0..end).rev() {
            let fits = wanted[start].is_some()
                && (start == last
                    || wanted[start].zip(wanted[start + 1]).is_some_and(|(page, next)| in_line(page, next)));
            if !fits {
                break;
            }
            best[end] = best[end].min(best[start] + 1);
        }
    }
    best[present.len()]
}

/// Pages with the mapping to which each belongs.
#[derive(Clone, Debug)]
pub struct Model {
    pub content: Vec<Page>,
    owner: Vec<u64>,
    owners: u64,
}

impl Model {
    pub fn new(count: usize) -> Self {
        Self { content: vec![None; count], owner: vec![0; count], owners: 0 }
    }

    pub fn apply(&mut self, op: &Op<u8>) {
        let range = span(op.range);
        let cut = (range.start > 0 && range.end < self.owner.len())
            .then(|| self.owner[range.start - 1])
            .filter(|&owner| owner != 0 && owner == self.owner[range.end]);
        if let Some(cut) = cut {
            self.owners += 1;
            for owner in &mut self.owner[range.end..] {
                if *owner == cut {
                    *owner = self.owners;
                }
            }
        }
        self.owners += 1;
        self.owner[range].fill(if op.kind == OpKind::Unmap { 0 } else { self.owners });
        paint(&mut self.content, &[*op]);
    }

    /// The mappings in order.
    pub fn mappings(&self) -> Vec<Mapping<u8>> {
        let mut mappings = Vec::new();
        let mut start = 0;
        for run in self.owner.chunk_by(|a, b| a == b) {
            if let Some(target) = self.content[start] {
                mappings.push(Mapping { range: pages(start, start + run.len()), target });
            }
            start += run.len();
        }
        mappings
    }
}

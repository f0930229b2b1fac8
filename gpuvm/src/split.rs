//! How a map or unmap request changes what is mapped: `drm_gpuvm_sm_map()` and `drm_gpuvm_sm_unmap()` of Linux 7.3
//! (drivers/gpu/drm/drm_gpuvm.c). Existing mappings are only ever split, never merged.

use crate::mapping::{Body, View};
use crate::tree::{Cursor, Seat};
use crate::{Mapping, Target, VaRange};

/// A mapping that leaves the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmapped<O> {
    /// The mapping as it was, all of it.
    pub mapping: Mapping<O>,
    /// The mapping shows the same bytes of the same object as the request does where the two overlap, so the page
    /// table entries there could stay. Never set for null mappings and in answer to an unmap request.
    pub keep: bool,
}

/// One step of a request, the `drm_gpuva_op` of the kernel. Steps come in the order of addresses, the
/// [`Step::Map`] last. A request gives any number of [`Step::Unmap`] and at most two [`Step::Remap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<O> {
    /// The request itself is mapped.
    Map(Mapping<O>),
    /// A mapping that reaches out of the request is replaced by what is left of it.
    Remap {
        /// What is left below the request.
        prev: Option<Mapping<O>>,
        /// What is left above the request.
        next: Option<Mapping<O>>,
        /// The mapping that is replaced.
        unmap: Unmapped<O>,
    },
    /// A mapping inside the request goes.
    Unmap(Unmapped<O>),
}

/// What the steps of a request change in the tree.
pub(crate) struct Edit {
    pub(crate) seat: Seat,
    /// The mapping that is cut short at the start of the request.
    pub(crate) prev: Option<Cursor>,
    /// Number of mappings that start in the request, which go.
    pub(crate) gone: usize,
    /// What is left of a mapping above the request, with that mapping's link.
    pub(crate) next: Option<Body>,
}

/// Walks what overlaps `range`, whose start has its seat at `seat`, and gives the steps that make it show `target`, or nothing where that is `None`.
/// Nothing changes until the edit is made.
#[inline]
pub(crate) fn walk<O: Copy + Eq>(
    View { tree, objects }: View<'_, O>,
    seat: Seat,
    range: VaRange,
    target: Option<Target<O>>,
    step: &mut impl FnMut(Step<O>),
) -> Edit {
    let (start, end) = (range.start, range.end());
    let mut edit = Edit { seat, prev: None, gone: 0, next: None };
    tree.scan(tree.before(seat), |cursor, key, body| {
        if key >= end {
            return false;
        }
        if body.end <= start {
            return true;
        }
        let old = body.at(key, objects);
        let prev = (key < start).then(|| old.part(key, start));
        let next = (body.end > end).then(|| old.part(end, body.end));
        let unmap = Unmapped { mapping: old, keep: target.is_some_and(|new| in_line(&old, start, new)) };
        if prev.is_some() || next.is_some() {
            step(Step::Remap { prev, next, unmap });
        } else {
            step(Step::Unmap(unmap));
        }
        if prev.is_some() {
            edit.prev = Some(cursor);
        } else {
            edit.gone += 1;
        }
        if next.is_some() {
            edit.next = Some(Body { offset: body.offset.wrapping_add(end - key), ..*body });
        }
        body.end < end
    });
    if let Some(target) = target {
        step(Step::Map(Mapping { range, target }));
    }
    edit
}

/// Whether `old` and a request for `target` at `start` show the same bytes of an object where they overlap.
pub(crate) fn in_line<O: Copy + Eq>(old: &Mapping<O>, start: u64, target: Target<O>) -> bool {
    let common = old.range.start.max(start);
    !old.target.is_null() && old.target.advance(common - old.range.start) == target.advance(common - start)
}

//! What comes out of the planner.

use crate::Op;

/// Operations for the kernel: disjoint, in the order of addresses. A plan is no promise: it may be tried on the
/// kernel, and then be committed to the VM as a whole, in part as far as the kernel came, or be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<O> {
    pub(crate) ops: Vec<Op<O>>,
    /// Number of wants that the plan satisfies.
    pub wanted: usize,
    /// Whether a want hid a part of an earlier one.
    pub overlapped: bool,
    pub(crate) max_ops: usize,
    /// Bytes of a page table whose operations stay together, where that matters.
    pub(crate) table: Option<u64>,
}

impl<O> Plan<O> {
    /// All operations.
    pub fn ops(&self) -> &[Op<O>] {
        &self.ops
    }

    /// Whether everything wanted is there already.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The operations in order, in pieces no longer than the policy's `max_ops`. Where operations share tables a
    /// piece ends between two tables, if that is possible without being empty.
    pub fn chunks(&self) -> impl Iterator<Item = &[Op<O>]> + '_ {
        let mut rest = &self.ops[..];
        core::iter::from_fn(move || {
            let (chunk, behind) = rest.split_at(self.cut(rest));
            rest = behind;
            (!chunk.is_empty()).then_some(chunk)
        })
    }

    /// Number of the first operations of `ops` that make a chunk.
    fn cut(&self, ops: &[Op<O>]) -> usize {
        let most = self.max_ops.min(ops.len());
        let Some(table) = self.table.filter(|_| most < ops.len()) else { return most };
        let parts = |&cut: &usize| (ops[cut - 1].range.end() - 1) / table != ops[cut].range.start / table;
        (1..=most).rev().find(parts).unwrap_or(most)
    }
}

impl<O> AsRef<[Op<O>]> for Plan<O> {
    fn as_ref(&self) -> &[Op<O>] {
        &self.ops
    }
}

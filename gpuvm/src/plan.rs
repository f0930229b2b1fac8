//! What comes out of the planner.

use crate::Op;

/// Operations for the kernel: disjoint, in the order of addresses.
///
/// A plan is no promise. It is tried on the kernel, and then committed to the VM, whole or as far as the kernel came,
/// or dropped as if it had not been made. It belongs to the VM as it was when the plan was made.
///
/// ```
/// # use gpuvm::{OpKind, Planner, Policy, VaRange, Vm};
/// # fn try_on_the_kernel(ops: &[gpuvm::Op<u32>]) -> usize { ops.len() - 1 }
/// let mut vm = Vm::<u32>::new(VaRange::new(0, 1 << 40)?, None)?;
/// let mut planner = Planner::new(Policy::default());
/// for page in [0, 2, 4] {
///     planner.want(VaRange::new(page * 0x1000, 0x1000)?, OpKind::Map { object: 7, offset: 0 })?;
/// }
/// // Everything that can be refused or needs memory comes before the kernel is asked.
/// let job = vm.prepare(planner.plan(&vm))?;
/// let accepted = try_on_the_kernel(job.ops());
/// let plan = vm.commit_first(job, accepted)?;
/// assert_eq!((vm.len(), plan.ops().len()), (2, 3));
/// planner.recycle(plan);
/// # Ok::<(), gpuvm::VmError>(())
/// ```
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

    /// The operations in order, in the fewest pieces that are no longer than the policy's `max_ops`. Where operations
    /// share tables a piece ends between two tables, if that takes no piece more.
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
        // What the other pieces cannot take.
        let least = ops.len() - (ops.len().div_ceil(most) - 1) * most;
        let parts = |&cut: &usize| (ops[cut - 1].range.end() - 1) / table != ops[cut].range.start / table;
        (least..=most).rev().find(parts).unwrap_or(most)
    }
}

impl<O> AsRef<[Op<O>]> for Plan<O> {
    fn as_ref(&self) -> &[Op<O>] {
        &self.ops
    }
}

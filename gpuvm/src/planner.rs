//! From wanted bindings to the fewest operations.

use crate::cover::power_of_two;
use crate::line::{Line, Rules};
use crate::overlay::Overlay;
use crate::run::{Content, Run};
use crate::{Op, OpKind, Plan, Policy, VaRange, Vm, VmError};

/// Collects wanted bindings and plans the operations that make them true. Its buffers stay allocated, so that once
/// warm neither a want nor a plan allocates but for the plan's own list, and not even that where old plans come
/// back through [`Planner::recycle`].
///
/// # What a plan does
/// * Wants count in the order in which they came: where two overlap, the later one is what is wanted.
/// * Wants that continue each other in address and content become one run: the same object with offsets in line,
///   null next to null, unmap next to unmap.
/// * A run that is there already gives no operation. Any other gives exactly one, from its first to its last byte
///   that differs from what is mapped; what is already right in between is mapped again, because an operation more
///   costs the kernel more than a longer one. To unmap what is not mapped is to be right already.
/// * The operations are disjoint and in the order of addresses, and touch no address that was not wanted.
///
/// Under these rules no plan with fewer operations exists.
#[derive(Clone, Debug)]
pub struct Planner<O> {
    policy: Policy,
    page_size: u64,
    rules: Rules,
    overlay: Overlay<O>,
    line: Line<O>,
    wanted: usize,
    spare: Vec<Op<O>>,
}

impl<O: Copy + Eq> Planner<O> {
    /// A planner for the kernel that `policy` describes. A page size that is not a power of two is rounded up to one.
    pub fn new(policy: Policy) -> Self {
        Self {
            page_size: power_of_two(policy.page_size),
            rules: Rules::new(&policy),
            policy,
            overlay: Overlay::new(),
            line: Line::new(),
            wanted: 0,
            spare: Vec::new(),
        }
    }

    /// The policy it plans by.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Adds a wanted binding on top of those before it.
    ///
    /// # Errors
    /// [`VmError::Empty`], [`VmError::Overflow`] and [`VmError::Misaligned`]. Whether the range is in the VM is for
    /// the VM to say; offsets wrap at 2^64, as the VM's do. A refused want is not in the plan, those before it are;
    /// [`Planner::clear`] drops them.
    #[inline]
    pub fn want(&mut self, range: VaRange, kind: OpKind<O>) -> Result<(), VmError> {
        let mut offset = 0;
        let mut kind = kind;
        match kind {
            OpKind::Map { offset: first, .. } => offset = first,
            OpKind::Null if !self.policy.null_mapping => kind = OpKind::Unmap,
            OpKind::Null | OpKind::Unmap => {}
        }
        if (range.start | range.len | offset) & (self.page_size - 1) != 0 || range.len == 0 {
            return Err(self.refusal(range, offset));
        }
        let Some(end) = range.start.checked_add(range.len) else {
            return Err(self.refusal(range, offset));
        };
        self.overlay.push(range.start, end, kind);
        self.wanted += 1;
        Ok(())
    }

    /// Why a want is refused; apart from the checks themselves, which are on the way of every bind.
    #[cold]
    fn refusal(&self, range: VaRange, offset: u64) -> VmError {
        if let Err(error) = range.check() {
            return error;
        }
        let page_size = self.page_size;
        let is_misaligned = |value: &u64| value & (page_size - 1) != 0;
        let value = [range.start, range.len].into_iter().find(is_misaligned).unwrap_or(offset);
        VmError::Misaligned { value, page_size }
    }

    /// Drops the wants since the last plan.
    pub fn clear(&mut self) {
        self.overlay.clear();
        self.wanted = 0;
    }

    /// The operations that turn what `vm` holds into what was wanted since the last plan. Neither changes `vm` nor
    /// remembers the plan: it takes effect with [`Vm::apply`], and is dropped by dropping it.
    pub fn plan(&mut self, vm: &Vm<O>) -> Plan<O> {
        let mut ops = core::mem::take(&mut self.spare);
        let mut content = Content::new(vm.tree());
        let mut run: Option<Run<O>> = None;
        let Self { line, rules, .. } = self;
        line.restart();
        // A run stays where it is until it is finished: moving it would be most of the work of a short one.
        let overlapped = self.overlay.visit(|start, end, kind| {
            if let Some(run) = &mut run {
                if run.try_extend(start, end, kind) {
                    return;
                }
                line.add(run, &mut content, rules, &mut ops);
            }
            run = Some(Run::new(start, end, kind));
        });
        if let Some(run) = &run {
            line.add(run, &mut content, rules, &mut ops);
        }
        line.finish(u64::MAX, &mut content, rules, &mut ops);
        let Policy { shares_tables, max_ops, .. } = self.policy;
        let table = if shares_tables { power_of_two(self.policy.block_size) } else { 0 };
        let plan = Plan { ops, wanted: self.wanted, overlapped, max_ops: max_ops.max(1), table };
        self.clear();
        plan
    }

    /// Takes back the memory of a plan that is done with.
    pub fn recycle(&mut self, plan: Plan<O>) {
        if plan.ops.capacity() > self.spare.capacity() {
            self.spare = plan.ops;
            self.spare.clear();
        }
    }
}

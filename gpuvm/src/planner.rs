//! From wanted bindings to the cheapest operations.

use crate::line::{Line, Rules};
use crate::overlay::Overlay;
use crate::run::{Content, Run};
use crate::{Driver, Op, OpKind, Plan, Policy, VaRange, Vm, VmError};

/// Collects wanted bindings and plans the operations that make them true. Its buffers stay allocated, so that once
/// warm neither a want nor a plan allocates but for the plan's own list, and not even that where old plans come
/// back through [`Planner::recycle`].
///
/// # What a plan does
/// * Wants count in the order in which they came: where two overlap, the later one is what is wanted.
/// * Wants that continue each other in address and content become one run: the same object with offsets in line,
///   null next to null, unmap next to unmap.
/// * A run that is there already gives no operation; to unmap what is not mapped is to be right already. Of any other,
///   all that differs from what is mapped is in an operation, and what does not differ is where that is cheaper than
///   another operation.
/// * With [`Policy::remap_in_use`] an operation that is needed may reach over mappings next to what was wanted, or
///   join two over mappings between them, where those show already, byte for byte, what it maps. It never reaches
///   over a hole. Without, no address is touched that was not wanted.
/// * The operations are disjoint, in the order of addresses, and none continues the one before it.
///
/// Under these rules no plan costs less, in the terms of [`Cost`](crate::Cost).
#[derive(Clone, Debug)]
pub struct Planner<O> {
    policy: Policy,
    rules: Rules,
    overlay: Overlay<O>,
    line: Line<O>,
    wanted: usize,
    spare: Vec<Op<O>>,
}

impl<O: Copy + Eq> Planner<O> {
    /// A planner for the kernel that `policy` describes.
    pub fn new(policy: Policy) -> Self {
        let policy = policy.in_force();
        Self {
            rules: Rules::new(&policy),
            policy,
            overlay: Overlay::new(),
            line: Line::new(),
            wanted: 0,
            spare: Vec::new(),
        }
    }

    /// The policy it plans by, its values rounded to what they count as.
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
        if (range.start | range.len | offset) & (self.policy.page_size - 1) != 0 || range.len == 0 {
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
        let page_size = self.policy.page_size;
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
    /// remembers the plan, see [`Plan`].
    pub fn plan<D: Driver>(&mut self, vm: &Vm<O, D>) -> Plan<O> {
        let mut ops = core::mem::take(&mut self.spare);
        let mut content = Content::new(vm.tree());
        let overlapped = self.lay_out(&mut content, &mut ops);
        let Policy { shares_tables, max_ops, block_size, .. } = self.policy;
        let table = shares_tables.then_some(block_size);
        let plan = Plan { ops, wanted: self.wanted, overlapped, max_ops, table };
        self.clear();
        plan
    }

    /// Gives the operations, and says whether wants overlap.
    fn lay_out(&mut self, content: &mut Content<'_, O>, ops: &mut Vec<Op<O>>) -> bool {
        let Self { line, rules, .. } = self;
        let mut run: Option<Run<O>> = None;
        line.restart();
        // A run stays where it is until it is finished: moving it would be most of the work of a short one.
        let overlapped = self.overlay.visit(|start, end, kind| {
            if let Some(run) = &mut run {
                if run.try_extend(start, end, kind) {
                    return;
                }
                line.add(run, content, rules, ops);
            }
            run = Some(Run::new(start, end, kind));
        });
        if let Some(run) = &run {
            line.add(run, content, rules, ops);
        }
        line.finish(u64::MAX, content, rules, ops);
        overlapped
    }

    /// Takes back the memory of a plan that is done with.
    pub fn recycle(&mut self, plan: Plan<O>) {
        if plan.ops.capacity() > self.spare.capacity() {
            self.spare = plan.ops;
            self.spare.clear();
        }
    }
}

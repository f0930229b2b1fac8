//! The mirror of a VM.

use core::fmt;
use core::mem::size_of;

use crate::mapping::Body;
use crate::overlay::Overlay;
use crate::run::{Content, Run};
use crate::split::{Step, walk};
use crate::tree::{Cursor, Tree};
use crate::{Mapping, Op, Target, VaRange, VmError};

/// What is mapped in one GPU virtual address space, mapping by mapping as the kernel's `drm_gpuvm` has it.
///
/// `O` names an object. The memory is [`Vm::memory_bytes`]; with a 4 byte `O` it is 35 bytes a mapping after
/// sequential binds and about 51 after random ones. Every operation costs O(log n) of what is mapped plus what it
/// touches.
#[derive(Clone)]
pub struct Vm<O> {
    range: VaRange,
    reserved: Option<VaRange>,
    tree: Tree<Body<O>>,
}

impl<O: Copy + Eq> Vm<O> {
    /// A VM of the addresses `range`, of which the kernel keeps `reserved` for itself. As in `drm_gpuvm_init()` the
    /// reserved range may be anywhere.
    ///
    /// # Errors
    /// [`VmError::Empty`] and [`VmError::Overflow`] where one of the two is not valid.
    pub fn new(range: VaRange, reserved: Option<VaRange>) -> Result<Self, VmError> {
        let reserved = reserved.map(VaRange::check).transpose()?;
        Ok(Self { range: range.check()?, reserved, tree: Tree::new() })
    }

    /// All addresses of the VM.
    pub fn range(&self) -> VaRange {
        self.range
    }

    /// The part that the kernel keeps for itself.
    pub fn reserved(&self) -> Option<VaRange> {
        self.reserved
    }

    /// Whether requests for `range` are accepted: `drm_gpuvm_range_valid()`, and the size is not zero, which every
    /// driver checks on its own.
    ///
    /// # Errors
    /// In this order [`VmError::Empty`], [`VmError::Overflow`], [`VmError::OutOfRange`], [`VmError::Reserved`].
    pub fn check(&self, range: VaRange) -> Result<(), VmError> {
        range.check()?;
        if !self.range.contains_range(range) {
            return Err(VmError::OutOfRange { range, vm: self.range });
        }
        match self.reserved {
            Some(reserved) if reserved.intersects(range) => Err(VmError::Reserved { range, reserved }),
            _ => Ok(()),
        }
    }

    /// Maps `target` at `range` and gives the steps in which that is done: `drm_gpuvm_sm_map()`. What is mapped there
    /// already gives way; a request that is there already is still unmapped (with `keep`) and mapped. Offsets are
    /// not checked and wrap at 2^64.
    ///
    /// # Errors
    /// As [`Vm::check`], before any step.
    pub fn sm_map(
        &mut self,
        range: VaRange,
        target: Target<O>,
        step: &mut impl FnMut(Step<O>),
    ) -> Result<(), VmError> {
        self.request(range, Some(target), step)
    }

    /// Unmaps `range` and gives the steps in which that is done: `drm_gpuvm_sm_unmap()`.
    ///
    /// # Errors
    /// As [`Vm::check`], before any step.
    pub fn sm_unmap(&mut self, range: VaRange, step: &mut impl FnMut(Step<O>)) -> Result<(), VmError> {
        self.request(range, None, step)
    }

    /// Does in the mirror what the kernel did when it accepted `op`.
    ///
    /// # Errors
    /// As [`Vm::check`].
    pub fn apply(&mut self, op: &Op<O>) -> Result<(), VmError> {
        self.request(op.range, op.kind.target(), &mut |_| {})
    }

    /// The steps are given before the tree changes, so a panic in `step` leaves it as it was.
    fn request(
        &mut self,
        range: VaRange,
        target: Option<Target<O>>,
        step: &mut impl FnMut(Step<O>),
    ) -> Result<(), VmError> {
        self.check(range)?;
        walk(&self.tree, range, target, step).commit(&mut self.tree);
        Ok(())
    }

    /// The mapping that has the byte at `va`.
    pub fn find(&self, va: u64) -> Option<Mapping<O>> {
        let (start, body) = self.tree.get(self.tree.floor(va))?;
        (start <= va && va < body.end).then(|| body.at(start))
    }

    /// All mappings in the order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = Mapping<O>> + '_ {
        self.mappings(self.tree.first(), u64::MAX)
    }

    /// The mappings of which a part is in `range`, each in full, in the order of addresses.
    pub fn iter_range(&self, range: VaRange) -> impl Iterator<Item = Mapping<O>> + '_ {
        let mut cursor = self.tree.floor(range.start);
        if self.tree.get(cursor).is_some_and(|(_, body)| body.end <= range.start) {
            cursor = self.tree.next(cursor);
        }
        self.mappings(cursor, range.end())
    }

    fn mappings(&self, mut cursor: Cursor, end: u64) -> impl Iterator<Item = Mapping<O>> + '_ {
        core::iter::from_fn(move || {
            let (start, body) = self.tree.get(cursor).filter(|&(start, _)| start < end)?;
            cursor = self.tree.next(cursor);
            Some(body.at(start))
        })
    }

    /// Number of mappings.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the mirror takes, the allocator's own overhead not included.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.tree.memory_bytes()
    }

    /// The operations that bring back what is mapped now after `ops` were applied, in that order: holes become
    /// unmaps, null mappings null mappings. To be called before the operations are applied; for a batch of which
    /// the kernel accepted a part, with that part. As few as [`Planner`](crate::Planner) would need, disjoint and in
    /// the order of addresses; they bring back the content, while splits remain.
    pub fn undo(&self, ops: &[Op<O>]) -> Vec<Op<O>> {
        let mut overlay = Overlay::new();
        for op in ops {
            overlay.push(op.range.start, op.range.end(), op.kind);
        }
        let mut content = Content::new(&self.tree);
        let mut run: Option<Run<O>> = None;
        let mut undo = Vec::new();
        overlay.visit(|start, end, applied| {
            content.pieces(start, end, |from, to, present| {
                if !run.as_mut().is_some_and(|run| run.try_extend(from, to, present)) {
                    undo.extend(run.replace(Run::new(from, to, present)).and_then(|run| run.op()));
                }
                if applied.advance(from - start) != present {
                    run.iter_mut().for_each(|run| run.differs(from, to));
                }
            });
        });
        undo.extend(run.and_then(|run| run.op()));
        undo
    }

    pub(crate) fn tree(&self) -> &Tree<Body<O>> {
        &self.tree
    }
}

impl<O: Copy + Eq + fmt::Debug> fmt::Debug for Vm<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm")
            .field("range", &self.range)
            .field("reserved", &self.reserved)
            .field("mappings", &self.iter().collect::<Vec<_>>())
            .finish()
    }
}

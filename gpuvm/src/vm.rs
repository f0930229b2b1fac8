//! The VM.

use core::fmt;
use core::hash::Hash;
use core::mem::size_of;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::mapping::{Body, View};
use crate::overlay::Overlay;
use crate::run::{Content, Run};
use crate::split::{Edit, Step, Unmapped, in_line, walk};
use crate::tree::{Cursor, Seat, Tree};
use crate::vm_bo::{Bos, NONE};
use crate::vm_bo_list::Links;
use crate::vm_job::Pending;
use crate::{
    Driver, Immediate, LogEntry, LogOp, LogReader, LogRing, Mapping, Mode, Op, Reservation, Staged, Target,
    VaRange, VmError,
};

/// What is mapped in one GPU virtual address space, mapping by mapping as the kernel's `drm_gpuvm` has it.
///
/// `O` names an object, `D` says what else the driver keeps and when the VM changes: see [`Immediate`] and
/// [`Staged`]. Every operation costs O(log n) of what is mapped plus what it touches. The memory is
/// [`Vm::memory_bytes`]; with a 4 byte `O` it is about 53 bytes a mapping after sequential binds and 70 after random
/// ones, all included.
pub struct Vm<O, D: Driver = Immediate> {
    range: VaRange,
    reserved: Option<VaRange>,
    pub(crate) tree: Tree<Body>,
    pub(crate) bos: Bos<O, D::BoData>,
    pub(crate) links: Links<D::VaData>,
    /// What has been promised memory, and whether some is set aside.
    pub(crate) pending: Arc<Pending>,
    pub(crate) has_reserve: bool,
    reservation: Reservation,
    unusable: Option<Arc<str>>,
    log: Option<LogRing>,
    queue: u32,
}

impl<O: Copy + Eq> Vm<O, Immediate> {
    /// A VM in immediate mode of the addresses `range`, of which the kernel keeps `reserved` for itself. As in
    /// `drm_gpuvm_init()` the reserved range may be anywhere.
    ///
    /// # Errors
    /// [`VmError::Empty`] and [`VmError::Overflow`] where one of the two is not valid.
    pub fn new(range: VaRange, reserved: Option<VaRange>) -> Result<Self, VmError> {
        Self::with_driver(range, reserved)
    }
}

impl<O: Copy + Eq> Vm<O, Staged> {
    /// A VM in staged mode; otherwise as [`Vm::new`].
    ///
    /// # Errors
    /// As [`Vm::new`].
    pub fn staged(range: VaRange, reserved: Option<VaRange>) -> Result<Self, VmError> {
        Self::with_driver(range, reserved)
    }
}

impl<O: Copy + Eq, D: Driver> Vm<O, D> {
    /// A VM with a driver's own data; otherwise as [`Vm::new`].
    ///
    /// # Errors
    /// As [`Vm::new`].
    pub fn with_driver(range: VaRange, reserved: Option<VaRange>) -> Result<Self, VmError> {
        let reserved = reserved.map(VaRange::check).transpose()?;
        Ok(Self {
            range: range.check()?,
            reserved,
            tree: Tree::new(),
            bos: Bos::new(),
            links: Links::new(),
            pending: Arc::default(),
            has_reserve: false,
            reservation: Reservation::new(),
            unusable: None,
            log: None,
            queue: 0,
        })
    }

    /// All addresses of the VM.
    pub fn range(&self) -> VaRange {
        self.range
    }

    /// The reservation that the VM's private objects share: `drm_gpuvm_resv()`.
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// Whether requests for `range` are accepted: `drm_gpuvm_range_valid()`, and the size is not zero, which every
    /// driver checks on its own.
    ///
    /// # Errors
    /// In this order [`VmError::Empty`], [`VmError::Overflow`], [`VmError::OutOfRange`], [`VmError::Reserved`].
    #[inline]
    pub fn check(&self, range: VaRange) -> Result<(), VmError> {
        let end = range.start.wrapping_add(range.len);
        let inside = range.start >= self.range.start && range.start < end && end <= self.range.end();
        if inside && self.reserved.is_none_or(|reserved| !reserved.intersects(range)) {
            return Ok(());
        }
        self.refusal(range)
    }

    /// Why a range is refused; apart from the check itself, which is on the way of every request.
    #[cold]
    fn refusal(&self, range: VaRange) -> Result<(), VmError> {
        range.check()?;
        match self.reserved {
            Some(reserved) if self.range.contains_range(range) => Err(VmError::Reserved { range, reserved }),
            _ => Err(VmError::OutOfRange { range, vm: self.range }),
        }
    }

    /// From now on the VM refuses to map and says `reason`; it still unmaps. As `panthor_vm::unusable` and
    /// `msm_gem_vm::unusable`: for when a job has failed on its way, and what the VM holds and what the GPU sees are
    /// no longer the same. The first reason stays.
    pub fn mark_unusable(&mut self, reason: &str) {
        self.unusable.get_or_insert_with(|| reason.into());
    }

    /// Why the VM has become unusable, if it has.
    pub fn unusable(&self) -> Option<&str> {
        self.unusable.as_deref()
    }

    /// # Errors
    /// [`VmError::Unusable`].
    #[inline]
    pub(crate) fn check_usable(&self) -> Result<(), VmError> {
        match &self.unusable {
            Some(reason) => Err(VmError::Unusable { reason: Arc::clone(reason) }),
            None => Ok(()),
        }
    }

    /// Notes every update from now on in a ring of the last `2^shift`, as msm's `vm_log_shift` does, and gives an end
    /// to read it from while the VM runs.
    pub fn log(&mut self, shift: u32) -> LogReader {
        self.log.insert(LogRing::new(shift)).reader()
    }

    /// The bind queue for which the following updates are noted in the log; 0 at first.
    pub fn set_queue(&mut self, queue: u32) {
        self.queue = queue;
    }

    /// The mapping that has the byte at `va`: `drm_gpuva_find_first()` for one byte.
    pub fn find(&self, va: u64) -> Option<Mapping<O>> {
        let (start, body) = self.tree.get(self.tree.floor(va))?;
        (start <= va && va < body.end).then(|| body.at(start, self.bos.objects()))
    }

    /// The driver's data of the mapping that has the byte at `va`.
    pub fn va_data(&self, va: u64) -> Option<&D::VaData> {
        Some(self.links.data(self.link_of(va)?))
    }

    /// The driver's data of the mapping that has the byte at `va`.
    pub fn va_data_mut(&mut self, va: u64) -> Option<&mut D::VaData> {
        Some(self.links.data_mut(self.link_of(va)?))
    }

    fn link_of(&self, va: u64) -> Option<u32> {
        let (start, body) = self.tree.get(self.tree.floor(va))?;
        (start <= va && va < body.end).then_some(body.link)
    }

    /// All mappings in the order of addresses: `drm_gpuvm_for_each_va()`.
    pub fn iter(&self) -> impl Iterator<Item = Mapping<O>> + '_ {
        self.mappings(self.tree.first(), u64::MAX)
    }

    /// The mappings of which a part is in `range`, each in full, in the order of addresses:
    /// `drm_gpuvm_for_each_va_range()`.
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
            Some(body.at(start, self.bos.objects()))
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

    /// Bytes of memory that the VM takes, the allocator's own overhead and the log not included.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.tree.memory_bytes() + self.bos.memory_bytes() + self.links.memory_bytes()
    }

    /// Whether every one of `ops` has nothing to change: to be asked before they are planned, as programs name again and
    /// again what they have bound already. Best in the order of addresses; up to the first one that is not there.
    pub fn holds(&self, ops: &[Op<O>]) -> bool {
        let mut content = Content::new(self.tree());
        ops.iter().all(|&Op { range: VaRange { start, len }, kind }| {
            let end = start.wrapping_add(len);
            // What is no range is for the planner to refuse.
            start < end && content.is(start, end, kind)
        })
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
        let mut content = Content::new(self.tree());
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

    pub(crate) fn tree(&self) -> View<'_, O> {
        View { tree: &self.tree, objects: self.bos.objects() }
    }
}

impl<O: Copy + Eq + Hash, D: Driver> Vm<O, D> {
    /// Does a checked request. The steps are given before anything changes, so a panic in `step` leaves the VM as it
    /// was.
    #[inline]
    pub(crate) fn request(
        &mut self,
        range: VaRange,
        target: Option<Target<O>>,
        mut step: impl FnMut(Step<O>),
    ) {
        let seat = self.tree.seek(range.start);
        let (leaf, index) = self.tree.leaf_at(seat);
        match target {
            // The short ways: exactly one mapping gives way, or its front, or none.
            Some(target) if leaf.key(index) == range.start && leaf.value(index).end == range.end() => {
                let old = leaf.value(index).at(range.start, self.bos.objects());
                step(Step::Unmap(Unmapped { mapping: old, keep: in_line(&old, range.start, target) }));
                step(Step::Map(Mapping { range, target }));
                self.exchange(seat, target);
            }
            Some(target)
                if !D::DEFER_MAPPINGS
                    && leaf.key(index) == range.start
                    && range.end() < leaf.value(index).end
                    && self.tree.can_split(seat, range.end()) =>
            {
                let old = leaf.value(index).at(range.start, self.bos.objects());
                let next = Some(old.part(range.end(), old.range.end()));
                let unmap = Unmapped { mapping: old, keep: in_line(&old, range.start, target) };
                step(Step::Remap { prev: None, next, unmap });
                step(Step::Map(Mapping { range, target }));
                self.take_front(seat, range, target);
            }
            Some(target)
                if index > 0
                    && leaf.value(index - 1).end <= range.start
                    && self.tree.has_room(seat, range.end()) =>
            {
                step(Step::Map(Mapping { range, target }));
                self.fill(seat, range, target);
            }
            _ => {
                let edit = walk(self.tree(), seat, range, target, &mut step);
                self.change(range, target, edit);
            }
        }
        if let Some(log) = &mut self.log {
            let op = match target {
                Some(Target::Object { .. }) => LogOp::Map,
                Some(Target::Null) => LogOp::MapNull,
                None => LogOp::Unmap,
            };
            log.push(LogEntry { time: log.now(), queue: self.queue, op, range });
        }
        if !<D::Mode as Mode>::DEFERS {
            self.clean_up();
        }
    }

    /// Index and offset of what is to be mapped; its reference has to be taken at once.
    #[inline]
    fn resolve(&mut self, target: Target<O>) -> (u32, u64) {
        match target {
            Target::Object { object, offset } => (self.bos.obtain(object), offset),
            Target::Null => (NONE, 0),
        }
    }

    /// Lets the one mapping at `seat` show something else.
    #[inline]
    fn exchange(&mut self, seat: Seat, target: Target<O>) {
        let (bo, offset) = self.resolve(target);
        let (start, old) = self.tree.entry_mut(self.tree.at(seat));
        let from = core::mem::replace(&mut old.bo, bo);
        old.offset = offset;
        if D::DEFER_MAPPINGS {
            let link = self.links.link(start, bo, D::VaData::default(), &mut self.bos);
            let gone = core::mem::replace(&mut old.link, link);
            self.links.unlink(gone, from, true, &mut self.bos);
        } else {
            self.links.relink(old.link, from, bo, &mut self.bos);
        }
    }

    /// Maps where the mapping at `seat` begins, which can be split; its link stays with what is left of it. Programs fill in order what
    /// they have made.
    #[inline]
    fn take_front(&mut self, seat: Seat, range: VaRange, target: Target<O>) {
        let end = range.end();
        let (bo, offset) = self.resolve(target);
        let link = self.links.link(range.start, bo, D::VaData::default(), &mut self.bos);
        let (_, body) = self.tree.entry_mut(self.tree.at(seat));
        let old = core::mem::replace(body, Body { end, offset, bo, link });
        let data = D::remapped(self.links.data(old.link));
        self.links.move_to(old.link, end, data);
        self.tree.split(seat, end, Body { offset: old.offset.wrapping_add(range.len), ..old });
    }

    /// Maps where nothing is, at a seat that has room.
    #[inline]
    fn fill(&mut self, seat: Seat, range: VaRange, target: Target<O>) {
        let (bo, offset) = self.resolve(target);
        let link = self.links.link(range.start, bo, D::VaData::default(), &mut self.bos);
        self.tree.insert_at(seat, range.start, Body { end: range.end(), offset, bo, link });
    }

    /// Makes the change that [`walk`] has found. First link, then unlink: the objects may be the same ones.
    fn change(&mut self, range: VaRange, target: Option<Target<O>>, edit: Edit) {
        let (start, end) = (range.start, range.end());
        let mut new: ArrayVec<(u64, Body), 2> = ArrayVec::new();
        if let Some(target) = target {
            let (bo, offset) = self.resolve(target);
            let link = self.links.link(start, bo, D::VaData::default(), &mut self.bos);
            new.push((start, Body { end, offset, bo, link }));
        }
        let mut unlinked = edit.gone;
        if let Some(next) = edit.next {
            let data = D::remapped(self.links.data(next.link));
            // What is left of the last one that goes takes over its link.
            let link = if edit.gone > 0 && !D::DEFER_MAPPINGS {
                unlinked -= 1;
                self.links.move_to(next.link, end, data);
                next.link
            } else {
                self.links.link(end, next.bo, data, &mut self.bos)
            };
            new.push((end, Body { link, ..next }));
        }
        if let Some(cursor) = edit.prev {
            let (key, prev) = self.tree.entry_mut(cursor);
            prev.end = start;
            if D::DEFER_MAPPINGS {
                let data = D::remapped(self.links.data(prev.link));
                let link = self.links.link(key, prev.bo, data, &mut self.bos);
                let old = core::mem::replace(&mut prev.link, link);
                self.links.unlink(old, prev.bo, true, &mut self.bos);
            }
        }
        if unlinked > 0 {
            self.tree.scan(self.tree.at(edit.seat), |_, _, body| {
                self.links.unlink(body.link, body.bo, D::DEFER_MAPPINGS, &mut self.bos);
                unlinked -= 1;
                unlinked > 0
            });
        }
        self.tree.replace(edit.seat, edit.gone, (start, end), &new);
    }

    /// Frees everything that waits for it.
    #[inline]
    pub(crate) fn clean_up(&mut self) {
        self.links.clean_up(&mut self.bos);
        if self.bos.has_zombies() {
            self.bos.clean_up();
        }
    }

    /// Frees what has died: the data of objects without references and, with [`Driver::DEFER_MAPPINGS`], of mappings
    /// that have gone. `drm_gpuvm_bo_deferred_cleanup()`; to be called outside of the critical path, now and then, also
    /// in staged mode, for what dies with a [`VmBo`](crate::VmBo) that is dropped.
    ///
    /// It also gives back the memory of mappings where many have gone; [`Vm::trim`] that which is set aside for jobs.
    #[inline]
    pub fn deferred_cleanup(&mut self) {
        self.clean_up();
        self.compact();
    }
}

impl<O: Copy + Eq + Hash, D: Driver<Mode = Immediate>> Vm<O, D> {
    /// Maps `target` at `range` and gives the steps in which that is done: `drm_gpuvm_sm_map()`. What is mapped there
    /// already gives way; a request that is there already is still unmapped (with `keep`) and mapped. Offsets are
    /// not checked and wrap at 2^64.
    ///
    /// This may allocate, so it is not for the critical path: [`Vm::prepare`] is.
    ///
    /// # Errors
    /// As [`Vm::check`], or [`VmError::Unusable`], before any step.
    #[inline]
    pub fn sm_map(
        &mut self,
        range: VaRange,
        target: Target<O>,
        step: &mut impl FnMut(Step<O>),
    ) -> Result<(), VmError> {
        self.check(range)?;
        self.check_usable()?;
        self.request(range, Some(target), step);
        self.settle();
        Ok(())
    }

    /// Unmaps `range` and gives the steps in which that is done: `drm_gpuvm_sm_unmap()`.
    ///
    /// # Errors
    /// As [`Vm::check`], before any step.
    #[inline]
    pub fn sm_unmap(&mut self, range: VaRange, step: &mut impl FnMut(Step<O>)) -> Result<(), VmError> {
        self.check(range)?;
        self.request(range, None, step);
        self.settle();
        Ok(())
    }

    /// Does in the VM what the kernel did when it accepted `op`.
    ///
    /// # Errors
    /// As [`Vm::sm_map`].
    pub fn apply(&mut self, op: &Op<O>) -> Result<(), VmError> {
        match op.kind.target() {
            Some(target) => self.sm_map(op.range, target, &mut |_| {}),
            None => self.sm_unmap(op.range, &mut |_| {}),
        }
    }
}

impl<O: Copy + Eq + fmt::Debug, D: Driver> fmt::Debug for Vm<O, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm")
            .field("range", &self.range)
            .field("reserved", &self.reserved)
            .field("unusable", &self.unusable)
            .field("mappings", &self.iter().collect::<Vec<_>>())
            .finish()
    }
}

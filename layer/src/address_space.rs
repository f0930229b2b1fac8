//! The device's GPU address space as the layer keeps it: mirror, planner and the kernel's VM, moved in step under one lock.
//!
//! A plan is checked against the [`Mirror`], carried to whoever executes it, and the mirror follows as far as it came. What an object
//! needs in the kernel goes with its last reference.

use crate::carrier::{Backing, Carrier, Follow, Sent};
use crate::mirror::{Difference, Mirror, Undo};
use crate::picture;
use crate::residency::Residency;
use gpuvm::{FenceSignal, LogReader, Mapping, Op, OpKind, Plan, Planner, Policy, Target, VaRange, VmError};
use kmd::{Errno, GemHandle, Limits};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use thiserror::Error;

pub use crate::mirror::{BoId, Object};

/// One wanted binding: a range of addresses and what shall be there.
pub type Want = Op<BoId>;

/// Why a bind failed. Unless it is [`BindError::Lost`], mirror and kernel are as they were before.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BindError {
    #[error("the kernel is out of memory or the process is out of mappings ({0})")]
    OutOfMemory(Errno),
    #[error("the kernel refused the operation: {0}")]
    Refused(Errno),
    #[error("the range is refused: {0}")]
    Range(VmError),
    #[error("the address space is lost: {0}")]
    Lost(String),
}

impl From<VmError> for BindError {
    fn from(error: VmError) -> Self {
        match error {
            VmError::Unusable { reason } => Self::Lost(reason.to_string()),
            error => Self::Range(error),
        }
    }
}

/// What the address space did so far for the application's binds; opening and closing windows and freeing memory do not count.
#[derive(Default, Debug)]
pub struct Counters {
    /// Bindings asked for.
    pub wanted: AtomicU64,
    /// Operations that the kernel took, or binds that the driver was given.
    pub ops: AtomicU64,
    /// Bind calls to the kernel or the driver.
    pub calls: AtomicU64,
}

/// Answers whether the kernel's page table holds exactly these mappings (joined, sorted); the error is the first difference.
pub type Verifier = Box<dyn Fn(&[Mapping<GemHandle>]) -> Result<(), Difference> + Send + Sync>;

/// The address space of one device.
pub struct AddressSpace {
    /// Most operations of a chunk.
    max_ops: usize,
    /// Executes what the layer binds by itself, and every bind that has no carrier of its own. Locked after `state`.
    home: Mutex<Box<dyn Carrier>>,
    verifier: Option<Verifier>,
    /// Where the mirror is shown (`TESSERA_MIRROR`).
    picture: Option<PathBuf>,
    /// What becomes of mappings whose memory is freed.
    freed: OpKind<BoId>,
    state: Mutex<State>,
    lost: AtomicBool,
    /// The last updates, where somebody wants to know (`TESSERA_VM_LOG`).
    log: Option<LogReader>,
    queues: AtomicU32,
    pub counters: Counters,
}

struct State {
    mirror: Mirror,
    planner: Planner<BoId>,
    /// By start address: the ranges of resources that have residency bits.
    windows: BTreeMap<u64, Window>,
    /// Operations that were taken, and the calls that it took.
    sent_ops: u64,
    sent_calls: u64,
}

struct Window {
    range: VaRange,
    residency: Residency,
}

impl AddressSpace {
    /// Takes over an empty VM with these limits, whose operations `home` carries. `mirror` makes the mirror, for the way in which the
    /// device's queues bind. `log_shift`: the last `2^log_shift` updates are kept for [`Self::write_log`].
    pub fn new(
        limits: &Limits,
        mirror: impl FnOnce(VaRange, Option<VaRange>) -> Result<Mirror, VmError>,
        home: Box<dyn Carrier>,
        verifier: Option<Verifier>,
        log_shift: Option<u32>,
    ) -> Result<Self, VmError> {
        let (range, reserved) = addresses(limits)?;
        let policy = Policy {
            null_mapping: limits.null_mapping,
            max_ops: limits.max_ops,
            page_size: limits.page_size,
            block_size: limits.block_size,
            shares_tables: limits.shares_tables,
            remap_in_use: limits.remap_in_use,
            cost: gpuvm::Cost {
                op: limits.cost.op,
                table: limits.cost.table,
                entry: limits.cost.entry,
                pages: limits.cost.pages,
            },
            ..Policy::default()
        };
        let mut mirror = mirror(range, reserved)?;
        let log = log_shift.map(|shift| mirror.log(shift));
        if log.is_some() || verifier.is_some() {
            mirror.note_origins();
        }
        let state = State {
            mirror,
            planner: Planner::new(policy),
            windows: BTreeMap::new(),
            sent_ops: 0,
            sent_calls: 0,
        };
        Ok(Self {
            max_ops: limits.max_ops,
            home: Mutex::new(home),
            verifier,
            picture: None,
            freed: OpKind::Null,
            state: Mutex::new(state),
            lost: AtomicBool::new(false),
            log,
            queues: AtomicU32::new(0),
            counters: Counters::default(),
        })
    }

    /// For drivers that keep what was bound when its memory is freed, as Vulkan has it: what is there then is nobody's to say.
    pub fn forgetting(self) -> Self {
        Self { freed: OpKind::Unmap, ..self }
    }

    /// Shows the mirror in a file whenever the device is idle.
    pub fn shown_in(self, picture: Option<PathBuf>) -> Self {
        Self { picture, ..self }
    }

    /// Whether mirror and kernel have parted, or a queued bind failed: the device is lost to its application.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// A number for a bind queue, from 1 on; 0 is the layer itself.
    pub fn add_queue(&self) -> u32 {
        self.queues.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Declares the device lost: from now on nothing is mapped any more.
    pub fn lose(&self, why: &str) {
        self.lose_locked(&mut self.state.lock(), why);
    }

    fn lose_locked(&self, state: &mut State, why: &str) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            tracing::error!("device lost: {why}");
            state.mirror.mark_unusable(why);
            self.write_log();
        }
    }

    /// Writes the last updates of the address space to the log, where they are kept.
    pub fn write_log(&self) {
        let Some(log) = &self.log else { return };
        let entries = log.read();
        tracing::info!(target: "tessera::vm_log", "the last {} of {} updates", entries.len(), log.written());
        for gpuvm::LogEntry { time, queue, op, range } in entries {
            tracing::info!(target: "tessera::vm_log", "{time:?} queue {queue} {op:?} {range}");
        }
    }

    /// Makes a buffer object known. One that others can reach, as exported and imported memory can be, is `external`.
    pub fn add_object(&self, backing: Backing, external: bool) -> Result<Object, BindError> {
        Ok(self.state.lock().mirror.add(backing, external)?)
    }

    /// The memory of an object is going away. Its mappings become null mappings: with the queued binds that name it or share its
    /// reservation, at once where there are none. Binds that come later bind nothing in its place.
    pub fn evict(&self, bo: Object) -> Result<(), BindError> {
        let mut state = self.state.lock();
        let ranges = state.mirror.evict(bo.object())?;
        let wants: Vec<_> = ranges.into_iter().map(|range| Want { range, kind: self.freed }).collect();
        drop(bo);
        if wants.is_empty() {
            state.mirror.clean_up();
            return Ok(());
        }
        let unbind = |state: &mut State| self.bind_locked(state, &wants, None);
        // A moment's lack of memory may be over at the second try.
        unbind(&mut state).or_else(|_| unbind(&mut state))
    }

    /// Announces a bind that is still to come: until the fence is signalled its objects are busy.
    pub fn announce(&self, wants: &[Want]) -> FenceSignal {
        self.state.lock().mirror.announce(wants.iter().filter_map(|want| want.kind.object()))
    }

    /// Gives a resource its range of addresses: nothing is bound in it, its residency bits follow the binds.
    pub fn add_window(&self, range: VaRange, residency: Option<Residency>) -> Result<(), BindError> {
        let mut state = self.state.lock();
        if let Some(residency) = residency {
            state.windows.insert(range.start, Window { range, residency });
        }
        let result = self.bind_locked(&mut state, &[Want { range, kind: OpKind::Null }], None);
        if result.is_err() {
            state.windows.remove(&range.start);
        }
        result
    }

    /// Takes the range away from its resource, with everything that is bound in it.
    pub fn remove_window(&self, range: VaRange) -> Result<(), BindError> {
        let mut state = self.state.lock();
        note_left(&state.mirror, range);
        let result = self.bind_locked(&mut state, &[Want { range, kind: OpKind::Unmap }], None);
        state.windows.remove(&range.start);
        state.mirror.trim();
        result
    }

    /// Follows a driver that has given a range to a resource by itself: with a null mapping in it, or with nothing.
    ///
    /// An error: something is there already, so the range cannot be the new resource's.
    pub fn adopt_window(&self, range: VaRange, null: bool) -> Result<(), BindError> {
        Ok(self.state.lock().mirror.adopt(range, null)?)
    }

    /// Gives a resource a range that only the layer knows: nothing is bound in it.
    pub fn insert_window(&self, range: VaRange) -> Result<(), BindError> {
        Ok(self.state.lock().mirror.insert(Mapping { range, target: Target::Null })?)
    }

    /// Follows a driver that takes a range away from its resource by itself, with everything that is bound in it.
    pub fn forget_window(&self, range: VaRange) -> Result<(), BindError> {
        let mirror = &mut self.state.lock().mirror;
        note_left(mirror, range);
        Ok(mirror.forget(range)?)
    }

    /// Makes the wanted bindings true at once: later ones win over earlier ones. The log names them by `queue`.
    pub fn bind(&self, queue: u32, wants: &[Want]) -> Result<(), BindError> {
        self.bind_by(queue, wants, None)
    }

    /// As [`Self::bind`], by a carrier of the caller's, which is asked even where there is nothing to do.
    pub fn bind_through(
        &self,
        queue: u32,
        wants: &[Want],
        carrier: &mut dyn Carrier,
    ) -> Result<(), BindError> {
        self.bind_by(queue, wants, Some(carrier))
    }

    fn bind_by(
        &self,
        queue: u32,
        wants: &[Want],
        carrier: Option<&mut dyn Carrier>,
    ) -> Result<(), BindError> {
        let mut state = self.state.lock();
        let (ops, calls) = (state.sent_ops, state.sent_calls);
        state.mirror.set_queue(queue);
        let result = self.bind_locked(&mut state, wants, carrier);
        state.mirror.set_queue(0);
        self.counters.wanted.fetch_add(wants.len() as u64, Ordering::Relaxed);
        self.counters.ops.fetch_add(state.sent_ops - ops, Ordering::Relaxed);
        self.counters.calls.fetch_add(state.sent_calls - calls, Ordering::Relaxed);
        result
    }

    /// Leaves holes in the mirror, and nowhere else: what is bound in these ranges is not known any more, so that no bind can seem to
    /// be there already.
    pub fn forget(&self, ranges: &[VaRange]) -> Result<(), BindError> {
        if ranges.is_empty() {
            return Ok(());
        }
        let wants: Vec<_> = ranges.iter().map(|&range| Want { range, kind: OpKind::Unmap }).collect();
        self.bind_locked(&mut self.state.lock(), &wants, Some(&mut Follow))
    }

    /// Number of mappings in the mirror, and the bytes that it takes.
    pub fn mirror_size(&self) -> (usize, usize) {
        self.state.lock().mirror.size()
    }

    fn bind_locked(
        &self,
        state: &mut State,
        wants: &[Want],
        carrier: Option<&mut dyn Carrier>,
    ) -> Result<(), BindError> {
        let plan = state.plan(wants, self.freed)?;
        let at_once = carrier.is_none();
        let result = match carrier {
            Some(carrier) => self.execute(state, &plan, carrier),
            None => self.execute(state, &plan, &mut **self.home.lock()),
        };
        state.mirror.clean_up();
        if let Err(BindError::Lost(why)) = &result {
            self.lose_locked(state, why);
        }
        if at_once {
            self.verify(state);
        }
        state.planner.recycle(plan);
        result
    }

    fn execute(
        &self,
        state: &mut State,
        plan: &Plan<BoId>,
        carrier: &mut dyn Carrier,
    ) -> Result<(), BindError> {
        state.note_unbound(plan.ops());
        let (sent, undo) =
            state.mirror.follow(plan.ops(), |objects| carrier.carry(&mut plan.chunks(), objects))?;
        state.count(&sent);
        // Where the carrier took only a part, that part is undone, so that a failed bind changes nothing.
        let failed = sent.end.err().map(|errno| (errno, self.take_back(state, &undo, carrier)));
        state.refresh_residency(plan.ops());
        let Some((errno, restored)) = failed else { return Ok(()) };
        Err(match restored {
            Err(error) => BindError::Lost(format!(
                "operation {} of {} failed ({errno}), and so did taking back the ones before it ({error})",
                sent.ops,
                plan.ops().len()
            )),
            Ok(()) if !carrier.is_usable() => {
                BindError::Lost(format!("the kernel's VM is unusable ({errno})"))
            }
            Ok(()) if errno == Errno::NOMEM => BindError::OutOfMemory(errno),
            Ok(()) => BindError::Refused(errno),
        })
    }

    /// Brings back what was there before the first operations of a plan.
    fn take_back(&self, state: &mut State, undo: &Undo, carrier: &mut dyn Carrier) -> Result<(), BindError> {
        let mut chunks = undo.ops.chunks(self.max_ops);
        let (undone, _) =
            state.mirror.follow(&undo.ops, |objects| carrier.carry_back(&mut chunks, objects))?;
        state.count(&undone);
        undone.end.map_err(BindError::Refused)
    }

    /// Compares mirror and page table (`TESSERA_VERIFY`), and shows the mirror (`TESSERA_MIRROR`), where somebody wants that, when
    /// everything that was queued is in force.
    pub fn verify_idle(&self) {
        if (self.verifier.is_none() && self.picture.is_none()) || self.is_lost() {
            return;
        }
        let mut state = self.state.lock();
        if let Some(path) = &self.picture {
            match state.mirror.joined() {
                Ok(mirror) => picture::write(&mirror, path),
                Err(error) => tracing::error!("TESSERA_MIRROR: {}", error.what),
            }
        }
        self.verify(&mut state);
    }

    fn verify(&self, state: &mut State) {
        let Some(verifier) = &self.verifier else { return };
        if let Err(Difference { at, what }) = state.mirror.joined().and_then(|mirror| verifier(&mirror)) {
            let made_by = state.mirror.made_by(at);
            self.lose_locked(state, &format!("mirror and page table differ: {what}{made_by}"));
        }
    }
}

/// All addresses of a VM, and those among them that the kernel keeps for itself.
fn addresses(limits: &Limits) -> Result<(VaRange, Option<VaRange>), VmError> {
    let range = |start: u64, end: u64| VaRange::new(start, end.saturating_sub(start));
    let Limits { va, kernel, .. } = limits;
    let reserved = kernel.as_ref().map(|kernel| range(kernel.start, kernel.end)).transpose()?;
    let (start, end) = reserved.map_or((u64::MAX, 0), |reserved| (reserved.start, reserved.end()));
    Ok((range(va.start.min(start), va.end.max(end))?, reserved))
}

fn note_left(mirror: &Mirror, range: VaRange) {
    if tracing::enabled!(tracing::Level::DEBUG)
        && let Ok(left) = mirror.list(range)
    {
        for mapping in left {
            let made_by = mirror.made_by(mapping.range.start);
            tracing::debug!("a resource goes with {mapping:?}{made_by} in it");
        }
    }
}

impl State {
    fn count(&mut self, sent: &Sent) {
        self.sent_ops += sent.pieces as u64;
        self.sent_calls += sent.calls as u64;
    }

    /// What makes the wanted bindings true, and takes away what is left of evicted objects.
    fn plan(&mut self, wants: &[Want], freed_kind: OpKind<BoId>) -> Result<Plan<BoId>, BindError> {
        let Self { mirror, planner, .. } = self;
        // Programs name again what is bound already.
        if mirror.holds(wants) {
            return Ok(mirror.plan(planner));
        }
        let mut has_evicted = false;
        let validated = mirror.validate(|range| {
            has_evicted = true;
            planner.want(range, freed_kind)
        });
        validated.inspect_err(|_| planner.clear())?;
        let mut freed = 0;
        // Binds come in runs of one object: look each run up once.
        let mut known = None;
        for want in wants {
            let mut kind = want.kind;
            if let OpKind::Map { object, .. } = kind
                && known != Some(object)
            {
                if mirror.is_live(object) {
                    known = Some(object);
                } else {
                    freed += 1;
                    kind = freed_kind;
                }
            }
            planner.want(want.range, kind).inspect_err(|_| planner.clear())?;
        }
        if freed > 0 {
            tracing::warn!(
                "vkQueueBindSparse: {freed} binds waited until their memory was freed; they bind nothing"
            );
        }
        let plan = mirror.plan(planner);
        if plan.overlapped && !has_evicted {
            tracing::warn!("vkQueueBindSparse: ranges that nothing orders overlap; the later bind wins");
        }
        Ok(plan)
    }

    /// Bits go before the pages do.
    fn note_unbound(&self, ops: &[Op<BoId>]) {
        for op in ops.iter().filter(|op| !matches!(op.kind, OpKind::Map { .. })) {
            self.with_residency(op.range, |residency, range| residency.set(range, false));
        }
    }

    /// Bits come after the pages: read back from the mirror, whatever became of the operations.
    fn refresh_residency(&self, ops: &[Op<BoId>]) {
        // A glance that spares drivers which keep such bits themselves a look-up for every operation.
        if self.windows.is_empty() {
            return;
        }
        for op in ops {
            self.with_residency(op.range, |residency, range| {
                self.mirror.each_in(range, |mapping| {
                    if let Some(part) = mapping.range.intersection(range) {
                        residency.set(part, matches!(mapping.target, Target::Object { .. }));
                    }
                });
            });
        }
    }

    /// Calls `f` for every window with residency bits that `range` meets, with the common part.
    fn with_residency(&self, range: VaRange, f: impl Fn(&Residency, VaRange)) {
        let mut windows = self.windows.range(..range.end()).rev();
        while let Some((_, window)) = windows.next()
            && let Some(part) = window.range.intersection(range)
        {
            f(&window.residency, part);
        }
    }
}

#[cfg(test)]
#[path = "address_space_tests.rs"]
mod tests;

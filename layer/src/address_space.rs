//! The device's GPU address space as the layer keeps it: mirror, planner and the kernel's VM, moved in step under one lock.
//!
//! The mirror is a [`gpuvm::Vm`] in immediate mode: a job is prepared, the kernel does it, and the mirror follows as far as the kernel
//! came. What an object needs in the kernel lives in its `vm_bo` and goes with it, in the deferred clean-up after a job.

use crate::carrier::{Backing, Carrier, Follow, Sent};
use crate::residency::Residency;
use gpuvm::{
    Contended, Driver, Exec, Fence, FenceSignal, Immediate, Job, Locking, LogReader, Mapping, Op, OpKind,
    Plan, Planner, Policy, Reservation, Target, Usage, VaRange, VmBo, VmError,
};
use kmd::{Errno, GemHandle, Limits};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use thiserror::Error;

/// A buffer object as the mirror knows it. Never used twice in a device's life, so that a bind that was queued before its memory was
/// freed cannot reach an object that came later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BoId(u32);

/// One wanted binding: a range of addresses and what shall be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    pub range: VaRange,
    pub kind: OpKind<BoId>,
}

/// A reference to a buffer object: while the memory behind it lives, the kernel's object does.
pub type Object = VmBo<BoId>;

/// What the mirror keeps of objects: what is behind them, let go when the object's last reference has gone.
struct Binding;

impl Driver for Binding {
    type Mode = Immediate;
    type BoData = Option<Backing>;
    type VaData = ();
}

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

/// Answers whether the kernel's page table holds exactly these mappings (joined, sorted); the error names the first difference.
pub type Verifier = Box<dyn Fn(&[Mapping<GemHandle>]) -> Result<(), String> + Send + Sync>;

/// The address space of one device.
pub struct AddressSpace {
    /// Most operations of a chunk.
    max_ops: usize,
    /// Executes what the layer binds by itself, and every bind that has no carrier of its own. Locked after `state`.
    home: Mutex<Box<dyn Carrier>>,
    verifier: Option<Verifier>,
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
    mirror: gpuvm::Vm<BoId, Binding>,
    planner: Planner<BoId>,
    next_object: u32,
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
    /// Takes over an empty VM with these limits, whose operations `home` carries. `log_shift`: the last `2^log_shift` updates are
    /// kept for [`Self::write_log`].
    pub fn new(
        limits: &Limits,
        home: Box<dyn Carrier>,
        verifier: Option<Verifier>,
        log_shift: Option<u32>,
    ) -> Result<Self, VmError> {
        let range = VaRange::new(limits.va.start, limits.va.end - limits.va.start)?;
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
        let mut mirror = gpuvm::Vm::with_driver(range, None)?;
        let log = log_shift.map(|shift| mirror.log(shift));
        let state = State {
            mirror,
            planner: Planner::new(policy),
            next_object: 0,
            windows: BTreeMap::new(),
            sent_ops: 0,
            sent_calls: 0,
        };
        Ok(Self {
            max_ops: limits.max_ops,
            home: Mutex::new(home),
            verifier,
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
        for gpuvm::LogEntry { time, queue, op, range } in self.log.iter().flat_map(LogReader::read) {
            tracing::info!(target: "tessera::vm_log", "{time:?} queue {queue} {op:?} {range}");
        }
    }

    /// Makes a buffer object known. One that others can reach, as exported and imported memory can be, is `external`.
    pub fn add_object(&self, backing: Backing, external: bool) -> Result<Object, BindError> {
        let mut state = self.state.lock();
        let id = BoId(state.next_object);
        state.next_object += 1;
        let alloc = state.mirror.prealloc(id, Some(backing));
        let bo = state.mirror.obtain_prealloc(alloc)?;
        if external {
            state.mirror.set_reservation(id, &Reservation::new())?;
        }
        Ok(bo)
    }

    /// The memory of an object is going away. Its mappings become null mappings: with the queued binds that name it or share its
    /// reservation, at once where there are none. Binds that come later bind nothing in its place.
    pub fn evict(&self, bo: Object) -> Result<(), BindError> {
        let mut state = self.state.lock();
        let id = bo.object();
        let Some(reservation) = state.mirror.bo(id).map(|bo| bo.reservation().clone()) else { return Ok(()) };
        let exec = lock(|locking| locking.lock(&reservation));
        state.mirror.evict(&exec, id, true)?;
        drop((exec, bo));
        if !reservation.is_signaled(Usage::Bookkeep) {
            return Ok(());
        }
        let unbind = |state: &mut State| self.bind_locked(state, &[], None);
        // A moment's lack of memory may be over at the second try.
        unbind(&mut state).or_else(|_| unbind(&mut state))
    }

    /// Announces a bind that is still to come: until the fence is signalled its objects are busy.
    pub fn announce(&self, wants: &[Want]) -> FenceSignal {
        let state = self.state.lock();
        let exec = lock(|locking| {
            locking.lock(state.mirror.reservation())?;
            let mut last = None;
            for object in wants.iter().filter_map(|want| want.kind.object()) {
                if last.replace(object) != Some(object)
                    && let Some(bo) = state.mirror.bo(object)
                {
                    locking.lock(bo.reservation())?;
                }
            }
            Ok(())
        });
        let (signal, fence) = Fence::new();
        state.mirror.attach(&exec, &fence, Usage::Bookkeep, Usage::Bookkeep);
        signal
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
        if tracing::enabled!(tracing::Level::DEBUG)
            && let Ok(left) = state.mirror.prefetch_ops(range)
        {
            left.iter().for_each(|mapping| tracing::debug!("a resource goes with {mapping:?} in it"));
        }
        let result = self.bind_locked(&mut state, &[Want { range, kind: OpKind::Unmap }], None);
        state.windows.remove(&range.start);
        result
    }

    /// Follows a driver that has given a range to a resource by itself: with a null mapping in it, or with nothing.
    ///
    /// An error: something is there already, so the range cannot be the new resource's.
    pub fn adopt_window(&self, range: VaRange, null: bool) -> Result<(), BindError> {
        let mirror = &mut self.state.lock().mirror;
        let mapping = Mapping { range, target: Target::Null };
        if null {
            return Ok(mirror.insert(mapping)?);
        }
        mirror.check(range)?;
        match mirror.iter_range(range).next() {
            Some(Mapping { range: mapped, .. }) => Err(VmError::Occupied { range, mapped }.into()),
            None => Ok(()),
        }
    }

    /// Follows a driver that takes a range away from its resource by itself, with everything that is bound in it.
    pub fn forget_window(&self, range: VaRange) -> Result<(), BindError> {
        let mirror = &mut self.state.lock().mirror;
        let ops = mirror.unmap_ops(range)?;
        ops.steps().iter().for_each(|step| tracing::debug!("a resource goes: {step:?}"));
        ops.commit();
        mirror.deferred_cleanup();
        Ok(())
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
        let state = self.state.lock();
        (state.mirror.len(), state.mirror.memory_bytes())
    }

    fn bind_locked(
        &self,
        state: &mut State,
        wants: &[Want],
        carrier: Option<&mut dyn Carrier>,
    ) -> Result<(), BindError> {
        let plan = state.plan(wants, self.freed)?;
        let job = state.mirror.prepare(plan)?;
        let at_once = carrier.is_none();
        let result = match carrier {
            Some(carrier) => self.execute(state, job, carrier),
            None => self.execute(state, job, &mut **self.home.lock()),
        };
        state.mirror.deferred_cleanup();
        if let Err(BindError::Lost(why)) = &result {
            self.lose_locked(state, why);
        }
        if at_once {
            self.verify(state);
        }
        result.map(|plan| state.planner.recycle(plan))
    }

    fn execute(
        &self,
        state: &mut State,
        job: Job<BoId, Plan<BoId>>,
        carrier: &mut dyn Carrier,
    ) -> Result<Plan<BoId>, BindError> {
        state.note_unbound(job.ops());
        let sent = carrier.carry(&mut job.source().chunks(), &|object| backing(&state.mirror, object));
        state.count(&sent);
        let Err(errno) = sent.end else {
            let plan = state.mirror.commit(job)?;
            state.refresh_residency(plan.ops());
            return Ok(plan);
        };
        // The carrier took only part of the job: that part is undone, so that a failed bind changes nothing.
        let count = job.ops().len();
        let applied = sent.ops;
        let restored = self.take_back(state, job, applied, carrier);
        let error = match restored {
            Err(error) => BindError::Lost(format!(
                "operation {applied} of {count} failed ({errno}), and so did taking back the ones before it ({error})"
            )),
            Ok(()) if !carrier.is_usable() => {
                BindError::Lost(format!("the kernel's VM is unusable ({errno})"))
            }
            Ok(()) if errno == Errno::NOMEM => BindError::OutOfMemory(errno),
            Ok(()) => BindError::Refused(errno),
        };
        Err(error)
    }

    /// Commits the first `applied` operations of a job, and brings back what was there before them.
    fn take_back(
        &self,
        state: &mut State,
        job: Job<BoId, Plan<BoId>>,
        applied: usize,
        carrier: &mut dyn Carrier,
    ) -> Result<(), BindError> {
        let mut undo = state.mirror.undo(&job.ops()[..applied]);
        // What unbinds comes first: it makes the room that what binds again may need.
        undo.sort_by_key(|op| matches!(op.kind, OpKind::Map { .. }));
        // Prepared before the job ends, so that no object goes that is to come back.
        let back = state.mirror.prepare(undo)?;
        let plan = state.mirror.commit_first(job, applied)?;
        let mut chunks = back.ops().chunks(self.max_ops);
        let undone = carrier.carry_back(&mut chunks, &|object| backing(&state.mirror, object));
        state.count(&undone);
        state.mirror.commit_first(back, undone.ops)?;
        state.refresh_residency(plan.ops());
        undone.end.map_err(BindError::Refused)
    }

    /// Compares mirror and page table, where somebody wants that (`TESSERA_VERIFY`), when everything that was queued is in force.
    pub fn verify_idle(&self) {
        if self.verifier.is_some() && !self.is_lost() {
            self.verify(&mut self.state.lock());
        }
    }

    fn verify(&self, state: &mut State) {
        let Some(verifier) = &self.verifier else { return };
        if let Err(difference) = state.joined().and_then(|mirror| verifier(&mirror)) {
            self.lose_locked(state, &format!("mirror and page table differ: {difference}"));
        }
    }
}

/// Takes all locks that `all` asks for.
fn lock(all: impl FnMut(&mut Locking) -> Result<(), Contended>) -> Exec {
    match Exec::until_all_locked(all) {
        Ok((exec, ())) => exec,
        Err(Contended { .. }) => unreachable!("contention is waited for"),
    }
}

fn continues(last: &Mapping<GemHandle>, range: &VaRange, target: &Target<GemHandle>) -> bool {
    last.range.end() == range.start
        && match (last.target, *target) {
            (Target::Null, Target::Null) => true,
            (Target::Object { object: a, offset }, Target::Object { object: b, offset: next }) => {
                a == b && offset + last.range.len == next
            }
            _ => false,
        }
}

/// What is behind an object, unless it is closed.
fn backing(mirror: &gpuvm::Vm<BoId, Binding>, object: BoId) -> Option<&Backing> {
    mirror.bo(object)?.data().as_ref()
}

impl State {
    fn count(&mut self, sent: &Sent) {
        self.sent_ops += sent.pieces as u64;
        self.sent_calls += sent.calls as u64;
    }

    /// The mirror in the kernel's terms, with mappings that continue each other as one.
    fn joined(&self) -> Result<Vec<Mapping<GemHandle>>, String> {
        let mut joined: Vec<Mapping<GemHandle>> = Vec::new();
        for Mapping { range, target } in self.mirror.iter() {
            let target = match target {
                Target::Null => Target::Null,
                Target::Object { object, offset } => {
                    let object = backing(&self.mirror, object)
                        .and_then(Backing::handle)
                        .ok_or_else(|| format!("{object:?} at {range} is closed"))?;
                    Target::Object { object, offset }
                }
            };
            match joined.last_mut() {
                Some(last) if continues(last, &range, &target) => last.range.len += range.len,
                _ => joined.push(Mapping { range, target }),
            }
        }
        Ok(joined)
    }

    /// What makes the wanted bindings true, and takes away what is left of evicted objects.
    fn plan(&mut self, wants: &[Want], freed_kind: OpKind<BoId>) -> Result<Plan<BoId>, BindError> {
        let Self { mirror, planner, .. } = self;
        let evicted = mirror
            .evicted()
            .flat_map(|bo| bo.mappings())
            .map(|mapping| Want { range: mapping.range, kind: freed_kind });
        let mut has_evicted = false;
        for want in evicted {
            has_evicted = true;
            planner.want(want.range, want.kind).inspect_err(|_| planner.clear())?;
        }
        let mut freed = 0;
        // Binds come in runs of one object: look each run up once.
        let mut known = None;
        for want in wants {
            let mut kind = want.kind;
            if let OpKind::Map { object, .. } = kind
                && known != Some(object)
            {
                if mirror.bo(object).is_some_and(|bo| !bo.is_evicted()) {
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
        let plan = planner.plan(mirror);
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
                for mapping in self.mirror.iter_range(range) {
                    let Some(part) = mapping.range.intersection(range) else { continue };
                    residency.set(part, matches!(mapping.target, Target::Object { .. }));
                }
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

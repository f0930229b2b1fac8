//! The mirror: what is mapped in the device's address space, as those who execute binds have it.
//!
//! It moves in the mode of gpuvm that the device's queues bind in. What the layer executes by itself when its waits are over is in force
//! when it has been carried: *immediate* mode. What is handed on in the call, for page tables to follow when a queue comes to it, is not:
//! the mirror is *staged* and runs ahead, with the reservations of all that a plan touches locked until it was carried.

use crate::carrier::{Backing, Objects, Sent};
use core::fmt;
use core::marker::PhantomData;
use gpuvm::{
    Contended, Driver, Exec, Fence, FenceSignal, Immediate, Locking, LogReader, Mapping, Mode, Op, OpKind,
    Ops, Plan, Planner, Reservation, Staged, Step, Target, Unmapped, Usage, VaRange, VmBo, VmError,
};
use kmd::GemHandle;

/// A buffer object as the mirror knows it. Never used twice in a device's life, so that a bind that was queued before its memory was
/// freed cannot reach an object that came later.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash, Debug)]
pub struct BoId(u32);

/// A reference to a buffer object: while the memory behind it lives, the kernel's object does.
pub type Object = VmBo<BoId>;

/// What the mirror keeps of objects: what is behind them, let go when the object's last reference has gone. And of mappings: who made
/// them. Where that can be, a mapping that has gone keeps its object until the clean-up, so that an operation can be taken back.
struct Binding<M>(PhantomData<M>);

impl<M: Mode> Driver for Binding<M> {
    type Mode = M;
    type BoData = Option<Backing>;
    type VaData = Origin;
    const DEFER_MAPPINGS: bool = M::DEFERS;

    fn remapped(data: &Origin) -> Origin {
        *data
    }
}

/// Which bind made a mapping, for whoever looks for a mistake: none where the layer did by itself, or a driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Origin {
    queue: u32,
    /// Counts the binds of all queues.
    bind: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.queue {
            0 => f.write_str("without a bind"),
            queue => write!(f, "by bind {} on queue {queue}", self.bind),
        }
    }
}

/// Something that mirror and page table do not have in common.
#[derive(PartialEq, Eq, Debug)]
pub struct Difference {
    /// Where.
    pub at: u64,
    /// What is there in both.
    pub what: String,
}

/// What is mapped.
pub struct Mirror {
    vm: Vm,
    next_object: u32,
    /// What was found to be so, and is as long as nothing changes: programs name the same again, call after call.
    held: Vec<Op<BoId>>,
    /// Number of binds, where mappings note which one made them.
    binds: Option<u32>,
    /// What they note.
    origin: Option<Origin>,
}

enum Vm {
    Immediate(gpuvm::Vm<BoId, Binding<Immediate>>),
    Staged(gpuvm::Vm<BoId, Binding<Staged>>),
}

/// What both modes have.
macro_rules! either {
    ($vm:expr, $it:ident => $what:expr) => {
        match $vm {
            Vm::Immediate($it) => $what,
            Vm::Staged($it) => $what,
        }
    };
}

/// What brings back what was mapped before operations of which only a part was carried.
#[derive(Default)]
pub struct Undo {
    pub ops: Vec<Op<BoId>>,
    /// Keeps the objects that are to come back, where the mirror does not until it is cleaned up.
    _objects: Vec<Object>,
}

impl Undo {
    fn new(mut ops: Vec<Op<BoId>>, hold: impl FnMut(BoId) -> Option<Object>) -> Self {
        // What unbinds comes first: it makes the room that what binds again may need.
        ops.sort_by_key(|op| op.kind.object().is_some());
        let objects = ops.iter().filter_map(|op| op.kind.object()).filter_map(hold).collect();
        Self { ops, _objects: objects }
    }
}

/// Takes all locks that `all` asks for.
fn lock(all: impl FnMut(&mut Locking) -> Result<(), Contended>) -> Exec {
    match Exec::until_all_locked(all) {
        Ok((exec, ())) => exec,
        Err(Contended { .. }) => unreachable!("contention is waited for"),
    }
}

/// What is behind an object, unless it is closed.
fn backing<D: Driver<BoData = Option<Backing>>>(vm: &gpuvm::Vm<BoId, D>, object: BoId) -> Option<&Backing> {
    vm.bo(object)?.data().as_ref()
}

/// Whether somebody wants to see how operations split what was mapped.
fn shows_steps() -> bool {
    tracing::enabled!(tracing::Level::TRACE)
}

fn show_step(step: Step<BoId>) {
    tracing::trace!("{step:x?}");
}

/// The ranges that a list unmaps.
fn unmapped<D: Driver>(ops: &Ops<'_, BoId, D>) -> Vec<VaRange> {
    let range = |step: &Step<BoId>| match step {
        Step::Unmap(Unmapped { mapping, .. }) => Some(mapping.range),
        Step::Map(_) | Step::Remap { .. } => None,
    };
    ops.steps().iter().filter_map(range).collect()
}

/// Does what is listed, unless something would have to give way: that is what is returned, and nothing is done.
fn commit_if_free<D: Driver>(ops: Ops<'_, BoId, D>) -> Vec<Mapping<BoId>> {
    let gives_way = |step: &Step<BoId>| match *step {
        Step::Unmap(unmap) | Step::Remap { unmap, .. } => Some(unmap.mapping),
        Step::Map(_) => None,
    };
    let occupied: Vec<_> = ops.steps().iter().filter_map(gives_way).collect();
    if occupied.is_empty() {
        ops.commit();
    }
    occupied
}

impl Mirror {
    /// For binds that are in force when they have been carried. Nothing is bound in `reserved`, which the kernel keeps for itself.
    pub fn immediate(range: VaRange, reserved: Option<VaRange>) -> Result<Self, VmError> {
        Ok(Self::new(Vm::Immediate(gpuvm::Vm::with_driver(range, reserved)?)))
    }

    /// For binds that others have in their queues when they have been carried; otherwise as [`Mirror::immediate`].
    pub fn staged(range: VaRange, reserved: Option<VaRange>) -> Result<Self, VmError> {
        Ok(Self::new(Vm::Staged(gpuvm::Vm::with_driver(range, reserved)?)))
    }

    fn new(vm: Vm) -> Self {
        Self { vm, next_object: 0, held: Vec::new(), binds: None, origin: None }
    }

    /// Keeps the last `2^shift` updates.
    pub fn log(&mut self, shift: u32) -> LogReader {
        either!(&mut self.vm, vm => vm.log(shift))
    }

    /// Has mappings note which bind made them.
    pub fn note_origins(&mut self) {
        self.binds = Some(0);
    }

    /// Names the bind queue of the updates to come, which are one bind; 0 is the layer itself.
    pub fn set_queue(&mut self, queue: u32) {
        either!(&mut self.vm, vm => vm.set_queue(queue));
        let binds = self.binds.as_mut().filter(|_| queue != 0);
        self.origin = binds.map(|binds| {
            *binds = binds.wrapping_add(1);
            Origin { queue, bind: *binds }
        });
    }

    /// Who made what is mapped at an address, to be put behind what is said of it; nothing where that is not noted.
    pub fn made_by(&self, va: u64) -> String {
        let noted = self.binds.and_then(|_| either!(&self.vm, vm => vm.va_data(va)));
        noted.map_or_else(String::new, |origin| format!(", made {origin}"))
    }

    /// From now on nothing is mapped any more.
    pub fn mark_unusable(&mut self, why: &str) {
        either!(&mut self.vm, vm => vm.mark_unusable(why));
    }

    /// Number of mappings, and the bytes that they take.
    pub fn size(&self) -> (usize, usize) {
        either!(&self.vm, vm => (vm.len(), vm.memory_bytes()))
    }

    /// Makes a buffer object known. One that others can reach is `external`.
    pub fn add(&mut self, backing: Backing, external: bool) -> Result<Object, VmError> {
        let id = BoId(self.next_object);
        self.next_object += 1;
        either!(&mut self.vm, vm => {
            let alloc = vm.prealloc(id, Some(backing));
            let bo = vm.obtain_prealloc(alloc)?;
            if external {
                vm.set_reservation(id, &Reservation::new())?;
            }
            Ok(bo)
        })
    }

    /// The memory of an object goes away. As long as queued binds name it, or share its reservation, it is on the list of evicted
    /// objects, for [`Self::validate`]; otherwise nothing else will come, and what is returned has to be unbound at once.
    pub fn evict(&mut self, object: BoId) -> Result<Vec<VaRange>, VmError> {
        self.held.clear();
        let Some(reservation) = either!(&self.vm, vm => vm.bo(object).map(|bo| bo.reservation().clone()))
        else {
            return Ok(Vec::new());
        };
        if !reservation.is_signaled(Usage::Bookkeep) {
            let exec = lock(|locking| locking.lock(&reservation));
            either!(&mut self.vm, vm => vm.evict(&exec, object, true))?;
            return Ok(Vec::new());
        }
        // A list that is walked and dropped: what takes the place of the mappings goes the way of all binds.
        Ok(match &mut self.vm {
            Vm::Immediate(vm) => unmapped(&vm.object_unmap_ops(object)),
            Vm::Staged(vm) => {
                let exec = lock(|locking| {
                    locking.lock(vm.reservation())?;
                    locking.lock(&reservation)
                });
                unmapped(&vm.update(&exec)?.object_unmap_ops(object)?)
            }
        })
    }

    /// Whether an object is there and its memory too.
    pub fn is_live(&self, object: BoId) -> bool {
        either!(&self.vm, vm => vm.bo(object).is_some_and(|bo| !bo.is_evicted()))
    }

    /// Shows where evicted objects are still mapped, for a submission to replace that: what a driver of the kernel's validates before a
    /// job. They stay evicted until their last mapping has gone, as the submission may be refused.
    pub fn validate(
        &mut self,
        mut replace: impl FnMut(VaRange) -> Result<(), VmError>,
    ) -> Result<(), VmError> {
        either!(&mut self.vm, vm => {
            // A glance: mostly there is nothing, and nothing to lock for.
            if vm.evicted().next().is_none() {
                return Ok(());
            }
            let exec = lock(|locking| vm.lock_all(locking));
            vm.validate(&exec, |bo| {
                bo.mappings().try_for_each(|mapping| replace(mapping.range))?;
                Ok(false)
            })
        })
    }

    /// Has objects be busy until the fence is signalled.
    pub fn announce(&self, objects: impl Iterator<Item = BoId> + Clone) -> FenceSignal {
        let (signal, fence) = Fence::new();
        either!(&self.vm, vm => {
            let exec = lock(|locking| {
                locking.lock(vm.reservation())?;
                let mut last = None;
                for object in objects.clone() {
                    if last.replace(object) != Some(object)
                        && let Some(bo) = vm.bo(object)
                    {
                        locking.lock(bo.reservation())?;
                    }
                }
                Ok(())
            });
            vm.attach(&exec, &fence, Usage::Bookkeep, Usage::Bookkeep);
        });
        signal
    }

    /// Follows somebody who has mapped a null mapping for something new, or has left its range without any. The steps say what would have
    /// to give way to that: where something is there already the range cannot be the new one's, and nothing changes.
    pub fn adopt(&mut self, range: VaRange, null: bool) -> Result<(), VmError> {
        self.held.clear();
        let occupied = match &mut self.vm {
            Vm::Immediate(vm) if null => commit_if_free(vm.map_ops(range, Target::Null)?),
            Vm::Immediate(vm) => commit_if_free(vm.unmap_ops(range)?),
            Vm::Staged(vm) => {
                let exec = lock(|locking| vm.lock_range(locking, range));
                let mut update = vm.update(&exec)?;
                if null {
                    commit_if_free(update.map_ops(range, Target::Null)?)
                } else {
                    commit_if_free(update.unmap_ops(range)?)
                }
            }
        };
        for mapping in &occupied {
            tracing::warn!("{range} is new, and has {mapping:x?}{} in it", self.made_by(mapping.range.start));
        }
        match occupied.first() {
            Some(Mapping { range: mapped, .. }) => Err(VmError::Occupied { range, mapped: *mapped }),
            None => Ok(()),
        }
    }

    /// Adds a mapping where there is none.
    pub fn insert(&mut self, mapping: Mapping<BoId>) -> Result<(), VmError> {
        self.held.clear();
        match &mut self.vm {
            Vm::Immediate(vm) => vm.insert(mapping),
            Vm::Staged(vm) => {
                let exec = lock(|locking| vm.lock_range(locking, mapping.range));
                vm.update(&exec)?.insert(mapping)
            }
        }
    }

    /// Takes a range away with all that is mapped in it, as somebody else has done already.
    pub fn forget(&mut self, range: VaRange) -> Result<(), VmError> {
        self.held.clear();
        // Nothing more to look for where it is as it was inserted.
        let is_one = either!(&self.vm, vm => vm.find(range.start)).is_some_and(|found| found.range == range);
        match &mut self.vm {
            Vm::Immediate(vm) if is_one => drop(vm.remove(range.start)),
            Vm::Immediate(vm) => drop(vm.unmap_ops(range)?.commit()),
            Vm::Staged(vm) => {
                let exec = lock(|locking| vm.lock_range(locking, range));
                let mut update = vm.update(&exec)?;
                if is_one {
                    update.remove(range.start)?;
                } else {
                    update.unmap_ops(range)?.commit();
                }
            }
        }
        self.clean_up();
        self.trim();
        Ok(())
    }

    /// Shows the mappings of which a part is in `range`, each in full.
    pub fn each_in(&self, range: VaRange, visit: impl FnMut(Mapping<BoId>)) {
        either!(&self.vm, vm => vm.iter_range(range).for_each(visit));
    }

    /// A list of the same.
    pub fn list(&self, range: VaRange) -> Result<Vec<Mapping<BoId>>, VmError> {
        either!(&self.vm, vm => vm.prefetch_ops(range))
    }

    /// Whether all of this is so already, and nothing else is to be done: no evicted object waits to be replaced.
    pub fn holds(&mut self, ops: &[Op<BoId>]) -> bool {
        if !self.held.is_empty() && self.held == ops {
            return true;
        }
        let holds = either!(&self.vm, vm => vm.evicted().next().is_none() && vm.holds(ops));
        if holds {
            self.held.clear();
            self.held.extend_from_slice(ops);
        }
        holds
    }

    /// What turns this into what the planner was asked for.
    pub fn plan(&self, planner: &mut Planner<BoId>) -> Plan<BoId> {
        either!(&self.vm, vm => planner.plan(vm))
    }

    /// Has `carry` take operations to whoever executes them, and follows as far as they came. What of them was carried is taken back
    /// by what is returned, where that is not all.
    pub fn follow(
        &mut self,
        ops: &[Op<BoId>],
        carry: impl FnOnce(&Objects<'_>) -> Sent,
    ) -> Result<(Sent, Undo), VmError> {
        if !ops.is_empty() {
            self.held.clear();
        }
        let mut undo = Undo::default();
        let sent = match &mut self.vm {
            Vm::Immediate(vm) => {
                let job = vm.prepare(ops)?;
                let sent = carry(&|object| backing(vm, object));
                if sent.end.is_err() {
                    undo = Undo::new(vm.undo(&ops[..sent.ops]), |_| None);
                }
                if shows_steps() {
                    let mut running = vm.begin(job)?;
                    while running.done() < sent.ops
                        && let Some(next) = running.next()
                    {
                        next.complete(show_step)?;
                    }
                } else {
                    vm.commit_first(job, sent.ops)?;
                }
                sent
            }
            Vm::Staged(vm) => {
                let exec = lock(|locking| vm.lock_ops(locking, ops));
                let mut prepared = vm.update(&exec)?.prepare(ops)?;
                let sent = carry(&|object| backing(prepared.vm(), object));
                if sent.end.is_err() {
                    let ops = prepared.vm().undo(&ops[..sent.ops]);
                    undo = Undo::new(ops, |object| prepared.find_bo(object));
                }
                if shows_steps() {
                    prepared.commit_steps(sent.ops, &mut show_step);
                } else {
                    prepared.commit_first(sent.ops);
                }
                sent
            }
        };
        if let Some(origin) = self.origin {
            self.note(&ops[..sent.ops], origin);
        }
        Ok((sent, undo))
    }

    /// Notes who made what operations have mapped.
    #[cold]
    fn note(&mut self, ops: &[Op<BoId>], origin: Origin) {
        for op in ops.iter().filter(|op| op.kind != OpKind::Unmap) {
            if let Some(data) = either!(&mut self.vm, vm => vm.va_data_mut(op.range.start)) {
                *data = origin;
            }
        }
    }

    /// Lets go of objects that have died.
    pub fn clean_up(&mut self) {
        either!(&mut self.vm, vm => vm.deferred_cleanup());
    }

    /// Gives back memory that is kept for the next bind.
    pub fn trim(&mut self) {
        either!(&mut self.vm, vm => vm.trim());
    }

    /// What is mapped in the kernel's terms, with mappings that continue each other as one.
    pub fn joined(&self) -> Result<Vec<Mapping<GemHandle>>, Difference> {
        let mut joined = Vec::new();
        either!(&self.vm, vm => {
            vm.iter().try_for_each(|mapping| join(&mut joined, mapping, |object| backing(vm, object)))
        })?;
        Ok(joined)
    }
}

fn join<'a>(
    joined: &mut Vec<Mapping<GemHandle>>,
    Mapping { range, target }: Mapping<BoId>,
    backing: impl FnOnce(BoId) -> Option<&'a Backing>,
) -> Result<(), Difference> {
    let target = match target {
        Target::Null => Target::Null,
        Target::Object { object, offset } => {
            let closed = || Difference { at: range.start, what: format!("{object:?} at {range} is closed") };
            Target::Object { object: backing(object).and_then(Backing::handle).ok_or_else(closed)?, offset }
        }
    };
    match joined.last_mut() {
        Some(last) if last.range.end() == range.start && last.target.advance(last.range.len) == target => {
            last.range.len += range.len;
        }
        _ => joined.push(Mapping { range, target }),
    }
    Ok(())
}

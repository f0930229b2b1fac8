//! The device's GPU address space as the layer keeps it: mirror, planner and the kernel's VM, moved in step under one lock.

use crate::residency::Residency;
use gpuvm::{Mapping, Op, OpKind, Plan, Planner, Policy, Target, VaRange, VmError};
use kmd::{BindOp, BindTarget, Errno, GemHandle, Refused};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// Why a bind failed. Unless it is [`BindError::Lost`], mirror and kernel are as they were before.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BindError {
    #[error("the kernel is out of memory or the process is out of mappings ({0})")]
    OutOfMemory(Errno),
    #[error("the kernel refused the operation: {0}")]
    Refused(Errno),
    #[error("the planner refused the range: {0}")]
    Plan(#[from] VmError),
    #[error("the address space is lost: {0}")]
    Lost(String),
}

/// What the address space did so far for the application's binds; opening and closing windows and freeing memory do not count.
#[derive(Default, Debug)]
pub struct Counters {
    /// Bindings asked for.
    pub wanted: AtomicU64,
    /// Operations that the kernel took.
    pub ops: AtomicU64,
    /// Bind calls to the kernel.
    pub calls: AtomicU64,
}

/// Answers whether the kernel's page table holds exactly these mappings (joined, sorted); the error names the first difference.
pub type Verifier = Box<dyn Fn(&[Mapping<GemHandle>]) -> Result<(), String> + Send + Sync>;

/// The address space of one device.
pub struct AddressSpace {
    kernel: Box<dyn kmd::Vm>,
    verifier: Option<Verifier>,
    state: Mutex<State>,
    lost: AtomicBool,
    pub counters: Counters,
}

struct State {
    mirror: gpuvm::Vm<BoId>,
    planner: Planner<BoId>,
    objects: FxHashMap<BoId, GemHandle>,
    next_object: u32,
    /// By start address: the ranges that belong to resources.
    windows: BTreeMap<u64, Window>,
    /// Kept for its memory.
    batch: Vec<BindOp>,
    /// Operations that the kernel took, and bind calls to it.
    sent_ops: u64,
    sent_calls: u64,
}

struct Window {
    range: VaRange,
    residency: Option<Residency>,
}

impl AddressSpace {
    /// Takes over an empty VM.
    pub fn new(kernel: Box<dyn kmd::Vm>, verifier: Option<Verifier>) -> Result<Self, VmError> {
        let limits = kernel.limits();
        let range = VaRange::new(limits.va.start, limits.va.end - limits.va.start)?;
        let policy = Policy {
            null_mapping: limits.null_mapping,
            max_ops: limits.max_ops,
            page_size: limits.page_size,
            ..Policy::default()
        };
        let state = State {
            mirror: gpuvm::Vm::new(range, None)?,
            planner: Planner::new(policy),
            objects: FxHashMap::default(),
            next_object: 0,
            windows: BTreeMap::new(),
            batch: Vec::new(),
            sent_ops: 0,
            sent_calls: 0,
        };
        Ok(Self {
            kernel,
            verifier,
            state: Mutex::new(state),
            lost: AtomicBool::new(false),
            counters: Counters::default(),
        })
    }

    /// Whether mirror and kernel have parted, or a queued bind failed: the device is lost to its application.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Declares the device lost.
    pub fn lose(&self, why: &str) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            tracing::error!("device lost: {why}");
        }
    }

    /// Makes a buffer object known; the handle stays the caller's to close, after [`Self::forget_object`].
    pub fn add_object(&self, handle: GemHandle) -> BoId {
        let mut state = self.state.lock();
        let id = BoId(state.next_object);
        state.next_object += 1;
        state.objects.insert(id, handle);
        id
    }

    /// Replaces every mapping of the object by a null mapping and forgets it; binds still queued for it will bind nothing.
    pub fn forget_object(&self, id: BoId) -> Result<(), BindError> {
        let mut state = self.state.lock();
        let bound = state
            .mirror
            .iter()
            .filter(|mapping| matches!(mapping.target, Target::Object { object, .. } if object == id));
        let wants: Vec<_> = bound.map(|mapping| Want { range: mapping.range, kind: OpKind::Null }).collect();
        let unbind = |state: &mut State| self.bind_locked(state, &wants);
        // A moment's lack of memory may be over at the second try.
        let unbound = unbind(&mut state).or_else(|_| unbind(&mut state));
        state.objects.remove(&id);
        unbound
    }

    /// Gives a resource its range of addresses: nothing is bound in it, its residency bits follow the binds.
    pub fn add_window(&self, range: VaRange, residency: Option<Residency>) -> Result<(), BindError> {
        let mut state = self.state.lock();
        state.windows.insert(range.start, Window { range, residency });
        let result = self.bind_locked(&mut state, &[Want { range, kind: OpKind::Null }]);
        if result.is_err() {
            state.windows.remove(&range.start);
        }
        result
    }

    /// Takes the range away from its resource, with everything that is bound in it.
    pub fn remove_window(&self, range: VaRange) -> Result<(), BindError> {
        let mut state = self.state.lock();
        let result = self.bind_locked(&mut state, &[Want { range, kind: OpKind::Unmap }]);
        state.windows.remove(&range.start);
        result
    }

    /// Makes the wanted bindings true: later ones win over earlier ones.
    pub fn bind(&self, wants: &[Want]) -> Result<(), BindError> {
        let mut state = self.state.lock();
        let (ops, calls) = (state.sent_ops, state.sent_calls);
        let result = self.bind_locked(&mut state, wants);
        self.counters.wanted.fetch_add(wants.len() as u64, Ordering::Relaxed);
        self.counters.ops.fetch_add(state.sent_ops - ops, Ordering::Relaxed);
        self.counters.calls.fetch_add(state.sent_calls - calls, Ordering::Relaxed);
        result
    }

    /// Number of mappings in the mirror, and the bytes that it takes.
    pub fn mirror_size(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.mirror.len(), state.mirror.memory_bytes())
    }

    fn bind_locked(&self, state: &mut State, wants: &[Want]) -> Result<(), BindError> {
        if self.is_lost() {
            return Err(BindError::Lost("an earlier bind failed".into()));
        }
        let plan = state.plan(wants)?;
        let result = self.execute(state, &plan);
        state.planner.recycle(plan);
        self.verify(state);
        result
    }

    fn execute(&self, state: &mut State, plan: &Plan<BoId>) -> Result<(), BindError> {
        if plan.overlapped {
            tracing::warn!("vkQueueBindSparse: ranges that nothing orders overlap; the later bind wins");
        }
        state.note_unbound(plan.ops());
        let result = match self.send(state, plan.ops()) {
            Ok(()) => state.apply(plan.ops()),
            Err(refused) => self.take_back(state, plan, refused),
        };
        state.refresh_residency(plan.ops());
        if let Err(BindError::Lost(why)) = &result {
            self.lose(why);
        }
        result
    }

    /// Hands operations to the kernel, chunk by chunk.
    fn send(&self, state: &mut State, ops: &[Op<BoId>]) -> Result<(), Refused> {
        let mut applied = 0;
        for chunk in ops.chunks(self.kernel.limits().max_ops) {
            state.batch.clear();
            let objects = &state.objects;
            state.batch.extend(chunk.iter().map(|op| to_kernel(op, objects)));
            state.sent_calls += 1;
            let sent = self.kernel.bind(&state.batch);
            let taken = sent.as_ref().map_or_else(|refused| refused.applied, |()| chunk.len());
            applied += taken;
            state.sent_ops += taken as u64;
            sent.map_err(|refused| Refused { applied, errno: refused.errno })?;
        }
        Ok(())
    }

    /// The kernel took only part of a plan: undoes that part, so that a failed bind changes nothing.
    fn take_back(&self, state: &mut State, plan: &Plan<BoId>, refused: Refused) -> Result<(), BindError> {
        let taken = &plan.ops()[..refused.applied];
        let mut undo = state.mirror.undo(taken);
        // What unbinds comes first: it makes the room that what binds again may need.
        undo.sort_by_key(|op| matches!(op.kind, OpKind::Map { .. }));
        state.apply(taken)?;
        let undone = self.send(state, &undo);
        let restored = undone.as_ref().map_or_else(|refused| refused.applied, |()| undo.len());
        state.apply(&undo[..restored])?;
        if let Err(again) = undone {
            return Err(BindError::Lost(format!(
                "operation {} of {} failed ({}), and so did taking back the ones before it ({})",
                refused.applied,
                plan.ops().len(),
                refused.errno,
                again.errno
            )));
        }
        if !self.kernel.is_usable().unwrap_or(false) {
            return Err(BindError::Lost(format!("the kernel's VM is unusable ({})", refused.errno)));
        }
        Err(match refused.errno {
            Errno::NOMEM => BindError::OutOfMemory(refused.errno),
            errno => BindError::Refused(errno),
        })
    }

    fn verify(&self, state: &State) {
        let Some(verifier) = &self.verifier else { return };
        let mut joined: Vec<Mapping<GemHandle>> = Vec::new();
        for mapping in state.mirror.iter() {
            let target = match mapping.target {
                Target::Null => Target::Null,
                Target::Object { object, offset } => match state.objects.get(&object) {
                    Some(&object) => Target::Object { object, offset },
                    None => return self.lose("the mirror maps an object that was freed"),
                },
            };
            match joined.last_mut() {
                Some(last) if continues(last, &mapping.range, &target) => last.range.len += mapping.range.len,
                _ => joined.push(Mapping { range: mapping.range, target }),
            }
        }
        if let Err(difference) = verifier(&joined) {
            self.lose(&format!("mirror and page table differ: {difference}"));
        }
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

fn to_kernel(op: &Op<BoId>, objects: &FxHashMap<BoId, GemHandle>) -> BindOp {
    let target = match op.kind {
        OpKind::Map { object, offset } => match objects.get(&object) {
            Some(&bo) => BindTarget::Map { bo, offset },
            None => BindTarget::Null,
        },
        OpKind::Null => BindTarget::Null,
        OpKind::Unmap => BindTarget::Unmap,
    };
    BindOp { va: op.range.start, len: op.range.len, target }
}

impl State {
    fn plan(&mut self, wants: &[Want]) -> Result<Plan<BoId>, VmError> {
        let mut freed = 0;
        // Binds come in runs of one object: look each run up once.
        let mut known = None;
        for want in wants {
            let mut kind = want.kind;
            if let OpKind::Map { object, .. } = kind
                && known != Some(object)
            {
                if self.objects.contains_key(&object) {
                    known = Some(object);
                } else {
                    freed += 1;
                    kind = OpKind::Null;
                }
            }
            self.planner.want(want.range, kind).inspect_err(|_| self.planner.clear())?;
        }
        if freed > 0 {
            tracing::warn!(
                "vkQueueBindSparse: {freed} binds waited until their memory was freed; they bind nothing"
            );
        }
        Ok(self.planner.plan(&self.mirror))
    }

    fn apply(&mut self, ops: &[Op<BoId>]) -> Result<(), BindError> {
        for op in ops {
            self.mirror
                .apply(op)
                .map_err(|error| BindError::Lost(format!("the mirror refused {op:?}: {error}")))?;
        }
        Ok(())
    }

    /// Bits go before the pages do.
    fn note_unbound(&self, ops: &[Op<BoId>]) {
        for op in ops.iter().filter(|op| !matches!(op.kind, OpKind::Map { .. })) {
            self.with_residency(op.range, |residency, range| residency.set(range, false));
        }
    }

    /// Bits come after the pages: read back from the mirror, whatever became of the operations.
    fn refresh_residency(&self, ops: &[Op<BoId>]) {
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
            if let Some(residency) = &window.residency {
                f(residency, part);
            }
        }
    }
}

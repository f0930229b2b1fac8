//! How planned operations come to whoever executes them.

use crate::address_space::BoId;
use ash::vk;
use core::fmt;
use gpuvm::{Op, OpKind};
use kmd::syncobj::{self, Wait, Waited};
use kmd::{
    BindOp, BindTarget, BorrowedObject, BufferObject, Errno, GemHandle, Limits, Node, SyncPoint, Syncobj,
};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a buffer object of the mirror is to those who execute binds.
pub enum Backing {
    /// A kernel object of the layer's: closed with the last reference.
    Owned(BufferObject),
    /// A kernel object of the driver's, on the driver's own open file: never closed by the layer.
    Borrowed(BorrowedObject),
    /// Memory as the driver names it, for binds that go through the driver.
    Memory(vk::DeviceMemory),
}

impl fmt::Debug for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned(object) => object.fmt(f),
            Self::Borrowed(object) => object.handle().fmt(f),
            Self::Memory(memory) => memory.fmt(f),
        }
    }
}

impl Backing {
    /// The kernel's handle; memory of the driver's has none that the layer knows.
    pub fn handle(&self) -> Option<GemHandle> {
        match self {
            Self::Owned(object) => Some(object.handle()),
            Self::Borrowed(object) => Some(object.handle()),
            Self::Memory(_) => None,
        }
    }
}

/// How far a plan came.
pub struct Sent {
    /// Operations in force, or queued for good: the first ones of the plan.
    pub ops: usize,
    /// What those went down as: as many operations, or binds of the driver's.
    pub pieces: usize,
    /// Calls that it took.
    pub calls: usize,
    /// Why the next operation was refused.
    pub end: Result<(), Errno>,
}

/// What stands behind the objects of a plan.
pub type Objects<'a> = dyn Fn(BoId) -> Option<&'a Backing> + 'a;

/// Takes operations to whoever executes them.
pub trait Carrier: Send {
    /// Hands a plan's chunks on, in order, until one is refused.
    fn carry(&mut self, chunks: &mut dyn Iterator<Item = &[Op<BoId>]>, objects: &Objects<'_>) -> Sent;

    /// As [`Self::carry`], to undo what was taken of a plan whose rest was refused.
    fn carry_back(&mut self, chunks: &mut dyn Iterator<Item = &[Op<BoId>]>, objects: &Objects<'_>) -> Sent {
        self.carry(chunks, objects)
    }

    /// Whether operations are still taken; false where the address space is in a state that nobody knows.
    fn is_usable(&self) -> bool {
        true
    }
}

/// Operations in the kernel's terms, in `batch`.
pub fn fill_batch(batch: &mut Vec<BindOp>, ops: &[Op<BoId>], objects: &Objects<'_>) -> Result<(), Errno> {
    batch.clear();
    let mut last = None;
    for op in ops {
        let target = match op.kind {
            OpKind::Map { object, offset } => {
                let bo = match last {
                    Some((same, bo)) if same == object => bo,
                    _ => objects(object).and_then(Backing::handle).ok_or(Errno::BADF)?,
                };
                last = Some((object, bo));
                BindTarget::Map { bo, offset }
            }
            OpKind::Null => BindTarget::Null,
            OpKind::Unmap => BindTarget::Unmap,
        };
        batch.push(BindOp { va: op.range.start, len: op.range.len, target });
    }
    Ok(())
}

/// Brings operations of a plan, which are disjoint and sorted, into the order that costs the kernel least.
fn order(batch: &mut [BindOp], limits: &Limits) {
    if limits.last_first {
        let block = |op: &BindOp| op.va / limits.block_size;
        batch.chunk_by_mut(|a, b| block(a) == block(b)).for_each(|ops| ops.rotate_right(1));
    }
}

/// The kernel's VM, at once: what was carried is in force on return.
pub struct AtOnce {
    vm: Arc<dyn kmd::Vm>,
    /// Kept for its memory.
    batch: Vec<BindOp>,
}

impl AtOnce {
    pub fn new(vm: Arc<dyn kmd::Vm>) -> Self {
        Self { vm, batch: Vec::new() }
    }
}

impl Carrier for AtOnce {
    fn carry(&mut self, chunks: &mut dyn Iterator<Item = &[Op<BoId>]>, objects: &Objects<'_>) -> Sent {
        bind_at_once(&*self.vm, &mut self.batch, chunks, objects, false)
    }

    fn is_usable(&self) -> bool {
        self.vm.is_usable().unwrap_or(false)
    }
}

/// Without `reorder` what is in force after a refusal are the first operations of the plan.
fn bind_at_once(
    vm: &dyn kmd::Vm,
    batch: &mut Vec<BindOp>,
    chunks: &mut dyn Iterator<Item = &[Op<BoId>]>,
    objects: &Objects<'_>,
    reorder: bool,
) -> Sent {
    let mut sent = Sent { ops: 0, pieces: 0, calls: 0, end: Ok(()) };
    for chunk in chunks {
        if let Err(errno) = fill_batch(batch, chunk, objects) {
            sent.end = Err(errno);
            break;
        }
        if reorder {
            order(batch, vm.limits());
        }
        sent.calls += 1;
        match vm.bind(batch) {
            Ok(()) => sent.ops += chunk.len(),
            Err(refused) => {
                // Reordered, any of them may be in force; to take back the others does no harm.
                sent.ops += if reorder { chunk.len() } else { refused.applied };
                sent.end = Err(refused.errno);
                break;
            }
        }
    }
    sent.pieces = sent.ops;
    sent
}

/// What is in a bind queue of the kernel's: what is done without the queue may not overtake it. Asked and told under the lock of the
/// address space, in whose order binds reach the kernel.
pub struct Pending {
    node: Arc<dyn Node>,
    /// Every queued call puts its fence here, in place of that of the one before.
    last: Syncobj,
    /// Whether that fence was not seen signalled yet.
    is_busy: AtomicBool,
}

impl Pending {
    pub fn new(node: Arc<dyn Node>) -> Result<Self, Errno> {
        let last = Syncobj::create(node.clone(), false)?;
        Ok(Self { node, last, is_busy: AtomicBool::new(false) })
    }

    /// Whether the queue is empty and nothing is to be waited for. In doubt it is not.
    fn allows_at_once(&self, waits: &[SyncPoint]) -> bool {
        let is_over = |points: &[SyncPoint]| {
            let poll = Wait { until_ns: 0, ..Wait::ALL };
            matches!(syncobj::wait(&*self.node, points, poll), Ok(Waited::Done { .. }))
        };
        if self.is_busy.load(Ordering::Relaxed) {
            if !is_over(&[self.last.binary()]) {
                return false;
            }
            self.is_busy.store(false, Ordering::Relaxed);
        }
        is_over(waits)
    }
}

/// A bind queue of the kernel's.
#[derive(Clone)]
pub struct KernelQueue {
    pub vm: Arc<dyn kmd::Vm>,
    pub pending: Arc<Pending>,
}

/// What a driver does in the same address space by itself, and binds must come behind.
pub trait Before: Send + Sync {
    /// Changes with everything that the driver does there; cheap to ask.
    fn state(&self) -> u64;

    /// A point that is signalled when all that is over.
    fn point(&self) -> Result<SyncPoint, Errno>;
}

/// Those of a call, of which most have few.
type Points = SmallVec<[SyncPoint; 4]>;

/// The way through a bind queue of the kernel's: what was carried will be in force when it has come to it. The first call waits, the last
/// one signals. Where nothing has to be waited for, and there is nothing to bind or the kernel prefers that, it is in force and signalled
/// on return.
pub struct Queued<'a> {
    vm: &'a dyn kmd::Vm,
    batch: &'a mut Vec<BindOp>,
    before: Option<&'a dyn Before>,
    pending: Option<&'a Pending>,
    waits: &'a [SyncPoint],
    signals: &'a [SyncPoint],
    came_behind: bool,
}

impl<'a> Queued<'a> {
    /// `batch` is kept for its memory. `before`: what operations must come behind, if anything. `pending`: what is in the queue, where
    /// what can be done without it may be.
    pub fn new(
        vm: &'a dyn kmd::Vm,
        batch: &'a mut Vec<BindOp>,
        before: Option<&'a dyn Before>,
        pending: Option<&'a Pending>,
        waits: &'a [SyncPoint],
        signals: &'a [SyncPoint],
    ) -> Self {
        Self { vm, batch, before, pending, waits, signals, came_behind: false }
    }

    /// Whether there was something that came behind what the driver does.
    pub fn came_behind(&self) -> bool {
        self.came_behind
    }

    /// Makes one call for what is in the batch.
    fn call(&mut self, first: bool, last: bool) -> Result<(), Errno> {
        let signals = if last { self.signals } else { &[] };
        let waits = if first { self.waits } else { &[] };
        let (mut waits, mut signals) = (Points::from_slice(waits), Points::from_slice(signals));
        let before = self.before.filter(|_| first && !self.batch.is_empty());
        if let Some(before) = before {
            waits.push(before.point()?);
        }
        signals.extend(self.pending.map(|pending| pending.last.binary()));
        self.vm.bind_async(self.batch, &waits, &signals)?;
        self.came_behind |= before.is_some();
        if let Some(pending) = self.pending {
            pending.is_busy.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Carrier for Queued<'_> {
    fn carry(&mut self, chunks: &mut dyn Iterator<Item = &[Op<BoId>]>, objects: &Objects<'_>) -> Sent {
        let mut chunks = chunks.peekable();
        let is_empty = chunks.peek().is_none();
        if is_empty && self.waits.is_empty() && self.signals.is_empty() {
            return Sent { ops: 0, pieces: 0, calls: 0, end: Ok(()) };
        }
        if let Some(pending) = self.pending
            && (is_empty || self.vm.limits().prefers_at_once)
            && pending.allows_at_once(self.waits)
        {
            let mut sent = bind_at_once(self.vm, self.batch, &mut chunks, objects, true);
            let mut signals = self.signals.iter();
            while sent.end.is_ok()
                && let Some(signal) = signals.next()
            {
                sent.end = syncobj::signal(&*pending.node, *signal);
            }
            return sent;
        }
        let mut sent = Sent { ops: 0, pieces: 0, calls: 0, end: Ok(()) };
        let mut next = chunks.next().or(Some(&[]));
        while let Some(chunk) = next {
            let last = chunks.peek().is_none();
            sent.end = fill_batch(self.batch, chunk, objects).and_then(|()| {
                order(self.batch, self.vm.limits());
                self.call(sent.calls == 0, last)
            });
            if sent.end.is_err() {
                break;
            }
            sent.ops += chunk.len();
            sent.calls += 1;
            next = chunks.next();
        }
        sent.pieces = sent.ops;
        sent
    }

    fn carry_back(&mut self, chunks: &mut dyn Iterator<Item = &[Op<BoId>]>, objects: &Objects<'_>) -> Sent {
        let (mut batch, vm) = (core::mem::take(self.batch), self.vm);
        let sent = Queued::new(vm, &mut batch, None, self.pending, &[], &[]).carry(chunks, objects);
        *self.batch = batch;
        sent
    }

    fn is_usable(&self) -> bool {
        self.vm.is_usable().unwrap_or(false)
    }
}

/// Nobody: for address spaces that only the layer knows.
pub struct Follow;

impl Carrier for Follow {
    fn carry(&mut self, chunks: &mut dyn Iterator<Item = &[Op<BoId>]>, _: &Objects<'_>) -> Sent {
        Sent { ops: chunks.map(<[_]>::len).sum(), pieces: 0, calls: 0, end: Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_block_comes_first() {
        let limits = |last_first| Limits {
            page_size: 4096,
            va: 0..1 << 40,
            kernel: None,
            max_ops: 1024,
            null_mapping: true,
            block_size: 2 << 20,
            remap_in_use: true,
            prefers_at_once: true,
            last_first,
            shares_tables: false,
            cost: kmd::Cost { op: 1, table: 1, entry: 1, pages: 1 },
        };
        let ordered = |last_first| {
            let va = [0x1f_0000, 0x20_0000, 0x21_0000, 0x3f_0000, 0x40_0000];
            let mut batch = va.map(|va| BindOp { va, len: 0x1_0000, target: BindTarget::Null });
            order(&mut batch, &limits(last_first));
            batch.map(|op| op.va)
        };
        assert_eq!(ordered(false), [0x1f_0000, 0x20_0000, 0x21_0000, 0x3f_0000, 0x40_0000]);
        assert_eq!(ordered(true), [0x1f_0000, 0x3f_0000, 0x20_0000, 0x21_0000, 0x40_0000]);
    }
}

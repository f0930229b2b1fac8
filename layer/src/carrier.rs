//! How planned operations come to whoever executes them.

use crate::address_space::BoId;
use ash::vk;
use core::fmt;
use gpuvm::{Op, OpKind};
use kmd::{BindOp, BindTarget, BorrowedObject, BufferObject, Errno, GemHandle, SyncPoint};
use std::sync::Arc;

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
        let mut sent = Sent { ops: 0, pieces: 0, calls: 0, end: Ok(()) };
        for chunk in chunks {
            if let Err(errno) = fill_batch(&mut self.batch, chunk, objects) {
                sent.end = Err(errno);
                break;
            }
            sent.calls += 1;
            match self.vm.bind(&self.batch) {
                Ok(()) => sent.ops += chunk.len(),
                Err(refused) => {
                    sent.ops += refused.applied;
                    sent.end = Err(refused.errno);
                    break;
                }
            }
        }
        sent.pieces = sent.ops;
        sent
    }

    fn is_usable(&self) -> bool {
        self.vm.is_usable().unwrap_or(false)
    }
}

/// What a driver does in the same address space by itself, and binds must come behind.
pub trait Before: Send + Sync {
    /// Changes with everything that the driver does there; cheap to ask.
    fn state(&self) -> u64;

    /// A point that is signalled when all that is over.
    fn point(&self) -> Result<SyncPoint, Errno>;
}

/// A bind queue of the kernel's: what was carried will be in force when it has come to it. The first call waits, the last one signals.
pub struct Queued<'a> {
    vm: &'a dyn kmd::Vm,
    batch: &'a mut Vec<BindOp>,
    before: Option<&'a dyn Before>,
    waits: &'a [SyncPoint],
    signals: &'a [SyncPoint],
    came_behind: bool,
}

impl<'a> Queued<'a> {
    /// `batch` is kept for its memory. `before`: what operations must come behind, if anything.
    pub fn new(
        vm: &'a dyn kmd::Vm,
        batch: &'a mut Vec<BindOp>,
        before: Option<&'a dyn Before>,
        waits: &'a [SyncPoint],
        signals: &'a [SyncPoint],
    ) -> Self {
        Self { vm, batch, before, waits, signals, came_behind: false }
    }

    /// Whether there was something that came behind what the driver does.
    pub fn came_behind(&self) -> bool {
        self.came_behind
    }

    /// Makes one call for what is in the batch.
    fn call(&mut self, first: bool, last: bool) -> Result<(), Errno> {
        let signals = if last { self.signals } else { &[] };
        if !first {
            return self.vm.bind_async(self.batch, &[], signals);
        }
        let Some(before) = self.before.filter(|_| !self.batch.is_empty()) else {
            return self.vm.bind_async(self.batch, self.waits, signals);
        };
        let mut waits = self.waits.to_vec();
        waits.push(before.point()?);
        self.vm.bind_async(self.batch, &waits, signals)?;
        self.came_behind = true;
        Ok(())
    }
}

impl Carrier for Queued<'_> {
    fn carry(&mut self, chunks: &mut dyn Iterator<Item = &[Op<BoId>]>, objects: &Objects<'_>) -> Sent {
        let mut sent = Sent { ops: 0, pieces: 0, calls: 0, end: Ok(()) };
        let mut chunks = chunks.peekable();
        let mut next = chunks.next();
        if next.is_none() && !(self.waits.is_empty() && self.signals.is_empty()) {
            next = Some(&[]);
        }
        while let Some(chunk) = next {
            let last = chunks.peek().is_none();
            sent.end = fill_batch(self.batch, chunk, objects).and_then(|()| self.call(sent.calls == 0, last));
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
        let sent = Queued::new(vm, &mut batch, None, &[], &[]).carry(chunks, objects);
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

//! What VM_BIND and GROUP_SUBMIT share: several jobs, each with what it waits for and what it signals.

use std::collections::HashMap;
use std::sync::Arc;

use kmd::uapi::panthor::*;
use rustix::io::Errno;

use super::Panthor;
use crate::drm::fence::Fence;
use crate::drm::syncobj::Syncobj;
use crate::queue::Job;

/// A signal of a submission: the place, and the fence that will go there.
struct Signal {
    syncobj: Arc<Syncobj>,
    point: u64,
    fence: Option<Arc<Fence>>,
}

/// The signals of a submission, in the order in which they were first named.
#[derive(Default)]
pub(super) struct Signals {
    list: Vec<Signal>,
    index: HashMap<(u32, u64), usize>,
}

impl Signals {
    fn find(&mut self, op: &SyncOp) -> Option<&mut Signal> {
        let at = *self.index.get(&(op.handle, op.timeline_value))?;
        self.list.get_mut(at)
    }

    /// Puts the fences in place: the jobs are queued.
    pub(super) fn put(self) {
        for Signal { syncobj, point, fence } in self.list {
            let Some(fence) = fence else { continue };
            match point {
                0 => syncobj.replace_fence(Some(fence)),
                point => syncobj.add_point(fence, point),
            }
        }
    }
}

fn check_sync_op(op: &SyncOp) -> Result<(), Errno> {
    if op.flags & !(SYNC_OP_HANDLE_TYPE_MASK | SYNC_OP_SIGNAL) != 0 {
        return Err(Errno::INVAL);
    }
    match op.flags & SYNC_OP_HANDLE_TYPE_MASK {
        SYNC_OP_HANDLE_TYPE_SYNCOBJ if op.timeline_value == 0 => Ok(()),
        SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

fn is_signal(op: &SyncOp) -> bool {
    op.flags & SYNC_OP_SIGNAL != 0
}

impl Panthor {
    /// The places that the jobs of a submission signal, each with the fence that is there now.
    pub(super) fn collect_signals(&self, syncs: &[Vec<SyncOp>]) -> Result<Signals, Errno> {
        let mut signals = Signals::default();
        for op in syncs.iter().flatten().filter(|op| is_signal(op)) {
            check_sync_op(op)?;
            if signals.find(op).is_some() {
                continue;
            }
            let syncobj = self.file.syncobj(op.handle).ok_or(Errno::INVAL)?;
            // Usually there is no fence at that point yet.
            let fence = syncobj.find_fence(op.timeline_value).ok();
            signals.index.insert((op.handle, op.timeline_value), signals.list.len());
            signals.list.push(Signal { syncobj, point: op.timeline_value, fence });
        }
        Ok(signals)
    }

    /// Gives each job of a submission what it waits for, and its fence to what it signals. `syncs` are the jobs' operations.
    pub(super) fn link<W>(
        &self,
        jobs: &mut [Job<W>],
        syncs: &[Vec<SyncOp>],
        signals: &mut Signals,
    ) -> Result<(), Errno> {
        for (job, syncs) in jobs.iter_mut().zip(syncs) {
            for op in syncs.iter().filter(|op| !is_signal(op)) {
                check_sync_op(op)?;
                let fence = match signals.find(op) {
                    // A job may wait for one before it in the same submission, but not for one that is still to come.
                    Some(signal) => signal.fence.clone().ok_or(Errno::INVAL)?,
                    None => {
                        self.file.syncobj(op.handle).ok_or(Errno::NOENT)?.find_fence(op.timeline_value)?
                    }
                };
                job.waits.push(fence);
            }
            for op in syncs.iter().filter(|op| is_signal(op)) {
                if let Some(signal) = signals.find(op) {
                    signal.fence = Some(job.done.clone());
                }
            }
        }
        Ok(())
    }
}

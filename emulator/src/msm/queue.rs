//! Submit queues. Only those for VM_BIND ever get work here.

use std::sync::Arc;

use kmd::uapi::msm::*;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::Msm;
use super::param::PRIORITIES_PER_RING;
use super::vm::BindWork;
use crate::drm::user::User;
use crate::queue::Queue;

/// A submit queue.
#[derive(Default)]
pub(super) struct SubmitQueue {
    /// Its jobs, if it is for VM_BIND.
    pub(super) jobs: Option<Arc<Queue<BindWork>>>,
    /// Held by the ioctl that submits to it.
    pub(super) order: Mutex<()>,
}

impl SubmitQueue {
    /// Nothing comes any more; what is queued still runs.
    pub(super) fn close(&self) {
        if let Some(jobs) = &self.jobs {
            jobs.close();
        }
    }
}

impl Msm {
    pub(super) fn submit_queue(&self, id: u32) -> Result<Arc<SubmitQueue>, Errno> {
        self.context.lock().queues.get(&id).cloned().ok_or(Errno::NOENT)
    }

    pub(super) fn submitqueue_new(&self, args: &mut SubmitqueueNew) -> Result<(), Errno> {
        if args.flags & !SUBMITQUEUE_FLAGS != 0 {
            return Err(Errno::INVAL);
        }
        let mut queue = SubmitQueue::default();
        if args.flags & SUBMITQUEUE_VM_BIND != 0 {
            self.vm()?;
            if !self.is_user_managed() || args.prio != 0 {
                return Err(Errno::INVAL);
            }
            queue.jobs = Some(Queue::new(self.file.device.pace.clone()));
        } else {
            // Odd, but so it is: a GPU that does not preempt, though the driver would let it, refuses the flag.
            let preempt = args.flags & SUBMITQUEUE_ALLOW_PREEMPT != 0 && self.gpu.rings == 1;
            if preempt || u64::from(args.prio) >= self.gpu.rings * PRIORITIES_PER_RING {
                return Err(Errno::INVAL);
            }
        }
        let mut context = self.context.lock();
        args.id = context.next_queue;
        context.next_queue += 1;
        context.queues.insert(args.id, Arc::new(queue));
        Ok(())
    }

    pub(super) fn submitqueue_close(&self, args: &mut SubmitqueueClose) -> Result<(), Errno> {
        if args.0 == 0 {
            return Err(Errno::NOENT);
        }
        let queue = self.context.lock().queues.remove(&args.0).ok_or(Errno::NOENT)?;
        queue.close();
        Ok(())
    }

    pub(super) fn submitqueue_query(&self, args: &mut SubmitqueueQuery, user: &User) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        self.submit_queue(args.id)?;
        if args.param != SUBMITQUEUE_PARAM_FAULTS {
            return Err(Errno::INVAL);
        }
        let faults = 0u32.to_ne_bytes();
        match args.len as usize {
            0 => args.len = faults.len() as u32,
            len => user.write_bytes(args.data, &faults[..len.min(faults.len())])?,
        }
        Ok(())
    }

    /// No queue has ever taken a submission, so every number but the first is one that does not exist.
    pub(super) fn wait_fence(&self, args: &mut WaitFence) -> Result<(), Errno> {
        if args.flags & !WAIT_FENCE_BOOST != 0 {
            return Err(Errno::INVAL);
        }
        self.submit_queue(args.queueid)?;
        if (args.fence as i32) > 0 { Err(Errno::INVAL) } else { Ok(()) }
    }
}

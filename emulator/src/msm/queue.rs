//! Submit queues: for VM_BIND, and for the GPU.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kmd::uapi::msm::*;
use parking_lot::Mutex;
use rustix::io::Errno;

use super::Msm;
use super::param::PRIORITIES_PER_RING;
use super::submit::SubmitWork;
use super::vm::BindWork;
use crate::drm::fence::Fence;
use crate::drm::user::User;
use crate::queue::Queue;

/// A submit queue.
pub(super) struct SubmitQueue {
    pub(super) kind: Kind,
    /// Held by the ioctl that submits to it.
    pub(super) order: Mutex<Numbers>,
    /// Submissions that went wrong on the GPU.
    pub(super) faults: AtomicU32,
}

/// What a submit queue takes.
pub(super) enum Kind {
    Bind(Arc<Queue<BindWork>>),
    /// Submit queues of the same priority share one: their submissions run in the order in which they came.
    Gpu(Arc<Queue<SubmitWork>>),
}

/// The numbers of a queue's submissions.
#[derive(Default)]
pub(super) struct Numbers {
    last: u32,
    /// Where the search for a free number starts, less one.
    cursor: u32,
    /// Submissions that are not over.
    fences: BTreeMap<u32, Arc<Fence>>,
}

/// Largest number that the kernel gives.
const LAST_NUMBER: u32 = i32::MAX as u32 - 1;

impl Numbers {
    fn forget_finished(&mut self) {
        self.fences.retain(|_, fence| !fence.is_signaled());
    }

    /// Whether user space may use `number` for a submission: it is not zero, and no unfinished submission has it.
    pub(super) fn is_free(&mut self, number: u32) -> bool {
        self.forget_finished();
        number != 0 && !self.fences.contains_key(&number)
    }

    /// Numbers a submission: the number that user space has chosen, or the next that is free.
    pub(super) fn add(&mut self, chosen: Option<u32>, fence: &Arc<Fence>) -> u32 {
        let number = chosen.unwrap_or_else(|| {
            self.forget_finished();
            loop {
                self.cursor = if self.cursor >= LAST_NUMBER { 1 } else { self.cursor + 1 };
                if !self.fences.contains_key(&self.cursor) {
                    break self.cursor;
                }
            }
        });
        self.fences.insert(number, fence.clone());
        self.last = number;
        number
    }

    /// The fence of a submission, unless it is over. `EINVAL`: there was no such submission.
    fn find(&self, number: u32) -> Result<Option<Arc<Fence>>, Errno> {
        // Numbers wrap.
        if number.wrapping_sub(self.last) as i32 > 0 {
            return Err(Errno::INVAL);
        }
        Ok(self.fences.get(&number).cloned())
    }
}

impl SubmitQueue {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, order: Mutex::default(), faults: AtomicU32::new(0) }
    }

    /// Nothing comes any more; what is queued still runs.
    pub(super) fn close(&self) {
        if let Kind::Bind(jobs) = &self.kind {
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
        let binds = args.flags & SUBMITQUEUE_VM_BIND != 0;
        if binds {
            self.vm()?;
            if !self.is_user_managed() || args.prio != 0 {
                return Err(Errno::INVAL);
            }
        } else {
            // Odd, but so it is: a GPU that does not preempt, though the driver would let it, refuses the flag.
            let preempt = args.flags & SUBMITQUEUE_ALLOW_PREEMPT != 0 && self.gpu.rings == 1;
            if preempt || u64::from(args.prio) >= self.gpu.rings * PRIORITIES_PER_RING {
                return Err(Errno::INVAL);
            }
        }
        let pace = self.file.device.pace.clone();
        let mut context = self.context.lock();
        args.id = context.next_queue;
        let kind = if binds {
            Kind::Bind(Queue::new(pace, Some(args.id)))
        } else {
            Kind::Gpu(context.entities.entry(args.prio).or_insert_with(|| Queue::new(pace, None)).clone())
        };
        context.next_queue += 1;
        context.queues.insert(args.id, Arc::new(SubmitQueue::new(kind)));
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
        let queue = self.submit_queue(args.id)?;
        if args.param != SUBMITQUEUE_PARAM_FAULTS {
            return Err(Errno::INVAL);
        }
        let faults = queue.faults.load(Ordering::Relaxed).to_ne_bytes();
        match args.len as usize {
            0 => args.len = faults.len() as u32,
            len => user.write_bytes(args.data, &faults[..len.min(faults.len())])?,
        }
        Ok(())
    }

    pub(super) fn wait_fence(&self, args: &mut WaitFence) -> Result<(), Errno> {
        if args.flags & !WAIT_FENCE_FLAGS != 0 {
            return Err(Errno::INVAL);
        }
        let queue = self.submit_queue(args.queueid)?;
        let found = queue.order.lock().find(args.fence)?;
        match found {
            Some(fence) if !fence.wait_until(super::deadline(&args.timeout)) => Err(Errno::TIMEDOUT),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_run_on_and_wrap() {
        let (mut numbers, open) = (Numbers::default(), Fence::new());
        let stub = Fence::stub();
        assert_eq!((numbers.add(None, &open), numbers.add(None, &stub)), (1, 2));
        assert!(!numbers.is_free(0) && !numbers.is_free(1) && numbers.is_free(2));
        assert_eq!(numbers.add(Some(9), &stub), 9);
        // A number that user space chose moves no cursor.
        assert_eq!(numbers.add(None, &stub), 3);
        assert!(matches!(numbers.find(1), Ok(Some(_))) && matches!(numbers.find(2), Ok(None)));
        assert!(matches!(numbers.find(4), Err(Errno::INVAL)) && matches!(numbers.find(u32::MAX), Ok(None)));
        numbers.cursor = LAST_NUMBER;
        assert_eq!(numbers.add(None, &stub), 2, "1 is still in use");
    }
}

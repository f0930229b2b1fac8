//! The bind queue of a VM: one thread that runs jobs in order, each when everything it waits for is signalled.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::vm::Vm;
use crate::drm::fence::Fence;
use crate::vm::Operation;

/// One job: waits, does, signals.
pub(super) struct Job {
    /// Nothing for a job that only synchronises.
    pub(super) operation: Option<Operation>,
    pub(super) waits: Vec<Arc<Fence>>,
    pub(super) done: Arc<Fence>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    started: bool,
    /// No more jobs will come.
    closed: bool,
}

/// A bind queue.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// Starts the thread, if it does not run yet. `ENOMEM`: the system gives none.
    pub(super) fn start(vm: &Arc<Vm>) -> Result<(), Errno> {
        let mut state = vm.queue.state.lock();
        if state.started || state.closed {
            return Ok(());
        }
        let worker = vm.clone();
        let thread =
            std::thread::Builder::new().name("tessera-bind".into()).spawn(move || worker.queue.work(&worker));
        match thread {
            Ok(_) => {
                state.started = true;
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "a bind queue gets no thread");
                Err(Errno::NOMEM)
            }
        }
    }

    /// Appends jobs. The queue has been started.
    pub(super) fn push(&self, jobs: Vec<Job>) {
        let mut state = self.state.lock();
        state.jobs.extend(jobs);
        self.changed.notify_one();
    }

    /// Lets the thread end once the jobs that are there are done.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    fn work(&self, vm: &Vm) {
        loop {
            let job = {
                let mut state = self.state.lock();
                loop {
                    match state.jobs.pop_front() {
                        Some(job) => break job,
                        None if state.closed => return,
                        None => self.changed.wait(&mut state),
                    }
                }
            };
            for fence in &job.waits {
                fence.wait();
            }
            vm.run_job(job.operation.as_ref());
            // The fence is signalled whether or not it went well; a failure shows in the state of the VM.
            job.done.signal();
        }
    }
}

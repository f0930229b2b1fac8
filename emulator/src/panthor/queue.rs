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
    running: bool,
    /// The thread is to end when it has nothing to do.
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
        Self::ensure(vm, &mut vm.queue.state.lock())
    }

    fn ensure(vm: &Arc<Vm>, state: &mut State) -> Result<(), Errno> {
        if state.running {
            return Ok(());
        }
        let worker = vm.clone();
        let thread = std::thread::Builder::new().name("tessera-bind".into());
        if let Err(error) = thread.spawn(move || worker.queue.work(&worker)) {
            tracing::warn!(%error, "a bind queue gets no thread");
            return Err(Errno::NOMEM);
        }
        state.running = true;
        Ok(())
    }

    /// Appends jobs.
    pub(super) fn push(vm: &Arc<Vm>, jobs: Vec<Job>) {
        let mut state = vm.queue.state.lock();
        state.jobs.extend(jobs);
        vm.queue.changed.notify_one();
        // The thread that `start` made has ended if the VM was destroyed meanwhile.
        if Self::ensure(vm, &mut state).is_err() {
            // Whoever waits for these jobs must not wait for ever; a destroyed VM shows nothing of them anyway.
            let lost = core::mem::take(&mut state.jobs);
            drop(state);
            lost.iter().for_each(|job| job.done.signal());
        }
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
                        None if state.closed => {
                            state.running = false;
                            return;
                        }
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

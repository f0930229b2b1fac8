//! A queue of jobs: one thread that runs jobs in order, each when everything it waits for is signalled and its device lets it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use crate::drm::fence::Fence;

/// What a job does.
pub(crate) trait Work: Send + 'static {
    fn run(self);
}

/// One job: waits, does, signals.
pub(crate) struct Job<W> {
    pub(crate) work: W,
    pub(crate) waits: Vec<Arc<Fence>>,
    pub(crate) done: Arc<Fence>,
}

struct State<W> {
    jobs: VecDeque<Job<W>>,
    running: bool,
    /// The thread is to end when it has nothing to do.
    closed: bool,
}

/// When the queued jobs of a device may run: for tests that look at what is between a call and its job.
#[derive(Default)]
pub(crate) struct Pace {
    state: Mutex<PaceState>,
    changed: Condvar,
}

#[derive(Default)]
struct PaceState {
    delay: Duration,
    held: bool,
    /// The only bind queue that is concerned; the others' jobs run when they can.
    only: Option<u32>,
}

impl PaceState {
    fn concerns(&self, queue: Option<u32>) -> bool {
        self.only.is_none() || self.only == queue
    }
}

impl Pace {
    /// Jobs run this much later from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// Jobs do not run until it is called with `false`.
    pub(crate) fn hold(&self, held: bool) {
        self.state.lock().held = held;
        self.changed.notify_all();
    }

    /// Only the jobs of this bind queue are late or held, from now on; with `None`, those of all queues.
    pub(crate) fn single_out(&self, queue: Option<u32>) {
        self.state.lock().only = queue;
        self.changed.notify_all();
    }

    /// Lets time pass for a job of this bind queue, or of the GPU.
    fn wait(&self, queue: Option<u32>) {
        let mut state = self.state.lock();
        let delay = state.delay;
        if !delay.is_zero() && state.concerns(queue) {
            drop(state);
            std::thread::sleep(delay);
            state = self.state.lock();
        }
        self.changed.wait_while(&mut state, |state| state.held && state.concerns(queue));
    }
}

/// A queue of jobs: binds, or the GPU's.
pub(crate) struct Queue<W> {
    pace: Arc<Pace>,
    /// The number by which user space knows a bind queue.
    number: Option<u32>,
    state: Mutex<State<W>>,
    changed: Condvar,
}

impl<W: Work> Queue<W> {
    /// `number`: of a bind queue; nothing for one of the GPU.
    pub(crate) fn new(pace: Arc<Pace>, number: Option<u32>) -> Arc<Self> {
        let state = State { jobs: VecDeque::new(), running: false, closed: false };
        Arc::new(Self { pace, number, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Starts the thread, if it does not run yet. `ENOMEM`: the system gives none.
    pub(crate) fn start(self: &Arc<Self>) -> Result<(), Errno> {
        self.ensure(&mut self.state.lock())
    }

    fn ensure(self: &Arc<Self>, state: &mut State<W>) -> Result<(), Errno> {
        if state.running {
            return Ok(());
        }
        let worker = self.clone();
        let thread = std::thread::Builder::new().name("tessera-jobs".into());
        if let Err(error) = thread.spawn(move || worker.work()) {
            tracing::warn!(%error, "a queue gets no thread");
            return Err(Errno::NOMEM);
        }
        state.running = true;
        Ok(())
    }

    /// Appends jobs.
    pub(crate) fn push(self: &Arc<Self>, jobs: impl IntoIterator<Item = Job<W>>) {
        let mut state = self.state.lock();
        state.jobs.extend(jobs);
        self.changed.notify_one();
        // The thread that `start` made has ended if the queue was closed meanwhile.
        if self.ensure(&mut state).is_err() {
            // Whoever waits for these jobs must not wait for ever; what a closed queue binds nobody sees anyway.
            let lost = core::mem::take(&mut state.jobs);
            drop(state);
            lost.iter().for_each(|job| job.done.signal());
        }
    }

    /// Lets the thread end once the jobs that are there are done.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    fn work(&self) {
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
            self.pace.wait(self.number);
            job.work.run();
            // The fence is signalled whether or not it went well; a failure shows in the state of the VM.
            job.done.signal();
        }
    }
}

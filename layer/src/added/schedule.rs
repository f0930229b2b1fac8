//! When the work of several queues goes to the driver's.
//!
//! A driver's queue runs in order. Something that waits there for what another of the application's queues does later, on the same
//! driver's queue, would wait for ever. So work is *placed* only when everything that it waits for has happened or was placed before
//! it; until then it waits in the lane of its queue, and what follows on that queue behind it. By induction everything that was
//! placed ends without help, whatever the application does next.

use crate::device::Device;
use crate::semaphore::Points;
use ash::vk;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often lanes look at semaphores that others than this device's calls may signal: another process, another device.
pub const POLL: Duration = Duration::from_millis(2);

/// A semaphore, and the value where it is a timeline.
pub type Point = (vk::Semaphore, u64);

/// Hands work to a driver's queue.
pub type Place = Box<dyn FnOnce(&Arc<Device>, vk::Queue) -> Result<(), vk::Result> + Send>;

pub struct Schedule {
    /// The driver's queue that serves the added ones.
    pub serving: vk::Queue,
    state: Mutex<State>,
    /// Something was placed, signalled or is to end.
    changed: Condvar,
    worker: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct State {
    lanes: Vec<Lane>,
    /// The highest value of a timeline semaphore whose signal was placed.
    placed: FxHashMap<vk::Semaphore, u64>,
    /// Signals of binary semaphores that are not placed yet, by number; and those of them that nobody waits for yet.
    unplaced: FxHashSet<u64>,
    unclaimed: FxHashMap<vk::Semaphore, u64>,
    signals: u64,
    /// The fences of work that is not placed yet: nobody but who places it may touch them.
    fences: FxHashSet<vk::Fence>,
    stop: bool,
}

/// What one of the application's queues has that is not placed.
struct Lane {
    queue: vk::Queue,
    driver: vk::Queue,
    waiting: VecDeque<Work>,
}

struct Work {
    needs: Vec<Need>,
    timelines: Vec<Point>,
    /// Its signals of binary semaphores, by number.
    binaries: Vec<(vk::Semaphore, u64)>,
    fence: vk::Fence,
    place: Place,
}

enum Need {
    /// The timeline comes to its value.
    Reached(Point),
    /// The signal of a binary semaphore with this number is placed.
    Placed(u64),
}

/// The right to place work of one queue, or to defer it. Whoever has it uses the driver's queue alone.
pub struct Turn<'a> {
    schedule: &'a Schedule,
    d: &'a Arc<Device>,
    state: MutexGuard<'a, State>,
    lane: usize,
}

fn is_timeline(d: &Device, semaphore: vk::Semaphore) -> bool {
    d.sparse.as_ref().is_some_and(|sparse| sparse.timelines.get(semaphore).is_some())
}

/// The points of a batch one by one; semaphores without values are binary.
pub fn points(points: Points<'_>) -> impl Iterator<Item = Point> {
    let values = points.values.iter().copied().chain(core::iter::repeat(0));
    points.semaphores.iter().copied().zip(values)
}

impl State {
    fn reached(&self, d: &Device, (semaphore, value): Point) -> bool {
        self.placed.get(&semaphore).is_some_and(|&placed| placed >= value)
            // SAFETY: a timeline semaphore of the device that the application waits for.
            || unsafe { d.next.get_semaphore_counter_value(semaphore) }.is_ok_and(|counter| counter >= value)
    }

    fn is_met(&self, d: &Device, need: &Need) -> bool {
        match *need {
            Need::Reached(point) => self.reached(d, point),
            Need::Placed(number) => !self.unplaced.contains(&number),
        }
    }

    fn note_placed(&mut self, (semaphore, value): Point) {
        let placed = self.placed.entry(semaphore).or_default();
        *placed = value.max(*placed);
    }

    /// Places what can be placed; whether that was anything.
    fn advance(&mut self, d: &Arc<Device>) -> bool {
        let mut any = false;
        for at in 0..self.lanes.len() {
            while let Some(work) = self.lanes[at].waiting.front()
                && work.needs.iter().all(|need| self.is_met(d, need))
            {
                let driver = self.lanes[at].driver;
                let Some(work) = self.lanes[at].waiting.pop_front() else { break };
                any = true;
                if let (Err(error), Some(sparse)) = ((work.place)(d, driver), &d.sparse) {
                    // Its call returned long ago.
                    sparse
                        .address_space
                        .lose(&format!("work that had waited for its semaphores failed: {error}"));
                }
                self.fences.remove(&work.fence);
                work.timelines.into_iter().for_each(|point| self.note_placed(point));
                for (semaphore, number) in work.binaries {
                    self.unplaced.remove(&number);
                    if self.unclaimed.get(&semaphore) == Some(&number) {
                        self.unclaimed.remove(&semaphore);
                    }
                }
            }
        }
        any
    }
}

impl Schedule {
    pub fn new(serving: vk::Queue) -> Self {
        Self { serving, state: Mutex::default(), changed: Condvar::new(), worker: Mutex::default() }
    }

    /// A turn of a queue of the application's, which `driver` serves.
    pub fn turn<'a>(&'a self, d: &'a Arc<Device>, queue: vk::Queue, driver: vk::Queue) -> Turn<'a> {
        let mut state = self.state.lock();
        let lane = state.lanes.iter().position(|lane| lane.queue == queue).unwrap_or_else(|| {
            state.lanes.push(Lane { queue, driver, waiting: VecDeque::new() });
            state.lanes.len() - 1
        });
        Turn { schedule: self, d, state, lane }
    }

    /// A turn once everything before it on its queue, and the signals of these binary semaphores, are placed.
    ///
    /// May wait, where the driver waits too: valid usage has submitted everything that this depends on.
    pub fn turn_after<'a>(
        &'a self,
        d: &'a Arc<Device>,
        queue: vk::Queue,
        driver: vk::Queue,
        waits: &[vk::Semaphore],
    ) -> Turn<'a> {
        let mut turn = self.turn(d, queue, driver);
        while !turn.is_empty() || waits.iter().any(|semaphore| turn.state.unclaimed.contains_key(semaphore)) {
            self.changed.wait(&mut turn.state);
        }
        turn
    }

    /// Waits until nothing of any queue is left to place, and gives the driver's queues that were used.
    pub fn drain(&self) -> Vec<vk::Queue> {
        let mut state = self.state.lock();
        while state.lanes.iter().any(|lane| !lane.waiting.is_empty()) {
            self.changed.wait(&mut state);
        }
        let mut used: Vec<_> = state.lanes.iter().map(|lane| lane.driver).collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Runs `body` while no queue of the driver's is in use.
    pub fn alone<R>(&self, body: impl FnOnce() -> R) -> R {
        let _state = self.state.lock();
        body()
    }

    /// Whether the work of a fence is not placed yet.
    pub fn defers(&self, fence: vk::Fence) -> bool {
        self.state.lock().fences.contains(&fence)
    }

    /// Waits until the work of all these fences is placed, or of one of them where that is enough; false when `deadline` comes first.
    /// Those that are placed stay in `fences`.
    pub fn wait_placed(&self, fences: &mut Vec<vk::Fence>, all: bool, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        loop {
            let placed = fences.iter().filter(|fence| !state.fences.contains(fence)).count();
            if placed == fences.len() || (placed > 0 && !all) {
                fences.retain(|fence| !state.fences.contains(fence));
                return true;
            }
            match deadline {
                Some(deadline) if self.changed.wait_until(&mut state, deadline).timed_out() => return false,
                Some(_) => {}
                None => self.changed.wait(&mut state),
            }
        }
    }

    /// The host signalled a semaphore.
    pub fn wake(&self) {
        let _state = self.state.lock();
        self.changed.notify_all();
    }

    /// A semaphore is gone; another may get its handle.
    pub fn forget(&self, semaphore: vk::Semaphore) {
        let mut state = self.state.lock();
        state.placed.remove(&semaphore);
        state.unclaimed.remove(&semaphore);
    }

    fn start_worker(&self, d: &Arc<Device>) -> Result<(), vk::Result> {
        let mut worker = self.worker.lock();
        if worker.is_none() {
            let device = d.clone();
            let thread = std::thread::Builder::new().name("tessera queues".into());
            let started = thread.spawn(move || work(&device)).map_err(|error| {
                tracing::error!("no thread for queues that wait for each other: {error}");
                vk::Result::ERROR_OUT_OF_HOST_MEMORY
            })?;
            *worker = Some(started);
        }
        Ok(())
    }

    pub fn release(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
        if let Some(worker) = self.worker.lock().take()
            && worker.join().is_err()
        {
            tracing::error!("the thread for queues that wait for each other had a fault; please report it");
        }
    }
}

/// Places deferred work when its time has come.
fn work(d: &Arc<Device>) {
    let Some(schedule) = d.added.as_ref().map(|added| &added.schedule) else { return };
    let mut state = schedule.state.lock();
    while !state.stop {
        if state.advance(d) {
            schedule.changed.notify_all();
        } else if state.lanes.iter().all(|lane| lane.waiting.is_empty()) {
            schedule.changed.wait(&mut state);
        } else {
            schedule.changed.wait_for(&mut state, POLL);
        }
    }
}

impl Turn<'_> {
    pub fn driver_queue(&self) -> vk::Queue {
        self.state.lanes[self.lane].driver
    }

    /// Whether nothing of the queue is left to place.
    pub fn is_empty(&self) -> bool {
        self.state.lanes[self.lane].waiting.is_empty()
    }

    /// Whether work that waits for these can be placed now.
    pub fn is_ready(&self, mut waits: impl Iterator<Item = Point>) -> bool {
        self.is_empty()
            && waits.all(|(semaphore, value)| {
                if is_timeline(self.d, semaphore) {
                    self.state.reached(self.d, (semaphore, value))
                } else {
                    !self.state.unclaimed.contains_key(&semaphore)
                }
            })
    }

    /// Work with these signals was placed.
    pub fn placed(&mut self, signals: impl Iterator<Item = Point>) {
        for point in signals.filter(|point| is_timeline(self.d, point.0)) {
            self.state.note_placed(point);
        }
        if self.state.lanes.iter().any(|lane| !lane.waiting.is_empty()) {
            self.schedule.changed.notify_all();
        }
    }

    /// Work with these signals was not placed after all.
    pub fn not_placed(&mut self, signals: impl Iterator<Item = Point>) {
        for (semaphore, _) in signals {
            self.state.placed.remove(&semaphore);
        }
    }

    /// Leaves work for later.
    pub fn defer(
        &mut self,
        waits: impl Iterator<Item = Point>,
        signals: impl Iterator<Item = Point>,
        fence: vk::Fence,
        place: Place,
    ) -> Result<(), vk::Result> {
        self.schedule.start_worker(self.d)?;
        let state = &mut *self.state;
        let needs = waits.filter_map(|point| {
            if is_timeline(self.d, point.0) {
                return Some(Need::Reached(point));
            }
            // The one wait that a signal of a binary semaphore has.
            state.unclaimed.remove(&point.0).map(Need::Placed)
        });
        let needs = needs.collect();
        let (mut timelines, mut binaries) = (Vec::new(), Vec::new());
        for point in signals {
            if is_timeline(self.d, point.0) {
                timelines.push(point);
            } else {
                state.signals += 1;
                state.unplaced.insert(state.signals);
                state.unclaimed.insert(point.0, state.signals);
                binaries.push((point.0, state.signals));
            }
        }
        if fence != vk::Fence::null() {
            state.fences.insert(fence);
        }
        state.lanes[self.lane].waiting.push_back(Work { needs, timelines, binaries, fence, place });
        self.schedule.changed.notify_all();
        Ok(())
    }
}

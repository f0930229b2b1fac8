//! The lock-free and the blocking parts under the model checker, which tries the orders in which threads can run and
//! the values that weak atomics can give:
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test -p gpuvm --no-default-features --test loom
//! ```
#![cfg(loom)]

use std::sync::Arc;
use std::time::Duration;

use gpuvm::{
    Contended, Driver, Exec, Fence, FenceError, Immediate, LogEntry, LogOp, LogRing, Reservation, Target,
    Usage, VaRange, Vm, ZombieLink, Zombies,
};
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

/// An entry of which each word tells the number.
fn entry(number: u64) -> LogEntry {
    let range = VaRange { start: number, len: number };
    LogEntry { time: Duration::from_nanos(number), queue: number as u32, op: LogOp::Map, range }
}

/// All orders of the threads in which one is interrupted at most `preemptions` times.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Writes `2 + writes` entries to a ring of two, the last `writes` while a reader looks.
fn log_ring(preemptions: usize, writes: u64) {
    check(preemptions, move || {
        let mut log = LogRing::new(1);
        log.push(entry(0));
        log.push(entry(1));
        let reader = log.reader();
        let writer = thread::spawn(move || {
            (2..2 + writes).for_each(|number| log.push(entry(number)));
            log
        });
        let seen = reader.read();
        if let Some(first) = seen.first() {
            let numbers = first.range.start..first.range.start + seen.len() as u64;
            assert_eq!(seen, numbers.map(entry).collect::<Vec<_>>(), "whole, in order, without a gap");
        }
        drop(writer.join().unwrap());
        assert_eq!(reader.read(), [entry(writes), entry(writes + 1)]);
    });
}

#[test]
fn a_torn_log_entry_is_never_returned() {
    log_ring(3, 1);
    log_ring(2, 3);
}

/// A slab of slots that hold what their owner wrote before they died.
struct Slab {
    zombies: Zombies,
    links: [ZombieLink; 3],
    payload: [AtomicU32; 3],
}

impl Slab {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            zombies: Zombies::new(),
            links: core::array::from_fn(|_| ZombieLink::new()),
            payload: core::array::from_fn(|_| AtomicU32::new(0)),
        })
    }

    fn bury(&self, index: u32) -> bool {
        self.payload[index as usize].store(index + 1, Ordering::Relaxed);
        self.zombies.push(index, &self.links[index as usize])
    }

    /// Takes all, and checks that what was written before the push is seen.
    fn take(&self) -> Vec<u32> {
        let mut taken = self.zombies.take();
        let mut indices = Vec::new();
        while let Some(index) = taken.next(|index| &self.links[index as usize]) {
            assert_eq!(self.payload[index as usize].load(Ordering::Relaxed), index + 1);
            indices.push(index);
        }
        indices
    }
}

#[test]
fn every_zombie_is_taken_once() {
    loom::model(|| {
        let slab = Slab::new();
        let pushers = [0, 1].map(|index| {
            let slab = Arc::clone(&slab);
            thread::spawn(move || slab.bury(index))
        });
        let early = slab.take();
        let firsts = pushers.map(|pusher| u8::from(pusher.join().unwrap())).iter().sum::<u8>();
        let late = slab.take();
        // One that is pushed onto an empty list says so: that is once for every list that was taken.
        assert_eq!(firsts, u8::from(!early.is_empty()) + u8::from(!late.is_empty()));
        let mut all = [early, late].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1]);
    });
}

/// A slot that was taken dies again while another one is pushed onto a list that it had seen with the slot at its
/// head: where single elements are popped, that is the ABA problem.
#[test]
fn a_slot_can_die_again_while_others_push() {
    loom::model(|| {
        let slab = Slab::new();
        slab.bury(0);
        let pusher = {
            let slab = Arc::clone(&slab);
            thread::spawn(move || slab.bury(1))
        };
        let mut all = slab.take();
        slab.bury(all[all.len() - 1]);
        pusher.join().unwrap();
        all.extend(slab.take());
        all.sort_unstable();
        assert_eq!(all, [0, 0, 1]);
    });
}

struct Noted;

impl Driver for Noted {
    type Mode = Immediate;
    type BoData = Option<Arc<()>>;
    type VaData = ();
}

/// The last handle to an object goes on one thread while the VM looks for the object on another: it finds the same
/// `vm_bo` in time, or makes a new one, and the old one is freed once.
#[test]
fn a_handle_goes_while_the_vm_runs() {
    check(3, || {
        let range = VaRange { start: 0, len: 0x1000 };
        let mut vm = Vm::<u32, Noted>::with_driver(range, None).unwrap();
        let alive = Arc::new(());
        let handle = vm.obtain(7);
        *vm.bo_data_mut(7).unwrap() = Some(Arc::clone(&alive));
        let other = thread::spawn(move || drop(handle));
        vm.sm_map(range, Target::Object { object: 7, offset: 0 }, &mut |_| {}).unwrap();
        vm.deferred_cleanup();
        assert_eq!(vm.bo(7).unwrap().mappings().count(), 1);
        vm.sm_unmap(range, &mut |_| {}).unwrap();
        let again = vm.find_bo(7);
        vm.deferred_cleanup();
        assert_eq!(vm.bo(7).is_some(), again.is_some());
        drop(again);
        other.join().unwrap();
        assert!(vm.bo(7).is_none());
        vm.deferred_cleanup();
        assert_eq!(Arc::strong_count(&alive), 1, "freed with its data");
        // Two places, where one was freed twice that would be one.
        let _handles = [7, 8].map(|object| vm.obtain(object));
        assert_eq!([7, 8].map(|object| vm.bo(object).unwrap().references()), [1, 1]);
    });
}

/// Each thread locks its list in order, then adds to what only the locks protect.
fn exec(preemptions: usize, lists: &'static [&'static [usize]]) {
    check(preemptions, move || {
        let objects: Arc<[_; 3]> =
            Arc::new(core::array::from_fn(|_| (Reservation::new(), AtomicU32::new(0))));
        let lock = |objects: &[(Reservation, AtomicU32); 3], list: &[usize]| {
            let (exec, ()) = Exec::until_all_locked::<_, Contended>(|locking| {
                list.iter().try_for_each(|&index| locking.lock(&objects[index].0))
            })
            .unwrap();
            for &index in list {
                let count = &objects[index].1;
                count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
            drop(exec);
        };
        let threads: Vec<_> = lists[1..]
            .iter()
            .map(|list| {
                let objects = Arc::clone(&objects);
                thread::spawn(move || lock(&objects, list))
            })
            .collect();
        lock(&objects, lists[0]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        for (index, (_, count)) in objects.iter().enumerate() {
            let expected = lists.iter().filter(|list| list.contains(&index)).count();
            assert_eq!(count.load(Ordering::Relaxed), expected as u32);
        }
    });
}

#[test]
fn two_threads_with_opposite_orders() {
    exec(3, &[&[0, 1], &[1, 0]]);
}

#[test]
fn three_threads_in_a_circle() {
    exec(2, &[&[0, 1], &[1, 2], &[2, 0]]);
}

#[test]
fn three_threads_where_one_only_passes_by() {
    exec(2, &[&[0, 1], &[1, 0], &[1]]);
}

#[test]
fn a_fence_wakes_who_waits() {
    loom::model(|| {
        let resv = Reservation::new();
        let (signal, fence) = Fence::new();
        let (exec, ()) = Exec::until_all_locked::<_, Contended>(|locking| locking.lock(&resv)).unwrap();
        exec.held(&resv).unwrap().attach(&fence, Usage::Read);
        drop(exec);
        let waiter = thread::spawn(move || fence.wait());
        let signaler = thread::spawn(move || drop(signal));
        resv.wait(Usage::Read);
        assert!(resv.is_signaled(Usage::Bookkeep));
        signaler.join().unwrap();
        assert_eq!(waiter.join().unwrap(), Err(FenceError::Canceled));
    });
}

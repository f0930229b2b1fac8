//! Streams that run, wait for each other, and give way to others.

use crate::group::Group;
use crate::rig::{BASE, PAGE, is_signaled, wait};
use crate::stream::Stream;
use std::time::Duration;

/// Longer than it takes a group to be idle, and far shorter than what the driver gives it.
const MOMENT: Duration = Duration::from_millis(20);

#[test]
fn a_job_signals() {
    let group = Group::new(1);
    let done = group.rig().syncobj();
    group.submit(0, &Stream::new().store(group.address(0), 0x1234), done.binary()).unwrap();
    wait(&done, None);
    assert_eq!((group.value(0), group.state()), (0x1234, 0));
}

#[test]
fn jobs_of_a_queue_run_in_order() {
    let group = Group::new(1);
    let line = group.rig().syncobj();
    // More than the ring holds at a time.
    for n in 1..=600 {
        let stream = Stream::new().copy(group.address(0), group.address(1)).add(group.address(0), 1);
        group.submit(0, &stream, line.point(n)).unwrap();
        if n % 100 == 0 {
            wait(&line, Some(n));
            assert_eq!((group.value(0), group.value(1)), (n, n - 1));
        }
    }
}

#[test]
fn queues_wait_for_each_other() {
    let group = Group::new(2);
    let (first, second) = (group.rig().syncobj(), group.rig().syncobj());
    let waits = Stream::new().wait(group.address(0), 0).copy(group.address(1), group.address(2));
    group.submit(0, &waits, first.binary()).unwrap();
    assert!(!is_signaled(&first, None));
    let goes = Stream::new().store(group.address(1), 7).add(group.address(0), 1);
    group.submit(1, &goes, second.binary()).unwrap();
    wait(&first, None);
    wait(&second, None);
    assert_eq!(group.value(2), 7);
}

#[test]
fn streams_call_streams() {
    let group = Group::new(1);
    let (va, len) = group.load(&Stream::new().add(group.address(0), 5));
    let (va, len) = group.load(&Stream::new().call(va, len).call(va, len));
    group.run(0, &Stream::new().call(va, len).add(group.address(0), 1).call(va, len));
    assert_eq!(group.value(0), 21);
}

/// There are eight slots for groups: the ninth that has something to do needs another to be suspended, in the middle of
/// its stream.
#[test]
fn more_groups_than_slots() {
    let first = Group::new(1);
    let others: Vec<_> = (0..11).map(|_| first.another(1)).collect();
    let groups: Vec<_> = others.iter().chain([&first]).collect();
    let waiting = |(n, group): (u64, &&Group)| {
        let done = group.rig().syncobj();
        let (gate, count) = (group.address(2 * n), group.address(2 * n + 1));
        let (va, len) = group.load(&Stream::new().wait(gate, 0).add(count, 1));
        group.submit(0, &Stream::new().add(count, 1).call(va, len), done.binary()).unwrap();
        done
    };
    let waiting: Vec<_> = (0..).zip(&groups).map(waiting).collect();
    let opens = first.another(1);
    for ((n, group), done) in (0..).zip(groups).zip(&waiting) {
        assert!(!is_signaled(done, None));
        opens.run(0, &Stream::new().add(opens.address(2 * n), 1));
        // When panthor finds that a group without a slot can go on, it does not look for groups to run; when some group becomes
        // idle, it does. Which comes first is a matter of microseconds.
        while !is_signaled(done, None) {
            std::thread::sleep(MOMENT);
            opens.run(0, &Stream::new().add(opens.address(2 * n), 0));
        }
        assert_eq!((group.value(2 * n + 1), group.state()), (2, 0));
    }
}

/// A VM that is in use takes binds as any other.
#[test]
fn a_resident_vm_is_bound() {
    let group = Group::new(1);
    group.run(0, &Stream::new().add(group.address(0), 1));
    let (a, b) = (group.rig().bo(PAGE), group.rig().bo(PAGE));
    for bo in [&a, &b, &a] {
        group.rig().map(bo, 0, 0, PAGE).unwrap();
        group.run(0, &Stream::new().add(BASE, 1));
    }
    let value = |bo: &kmd::BufferObject| {
        let mapping = bo.map().unwrap();
        // SAFETY: the mapping has a page, and nothing runs.
        unsafe { mapping.as_ptr().cast::<u64>().read_volatile() }
    };
    assert_eq!((value(&a), value(&b)), (2, 1));
}

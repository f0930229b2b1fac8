//! Asynchronous binds: order, waits, signals, blocked queues.

use std::time::Duration;

use kmd::syncobj::{self, Wait, Waited};
use kmd::{Errno, Vm};
use rustix::fd::AsFd;
use tessera_machines_suite::gate::Gate;

use crate::rig::*;

#[test]
fn signals_when_it_is_done() {
    let rig = Rig::new();
    let (bo, done) = (rig.bo(PAGE), rig.syncobj());
    rig.vm.bind_async(&[map(0, PAGE, &bo, 0)], &[], &[done.binary()]).unwrap();
    wait(&done, None);
    assert_eq!(rig.dump(), [(0, PAGE, Some((bo.handle().0, 0)))]);
}

#[test]
fn chains_of_binary_and_timeline() {
    let rig = Rig::new();
    let (bo, a, line) = (rig.bo(4 * PAGE), rig.syncobj(), rig.syncobj());
    rig.vm.bind_async(&[map(0, 4 * PAGE, &bo, 0)], &[], &[a.binary(), line.point(3)]).unwrap();
    rig.vm.bind_async(&[unmap(PAGE, PAGE)], &[a.binary(), line.point(2)], &[line.point(5)]).unwrap();
    rig.vm.bind_async(&[null(2 * PAGE, PAGE)], &[line.point(5), line.point(0)], &[line.point(7)]).unwrap();
    assert_eq!(line.last_submitted(), Ok(7));
    wait(&line, Some(7));
    assert_eq!(line.last_signaled(), Ok(7));
    let object = |offset| Some((bo.handle().0, offset));
    assert_eq!(
        rig.dump(),
        [(0, PAGE, object(0)), (2 * PAGE, PAGE, None), (3 * PAGE, PAGE, object(3 * PAGE))]
    );
}

#[test]
fn one_vm_waits_for_another() {
    let (one, two) = (Rig::new(), Rig::new());
    let (gate, done) = (Gate::new().unwrap(), two.syncobj());
    let held = gate.syncobj(two.node.clone()).unwrap();
    two.vm.bind_async(&[null(0, PAGE)], &[held.binary()], &[done.point(1)]).unwrap();
    let theirs = kmd::Syncobj::import(one.node.clone(), done.export().unwrap().as_fd()).unwrap();
    one.vm.bind_async(&[null(0, PAGE)], &[theirs.point(1)], &[theirs.point(2)]).unwrap();
    assert!(!is_signaled(&done, Some(2)));
    assert_eq!((one.dump(), two.dump()), (vec![], vec![]));
    gate.open().unwrap();
    wait(&done, Some(2));
    assert_eq!((one.dump(), two.dump()), (vec![(0, PAGE, None)], vec![(0, PAGE, None)]));
}

#[test]
fn no_wait_before_submit() {
    let rig = Rig::new();
    let (bo, empty, out) = (rig.bo(PAGE), rig.syncobj(), rig.syncobj());
    let op = [map(0, PAGE, &bo, 0)];
    let bind = |wait| rig.vm.bind_async(&op, &[wait], &[out.binary()]);
    assert_eq!(bind(empty.binary()), Err(Errno::INVAL));
    assert_eq!(bind(empty.point(1)), Err(Errno::INVAL));
    empty.signal_point(1).unwrap();
    assert_eq!(bind(empty.point(2)), Err(Errno::INVAL), "a point beyond the last");
    assert_eq!(rig.dump(), [], "nothing was queued");
    assert_eq!(out.wait(None, Wait { until_ns: 0, ..Wait::ALL }), Err(Errno::INVAL), "nothing will signal");
    assert_eq!(bind(empty.point(1)), Ok(()));
    wait(&out, None);
}

#[test]
fn a_refused_call_queues_nothing() {
    let rig = Rig::new();
    let (bo, out) = (rig.bo(PAGE), rig.syncobj());
    let mut ops = vec![map(0, PAGE, &bo, 0), map(1, PAGE, &bo, 0)];
    assert_eq!(rig.vm.bind_async(&ops, &[], &[out.binary()]), Err(Errno::INVAL));
    rig.vm.bind(&[]).unwrap();
    assert_eq!(rig.dump(), []);
    ops[1].va += PAGE - 1;
    ops.resize(513, ops[0]);
    assert_eq!(rig.vm.bind_async(&ops, &[], &[out.binary()]), Err(Errno::TOOBIG));
    ops.truncate(512);
    rig.vm.bind_async(&ops, &[], &[out.binary()]).unwrap();
    wait(&out, None);
    assert_eq!(rig.dump().len(), 2);
}

#[test]
fn a_blocked_queue() {
    let rig = Rig::new();
    let bo = rig.bo(4 * PAGE);
    let (gate, out) = (Gate::new().unwrap(), rig.syncobj());
    let held = gate.syncobj(rig.node.clone()).unwrap();
    rig.vm.bind_async(&[map(0, PAGE, &bo, 0)], &[held.binary()], &[out.point(1)]).unwrap();
    rig.vm.bind_async(&[map(PAGE, PAGE, &bo, PAGE)], &[], &[out.point(2)]).unwrap();
    assert_eq!(out.last_submitted(), Ok(2));
    let soon = Wait::ALL.within(Duration::from_millis(50));
    assert_eq!(syncobj::wait(&*rig.node, &[out.point(2)], soon), Ok(Waited::TimedOut));
    assert_eq!(rig.dump(), []);
    // A synchronous bind has a queue of its own.
    rig.map(&bo, 0, 8 * PAGE, PAGE).unwrap();
    assert_eq!(rig.dump(), [(8 * PAGE, PAGE, Some((bo.handle().0, 0)))]);
    gate.open().unwrap();
    wait(&out, Some(2));
    assert_eq!(rig.dump().iter().map(|(va, ..)| *va).collect::<Vec<_>>(), [0, 8 * PAGE]);
}

#[test]
fn an_object_may_be_closed_while_it_waits() {
    let rig = Rig::new();
    let bo = rig.bo(PAGE);
    let (gate, out, handle) = (Gate::new().unwrap(), rig.syncobj(), bo.handle().0);
    let held = gate.syncobj(rig.node.clone()).unwrap();
    rig.vm.bind_async(&[map(0, PAGE, &bo, 0)], &[held.binary()], &[out.binary()]).unwrap();
    drop((bo, held));
    gate.open().unwrap();
    wait(&out, None);
    assert_eq!(rig.dump(), [(0, PAGE, Some((handle, 0)))]);
}

#[test]
fn a_borrowed_queue_tells_when_its_jobs_are_over() {
    let rig = Rig::new();
    // The first bind queue of the file: that of synchronous binds.
    rig.null(0, PAGE).unwrap();
    let queue = kmd::msm::BorrowedQueue::first(rig.node.clone()).unwrap();
    let (gate, out) = (Gate::new().unwrap(), rig.syncobj());
    let held = gate.syncobj(rig.node.clone()).unwrap();
    queue.wait(&[held.binary()]).unwrap();
    queue.signal(out.point(1)).unwrap();
    assert!(!is_signaled(&out, Some(1)));
    gate.open().unwrap();
    wait(&out, Some(1));
}

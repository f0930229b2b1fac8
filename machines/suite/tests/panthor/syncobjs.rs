//! Syncobjs: waits, transfers, files.

use std::time::Duration;

use kmd::syncobj::{self, Wait, Waited};
use kmd::{Errno, Syncobj};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::AsFd;
use tessera_machines_suite::gate::Gate;

use crate::rig::*;

const NOW: Wait = Wait { until_ns: 0, ..Wait::ALL };

#[test]
fn empty_signalled_and_reset() {
    let node = open();
    let (empty, full) = (Syncobj::create(node.clone(), false).unwrap(), Syncobj::create(node, true).unwrap());
    assert_eq!(empty.wait(None, NOW), Err(Errno::INVAL));
    assert_eq!(empty.wait(None, Wait { for_submit: true, ..NOW }), Ok(Waited::TimedOut));
    assert_eq!(full.wait(None, NOW), Ok(Waited::Done { first: 0 }));
    full.reset().unwrap();
    assert_eq!(full.wait(None, NOW), Err(Errno::INVAL));
    full.signal().unwrap();
    assert_eq!(full.wait(None, NOW), Ok(Waited::Done { first: 0 }));
}

#[test]
fn timelines() {
    let node = open();
    let line = Syncobj::create(node.clone(), false).unwrap();
    assert_eq!((line.last_signaled(), line.last_submitted()), (Ok(0), Ok(0)));
    assert_eq!(line.wait(Some(1), NOW), Err(Errno::INVAL));
    line.signal_point(5).unwrap();
    assert_eq!((line.last_signaled(), line.last_submitted()), (Ok(5), Ok(5)));
    assert_eq!(line.wait(Some(3), NOW), Ok(Waited::Done { first: 0 }));
    assert_eq!(line.wait(Some(6), NOW), Err(Errno::INVAL));
    let materialised = Wait { until_ns: 0, ..Wait::MATERIALISED };
    assert_eq!(line.wait(Some(6), materialised), Ok(Waited::TimedOut));
    assert_eq!(line.wait(Some(5), materialised), Ok(Waited::Done { first: 0 }));
}

#[test]
fn a_wait_for_any() {
    let node = open();
    let objects: Vec<_> = (0..3).map(|n| Syncobj::create(node.clone(), n == 2).unwrap()).collect();
    let points: Vec<_> = objects.iter().map(Syncobj::binary).collect();
    let any = Wait { all: false, for_submit: true, ..NOW };
    assert_eq!(syncobj::wait(&*node, &points, any), Ok(Waited::Done { first: 2 }));
    assert_eq!(syncobj::wait(&*node, &points[..2], any), Ok(Waited::TimedOut));
    let all = Wait { all: true, ..any };
    assert_eq!(syncobj::wait(&*node, &points, all), Ok(Waited::TimedOut));
    let deadline = Wait { deadline_ns: Some(1), ..any };
    assert_eq!(syncobj::wait(&*node, &points, deadline), Ok(Waited::Done { first: 2 }));
}

#[test]
fn fences_that_come_later() {
    let node = open();
    let gate = Gate::new().unwrap();
    let held = gate.syncobj(node.clone()).unwrap();
    let line = Syncobj::create(node.clone(), false).unwrap();
    held.transfer(None, line.point(4), false).unwrap();
    assert_eq!((line.last_signaled(), line.last_submitted()), (Ok(0), Ok(4)));
    assert_eq!(line.wait(Some(4), NOW), Ok(Waited::TimedOut));

    let (soon, already) =
        (eventfd(0, EventfdFlags::NONBLOCK).unwrap(), eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    line.notify(Some(4), soon.as_fd(), false).unwrap();
    line.notify(Some(4), already.as_fd(), true).unwrap();
    let count = |fd: &rustix::fd::OwnedFd| {
        let mut bytes = [0; 8];
        rustix::io::read(fd, &mut bytes).map(|_| u64::from_ne_bytes(bytes))
    };
    assert_eq!((count(&soon), count(&already)), (Err(Errno::AGAIN), Ok(1)));
    gate.open().unwrap();
    assert_eq!(line.wait(Some(4), Wait::ALL.within(Duration::from_secs(5))), Ok(Waited::Done { first: 0 }));
    assert_eq!((line.last_signaled(), count(&soon)), (Ok(4), Ok(1)));
}

#[test]
fn transfers_that_are_refused() {
    let node = open();
    let (empty, to) = (Syncobj::create(node.clone(), false).unwrap(), Syncobj::create(node, false).unwrap());
    assert_eq!(empty.transfer(None, to.binary(), false), Err(Errno::INVAL));
    assert_eq!(empty.transfer(Some(1), to.binary(), false), Err(Errno::INVAL));
    empty.signal_point(2).unwrap();
    assert_eq!(empty.transfer(Some(3), to.binary(), false), Err(Errno::INVAL));
    assert_eq!(empty.transfer(Some(2), to.binary(), false), Ok(()));
    assert!(is_signaled(&to, None));
}

#[test]
fn files() {
    let (node, other) = (open(), open());
    let gate = Gate::new().unwrap();
    let held = gate.syncobj(node.clone()).unwrap();
    let theirs = Syncobj::import(other.clone(), held.export().unwrap().as_fd()).unwrap();
    let copied = Syncobj::create(other, false).unwrap();
    copied.import_sync_file(held.export_sync_file(None).unwrap().as_fd(), None).unwrap();
    copied.import_sync_file(gate.sync_file(), Some(3)).unwrap();
    assert!(!is_signaled(&theirs, None) && !is_signaled(&copied, Some(3)));
    gate.open().unwrap();
    wait(&theirs, None);
    wait(&copied, Some(3));
    held.reset().unwrap();
    assert_eq!(theirs.wait(None, NOW), Err(Errno::INVAL), "one syncobj, two handles");
    assert_eq!(held.export_sync_file(None).err(), Some(Errno::INVAL), "nothing to export");
}

//! The syncobj ioctls.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use emulator::SwFence;
use kmd::syncobj::{Wait, Waited, wait};
use kmd::uapi::drm::*;
use kmd::{Errno, SyncPoint, Syncobj};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::rig::*;

fn rig() -> Rig {
    Rig::new(HUGE)
}

fn new(rig: &Rig) -> Syncobj {
    Syncobj::create(rig.dyn_node(), false).unwrap()
}

const NOW: Wait = Wait { until_ns: 0, ..Wait::ALL };
const DONE: Result<Waited, Errno> = Ok(Waited::Done { first: 0 });

#[test]
fn binary() {
    let rig = rig();
    let s = new(&rig);
    assert_eq!(s.wait(None, NOW), Err(Errno::INVAL));
    assert_eq!(s.wait(None, Wait { for_submit: true, ..NOW }), Ok(Waited::TimedOut));
    s.signal().unwrap();
    assert_eq!(s.wait(None, NOW), DONE);
    s.reset().unwrap();
    assert_eq!(s.wait(None, NOW), Err(Errno::INVAL));
    assert_eq!(Syncobj::create(rig.dyn_node(), true).unwrap().wait(None, NOW), DONE);
}

#[test]
fn timeline() {
    let rig = rig();
    let t = new(&rig);
    assert_eq!((t.last_signaled(), t.last_submitted()), (Ok(0), Ok(0)));
    t.signal_point(4).unwrap();
    t.signal_point(9).unwrap();
    assert_eq!((t.last_signaled(), t.last_submitted()), (Ok(9), Ok(9)));
    assert_eq!(t.wait(Some(7), NOW), DONE);
    assert_eq!(t.wait(Some(10), NOW), Err(Errno::INVAL));
    let fence = SwFence::new();
    t.import_sync_file(fence.sync_file().unwrap().as_fd(), Some(12)).unwrap();
    assert_eq!((t.last_signaled(), t.last_submitted()), (Ok(9), Ok(12)));
    assert_eq!(t.wait(Some(10), NOW), Ok(Waited::TimedOut));
    assert_eq!(t.wait(Some(12), Wait { available: true, ..NOW }), DONE);
    fence.signal();
    assert_eq!((t.wait(Some(10), NOW), t.last_signaled()), (DONE, Ok(12)));
    // A binary signal replaces the timeline.
    t.signal().unwrap();
    assert_eq!((t.last_signaled(), t.wait(Some(1), NOW)), (Ok(0), Err(Errno::INVAL)));
}

#[test]
fn wait_before_submit_and_any() {
    let rig = rig();
    let (a, b) = (new(&rig), new(&rig));
    let either: [SyncPoint; 2] = [a.point(1), b.point(1)];
    let how = Wait { all: false, for_submit: true, ..Wait::ALL }.within(Duration::from_secs(20));
    std::thread::scope(|scope| {
        let node = rig.dyn_node();
        let waiting = scope.spawn(move || wait(&*node, &either, how));
        std::thread::sleep(Duration::from_millis(20));
        b.signal_point(3).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(Waited::Done { first: 1 }));
    });
    let all = Wait { all: true, ..how };
    std::thread::scope(|scope| {
        let node = rig.dyn_node();
        let waiting = scope.spawn(move || wait(&*node, &either, all));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        a.signal_point(1).unwrap();
        assert!(matches!(waiting.join().unwrap(), Ok(Waited::Done { .. })));
    });
    let timed = Wait { for_submit: true, ..Wait::ALL }.within(Duration::from_millis(30));
    assert_eq!(wait(&*rig.node, &[a.point(1), new(&rig).point(1)], timed), Ok(Waited::TimedOut));
    let deadline = Wait { deadline_ns: Some(1), ..NOW };
    assert_eq!(wait(&*rig.node, &either, deadline), DONE);
}

#[test]
fn errors() {
    let rig = rig();
    let node = &*rig.node;
    let s = Syncobj::create(rig.dyn_node(), true).unwrap();
    let handles = [s.handle().0, 99];
    let at = handles.as_ptr().addr() as u64;
    assert_eq!(ioctl(node, &mut SyncobjCreate { handle: 0, flags: 2 }), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut SyncobjDestroy { handle: 99, pad: 0 }), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut SyncobjDestroy { handle: s.handle().0, pad: 1 }), Err(Errno::INVAL));
    let wait = |count_handles, flags| {
        ioctl(node, &mut SyncobjWait { handles: at, count_handles, flags, ..Default::default() })
    };
    assert_eq!(wait(1, 0), Ok(()));
    assert_eq!(wait(2, 0), Err(Errno::NOENT));
    assert_eq!(wait(0, 0), Ok(()));
    assert_eq!(wait(1, SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE), Err(Errno::INVAL));
    assert_eq!(wait(1, 1 << 4), Err(Errno::INVAL));
    let array = |count_handles, pad| SyncobjArray { handles: at, count_handles, pad };
    assert_eq!(ioctl(node, &mut SyncobjReset(array(0, 0))), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut SyncobjReset(array(1, 1))), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut SyncobjSignal(array(2, 0))), Err(Errno::NOENT));
    let query = |flags, points| {
        let args = SyncobjTimelineArray { handles: at, points, count_handles: 1, flags };
        ioctl(node, &mut SyncobjQuery(args))
    };
    assert_eq!((query(2, 0), query(0, 0)), (Err(Errno::INVAL), Err(Errno::FAULT)));
    let handle = |flags, fd, pad, point| SyncobjHandle { handle: s.handle().0, flags, fd, pad, point };
    assert_eq!(ioctl(node, &mut SyncobjHandleToFd(handle(4, 0, 0, 0))), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut SyncobjHandleToFd(handle(0, 0, 0, 5))), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut SyncobjHandleToFd(handle(0, 0, 1, 0))), Err(Errno::INVAL));
    assert_eq!(
        ioctl(node, &mut SyncobjHandleToFd(SyncobjHandle { handle: 99, flags: 1, ..Default::default() })),
        Err(Errno::NOENT)
    );
    assert_eq!(
        ioctl(node, &mut SyncobjHandleToFd(SyncobjHandle { handle: 99, ..Default::default() })),
        Err(Errno::INVAL)
    );
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(ioctl(node, &mut SyncobjFdToHandle(handle(0, file.as_raw_fd(), 0, 0))), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut SyncobjFdToHandle(handle(1, -1, 0, 0))), Err(Errno::INVAL));
    let mut transfer = SyncobjTransfer { src_handle: s.handle().0, dst_handle: 99, ..Default::default() };
    assert_eq!(ioctl(node, &mut transfer), Err(Errno::NOENT));
    (transfer.dst_handle, transfer.flags) = (s.handle().0, 1);
    assert_eq!(ioctl(node, &mut transfer), Err(Errno::INVAL));
    let mut event = SyncobjEventfd { handle: s.handle().0, fd: file.as_raw_fd(), ..Default::default() };
    assert_eq!(ioctl(node, &mut event), Err(Errno::INVAL));
    event.fd = 987_654;
    assert_eq!(ioctl(node, &mut event), Err(Errno::BADF));
    event.flags = 1;
    assert_eq!(ioctl(node, &mut event), Err(Errno::INVAL));
}

#[test]
fn transfer() {
    let rig = rig();
    let (binary, t) = (new(&rig), new(&rig));
    assert_eq!(t.transfer(Some(2), binary.binary(), false), Err(Errno::INVAL));
    let fence = SwFence::new();
    binary.import_sync_file(fence.sync_file().unwrap().as_fd(), None).unwrap();
    binary.transfer(None, t.point(2), false).unwrap();
    assert_eq!(t.wait(Some(2), NOW), Ok(Waited::TimedOut));
    binary.reset().unwrap();
    t.transfer(Some(1), binary.binary(), false).unwrap();
    fence.signal();
    assert_eq!((t.wait(Some(2), NOW), binary.wait(None, NOW)), (DONE, DONE));
    // With the flag it waits for the submission.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| t.transfer(Some(5), binary.binary(), true));
        std::thread::sleep(Duration::from_millis(20));
        t.signal_point(6).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(()));
    });
}

#[test]
fn files() {
    let rig = rig();
    let s = new(&rig);
    let file = s.export().unwrap();
    // Every import is a handle of its own to the same syncobj, in any open file.
    let twin = Syncobj::import(rig.dyn_node(), file.as_fd()).unwrap();
    assert_ne!(twin.handle(), s.handle());
    let other: std::sync::Arc<dyn kmd::Node> = rig.node.open_again().unwrap();
    let third = Syncobj::import(other, file.as_fd()).unwrap();
    drop((s, file));
    twin.signal_point(3).unwrap();
    assert_eq!(third.wait(Some(3), NOW), DONE);

    // A sync file is what the fence was, and can be polled.
    let t = new(&rig);
    assert_eq!(t.export_sync_file(None).err(), Some(Errno::INVAL));
    let fence = SwFence::new();
    t.import_sync_file(fence.sync_file().unwrap().as_fd(), Some(1)).unwrap();
    let file = t.export_sync_file(Some(1)).unwrap();
    let readable = || {
        let mut fds = [PollFd::new(&file, PollFlags::IN)];
        poll(&mut fds, Some(&rustix::event::Timespec::default())).unwrap() == 1
    };
    assert!(!readable());
    t.reset().unwrap();
    fence.signal();
    assert!(readable());
    assert_eq!(
        Syncobj::import(rig.dyn_node(), file.as_fd()).err(),
        Some(Errno::INVAL),
        "a sync file is no syncobj"
    );
}

#[test]
fn eventfds() {
    let rig = rig();
    let t = new(&rig);
    let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let raised = || {
        let mut count = [0; 8];
        rustix::io::read(&event, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    };
    let fence = SwFence::new();
    t.notify(Some(2), event.as_fd(), false).unwrap();
    t.notify(Some(2), event.as_fd(), true).unwrap();
    assert_eq!(raised(), 0);
    t.import_sync_file(fence.sync_file().unwrap().as_fd(), Some(2)).unwrap();
    assert_eq!(raised(), 1, "submitted");
    fence.signal();
    assert_eq!(raised(), 1, "reached");
    t.notify(Some(1), event.as_fd(), false).unwrap();
    assert_eq!(raised(), 1, "reached before it was asked for");
}

use super::*;
use crate::Request;
use crate::fake::{Fake, Seen};
use rustix::fd::{AsFd, IntoRawFd};

fn file() -> OwnedFd {
    tempfile::tempfile().unwrap().into()
}

/// A syncobj with handle 5, and its node.
fn syncobj() -> (Arc<Fake>, Syncobj) {
    let fake = Fake::new();
    fake.expect(|arg: &mut drm::SyncobjCreate| {
        assert_eq!(arg.flags, 0);
        arg.handle = 5;
        Ok(())
    });
    let syncobj = Syncobj::create(fake.clone(), false).unwrap();
    fake.take();
    (fake, syncobj)
}

#[test]
fn binary_wait_passes_all_flags() {
    let (fake, syncobj) = syncobj();
    let how = Wait { until_ns: 77, all: false, for_submit: true, available: false, deadline_ns: Some(55) };
    fake.expect(|arg: &mut drm::SyncobjWait| {
        arg.first_signaled = 1;
        Ok(())
    });
    let other = SyncPoint { syncobj: SyncobjHandle(6), point: None };
    assert_eq!(wait(&*fake, &[syncobj.binary(), other], how), Ok(Waited::Done { first: 1 }));
    let flags = drm::SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT | drm::SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE;
    let arg = drm::SyncobjWait {
        timeout_nsec: 77,
        count_handles: 2,
        flags,
        deadline_nsec: 55,
        ..Default::default()
    };
    assert_eq!(fake.take(), [Seen::Wait { arg, handles: vec![5, 6] }]);
}

#[test]
fn mixed_wait_is_a_timeline_wait() {
    let (fake, syncobj) = syncobj();
    let points = [syncobj.point(3), syncobj.point(0), syncobj.binary()];
    assert_eq!(wait(&*fake, &points, Wait::ALL), Ok(Waited::Done { first: 0 }));
    let arg = drm::SyncobjTimelineWait {
        timeout_nsec: i64::MAX,
        count_handles: 2,
        flags: drm::SYNCOBJ_WAIT_FLAGS_WAIT_ALL,
        ..Default::default()
    };
    // Point zero is reached from the start.
    assert_eq!(fake.take(), [Seen::TimelineWait { arg, handles: vec![5, 5], points: vec![3, 0] }]);
    // "Available" exists for timelines only.
    syncobj.wait(None, Wait::MATERIALISED).unwrap();
    let flags = arg.flags | drm::SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT | drm::SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE;
    let arg = drm::SyncobjTimelineWait { count_handles: 1, flags, ..arg };
    assert_eq!(fake.take(), [Seen::TimelineWait { arg, handles: vec![5], points: vec![0] }]);
}

#[test]
fn point_zero_needs_no_wait() {
    let (fake, syncobj) = syncobj();
    assert_eq!(syncobj.wait(Some(0), Wait::ALL), Ok(Waited::Done { first: 0 }));
    let any = Wait { all: false, ..Wait::ALL };
    assert_eq!(wait(&*fake, &[syncobj.binary(), syncobj.point(0)], any), Ok(Waited::Done { first: 1 }));
    assert_eq!(wait(&*fake, &[], Wait::ALL), Ok(Waited::Done { first: 0 }));
    assert_eq!(fake.take(), []);
}

#[test]
fn wait_ends_by_time_or_error_and_goes_on_after_a_signal() {
    let (fake, syncobj) = syncobj();
    fake.expect(|_: &mut drm::SyncobjWait| Err(Errno::INTR));
    fake.expect(|_: &mut drm::SyncobjWait| Err(Errno::TIME));
    assert_eq!(syncobj.wait(None, Wait::ALL), Ok(Waited::TimedOut));
    assert_eq!(fake.take().len(), 2);
    fake.expect(|_: &mut drm::SyncobjTimelineWait| Err(Errno::INVAL));
    assert_eq!(syncobj.wait(Some(3), Wait::ALL), Err(Errno::INVAL));
}

#[test]
fn timeouts_are_absolute_and_saturate() {
    let soon = Wait::ALL.within(Duration::from_secs(1)).until_ns;
    let later = Wait::ALL.within(Duration::from_secs(3)).until_ns;
    assert!(soon > 1_000_000_000);
    assert!((1_900_000_000..60_000_000_000).contains(&(later - soon)));
    assert_eq!(Wait::ALL.within(Duration::MAX).until_ns, i64::MAX);
}

#[test]
fn signals_resets_and_queries() {
    let (fake, syncobj) = syncobj();
    syncobj.signal().unwrap();
    syncobj.reset().unwrap();
    syncobj.signal_point(8).unwrap();
    assert_eq!(syncobj.signal_point(0), Err(Errno::INVAL));
    let array = |request| Seen::Array { request, handles: vec![5] };
    let timeline =
        |request, flags, point| Seen::TimelineArray { request, flags, handles: vec![5], points: vec![point] };
    let signal_point = timeline(drm::SyncobjTimelineSignal::REQUEST, 0, 8);
    let (signal, reset) = (array(drm::SyncobjSignal::REQUEST), array(drm::SyncobjReset::REQUEST));
    assert_eq!(fake.take(), [signal, reset, signal_point]);

    for value in [12, 13] {
        fake.expect(move |arg: &mut drm::SyncobjQuery| {
            let to = core::ptr::with_exposed_provenance_mut::<u64>(arg.0.points as usize);
            // SAFETY: the caller's array has one element.
            unsafe { to.write(value) };
            Ok(())
        });
    }
    assert_eq!((syncobj.last_signaled(), syncobj.last_submitted()), (Ok(12), Ok(13)));
    let query = |flags| timeline(drm::SyncobjQuery::REQUEST, flags, 0);
    assert_eq!(fake.take(), [query(0), query(drm::SYNCOBJ_QUERY_FLAGS_LAST_SUBMITTED)]);
}

#[test]
fn transfers_between_points() {
    let (fake, syncobj) = syncobj();
    let to = SyncPoint { syncobj: SyncobjHandle(6), point: Some(1 << 32) };
    syncobj.transfer(None, to, true).unwrap();
    syncobj.transfer(Some(2), SyncPoint { point: None, ..to }, false).unwrap();
    let request = drm::SyncobjTransfer::REQUEST;
    let first = Seen::Other { request, words: vec![5, 6, 0, 0, 0, 1, 2, 0] };
    let second = Seen::Other { request, words: vec![5, 6, 2, 0, 0, 0, 0, 0] };
    assert_eq!(fake.take(), [first, second]);
    assert_eq!(syncobj.transfer(Some(0), to, false), Err(Errno::INVAL));
    assert_eq!(fake.take(), []);
}

#[test]
fn files_go_both_ways() {
    let (fake, syncobj) = syncobj();
    for (flags, point) in [(0, 0), (1, 0), (3, 9)] {
        fake.expect(move |arg: &mut drm::SyncobjHandleToFd| {
            assert_eq!((arg.0.handle, arg.0.flags, arg.0.point), (5, flags, point));
            arg.0.fd = file().into_raw_fd();
            Ok(())
        });
    }
    syncobj.export().unwrap();
    syncobj.export_sync_file(None).unwrap();
    syncobj.export_sync_file(Some(9)).unwrap();
    assert_eq!(syncobj.export_sync_file(Some(0)).err(), Some(Errno::INVAL));

    let shared = file();
    let fd = shared.as_raw_fd();
    for (handle, flags, point) in [(5, 1, 0), (5, 3, 9), (0, 0, 0)] {
        fake.expect(move |arg: &mut drm::SyncobjFdToHandle| {
            assert_eq!(arg.0, drm::SyncobjHandle { handle, flags, fd, pad: 0, point });
            arg.0.handle = 11;
            Ok(())
        });
    }
    syncobj.import_sync_file(shared.as_fd(), None).unwrap();
    syncobj.import_sync_file(shared.as_fd(), Some(9)).unwrap();
    let imported = Syncobj::import(fake.clone(), shared.as_fd()).unwrap();
    assert_eq!(imported.handle(), SyncobjHandle(11));
    fake.take();

    syncobj.notify(Some(9), shared.as_fd(), true).unwrap();
    let request = drm::SyncobjEventfd::REQUEST;
    assert_eq!(fake.take(), [Seen::Other { request, words: vec![5, 4, 9, 0, fd as u32, 0] }]);
}

#[test]
fn creation_and_destruction() {
    let (fake, syncobj) = syncobj();
    drop(syncobj);
    assert_eq!(fake.take(), [Seen::Other { request: drm::SyncobjDestroy::REQUEST, words: vec![5, 0] }]);
    fake.expect(|arg: &mut drm::SyncobjCreate| {
        assert_eq!(arg.flags, drm::SYNCOBJ_CREATE_SIGNALED);
        Err(Errno::OPNOTSUPP)
    });
    assert_eq!(Syncobj::create(fake.clone(), true).err(), Some(Errno::OPNOTSUPP));
    assert_eq!(fake.take().len(), 1, "nothing to destroy");
}

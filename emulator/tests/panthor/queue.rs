//! The asynchronous form of VM_BIND: jobs that wait, run later, in order.

use std::os::fd::AsFd;
use std::time::Duration;

use emulator::{Config, Faults, SwFence};
use kmd::syncobj::{Wait, Waited};
use kmd::uapi::panthor::*;
use kmd::{BindOp, BindTarget, Errno, Syncobj, Vm};

use crate::rig::*;

const SOON: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

fn syncobj(rig: &Rig) -> Syncobj {
    Syncobj::create(rig.dyn_node(), false).unwrap()
}

/// A syncobj whose fence the test signals.
fn blocked(rig: &Rig) -> (Syncobj, SwFence) {
    let (syncobj, fence) = (syncobj(rig), SwFence::new());
    syncobj.import_sync_file(fence.sync_file().unwrap().as_fd(), None).unwrap();
    (syncobj, fence)
}

fn map(bo: &kmd::BufferObject, offset: u64, va: u64, len: u64) -> BindOp {
    BindOp { va, len, target: BindTarget::Map { bo: bo.handle(), offset } }
}

fn sync(flags: u32, syncobj: &Syncobj, timeline_value: u64) -> SyncOp {
    SyncOp { flags, handle: syncobj.handle().0, timeline_value }
}

#[track_caller]
fn done(syncobj: &Syncobj, point: Option<u64>) {
    let how = Wait { for_submit: true, ..Wait::ALL }.within(SOON);
    assert_eq!(syncobj.wait(point, how), Ok(Waited::Done { first: 0 }));
}

#[test]
fn a_blocked_queue_waits_and_synchronous_binds_overtake_it() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(HUGE, 0);
    let ((wait, fence), out) = (blocked(&rig), syncobj(&rig));
    let (x, y) = (rig.base, rig.base + 64 * PAGE);
    rig.vm.bind_async(&[map(&a, 3 * PAGE, x, 2 * PAGE)], &[wait.binary()], &[out.binary()]).unwrap();
    assert_eq!(out.wait(None, Wait::ALL.within(SHORT)), Ok(Waited::TimedOut));
    assert_eq!(peek(x), None);
    assert_eq!(rig.map(&a, 0, y, PAGE), Ok(()));
    assert_eq!((peek(y), peek(x)), (Some(0), None));
    // Behind the blocked job, although it waits for nothing itself.
    let behind = syncobj(&rig);
    rig.vm.bind_async(&[map(&a, 9 * PAGE, x, PAGE)], &[], &[behind.binary()]).unwrap();
    assert_eq!(behind.wait(None, Wait::ALL.within(SHORT)), Ok(Waited::TimedOut));
    fence.signal();
    done(&out, None);
    done(&behind, None);
    assert_eq!((peek(x), peek(x + PAGE)), (Some(9), Some(4)));
    assert_eq!((rig.node.counters().jobs, rig.vm.is_usable()), (2, Ok(true)));
}

#[test]
fn waits_need_a_fence_at_the_ioctl() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(HUGE, 0);
    let (empty, out) = (syncobj(&rig), syncobj(&rig));
    let op = [map(&a, 0, rig.base, 16 * PAGE)];
    let bind = |wait| rig.vm.bind_async(&op, &[wait], &[out.binary()]);
    assert_eq!(bind(empty.binary()), Err(Errno::INVAL), "an empty syncobj");
    assert_eq!(bind(empty.point(1)), Err(Errno::INVAL), "an unsubmitted point");
    assert_eq!(bind(kmd::SyncPoint { syncobj: kmd::SyncobjHandle(99), point: None }), Err(Errno::NOENT));
    assert_eq!(
        rig.vm.bind_async(&op, &[], &[kmd::SyncPoint { syncobj: kmd::SyncobjHandle(99), point: None }]),
        Err(Errno::INVAL)
    );
    assert_eq!((rig.node.counters().jobs, rig.dump()), (0, vec![]));
    assert_eq!(out.wait(None, Wait::ALL), Err(Errno::INVAL), "a refused call signals nothing");
    empty.signal().unwrap();
    assert_eq!(bind(empty.binary()), Ok(()));
    done(&out, None);
    assert_eq!(peek(rig.base + 15 * PAGE), Some(15));
    // A point that was passed without ever being submitted counts.
    empty.signal_point(5).unwrap();
    assert_eq!(bind(empty.point(3)), Ok(()));
    assert_eq!(bind(empty.point(6)), Err(Errno::INVAL));
}

#[test]
fn sync_operations_are_checked() {
    let rig = Rig::new(HUGE);
    let (s, t) = (syncobj(&rig), syncobj(&rig));
    s.signal().unwrap();
    let sync_only = |syncs: &[SyncOp]| {
        let flags = VM_BIND_OP_TYPE_SYNC_ONLY;
        let op = VmBindOp { flags, syncs: ObjArray::new(syncs), ..Default::default() };
        bind(&*rig.node, rig.vm.id(), VM_BIND_ASYNC, &[op]).0
    };
    assert_eq!(sync_only(&[]), Err(Errno::INVAL));
    assert_eq!(sync_only(&[sync(0, &s, 0)]), Ok(()));
    assert_eq!(sync_only(&[sync(0, &s, 1)]), Err(Errno::INVAL), "a point on a binary syncobj");
    assert_eq!(sync_only(&[sync(2, &s, 0)]), Err(Errno::INVAL), "an unknown handle type");
    assert_eq!(sync_only(&[sync(1 << 8, &s, 0)]), Err(Errno::INVAL));
    assert_eq!(sync_only(&[sync(SYNC_OP_SIGNAL | 1 << 30, &t, 0)]), Err(Errno::INVAL));
    assert_eq!(sync_only(&[sync(SYNC_OP_SIGNAL | SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ, &t, 4)]), Ok(()));
    done(&t, Some(4));
    let short = ObjArray { stride: 8, ..ObjArray::new(&[sync(0, &s, 0)]) };
    let op = VmBindOp { flags: VM_BIND_OP_TYPE_SYNC_ONLY, syncs: short, ..Default::default() };
    assert_eq!(bind(&*rig.node, rig.vm.id(), VM_BIND_ASYNC, &[op]).0, Err(Errno::INVAL));
    // Size zero is no error here either, and does nothing.
    let a = rig.bo(PAGE, 0);
    let out = [sync(SYNC_OP_SIGNAL, &s, 0)];
    s.reset().unwrap();
    let op = VmBindOp { syncs: ObjArray::new(&out), ..map_op(a.handle(), 0, rig.base, 0) };
    assert_eq!(bind(&*rig.node, rig.vm.id(), VM_BIND_ASYNC, &[op]).0, Ok(()));
    done(&s, None);
    assert_eq!((rig.dump(), rig.vm.is_usable()), (vec![], Ok(true)));
}

#[test]
fn a_chain_in_one_call() {
    let rig = Rig::new(HUGE);
    let (a, b) = (rig.bo(HUGE, 0), rig.bo(HUGE, 500));
    let x = rig.base;
    assert_eq!(rig.map(&a, 0, x, 16 * PAGE), Ok(()));
    let t = syncobj(&rig);
    let timeline = SYNC_OP_SIGNAL | SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ;
    let (first, last) = ([sync(timeline, &t, 3)], [sync(timeline, &t, 5)]);
    // The second job waits for what the first one signals, in the same call.
    let second = [sync(SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ, &t, 3)];
    let mut ops = [
        unmap_op(x, 4 * PAGE),
        map_op(b.handle(), 0, x + PAGE, PAGE),
        VmBindOp { flags: VM_BIND_OP_TYPE_SYNC_ONLY, ..Default::default() },
    ];
    ops[0].syncs = ObjArray::new(&first);
    ops[1].syncs = ObjArray::new(&second);
    ops[2].syncs = ObjArray::new(&last);
    assert_eq!(bind(&*rig.node, rig.vm.id(), VM_BIND_ASYNC, &ops).0, Ok(()));
    assert_eq!(t.last_submitted(), Ok(5));
    done(&t, Some(5));
    assert_eq!((peek(x), peek(x + PAGE), peek(x + 4 * PAGE)), (None, Some(500), Some(4)));
    assert_eq!((t.last_signaled(), rig.node.counters().jobs), (Ok(5), 3));

    // The other way round there is nothing to wait for yet.
    let late = [sync(SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ, &t, 8)];
    let signal = [sync(timeline, &t, 8)];
    ops[0].syncs = ObjArray::new(&late);
    ops[1].syncs = ObjArray::new(&signal);
    assert_eq!(bind(&*rig.node, rig.vm.id(), VM_BIND_ASYNC, &ops[..2]).0, Err(Errno::INVAL));
}

#[test]
fn queues_of_two_vms_chain() {
    let rig = Rig::new(2 * HUGE);
    let a = rig.shared_bo(HUGE, 0);
    let other = kmd::panthor::PanthorVm::create(rig.dyn_node()).unwrap();
    let ((wait, fence), t) = (blocked(&rig), syncobj(&rig));
    rig.vm.bind_async(&[map(&a, 0, rig.base, PAGE)], &[wait.binary()], &[t.point(1)]).unwrap();
    other.bind_async(&[map(&a, PAGE, rig.base + HUGE, PAGE)], &[t.point(1)], &[t.point(2)]).unwrap();
    assert_eq!(t.wait(Some(2), Wait::ALL.within(SHORT)), Ok(Waited::TimedOut));
    assert_eq!((t.last_signaled(), t.last_submitted()), (Ok(0), Ok(2)));
    assert_eq!(peek(rig.base + HUGE), None);
    // Available, though not reached.
    assert_eq!(t.wait(Some(2), Wait { until_ns: 0, ..Wait::MATERIALISED }), Ok(Waited::Done { first: 0 }));
    fence.signal();
    done(&t, Some(2));
    assert_eq!((peek(rig.base), peek(rig.base + HUGE)), (Some(0), Some(1)));
}

#[test]
fn a_job_that_fails_makes_the_vm_unusable() {
    let faults = Faults { op: Some(2), ..Faults::default() };
    let rig = Rig::with(HUGE, Config { faults, ..Config::default() });
    let a = rig.bo(HUGE, 0);
    let out = syncobj(&rig);
    assert_eq!(rig.map(&a, 0, rig.base, PAGE), Ok(()));
    let (wait, fence) = blocked(&rig);
    let ops = [map(&a, 0, rig.base + PAGE, PAGE), map(&a, 0, rig.base + 2 * PAGE, PAGE)];
    rig.vm.bind_async(&ops, &[wait.binary()], &[out.binary()]).unwrap();
    let unmap = BindOp { va: rig.base, len: PAGE, target: BindTarget::Unmap };
    let after = syncobj(&rig);
    rig.vm.bind_async(&[unmap], &[], &[after.binary()]).unwrap();
    fence.signal();
    done(&out, None);
    done(&after, None);
    assert_eq!(rig.vm.is_usable(), Ok(false));
    assert_eq!(rig.dump(), [], "the unmap ran, the second map did not");
    assert_eq!(rig.map(&a, 0, rig.base, PAGE), Err(Errno::INVAL));
    assert_eq!(rig.sparse(rig.base, PAGE), Err(Errno::INVAL));
    assert_eq!(rig.unmap(rig.base, PAGE), Ok(()));
    assert_eq!(rig.vm.bind_async(&[unmap], &[], &[]), Err(Errno::INVAL), "nothing is queued any more");
}

#[test]
fn jobs_of_a_destroyed_vm_touch_nothing() {
    let rig = Rig::new(HUGE);
    let a = rig.shared_bo(HUGE, 0);
    let ((wait, fence), out) = (blocked(&rig), syncobj(&rig));
    rig.vm.bind_async(&[map(&a, 0, rig.base, PAGE)], &[wait.binary()], &[out.binary()]).unwrap();
    drop(rig.vm);
    fence.signal();
    let how = Wait::ALL.within(SOON);
    assert_eq!(out.wait(None, how), Ok(Waited::Done { first: 0 }));
    assert_eq!(peek(rig.base), None);
}

#[test]
fn an_object_closed_before_its_job_runs() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(PAGE, 66);
    let ((wait, fence), out) = (blocked(&rig), syncobj(&rig));
    rig.vm.bind_async(&[map(&a, 0, rig.base, PAGE)], &[wait.binary()], &[out.binary()]).unwrap();
    drop(a);
    let next = rig.bo(PAGE, 77);
    fence.signal();
    done(&out, None);
    assert_eq!(peek(rig.base), Some(66));
    drop(next);
}

#[test]
fn many_threads_submit_to_one_queue() {
    let rig = Rig::new(8 * HUGE);
    let a = rig.bo(HUGE, 0);
    let t = syncobj(&rig);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (rig, a) = (&rig, &a);
            scope.spawn(move || {
                let out = Syncobj::create(rig.dyn_node(), false).unwrap();
                for round in 1..=100u64 {
                    let va = rig.base + thread * 2 * HUGE + round % 8 * PAGE;
                    let ops = [map(a, round * PAGE, va, PAGE)];
                    rig.vm.bind_async(&ops, &[], &[out.point(round)]).unwrap();
                    done(&out, Some(round));
                    assert_eq!(peek(va), Some(round));
                }
            });
        }
    });
    rig.vm.bind_async(&[], &[], &[t.binary()]).unwrap();
    done(&t, None);
    assert_eq!(rig.node.counters().jobs, 401);
}

#[test]
fn destroying_a_vm_in_the_middle_of_submissions_leaves_no_fence_behind() {
    for _ in 0..50 {
        let rig = Rig::new(HUGE);
        let a = rig.shared_bo(PAGE, 0);
        let id = rig.vm.id();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (rig, a) = (&rig, &a);
                scope.spawn(move || {
                    let out = syncobj(rig);
                    loop {
                        out.reset().unwrap();
                        match rig.vm.bind_async(&[map(a, 0, rig.base, PAGE)], &[], &[out.binary()]) {
                            Ok(()) => done(&out, None),
                            Err(errno) => break assert_eq!(errno, Errno::INVAL),
                        }
                    }
                });
            }
            assert_eq!(ioctl(&*rig.node, &mut VmDestroy { id, pad: 0 }), Ok(()));
        });
        assert_eq!(peek(rig.base), None);
    }
}

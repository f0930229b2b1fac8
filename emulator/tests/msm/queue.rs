//! Jobs that wait and run later, in several queues, while the tree is ahead of them.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use emulator::{Config, Faults, Gpu, SwFence};
use kmd::syncobj::{Wait, Waited};
use kmd::uapi::msm::{Syncobj as Sync, *};
use kmd::{BindOp, BindTarget, Errno, Refused, Syncobj, Vm};

use crate::rig::*;

const LEN: u64 = 4 << 20;
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

fn sync(syncobj: &Syncobj, point: u64) -> Sync {
    Sync { handle: syncobj.handle().0, flags: 0, point }
}

#[track_caller]
fn done(syncobj: &Syncobj, point: Option<u64>) {
    let how = Wait { for_submit: true, ..Wait::ALL }.within(SOON);
    assert_eq!(syncobj.wait(point, how), Ok(Waited::Done { first: 0 }));
}

fn pending(syncobj: &Syncobj) -> bool {
    syncobj.wait(None, Wait::ALL.within(SHORT)) == Ok(Waited::TimedOut)
}

#[test]
fn the_page_table_follows_when_the_job_runs() {
    let rig = Rig::new(LEN);
    let (a, v, q) = (rig.bo(LEN, 0), rig.base, rig.queue());
    let ((wait, fence), out) = (blocked(&rig), syncobj(&rig));
    let ops = [map_op(a.handle(), 0, v, 4 * PAGE)];
    let call = Call { waits: &[sync(&wait, 0)], signals: &[sync(&out, 0)], ..Call::new(q, &ops) };
    assert_eq!(call.make(&*rig.node), Ok(-1));
    assert!(pending(&out));
    assert_eq!((rig.dump(), peek(v)), (vec![], None));
    // The tree has it already: the same map once more leaves the page table alone.
    assert_eq!(Call { signals: &[sync(&out, 0)], ..Call::new(q, &ops) }.make(&*rig.node), Ok(-1));
    // A synchronous bind elsewhere overtakes.
    assert_eq!(rig.map(&a, PAGE, v + HUGE, PAGE), Ok(()));
    assert_eq!((peek(v), peek(v + HUGE)), (None, Some(1)));
    let flushes = rig.node.counters().flushes;
    fence.signal();
    done(&out, None);
    assert_eq!((peek(v), rig.node.counters().flushes), (Some(0), flushes));
    assert_eq!(rig.vm.is_usable(), Ok(true));
}

/// For the CPU, and for submissions that name it. Objects of one VM are busy together.
#[test]
fn an_object_is_busy_while_a_map_of_it_waits() {
    let rig = Rig::new(LEN);
    let (node, q, v) = (&*rig.node, rig.queue(), rig.base);
    let (a, b) = (rig.shared_bo(4 * PAGE, 0), rig.shared_bo(4 * PAGE, 0));
    let (private, same_vm) = (rig.bo(PAGE, 0), rig.bo(PAGE, 0));
    let prep = |bo: &kmd::BufferObject, op| {
        ioctl(node, &mut GemCpuPrep { handle: bo.handle().0, op, ..Default::default() })
    };
    let ((wait, fence), out) = (blocked(&rig), syncobj(&rig));
    assert_eq!(rig.map(&b, 0, v + HUGE, PAGE), Ok(()));
    let ops = [
        map_op(a.handle(), 0, v, PAGE),
        map_op(private.handle(), 0, v + PAGE, PAGE),
        unmap_op(v + HUGE, PAGE),
    ];
    let call = Call { waits: &[sync(&wait, 0)], signals: &[sync(&out, 0)], ..Call::new(q, &ops) };
    assert_eq!(call.make(node), Ok(-1));
    for op in [PREP_READ, PREP_WRITE, PREP_NOSYNC] {
        let busy = [&a, &private, &same_vm].map(|bo| prep(bo, op));
        assert_eq!((busy, prep(&b, op)), ([Err(Errno::BUSY); 3], Ok(())), "op {op}");
    }
    let submit = |bo: &kmd::BufferObject, flags| {
        let bos = [SubmitBo { flags: SUBMIT_BO_READ, handle: bo.handle().0, presumed: 0 }];
        let mut arg = GemSubmit {
            flags: PIPE_3D0 | flags,
            nr_bos: 1,
            bos: kmd::uapi::user_address(&bos),
            ..Default::default()
        };
        assert_eq!(ioctl(node, &mut arg), Ok(()));
        let mut wait = WaitFence { fence: arg.fence, ..Default::default() };
        wait.timeout = Timespec { tv_sec: 0, tv_nsec: 0 };
        std::thread::sleep(SHORT);
        ioctl(node, &mut wait)
    };
    assert_eq!(submit(&a, SUBMIT_NO_IMPLICIT), Ok(()));
    assert_eq!(submit(&a, 0), Err(Errno::TIMEDOUT));
    fence.signal();
    done(&out, None);
    assert_eq!([&a, &b, &private, &same_vm].map(|bo| prep(bo, PREP_WRITE)), [Ok(()); 4]);
}

#[test]
fn queues_that_overtake_each_other_cost_the_vm() {
    let rig = Rig::new(LEN);
    let (a, b, v) = (rig.bo(LEN, 0), rig.bo(LEN, 500), rig.base);
    let ((wait, fence), out) = (blocked(&rig), syncobj(&rig));
    let first = [map_op(a.handle(), 0, v, PAGE)];
    Call { waits: &[sync(&wait, 0)], signals: &[sync(&out, 0)], ..Call::new(rig.queue(), &first) }
        .make(&*rig.node)
        .unwrap();
    // In the tree this replaces the first; in the page table it comes before it.
    assert_eq!(rig.map(&b, 0, v, PAGE), Ok(()));
    assert_eq!(peek(v), Some(500));
    fence.signal();
    done(&out, None);
    assert_eq!((peek(v), rig.vm.is_usable()), (Some(500), Ok(false)));
    assert_eq!(rig.unmap(v, PAGE), Err(Errno::PIPE));
    assert_eq!(rig.vm.bind_async(&[], &[], &[out.binary()]), Err(Errno::PIPE));
}

#[test]
fn a_job_that_fails_unmaps_what_it_can() {
    let faults = Faults { op: Some(4), ..Faults::default() };
    let rig = Rig::with(LEN, Gpu::A750, Config { faults, ..Config::default() });
    let (a, v) = (rig.bo(LEN, 0), rig.base);
    assert_eq!((rig.map(&a, 0, v, PAGE), rig.map(&a, 0, v + PAGE, PAGE)), (Ok(()), Ok(())));
    let map = |va| BindOp { va, len: PAGE, target: BindTarget::Map { bo: a.handle(), offset: 8 * PAGE } };
    // Two steps each, an unmap and a map; the second map strikes.
    let refused = Refused { applied: 0, errno: Errno::PIPE };
    assert_eq!(rig.vm.bind(&[map(v), map(v + PAGE), map(v + 2 * PAGE)]), Err(refused));
    assert_eq!((rig.dump(), rig.vm.is_usable()), (vec![], Ok(false)));
}

#[test]
fn a_call_that_fails_half_way_costs_the_vm() {
    let run = |alloc, count: usize| {
        let faults = Faults { alloc: Some(alloc), ..Faults::default() };
        let rig = Rig::with(LEN, Gpu::A750, Config { faults, ..Config::default() });
        let a = rig.bo(LEN, 0);
        let op = |i: usize| BindOp {
            va: rig.base + i as u64 * PAGE,
            len: PAGE,
            target: BindTarget::Map { bo: a.handle(), offset: 0 },
        };
        let ops: Vec<_> = (0..count).map(op).collect();
        let result = rig.vm.bind(&ops);
        // What an unusable VM maps is anybody's guess.
        let usable = rig.vm.is_usable().unwrap();
        (result, usable.then(|| rig.dump().len()))
    };
    // VM, syncobj, object; then the operations.
    let refused = |applied| Err(Refused { applied, errno: Errno::NOMEM });
    assert_eq!(run(4, 3), (refused(0), Some(0)));
    assert_eq!(run(5, 3), (refused(0), None));
    assert_eq!(run(4 + 512, 600), (refused(512), Some(512)));
    assert_eq!(run(4 + 513, 600), (refused(0), None));
    assert_eq!(run(4 + 600, 600), (Ok(()), Some(600)));
}

#[test]
fn sync_files_go_in_and_out() {
    let rig = Rig::new(LEN);
    let (a, v, q) = (rig.bo(LEN, 0), rig.base, rig.queue());
    let fence = SwFence::new();
    let file = fence.sync_file().unwrap();
    let ops = [map_op(a.handle(), 0, v, PAGE)];
    let flags = VM_BIND_FENCE_FD_IN | VM_BIND_FENCE_FD_OUT;
    let fd = Call { flags, fence_fd: file.as_raw_fd(), ..Call::new(q, &ops) }.make(&*rig.node).unwrap();
    // SAFETY: the node made it for us.
    let out = unsafe { OwnedFd::from_raw_fd(fd) };
    let done_at = syncobj(&rig);
    done_at.import_sync_file(out.as_fd(), None).unwrap();
    assert!(pending(&done_at));
    assert_eq!(peek(v), None);
    fence.signal();
    done(&done_at, None);
    assert_eq!(peek(v), Some(0));
    let wrong = Call { flags: VM_BIND_FENCE_FD_IN, fence_fd: 0, ..Call::new(q, &ops) };
    assert_eq!(wrong.make(&*rig.node), Err(Errno::INVAL));
}

#[test]
fn waits_reset_and_points_are_signalled() {
    let rig = Rig::new(LEN);
    let (q, (wait, fence), out) = (rig.queue(), blocked(&rig), syncobj(&rig));
    let reset = Sync { flags: SYNCOBJ_RESET, ..sync(&wait, 0) };
    // Without operations it only synchronises.
    let call = Call { waits: &[reset], signals: &[sync(&out, 3), sync(&out, 5)], ..Call::new(q, &[]) };
    assert_eq!(call.make(&*rig.node), Ok(-1));
    assert_eq!((out.last_submitted(), out.last_signaled()), (Ok(5), Ok(0)));
    // The fence is out of the syncobj, but still waited for.
    assert_eq!(call.make(&*rig.node), Err(Errno::INVAL));
    fence.signal();
    done(&out, Some(5));
    // A job that is queued when its queue is closed still runs.
    let (wait, fence) = blocked(&rig);
    let ops = [null_op(rig.base, PAGE)];
    Call { waits: &[sync(&wait, 0)], signals: &[sync(&out, 7)], ..Call::new(q, &ops) }
        .make(&*rig.node)
        .unwrap();
    assert_eq!(ioctl(&*rig.node, &mut SubmitqueueClose(q)), Ok(()));
    assert_eq!(Call::new(q, &ops).make(&*rig.node), Err(Errno::NOENT));
    fence.signal();
    done(&out, Some(7));
    assert_eq!(peek(rig.base), Some(0));
}

#[test]
fn the_last_updates_are_kept() {
    let rig = Rig::new(LEN);
    let (a, q) = (rig.bo(LEN, 0), rig.queue());
    let at = |page: u64| rig.base + page * PAGE;
    let out = syncobj(&rig);
    let ops = [null_op(at(0), 8 * PAGE), map_op(a.handle(), 0, at(2), PAGE), unmap_op(at(6), PAGE)];
    Call { signals: &[sync(&out, 0)], ..Call::new(q, &ops) }.make(&*rig.node).unwrap();
    done(&out, None);
    let seen = |rig: &Rig| -> Vec<_> {
        let log = rig.node.vm_log(1);
        log.iter().map(|u| (u.map, (u.va - rig.base) / PAGE, u.len / PAGE, u.queue)).collect()
    };
    assert_eq!(seen(&rig), [(true, 0, 8, q), (false, 2, 1, q), (true, 2, 1, q), (false, 6, 1, q)]);
    for page in 0..256 {
        rig.map(&a, 0, at(512 + page), PAGE).unwrap();
    }
    let last = seen(&rig);
    assert_eq!((last.len(), last[0].1, last[255].1), (256, 512, 512 + 255));
    assert_eq!(rig.node.vm_log(2), []);
}

#[test]
fn calls_wait_while_too_many_pages_are_in_flight() {
    let rig = Rig::new(LEN);
    let ((wait, fence), out, q) = (blocked(&rig), syncobj(&rig), rig.queue());
    // 512 operations that share nothing: three tables each.
    let ops: Vec<_> = (0..512).map(|i| null_op(rig.base + (i % 2) * HUGE + i * PAGE, PAGE)).collect();
    let waits = [sync(&wait, 0)];
    Call { waits: &waits, ..Call::new(q, &ops) }.make(&*rig.node).unwrap();
    let counters = rig.node.counters();
    assert_eq!((counters.preallocated_pages, counters.throttled), (512 * 3, 0));
    std::thread::scope(|scope| {
        let late = scope.spawn(|| {
            let signals = [sync(&out, 0)];
            Call { signals: &signals, ..Call::new(rig.queue(), &ops[..1]) }.make(&*rig.node)
        });
        while rig.node.counters().throttled == 0 {
            std::thread::yield_now();
        }
        std::thread::sleep(SHORT);
        assert!(!late.is_finished());
        fence.signal();
        assert_eq!(late.join().unwrap(), Ok(-1));
    });
    done(&out, None);
    assert_eq!(rig.vm.is_usable(), Ok(true));
}

#[test]
fn many_queues_at_once() {
    const THREADS: u64 = 6;
    const PAGES: u64 = 32;
    const ROUNDS: u64 = 60;
    let rig = Rig::new(LEN);
    let a = rig.bo(LEN, 0);
    // Each thread has a queue and addresses of its own, all in the same page table, and ends with what it bound last.
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (rig, a) = (&rig, &a);
            scope.spawn(move || {
                let (q, out) = (rig.queue(), syncobj(rig));
                for round in 1..=ROUNDS {
                    let page = |i: u64| (i * 7 + round + thread) % 64;
                    let va = |i: u64| rig.base + (i * THREADS + thread) * PAGE;
                    let op = |i| match (i + round) % 5 {
                        0 if round != ROUNDS => unmap_op(va(i), PAGE),
                        1 if round != ROUNDS => null_op(va(i), PAGE),
                        _ => map_op(a.handle(), page(i) * PAGE, va(i), PAGE),
                    };
                    let ops: Vec<_> = (0..PAGES).map(op).collect();
                    let signals = [sync(&out, round)];
                    Call { signals: &signals, ..Call::new(q, &ops) }.make(&*rig.node).unwrap();
                }
                done(&out, Some(ROUNDS));
                for i in 0..PAGES {
                    let at = rig.base + (i * THREADS + thread) * PAGE;
                    assert_eq!(peek(at), Some((i * 7 + ROUNDS + thread) % 64));
                }
            });
        }
    });
    assert_eq!(rig.vm.is_usable(), Ok(true));
    assert_eq!(rig.unmap(rig.base, LEN), Ok(()));
    assert_eq!(rig.node.counters().table_pages, 1);
}

#[test]
fn one_queue_can_be_held_alone() {
    let rig = Rig::new(LEN);
    let (a, v, held, free) = (rig.bo(LEN, 0), rig.base, rig.queue(), rig.queue());
    let out = [syncobj(&rig), syncobj(&rig)];
    let bind = |queue, ops: &[VmBindOp], out: &Syncobj| {
        let signals = [sync(out, 0)];
        Call { signals: &signals, ..Call::new(queue, ops) }.make(&*rig.node)
    };
    rig.node.single_out_jobs(Some(held));
    rig.node.hold_jobs(true);
    // A driver's null mapping of a new resource, and a bind into it by way of another queue: the tree knows of both.
    assert_eq!(bind(held, &[null_op(v, HUGE)], &out[0]), Ok(-1));
    assert_eq!(bind(free, &[map_op(a.handle(), 0, v, PAGE)], &out[1]), Ok(-1));
    done(&out[1], None);
    assert_eq!((peek(v), rig.vm.is_usable()), (Some(0), Ok(true)));
    // The one that came first comes upon what is mapped, and costs the VM.
    rig.node.hold_jobs(false);
    done(&out[0], None);
    assert_eq!(rig.vm.is_usable(), Ok(false));
}

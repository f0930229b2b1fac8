//! GEM_SUBMIT: its checks, its fences, and the addresses of those who leave them to the kernel.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use emulator::{Config, Faults, Gpu, SwFence};
use kmd::syncobj::{Wait, Waited};
use kmd::uapi::msm::{Syncobj as Sync, *};
use kmd::uapi::{drm, user_address};
use kmd::{Errno, GemHandle, Node, Syncobj, Vm};

use crate::rig::*;

const SIZE: u64 = 4 << 20;
const BAD: Result<u32, Errno> = Err(Errno::INVAL);

fn request() -> GemSubmit {
    GemSubmit { flags: PIPE_3D0, syncobj_stride: size_of::<Sync>() as u32, ..Default::default() }
}

/// Submits; returns the number.
fn submit(node: &dyn Node, mut arg: GemSubmit) -> Result<u32, Errno> {
    ioctl(node, &mut arg).map(|()| arg.fence)
}

fn with_bos(bos: &[SubmitBo], arg: GemSubmit) -> GemSubmit {
    GemSubmit { bos: user_address(bos), nr_bos: bos.len() as u32, ..arg }
}

fn with_cmds(cmds: &[SubmitCmd], arg: GemSubmit) -> GemSubmit {
    GemSubmit { cmds: user_address(cmds), nr_cmds: cmds.len() as u32, ..arg }
}

fn with_wait(sync: &[Sync], arg: GemSubmit) -> GemSubmit {
    let flags = arg.flags | SUBMIT_SYNCOBJ_IN;
    GemSubmit { flags, in_syncobjs: user_address(sync), nr_in_syncobjs: sync.len() as u32, ..arg }
}

fn cmd(submit_idx: u32, size: u32) -> SubmitCmd {
    SubmitCmd { r#type: SUBMIT_CMD_BUF, submit_idx, size, ..Default::default() }
}

fn bo(handle: u32, flags: u32) -> SubmitBo {
    SubmitBo { flags, handle, presumed: 0 }
}

/// A syncobj whose fence the test signals.
fn blocked(node: &Arc<emulator::Node>) -> (Syncobj, SwFence) {
    let (syncobj, fence) = (Syncobj::create(node.clone(), false).unwrap(), SwFence::new());
    syncobj.import_sync_file(fence.sync_file().unwrap().as_fd(), None).unwrap();
    (syncobj, fence)
}

fn wait_for(node: &dyn Node, fence: u32, queueid: u32, tv_sec: i64) -> Result<(), Errno> {
    ioctl(
        node,
        &mut WaitFence { fence, queueid, timeout: Timespec { tv_sec, tv_nsec: 0 }, ..Default::default() },
    )
}

const FOREVER: i64 = i64::MAX / 2;

fn new_bo(node: &dyn Node, flags: u32) -> u32 {
    let mut arg = GemNew { size: 4 * PAGE, flags: flags | BO_WC, handle: 0 };
    ioctl(node, &mut arg).unwrap();
    arg.handle
}

#[test]
fn bad_submissions() {
    let rig = Rig::new(SIZE);
    let (node, q) = (&*rig.node, rig.queue());
    let base = request();
    assert_eq!(submit(node, base), Ok(1));
    let table = [
        ("pad", GemSubmit { pad: 1, queueid: 99, ..base }, BAD),
        ("pipe", GemSubmit { flags: PIPE_2D0, queueid: 99, ..base }, BAD),
        ("flags", GemSubmit { flags: PIPE_3D0 | 1 << 20, queueid: 99, ..base }, BAD),
        ("sudo", GemSubmit { flags: PIPE_3D0 | SUBMIT_SUDO, queueid: 99, ..base }, BAD),
        ("no such queue", GemSubmit { queueid: 99, ..base }, Err(Errno::NOENT)),
        ("a bind queue", GemSubmit { queueid: q, ..base }, BAD),
        ("too many objects", GemSubmit { nr_bos: 1 << 20, ..base }, Err(Errno::NOMEM)),
        ("no sync file", GemSubmit { flags: PIPE_3D0 | SUBMIT_FENCE_FD_IN, fence_fd: 0, ..base }, BAD),
        ("no syncobj", with_wait(&[Sync { handle: 77, ..Default::default() }], base), Err(Errno::NOENT)),
        ("objects at no address", GemSubmit { nr_bos: 1, bos: 8, ..base }, Err(Errno::FAULT)),
        ("streams at no address", GemSubmit { nr_cmds: 1, cmds: 8, ..base }, Err(Errno::FAULT)),
        ("a number that is none", GemSubmit { flags: PIPE_3D0 | SUBMIT_FENCE_SN_IN, ..base }, BAD),
    ];
    for (name, arg, want) in table {
        assert_eq!(submit(node, arg), want, "{name}");
    }
    let stream = SubmitCmd { relocs: 1 << 32, ..cmd(0, 64) };
    for (name, bad) in [
        ("type", SubmitCmd { r#type: 4, ..stream }),
        ("size", SubmitCmd { size: 6, ..stream }),
        ("relocs", SubmitCmd { nr_relocs: 1, ..stream }),
        ("index", SubmitCmd { submit_idx: 1, ..stream }),
        ("offset", SubmitCmd { submit_offset: 4, ..stream }),
    ] {
        assert_eq!(submit(node, with_cmds(&[stream, bad], base)), BAD, "{name}");
    }
    assert_eq!(submit(node, with_cmds(&[stream, SubmitCmd { size: 0, ..stream }], base)), Ok(2));

    // Objects can be named, if they are mapped.
    let a = rig.shared_bo(HUGE, 0);
    let named = [bo(a.handle().0, SUBMIT_BO_READ)];
    assert_eq!(submit(node, with_bos(&named, base)), BAD);
    assert_eq!(rig.map(&a, 0, rig.base, PAGE), Ok(()));
    assert_eq!(submit(node, with_bos(&named, base)), Ok(3));
    assert_eq!(submit(node, with_bos(&[bo(a.handle().0, 0)], base)), BAD);
    assert_eq!(submit(node, with_bos(&[bo(a.handle().0, 16 | SUBMIT_BO_READ)], base)), BAD);
    assert_eq!(submit(node, with_bos(&[bo(99, SUBMIT_BO_READ)], base)), BAD);
}

#[test]
fn fences_signal_in_order_of_submission() {
    let rig = Rig::new(SIZE);
    let node = &*rig.node;
    let mut queue = SubmitqueueNew { prio: 2, ..Default::default() };
    ioctl(node, &mut queue).unwrap();
    let base = GemSubmit { queueid: queue.id, ..request() };
    let (gate, fence) = blocked(&rig.node);
    let reset = [Sync { handle: gate.handle().0, flags: SYNCOBJ_RESET, point: 0 }];
    let out = Syncobj::create(rig.dyn_node(), false).unwrap();
    let signal = [Sync { handle: out.handle().0, flags: 0, point: 7 }];
    let first = GemSubmit { flags: PIPE_3D0 | SUBMIT_SYNCOBJ_OUT | SUBMIT_FENCE_FD_OUT, ..base };
    let first = GemSubmit { out_syncobjs: user_address(&signal), nr_out_syncobjs: 1, ..first };
    let mut first = with_wait(&reset, first);
    ioctl(node, &mut first).unwrap();
    // SAFETY: the node made it for us.
    let file = unsafe { OwnedFd::from_raw_fd(first.fence_fd) };
    assert_eq!((first.fence, submit(node, base)), (1, Ok(2)));
    assert_eq!(submit(node, with_wait(&reset, base)), BAD, "its fence has been taken out");
    // Nothing moves; not even what waits for nothing.
    assert_eq!(wait_for(node, 2, queue.id, 1), Err(Errno::TIMEDOUT));
    assert_eq!(wait_for(node, 3, queue.id, FOREVER), Err(Errno::INVAL));
    assert_eq!((out.last_submitted(), out.last_signaled()), (Ok(7), Ok(0)));
    // A number that user space chooses.
    let chosen = |fence| GemSubmit { flags: PIPE_3D0 | SUBMIT_FENCE_SN_IN, fence, ..base };
    assert_eq!((submit(node, chosen(2)), submit(node, chosen(40)), submit(node, base)), (BAD, Ok(40), Ok(3)));
    fence.signal();
    assert_eq!(wait_for(node, 3, queue.id, FOREVER), Ok(()));
    assert_eq!(wait_for(node, 1, queue.id, 0), Ok(()));
    assert_eq!(out.last_signaled(), Ok(7));
    let done = Syncobj::create(rig.dyn_node(), false).unwrap();
    done.import_sync_file(file.as_fd(), None).unwrap();
    assert_eq!(done.wait(None, Wait::ALL.within(Duration::ZERO)), Ok(Waited::Done { first: 0 }));
}

#[test]
fn a_submission_that_hangs_costs_the_vm() {
    let config = Config { faults: Faults { job: Some(2), ..Faults::default() }, ..Config::default() };
    let rig = Rig::with(SIZE, Gpu::A750, config);
    let node = &*rig.node;
    let faults = || {
        let mut arg = GetParam(Param { pipe: PIPE_3D0, param: PARAM_FAULTS, ..Default::default() });
        ioctl(node, &mut arg).unwrap();
        let mut queue = [9u32];
        let data = kmd::uapi::user_address_mut(&mut queue);
        ioctl(node, &mut SubmitqueueQuery { data, len: 4, ..Default::default() }).unwrap();
        (arg.0.value, queue[0])
    };
    assert_eq!((submit(node, request()), wait_for(node, 1, 0, FOREVER)), (Ok(1), Ok(())));
    assert_eq!((faults(), rig.vm.is_usable()), ((0, 0), Ok(true)));
    assert_eq!((submit(node, request()), wait_for(node, 2, 0, FOREVER)), (Ok(2), Ok(())));
    assert_eq!((faults(), rig.vm.is_usable()), ((1, 1), Ok(false)));
    assert_eq!(submit(node, GemSubmit { flags: 0, ..request() }), Err(Errno::PIPE));
}

/// A file that has not opted in to VM_BIND.
fn kernel_managed() -> Arc<emulator::Node> {
    emulator::Node::msm(Gpu::A660, Config { execute: false, ..Config::default() }).unwrap()
}

fn info(node: &dyn Node, handle: u32, info: u32, value: u64) -> Result<u64, Errno> {
    let mut arg = GemInfo { handle, info, value, ..Default::default() };
    ioctl(node, &mut arg).map(|()| arg.value)
}

#[test]
fn the_kernel_places_objects() {
    let node = kernel_managed();
    let (a, b) = (new_bo(&*node, 0), new_bo(&*node, 0));
    let first = info(&*node, a, INFO_GET_IOVA, 0).unwrap();
    let place = |bo, va| info(&*node, bo, INFO_SET_IOVA, va).map(|_| ());
    assert_eq!((first, info(&*node, a, INFO_GET_IOVA, 0)), (1 << 32, Ok(1 << 32)));
    assert_eq!(
        (place(b, first + PAGE), place(b, 0x1000), place(b, first + 6 * PAGE + 1)),
        (Err(Errno::NOSPC), Err(Errno::NOSPC), Err(Errno::NOSPC))
    );
    let at = first + (1 << 30);
    assert_eq!((place(b, at), place(b, at), info(&*node, b, INFO_GET_IOVA, 0)), (Ok(()), Ok(()), Ok(at)));
    assert_eq!((place(b, at + PAGE), place(b, at + PAGE)), (Err(Errno::BUSY), Ok(())), "it loses its place");
    assert_eq!((place(b, 0), place(b, at)), (Ok(()), Ok(())));

    // The first submission that names an object maps it, and it stays until its handle is closed.
    assert_eq!(node.mappings(1), []);
    let named = [bo(a, SUBMIT_BO_READ), bo(b, SUBMIT_BO_WRITE)];
    let stream = [cmd(1, 64)];
    assert_eq!(submit(&*node, with_cmds(&stream, with_bos(&named, request()))), Ok(1));
    let runs: Vec<_> = node.mappings(1).iter().map(|run| (run.va, run.len, run.bo)).collect();
    assert_eq!(runs, [(first, 4 * PAGE, Some((GemHandle(a), 0))), (at, 4 * PAGE, Some((GemHandle(b), 0)))]);
    assert_eq!(ioctl(&*node, &mut drm::GemClose { handle: a, pad: 0 }), Ok(()));
    let runs: Vec<_> = node.mappings(1).iter().map(|run| run.va).collect();
    assert_eq!(runs, [at]);
    let c = new_bo(&*node, 0);
    assert_eq!(info(&*node, c, INFO_GET_IOVA, 0), Ok(first), "the place is free again");
}

#[test]
fn streams_without_vm_bind() {
    let node = kernel_managed();
    let (a, private) = (new_bo(&*node, 0), new_bo(&*node, BO_NO_SHARE));
    let named = [bo(a, SUBMIT_BO_READ)];
    let run = |stream| submit(&*node, with_cmds(&[stream], with_bos(&named, request())));
    assert_eq!(run(cmd(0, 4 * PAGE as u32)), Ok(1));
    let over = SubmitCmd { submit_offset: 4, ..cmd(0, 4 * PAGE as u32) };
    assert_eq!((run(cmd(1, 64)), run(cmd(0, 0)), run(over)), (BAD, BAD, BAD));
    let relocs = [SubmitReloc::default()];
    assert_eq!(run(SubmitCmd { nr_relocs: 1, relocs: user_address(&relocs), ..cmd(0, 64) }), BAD);
    let twice = [named[0], named[0]];
    assert_eq!(submit(&*node, with_bos(&twice, request())), Err(Errno::ALREADY));
    assert_eq!(submit(&*node, with_bos(&[bo(private, SUBMIT_BO_READ)], request())), Err(Errno::ALREADY));
    assert_eq!(Call::new(0, &[]).make(&*node), BAD.map(|_| 0));
}

#[test]
fn the_cpu_waits_for_what_the_gpu_uses() {
    let node = kernel_managed();
    let (a, b) = (new_bo(&*node, 0), new_bo(&*node, 0));
    let prep = |handle, op, tv_sec| {
        ioctl(&*node, &mut GemCpuPrep { handle, op, timeout: Timespec { tv_sec, tv_nsec: 0 } })
    };
    let (gate, fence) = blocked(&node);
    let wait = [Sync { handle: gate.handle().0, ..Default::default() }];
    let named = [bo(a, SUBMIT_BO_READ), bo(b, SUBMIT_BO_WRITE)];
    assert_eq!(submit(&*node, with_wait(&wait, with_bos(&named, request()))), Ok(1));
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    assert_eq!(prep(a, PREP_READ, FOREVER), Ok(()), "both read");
    assert_eq!(prep(a, PREP_WRITE | PREP_NOSYNC, FOREVER), Err(Errno::BUSY));
    assert_eq!(
        (prep(b, PREP_READ, 0), prep(b, PREP_READ, now + 1)),
        (Err(Errno::BUSY), Err(Errno::TIMEDOUT))
    );
    // Another queue's work that reads what is written waits too, unless it does not want to.
    let mut other = SubmitqueueNew { prio: 0, ..Default::default() };
    ioctl(&*node, &mut other).unwrap();
    let read = [bo(b, SUBMIT_BO_READ)];
    let late = with_bos(&read, GemSubmit { queueid: other.id, ..request() });
    let free = GemSubmit { flags: PIPE_3D0 | SUBMIT_NO_IMPLICIT, ..late };
    assert_eq!((submit(&*node, free), wait_for(&*node, 1, other.id, FOREVER)), (Ok(1), Ok(())));
    assert_eq!((submit(&*node, late), wait_for(&*node, 2, other.id, now + 1)), (Ok(2), Err(Errno::TIMEDOUT)));
    fence.signal();
    assert_eq!((prep(b, PREP_WRITE, FOREVER), wait_for(&*node, 2, other.id, FOREVER)), (Ok(()), Ok(())));
}

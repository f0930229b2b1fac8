//! Bad input gets the kernel's errno, and changes nothing.

use emulator::{Config, Faults, Gpu};
use kmd::msm::{MsmVm, get_param};
use kmd::uapi::msm::*;
use kmd::{Errno, GemHandle, Vm};

use crate::rig::*;

const SIZE: u64 = 4 << 20;

#[test]
fn the_opt_in_comes_before_the_vm() {
    let node = emulator::Node::msm(Gpu::A740, Config::default()).unwrap();
    let version = kmd::DriverVersion::query(&*node).unwrap();
    assert_eq!((&*version.name, version.major, version.minor), ("msm", 1, 13));
    assert_eq!(MsmVm::attach(node.clone()).err(), Some(Errno::INVAL), "nobody has opted in");
    assert_eq!(MsmVm::create(node.clone()).err(), Some(Errno::BUSY), "looking made the VM");
    let op = unmap_op(1 << 32, PAGE);
    assert_eq!(Call::new(0, &[op]).make(&*node), Err(Errno::INVAL));

    let node = node.open_again().unwrap();
    get_param(&*node, PARAM_GPU_ID).unwrap();
    assert_eq!(MsmVm::create(node.clone()).err(), Some(Errno::BUSY), "reading a parameter made the VM");

    let node = node.open_again().unwrap();
    let vm = MsmVm::create(node.clone()).unwrap();
    assert_eq!(MsmVm::create(node.clone()).err(), Some(Errno::BUSY));
    // A driver's own, with queues of ours.
    let ours = MsmVm::attach(node.clone()).unwrap();
    assert_eq!(ours.limits(), vm.limits());
    drop(ours);
    assert_eq!(vm.is_usable(), Ok(true));
    let set =
        |param, value, len| ioctl(&*node, &mut SetParam(Param { pipe: PIPE_3D0, param, value, len, pad: 0 }));
    let text = b"demo";
    assert_eq!(set(PARAM_COMM, text.as_ptr().expose_provenance() as u64, 4), Ok(()));
    assert_eq!(set(PARAM_COMM, 0, 4), Err(Errno::FAULT));
    assert_eq!(set(PARAM_CMDLINE, 1, 4097), Err(Errno::INVAL));
    assert_eq!(set(PARAM_EN_VM_BIND, 1, 1), Err(Errno::INVAL));
    assert_eq!((set(PARAM_SYSPROF, 1, 0), set(PARAM_CHIP_ID, 1, 0)), (Err(Errno::PERM), Err(Errno::INVAL)));
    let bad = Param { pipe: 1, param: PARAM_GPU_ID, ..Default::default() };
    assert_eq!(ioctl(&*node, &mut GetParam(bad)), Err(Errno::INVAL));
}

#[test]
fn bad_operations() {
    for execute in [true, false] {
        let rig = Rig::with(SIZE, Gpu::A750, Config { execute, ..Config::default() });
        let (v, end, q) = (rig.base, rig.vm.limits().va.end, rig.queue());
        let a = rig.shared_bo(SIZE, 0);
        let h = a.handle();
        let bad = Err(Errno::INVAL);
        let table = [
            ("address misaligned", map_op(h, 0, v + 1, PAGE), bad),
            ("range misaligned", map_op(h, 0, v, PAGE + 1), bad),
            ("offset misaligned", map_op(h, 12, v, PAGE), bad),
            ("offset of an unmap misaligned", VmBindOp { obj_offset: 1, ..unmap_op(v, PAGE) }, bad),
            ("offset of an unmap", VmBindOp { obj_offset: PAGE, ..unmap_op(v, PAGE) }, Ok(-1)),
            ("range 0", map_op(h, 0, v, 0), Ok(-1)),
            ("bad handle", map_op(GemHandle(9999), 0, v, PAGE), bad),
            ("no handle", map_op(GemHandle(0), 0, v, PAGE), bad),
            ("unmap with a handle", VmBindOp { handle: h.0, ..unmap_op(v, PAGE) }, bad),
            ("null with a handle", VmBindOp { handle: h.0, ..null_op(v, PAGE) }, bad),
            ("past the object", map_op(h, SIZE - PAGE, v, 2 * PAGE), bad),
            ("offset past the object", map_op(h, SIZE + PAGE, v, PAGE), bad),
            ("offset that wraps", map_op(h, 0u64.wrapping_sub(PAGE), v, 2 * PAGE), bad),
            ("below the range", map_op(h, 0, PAGE, PAGE), bad),
            ("past the range", unmap_op(end, PAGE), bad),
            ("over the end of the range", unmap_op(end - PAGE, 2 * PAGE), bad),
            ("range that wraps", unmap_op(v, 0u64.wrapping_sub(PAGE)), bad),
            ("unknown operation", VmBindOp { op: 3, ..unmap_op(v, PAGE) }, bad),
            ("unknown flag", VmBindOp { flags: 2, ..unmap_op(v, PAGE) }, bad),
            ("what is not mapped", unmap_op(1 << 40, 1 << 30), Ok(-1)),
        ];
        for (name, op, want) in table {
            assert_eq!(Call::new(q, &[op]).make(&*rig.node), want, "{name}, execute {execute}");
            // In a batch, nothing of it is done.
            if want.is_err() {
                let batch = [map_op(h, 0, v, PAGE), op];
                assert_eq!(Call::new(q, &batch).make(&*rig.node), want, "{name} as the second");
            }
        }
        assert_eq!(rig.unmap(v, SIZE), Ok(()));
        assert_eq!((rig.dump(), rig.vm.is_usable()), (vec![], Ok(true)));
    }
}

#[test]
fn bad_calls() {
    let rig = Rig::new(SIZE);
    let (node, q, op) = (&*rig.node, rig.queue(), [unmap_op(rig.base, PAGE)]);
    let call = || Call::new(q, &op);
    assert_eq!(Call { flags: 4, queue: 99, ..call() }.make(node), Err(Errno::INVAL));
    assert_eq!(Call { queue: 99, ..call() }.make(node), Err(Errno::NOENT));
    assert_eq!(Call { queue: 0, ..call() }.make(node), Err(Errno::INVAL), "no bind queue");
    let sync = |handle, flags| [Syncobj { handle, flags, point: 0 }];
    assert_eq!(Call { waits: &sync(77, 0), ..call() }.make(node), Err(Errno::NOENT));
    assert_eq!(Call { waits: &sync(77, 2), ..call() }.make(node), Err(Errno::INVAL));
    assert_eq!(Call { signals: &sync(77, 0), ..call() }.make(node), Err(Errno::INVAL));
    let empty = kmd::Syncobj::create(rig.dyn_node(), false).unwrap();
    assert_eq!(Call { waits: &sync(empty.handle().0, 0), ..call() }.make(node), Err(Errno::INVAL));
    let raw = |nr_ops, ops: u32| {
        let op = VmBindOp { op: ops, ..Default::default() };
        ioctl(node, &mut VmBind { queue_id: q, nr_ops, op, ..Default::default() })
    };
    assert_eq!(raw(0, 0), Ok(()));
    assert_eq!(raw(2, 8), Err(Errno::FAULT));
    assert_eq!(raw(200_000, 1 << 20), Err(Errno::NOMEM));
    let many = VmBind { queue_id: q, nr_in_syncobjs: u32::MAX, in_syncobjs: 1 << 20, ..Default::default() };
    assert_eq!(ioctl(node, &mut many.clone()), Err(Errno::NOMEM));

    // Outside of windows.
    let a = rig.bo(PAGE, 0);
    let mine = Reservation::new(HUGE);
    assert_eq!(rig.map(&a, 0, mine.start, PAGE), Err(Errno::INVAL));
    assert_eq!(rig.null(mine.start, PAGE), Err(Errno::INVAL));
    assert_eq!(rig.unmap(mine.start, PAGE), Ok(()));
}

#[test]
fn queues() {
    let rig = Rig::with(SIZE, Gpu::A660, Config::default());
    let node = &*rig.node;
    let new = |flags, prio| {
        let mut arg = SubmitqueueNew { flags, prio, id: 0 };
        ioctl(node, &mut arg).map(|()| arg.id)
    };
    // Number 0 is always there.
    assert_eq!((new(0, 0), new(0, 2), new(0, 3)), (Ok(1), Ok(2), Err(Errno::INVAL)));
    assert_eq!((new(SUBMITQUEUE_ALLOW_PREEMPT, 0), new(4, 0)), (Err(Errno::INVAL), Err(Errno::INVAL)));
    assert_eq!((new(SUBMITQUEUE_VM_BIND, 1), new(SUBMITQUEUE_VM_BIND, 0)), (Err(Errno::INVAL), Ok(3)));
    let close = |id| ioctl(node, &mut SubmitqueueClose(id));
    assert_eq!(
        (close(0), close(2), close(2), new(0, 0)),
        (Err(Errno::NOENT), Ok(()), Err(Errno::NOENT), Ok(4))
    );
    let wait = |fence, queueid| ioctl(node, &mut WaitFence { fence, queueid, ..Default::default() });
    assert_eq!((wait(0, 1), wait(1, 1), wait(0, 2)), (Ok(()), Err(Errno::INVAL), Err(Errno::NOENT)));
    let mut faults = [9u32];
    let data = kmd::uapi::user_address_mut(&mut faults);
    let query = |id, param, len| ioctl(node, &mut SubmitqueueQuery { data, id, param, len, pad: 0 });
    assert_eq!(
        (query(1, 0, 4), query(1, 1, 4), query(2, 0, 4)),
        (Ok(()), Err(Errno::INVAL), Err(Errno::NOENT))
    );
    assert_eq!(faults, [0]);
}

#[test]
fn buffer_objects() {
    let rig = Rig::with(SIZE, Gpu::A702, Config::default());
    let node = &*rig.node;
    let new = |size, flags| {
        let mut arg = GemNew { size, flags, handle: 0 };
        ioctl(node, &mut arg).map(|()| arg.handle)
    };
    let bad = Err(Errno::INVAL);
    for flags in [0, BO_UNCACHED, BO_CACHED | BO_WC, BO_CACHED_COHERENT, BO_WC | 8] {
        assert_eq!(new(PAGE, flags), bad, "{flags:#x}");
    }
    assert_eq!((new(0, BO_WC), new(1, BO_WC), new(PAGE, BO_CACHED | BO_NO_SHARE)), (bad, Ok(1), Ok(2)));

    let info = |info, value, len| {
        let mut arg = GemInfo { handle: 1, info, value, len, pad: 0 };
        ioctl(node, &mut arg).map(|()| (arg.value, arg.len))
    };
    let mut buffer = [0u8; 64];
    let at = kmd::uapi::user_address_mut(&mut buffer);
    let text = kmd::uapi::user_address(b"a texture");
    assert_eq!(info(INFO_GET_FLAGS, 0, 0), Ok((BO_WC.into(), 0)));
    assert_eq!((info(INFO_GET_FLAGS, 0, 1), info(8, 0, 0)), (Err(Errno::INVAL), Err(Errno::INVAL)));
    assert_eq!(
        (info(INFO_GET_IOVA, 0, 0), info(INFO_SET_IOVA, 0, 0)),
        (Err(Errno::INVAL), Err(Errno::INVAL))
    );
    assert_eq!((info(INFO_SET_NAME, text, 9), info(INFO_GET_NAME, 0, 0)), (Ok((text, 9)), Ok((0, 9))));
    assert_eq!(
        (info(INFO_SET_NAME, text, 32), info(INFO_GET_NAME, at, 64)),
        (Err(Errno::INVAL), Ok((at, 9)))
    );
    assert_eq!(&buffer[..10], b"a texture\0");
    assert_eq!(
        (info(INFO_SET_METADATA, text, 4), info(INFO_GET_METADATA, 0, 0)),
        (Ok((text, 4)), Ok((0, 4)))
    );
    assert_eq!(info(INFO_SET_METADATA, text, 129), Err(Errno::OVERFLOW));
    assert_eq!(info(INFO_GET_METADATA, at, 3), Err(Errno::from_raw_os_error(525)));
    assert_eq!(info(INFO_GET_METADATA, at + 16, 8), Ok((at + 16, 4)));
    assert_eq!(&buffer[16..21], b"a te\0");
    let mut arg = GemInfo { handle: 7, ..Default::default() };
    assert_eq!(ioctl(node, &mut arg), Err(Errno::NOENT));

    let mut madvise = GemMadvise { handle: 1, madv: MADV_DONTNEED, retained: 0 };
    assert_eq!((ioctl(node, &mut madvise), madvise.retained), (Ok(()), 1));
    assert_eq!(ioctl(node, &mut GemMadvise { madv: 2, ..madvise }), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut GemCpuPrep { handle: 1, op: 16, ..Default::default() }), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut GemCpuPrep { handle: 1, op: PREP_READ, ..Default::default() }), Ok(()));
    assert_eq!(ioctl(node, &mut GemCpuFini { handle: 7 }), Err(Errno::NOENT));
    assert_eq!(ioctl(node, &mut PerfcntrConfig::default()), Err(Errno::NXIO), "no counters");
    // What the kernel has left out.
    let mut arg = [0u64; 16];
    let svm = kmd::uapi::iowr::<[u64; 9]>(kmd::uapi::COMMAND_BASE + 9);
    // SAFETY: the buffer is larger than the argument; zeroes are no pointers.
    assert_eq!(unsafe { kmd::Node::ioctl(node, svm, arg.as_mut_ptr().cast()) }, Err(Errno::INVAL));
}

#[test]
fn a_vm_that_cannot_be_made() {
    let faults = Faults { alloc: Some(1), ..Faults::default() };
    let node = emulator::Node::msm(Gpu::A750, Config { faults, ..Config::default() }).unwrap();
    assert_eq!(MsmVm::create(node.clone()).err(), Some(Errno::NOMEM));
    // The opt-in has not lapsed, and the next request makes the VM.
    assert!(MsmVm::attach(node).is_ok());
}

//! Groups, tiler heaps and the flush id page: what a Vulkan driver needs besides memory.

use std::os::fd::AsFd;
use std::time::Duration;

use emulator::{Config, Faults, Mali, SwFence};
use kmd::syncobj::{Wait, Waited};
use kmd::uapi::panthor::*;
use kmd::{DriverVersion, Errno, Node, Syncobj, Vm};
use rustix::mm::MprotectFlags;

use crate::rig::*;

const BAD: Result<u32, Errno> = Err(Errno::INVAL);

fn group(rig: &Rig, change: impl FnOnce(&mut GroupCreate)) -> Result<u32, Errno> {
    group_of(rig, &[QueueCreate { ringbuf_size: 4096, ..Default::default() }; 3], change)
}

fn group_of(rig: &Rig, queues: &[QueueCreate], change: impl FnOnce(&mut GroupCreate)) -> Result<u32, Errno> {
    let mut arg = GroupCreate {
        queues: ObjArray::new(queues),
        max_compute_cores: 4,
        max_fragment_cores: 4,
        max_tiler_cores: 1,
        priority: GROUP_PRIORITY_MEDIUM as u8,
        compute_core_mask: 0x5_0005,
        fragment_core_mask: 0x5_0005,
        tiler_core_mask: 1,
        vm_id: rig.vm.id(),
        ..Default::default()
    };
    change(&mut arg);
    ioctl(&*rig.node, &mut arg).map(|()| arg.group_handle)
}

fn submit(rig: &Rig, group_handle: u32, submits: &[QueueSubmit]) -> Result<(), Errno> {
    let mut arg = GroupSubmit { group_handle, pad: 0, queue_submits: ObjArray::new(submits) };
    ioctl(&*rig.node, &mut arg)
}

fn stream(queue_index: u32, syncs: &[SyncOp]) -> QueueSubmit {
    let syncs = ObjArray::new(syncs);
    QueueSubmit { queue_index, stream_size: 64, stream_addr: 1 << 20, syncs, ..Default::default() }
}

fn wait_op(syncobj: &Syncobj) -> SyncOp {
    SyncOp { flags: SYNC_OP_HANDLE_TYPE_SYNCOBJ, handle: syncobj.handle().0, timeline_value: 0 }
}

fn signal_op(syncobj: &Syncobj, timeline_value: u64) -> SyncOp {
    let flags = SYNC_OP_SIGNAL | SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ;
    SyncOp { flags, handle: syncobj.handle().0, timeline_value }
}

fn reached(syncobj: &Syncobj, point: u64) -> bool {
    let how = Wait { for_submit: true, ..Wait::ALL }.within(Duration::from_secs(20));
    syncobj.wait(Some(point), how) == Ok(Waited::Done { first: 0 })
}

#[test]
fn bad_groups() {
    let rig = Rig::new(HUGE);
    let queue = |change: fn(&mut QueueCreate)| {
        let mut queue = QueueCreate { ringbuf_size: 4096, ..Default::default() };
        change(&mut queue);
        group_of(&rig, &[queue], |_| ())
    };
    assert_eq!(group(&rig, |_| ()), Ok(1));
    assert_eq!(group(&rig, |arg| arg.queues = ObjArray::default()), BAD);
    assert_eq!(group_of(&rig, &[QueueCreate { ringbuf_size: 4096, ..Default::default() }; 9], |_| ()), BAD);
    assert_eq!(group(&rig, |arg| arg.queues.array = 8), Err(Errno::FAULT));
    assert_eq!(group(&rig, |arg| (arg.priority, arg.pad) = (4, 1)), BAD);
    assert_eq!(group(&rig, |arg| (arg.priority, arg.pad) = (2, 1)), Err(Errno::ACCESS));
    assert_eq!(group(&rig, |arg| arg.pad = 1), BAD);
    assert_eq!(group(&rig, |arg| arg.vm_id = 7), BAD);
    assert_eq!(group(&rig, |arg| arg.compute_core_mask = 2), BAD);
    assert_eq!(group(&rig, |arg| arg.fragment_core_mask = 1), BAD, "fewer cores than are wanted");
    assert_eq!(group(&rig, |arg| arg.tiler_core_mask = 3), BAD);
    assert_eq!(queue(|queue| queue.pad[1] = 1), BAD);
    assert_eq!(queue(|queue| queue.ringbuf_size = 5000), BAD);
    assert_eq!(queue(|queue| queue.ringbuf_size = 2048), BAD);
    assert_eq!(queue(|queue| queue.ringbuf_size = 128 << 10), BAD);
    assert_eq!(queue(|queue| queue.priority = 16), BAD);
    assert_eq!(queue(|queue| (queue.priority, queue.ringbuf_size) = (15, 64 << 10)), Ok(2));

    let destroy = |group_handle, pad| ioctl(&*rig.node, &mut GroupDestroy { group_handle, pad });
    assert_eq!((destroy(1, 1), destroy(3, 0), destroy(1, 0)), (Err(Errno::INVAL), Err(Errno::INVAL), Ok(())));
    assert_eq!(submit(&rig, 1, &[stream(0, &[])]), Err(Errno::INVAL));
    assert_eq!(group(&rig, |_| ()), Ok(1), "the lowest handle that is free");
    for handle in 3..=128 {
        assert_eq!(group(&rig, |_| ()), Ok(handle));
    }
    assert_eq!(group(&rig, |_| ()), Err(Errno::BUSY));
}

#[test]
fn bad_submissions() {
    let rig = Rig::new(HUGE);
    let handle = group(&rig, |_| ()).unwrap();
    let good = stream(2, &[]);
    let bad = Err(Errno::INVAL);
    for (name, submitted) in [
        ("pad", QueueSubmit { pad: 1, ..good }),
        ("no address", QueueSubmit { stream_addr: 0, ..good }),
        ("no size", QueueSubmit { stream_size: 0, ..good }),
        ("address misaligned", QueueSubmit { stream_addr: 32, ..good }),
        ("size misaligned", QueueSubmit { stream_size: 12, ..good }),
        ("flush id", QueueSubmit { latest_flush: 1 << 24, ..good }),
        ("no such queue", QueueSubmit { queue_index: 3, ..good }),
    ] {
        assert_eq!(submit(&rig, handle, &[good, submitted]), bad, "{name}");
    }
    assert_eq!(submit(&rig, handle, &[good]), Ok(()));
    assert_eq!((submit(&rig, 9, &[]), submit(&rig, 9, &[good])), (Ok(()), bad));
    let nothing = Syncobj::create(rig.dyn_node(), false).unwrap();
    assert_eq!(submit(&rig, handle, &[stream(0, &[wait_op(&nothing)])]), bad, "nobody has submitted it");
    let unknown = SyncOp { handle: 99, ..wait_op(&nothing) };
    assert_eq!(submit(&rig, handle, &[stream(0, &[unknown])]), Err(Errno::NOENT));
    let unknown = SyncOp { handle: 99, ..signal_op(&nothing, 1) };
    assert_eq!(submit(&rig, handle, &[stream(0, &[unknown])]), bad);
    assert_eq!((rig.node.counters().jobs, rig.node.counters().submits), (0, 1));
}

#[test]
fn jobs_wait_and_signal_in_order() {
    let rig = Rig::new(HUGE);
    let handle = group(&rig, |_| ()).unwrap();
    let (gate, fence) = (Syncobj::create(rig.dyn_node(), false).unwrap(), SwFence::new());
    gate.import_sync_file(fence.sync_file().unwrap().as_fd(), None).unwrap();
    let out = Syncobj::create(rig.dyn_node(), false).unwrap();
    let first = [wait_op(&gate), signal_op(&out, 1)];
    let after = SyncOp { flags: SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ, ..signal_op(&out, 1) };
    let (second, third) = ([after, signal_op(&out, 2)], [signal_op(&out, 3)]);
    // The second is another queue's, and waits for the first; the third comes behind the first, and is no stream.
    let sync_point = QueueSubmit { stream_size: 0, stream_addr: 0, ..stream(0, &third) };
    assert_eq!(submit(&rig, handle, &[stream(0, &first), stream(1, &second), sync_point]), Ok(()));
    // A queue with nothing before it does not wait.
    let apart = [signal_op(&gate, 0)];
    assert_eq!(submit(&rig, handle | 1 << 16, &[stream(2, &apart)]), Ok(()), "the look-up takes 16 bits");
    assert_eq!((out.last_submitted(), out.last_signaled()), (Ok(3), Ok(0)));
    // A job in the VM's bind queue overtakes.
    let a = rig.bo(HUGE, 5);
    assert_eq!(rig.map(&a, 0, rig.base, PAGE), Ok(()));
    assert_eq!((peek(rig.base), out.last_signaled()), (Some(5), Ok(0)));
    fence.signal();
    assert!(reached(&out, 3));
    assert_eq!(ioctl(&*rig.node, &mut GroupDestroy { group_handle: handle, pad: 0 }), Ok(()));
}

#[test]
fn a_job_that_hangs_costs_the_group() {
    let config = Config { faults: Faults { job: Some(2), ..Faults::default() }, ..Config::default() };
    let rig = Rig::with(HUGE, config);
    let handle = group(&rig, |_| ()).unwrap();
    let out = Syncobj::create(rig.dyn_node(), false).unwrap();
    let state = |pad| {
        let mut arg = GroupGetState { group_handle: handle, pad, ..Default::default() };
        ioctl(&*rig.node, &mut arg).map(|()| (arg.state, arg.fatal_queues, arg.group_handle))
    };
    let points = [[signal_op(&out, 1)], [signal_op(&out, 2)]];
    assert_eq!(submit(&rig, handle, &[stream(1, &points[0])]), Ok(()));
    assert!(reached(&out, 1));
    assert_eq!((state(0), state(1)), (Ok((0, 0, 0)), Err(Errno::INVAL)));
    assert_eq!(submit(&rig, handle, &[stream(1, &points[1])]), Ok(()));
    assert!(reached(&out, 2));
    assert_eq!(state(0), Ok((GROUP_STATE_TIMEDOUT, 0, 0)));
    assert_eq!(submit(&rig, handle, &[stream(0, &[])]), Err(Errno::INVAL));
    assert_eq!(rig.vm.is_usable(), Ok(true));
}

#[test]
fn tiler_heaps() {
    let rig = Rig::new(HUGE);
    let vm_id = rig.vm.id();
    let create = |change: fn(&mut TilerHeapCreate)| {
        let (initial_chunk_count, chunk_size, max_chunks) = (3, 256 << 10, 64);
        let mut arg =
            TilerHeapCreate { vm_id, initial_chunk_count, chunk_size, max_chunks, ..Default::default() };
        change(&mut arg);
        ioctl(&*rig.node, &mut arg)
            .map(|()| (arg.handle, arg.tiler_heap_ctx_gpu_va, arg.first_heap_chunk_gpu_va))
    };
    let destroy = |handle, pad| ioctl(&*rig.node, &mut TilerHeapDestroy { handle, pad });
    let none = Err(Errno::NOENT);
    assert_eq!((destroy(vm_id << 16, 0), destroy(9 << 16, 0)), (none, Err(Errno::INVAL)));
    let bad = Err(Errno::INVAL);
    assert_eq!((create(|arg| arg.vm_id = 9), create(|arg| arg.initial_chunk_count = 0)), (bad, bad));
    assert_eq!((create(|arg| arg.max_chunks = 2), create(|arg| arg.chunk_size += 1)), (bad, bad));
    assert_eq!(
        (create(|arg| arg.chunk_size = 64 << 10), create(|arg| arg.chunk_size = 16 << 20)),
        (bad, bad)
    );
    let all = |arg: &mut TilerHeapCreate| (arg.initial_chunk_count, arg.max_chunks) = (1 << 20, 1 << 20);
    assert_eq!(create(all), Err(Errno::NOMEM));

    let kernel = 1 << 47;
    let (first, context, chunk) = create(|_| ()).unwrap();
    // The first chunk of the list is the last that was made.
    let chunks = context + 8192;
    assert_eq!((first, context, chunk), (vm_id << 16, kernel, chunks + (512 << 10)));
    assert_eq!(create(|_| ()).map(|heap| (heap.0, heap.1)), Ok((vm_id << 16 | 1, kernel + 64)));
    assert_eq!(
        (destroy(first, 1), destroy(first, 0), destroy(first, 0)),
        (Err(Errno::INVAL), Ok(()), Err(Errno::INVAL))
    );
    assert_eq!(create(|_| ()), Ok((first, context, chunk)));
    assert_eq!(rig.dump(), [], "they are the kernel's, not the user's");
}

#[test]
fn the_flush_id_page() {
    let rig = Rig::new(HUGE);
    let map = |prot, offset, len| {
        // SAFETY: a new mapping.
        unsafe { rig.node.map_file(None, len, prot, offset) }
    };
    let at = map(MprotectFlags::READ, USER_FLUSH_ID_MMIO_OFFSET, PAGE).unwrap();
    assert_eq!((peek(at.addr() as u64), poke(at.addr() as u64, 5)), (Some(1), false));
    let bad = Err(Errno::INVAL);
    assert_eq!(map(MprotectFlags::READ | MprotectFlags::WRITE, USER_FLUSH_ID_MMIO_OFFSET, PAGE), bad);
    assert_eq!(map(MprotectFlags::READ, USER_FLUSH_ID_MMIO_OFFSET, 2 * PAGE), bad);
    assert_eq!(map(MprotectFlags::READ, USER_FLUSH_ID_MMIO_OFFSET + PAGE, PAGE), bad);
    // Where a 32-bit process has it.
    let set = |offset| ioctl(&*rig.node, &mut SetUserMmioOffset { offset });
    assert_eq!(map(MprotectFlags::READ, USER_MMIO_OFFSET_32BIT, PAGE), bad);
    assert_eq!((set(1 << 40), set(USER_MMIO_OFFSET_32BIT)), (Err(Errno::INVAL), Ok(())));
    assert!(map(MprotectFlags::READ, USER_MMIO_OFFSET_32BIT, PAGE).is_ok());
    assert_eq!(map(MprotectFlags::READ, USER_FLUSH_ID_MMIO_OFFSET, PAGE), bad);
}

#[test]
fn before_sparse_maps() {
    let node = emulator::Node::mali(Mali { minor: 8, ..Mali::G310 }, Config::default()).unwrap();
    let version = DriverVersion::query(&*node).unwrap();
    assert_eq!((&*version.name, version.major, version.minor), ("panthor", 1, 8));
    let mut info = [GpuInfo::default()];
    let query = |r#type, size, pointer| ioctl(&*node, &mut DevQuery { r#type, size, pointer });
    let at = kmd::uapi::user_address_mut(&mut info);
    assert_eq!(query(DEV_QUERY_GPU_INFO, size_of::<GpuInfo>() as u32, at), Ok(()));
    assert_eq!((info[0].gpu_id >> 16, info[0].shader_present), (0xac74, 1));
    assert_eq!(query(DEV_QUERY_MMU_INFO, 0, 0), Err(Errno::INVAL));
    let vm = ioctl(&*node, &mut VmCreate::default());
    assert_eq!(vm, Ok(()));
    let (sparse, unmap) = (sparse_op(1 << 20, PAGE), unmap_op(1 << 20, PAGE));
    assert_eq!(bind(&*node, 1, 0, &[unmap, sparse]), (Err(Errno::INVAL), 1));
    let node: &dyn Node = &*node;
    assert_eq!(bind(node, 1, 0, &[unmap]), (Ok(()), 1));
}

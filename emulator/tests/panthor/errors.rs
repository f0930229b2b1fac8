//! Bad input gets the errno that the real driver gave for it, and changes nothing.

use emulator::{Config, Faults};
use kmd::uapi::drm::*;
use kmd::uapi::panthor::*;
use kmd::{Errno, GemHandle, Vm};

use crate::rig::*;

const SIZE: u64 = 16 << 20;

/// The table of errors that was recorded on the real panthor.
fn table(rig: &Rig) -> Vec<(&'static str, VmBindOp, Result<(), Errno>)> {
    let (v, uva) = (rig.base, rig.vm.limits().va.end);
    let a = rig.shared_bo(SIZE, 0);
    let h = a.handle();
    core::mem::forget(a);
    let plain = |flags, size| VmBindOp { flags, bo_handle: h.0, va: v, size, ..Default::default() };
    let sparse = |flags, bo_handle| VmBindOp { flags, bo_handle, va: v, size: HUGE, ..Default::default() };
    let sync_only = |size| VmBindOp { flags: VM_BIND_OP_TYPE_SYNC_ONLY, size, ..Default::default() };
    let bad = Err(Errno::INVAL);
    vec![
        ("va misaligned", map_op(h, 0, v + 1, PAGE), bad),
        ("size misaligned", map_op(h, 0, v, PAGE + 1), bad),
        ("offset misaligned", map_op(h, 12, v, PAGE), bad),
        ("size 0 map", map_op(h, 0, v, 0), Ok(())),
        ("bad handle", map_op(GemHandle(9999), 0, v, PAGE), bad),
        ("past BO end", map_op(h, SIZE - PAGE, v, 2 * PAGE), bad),
        ("offset past BO end", map_op(h, SIZE + PAGE, v, PAGE), bad),
        ("offset that wraps", map_op(h, 0u64.wrapping_sub(PAGE), v, 2 * PAGE), bad),
        ("va past user range", map_op(h, 0, uva, PAGE), bad),
        ("va straddles user range", map_op(h, 0, uva - PAGE, 2 * PAGE), bad),
        ("size that wraps", map_op(h, 0, v, 0u64.wrapping_sub(PAGE)), bad),
        ("unmap unmapped", unmap_op(0x30_0000_0000, 1 << 20), Ok(())),
        ("unmap past range", unmap_op(uva, PAGE), bad),
        ("unknown map flag", plain(1 << 5, PAGE), bad),
        ("unknown type", plain(3 << 28, PAGE), bad),
        ("unmap with bo", plain(VM_BIND_OP_TYPE_UNMAP, PAGE), bad),
        ("unmap with a map flag", VmBindOp { flags: VM_BIND_OP_TYPE_UNMAP | 2, ..unmap_op(v, PAGE) }, bad),
        ("unmap with offset", VmBindOp { bo_offset: PAGE, ..unmap_op(v, PAGE) }, bad),
        ("sparse without NOEXEC", sparse(VM_BIND_OP_MAP_SPARSE, 0), bad),
        ("sparse with bo", sparse(VM_BIND_OP_MAP_SPARSE | VM_BIND_OP_MAP_NOEXEC, h.0), bad),
        ("sparse with offset", VmBindOp { bo_offset: PAGE, ..sparse_op(v, HUGE) }, bad),
        ("sync-only on sync (size 0)", sync_only(0), Ok(())),
        ("sync-only on sync (size)", sync_only(PAGE), bad),
        (
            "syncs on sync bind",
            VmBindOp { syncs: ObjArray { stride: 16, count: 1, array: 0 }, ..map_op(h, 0, v, PAGE) },
            bad,
        ),
    ]
}

#[test]
fn the_recorded_error_table() {
    for execute in [true, false] {
        let rig = Rig::with(SIZE, Config { execute, ..Config::default() });
        for (name, op, want) in table(&rig) {
            let (result, count) = bind(&*rig.node, rig.vm.id(), 0, &[op]);
            assert_eq!(result, want, "{name}, execute {execute}");
            assert_eq!(count, u32::from(want.is_ok()), "{name}: ops.count names the operation that failed");
        }
        assert_eq!(rig.dump(), []);
        assert_eq!(rig.vm.is_usable(), Ok(true));
        // Unknown flag bits of the call itself are accepted.
        let op = [unmap_op(rig.base, PAGE)];
        assert_eq!(bind(&*rig.node, rig.vm.id(), 0x80, &op).0, Ok(()));
        assert_eq!(bind(&*rig.node, 77, 0, &op).0, Err(Errno::INVAL));
        assert_eq!(bind(&*rig.node, 77, VM_BIND_ASYNC, &op).0, Err(Errno::INVAL));
        assert_eq!(bind(&*rig.node, 0, 0, &op).0, Err(Errno::INVAL));
        assert_eq!(bind(&*rig.node, rig.vm.id(), 0, &[]).0, Ok(()));
    }
}

#[test]
fn a_failed_operation_leaves_those_before_it() {
    let rig = Rig::new(SIZE);
    let a = rig.bo(SIZE, 100);
    let v = rig.base;
    let ops = [
        map_op(a.handle(), 0, v, PAGE),
        map_op(a.handle(), 0, v + PAGE + 1, PAGE),
        map_op(a.handle(), 0, v + 2 * PAGE, PAGE),
    ];
    assert_eq!(bind(&*rig.node, rig.vm.id(), 0, &ops), (Err(Errno::INVAL), 1));
    assert_eq!(peek(v), Some(100));
    assert_eq!(peek(v + 2 * PAGE), None);
    assert_eq!(rig.dump(), [(0, PAGE, Some((a.handle().0, 0)))]);

    // The asynchronous form takes all or nothing.
    let (result, count) = bind(&*rig.node, rig.vm.id(), VM_BIND_ASYNC, &ops[1..]);
    assert_eq!((result, count), (Err(Errno::INVAL), 2));
    assert_eq!(rig.dump().len(), 1);
    assert_eq!(rig.node.counters().jobs, 0);
}

#[test]
fn vms_and_their_objects() {
    let rig = Rig::new(SIZE);
    let node = &*rig.node;
    let b = rig.bo(SIZE, 0);
    let mut second = VmCreate::default();
    assert_eq!(ioctl(node, &mut second), Ok(()));
    assert_eq!((second.id, second.user_va_range), (2, 1 << 47));
    let op = [map_op(b.handle(), 0, rig.base, PAGE)];
    assert_eq!(bind(node, second.id, 0, &op).0, Err(Errno::INVAL), "exclusive BO in another VM");
    assert_eq!(ioctl(node, &mut VmDestroy { id: second.id, pad: 1 }), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut VmDestroy { id: second.id, pad: 0 }), Ok(()));
    assert_eq!(ioctl(node, &mut VmDestroy { id: second.id, pad: 0 }), Err(Errno::INVAL));
    assert_eq!(bind(node, second.id, 0, &op).0, Err(Errno::INVAL), "bind on a destroyed VM");
    assert_eq!(ioctl(node, &mut VmGetState { vm_id: second.id, state: 0 }), Err(Errno::INVAL));
    assert_eq!(ioctl(node, &mut VmCreate { flags: 1, ..Default::default() }), Err(Errno::INVAL));

    // The lowest free id, at most 32 of them.
    for want in 2..=32 {
        let mut vm = VmCreate::default();
        assert_eq!(ioctl(node, &mut vm), Ok(()));
        assert_eq!(vm.id, want);
    }
    assert_eq!(ioctl(node, &mut VmCreate::default()), Err(Errno::BUSY));
}

#[test]
fn buffer_objects() {
    let rig = Rig::new(HUGE);
    let node = &*rig.node;
    let create = |size, flags, exclusive_vm_id, pad| {
        let mut arg = BoCreate { size, flags, exclusive_vm_id, handle: 0, pad };
        ioctl(node, &mut arg).map(|()| (arg.handle, arg.size))
    };
    assert_eq!(create(0, 0, 0, 0), Err(Errno::INVAL));
    assert_eq!(create(PAGE, 0, 0, 1), Err(Errno::INVAL));
    assert_eq!(create(PAGE, 4, 0, 0), Err(Errno::INVAL));
    assert_eq!(create(PAGE, BO_NO_MMAP | BO_WB_MMAP, 0, 0), Err(Errno::INVAL));
    assert_eq!(create(PAGE, 0, 9, 0), Err(Errno::INVAL));
    assert_eq!(create(u64::MAX, 0, 0, 0), Err(Errno::NOSPC));
    assert_eq!(create(1, BO_NO_MMAP, 0, 0), Ok((1, PAGE)));
    assert_eq!(create(PAGE + 1, BO_WB_MMAP, rig.vm.id(), 0), Ok((2, 2 * PAGE)));

    let offset = |handle, pad| {
        let mut arg = BoMmapOffset { handle, pad, offset: 0 };
        ioctl(node, &mut arg).map(|()| arg.offset)
    };
    assert_eq!(offset(1, 0), Err(Errno::PERM));
    assert_eq!(offset(2, 1), Err(Errno::INVAL));
    assert_eq!(offset(3, 0), Err(Errno::NOENT));
    let at = offset(2, 0).unwrap();
    // SAFETY: refused, or a mapping that is left alone.
    unsafe {
        assert_eq!(kmd::Node::mmap(node, at, 3 * PAGE as usize), Err(Errno::INVAL));
        assert_eq!(kmd::Node::mmap(node, at + PAGE, PAGE as usize), Err(Errno::INVAL));
        assert!(kmd::Node::mmap(node, at, PAGE as usize).is_ok());
    }

    let mut info = BoQueryInfo { handle: 2, extra_flags: 7, create_flags: 0, pad: 7 };
    assert_eq!(ioctl(node, &mut info), Ok(()));
    assert_eq!(info, BoQueryInfo { handle: 2, extra_flags: 0, create_flags: BO_WB_MMAP, pad: 0 });
    assert_eq!(ioctl(node, &mut BoQueryInfo { handle: 3, ..info }), Err(Errno::NOENT));

    let label = |handle, pad, text: &[u8]| {
        ioctl(node, &mut BoSetLabel { handle, pad, label: text.as_ptr().addr() as u64 })
    };
    assert_eq!(label(2, 0, b"a texture\0"), Ok(()));
    assert_eq!(label(2, 1, b"\0"), Err(Errno::INVAL));
    assert_eq!(label(3, 0, b"\0"), Err(Errno::NOENT));
    assert_eq!(label(2, 0, &[b'x'; 5000]), Err(Errno::TOOBIG));

    let sync = |handle, r#type, offset, size| {
        let op = [BoSyncOp { handle, r#type, offset, size }];
        ioctl(node, &mut BoSync { ops: ObjArray::new(&op) })
    };
    assert_eq!(sync(2, BO_SYNC_CPU_CACHE_FLUSH, 0, 2 * PAGE), Ok(()));
    assert_eq!(sync(2, BO_SYNC_CPU_CACHE_FLUSH_AND_INVALIDATE, 0, 2 * PAGE + 1), Err(Errno::INVAL));
    assert_eq!(sync(2, BO_SYNC_CPU_CACHE_FLUSH, u64::MAX, 2), Err(Errno::INVAL));
    assert_eq!(sync(2, 2, 0, PAGE), Err(Errno::INVAL));
    assert_eq!(sync(3, 0, 0, PAGE), Err(Errno::NOENT));
    assert_eq!(ioctl(node, &mut BoSync::default()), Ok(()));

    assert_eq!(ioctl(node, &mut GemClose { handle: 2, pad: 0 }), Ok(()));
    assert_eq!(ioctl(node, &mut GemClose { handle: 2, pad: 0 }), Err(Errno::INVAL));
    assert_eq!(create(PAGE, 0, 0, 0), Ok((2, PAGE)), "the lowest free handle");
}

#[test]
fn device_queries() {
    let rig = Rig::new(HUGE);
    let node = &*rig.node;
    let version = kmd::DriverVersion::query(node).unwrap();
    assert_eq!((&*version.name, version.major, version.minor), ("panthor", 1, 9));
    for (r#type, size) in [
        (DEV_QUERY_GPU_INFO, size_of::<GpuInfo>()),
        (DEV_QUERY_CSIF_INFO, size_of::<CsifInfo>()),
        (DEV_QUERY_TIMESTAMP_INFO, size_of::<TimestampInfo>()),
        (DEV_QUERY_GROUP_PRIORITIES_INFO, size_of::<GroupPrioritiesInfo>()),
        (DEV_QUERY_MMU_INFO, size_of::<MmuInfo>()),
    ] {
        let mut query = DevQuery { r#type, size: 0, pointer: 0 };
        assert_eq!(ioctl(node, &mut query), Ok(()));
        assert_eq!(query.size as usize, size);
        // Longer structures than the kernel's are filled up with zeroes, shorter ones cut, too short ones refused.
        let mut bytes = [0u8; 256];
        let pointer = bytes.as_mut_ptr().addr() as u64;
        assert_eq!(ioctl(node, &mut DevQuery { r#type, size: 256, pointer }), Ok(()));
        assert!(bytes[..size].iter().any(|b| *b != 0) && bytes[size..].iter().all(|b| *b == 0));
        assert_eq!(ioctl(node, &mut DevQuery { r#type, size: 2, pointer }), Err(Errno::INVAL));
    }
    assert_eq!(ioctl(node, &mut DevQuery { r#type: 5, size: 0, pointer: 0 }), Err(Errno::INVAL));

    let mut info = [GpuInfo::default()];
    let pointer = info.as_mut_ptr().addr() as u64;
    let size = core::mem::offset_of!(GpuInfo, core_features) as u32;
    assert_eq!(ioctl(node, &mut DevQuery { r#type: DEV_QUERY_GPU_INFO, size, pointer }), Ok(()));
    assert_eq!((info[0].gpu_id >> 28, mmu_va_bits(info[0].mmu_features)), (10, 48));

    let mut stamps = [TimestampInfo {
        flags: TIMESTAMP_CPU_MONOTONIC | TIMESTAMP_CPU_MONOTONIC_RAW,
        ..Default::default()
    }];
    let pointer = stamps.as_mut_ptr().addr() as u64;
    let mut query =
        DevQuery { r#type: DEV_QUERY_TIMESTAMP_INFO, size: size_of::<TimestampInfo>() as u32, pointer };
    assert_eq!(ioctl(node, &mut query), Err(Errno::INVAL), "two clocks at once");
    stamps[0].flags = TIMESTAMP_CPU_MONOTONIC;
    assert_eq!(ioctl(node, &mut query), Ok(()));
    assert!(stamps[0].cpu_timestamp_sec > 0 && stamps[0].timestamp_frequency == 0);

    let cap = |capability| {
        let mut arg = GetCap { capability, value: 9 };
        ioctl(node, &mut arg).map(|()| arg.value)
    };
    assert_eq!((cap(CAP_SYNCOBJ), cap(CAP_SYNCOBJ_TIMELINE), cap(CAP_PRIME)), (Ok(1), Ok(1), Ok(3)));
    assert_eq!(cap(1), Err(Errno::OPNOTSUPP));
}

#[test]
fn dispatch_by_command_number() {
    let rig = Rig::new(HUGE);
    let raw = |request: u32| {
        let mut arg = [0u64; 32];
        // SAFETY: the buffer is larger than any argument; zeroes are no pointers.
        unsafe { kmd::Node::ioctl(&*rig.node, request, arg.as_mut_ptr().cast()) }
    };
    let command = |nr: u32, size: u32| 3 << 30 | size << 16 | u32::from(b'd') << 8 | nr;
    assert_eq!(raw(command(0x40, 16) & !0xff00 | 0x7800), Err(Errno::NOTTY), "no DRM ioctl");
    assert_eq!(raw(command(0x51, 16)), Err(Errno::INVAL), "beyond the driver's commands");
    assert_eq!(raw(command(0x47, 64)), Err(Errno::INVAL), "GROUP_CREATE is not emulated");
    assert_eq!(raw(command(0xff, 16)), Err(Errno::INVAL));
    assert_eq!(raw(command(0xa7, 16)), Err(Errno::ACCESS), "a display command on a render node");
    // A query of zero bytes still asks for the size, with everything zero-extended; nothing comes back.
    assert_eq!(raw(command(0x40, 0)), Ok(()));
    assert_eq!(raw(command(0x43, 200)), Err(Errno::INVAL), "a longer VM_BIND, of no VM");
}

#[test]
fn strides_of_operations() {
    let rig = Rig::with(HUGE, Config { execute: false, ..Config::default() });
    let a = rig.shared_bo(HUGE, 0);
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Long(VmBindOp, u64);
    let long = |extra| [Long(map_op(a.handle(), 0, rig.base, PAGE), extra); 2];
    let call = |ops: ObjArray| ioctl(&*rig.node, &mut VmBind { vm_id: rig.vm.id(), flags: 0, ops });
    assert_eq!(call(ObjArray::new(&long(0))), Ok(()));
    assert_eq!(call(ObjArray::new(&long(1))), Err(Errno::TOOBIG));
    assert_eq!(call(ObjArray { stride: 40, ..ObjArray::new(&long(0)) }), Err(Errno::INVAL));
    assert_eq!(call(ObjArray { stride: 48, count: 1, array: 0 }), Err(Errno::FAULT));
    assert_eq!(call(ObjArray { stride: 48, count: u32::MAX, array: 1 << 20 }), Err(Errno::NOMEM));
}

#[test]
fn outside_of_windows_nothing_happens() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(HUGE, 7);
    let (v, mine) = (rig.base, Reservation::new(HUGE));
    for va in [mine.start, v - PAGE, v + HUGE] {
        assert_eq!(rig.map(&a, 0, va, PAGE), Err(Errno::INVAL));
        assert_eq!(rig.sparse(va, PAGE), Err(Errno::INVAL));
        assert_eq!(rig.unmap(va, PAGE), Ok(()));
    }
    assert_eq!(rig.map(&a, 0, v + HUGE - PAGE, 2 * PAGE), Err(Errno::INVAL));
    assert_eq!((rig.dump(), rig.node.counters().map_calls), (vec![], 0));
    assert_eq!(rig.node.add_window(v..v + PAGE), Err(Errno::EXIST));

    // A window that is gone keeps its memory, whatever becomes of the mapping.
    assert_eq!(rig.map(&a, 0, v, 2 * PAGE), Ok(()));
    rig.node.remove_window(rig.window.range());
    assert_eq!(rig.map(&a, 0, v, PAGE), Err(Errno::INVAL));
    assert_eq!(rig.unmap(v, HUGE), Ok(()));
    assert_eq!((rig.dump(), peek(v + PAGE)), (vec![], Some(8)));
}

#[test]
fn injected_faults() {
    let faults = |faults| Rig::with(HUGE, Config { faults, ..Config::default() });
    let rig = faults(Faults { op: Some(2), ..Faults::default() });
    let a = rig.bo(HUGE, 0);
    let ops: Vec<_> = (0..3).map(|i| map_op(a.handle(), 0, rig.base + i * PAGE, PAGE)).collect();
    assert_eq!(bind(&*rig.node, rig.vm.id(), 0, &ops), (Err(Errno::NOMEM), 1));
    assert_eq!((rig.dump().len(), rig.vm.is_usable()), (1, Ok(true)));
    assert_eq!(bind(&*rig.node, rig.vm.id(), 0, &ops), (Ok(()), 3), "once");

    // VM, then object.
    let rig = faults(Faults { alloc: Some(2), ..Faults::default() });
    assert_eq!(ioctl(&*rig.node, &mut BoCreate { size: PAGE, ..Default::default() }), Err(Errno::NOMEM));
    assert_eq!(ioctl(&*rig.node, &mut BoCreate { size: PAGE, ..Default::default() }), Ok(()));

    // Version, queries for MMU and GPU, VM_CREATE, BO_CREATE.
    let rig = faults(Faults { ioctl: Some(5), ..Faults::default() });
    assert_eq!(ioctl(&*rig.node, &mut BoCreate { size: PAGE, ..Default::default() }), Err(Errno::NOMEM));
    assert_eq!(rig.node.counters().live_bos, 0);

    // Preparing the second of two queued operations: nothing is queued.
    let rig = faults(Faults { alloc: Some(4), ..Faults::default() });
    let a = rig.bo(HUGE, 0);
    let ops = [map_op(a.handle(), 0, rig.base, PAGE), unmap_op(rig.base, PAGE)];
    assert_eq!(bind(&*rig.node, rig.vm.id(), VM_BIND_ASYNC, &ops).0, Err(Errno::NOMEM));
    assert_eq!((rig.node.counters().jobs, rig.vm.is_usable()), (0, Ok(true)));
}

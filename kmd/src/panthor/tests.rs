use super::*;
use crate::fake::{Fake, Seen};
use crate::syncobj::SyncobjHandle;
use crate::uapi::drm;

const VA_RANGE: u64 = 1 << 47;

/// Answers the version ioctl as driver `name` 1.`minor`.
fn expect_version(fake: &Fake, name: &'static str, minor: i32) {
    fake.expect(move |arg: &mut drm::Version| {
        (arg.version_major, arg.version_minor) = (1, minor);
        assert!(arg.name_len >= name.len());
        let to = core::ptr::with_exposed_provenance_mut::<u8>(arg.name);
        // SAFETY: the caller's buffer has `name_len` bytes.
        unsafe { to.copy_from_nonoverlapping(name.as_ptr(), name.len()) };
        arg.name_len = name.len();
        Ok(())
    });
}

/// Answers the query for the GPU, with addresses of 48 bits.
fn expect_gpu_info(fake: &Fake) {
    fake.expect(|arg: &mut uapi::DevQuery| {
        assert_eq!((arg.r#type, arg.size as usize), (uapi::DEV_QUERY_GPU_INFO, size_of::<uapi::GpuInfo>()));
        let to = core::ptr::with_exposed_provenance_mut::<uapi::GpuInfo>(arg.pointer as usize);
        // SAFETY: the caller's structure, of `size` bytes.
        unsafe { (*to).mmu_features = 40 << 8 | 48 };
        Ok(())
    });
}

/// A VM with id 7 of panthor 1.`minor`, and its node.
fn vm(minor: i32) -> (Arc<Fake>, PanthorVm) {
    let fake = Fake::new();
    expect_version(&fake, "panthor", minor);
    if minor >= MINOR_SPARSE {
        fake.expect(|arg: &mut uapi::DevQuery| {
            assert_eq!((arg.r#type, arg.size), (uapi::DEV_QUERY_MMU_INFO, 8));
            let to = core::ptr::with_exposed_provenance_mut::<u64>(arg.pointer as usize);
            // SAFETY: the caller's structure has `size` bytes.
            unsafe { to.write(1 << 21 | 1 << 14) };
            Ok(())
        });
    }
    expect_gpu_info(&fake);
    fake.expect(|arg: &mut uapi::VmCreate| {
        assert_eq!((arg.flags, arg.user_va_range), (0, 0));
        (arg.id, arg.user_va_range) = (7, VA_RANGE);
        Ok(())
    });
    let vm = PanthorVm::create(fake.clone()).unwrap();
    fake.take();
    (fake, vm)
}

fn map(va: u64) -> BindOp {
    BindOp { va, len: 0x1000, target: BindTarget::Map { bo: GemHandle(3), offset: 0x8000 } }
}

fn binary(handle: u32) -> SyncPoint {
    SyncPoint { syncobj: SyncobjHandle(handle), point: None }
}

fn point(handle: u32, point: u64) -> SyncPoint {
    SyncPoint { syncobj: SyncobjHandle(handle), point: Some(point) }
}

/// The addresses of the operations of each VM_BIND call.
fn addresses(seen: Vec<Seen>) -> Vec<Vec<u64>> {
    let calls = seen.into_iter().map(|seen| match seen {
        Seen::VmBind { ops, .. } => ops.iter().map(|(op, _)| op.va).collect(),
        other => panic!("{other:?}"),
    });
    calls.collect()
}

/// Expects a VM_BIND of `count` operations that fails in the one at `fails_at`.
fn expect_failure(fake: &Fake, count: u32, fails_at: u32, errno: Errno) {
    fake.expect(move |arg: &mut uapi::VmBind| {
        assert_eq!(arg.ops.count, count);
        arg.ops.count = fails_at;
        Err(errno)
    });
}

#[test]
fn limits_come_from_the_driver() {
    let (_, vm) = vm(9);
    let limits = vm.limits();
    assert_eq!((limits.page_size, &limits.va), (1 << 14, &(0..VA_RANGE)));
    assert_eq!((limits.max_ops, limits.null_mapping, vm.id()), (MAX_OPS, true, 7));
    assert_eq!(limits.kernel, Some(VA_RANGE..1 << 48));
}

#[test]
fn the_kernel_keeps_the_end() {
    let fake = Fake::new();
    expect_gpu_info(&fake);
    let most = user_addresses(&*fake).unwrap();
    assert_eq!(most, 0..(1 << 48) - (256 << 20));
    expect_version(&fake, "panthor", 8);
    expect_gpu_info(&fake);
    let vm = PanthorVm::attach(fake, 5, most.clone()).unwrap();
    assert_eq!((&vm.limits().va, vm.limits().kernel.clone()), (&most, Some(most.end..1 << 48)));
}

#[test]
fn older_kernel_has_no_null_mapping() {
    let (fake, vm) = vm(8);
    assert_eq!((vm.limits().page_size, vm.limits().null_mapping), (4096, false));
    let null = BindOp { target: BindTarget::Null, ..map(0) };
    let refused = Refused { applied: 0, errno: Errno::OPNOTSUPP };
    assert_eq!(vm.bind(&[map(0x1000), null]), Err(refused));
    assert_eq!(vm.bind_async(&[map(0x1000), null], &[], &[]), Err(Errno::OPNOTSUPP));
    assert_eq!(fake.take(), []);
}

#[test]
fn other_drivers_are_refused() {
    let fake = Fake::new();
    expect_version(&fake, "panfrost", 9);
    assert_eq!(PanthorVm::create(fake.clone()).err(), Some(Errno::NODEV));
    assert_eq!(fake.take().len(), 1);
}

#[test]
fn bind_speaks_the_uapi() {
    let (fake, vm) = vm(9);
    let null = BindOp { va: 0x2000, len: 0x3000, target: BindTarget::Null };
    let unmap = BindOp { va: 0x9000, len: 0x1000, target: BindTarget::Unmap };
    vm.bind(&[map(0x1000), null, unmap]).unwrap();
    let op = |flags, bo_handle, bo_offset, va, size| {
        let op = uapi::VmBindOp { flags, bo_handle, bo_offset, va, size, syncs: Default::default() };
        (op, vec![])
    };
    let ops = vec![
        op(0x2, 3, 0x8000, 0x1000, 0x1000),
        op(0x2 | 0x8, 0, 0, 0x2000, 0x3000),
        op(0x1000_0000, 0, 0, 0x9000, 0x1000),
    ];
    assert_eq!(fake.take(), [Seen::VmBind { vm_id: 7, flags: 0, ops }]);
}

#[test]
fn nothing_to_bind_is_no_ioctl() {
    let (fake, vm) = vm(9);
    vm.bind(&[]).unwrap();
    vm.bind_async(&[], &[], &[]).unwrap();
    vm.bind_async(&[], &[point(1, 0)], &[]).unwrap();
    assert_eq!(fake.take(), []);
}

#[test]
fn refusal_tells_what_was_applied() {
    let (fake, vm) = vm(9);
    expect_failure(&fake, 3, 1, Errno::INVAL);
    let ops = [map(0x1000), map(0x2000), map(0x3000)];
    assert_eq!(vm.bind(&ops), Err(Refused { applied: 1, errno: Errno::INVAL }));
    // Failed before the first operation: the kernel leaves the count alone.
    expect_failure(&fake, 3, 3, Errno::NOMEM);
    assert_eq!(vm.bind(&ops), Err(Refused { applied: 0, errno: Errno::NOMEM }));
}

#[test]
fn interrupted_bind_goes_on_where_it_stopped() {
    let (fake, vm) = vm(9);
    let ops = [map(0x1000), map(0x2000), map(0x3000), map(0x4000)];
    expect_failure(&fake, 4, 1, Errno::INTR);
    // Interrupted before the first operation.
    expect_failure(&fake, 3, 3, Errno::AGAIN);
    // Started again by the kernel with a count that it had cut.
    fake.expect(|arg: &mut uapi::VmBind| {
        arg.ops.count = 2;
        Ok(())
    });
    vm.bind(&ops).unwrap();
    let all = [
        vec![0x1000, 0x2000, 0x3000, 0x4000],
        vec![0x2000, 0x3000, 0x4000],
        vec![0x2000, 0x3000, 0x4000],
        vec![0x4000],
    ];
    assert_eq!(addresses(fake.take()), all);

    expect_failure(&fake, 4, 2, Errno::INTR);
    expect_failure(&fake, 2, 1, Errno::NOMEM);
    assert_eq!(vm.bind(&ops), Err(Refused { applied: 3, errno: Errno::NOMEM }));
}

#[test]
fn long_synchronous_bind_is_cut() {
    let (fake, vm) = vm(9);
    let ops: Vec<_> = (0..2 * MAX_OPS as u64 + 1).map(|i| map(i * 0x1000)).collect();
    vm.bind(&ops).unwrap();
    let calls = addresses(fake.take());
    assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_OPS, MAX_OPS, 1]);
    assert!(calls.into_iter().flatten().eq(ops.iter().map(|op| op.va)));

    fake.expect(|_: &mut uapi::VmBind| Ok(()));
    expect_failure(&fake, MAX_OPS as u32, 5, Errno::NOMEM);
    assert_eq!(vm.bind(&ops), Err(Refused { applied: MAX_OPS + 5, errno: Errno::NOMEM }));
    // One asynchronous call is all or nothing, so it is never cut.
    fake.take();
    assert_eq!(vm.bind_async(&ops, &[], &[]), Err(Errno::TOOBIG));
    assert_eq!(fake.take(), []);
}

#[test]
fn async_waits_first_and_signals_last() {
    let (fake, vm) = vm(9);
    let sync = |flags, handle, timeline_value| uapi::SyncOp { flags, handle, timeline_value };
    let waits = [binary(1), point(2, 40), point(9, 0)];
    let signals = [binary(3), point(4, 50)];
    let wait_ops = [sync(0, 1, 0), sync(1, 2, 40)];
    let signal_ops = [sync(0x8000_0000, 3, 0), sync(0x8000_0001, 4, 50)];
    let both = [wait_ops, signal_ops].concat();

    let syncs_seen = |ops: &[BindOp]| {
        vm.bind_async(ops, &waits, &signals).unwrap();
        match &fake.take()[..] {
            [Seen::VmBind { vm_id: 7, flags: 1, ops }] => ops.clone(),
            other => panic!("{other:?}"),
        }
    };
    let three = syncs_seen(&[map(0x1000), map(0x2000), map(0x3000)]);
    assert_eq!(three.iter().map(|(op, _)| op.va).collect::<Vec<_>>(), [0x1000, 0x2000, 0x3000]);
    let syncs: Vec<_> = three.into_iter().map(|(_, syncs)| syncs).collect();
    assert_eq!(syncs, [wait_ops.to_vec(), vec![], signal_ops.to_vec()]);

    let one = syncs_seen(&[map(0x1000)]);
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].1, both);

    let none = syncs_seen(&[]);
    let sync_only = uapi::VmBindOp { flags: 0x2000_0000, ..Default::default() };
    assert_eq!(none, [(sync_only, both)]);
}

#[test]
fn async_call_is_repeated_or_refused_whole() {
    let (fake, vm) = vm(9);
    fake.expect(|_: &mut uapi::VmBind| Err(Errno::INTR));
    vm.bind_async(&[map(0x1000), map(0x2000)], &[], &[]).unwrap();
    assert_eq!(addresses(fake.take()), [[0x1000, 0x2000], [0x1000, 0x2000]]);
    fake.expect(|_: &mut uapi::VmBind| Err(Errno::INVAL));
    assert_eq!(vm.bind_async(&[map(0x1000)], &[point(1, 2)], &[]), Err(Errno::INVAL));
    assert_eq!(fake.take().len(), 1);
    // The kernel would replace the whole timeline by one fence.
    assert_eq!(vm.bind_async(&[map(0x1000)], &[], &[point(1, 0)]), Err(Errno::INVAL));
    assert_eq!(fake.take(), []);
}

#[test]
fn bind_allocates_nothing_after_the_first() {
    let (_, vm) = vm(9);
    let (ops, waits) = ([map(0x1000), map(0x2000)], [binary(1)]);
    let arrays = || {
        let scratch = vm.scratch.lock();
        (scratch.ops.as_ptr(), scratch.ops.capacity(), scratch.syncs.as_ptr(), scratch.syncs.capacity())
    };
    vm.bind_async(&ops, &waits, &waits).unwrap();
    let first = arrays();
    for _ in 0..3 {
        vm.bind(&ops).unwrap();
        vm.bind_async(&ops, &waits, &[]).unwrap();
    }
    assert_eq!(arrays(), first);
}

#[test]
fn state_is_asked_for() {
    let (fake, vm) = vm(9);
    for (state, usable) in [(uapi::VM_STATE_USABLE, true), (uapi::VM_STATE_UNUSABLE, false)] {
        fake.expect(move |arg: &mut uapi::VmGetState| {
            assert_eq!(arg.vm_id, 7);
            arg.state = state;
            Ok(())
        });
        assert_eq!(vm.is_usable(), Ok(usable));
    }
    fake.expect(|_: &mut uapi::VmGetState| Err(Errno::INVAL));
    assert_eq!(vm.is_usable(), Err(Errno::INVAL));
}

#[test]
fn only_an_owned_vm_is_destroyed() {
    let (fake, vm) = vm(9);
    drop(vm);
    assert_eq!(fake.take(), [Seen::Other { request: uapi::VmDestroy::REQUEST, words: vec![7, 0] }]);

    expect_version(&fake, "panthor", 8);
    expect_gpu_info(&fake);
    let vm = PanthorVm::attach(fake.clone(), 5, 0x1000..0x9000).unwrap();
    assert_eq!((vm.id(), &vm.limits().va), (5, &(0x1000..0x9000)));
    drop(vm);
    let last = fake.take().pop();
    assert_eq!(last, Some(Seen::Other { request: uapi::VmGetState::REQUEST, words: vec![5, 0] }));

    expect_version(&fake, "panthor", 8);
    expect_gpu_info(&fake);
    fake.expect(|_: &mut uapi::VmGetState| Err(Errno::INVAL));
    assert_eq!(PanthorVm::attach(fake.clone(), 5, 0..1).err(), Some(Errno::INVAL));
}

#[test]
fn buffer_object_is_created_mapped_and_closed() {
    let fake = Fake::new();
    fake.expect(|arg: &mut uapi::BoCreate| {
        assert_eq!((arg.size, arg.flags, arg.exclusive_vm_id), (0x1001, uapi::BO_WB_MMAP, 7));
        (arg.handle, arg.size) = (4, 0x2000);
        Ok(())
    });
    let options = BoOptions { flags: uapi::BO_WB_MMAP, exclusive_vm_id: Some(7) };
    let bo = create_bo(fake.clone(), 0x1001, options).unwrap();
    assert_eq!((bo.handle(), bo.size()), (GemHandle(4), 0x2000));
    fake.take();

    fake.expect(|arg: &mut uapi::BoMmapOffset| {
        assert_eq!(arg.handle, 4);
        arg.offset = 0x1_0000;
        Ok(())
    });
    let mapping = bo.map().unwrap();
    assert_eq!(mapping.len(), 0x2000);
    // SAFETY: the mapping has that many bytes, and nobody else knows it.
    unsafe { mapping.as_ptr().add(0x1fff).write(1) };
    assert_eq!(fake.take()[1], Seen::Other { request: 0, words: vec![0x1_0000, 0x2000] });

    drop(bo);
    assert_eq!(fake.take(), [Seen::Other { request: drm::GemClose::REQUEST, words: vec![4, 0] }]);
    // The mapping holds the object.
    // SAFETY: as above.
    assert_eq!(unsafe { mapping.as_ptr().add(0x1fff).read() }, 1);
}

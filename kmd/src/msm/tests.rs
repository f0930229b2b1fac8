use super::*;
use crate::Request;
use crate::fake::{Fake, Seen};
use crate::syncobj::SyncobjHandle;
use crate::uapi::drm;

const NOW: u32 = 3;
const LATER: u32 = 4;
const DONE: u32 = 9;
const START: u64 = 1 << 32;

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

/// Expects what follows the opt-in: whether it was one, and the limits.
fn expect_setup(fake: &Fake, prr: u64) {
    expect_probe(fake, Errno::NOENT);
    for (param, value) in
        [(uapi::PARAM_VA_START, START), (uapi::PARAM_VA_SIZE, START), (uapi::PARAM_HAS_PRR, prr)]
    {
        fake.expect(move |arg: &mut uapi::GetParam| {
            assert_eq!((arg.0.pipe, arg.0.param, arg.0.len), (uapi::PIPE_3D0, param, 0));
            arg.0.value = value;
            Ok(())
        });
    }
}

fn expect_queue(fake: &Fake, id: u32) {
    fake.expect(move |arg: &mut uapi::SubmitqueueNew| {
        assert_eq!((arg.flags, arg.prio), (uapi::SUBMITQUEUE_VM_BIND, 0));
        arg.id = id;
        Ok(())
    });
}

/// What the first synchronous bind takes.
fn expect_now(fake: &Fake) {
    fake.expect(|arg: &mut drm::SyncobjCreate| {
        arg.handle = DONE;
        Ok(())
    });
    expect_queue(fake, NOW);
}

fn vm(prr: bool) -> (Arc<Fake>, MsmVm) {
    let fake = Fake::new();
    expect_version(&fake, "msm", 13);
    fake.expect(|arg: &mut uapi::SetParam| {
        assert_eq!((arg.0.pipe, arg.0.param, arg.0.value), (uapi::PIPE_3D0, uapi::PARAM_EN_VM_BIND, 1));
        Ok(())
    });
    expect_setup(&fake, u64::from(prr));
    let vm = MsmVm::create(fake.clone()).unwrap();
    fake.take();
    (fake, vm)
}

fn map(va: u64) -> BindOp {
    BindOp { va, len: 0x1000, target: BindTarget::Map { bo: GemHandle(3), offset: 0x8000 } }
}

/// Answers the question whether the VM is usable.
fn expect_probe(fake: &Fake, errno: Errno) {
    fake.expect(move |arg: &mut uapi::VmBind| {
        assert_eq!((arg.queue_id, arg.nr_ops), (NO_QUEUE, 0));
        Err(errno)
    });
}

fn expect_bind(fake: &Fake, count: u32, result: Result<(), Errno>) {
    fake.expect(move |arg: &mut uapi::VmBind| {
        assert_eq!(arg.nr_ops, count);
        result
    });
}

fn expect_wait(fake: &Fake) {
    fake.expect(|_: &mut drm::SyncobjWait| Ok(()));
}

#[test]
fn opts_in_before_anything_creates_the_vm() {
    let (_, vm) = vm(true);
    assert_eq!((&vm.limits().va, vm.limits().max_ops), (&(START..2 * START), 512));
    assert_eq!(vm.limits().kernel, Some(0..START));
    assert!(vm.limits().null_mapping && vm.limits().shares_tables && !vm.limits().remap_in_use);

    let fake = Fake::new();
    expect_version(&fake, "msm", 13);
    fake.expect(|_: &mut uapi::SetParam| Err(Errno::BUSY));
    assert_eq!(MsmVm::create(fake.clone()).err(), Some(Errno::BUSY));
    assert_eq!(fake.take().len(), 2);
}

#[test]
fn other_drivers_are_refused() {
    for (name, minor, errno) in [("panthor", 13, Errno::NODEV), ("msm", 12, Errno::OPNOTSUPP)] {
        let fake = Fake::new();
        expect_version(&fake, name, minor);
        assert_eq!(MsmVm::create(fake.clone()).err(), Some(errno));
        assert_eq!(fake.take().len(), 1);
    }
}

#[test]
fn a_drivers_vm_is_not_opted_in_again() {
    let fake = Fake::new();
    expect_version(&fake, "msm", 14);
    expect_setup(&fake, 1);
    assert!(MsmVm::attach(fake.clone()).is_ok());
    fake.take();
    for errno in [Errno::INVAL, Errno::PIPE] {
        expect_version(&fake, "msm", 13);
        expect_probe(&fake, errno);
        assert_eq!(MsmVm::attach(fake.clone()).err(), Some(errno));
        fake.take();
    }
}

#[test]
fn queues_are_made_when_needed_and_closed() {
    let (fake, vm) = vm(true);
    expect_queue(&fake, LATER);
    expect_bind(&fake, 1, Ok(()));
    vm.bind_async(&[map(0x1000)], &[], &[]).unwrap();
    expect_now(&fake);
    expect_bind(&fake, 1, Ok(()));
    expect_wait(&fake);
    expect_probe(&fake, Errno::NOENT);
    vm.bind(&[map(0x1000)]).unwrap();
    expect_bind(&fake, 1, Ok(()));
    vm.bind_async(&[map(0x1000)], &[], &[]).unwrap();
    fake.take();
    drop(vm);
    let close = |id| Seen::Other { request: uapi::SubmitqueueClose::REQUEST, words: vec![id] };
    let destroy = Seen::Other { request: drm::SyncobjDestroy::REQUEST, words: vec![DONE, 0] };
    assert_eq!(fake.take(), [close(NOW), destroy, close(LATER)]);

    // One that was never used has none to close; and one that cannot be made is asked for again.
    let (fake, vm) = self::vm(true);
    fake.expect(|_: &mut uapi::SubmitqueueNew| Err(Errno::NOMEM));
    assert_eq!(vm.bind_async(&[map(0x1000)], &[], &[]), Err(Errno::NOMEM));
    fake.take();
    drop(vm);
    assert_eq!(fake.take(), []);
}

#[test]
fn bind_speaks_the_uapi() {
    let (fake, vm) = vm(true);
    let null = BindOp { va: 0x2000, len: 0x3000, target: BindTarget::Null };
    let unmap = BindOp { va: 0x9000, len: 0x1000, target: BindTarget::Unmap };
    expect_now(&fake);
    expect_bind(&fake, 3, Ok(()));
    expect_wait(&fake);
    expect_probe(&fake, Errno::NOENT);
    vm.bind(&[map(0x1000), null, unmap]).unwrap();
    let op = |op, handle, obj_offset, iova, range| uapi::VmBindOp {
        op,
        handle,
        obj_offset,
        iova,
        range,
        ..Default::default()
    };
    let ops =
        vec![op(1, 3, 0x8000, 0x1000, 0x1000), op(2, 0, 0, 0x2000, 0x3000), op(0, 0, 0, 0x9000, 0x1000)];
    let signals = vec![uapi::Syncobj { handle: DONE, flags: 0, point: 0 }];
    let bind = Seen::MsmBind { queue_id: NOW, ops, waits: vec![], signals };
    assert_eq!(fake.take()[2], bind);
    assert_eq!(vm.bind(&[]), Ok(()));
    assert_eq!(fake.take(), []);
}

#[test]
fn long_batches_are_cut() {
    let (fake, vm) = vm(true);
    let ops: Vec<_> = (0..1025).map(|i| map(i * 0x1000)).collect();
    expect_now(&fake);
    for count in [512, 512, 1] {
        expect_bind(&fake, count, Ok(()));
    }
    expect_wait(&fake);
    expect_probe(&fake, Errno::NOENT);
    assert_eq!(vm.bind(&ops), Ok(()));
    let bound: Vec<u64> = fake
        .take()
        .into_iter()
        .filter_map(|seen| match seen {
            Seen::MsmBind { ops, .. } => Some(ops),
            _ => None,
        })
        .flatten()
        .map(|op| op.iova)
        .collect();
    assert!(bound.into_iter().eq((0..1025).map(|i| i * 0x1000)));
    assert_eq!(vm.bind_async(&ops[..513], &[], &[]), Err(Errno::TOOBIG));
}

#[test]
fn failures_are_told_as_they_are() {
    let (fake, vm) = vm(true);
    let ops: Vec<_> = (0..600).map(|i| map(i * 0x1000)).collect();
    expect_now(&fake);
    // The second call was refused: the first one's job is waited for.
    expect_bind(&fake, 512, Ok(()));
    expect_bind(&fake, 88, Err(Errno::NOMEM));
    expect_wait(&fake);
    expect_probe(&fake, Errno::NOENT);
    assert_eq!(vm.bind(&ops), Err(Refused { applied: 512, errno: Errno::NOMEM }));
    // It was refused half way: nobody knows what the first one did.
    expect_bind(&fake, 512, Ok(()));
    expect_bind(&fake, 88, Err(Errno::NOMEM));
    expect_wait(&fake);
    expect_probe(&fake, Errno::PIPE);
    assert_eq!(vm.bind(&ops), Err(Refused { applied: 0, errno: Errno::NOMEM }));
    // The first one was refused: there is nothing to wait for.
    expect_bind(&fake, 512, Err(Errno::INVAL));
    expect_probe(&fake, Errno::NOENT);
    assert_eq!(vm.bind(&ops), Err(Refused { applied: 0, errno: Errno::INVAL }));
    // A job failed.
    expect_bind(&fake, 1, Ok(()));
    expect_wait(&fake);
    expect_probe(&fake, Errno::PIPE);
    assert_eq!(vm.bind(&ops[..1]), Err(Refused { applied: 0, errno: Errno::PIPE }));
    expect_probe(&fake, Errno::PIPE);
    assert_eq!(vm.is_usable(), Ok(false));
    expect_probe(&fake, Errno::NXIO);
    assert_eq!(vm.is_usable(), Err(Errno::NXIO));
    fake.take();
}

#[test]
fn without_prr_there_is_no_null_mapping() {
    let (fake, vm) = vm(false);
    let null = BindOp { target: BindTarget::Null, ..map(0) };
    assert_eq!(vm.bind(&[null]), Err(Refused { applied: 0, errno: Errno::OPNOTSUPP }));
    assert_eq!(vm.bind_async(&[null], &[], &[]), Err(Errno::OPNOTSUPP));
    assert_eq!(fake.take(), []);
}

#[test]
fn asynchronous_calls_take_their_own_queue_and_syncobjs() {
    let (fake, vm) = vm(true);
    let point = |handle, point| SyncPoint { syncobj: SyncobjHandle(handle), point };
    let (waits, signals) = ([point(1, None), point(2, Some(0)), point(2, Some(7))], [point(5, Some(3))]);
    expect_queue(&fake, LATER);
    vm.bind_async(&[map(0x1000)], &waits, &signals).unwrap();
    vm.bind_async(&[], &waits, &[]).unwrap();
    let raw = |handle, point| uapi::Syncobj { handle, flags: 0, point };
    let waits = vec![raw(1, 0), raw(2, 7)];
    let bind = |ops, signals| Seen::MsmBind { queue_id: LATER, ops, waits: waits.clone(), signals };
    let seen = fake.take();
    assert_eq!(seen[1..], [bind(vec![vm_bind_op(&map(0x1000))], vec![raw(5, 3)]), bind(vec![], vec![])]);
    vm.bind_async(&[], &[point(2, Some(0))], &[]).unwrap();
    assert_eq!(vm.bind_async(&[], &[], &[point(2, Some(0))]), Err(Errno::INVAL));
    assert_eq!(fake.take(), []);
}

#[test]
fn buffer_object_is_created_mapped_and_closed() {
    let fake = Fake::new();
    for (size, flags) in [
        (0x2000, uapi::BO_WC | uapi::BO_NO_SHARE),
        (0x1000, uapi::BO_CACHED_COHERENT | uapi::BO_GPU_READONLY),
    ] {
        fake.expect(move |arg: &mut uapi::GemNew| {
            assert_eq!((arg.size, arg.flags), (size, flags));
            arg.handle = 4;
            Ok(())
        });
    }
    let bo = create_bo(fake.clone(), 0x1001, BoOptions { flags: 0, private: true }).unwrap();
    assert_eq!((bo.handle(), bo.size()), (GemHandle(4), 0x2000));
    let flags = uapi::BO_CACHED_COHERENT | uapi::BO_GPU_READONLY;
    core::mem::forget(create_bo(fake.clone(), 0x1000, BoOptions { flags, private: false }).unwrap());
    assert_eq!(create_bo(fake.clone(), u64::MAX, BoOptions::default()).err(), Some(Errno::INVAL));
    fake.take();

    fake.expect(|arg: &mut uapi::GemInfo| {
        assert_eq!((arg.handle, arg.info, arg.len), (4, uapi::INFO_GET_OFFSET, 0));
        arg.value = 0x1_0000;
        Ok(())
    });
    let mapping = bo.map().unwrap();
    assert_eq!(mapping.len(), 0x2000);
    assert_eq!(fake.take()[1], Seen::Other { request: 0, words: vec![0x1_0000, 0x2000] });
    drop(bo);
    assert_eq!(fake.take(), [Seen::Other { request: drm::GemClose::REQUEST, words: vec![4, 0] }]);
}

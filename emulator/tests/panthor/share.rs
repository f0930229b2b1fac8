//! PRIME: objects that several handles, files and devices know.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use emulator::Config;
use kmd::panthor::{BoOptions, PanthorVm, create_bo, mmap_offset};
use kmd::uapi::drm::*;
use kmd::uapi::panthor::*;
use kmd::{BindOp, BindTarget, BufferObject, Errno, Node, Vm};

use crate::rig::*;

#[test]
fn an_object_has_one_handle_in_a_file() {
    let rig = Rig::new(HUGE);
    let a = rig.shared_bo(2 * PAGE, 10);
    let fd = a.export().unwrap();
    let same = kmd::BorrowedObject::import(rig.dyn_node(), fd.as_fd(), mmap_offset).unwrap();
    assert_eq!((same.handle(), same.size()), (a.handle(), a.size()));

    let other: Arc<dyn Node> = rig.node.open_again().unwrap();
    let theirs = BufferObject::import(other.clone(), fd.as_fd(), mmap_offset).unwrap();
    let again = kmd::BorrowedObject::import(other.clone(), fd.as_fd(), mmap_offset).unwrap();
    assert_eq!(theirs.handle(), again.handle());
    assert_eq!(rig.node.counters().live_bos, 1);
    let mut info = BoQueryInfo { handle: theirs.handle().0, ..Default::default() };
    assert_eq!((ioctl(&*other, &mut info), info.extra_flags), (Ok(()), 0), "same device: not imported");

    // The last handle goes; the file brings the object back.
    drop((a, theirs));
    assert_eq!(rig.node.counters().live_bos, 0);
    let back = BufferObject::import(rig.dyn_node(), fd.as_fd(), mmap_offset).unwrap();
    assert_eq!(rig.map(&back, PAGE, rig.base, PAGE), Ok(()));
    assert_eq!(peek(rig.base), Some(11));
}

#[test]
fn files_cannot_map_what_they_have_no_handle_of() {
    let rig = Rig::new(HUGE);
    let a = rig.shared_bo(PAGE, 0);
    let offset = mmap_offset(&*rig.node, a.handle()).unwrap();
    let other = rig.node.open_again().unwrap();
    // SAFETY: refused.
    assert_eq!(unsafe { other.mmap(offset, PAGE as usize) }, Err(Errno::ACCESS));
    let vm = PanthorVm::create(other).unwrap();
    let target = BindTarget::Map { bo: a.handle(), offset: 0 };
    assert!(vm.bind(&[BindOp { va: rig.base, len: PAGE, target }]).is_err());
    // VM ids are per file too.
    assert_eq!(vm.id(), rig.vm.id());
}

#[test]
fn another_device_imports() {
    let rig = Rig::new(HUGE);
    let a = rig.shared_bo(2 * PAGE, 20);
    let fd = a.export().unwrap();
    let node = emulator::Node::panthor(Config::default()).unwrap();
    let theirs = BufferObject::import(node.clone(), fd.as_fd(), mmap_offset).unwrap();
    let mut info = BoQueryInfo { handle: theirs.handle().0, create_flags: 9, ..Default::default() };
    assert_eq!((ioctl(&*node, &mut info), info.extra_flags, info.create_flags), (Ok(()), BO_IS_IMPORTED, 0));
    let op = [BoSyncOp { handle: theirs.handle().0, size: PAGE, ..Default::default() }];
    assert_eq!(ioctl(&*node, &mut BoSync { ops: ObjArray::new(&op) }), Err(Errno::INVAL));
    // Exporting it again gives the file it came from.
    let back =
        kmd::BorrowedObject::import(rig.dyn_node(), theirs.export().unwrap().as_fd(), mmap_offset).unwrap();
    assert_eq!(back.handle(), a.handle());
    let cpu = theirs.map().unwrap();
    assert_eq!(peek(cpu.as_ptr().addr() as u64 + PAGE), Some(21));
}

#[test]
fn what_cannot_be_shared() {
    let rig = Rig::new(HUGE);
    let node = &*rig.node;
    let (exclusive, shared) = (rig.bo(PAGE, 0), rig.shared_bo(PAGE, 0));
    assert_eq!(exclusive.export().err(), Some(Errno::INVAL));
    let export = |handle, flags| {
        let mut arg = PrimeHandleToFd(PrimeHandle { handle, flags, fd: -1 });
        ioctl(node, &mut arg).map(|()| arg.0.fd)
    };
    assert_eq!(export(99, 0), Err(Errno::NOENT));
    assert_eq!(export(shared.handle().0, 1), Err(Errno::INVAL));
    let import = |fd| ioctl(node, &mut PrimeFdToHandle(PrimeHandle { handle: 0, flags: 0, fd }));
    assert_eq!(import(-1), Err(Errno::BADF));
    assert_eq!(import(987_654), Err(Errno::BADF));
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(import(file.as_raw_fd()), Err(Errno::INVAL));

    // Without DRM_RDWR the file cannot be mapped writable.
    let fd = export(shared.handle().0, CLOEXEC).unwrap();
    // SAFETY: made for us just now.
    let fd = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
    assert_eq!(flags & rustix::fs::OFlags::RWMODE, rustix::fs::OFlags::RDONLY);
    assert_eq!(import(fd.as_raw_fd()), Ok(()));
}

#[test]
fn a_cpu_mapping_outlives_its_object() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(PAGE, 31);
    let cpu = a.map().unwrap();
    drop(a);
    let options = BoOptions { flags: 0, exclusive_vm_id: Some(rig.vm.id()) };
    let next = create_bo(rig.dyn_node(), PAGE, options).unwrap();
    fill(&next, 99);
    assert_eq!(peek(cpu.as_ptr().addr() as u64), Some(31), "the memory is nobody else's yet");
}

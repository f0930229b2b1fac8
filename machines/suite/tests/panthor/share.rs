//! Objects of one VM, exported objects, handles that alias.

use kmd::bo::{BorrowedObject, BufferObject};
use kmd::panthor::{BoOptions, PanthorVm, create_bo, mmap_offset};
use kmd::uapi::drm::GemClose;
use kmd::uapi::panthor::*;
use kmd::{Errno, Vm};
use rustix::fd::AsFd;

use crate::rig::*;

#[test]
fn an_exclusive_object_stays_in_its_vm() {
    let rig = Rig::new();
    let (bo, other) = (rig.private_bo(PAGE), PanthorVm::create(rig.node.clone()).unwrap());
    assert_eq!(other.bind(&[map(0, PAGE, bo.handle(), 0)]).unwrap_err().errno, Errno::INVAL);
    assert_eq!(bo.export().err(), Some(Errno::INVAL));
    rig.map(&bo, 0, 0, PAGE).unwrap();
    let options = BoOptions { flags: 0, exclusive_vm_id: Some(99) };
    assert_eq!(create_bo(rig.node.clone(), PAGE, options).err(), Some(Errno::INVAL), "no such VM");
}

#[test]
fn an_exported_object_comes_back_under_its_handle() {
    let rig = Rig::new();
    let bo = rig.bo(PAGE);
    let file = bo.export().unwrap();
    let again = BorrowedObject::import(rig.node.clone(), file.as_fd(), mmap_offset).unwrap();
    assert_eq!((again.handle(), again.size()), (bo.handle(), PAGE));
    rig.map(&bo, 0, 0, PAGE).unwrap();
    drop(bo);
    assert_eq!(
        rig.vm.bind(&[map(PAGE, PAGE, again.handle(), 0)]).unwrap_err().errno,
        Errno::INVAL,
        "one close closes it for everybody"
    );
    let back = BorrowedObject::import(rig.node.clone(), file.as_fd(), mmap_offset).unwrap();
    rig.vm.bind(&[map(PAGE, PAGE, back.handle(), 0)]).unwrap();
    let objects: Vec<_> = rig.dump().iter().map(|(.., object)| object.map(|(handle, _)| handle)).collect();
    assert_eq!(objects[0], objects[1], "the same object all the time");
}

#[test]
fn another_file_maps_the_same_memory() {
    let (rig, node) = (Rig::new(), open());
    let bo = rig.bo(2 * PAGE);
    let file = bo.export().unwrap();
    let theirs = BufferObject::import(node.clone(), file.as_fd(), mmap_offset).unwrap();
    let vm = PanthorVm::create(node).unwrap();
    vm.bind(&[map(0, 2 * PAGE, theirs.handle(), 0)]).unwrap();
    rig.map(&bo, 0, 0, 2 * PAGE).unwrap();
    let (ours, theirs) = (bo.map().unwrap(), theirs.map().unwrap());
    // SAFETY: both are two pages, and nobody else uses them.
    unsafe {
        ours.as_ptr().add(PAGE as usize).cast::<u64>().write_volatile(0x1234);
        assert_eq!(theirs.as_ptr().add(PAGE as usize).cast::<u64>().read_volatile(), 0x1234);
    }
}

#[test]
fn objects_and_what_is_said_of_them() {
    let node = open();
    let create = |size, flags, pad| {
        let mut arg = BoCreate { size, flags, pad, ..Default::default() };
        ioctl(&*node, &mut arg).map(|()| (arg.handle, arg.size))
    };
    assert_eq!(create(1, 0, 0), Ok((1, PAGE)), "whole pages");
    assert_eq!(create(PAGE, BO_NO_MMAP, 0), Ok((2, PAGE)));
    assert_eq!(create(PAGE, BO_WB_MMAP, 0), Ok((3, PAGE)));
    assert_eq!(create(0, 0, 0), Err(Errno::INVAL));
    assert_eq!(create(PAGE, 4, 0), Err(Errno::INVAL));
    assert_eq!(create(PAGE, BO_NO_MMAP | BO_WB_MMAP, 0), Err(Errno::INVAL));
    assert_eq!(create(PAGE, 0, 1), Err(Errno::INVAL));

    let offset = |handle, pad| ioctl(&*node, &mut BoMmapOffset { handle, pad, offset: 0 });
    assert_eq!(offset(1, 0), Ok(()));
    assert_eq!(offset(1, 1), Err(Errno::INVAL));
    assert_eq!(offset(2, 0), Err(Errno::PERM));
    assert_eq!(offset(9, 0), Err(Errno::NOENT));

    let mut info = BoQueryInfo { handle: 3, extra_flags: 7, create_flags: 0, pad: 7 };
    assert_eq!(ioctl(&*node, &mut info), Ok(()));
    assert_eq!(info, BoQueryInfo { handle: 3, extra_flags: 0, create_flags: BO_WB_MMAP, pad: 0 });
    assert_eq!(ioctl(&*node, &mut BoQueryInfo { handle: 9, ..info }), Err(Errno::NOENT));

    assert_eq!(ioctl(&*node, &mut GemClose { handle: 2, pad: 0 }), Ok(()));
    assert_eq!(ioctl(&*node, &mut GemClose { handle: 2, pad: 0 }), Err(Errno::INVAL));
    assert_eq!(create(PAGE, 0, 0), Ok((2, PAGE)), "the lowest free handle");
}

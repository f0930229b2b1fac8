//! Objects of one VM, exported objects, handles that alias.

use kmd::bo::{BorrowedObject, BufferObject};
use kmd::msm::{BoOptions, MsmVm, create_bo, mmap_offset};
use kmd::uapi::drm::GemClose;
use kmd::uapi::msm::*;
use kmd::{Errno, Vm};
use rustix::fd::AsFd;

use crate::rig::*;

#[test]
fn an_object_of_one_vm_stays_in_it() {
    let rig = Rig::new();
    let bo = rig.private_bo(PAGE);
    assert_eq!(bo.export().err(), Some(Errno::PERM));
    rig.map(&bo, 0, 0, PAGE).unwrap();
    assert_eq!(rig.dump(), [(0, PAGE, Some((bo.handle().0, 0)))]);
}

#[test]
fn an_exported_object_comes_back_under_its_handle() {
    let rig = Rig::new();
    let bo = rig.bo(PAGE);
    let file = bo.export().unwrap();
    let again = BorrowedObject::import(rig.node.clone(), file.as_fd(), mmap_offset).unwrap();
    assert_eq!((again.handle(), again.size()), (bo.handle(), PAGE));
    rig.map(&bo, 0, 0, PAGE).unwrap();
    // One close closes it for everybody.
    let handle = bo.handle().0;
    drop(bo);
    assert_eq!(ioctl(&*rig.node, &mut GemClose { handle, pad: 0 }), Err(Errno::INVAL));
    let back = BufferObject::import(rig.node.clone(), file.as_fd(), mmap_offset).unwrap();
    rig.map(&back, 0, PAGE, PAGE).unwrap();
    let objects: Vec<_> = rig.dump().iter().map(|(.., object)| *object).collect();
    assert_eq!(objects, [Some((handle, 0)); 2], "the same memory all the time");
}

#[test]
fn another_file_maps_the_same_memory() {
    let (one, two) = (Rig::new(), Rig::new());
    let bo = one.bo(2 * PAGE);
    let theirs = BufferObject::import(two.node.clone(), bo.export().unwrap().as_fd(), mmap_offset).unwrap();
    one.map(&bo, 0, 0, 2 * PAGE).unwrap();
    two.map(&theirs, 0, PAGE, 2 * PAGE).unwrap();
    let object = Some((bo.handle().0, 0));
    assert_eq!((one.dump(), two.dump()), (vec![(0, 2 * PAGE, object)], vec![(PAGE, 2 * PAGE, object)]));
    one.unmap(0, 2 * PAGE).unwrap();
    assert_eq!((one.dump().len(), two.dump().len()), (0, 1), "one VM's mappings are not another's");
}

#[test]
fn a_driver_and_we_on_one_vm() {
    let rig = Rig::new();
    let bo = rig.bo(PAGE);
    let ours = MsmVm::attach(rig.node.clone()).unwrap();
    assert_eq!(ours.limits(), rig.vm.limits());
    ours.bind(&[map(0, PAGE, &bo, 0)]).unwrap();
    rig.unmap(0, PAGE).unwrap();
    ours.bind(&[null(0, PAGE)]).unwrap();
    drop(ours);
    assert_eq!(rig.dump(), [(0, PAGE, None)]);
}

#[test]
fn objects_and_what_is_said_of_them() {
    let node = open();
    let _vm = MsmVm::create(node.clone()).unwrap();
    let new = |size, flags| {
        let mut arg = GemNew { size, flags, handle: 0 };
        ioctl(&*node, &mut arg).map(|()| arg.handle)
    };
    let bad = Err(Errno::INVAL);
    for flags in [0, BO_UNCACHED, BO_CACHED | BO_WC, BO_CACHED_COHERENT, BO_WC | 8] {
        assert_eq!(new(PAGE, flags), bad, "{flags:#x}");
    }
    assert_eq!((new(0, BO_WC), new(1, BO_WC), new(PAGE, BO_CACHED | BO_NO_SHARE)), (bad, Ok(1), Ok(2)));
    let info = |info, value, len| {
        let mut arg = GemInfo { handle: 1, info, value, len, pad: 0 };
        ioctl(&*node, &mut arg).map(|()| (arg.value, arg.len))
    };
    assert_eq!(info(INFO_GET_FLAGS, 0, 0), Ok((BO_WC.into(), 0)));
    assert_eq!((info(INFO_GET_FLAGS, 0, 1), info(8, 0, 0)), (Err(Errno::INVAL), Err(Errno::INVAL)));
    // Addresses are user space's affair.
    assert_eq!(info(INFO_GET_IOVA, 0, 0), Err(Errno::INVAL));
    assert_eq!(info(INFO_SET_IOVA, BASE, 0), Err(Errno::INVAL));
    assert_eq!(ioctl(&*node, &mut GemInfo { handle: 7, ..Default::default() }), Err(Errno::NOENT));
    assert_eq!(ioctl(&*node, &mut GemClose { handle: 2, pad: 0 }), Ok(()));
    assert_eq!(new(PAGE, BO_WC), Ok(2), "the lowest free handle");
    let options = BoOptions { flags: BO_CACHED, private: true };
    assert_eq!(create_bo(node.clone(), 1, options).map(|bo| bo.size()), Ok(PAGE));
}

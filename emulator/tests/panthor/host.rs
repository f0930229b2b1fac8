//! Buffer objects over memory that the process has mapped already.

use core::ffi::c_void;

use emulator::ImportError;
use kmd::panthor::mmap_offset;
use kmd::{BindOp, BindTarget, BufferObject, Errno, Vm};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::rig::*;

fn import(rig: &Rig, at: u64, len: u64) -> Result<BufferObject, ImportError> {
    // SAFETY: the tests import memory of their own, which stays as it is meanwhile.
    let handle = unsafe { rig.node.import_host(at as *mut u8, len)? };
    Ok(BufferObject::from_handle(rig.dyn_node(), handle, len, mmap_offset))
}

fn shows_through(rig: &Rig, at: u64, len: u64) {
    let bo = import(rig, at, len).unwrap();
    assert_eq!(rig.map(&bo, 2 * PAGE, rig.base, len - 2 * PAGE), Ok(()));
    assert!(poke(at + 3 * PAGE, 4711));
    assert_eq!(peek(rig.base + PAGE), Some(4711));
    assert!(poke(rig.base, 42));
    assert_eq!(peek(at + 2 * PAGE), Some(42));
    // The object keeps the memory when the mapping that it was imported from goes.
    // SAFETY: the test's own memory.
    unsafe { munmap(at as *mut c_void, len as usize).unwrap() };
    let cpu = bo.map().unwrap();
    assert_eq!(peek(cpu.as_ptr().addr() as u64 + 2 * PAGE), Some(42));
    drop((bo, cpu));
    assert_eq!(peek(rig.base), Some(42));
    assert_eq!(rig.unmap(rig.base, HUGE), Ok(()));
    assert_eq!(rig.node.counters().live_bos, 0);
}

#[test]
fn with_a_descriptor_and_without() {
    let rig = Rig::new(HUGE);
    let (fd, at) = shared_memory(16 * PAGE);
    shows_through(&rig, at, 16 * PAGE);
    drop(fd);
    let (fd, at) = shared_memory(16 * PAGE);
    drop(fd);
    shows_through(&rig, at, 16 * PAGE);
    // As an anonymous shared mapping.
    // SAFETY: a new mapping.
    let at = unsafe {
        mmap_anonymous(
            core::ptr::null_mut(),
            16 * PAGE as usize,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
        )
    };
    shows_through(&rig, at.unwrap().addr() as u64, 16 * PAGE);
}

#[test]
fn read_only_without_a_descriptor() {
    let rig = Rig::new(HUGE);
    let (fd, at) = shared_memory(4 * PAGE);
    drop(fd);
    let bo = import(&rig, at, 4 * PAGE).unwrap();
    let mut op = map_op(bo.handle(), PAGE, rig.base, PAGE);
    op.flags |= kmd::uapi::panthor::VM_BIND_OP_MAP_READONLY;
    assert_eq!(bind(&*rig.node, rig.vm.id(), 0, &[op]).0, Ok(()));
    assert_eq!((peek(rig.base), poke(rig.base, 1), poke(at + PAGE, 5)), (Some(0), false, true));
    assert_eq!(peek(rig.base), Some(5));
}

#[test]
fn private_memory_is_refused() {
    let rig = Rig::new(HUGE);
    let heap = vec![0u8; 8 << 20];
    let at = (heap.as_ptr().addr() as u64).next_multiple_of(PAGE);
    assert!(matches!(import(&rig, at, HUGE), Err(ImportError::Private { .. })));
    assert!(matches!(import(&rig, at + 8, HUGE), Err(ImportError::Range { .. })));
    assert!(matches!(import(&rig, rig.base, 1 << 40), Err(ImportError::Private { .. })));
    assert_eq!(rig.node.counters().live_bos, 0);
}

#[test]
fn objects_of_the_device_are_not_imported_twice() {
    let rig = Rig::new(HUGE);
    let a = rig.bo(PAGE, 0);
    let cpu = a.map().unwrap();
    let at = cpu.as_ptr().addr() as u64;
    assert_eq!(import(&rig, at, PAGE).err(), Some(ImportError::OwnObject { addr: at }));
    // An exportable one is another view of the same memory.
    let shared = rig.shared_bo(PAGE, 9);
    let cpu = shared.map().unwrap();
    let view = import(&rig, cpu.as_ptr().addr() as u64, PAGE).unwrap();
    assert_eq!(rig.map(&view, 0, rig.base, PAGE), Ok(()));
    assert_eq!(peek(rig.base), Some(9));
}

#[test]
fn lengths_are_checked_against_the_object() {
    let rig = Rig::new(HUGE);
    let (_fd, at) = shared_memory(4 * PAGE);
    // Not a whole number of pages: the object is.
    let bo = import(&rig, at, 2 * PAGE + 100).unwrap();
    let map = |len| {
        let target = BindTarget::Map { bo: bo.handle(), offset: 0 };
        rig.vm.bind(&[BindOp { va: rig.base, len, target }]).map_err(|refused| refused.errno)
    };
    assert_eq!((map(3 * PAGE), map(4 * PAGE)), (Ok(()), Err(Errno::INVAL)));
    assert!(bo.export().is_ok());
}

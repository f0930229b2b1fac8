//! What is mapped, and what a CPU reads there.

use emulator::{Config, Gpu, Unbound};
use kmd::msm::{BoOptions, MsmVm, create_bo, get_param, mmap_offset};
use kmd::uapi::msm::*;
use kmd::{BindOp, BindTarget, BorrowedObject, BufferObject, Errno, Vm};
use std::os::fd::AsFd;

use crate::rig::*;

const LEN: u64 = 8 << 20;

#[test]
fn maps_nulls_and_unmaps() {
    let rig = Rig::new(LEN);
    let (a, v) = (rig.bo(LEN, 100), rig.base);
    assert_eq!(rig.map(&a, 3 * PAGE, v, 8 * PAGE), Ok(()));
    assert_eq!((peek(v), peek(v + 7 * PAGE), peek(v + 8 * PAGE)), (Some(103), Some(110), None));
    assert_eq!(rig.null(v + 2 * PAGE, 2 * PAGE), Ok(()));
    assert_eq!(rig.unmap(v + 5 * PAGE, PAGE), Ok(()));
    assert_eq!((peek(v + 2 * PAGE), peek(v + 5 * PAGE)), (Some(0), None));
    let h = a.handle().0;
    let expected = [
        (0, 2 * PAGE, Some((h, 3 * PAGE))),
        (2 * PAGE, 2 * PAGE, None),
        (4 * PAGE, PAGE, Some((h, 7 * PAGE))),
        (6 * PAGE, 2 * PAGE, Some((h, 9 * PAGE))),
    ];
    assert_eq!(rig.dump(), expected);

    // The mappings hold the object, and the VM itself is the file's.
    drop(a);
    assert_eq!((peek(v), rig.node.counters().live_bos), (Some(103), 1));
    assert_eq!(rig.unmap(v, LEN), Ok(()));
    assert_eq!((rig.dump(), rig.node.counters().live_bos, rig.node.counters().table_pages), (vec![], 0, 1));
    assert!(rig.node.mappings(2).is_empty());
}

#[test]
fn null_mappings_can_trap_and_need_prr() {
    let rig = Rig::with(LEN, Gpu::A750, Config { unbound: Unbound::Trap, ..Config::default() });
    assert_eq!(rig.null(rig.base, LEN), Ok(()));
    assert_eq!((peek(rig.base), rig.dump()), (None, vec![(0, LEN, None)]));

    let rig = Rig::with(LEN, Gpu { prr: false, ..Gpu::A750 }, Config::default());
    assert!(!rig.vm.limits().null_mapping);
    assert_eq!(rig.null(rig.base, LEN), Err(Errno::OPNOTSUPP));
    assert_eq!(Call::new(rig.queue(), &[null_op(rig.base, PAGE)]).make(&*rig.node), Err(Errno::INVAL));
}

#[test]
fn only_pages_are_mapped() {
    let rig = Rig::new(LEN);
    let a = rig.bo(HUGE, 0);
    assert_eq!(rig.map(&a, 0, rig.base, HUGE), Ok(()));
    // A root, a table of each further level, and an entry a page where one would do.
    let counters = rig.node.counters();
    assert_eq!((counters.table_pages, counters.preallocated_pages), (4, 3));
    assert!(counters.entries_written >= 512);
}

#[test]
fn an_identical_map_touches_nothing() {
    let rig = Rig::new(LEN);
    let (a, v) = (rig.bo(LEN, 0), rig.base);
    assert_eq!(rig.map(&a, PAGE, v, 8 * PAGE), Ok(()));
    let before = rig.node.counters();
    assert_eq!(rig.map(&a, PAGE, v, 8 * PAGE), Ok(()));
    let after = rig.node.counters();
    assert_eq!((after.ops - before.ops, after.jobs - before.jobs), (1, 1));
    assert_eq!((after.flushes, after.entries_written), (before.flushes, before.entries_written));
    // It has to be the same mapping, not a part of one; and null mappings are not kept.
    assert_eq!(rig.map(&a, PAGE, v, 4 * PAGE), Ok(()));
    assert_eq!(rig.node.counters().flushes, before.flushes + 1);
    assert_eq!((rig.null(v, PAGE), rig.null(v, PAGE)), (Ok(()), Ok(())));
    assert_eq!(rig.node.counters().flushes, before.flushes + 3);
}

#[test]
fn long_binds_are_several_jobs() {
    let rig = Rig::new(LEN);
    let a = rig.bo(LEN, 0);
    let before = rig.node.counters();
    let op = |i: u64| BindOp {
        va: rig.base + i * PAGE,
        len: PAGE,
        target: BindTarget::Map { bo: a.handle(), offset: (1023 - i) * PAGE },
    };
    let ops: Vec<_> = (0..1024).map(op).collect();
    assert_eq!(rig.vm.bind(&ops), Ok(()));
    let after = rig.node.counters();
    assert_eq!((after.ops - before.ops, after.jobs - before.jobs), (1024, 2));
    // Sorted operations share tables: 2 MiB in each call, one of each level.
    assert_eq!(after.preallocated_pages - before.preallocated_pages, 6);
    assert_eq!((peek(rig.base), peek(rig.base + 1023 * PAGE)), (Some(1023), Some(0)));
}

#[test]
fn private_objects_stay_at_home() {
    let rig = Rig::new(LEN);
    let (private, shared) = (rig.bo(LEN, 7), rig.shared_bo(LEN, 70));
    assert_eq!(private.export().err(), Some(Errno::PERM));
    let file = shared.export().unwrap();
    // In the same file it is the same handle.
    let again = BorrowedObject::import(rig.dyn_node(), file.as_fd(), mmap_offset).unwrap();
    assert_eq!(again.handle(), shared.handle());

    let other = rig.node.open_again().unwrap();
    let vm = MsmVm::create(other.clone()).unwrap();
    let import = BorrowedObject::import(other.clone(), file.as_fd(), mmap_offset).unwrap();
    let target = BindTarget::Map { bo: import.handle(), offset: PAGE };
    assert_eq!(vm.bind(&[BindOp { va: rig.base, len: PAGE, target }]), Ok(()));
    assert_eq!(peek(rig.base), Some(71));
    assert_eq!((rig.dump().len(), other.mappings(1).len()), (0, 1));
}

#[test]
fn what_the_gpu_only_reads_is_mapped_read_only() {
    let rig = Rig::new(LEN);
    let options = BoOptions { flags: BO_CACHED | BO_GPU_READONLY, private: true };
    let bo = create_bo(rig.dyn_node(), PAGE, options).unwrap();
    fill(&bo, 5);
    assert_eq!(rig.map(&bo, 0, rig.base, PAGE), Ok(()));
    assert_eq!((peek(rig.base), poke(rig.base, 1)), (Some(5), false));
    assert_eq!(rig.map(&rig.bo(PAGE, 6), 0, rig.base, PAGE), Ok(()));
    assert_eq!((peek(rig.base), poke(rig.base, 1)), (Some(6), true));
}

#[test]
fn host_memory_can_be_bound() {
    let rig = Rig::new(LEN);
    let (_fd, at) = shared_memory(4 * PAGE);
    // SAFETY: the test's own memory, which stays mapped.
    let handle = unsafe { rig.node.import_host(at as *mut u8, 4 * PAGE).unwrap() };
    let bo = BufferObject::from_handle(rig.dyn_node(), handle, 4 * PAGE, rig.node.mmap_offset());
    assert_eq!(rig.map(&bo, PAGE, rig.base, PAGE), Ok(()));
    assert!(poke(at + PAGE, 77));
    assert_eq!(peek(rig.base), Some(77));
    fill(&bo, 20);
    assert_eq!(peek(rig.base), Some(21));
}

#[test]
fn gpus_tell_what_they_are() {
    for gpu in Gpu::ALL {
        assert_eq!(Gpu::find(gpu.name), Some(gpu));
        let gpu = Gpu { highest_bank_bit: 13, ubwc_swizzle: 7, ..gpu };
        let node = emulator::Node::msm(gpu, Config::default()).unwrap();
        let param = |param| get_param(&*node, param);
        assert_eq!((param(PARAM_CHIP_ID), param(PARAM_GMEM_SIZE)), (Ok(gpu.chip_id), Ok(gpu.gmem_size)));
        assert_eq!((param(PARAM_HIGHEST_BANK_BIT), param(PARAM_UBWC_SWIZZLE)), (Ok(13), Ok(7)));
        assert_eq!((param(PARAM_VA_START), param(PARAM_VA_SIZE)), (Ok(1 << 32), Ok(gpu.va_size)));
        assert_eq!((param(PARAM_PRIORITIES), param(PARAM_HAS_PRR)), (Ok(gpu.rings * 3), Ok(1)));
        assert_eq!((param(PARAM_EN_VM_BIND), param(0x40)), (Err(Errno::INVAL), Err(Errno::INVAL)));
        let (before, after) = (param(PARAM_TIMESTAMP).unwrap(), param(PARAM_TIMESTAMP).unwrap());
        assert!(before <= after);
    }
    assert_eq!(Gpu::find("g610"), None);
}

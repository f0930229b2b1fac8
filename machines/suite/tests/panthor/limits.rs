//! What the driver says of itself, and how many VMs it gives.

use kmd::panthor::PanthorVm;
use kmd::uapi::panthor::*;
use kmd::uapi::user_address_mut;
use kmd::{DriverVersion, Errno, Vm};

use crate::rig::*;

#[test]
fn version_and_limits() {
    let rig = Rig::new();
    let version = DriverVersion::query(&*rig.node).unwrap();
    assert_eq!((&*version.name, version.major), ("panthor", 1));
    let limits = rig.vm.limits();
    assert_eq!((limits.page_size, limits.null_mapping), (PAGE, version.minor >= 9));
    assert!(limits.va.end >= 1 << 47 && limits.va.start == 0);
    assert_eq!(rig.vm.is_usable(), Ok(true));
}

#[test]
fn the_last_page_is_the_users() {
    let rig = Rig::new();
    let (bo, end) = (rig.bo(PAGE), rig.vm.limits().va.end);
    rig.map(&bo, 0, end - BASE - PAGE, PAGE).unwrap();
    assert_eq!(rig.map(&bo, 0, end - BASE, PAGE).unwrap_err().errno, Errno::INVAL);
}

#[test]
fn user_range_of_a_vm() {
    let node = open();
    let range = |wanted| PanthorVm::create_with(node.clone(), wanted).map(|vm| vm.limits().va.end);
    assert_eq!(range(0), range(1 << 32), "never less than what a CPU can address");
    assert_eq!(range((1 << 47) + PAGE), Ok((1 << 48) - (1 << 46)));
    assert_eq!(range((1 << 48) - (256 << 20)), Ok((1 << 48) - (256 << 20)));
    assert_eq!(range((1 << 48) - (256 << 20) + 1), Err(Errno::INVAL));
    assert_eq!(range(u64::MAX), Err(Errno::INVAL));
    let mut flags = VmCreate { flags: 1, ..Default::default() };
    assert_eq!(ioctl(&*node, &mut flags), Err(Errno::INVAL));
}

#[test]
fn vms_run_out() {
    let node = open();
    let vms: Vec<_> = (0..32).map(|_| PanthorVm::create(node.clone()).unwrap()).collect();
    assert_eq!(vms.iter().map(PanthorVm::id).collect::<Vec<_>>(), (1..=32).collect::<Vec<_>>());
    assert_eq!(PanthorVm::create(node.clone()).err(), Some(Errno::BUSY));
    drop(vms);
    assert_eq!(PanthorVm::create(node).unwrap().id(), 1, "the lowest free id");
}

#[test]
fn attached_vms_live_on() {
    let rig = Rig::new();
    let attached = PanthorVm::attach(rig.node.clone(), rig.vm.id(), rig.vm.limits().va.clone()).unwrap();
    attached.bind(&[null(0, PAGE)]).unwrap();
    drop(attached);
    assert_eq!(rig.dump(), [(0, PAGE, None)]);
    assert_eq!(PanthorVm::attach(rig.node.clone(), 9, 0..PAGE).err(), Some(Errno::INVAL));
    assert_eq!(PanthorVm::attach(open(), rig.vm.id(), 0..PAGE).err(), Some(Errno::INVAL), "another file");
}

#[test]
fn destroyed_vms_refuse() {
    let rig = Rig::new();
    let (node, bo, id) = (rig.node.clone(), rig.bo(PAGE), rig.vm.id());
    let attached = PanthorVm::attach(node.clone(), id, 0..1 << 47).unwrap();
    drop(rig);
    assert_eq!(attached.bind(&[map(0, PAGE, bo.handle(), 0)]).unwrap_err().errno, Errno::INVAL);
    assert_eq!(attached.is_usable(), Err(Errno::INVAL));
    assert_eq!(ioctl(&*node, &mut VmDestroy { id, pad: 0 }), Err(Errno::INVAL));
}

#[test]
fn queries() {
    let node = open();
    for (r#type, size) in [
        (DEV_QUERY_GPU_INFO, size_of::<GpuInfo>()),
        (DEV_QUERY_CSIF_INFO, size_of::<CsifInfo>()),
        (DEV_QUERY_TIMESTAMP_INFO, size_of::<TimestampInfo>()),
        (DEV_QUERY_GROUP_PRIORITIES_INFO, size_of::<GroupPrioritiesInfo>()),
        (DEV_QUERY_MMU_INFO, size_of::<MmuInfo>()),
    ] {
        let mut query = DevQuery { r#type, size: 0, pointer: 0 };
        assert_eq!(ioctl(&*node, &mut query), Ok(()));
        assert_eq!(query.size as usize, size, "query {}", r#type);
    }
    assert_eq!(ioctl(&*node, &mut DevQuery { r#type: 5, size: 0, pointer: 0 }), Err(Errno::INVAL));
    let mut info = [MmuInfo::default()];
    let pointer = user_address_mut(&mut info);
    let mut query = DevQuery { r#type: DEV_QUERY_MMU_INFO, size: size_of::<MmuInfo>() as u32, pointer };
    assert_eq!(ioctl(&*node, &mut query), Ok(()));
    assert_eq!(info[0].page_size_bitmap, PAGE | BLOCK);
}

//! What the driver says of itself.

use kmd::{DriverVersion, Vm};

use crate::rig::*;

#[test]
fn version_and_limits() {
    let rig = Rig::new();
    let version = DriverVersion::query(&*rig.node).unwrap();
    assert_eq!((&*version.name, version.major), ("msm", 1));
    let limits = rig.vm.limits();
    assert_eq!((limits.page_size, limits.null_mapping), (PAGE, true));
    assert_eq!(limits.va, 1 << 32..1 << 48);
    assert_eq!(rig.vm.is_usable(), Ok(true));
}

//! What takes the kernel down, and with it the machine that the tests run in: only when asked for by name.

use kmd::uapi::msm::*;
use kmd::{Errno, Vm};
use tessera_machines_suite::gate::Gate;

use crate::rig::*;

fn map_op(handle: u32, page: u64, pages: u64) -> VmBindOp {
    VmBindOp {
        op: VM_BIND_OP_MAP,
        handle,
        iova: BASE + page * PAGE,
        range: pages * PAGE,
        ..Default::default()
    }
}

/// The handle is in the place of a pointer to the object, and is put as one on the way out (`vm_bind_job_lookup_ops`). Once this passes, [`crate::refusals`] and the scripts may have the case too.
#[test]
#[ignore = "takes the kernel down (7.2.13)"]
fn an_object_that_does_not_exist() {
    let rig = Rig::new();
    let queue = rig.queue();
    assert_eq!(raw_bind(&*rig.node, queue, 0, &[map_op(99, 0, 1)]).map(drop), Err(Errno::INVAL));
}

/// The same with handles that are all valid: those behind an operation that is refused for its range.
#[test]
#[ignore = "takes the kernel down (7.2.13)"]
fn an_object_behind_a_range_that_does_not_fit() {
    let rig = Rig::new();
    let (queue, bo) = (rig.queue(), rig.bo(PAGE));
    let ops = [map_op(bo.handle().0, 0, 2), map_op(bo.handle().0, 4, 1)];
    assert_eq!(raw_bind(&*rig.node, queue, 0, &ops).map(drop), Err(Errno::INVAL));
}

/// The scheduler of the queue goes with the VM, and the fence wakes the queue through what was its memory
/// (`drm_sched_wakeup`): how that ends depends on what is there by then. So scripts release what they hold before they end.
#[test]
#[ignore = "may take the kernel down (7.2.13)"]
fn a_file_that_goes_while_its_queue_waits() {
    let rig = Rig::new();
    let gate = Gate::new().unwrap();
    let held = gate.syncobj(rig.node.clone()).unwrap();
    rig.vm.bind_async(&[null(0, PAGE)], &[held.binary()], &[]).unwrap();
    drop((rig, held));
    // Somebody else gets the memory.
    let _others: Vec<_> = (0..8).map(|_| Rig::new()).collect();
    gate.open().unwrap();
}

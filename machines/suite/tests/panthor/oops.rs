//! What takes the kernel down, and with it the machine that the tests run in: only when asked for by name.

use kmd::Errno;
use kmd::uapi::panthor::*;

use crate::rig::*;

/// `panthor_submit_ctx_add_sync_signal` gives its null pointer to `drm_syncobj_put`. Once this passes, [`crate::queue`] and
/// the scripts may have the case too.
#[test]
#[ignore = "takes the kernel down (7.3.4)"]
fn a_signal_of_no_syncobj() {
    let rig = Rig::new();
    let syncs = [SyncOp { flags: SYNC_OP_SIGNAL, handle: 99, timeline_value: 0 }];
    let op =
        VmBindOp { flags: VM_BIND_OP_TYPE_SYNC_ONLY, syncs: ObjArray::new(&syncs), ..Default::default() };
    assert_eq!(raw_bind(&*rig.node, rig.vm.id(), VM_BIND_ASYNC, &[op]).0, Err(Errno::INVAL));
}

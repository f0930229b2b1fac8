//! How a VM becomes unusable, and what is left of it.

use kmd::uapi::msm::*;
use kmd::{Errno, Refused, Vm};
use tessera_machines_suite::gate::Gate;

use crate::rig::*;

/// How many updates of page tables the kernel keeps for crash dumps: 2 to the power of this. For VMs that are made later.
const LOG_SHIFT: &str = "/sys/module/msm/parameters/vm_log_shift";

/// What the kernel's log has about updates of VMs, from `start` on.
fn vm_log(start: &str) -> Vec<String> {
    let lines = kernel_log();
    let from = lines.iter().rposition(|line| line.contains(start)).expect("the kernel says so");
    let update = |line: &String| line.split_once("  - ").map(|(_, update)| update.to_owned());
    lines[from + 1..].iter().map_while(update).collect()
}

/// Two queues that do what they do in another order than the calls were made in: the page table is not free when the map comes.
#[test]
fn queues_in_the_wrong_order() {
    std::fs::write(LOG_SHIFT, "4").unwrap();
    let rig = Rig::new();
    std::fs::write(LOG_SHIFT, "0").unwrap();
    let (a, b) = (rig.bo(4 * PAGE), rig.bo(4 * PAGE));
    rig.map(&a, 0, 0, 4 * PAGE).unwrap();
    let (gate, out) = (Gate::new().unwrap(), rig.syncobj());
    let held = gate.syncobj(rig.node.clone()).unwrap();
    rig.vm.bind_async(&[unmap(0, 2 * PAGE)], &[held.binary()], &[out.point(1)]).unwrap();
    // The call is fine, by the list of mappings; the job is not.
    assert_eq!(rig.map(&b, 0, 0, 2 * PAGE), Err(Refused { applied: 0, errno: Errno::PIPE }));
    assert_eq!(rig.vm.is_usable(), Ok(false));
    assert_eq!(rig.dump(), [(0, 4 * PAGE, Some((a.handle().0, 0)))], "what was mapped still is");
    // Nothing is accepted any more, not even an unmap; what was accepted is still unmapped.
    assert_eq!(rig.unmap(0, 4 * PAGE), Err(Refused { applied: 0, errno: Errno::PIPE }));
    assert_eq!(rig.vm.bind_async(&[], &[], &[out.point(2)]), Err(Errno::PIPE));
    let mut submit = GemSubmit { flags: PIPE_3D0, ..Default::default() };
    assert_eq!(ioctl(&*rig.node, &mut submit), Err(Errno::PIPE));
    gate.open().unwrap();
    wait(&out, Some(1));
    assert_eq!(rig.dump(), [(2 * PAGE, 2 * PAGE, Some((a.handle().0, 2 * PAGE)))]);

    let queue = 1;
    let update = |kind, start: u64, end: u64| {
        format!("{kind}:{queue}: 0x{:016x}-0x{:016x}", BASE + start * PAGE, BASE + end * PAGE)
    };
    assert_eq!(vm_log("vm-log:"), [update("map", 0, 4), update("map", 0, 2)]);
}

/// Maps that were accepted before the failure are skipped, unmaps are done.
#[test]
fn what_waits_when_it_happens() {
    let rig = Rig::new();
    let (a, b) = (rig.bo(4 * PAGE), rig.bo(4 * PAGE));
    rig.map(&a, 0, 0, 4 * PAGE).unwrap();
    rig.map(&a, 0, 16 * PAGE, 4 * PAGE).unwrap();
    let (gate, out) = (Gate::new().unwrap(), rig.syncobj());
    let held = gate.syncobj(rig.node.clone()).unwrap();
    let waiting = [unmap(0, 2 * PAGE), map(32 * PAGE, PAGE, &b, 0), unmap(16 * PAGE, 4 * PAGE)];
    rig.vm.bind_async(&waiting, &[held.binary()], &[out.point(1)]).unwrap();
    assert_eq!(rig.map(&b, 0, 0, 2 * PAGE).map_err(|refused| refused.errno), Err(Errno::PIPE));
    gate.open().unwrap();
    wait(&out, Some(1));
    assert_eq!(rig.dump(), [(2 * PAGE, 2 * PAGE, Some((a.handle().0, 2 * PAGE)))]);
}

/// A submission that hangs the GPU: here, one whose command stream is mapped nowhere.
#[test]
fn a_submission_that_hangs() {
    let (rig, other) = (Rig::new(), Rig::new());
    let cmds = [SubmitCmd { r#type: SUBMIT_CMD_BUF, size: 64, relocs: BASE, ..Default::default() }];
    let mut submit =
        GemSubmit { flags: PIPE_3D0, nr_cmds: 1, cmds: kmd::uapi::user_address(&cmds), ..Default::default() };
    assert_eq!(ioctl(&*rig.node, &mut submit), Ok(()));
    let timeout = Timespec { tv_sec: i64::from(u32::MAX), tv_nsec: 0 };
    let mut wait = WaitFence { fence: submit.fence, timeout, ..Default::default() };
    assert_eq!(ioctl(&*rig.node, &mut wait), Ok(()), "the kernel recovers the GPU");
    assert_eq!((rig.vm.is_usable(), other.vm.is_usable()), (Ok(false), Ok(true)));
    let faults = [0u32];
    let data = kmd::uapi::user_address(&faults);
    ioctl(&*rig.node, &mut SubmitqueueQuery { data, len: 4, ..Default::default() }).unwrap();
    // SAFETY: the kernel has written it.
    assert_eq!(unsafe { faults.as_ptr().read_volatile() }, 1);
    other.null(0, PAGE).unwrap();
}

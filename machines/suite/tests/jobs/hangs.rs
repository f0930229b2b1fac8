//! Hardware that hangs: the driver resets it, and something is lost; and the emulated kernel, held to what is left. A reset is
//! everybody's: these are for a machine whose tests run one after the other, as those with one processor do.

use emulator::{Config, Faults};
use kmd::panthor::{BoOptions, PanthorVm, create_bo};
use kmd::uapi::panthor::*;
use kmd::{BindOp, BufferObject, Errno, Node, SyncPoint, Syncobj, Vm};
use tessera_machines_suite::injection::Injector;

use crate::group::{Group, create_group};
use crate::rig::{PAGE, map, null, unmap, wait};
use crate::stream::Stream;

#[test]
fn the_microcontroller() {
    let (group, idle) = (Group::new(1), Group::new(1));
    group.works();
    idle.works();
    let injector = Injector::open().unwrap();
    injector.hang_mcu();
    let done = group.rig().syncobj();
    group.submit(0, &Stream::new().add(group.address(0), 1), done.binary()).unwrap();
    wait(&done, None);
    assert_eq!(group.value(0), 0);
    injector.wait_for_reset();
    // Neither could be suspended, and nobody is to blame.
    let lost = GROUP_STATE_TIMEDOUT | GROUP_STATE_INNOCENT;
    assert_eq!((group.state(), idle.state()), (lost, lost));
    // The VMs are as they were, and other groups of theirs run.
    for group in [&group, &idle] {
        assert_eq!(group.rig().vm.is_usable(), Ok(true));
        group.another(1).works();
    }
}

/// A queued bind that fails leaves the VM unusable.
#[test]
fn the_mmu() {
    let (group, bystander) = (Group::new(1), Group::new(1));
    let (rig, bo) = (group.rig(), group.rig().bo(4 * PAGE));
    rig.map(&bo, 0, 0, PAGE).unwrap();
    bystander.works();
    group.works();
    let injector = Injector::open().unwrap();
    injector.hang_mmu();
    fail(&rig.vm, &bo, &rig.syncobj());
    injector.wait_for_reset();
    let before = rig.dump();
    let real = unusable(&*rig.node, &rig.vm, &bo, &rig.syncobj());
    assert_eq!(rig.dump(), before[1..], "the first is unmapped");
    group.works();
    bystander.another(1).works();

    let node = emulator::Node::panthor(Config {
        // The map below, then the one that fails.
        faults: Faults { op: Some(2), ..Default::default() },
        execute: false,
        ..Default::default()
    })
    .unwrap();
    let vm = PanthorVm::create(node.clone()).unwrap();
    let bo = create_bo(node.clone(), 4 * PAGE, BoOptions::default()).unwrap();
    vm.bind(&[map(0, PAGE, bo.handle(), 0)]).unwrap();
    let syncobj = || Syncobj::create(node.clone(), false).unwrap();
    fail(&vm, &bo, &syncobj());
    assert_eq!(unusable(&*node, &vm, &bo, &syncobj()), real);
}

/// Queues a bind that fails, which its fence does not keep from being signalled.
fn fail(vm: &PanthorVm, bo: &BufferObject, done: &Syncobj) {
    vm.bind_async(&[map(PAGE, PAGE, bo.handle(), 0)], &[], &[done.binary()]).unwrap();
    wait(done, None);
    assert_eq!(vm.is_usable(), Ok(false));
}

/// What an unusable VM answers: it only takes synchronous unmaps.
fn unusable(node: &dyn Node, vm: &PanthorVm, bo: &BufferObject, done: &Syncobj) -> Vec<Result<(), Errno>> {
    let signals: [SyncPoint; 1] = [done.binary()];
    let ops = [map(2 * PAGE, PAGE, bo.handle(), 0), null(2 * PAGE, PAGE), unmap(0, PAGE)];
    let bind = |op: &BindOp| vm.bind(&[*op]).map_err(|refused| refused.errno);
    let answers: Vec<_> = ops.iter().map(bind).collect();
    assert_eq!(answers, [Err(Errno::INVAL), Err(Errno::INVAL), Ok(())]);
    let queued = ops.iter().map(|op| vm.bind_async(&[*op], &[], &signals));
    let queued: Vec<_> = queued.chain([vm.bind_async(&[], &[], &signals)]).collect();
    assert_eq!(queued, [Err(Errno::INVAL); 4]);
    // It has nothing to map for itself either.
    let group = create_group(node, vm.id(), 1).map(drop);
    assert_eq!(group, Err(Errno::INVAL));
    [answers, queued, vec![group]].concat()
}

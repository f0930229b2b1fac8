//! What goes wrong, and what is left of it.

use kmd::uapi::panthor::*;
use kmd::{Errno, Vm};

use crate::group::Group;
use crate::rig::{BASE, PAGE, wait};
use crate::stream::Stream;

/// What became of a group whose stream went wrong, and of another one of its VM: their states.
struct Lost {
    state: u32,
    neighbour: u32,
}

/// Runs a stream that ends its group, and sees that others work on.
fn lose(stream: impl Fn(&Group) -> Stream) -> Lost {
    let (group, bystander) = (Group::new(1), Group::new(1));
    let neighbour = group.another(1);
    bystander.works();
    let done = group.rig().syncobj();
    group.submit(0, &stream(&group).add(group.address(0), 1), done.binary()).unwrap();
    wait(&done, None);
    assert_eq!(group.value(0), 0, "it ends where it went wrong");
    let again = group.submit(0, &Stream::new().add(group.address(0), 1), done.binary());
    assert_eq!(again, Err(Errno::INVAL), "the group is lost");
    assert_eq!(group.rig().vm.is_usable(), Ok(true), "and the VM is not");
    group.another(1).works();
    bystander.works();
    Lost { state: group.state(), neighbour: neighbour.state() }
}

/// A fault of the MMU switches its address space off: what else of the VM is in a slot is lost with it.
fn faults(stream: impl Fn(&Group) -> Stream) {
    let lost = lose(stream);
    assert_eq!((lost.state, lost.neighbour), (GROUP_STATE_FATAL_FAULT, GROUP_STATE_FATAL_FAULT));
}

fn ends_alone(stream: impl Fn(&Group) -> Stream, state: u32) {
    let lost = lose(stream);
    assert_eq!((lost.state, lost.neighbour), (state, 0));
}

#[test]
fn a_fault_of_the_mmu() {
    faults(|_| Stream::new().add(BASE, 1));
}

#[test]
fn a_stream_that_is_not_mapped() {
    faults(|_| Stream::new().call(BASE, 8));
}

#[test]
fn a_write_to_what_is_only_read() {
    let read_only = |group: &Group| {
        let bo = group.rig().bo(PAGE);
        let flags = VM_BIND_OP_TYPE_MAP | VM_BIND_OP_MAP_READONLY;
        let op = VmBindOp { flags, bo_handle: bo.handle().0, va: BASE, size: PAGE, ..Default::default() };
        crate::rig::raw_bind(&*group.rig().node, group.rig().vm.id(), 0, &[op]).0.unwrap();
        Stream::new().copy(BASE, group.address(1)).store(BASE, 1)
    };
    faults(read_only);
}

#[test]
fn what_is_no_instruction() {
    ends_alone(|_| Stream::new().nonsense(), GROUP_STATE_FATAL_FAULT);
}

#[test]
fn a_stream_that_never_ends() {
    ends_alone(|_| Stream::new().forever(), GROUP_STATE_TIMEDOUT);
}

#[test]
fn a_wait_for_what_never_comes() {
    ends_alone(|group| Stream::new().wait(group.address(1), 0), GROUP_STATE_TIMEDOUT);
}

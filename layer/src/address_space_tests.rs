//! The address space on an emulated panthor that keeps page tables and maps nothing.

use super::*;
use crate::carrier::AtOnce;
use emulator::{Config, Faults, Node, Unbound};
use kmd::Vm;
use kmd::panthor::{BoOptions, PanthorVm, create_bo};
use std::sync::Arc;

const PAGE: u64 = 64 << 10;

type MakeMirror = fn(VaRange, Option<VaRange>) -> Result<Mirror, VmError>;

struct Rig {
    node: Arc<Node>,
    vm: u32,
    space: AddressSpace,
}

impl Rig {
    /// One with each kind of mirror.
    fn both(faults: Faults) -> [Self; 2] {
        [Mirror::immediate, Mirror::staged].map(|mirror: MakeMirror| Self::new(mirror, faults))
    }

    /// One window of 64 pages from address 0x10_0000 on.
    fn new(mirror: MakeMirror, faults: Faults) -> Self {
        Self::verified(mirror, faults, None)
    }

    fn verified(mirror: MakeMirror, faults: Faults, verifier: Option<Verifier>) -> Self {
        let node = Node::panthor(Config { unbound: Unbound::Zero, faults, execute: false }).unwrap();
        let kernel = Arc::new(PanthorVm::create(node.clone()).unwrap());
        let vm = kernel.id();
        let home = Box::new(AtOnce::new(kernel.clone()));
        let space = AddressSpace::new(kernel.limits(), mirror, home, verifier, Some(4)).unwrap();
        space.add_window(range(0, 64), None).unwrap();
        Self { node, vm, space }
    }

    fn object(&self) -> Object {
        let object = create_bo(self.node.clone(), 64 * PAGE, BoOptions::default()).unwrap();
        self.space.add_object(Backing::Owned(object), false).unwrap()
    }

    /// Pages of the kernel's page table that show an object.
    fn bound(&self) -> u64 {
        let runs = self.node.mappings(self.vm);
        runs.iter().filter(|run| run.bo.is_some()).map(|run| run.len / PAGE).sum()
    }

    fn live_objects(&self) -> u64 {
        self.node.counters().live_bos
    }
}

fn range(first: u64, pages: u64) -> VaRange {
    VaRange { start: 0x10_0000 + first * PAGE, len: pages * PAGE }
}

fn map(first: u64, pages: u64, object: &Object, page: u64) -> Want {
    Want { range: range(first, pages), kind: OpKind::Map { object: object.object(), offset: page * PAGE } }
}

#[test]
fn an_object_whose_memory_goes_is_unbound_and_closed_at_once() {
    for rig in Rig::both(Faults::default()) {
        let (going, staying) = (rig.object(), rig.object());
        rig.space.bind(1, &[map(0, 4, &going, 0), map(8, 2, &going, 9), map(4, 4, &staying, 0)]).unwrap();
        assert_eq!((rig.bound(), rig.live_objects()), (10, 2));
        rig.space.evict(going).unwrap();
        assert_eq!((rig.bound(), rig.live_objects()), (4, 1));
    }
}

#[test]
fn what_is_named_again_is_bound_again_only_where_something_changed() {
    for rig in Rig::both(Faults::default()) {
        let (object, other) = (rig.object(), rig.object());
        let same = [map(8, 2, &object, 0), map(0, 4, &object, 9)];
        let calls_of = |wants: &[Want]| {
            let before = rig.node.counters().binds;
            rig.space.bind(1, wants).unwrap();
            rig.node.counters().binds - before
        };
        assert_eq!([&same, &same, &same].map(|wants| calls_of(wants)), [1, 0, 0]);
        assert_eq!(calls_of(&[map(1, 1, &other, 0)]), 1);
        assert_eq!([&same, &same].map(|wants| calls_of(wants)), [1, 0]);
        rig.space.evict(other).unwrap();
        assert_eq!([&same, &same].map(|wants| calls_of(wants)), [0, 0]);
        rig.space.forget(&[range(9, 1)]).unwrap();
        assert_eq!([&same, &same].map(|wants| calls_of(wants)), [1, 0]);
        rig.space.evict(object).unwrap();
        assert_eq!((calls_of(&same), rig.bound()), (0, 0));
    }
}

#[test]
fn an_object_that_is_bound_nowhere_is_closed_too() {
    for rig in Rig::both(Faults::default()) {
        let object = rig.object();
        rig.space.evict(object).unwrap();
        assert_eq!(rig.live_objects(), 0);
    }
}

#[test]
fn an_object_that_a_queued_bind_names_goes_with_that_bind() {
    for rig in Rig::both(Faults::default()) {
        let (going, other) = (rig.object(), rig.object());
        rig.space.bind(1, &[map(0, 4, &going, 0)]).unwrap();
        let queued = [map(10, 2, &going, 4), map(2, 1, &other, 0)];
        let announced = rig.space.announce(&queued);
        let calls = rig.node.counters().binds;
        rig.space.evict(going).unwrap();
        assert_eq!((rig.bound(), rig.live_objects(), rig.node.counters().binds), (4, 2, calls));
        // What was bound goes, what was to be bound of it does not come, and what takes its place is not unbound first.
        rig.space.bind(1, &queued).unwrap();
        announced.signal();
        assert_eq!((rig.bound(), rig.live_objects(), rig.node.counters().binds), (1, 1, calls + 1));
    }
}

#[test]
fn external_objects_do_not_wait_for_the_binds_of_others() {
    for rig in Rig::both(Faults::default()) {
        let shared = create_bo(rig.node.clone(), 64 * PAGE, BoOptions::default()).unwrap();
        let (shared, private) = (rig.space.add_object(Backing::Owned(shared), true).unwrap(), rig.object());
        rig.space.bind(1, &[map(0, 1, &shared, 0), map(1, 1, &private, 0)]).unwrap();
        let announced = rig.space.announce(&[map(5, 1, &private, 0)]);
        rig.space.evict(shared).unwrap();
        assert_eq!((rig.bound(), rig.live_objects()), (1, 1));
        drop(announced);
    }
}

#[test]
fn a_refused_bind_brings_back_objects_that_it_had_unbound() {
    // The window is operation 1, the first bind 2; of the second, the third operation fails.
    for rig in Rig::both(Faults { op: Some(5), ..Faults::default() }) {
        let (old, new) = (rig.object(), rig.object());
        rig.space.bind(1, &[map(0, 1, &old, 7)]).unwrap();
        let before = rig.node.mappings(rig.vm);
        let error =
            rig.space.bind(1, &[map(0, 1, &new, 0), map(2, 1, &new, 0), map(4, 1, &new, 0)]).unwrap_err();
        assert!(matches!(error, BindError::OutOfMemory(_)), "{error}");
        assert_eq!(format!("{before:?}"), format!("{:?}", rig.node.mappings(rig.vm)));
        rig.space.evict(old).unwrap();
        assert_eq!((rig.bound(), rig.live_objects()), (0, 1));
    }
}

#[test]
fn a_refused_bind_brings_back_what_nobody_holds_any_more() {
    // As above; but the memory was freed while the bind was queued, and only what is mapped keeps the object.
    for rig in Rig::both(Faults { op: Some(5), ..Faults::default() }) {
        let (going, new) = (rig.object(), rig.object());
        rig.space.bind(1, &[map(0, 3, &going, 7)]).unwrap();
        let before = format!("{:?}", rig.node.mappings(rig.vm));
        let queued = [map(2, 1, &new, 0), map(4, 1, &new, 0)];
        let announced = rig.space.announce(&[map(9, 1, &going, 0)]);
        rig.space.evict(going).unwrap();
        assert!(matches!(rig.space.bind(1, &queued), Err(BindError::OutOfMemory(_))));
        assert_eq!((format!("{:?}", rig.node.mappings(rig.vm)), rig.live_objects()), (before, 2));
        // It is still evicted.
        rig.space.bind(1, &queued).unwrap();
        assert_eq!((rig.bound(), rig.live_objects()), (2, 1));
        drop(announced);
    }
}

#[test]
fn a_difference_says_who_made_what_is_there() {
    let mirrors: [MakeMirror; 2] = [Mirror::immediate, Mirror::staged];
    for mirror in mirrors {
        for (at, who) in [(4, "by bind 1 on queue 7"), (8, "by bind 2 on queue 3"), (12, "without a bind")] {
            let verifier: Verifier = Box::new(move |mappings| {
                // Once the second bind has cut what the first one made.
                let cut = mappings.iter().filter(|mapping| !mapping.target.is_null()).count() > 1;
                let difference = || Difference { at: range(at, 1).start, what: "something is there".into() };
                if cut { Err(difference()) } else { Ok(()) }
            });
            let rig = Rig::verified(mirror, Faults::default(), Some(verifier));
            let (one, two) = (rig.object(), rig.object());
            rig.space.bind(7, &[map(0, 10, &one, 0)]).unwrap();
            rig.space.bind(3, &[map(2, 1, &two, 0), map(8, 2, &two, 5)]).unwrap();
            let Err(BindError::Lost(why)) = rig.space.bind(1, &[map(20, 1, &one, 0)]) else { panic!() };
            assert_eq!(why, format!("mirror and page table differ: something is there, made {who}"));
        }
    }
}

#[test]
fn a_lost_address_space_still_unbinds() {
    for rig in Rig::both(Faults::default()) {
        let object = rig.object();
        rig.space.bind(1, &[map(0, 4, &object, 0)]).unwrap();
        rig.space.lose("the test says so");
        let error = rig.space.bind(1, &[map(5, 1, &object, 0)]).unwrap_err();
        assert!(matches!(&error, BindError::Lost(why) if why == "the test says so"), "{error}");
        rig.space.remove_window(range(0, 64)).unwrap();
        assert_eq!(rig.bound(), 0);
    }
}

#[test]
fn the_log_names_queues() {
    for rig in Rig::both(Faults::default()) {
        let object = rig.object();
        rig.space.bind(7, &[map(3, 2, &object, 0)]).unwrap();
        let log = rig.space.log.as_ref().unwrap().read();
        let entries: Vec<_> = log.iter().map(|entry| (entry.queue, entry.op, entry.range)).collect();
        assert_eq!(entries, [(0, gpuvm::LogOp::MapNull, range(0, 64)), (7, gpuvm::LogOp::Map, range(3, 2))]);
    }
}

#[test]
fn what_a_driver_gives_must_be_free() {
    for rig in Rig::both(Faults::default()) {
        let calls = rig.node.counters().binds;
        let (taken, free) = (range(60, 8), range(64, 8));
        assert!(matches!(
            rig.space.adopt_window(taken, true),
            Err(BindError::Range(VmError::Occupied { .. }))
        ));
        assert!(matches!(
            rig.space.adopt_window(taken, false),
            Err(BindError::Range(VmError::Occupied { .. }))
        ));
        rig.space.adopt_window(free, false).unwrap();
        rig.space.adopt_window(free, true).unwrap();
        assert!(rig.space.adopt_window(free, true).is_err());
        // It has a mapping of an object when it goes, and the mirror lets go of all of it.
        let object = rig.object();
        rig.space.bind_through(1, &[map(65, 2, &object, 0)], &mut Follow).unwrap();
        rig.space.forget_window(free).unwrap();
        rig.space.adopt_window(free, true).unwrap();
        assert_eq!(rig.node.counters().binds, calls);
    }
}

#[test]
fn what_the_kernel_keeps_is_refused_by_its_name() {
    for rig in Rig::both(Faults::default()) {
        let calls = rig.node.counters().binds;
        // The emulated GPU has addresses of 48 bits, of which the process has 47.
        let kernel = VaRange { start: 1 << 47, len: 1 << 47 };
        let object = rig.object();
        for start in [kernel.start - PAGE, kernel.start, kernel.end() - 2 * PAGE] {
            let range = VaRange { start, len: 2 * PAGE };
            let want = Want { range, ..map(0, 1, &object, 0) };
            let reserved = BindError::Range(VmError::Reserved { range, reserved: kernel });
            assert_eq!(rig.space.bind(1, &[want]), Err(reserved.clone()));
            assert_eq!(rig.space.adopt_window(range, true), Err(reserved.clone()));
            assert_eq!(rig.space.adopt_window(range, false), Err(reserved));
        }
        let beyond = Want { range: VaRange { start: kernel.end(), len: PAGE }, ..map(0, 1, &object, 0) };
        let error = rig.space.bind(1, &[beyond]).unwrap_err();
        assert!(matches!(error, BindError::Range(VmError::OutOfRange { .. })), "{error}");
        assert_eq!(rig.node.counters().binds, calls);
    }
}

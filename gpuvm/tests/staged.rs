//! Random histories of a VM in staged mode against the page model: submissions of which the kernel takes all, a part,
//! or nothing, submissions that are dropped, and what is missing among the locks.

use std::collections::BTreeMap;

use gpuvm::{
    Contended, Exec, Mapping, Op, OpKind, Planner, Policy, Reservation, Staged, Step, Vm, VmBo, VmError,
};
use proptest::prelude::*;
use proptest::sample::Index;

#[path = "model/mod.rs"]
mod model;

use model::{Model, PAGE, pages};

const PAGES: usize = 32;
/// Objects 0 and 1 are private, the others external.
const PRIVATE: u8 = 2;
const OBJECTS: u8 = 4;

#[derive(Clone, Debug)]
enum Fate {
    Commit,
    /// The kernel takes so many operations.
    Part(Index),
    /// As `Part`, and what it took is taken back under the same locks.
    Undo(Index),
    Drop,
    /// The locks are those of the VM's private objects alone.
    Unlocked,
}

#[derive(Clone, Debug)]
enum Action {
    /// Operations as they are, or what a plan makes of them.
    Submit {
        ops: Vec<Op<u8>>,
        planned: bool,
        fate: Fate,
    },
    Obtain(u8),
    Release(Index),
}

fn op() -> impl Strategy<Value = Op<u8>> {
    let kind = |page: usize| {
        let offset = prop_oneof![3 => Just(page as u64), 1 => 0..4u64];
        prop_oneof![
            5 => (0..OBJECTS, offset)
                .prop_map(|(object, page)| OpKind::Map { object, offset: page * PAGE }),
            1 => Just(OpKind::Null),
            2 => Just(OpKind::Unmap),
        ]
    };
    (0..PAGES, 1..10usize).prop_flat_map(move |(start, len)| {
        kind(start).prop_map(move |kind| Op { range: pages(start, (start + len).min(PAGES)), kind })
    })
}

fn action() -> impl Strategy<Value = Action> {
    let fate = prop_oneof![
        3 => Just(Fate::Commit),
        2 => any::<Index>().prop_map(Fate::Part),
        2 => any::<Index>().prop_map(Fate::Undo),
        1 => Just(Fate::Drop),
        1 => Just(Fate::Unlocked),
    ];
    prop_oneof![
        6 => (proptest::collection::vec(op(), 0..8), any::<bool>(), fate)
            .prop_map(|(ops, planned, fate)| Action::Submit { ops, planned, fate }),
        1 => (0..OBJECTS).prop_map(Action::Obtain),
        1 => any::<Index>().prop_map(Action::Release),
    ]
}

struct World {
    vm: Vm<u8, Staged>,
    model: Model,
    /// Mappings as the steps have them.
    driver: BTreeMap<u64, Mapping<u8>>,
    planner: Planner<u8>,
    external: Reservation,
    handles: Vec<VmBo<u8>>,
}

impl World {
    fn new() -> Self {
        Self {
            vm: Vm::staged(pages(0, PAGES), None).unwrap(),
            model: Model::new(PAGES),
            driver: BTreeMap::new(),
            planner: Planner::new(Policy { page_size: PAGE, ..Policy::default() }),
            external: Reservation::new(),
            handles: Vec::new(),
        }
    }

    /// A handle, with which an external object is external from the first mapping on.
    fn obtain(&mut self, object: u8) -> VmBo<u8> {
        let handle = self.vm.obtain(object);
        if object >= PRIVATE {
            self.vm.set_reservation(object, &self.external).unwrap();
        }
        handle
    }

    fn submit(&mut self, ops: &[Op<u8>], fate: &Fate) {
        let held: Vec<_> =
            ops.iter().filter_map(|op| op.kind.object()).map(|object| self.obtain(object)).collect();
        let exec = Exec::until_all_locked::<_, Contended>(|locking| match fate {
            Fate::Unlocked => locking.lock(self.vm.reservation()),
            _ => self.vm.lock_ops(locking, ops),
        });
        let (exec, ()) = exec.unwrap();
        let needs_external = self.touches_external(ops);
        assert_eq!(
            exec.held(&self.external).is_some(),
            needs_external && !matches!(fate, Fate::Unlocked),
            "what is locked is what is touched"
        );
        let update = self.vm.update(&exec).unwrap();
        let (count, undo) = match fate {
            Fate::Unlocked if needs_external => {
                assert_eq!(update.prepare(ops).err(), Some(VmError::NotLocked));
                return;
            }
            Fate::Commit | Fate::Unlocked => {
                assert_eq!(update.prepare(ops).unwrap().commit(), ops);
                self.follow(ops);
                return;
            }
            Fate::Drop => {
                drop(update.prepare(ops).unwrap());
                return;
            }
            Fate::Part(index) => (index.index(ops.len() + 1), false),
            Fate::Undo(index) => (index.index(ops.len() + 1), true),
        };
        let mut prepared = update.prepare(ops.to_vec()).unwrap();
        assert_eq!(prepared.ops(), ops);
        let back = prepared.vm().undo(&ops[..count]);
        let objects = back.iter().filter_map(|op| op.kind.object());
        let kept: Vec<_> = objects.map(|object| prepared.find_bo(object).expect("it is mapped")).collect();
        let before = self.model.content.clone();
        let driver = &mut self.driver;
        let all = prepared.commit_steps(count, &mut |step| follow_step(driver, step));
        assert_eq!(all, ops);
        ops[..count].iter().for_each(|op| self.model.apply(op));
        if undo {
            self.vm.update(&exec).unwrap().prepare(&back).unwrap().commit();
            self.follow(&back);
            assert_eq!(self.model.content, before);
        }
        drop((kept, held));
    }

    /// Model and driver after operations that came without their steps.
    fn follow(&mut self, ops: &[Op<u8>]) {
        ops.iter().for_each(|op| self.model.apply(op));
        self.driver =
            self.model.mappings().into_iter().map(|mapping| (mapping.range.start, mapping)).collect();
    }

    fn touches_external(&self, ops: &[Op<u8>]) -> bool {
        let is_external = |object: Option<u8>| object.is_some_and(|object| object >= PRIVATE);
        ops.iter().any(|op| {
            let mut mapped = self.model.mappings().into_iter();
            is_external(op.kind.object())
                || mapped
                    .any(|mapping| mapping.range.intersects(op.range) && is_external(mapping.target.object()))
        })
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Submit { ops, planned: false, fate } => self.submit(ops, fate),
            Action::Submit { ops, planned: true, fate } => {
                ops.iter().for_each(|op| self.planner.want(op.range, op.kind).unwrap());
                let plan = self.planner.plan(&self.vm);
                self.submit(plan.ops(), fate);
                self.planner.recycle(plan);
            }
            Action::Obtain(object) => {
                let handle = self.obtain(*object);
                self.handles.push(handle);
            }
            Action::Release(index) => {
                if !self.handles.is_empty() {
                    self.handles.swap_remove(index.index(self.handles.len()));
                }
            }
        }
        // For handles that went; what dies with a mapping has gone already.
        self.vm.deferred_cleanup();
        self.check();
    }

    fn check(&self) {
        let mappings = self.model.mappings();
        assert_eq!(self.vm.iter().collect::<Vec<_>>(), mappings);
        assert_eq!(self.driver.values().copied().collect::<Vec<_>>(), mappings);
        for object in 0..OBJECTS {
            let mapped = mappings.iter().filter(|mapping| mapping.target.object() == Some(object)).count();
            let held = self.handles.iter().filter(|handle| handle.object() == object).count();
            let Some(bo) = self.vm.bo(object) else {
                assert_eq!((mapped, held), (0, 0), "object {object} is not found");
                continue;
            };
            assert_eq!((bo.mappings().count(), bo.references()), (mapped, mapped + held), "object {object}");
            assert_eq!(bo.is_external(), object >= PRIVATE);
        }
    }
}

fn follow_step(driver: &mut BTreeMap<u64, Mapping<u8>>, step: Step<u8>) {
    let (gone, new) = match step {
        Step::Map(mapping) => (None, [Some(mapping), None]),
        Step::Remap { prev, next, unmap } => (Some(unmap.mapping), [prev, next]),
        Step::Unmap(unmap) => (Some(unmap.mapping), [None, None]),
    };
    if let Some(gone) = gone {
        assert_eq!(driver.remove(&gone.range.start), Some(gone));
    }
    driver.extend(new.into_iter().flatten().map(|mapping| (mapping.range.start, mapping)));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn histories(actions in proptest::collection::vec(action(), 1..30)) {
        let mut world = World::new();
        actions.iter().for_each(|action| world.act(action));
    }
}

/// What is refused is refused whole, before anything is tried.
#[test]
fn one_bad_operation_refuses_all() {
    let mut world = World::new();
    let map = |start, end| Op { range: pages(start, end), kind: OpKind::Map { object: 0, offset: 0 } };
    world.act(&Action::Submit { ops: vec![map(0, 4)], planned: false, fate: Fate::Commit });
    let ops = [map(1, 2), map(PAGES - 1, PAGES + 1)];
    let (exec, ()) =
        Exec::until_all_locked::<_, Contended>(|locking| world.vm.lock_ops(locking, &ops)).unwrap();
    let refused = world.vm.update(&exec).unwrap().prepare(&ops).err();
    assert!(matches!(refused, Some(VmError::OutOfRange { .. })), "{refused:?}");
    world.vm.mark_unusable("it says so");
    let refused = world.vm.update(&exec).unwrap().prepare([map(1, 2)]).err();
    assert!(matches!(refused, Some(VmError::Unusable { .. })), "{refused:?}");
    let unmap = Op { range: pages(0, 1), kind: OpKind::Unmap };
    world.vm.update(&exec).unwrap().prepare([unmap]).unwrap().commit();
    assert_eq!(world.vm.iter().map(|mapping| mapping.range).collect::<Vec<_>>(), [pages(1, 4)]);
}

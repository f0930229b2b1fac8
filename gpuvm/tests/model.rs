//! Random histories against the page model: requests, refusals, plans that are applied, applied in part and undone,
//! or dropped; jobs that are done later, in part or never; references to objects, evictions and clean-ups.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gpuvm::{
    Exec, Job, Mapping, Op, OpKind, Plan, Planner, Policy, Step, Target, VaRange, Vm, VmBo, VmError,
};
use proptest::prelude::*;
use proptest::sample::Index;

#[path = "model/mod.rs"]
mod model;

use model::{Model, PAGE, Page, continues, fewest, in_line, nth, pages, paint, span};

const PAGES: usize = 48;
const OBJECTS: u8 = 2;
const RESERVED: std::ops::Range<usize> = 40..43;

#[derive(Clone, Debug)]
enum Fate {
    Apply,
    /// The kernel takes a part, and what it took is undone.
    Undo(Index),
    /// The kernel takes a part, and that stays.
    Part(Index),
    Drop,
}

#[derive(Clone, Debug)]
enum Action {
    Request(Op<u8>),
    Plan(Vec<Op<u8>>, Fate),
    /// A job is prepared, to be done some time.
    Prepare(Vec<Op<u8>>),
    /// The oldest job is done, all or so much of it; with `None` it is dropped.
    Run(Option<Index>),
    Obtain(u8),
    Release(Index),
    Evict(u8, bool),
    Validate,
    CleanUp,
}

/// Offsets close to the page's own number, so that ranges often continue each other, and some that wrap.
fn kind(page: usize) -> impl Strategy<Value = OpKind<u8>> {
    let offset = prop_oneof![4 => Just(page as u64), 2 => 0..4u64, 1 => Just((1 << 52) - 1)];
    prop_oneof![
        4 => (0..OBJECTS, offset).prop_map(|(object, page)| OpKind::Map { object, offset: page * PAGE }),
        1 => Just(OpKind::Null),
        2 => Just(OpKind::Unmap),
    ]
}

fn op(pages_below: usize) -> impl Strategy<Value = Op<u8>> {
    (0..pages_below, prop_oneof![3 => 1..3usize, 2 => 1..12usize, 1 => 1..PAGES]).prop_flat_map(
        move |(start, len)| {
            kind(start).prop_map(move |kind| Op { range: pages(start, (start + len).min(pages_below)), kind })
        },
    )
}

fn action() -> impl Strategy<Value = Action> {
    let fate = prop_oneof![
        3 => Just(Fate::Apply),
        2 => any::<Index>().prop_map(Fate::Undo),
        1 => any::<Index>().prop_map(Fate::Part),
        1 => Just(Fate::Drop),
    ];
    prop_oneof![
        2 => op(PAGES + 2).prop_map(Action::Request),
        3 => (proptest::collection::vec(op(RESERVED.start), 1..12), fate)
            .prop_map(|(wants, fate)| Action::Plan(wants, fate)),
        1 => proptest::collection::vec(op(RESERVED.start), 1..5).prop_map(Action::Prepare),
        1 => proptest::option::weighted(0.8, any::<Index>()).prop_map(Action::Run),
        1 => (0..OBJECTS).prop_map(Action::Obtain),
        1 => any::<Index>().prop_map(Action::Release),
        1 => (0..OBJECTS, proptest::bool::weighted(0.7)).prop_map(|(object, evict)| Action::Evict(object, evict)),
        1 => prop_oneof![Just(Action::Validate), Just(Action::CleanUp)],
    ]
}

/// Mappings as a driver would keep them, changed by steps alone.
#[derive(Default)]
struct Driver(BTreeMap<u64, Mapping<u8>>);

impl Driver {
    fn step(&mut self, step: Step<u8>) {
        let (gone, new) = match step {
            Step::Map(mapping) => (None, [Some(mapping), None]),
            Step::Remap { prev, next, unmap } => (Some(unmap.mapping), [prev, next]),
            Step::Unmap(unmap) => (Some(unmap.mapping), [None, None]),
        };
        if let Some(gone) = gone {
            assert_eq!(self.0.remove(&gone.range.start), Some(gone));
        }
        for mapping in new.into_iter().flatten() {
            assert!(self.0.values().all(|other| !other.range.intersects(mapping.range)));
            self.0.insert(mapping.range.start, mapping);
        }
    }
}

struct World {
    vm: Vm<u8>,
    model: Model,
    driver: Driver,
    planner: Planner<u8>,
    handles: Vec<VmBo<u8>>,
    jobs: VecDeque<Job<u8, Vec<Op<u8>>>>,
    evicted: BTreeSet<u8>,
}

/// The objects to which a job of these operations has references.
fn references(ops: &[Op<u8>]) -> Vec<u8> {
    let mut objects: Vec<u8> = ops.iter().filter_map(|op| op.kind.object()).collect();
    objects.dedup();
    objects
}

impl World {
    fn new(policy: Policy) -> Self {
        let all = pages(0, PAGES);
        let vm = Vm::new(all, Some(pages(RESERVED.start, RESERVED.end))).unwrap();
        Self {
            vm,
            model: Model::new(PAGES),
            driver: Driver::default(),
            planner: Planner::new(policy),
            handles: Vec::new(),
            jobs: VecDeque::new(),
            evicted: BTreeSet::new(),
        }
    }

    /// The mappings of an object by a full scan, and the references that it has besides, without those of `running`.
    fn uses(&self, object: u8, running: &[u8]) -> (Vec<Mapping<u8>>, usize) {
        let mut mappings = self.model.mappings();
        mappings.retain(|mapping| mapping.target.object() == Some(object));
        let held = self.handles.iter().map(VmBo::object);
        let held = held.chain(self.jobs.iter().flat_map(|job| references(job.ops())));
        let held = held.chain(running.iter().copied()).filter(|&held| held == object).count();
        (mappings, held)
    }

    /// What is not referenced has died, and is not evicted when it comes back.
    fn note_deaths(&mut self, running: &[u8]) {
        for object in 0..OBJECTS {
            let (mappings, held) = self.uses(object, running);
            if mappings.is_empty() && held == 0 {
                self.evicted.remove(&object);
            }
        }
    }

    fn check_objects(&self) {
        for object in 0..OBJECTS {
            let (mappings, held) = self.uses(object, &[]);
            let Some(bo) = self.vm.bo(object) else {
                assert_eq!((mappings.len(), held), (0, 0), "object {object} is not found");
                continue;
            };
            assert_eq!(bo.references(), mappings.len() + held, "object {object}");
            assert!(bo.references() > 0, "object {object} is a zombie and found");
            let mut listed: Vec<_> = bo.mappings().collect();
            listed.sort_by_key(|mapping| mapping.range.start);
            assert_eq!(listed, mappings);
            assert_eq!((bo.object(), bo.is_evicted()), (object, self.evicted.contains(&object)));
        }
        assert_eq!(self.vm.evicted().map(|bo| bo.object()).collect::<BTreeSet<_>>(), self.evicted);
    }

    fn check(&self) {
        let mappings = self.model.mappings();
        assert_eq!(self.vm.iter().collect::<Vec<_>>(), mappings);
        assert_eq!(self.driver.0.values().copied().collect::<Vec<_>>(), mappings);
        assert_eq!(self.vm.len(), mappings.len());
        for (page, content) in self.model.content.iter().enumerate() {
            let found = self.vm.find(page as u64 * PAGE + PAGE - 1);
            let shown = found.and_then(|mapping| nth(mapping.kind(), page - span(mapping.range).start));
            assert_eq!(shown, *content);
        }
        self.check_objects();
    }

    /// A request through `sm_map` and `sm_unmap`, its steps checked one by one.
    fn request(&mut self, op: &Op<u8>) {
        let mut steps = Vec::new();
        let result = match op.kind.target() {
            Some(target) => self.vm.sm_map(op.range, target, &mut |step| steps.push(step)),
            None => self.vm.sm_unmap(op.range, &mut |step| steps.push(step)),
        };
        let range = span(op.range);
        let valid = range.end <= PAGES && (range.end <= RESERVED.start || range.start >= RESERVED.end);
        assert_eq!(result.is_ok(), valid);
        if !valid {
            assert_eq!(steps, []);
            return;
        }
        let remaps = steps.iter().filter(|step| matches!(step, Step::Remap { .. })).count();
        assert!(remaps <= 2);
        assert_eq!(steps.iter().any(|step| matches!(step, Step::Map(_))), op.kind != OpKind::Unmap);
        for &step in &steps {
            if let Step::Remap { unmap, .. } | Step::Unmap(unmap) = step {
                assert_eq!(unmap.keep, self.keeps(unmap.mapping, op));
            }
            self.driver.step(step);
        }
        self.model.apply(op);
    }

    /// Whether the request leaves every page that it shares with the mapping as it is.
    fn keeps(&self, mapping: Mapping<u8>, op: &Op<u8>) -> bool {
        let request = span(op.range);
        let same = |page: usize| self.model.content[page] == nth(op.kind, page - request.start);
        let common = mapping.range.intersection(op.range).unwrap();
        mapping.target != Target::Null && op.kind != OpKind::Unmap && span(common).all(same)
    }

    /// As the layer does it: a job, of which the kernel takes all. The driver follows through its steps.
    fn apply(&mut self, ops: &[Op<u8>]) {
        let job = self.vm.prepare(ops.to_vec()).unwrap();
        self.run(job, ops.len());
    }

    fn run(&mut self, job: Job<u8, Vec<Op<u8>>>, count: usize) {
        let held = references(job.ops());
        for done in 0..count {
            // Step by step, with the job held back in between, as if others had their turn.
            let op = job.ops()[done];
            let part = self.vm.prepare([op]).unwrap();
            let mut running = self.vm.begin(part).unwrap();
            let next = running.next().unwrap();
            assert_eq!(*next.op(), op);
            next.complete(|step| self.driver.step(step)).unwrap();
            assert_eq!((running.done(), running.next().is_none()), (1, true));
            running.finish();
            self.model.apply(&op);
            self.note_deaths(&held);
        }
        drop(job);
        self.note_deaths(&[]);
    }

    fn plan(&mut self, wants: &[Op<u8>]) -> Plan<u8> {
        let policy = *self.planner.policy();
        let mut wanted: Vec<Option<Page>> = vec![None; PAGES];
        let (mut count, mut overlapped) = (0, false);
        for op in wants {
            self.planner.want(op.range, op.kind).unwrap();
            count += 1;
            for (index, page) in span(op.range).enumerate() {
                overlapped |= wanted[page].is_some();
                let shown = nth(op.kind, index);
                wanted[page] = Some(if policy.null_mapping { shown } else { shown.filter(|t| !t.is_null()) });
            }
        }
        let is_there = |op: &Op<u8>| {
            span(op.range).enumerate().all(|(n, page)| self.model.content[page] == nth(op.kind, n))
        };
        wants.iter().for_each(|op| assert_eq!(self.vm.holds(&[*op]), is_there(op), "{op:?}"));
        assert_eq!(self.vm.holds(wants), wants.iter().all(is_there));
        let there: Vec<_> = wants.iter().filter(|op| is_there(op)).copied().collect();
        assert!(self.vm.holds(&there));
        let plan = self.planner.plan(&self.vm);
        assert_eq!((plan.wanted, plan.overlapped), (count, overlapped));
        check_ops(plan.ops(), &self.model.content, &wanted);
        assert_eq!(plan.chunks().flatten().copied().collect::<Vec<_>>(), plan.ops());
        assert!(plan.chunks().all(|chunk| !chunk.is_empty() && chunk.len() <= policy.max_ops.max(1)));
        plan
    }

    fn undo(&mut self, ops: &[Op<u8>]) {
        let before = self.model.content.clone();
        let undo = self.vm.undo(ops);
        self.apply(ops);
        let mut wanted = vec![None; PAGES];
        for page in ops.iter().flat_map(|op| span(op.range)) {
            wanted[page] = Some(before[page]);
        }
        check_ops(&undo, &self.model.content, &wanted);
        self.apply(&undo);
        assert_eq!(self.model.content, before);
    }

    /// The steps that operations would give one after the other, from a VM with the same mappings.
    fn twin_steps(&self, ops: &[Op<u8>]) -> Vec<Step<u8>> {
        let mut twin = Vm::new(self.vm.range(), None).unwrap();
        self.vm.iter().for_each(|mapping| twin.insert(mapping).unwrap());
        let mut steps = Vec::new();
        for op in ops {
            let list = match op.kind.target() {
                Some(target) => twin.map_ops(op.range, target),
                None => twin.unmap_ops(op.range),
            };
            let list = list.unwrap();
            let once = list.steps().to_vec();
            assert_eq!(list.steps(), once, "a list can be walked again");
            assert_eq!(list.commit(), once);
            steps.extend(once);
        }
        steps
    }

    /// Up to the first object that refuses, and nothing more; one more stays evicted.
    fn validate(&mut self) {
        let (exec, ()) = Exec::until_all_locked(|locking| self.vm.lock_all(locking)).unwrap();
        let mut seen = Vec::new();
        let result = self.vm.validate(&exec, |bo| {
            assert!(bo.is_evicted());
            seen.push(bo.object());
            if bo.object() == 1 { Err(VmError::UnknownObject) } else { Ok(bo.object() != 2) }
        });
        assert_eq!(result.is_err(), seen.contains(&1));
        seen.iter()
            .filter(|&&object| object > 2 || object == 0)
            .for_each(|object| assert!(self.evicted.remove(object)));
    }

    /// Does the first operations of a job that was prepared some time ago, or drops it.
    fn run_prepared(&mut self, job: Job<u8, Vec<Op<u8>>>, count: Option<Index>) {
        let Some(count) = count else { return drop(job) };
        let (held, count) = (references(job.ops()), count.index(job.ops().len() + 1));
        let ops = self.twin_steps(&job.ops()[..count]);
        let all = self.vm.commit_first(job, count).unwrap();
        for op in &all[..count] {
            self.model.apply(op);
            self.note_deaths(&held);
        }
        ops.into_iter().for_each(|step| self.driver.step(step));
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Request(op) => self.request(op),
            Action::Plan(wants, fate) => {
                let plan = self.plan(wants);
                match fate {
                    Fate::Apply => self.apply(plan.ops()),
                    Fate::Part(index) => self.apply(&plan.ops()[..index.index(plan.ops().len() + 1)]),
                    Fate::Undo(index) => self.undo(&plan.ops()[..index.index(plan.ops().len() + 1)]),
                    Fate::Drop => {}
                }
                self.planner.recycle(plan);
            }
            Action::Prepare(ops) => self.jobs.push_back(self.vm.prepare(ops.clone()).unwrap()),
            Action::Run(count) => {
                if let Some(job) = self.jobs.pop_front() {
                    self.run_prepared(job, *count);
                }
            }
            Action::Obtain(object) => self.handles.push(self.vm.obtain(*object)),
            Action::Release(index) => {
                if !self.handles.is_empty() {
                    self.handles.swap_remove(index.index(self.handles.len()));
                }
            }
            Action::Evict(object, evict) => {
                let (exec, ()) = Exec::until_all_locked(|locking| self.vm.lock_all(locking)).unwrap();
                let known = self.vm.bo(*object).is_some();
                let expected = if known { Ok(()) } else { Err(VmError::UnknownObject) };
                assert_eq!(self.vm.evict(&exec, *object, *evict), expected);
                match evict {
                    true if known => self.evicted.insert(*object),
                    _ => self.evicted.remove(object),
                };
            }
            Action::Validate => self.validate(),
            Action::CleanUp => self.vm.deferred_cleanup(),
        }
        self.note_deaths(&[]);
        self.check();
    }
}

/// Disjoint, sorted, only over wanted pages, right, trimmed, and as few as can be.
fn check_ops(ops: &[Op<u8>], present: &[Page], wanted: &[Option<Page>]) {
    assert!(ops.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start));
    assert!(!ops.windows(2).any(|pair| continues(&pair[0], &pair[1])));
    for op in ops {
        let range = span(op.range);
        assert!(wanted[range.clone()].iter().all(Option::is_some), "{op:?} outside of what was wanted");
        for edge in [range.start, range.end - 1] {
            assert_ne!(wanted[edge], Some(present[edge]), "{op:?} is not trimmed");
        }
    }
    let mut after = present.to_vec();
    paint(&mut after, ops);
    for (page, wanted) in wanted.iter().enumerate() {
        assert_eq!(after[page], wanted.unwrap_or(present[page]), "page {page}");
    }
    assert_eq!(ops.len(), fewest(present, wanted));
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), prop_oneof![Just(usize::MAX), 0..4usize]).prop_map(|(null_mapping, max_ops)| Policy {
        null_mapping,
        max_ops,
        page_size: PAGE,
        ..Policy::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn histories(policy in policy(), actions in proptest::collection::vec(action(), 1..40)) {
        let mut world = World::new(policy);
        for action in &actions {
            world.act(action);
        }
    }

    /// `undo` takes any operations, not only those of a plan.
    #[test]
    fn undo_of_anything(first in proptest::collection::vec(op(RESERVED.start), 0..20),
                        ops in proptest::collection::vec(op(RESERVED.start), 0..8)) {
        let mut world = World::new(Policy::default());
        world.apply(&first);
        world.undo(&ops);
        world.check();
    }

    #[test]
    fn iter_range_gives_what_intersects(ops in proptest::collection::vec(op(RESERVED.start), 0..20),
                                        start in 0..PAGES, len in 1..PAGES) {
        let mut world = World::new(Policy::default());
        world.apply(&ops);
        let range = VaRange::new(start as u64 * PAGE + 1, len as u64 * PAGE - 1).unwrap();
        let expected: Vec<_> = world.vm.iter().filter(|mapping| mapping.range.intersects(range)).collect();
        prop_assert_eq!(world.vm.iter_range(range).collect::<Vec<_>>(), expected);
    }
}

/// Every content of four pages against every want over them, single pages in ascending and in descending order.
#[test]
fn every_small_plan_and_its_undo_are_minimal() {
    const SPACE: usize = 4;
    let kinds = |page: usize| {
        let map = |object, page: usize| OpKind::Map { object, offset: page as u64 * PAGE };
        [OpKind::Unmap, OpKind::Null, map(1, page), map(1, 0), map(2, page)]
    };
    let states = 5usize.pow(SPACE as u32);
    let batches = 6usize.pow(SPACE as u32);
    let step = if cfg!(miri) { 997 } else { 3 };
    let mut planner = Planner::new(Policy { page_size: PAGE, ..Policy::default() });
    for state in 0..states {
        let mut vm = Vm::new(pages(0, SPACE), None).unwrap();
        let mut present = vec![None; SPACE];
        for (page, shown) in present.iter_mut().enumerate() {
            let kind = kinds(page)[state / 5usize.pow(page as u32) % 5];
            vm.apply(&Op { range: pages(page, page + 1), kind }).unwrap();
            *shown = nth(kind, 0);
        }
        for batch in (state % step..batches).step_by(step) {
            let mut wanted = vec![None; SPACE];
            for i in 0..SPACE {
                let page = if batch % 2 == 0 { i } else { SPACE - 1 - i };
                if let Some(&kind) = kinds(page).get(batch / 6usize.pow(page as u32) % 6) {
                    planner.want(pages(page, page + 1), kind).unwrap();
                    wanted[page] = Some(nth(kind, 0));
                }
            }
            let plan = planner.plan(&vm);
            check_ops(plan.ops(), &present, &wanted);
            assert!(!plan.overlapped);

            let undo = vm.undo(plan.ops());
            let mut after = present.clone();
            paint(&mut after, plan.ops());
            let mut back = vec![None; SPACE];
            for page in plan.ops().iter().flat_map(|op| span(op.range)) {
                back[page] = Some(present[page]);
            }
            check_ops(&undo, &after, &back);
            planner.recycle(plan);
        }
    }
}

/// An identical middle is mapped again rather than paid for with a second operation.
#[test]
fn a_run_is_trimmed_but_not_split() {
    let mut vm = Vm::new(pages(0, 16), None).unwrap();
    let map = |start: usize, end: usize| Op {
        range: pages(start, end),
        kind: OpKind::Map { object: 1u8, offset: start as u64 * PAGE },
    };
    for op in [map(0, 2), map(5, 6), map(9, 16)] {
        vm.apply(&op).unwrap();
    }
    let mut planner = Planner::new(Policy::default());
    planner.want(map(0, 16).range, map(0, 16).kind).unwrap();
    let plan = planner.plan(&vm);
    assert_eq!(plan.ops(), [map(2, 9)]);
    vm.apply(&plan.ops()[0]).unwrap();
    planner.want(map(0, 16).range, map(0, 16).kind).unwrap();
    assert!(planner.plan(&vm).is_empty());
    assert!(in_line(nth(map(0, 1).kind, 0), nth(map(1, 2).kind, 0)));
}

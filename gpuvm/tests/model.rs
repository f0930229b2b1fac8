//! Random histories against the page model: requests, refusals, plans that are applied, applied in part and undone,
//! or dropped.

use std::collections::BTreeMap;

use gpuvm::{Mapping, Op, OpKind, Plan, Planner, Policy, Step, Target, VaRange, Vm};
use proptest::prelude::*;
use proptest::sample::Index;

#[path = "model/mod.rs"]
mod model;

use model::{Model, PAGE, Page, fewest, in_line, nth, pages, paint, span};

const PAGES: usize = 48;
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
}

/// Offsets close to the page's own number, so that ranges often continue each other, and some that wrap.
fn kind(page: usize) -> impl Strategy<Value = OpKind<u8>> {
    let offset = prop_oneof![4 => Just(page as u64), 2 => 0..4u64, 1 => Just((1 << 52) - 1)];
    prop_oneof![
        4 => (0..2u8, offset).prop_map(|(object, page)| OpKind::Map { object, offset: page * PAGE }),
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
}

impl World {
    fn new(policy: Policy) -> Self {
        let all = pages(0, PAGES);
        let vm = Vm::new(all, Some(pages(RESERVED.start, RESERVED.end))).unwrap();
        let (model, driver) = (Model::new(PAGES), Driver::default());
        Self { vm, model, driver, planner: Planner::new(policy) }
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

    /// As the layer does it: a job, of which the kernel takes all. The driver follows through the lists of steps.
    fn apply(&mut self, ops: &[Op<u8>]) {
        let job = self.vm.prepare(ops).unwrap();
        let mut running = self.vm.begin(job).unwrap();
        while let Some(next) = running.next() {
            self.model.apply(next.op());
            next.complete(|step| self.driver.step(step)).unwrap();
        }
        assert_eq!(running.done(), ops.len());
        running.finish();
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
        }
        self.check();
    }
}

/// Disjoint, sorted, only over wanted pages, right, trimmed, and as few as can be.
fn check_ops(ops: &[Op<u8>], present: &[Page], wanted: &[Option<Page>]) {
    assert!(ops.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start));
    assert!(!ops.windows(2).any(|pair| pair[0].continues(&pair[1])));
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

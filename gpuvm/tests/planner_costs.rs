//! Plans under all kinds of policies, against every plan that there is for a few pages.

use gpuvm::{Cost, Op, OpKind, Planner, Policy, Target, VaRange, Vm};
use proptest::prelude::*;
use proptest::sample::Index;

#[path = "model/mod.rs"]
mod model;

use model::{Model, PAGE, Page, continues, in_line, pages, paint, span};

/// Pages of a block.
const BLOCK: usize = 4;

/// What a plan is asked for, and what it is made of.
struct Task<'a> {
    policy: &'a Policy,
    present: &'a [Page],
    wanted: &'a [Option<Page>],
}

impl Task<'_> {
    fn after(&self, page: usize) -> Page {
        self.wanted[page].unwrap_or(self.present[page])
    }

    fn differs(&self, page: usize) -> bool {
        self.wanted[page].is_some_and(|wanted| wanted != self.present[page])
    }

    fn may_be_touched(&self, page: usize) -> bool {
        self.wanted[page].is_some() || (self.policy.remap_in_use && self.present[page].is_some())
    }

    /// Whether pages `start..end` could be one operation.
    fn can_be_one(&self, start: usize, end: usize) -> bool {
        (start..end).all(|page| self.may_be_touched(page))
            && (start + 1..end).all(|page| in_line(self.after(page - 1), self.after(page)))
    }

    /// Whether one entry could map the block.
    fn can_be_whole(&self, block: usize) -> bool {
        let (start, end) = (block * BLOCK, (block + 1) * BLOCK);
        let aligned = match self.present.get(start).and_then(|_| self.after(start)) {
            Some(Target::Object { offset, .. }) => offset % (BLOCK as u64 * PAGE) == 0,
            Some(Target::Null) => true,
            None => false,
        };
        aligned && end <= self.present.len() && self.can_be_one(start, end)
    }

    /// [`Cost`] as it is documented, for operations given by their pages.
    fn cost(&self, ops: &[(usize, usize)]) -> u64 {
        let Cost { op, table, entry, pages } = self.policy.cost;
        let differs = |start: usize, end: usize| (start..end).any(|page| self.differs(page));
        let (mut cost, mut tables) = (0, Vec::new());
        for &(start, end) in ops {
            cost += u64::from(op.max(1));
            if self.after(start).is_none() {
                continue;
            }
            for block in start / BLOCK..end.div_ceil(BLOCK) {
                tables.push(block);
                let (from, to) = (start.max(block * BLOCK), end.min((block + 1) * BLOCK));
                let written = if to - from == BLOCK && self.can_be_whole(block) {
                    usize::from(!self.policy.keeps_entries || differs(from, to))
                } else {
                    (from..to).filter(|&page| !self.policy.keeps_entries || self.differs(page)).count()
                };
                cost += written as u64 * u64::from(entry);
            }
        }
        if self.policy.shares_tables {
            tables.dedup();
        }
        cost += tables.len() as u64 * u64::from(table);
        for block in 0..self.present.len() / BLOCK {
            let (start, end) = (block * BLOCK, (block + 1) * BLOCK);
            let covered = ops.iter().any(|op| op.0 <= start && end <= op.1);
            if !covered && differs(start, end) && self.can_be_whole(block) {
                cost += u64::from(pages);
            }
        }
        cost
    }

    /// The least cost of all plans.
    fn least(&self, from: usize, ops: &mut Vec<(usize, usize)>) -> u64 {
        let Some(start) = (from..self.present.len()).find(|&page| self.may_be_touched(page)) else {
            return self.cost(ops);
        };
        let mut least = if self.differs(start) { u64::MAX } else { self.least(start + 1, ops) };
        for end in start + 1..=self.present.len() {
            if !self.can_be_one(start, end) {
                break;
            }
            ops.push((start, end));
            least = least.min(self.least(end, ops));
            ops.pop();
        }
        least
    }

    /// Disjoint, sorted, joined, right, only over what may be touched, no longer than pays, and as cheap as can be.
    fn check(&self, ops: &[Op<u8>]) {
        assert!(ops.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start));
        assert!(!ops.windows(2).any(|pair| continues(&pair[0], &pair[1])));
        let spans: Vec<_> = ops.iter().map(|op| (span(op.range).start, span(op.range).end)).collect();
        for &(start, end) in &spans {
            assert!(self.can_be_one(start, end), "{start}..{end} is not one operation");
            let pays = |page: usize, edge: usize| {
                self.differs(page) || (edge.is_multiple_of(BLOCK) && self.can_be_whole(page / BLOCK))
            };
            assert!(pays(start, start) && pays(end - 1, end), "{start}..{end} is too long");
        }
        let mut after = self.present.to_vec();
        paint(&mut after, ops);
        for (page, &shown) in after.iter().enumerate() {
            assert_eq!(shown, self.after(page), "page {page}");
        }
        let wanted_only = Policy { remap_in_use: false, ..*self.policy };
        let wanted_only = Task { policy: &wanted_only, ..*self };
        let cost = self.cost(&spans);
        assert_eq!(cost, self.least(0, &mut Vec::new()), "{spans:?} for {:?}", self.policy);
        assert!(self.policy.remap_in_use || cost == wanted_only.cost(&spans));
    }
}

fn vm_of(present: &[Page]) -> Vm<u8> {
    let mut vm = Vm::new(pages(0, present.len()), None).unwrap();
    for (page, &shown) in present.iter().enumerate() {
        let kind = shown.map_or(OpKind::Unmap, OpKind::from);
        vm.apply(&Op { range: pages(page, page + 1), kind }).unwrap();
    }
    vm
}

/// Mostly in line, so that there is something to join.
fn page(page: usize) -> impl Strategy<Value = Page> {
    let object = |object: u8, page: usize| Some(Target::Object { object, offset: page as u64 * PAGE });
    prop_oneof![
        8 => Just(object(1, page)),
        3 => Just(object(2, page + 1)),
        2 => Just(Some(Target::Null)),
        1 => Just(None),
    ]
}

fn content(count: usize) -> impl Strategy<Value = Vec<Page>> {
    (0..count).map(page).collect::<Vec<_>>()
}

fn wants(count: usize) -> impl Strategy<Value = Vec<Option<Page>>> {
    let maybe = |p| prop_oneof![3 => Just(None), 2 => page(p).prop_map(Some)];
    (0..count).map(maybe).collect::<Vec<_>>()
}

fn policy() -> impl Strategy<Value = Policy> {
    let cost = (0..30u32, 0..8u32, 0..8u32, 0..20u32);
    let cost = prop_oneof![2 => cost, 1 => (1..9u32, Just(0), Just(0), 0..2u32)];
    (any::<[bool; 3]>(), cost).prop_map(|([shares_tables, remap_in_use, keeps_entries], cost)| Policy {
        block_size: BLOCK as u64 * PAGE,
        shares_tables,
        remap_in_use,
        keeps_entries,
        cost: Cost { op: cost.0, table: cost.1, entry: cost.2, pages: cost.3 },
        ..Policy::default()
    })
}

/// Wants the pages one by one, from the last to the first if `backwards`.
fn want_pages(planner: &mut Planner<u8>, wanted: &[Option<Page>], backwards: bool) {
    for index in 0..wanted.len() {
        let page = if backwards { wanted.len() - 1 - index } else { index };
        if let Some(shown) = wanted[page] {
            planner.want(pages(page, page + 1), shown.map_or(OpKind::Unmap, OpKind::from)).unwrap();
        }
    }
}

/// A batch of pages, with what becomes of its plan.
fn batch(count: usize) -> impl Strategy<Value = (Vec<Option<Page>>, Option<Index>)> {
    (wants(count), proptest::option::of(any::<Index>()))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn plans_are_as_cheap_as_can_be(policy in policy(), present in content(10), wanted in wants(10),
                                    backwards: bool) {
        let mut planner = Planner::new(policy);
        want_pages(&mut planner, &wanted, backwards);
        let plan = planner.plan(&vm_of(&present));
        Task { policy: &policy, present: &present, wanted: &wanted }.check(plan.ops());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The kernel takes all of a plan, or a part, or nothing.
    #[test]
    fn whatever_the_kernel_takes_the_vm_is_the_model(
        policy in policy(),
        batches in proptest::collection::vec(batch(9), 1..if cfg!(miri) { 3 } else { 20 }),
    ) {
        let mut vm = Vm::new(pages(0, 9), None).unwrap();
        let mut model = Model::new(9);
        let mut planner = Planner::new(policy);
        for (wanted, taken) in batches {
            want_pages(&mut planner, &wanted, false);
            let plan = planner.plan(&vm);
            Task { policy: &policy, present: &model.content, wanted: &wanted }.check(plan.ops());
            let job = vm.prepare(plan).unwrap();
            let taken = taken.map_or(usize::MAX, |taken| taken.index(job.ops().len() + 1));
            job.ops().iter().take(taken).for_each(|op| model.apply(op));
            if taken == 0 {
                drop(job);
            } else {
                planner.recycle(vm.commit_first(job, taken).unwrap());
            }
            prop_assert_eq!(vm.iter().collect::<Vec<_>>(), model.mappings());
        }
    }

    /// Chunks hold all operations in order, are the fewest there can be, and part a table only where that takes it.
    #[test]
    fn chunks_keep_tables_together(shares_tables: bool, max_ops in 0..6usize, wanted in wants(40)) {
        let block_size = BLOCK as u64 * PAGE;
        let policy = Policy { max_ops, shares_tables, block_size, ..Policy::default() };
        let mut planner = Planner::new(policy);
        want_pages(&mut planner, &wanted, false);
        let plan = planner.plan(&Vm::new(pages(0, 40), None).unwrap());
        let table = |va: u64| va / block_size;
        let mut rest = plan.ops();
        prop_assert_eq!(plan.chunks().count(), rest.len().div_ceil(max_ops.max(1)));
        for chunk in plan.chunks() {
            let most = max_ops.max(1).min(rest.len());
            let least = rest.len() - (rest.len().div_ceil(most) - 1) * most;
            let parts = |&cut: &usize| {
                cut == rest.len()
                    || !shares_tables
                    || table(rest[cut - 1].range.end() - 1) != table(rest[cut].range.start)
            };
            let longest = (least..=most).rev().find(parts).unwrap_or(most);
            prop_assert_eq!(chunk, &rest[..longest]);
            rest = &rest[longest..];
        }
        prop_assert!(rest.is_empty());
    }
}

/// A tile that was missing completes a block, and the tiles around it become one mapping with it.
#[test]
fn the_last_tile_completes_a_block() {
    let tile = |index: u64| Op {
        range: VaRange::new((32 + index) << 16, 1 << 16).unwrap(),
        kind: OpKind::Map { object: 1u8, offset: index << 16 },
    };
    let mut vm = Vm::new(pages(0, 4096), None).unwrap();
    for index in (0..32).filter(|&index| index != 13) {
        vm.apply(&tile(index)).unwrap();
    }
    let plan = |policy: Policy| {
        let mut planner = Planner::new(policy);
        planner.want(tile(13).range, tile(13).kind).unwrap();
        planner.plan(&vm)
    };
    let cost = Cost { op: 4000, table: 300, entry: 5, pages: 3000 };
    let in_use = Policy { remap_in_use: true, cost, ..Policy::default() };
    let block = Op { range: VaRange::new(2 << 20, 2 << 20).unwrap(), ..tile(0) };
    assert_eq!(plan(in_use).ops(), [block]);
    assert_eq!(plan(Policy { remap_in_use: false, ..in_use }).ops(), [tile(13)]);
    // The first tile alone does not pay for a block, if the others would have to be written page by page.
    assert_eq!(plan(Policy { block_size: 4 << 20, ..in_use }).ops(), [tile(13)]);

    vm.apply(&block).unwrap();
    assert_eq!(vm.iter().count(), 1);
}

/// Two tiles with one between them that is in use: one operation where that is cheaper and safe.
#[test]
fn what_is_in_use_can_be_a_bridge() {
    let map = |start: usize, end: usize| Op {
        range: pages(start, end),
        // No block of it is in line.
        kind: OpKind::Map { object: 1u8, offset: (start + 1) as u64 * PAGE },
    };
    let mut vm = Vm::new(pages(0, 1 << 20), None).unwrap();
    for op in [map(1, 3), map(4, 1000), Op { range: pages(2000, 2001), kind: OpKind::Null }] {
        vm.apply(&op).unwrap();
    }
    let plan = |remap_in_use, wants: &[Op<u8>]| {
        let cost = Cost { op: 100, table: 0, entry: 1, pages: 0 };
        let mut planner = Planner::new(Policy { remap_in_use, cost, ..Policy::default() });
        for op in wants {
            planner.want(op.range, op.kind).unwrap();
        }
        planner.plan(&vm).ops().to_vec()
    };
    let tiles = [map(0, 1), map(3, 4), map(1000, 1001)];
    assert_eq!(plan(true, &tiles), [map(0, 4), map(1000, 1001)]);
    assert_eq!(plan(false, &tiles), tiles);
    assert_eq!(plan(false, &[map(0, 1001)]), [map(0, 4), map(1000, 1001)]);

    // Null mappings are bridges for null mappings; holes are for nothing.
    let of = |kind, start, end| Op { range: pages(start, end), kind };
    let null = [of(OpKind::Null, 1999, 2000), of(OpKind::Null, 2001, 2002)];
    assert_eq!(plan(true, &null), [of(OpKind::Null, 1999, 2002)]);
    assert_eq!(plan(false, &null), null);
    let unmap = [of(OpKind::Unmap, 999, 1000), of(OpKind::Unmap, 2000, 2001)];
    assert_eq!(plan(true, &unmap), unmap);
    assert_eq!(plan(true, &[of(OpKind::Null, 1500, 1501), of(OpKind::Null, 1502, 1503)]).len(), 2);
}

/// Whatever the policy, everything that planning needs stays allocated.
#[test]
fn a_warm_planner_does_not_allocate_for_a_cover() {
    let map = |start: usize, end: usize| Op {
        range: pages(start, end),
        kind: OpKind::Map { object: 1u8, offset: start as u64 * PAGE },
    };
    let mut vm = Vm::new(pages(0, 1 << 20), None).unwrap();
    for start in (0..1000).filter(|start| start % 3 == 0) {
        vm.apply(&map(start, start + 1)).unwrap();
    }
    let cost = Cost { op: 100, table: 0, entry: 40, pages: 50 };
    let mut planner = Planner::new(Policy { remap_in_use: true, cost, ..Policy::default() });
    let mut batch = || {
        for start in (0..1000).filter(|start| start % 6 == 1) {
            let op = map(start, start + 2);
            planner.want(op.range, op.kind).unwrap();
        }
        let plan = planner.plan(&vm);
        let count = plan.ops().len();
        planner.recycle(plan);
        count
    };
    let count = batch();
    assert!(count > 100);
    let again = allocation_counter::measure(|| assert_eq!(batch(), count));
    assert_eq!(again.count_total, 0);
}

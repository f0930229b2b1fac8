//! Time a bind of the planner, from the want to the operation; divide by the number of elements, or read the throughput.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gpuvm::{Cost, Op, OpKind, Planner, Policy, VaRange, Vm};

#[path = "../tests/common/mod.rs"]
mod common;
mod cpu_time;

use common::{SplitMix64, range};
use cpu_time::CpuTime;

const BINDS: u64 = 8192;
const PAGE: u64 = 64 << 10;
const BASE: u64 = 1 << 32;

type Want = (VaRange, OpKind<u32>);

/// The wants of one batch: neighbours in address and object, in order or not; neighbours in address alone; neither.
fn wants(name: &str) -> Vec<Want> {
    let mut rng = SplitMix64(1);
    let mut wants: Vec<Want> = (0..BINDS)
        .map(|i| (range(BASE + i * PAGE, PAGE), OpKind::Map { object: 1, offset: i * PAGE }))
        .collect();
    if name.starts_with("scattered") {
        for (_, kind) in &mut wants {
            *kind = OpKind::Map { object: 1, offset: rng.next() % (1 << 20) * PAGE };
        }
    }
    match name {
        "contiguous" | "scattered memory" => {}
        "shuffled" => rng.shuffle(&mut wants),
        "scattered" => {
            let mut slots: Vec<u64> = (0..64 * BINDS).collect();
            rng.shuffle(&mut slots);
            for ((range, _), slot) in wants.iter_mut().zip(slots) {
                range.start = BASE + slot * PAGE;
            }
        }
        other => unreachable!("{other}"),
    }
    wants
}

/// A VM in which `wants` are mapped already.
fn mapped(wants: impl IntoIterator<Item = Want>) -> Vm<u32> {
    let mut vm = Vm::new(range(0, 1 << 48), None).unwrap();
    for (range, kind) in wants {
        vm.apply(&Op { range, kind }).unwrap();
    }
    vm
}

/// Every page of the batch's window, each on its own and of another object.
fn fragments() -> impl Iterator<Item = Want> {
    (0..64 * BINDS).map(|i| (range(BASE + i * PAGE, PAGE), OpKind::Map { object: 2, offset: 0 }))
}

fn planner(c: &mut Criterion<CpuTime>) {
    // As an example of what a kernel's back end may say.
    let costs = Policy {
        remap_in_use: true,
        cost: Cost { op: 4000, table: 300, entry: 5, pages: 3000 },
        ..Policy::default()
    };
    let mut group = c.benchmark_group("planner");
    group.throughput(Throughput::Elements(BINDS)).measurement_time(Duration::from_secs(2)).sample_size(50);
    for name in ["contiguous", "shuffled", "scattered memory", "scattered"] {
        let wants = wants(name);
        let states = [
            ("empty", mapped([])),
            ("fragmented", mapped(fragments())),
            ("identical", mapped(wants.iter().copied())),
        ];
        for (state, vm) in &states {
            for (policy, id) in [(Policy::default(), state.to_string()), (costs, format!("{state}, costs"))] {
                let mut planner = Planner::new(policy);
                group.bench_function(BenchmarkId::new(name, id), |b| {
                    b.iter(|| {
                        for &(range, kind) in &wants {
                            planner.want(black_box(range), black_box(kind)).unwrap();
                        }
                        let plan = planner.plan(vm);
                        black_box(plan.ops());
                        planner.recycle(plan);
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = planner
}
criterion_main!(benches);

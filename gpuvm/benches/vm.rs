//! Time a mapping of the mirror and time a bind of the planner. Every figure of the mirror is for the whole pattern,
//! from an empty VM to the last mapping; divide by the number of elements, or read the throughput.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gpuvm::{OpKind, Planner, Policy, VaRange, Vm};

#[path = "../tests/common/mod.rs"]
mod common;

use common::{SplitMix64, range};

/// CPU time of the measuring thread, which other work on the machine disturbs less than the time on the wall.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.try_into().expect("CPU time is not negative")
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

type Pattern = fn(&mut Vm<u32>, u64);

fn mirror(c: &mut Criterion<CpuTime>) {
    let patterns: [(&str, Pattern); 4] = [
        ("seq", common::seq),
        ("random", common::random),
        ("rebind", common::rebind),
        ("split", common::split),
    ];
    let mut group = c.benchmark_group("mirror");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    for (name, pattern) in patterns {
        for count in [10_000, 100_000, 1_000_000] {
            group.throughput(Throughput::Elements(count));
            group.bench_with_input(BenchmarkId::new(name, count), &count, |b, &count| {
                b.iter_custom(|rounds| {
                    (0..rounds)
                        .map(|_| {
                            let mut vm = common::vm(count);
                            let start = CpuTime.start();
                            pattern(&mut vm, count);
                            let time = CpuTime.end(start);
                            black_box(vm.len());
                            time
                        })
                        .sum()
                });
            });
        }
    }
    group.finish();
}

const BINDS: u64 = 8192;
const PAGE: u64 = 64 << 10;
const BASE: u64 = 1 << 32;

/// The wants of one batch.
fn wants(name: &str) -> Vec<(VaRange, OpKind<u32>)> {
    let mut rng = SplitMix64(1);
    let mut wants: Vec<_> = (0..BINDS)
        .map(|i| (range(BASE + i * PAGE, PAGE), OpKind::Map { object: 1, offset: i * PAGE }))
        .collect();
    match name {
        "contiguous" => {}
        "shuffled" => rng.shuffle(&mut wants),
        "scattered" => {
            for (range, kind) in &mut wants {
                range.start = BASE + rng.next() % (64 * BINDS) * PAGE;
                *kind = OpKind::Map { object: 1, offset: (rng.next() % (1 << 20)) * PAGE };
            }
        }
        other => unreachable!("{other}"),
    }
    wants
}

/// A VM in which every page of the batch's window is mapped, each on its own and to another object.
fn fragmented() -> Vm<u32> {
    let mut vm = Vm::new(range(0, 1 << 48), None).unwrap();
    for i in 0..64 * BINDS {
        let op =
            gpuvm::Op { range: range(BASE + i * PAGE, PAGE), kind: OpKind::Map { object: 2, offset: 0 } };
        vm.apply(&op).unwrap();
    }
    vm
}

fn planner(c: &mut Criterion<CpuTime>) {
    let empty = Vm::new(range(0, 1 << 48), None).unwrap();
    let fragmented = fragmented();
    let mut group = c.benchmark_group("planner");
    group.throughput(Throughput::Elements(BINDS)).measurement_time(Duration::from_secs(2)).sample_size(50);
    for name in ["contiguous", "shuffled", "scattered"] {
        let wants = wants(name);
        for (state, vm) in [("empty", &empty), ("fragmented", &fragmented)] {
            let mut planner = Planner::new(Policy::default());
            group.bench_function(BenchmarkId::new(name, state), |b| {
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
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = mirror, planner
}
criterion_main!(benches);

//! Time a mapping of the VM, everything included: tree, vm_bo, lists, allocation, and in rebind the clean-up. Every
//! figure is for the whole pattern, from an empty VM to the last mapping; divide by the number of elements, or read
//! the throughput.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::Measurement;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gpuvm::Vm;

#[path = "../tests/common/mod.rs"]
mod common;
mod cpu_time;

use cpu_time::CpuTime;

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

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = mirror
}
criterion_main!(benches);

//! The VM manager beside the kernel's drm_gpuvm.c, compiled for user space, in one run: round by round both do the same
//! pattern, one after the other, so that what disturbs one disturbs the other too. To be run by `scripts/bench-peer`,
//! which makes the kernel's side; names of patterns as arguments run these alone.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use criterion::measurement::Measurement;
use gpuvm::Vm;

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../cpu_time/mod.rs"]
mod cpu_time;

use cpu_time::CpuTime;

type Pattern = fn(&mut Vm<u32>, u64);

const PATTERNS: [(&str, Pattern); 4] =
    [("seq", common::seq), ("random", common::random), ("rebind", common::rebind), ("split", common::split)];
/// Numbers of maps, and rounds for each.
const COUNTS: [(u64, usize); 3] = [(10_000, 51), (100_000, 15), (1_000_000, 5)];

/// The kernel's side, a process that `peer.c` describes.
struct Kernel {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Kernel {
    fn start() -> Self {
        let path = std::env::var_os("GPUVM_PEER")
            .expect("GPUVM_PEER names the kernel's side: use scripts/bench-peer");
        let mut process =
            Command::new(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("GPUVM_PEER runs");
        let requests = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, requests, answers }
    }

    /// CPU time of a pattern, and the number of mappings in the end.
    fn run(&mut self, what: &str, pattern: &str, count: u64) -> (Duration, usize) {
        writeln!(self.requests, "{what} {pattern} {count}").expect("the peer listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the peer answers");
        let (time, mappings) = line.trim().split_once(' ').expect("two numbers");
        (Duration::from_nanos(time.parse().expect("nanoseconds")), mappings.parse().expect("a number"))
    }

    fn end(self) {
        let Self { mut process, requests, .. } = self;
        drop(requests);
        assert!(process.wait().expect("the peer ends").success());
    }
}

/// As [`Kernel::run`] for the crate.
fn ours(pattern: Pattern, count: u64) -> (Duration, usize) {
    let mut vm = common::vm(count);
    let start = CpuTime.start();
    pattern(&mut vm, count);
    let time = CpuTime.end(start);
    (time, black_box(&vm).len())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let mut kernel = Kernel::start();
    println!("CPU nanoseconds a map, medians; the ratio is the median of the rounds' own\n");
    println!(
        "| pattern | maps | mapped in the end | kernel, tree alone | kernel, all | gpuvm, all | gpuvm / kernel |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, pattern) in PATTERNS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        for (count, rounds) in COUNTS {
            let [mut tree, mut all, mut crates, mut ratios] = [const { Vec::new() }; 4];
            let mut mappings = 0;
            // The first round only brings memory and caches into the state in which the others find them.
            for round in 0..=rounds {
                let (tree_time, tree_mappings) = kernel.run("tree", name, count);
                let (all_time, all_mappings) = kernel.run("all", name, count);
                let (our_time, our_mappings) = ours(pattern, count);
                assert_eq!(
                    [tree_mappings, all_mappings],
                    [our_mappings; 2],
                    "{name}, {count}: not the same mapped"
                );
                mappings = our_mappings;
                if round > 0 {
                    let per_map = |time: Duration| time.as_nanos() as f64 / count as f64;
                    tree.push(per_map(tree_time));
                    all.push(per_map(all_time));
                    crates.push(per_map(our_time));
                    ratios.push(per_map(our_time) / per_map(all_time));
                }
            }
            println!(
                "| {name} | {count} | {mappings} | {:.0} | {:.0} | {:.0} | {:.2} |",
                median(tree),
                median(all),
                median(crates),
                median(ratios),
            );
        }
    }
    kernel.end();
    if let Ok(load) = std::fs::read_to_string("/proc/loadavg") {
        println!("\nload average: {}", load.trim());
    }
}

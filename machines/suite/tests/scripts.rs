//! The emulator against the kernel: generated scripts, played on both, must go the same way on both.
//!
//! `SCRIPTS` is their number, `SEED` where they start; a difference is shrunk to a script that is as short as can be.

use kmd::uapi::panthor::*;
use std::cell::Cell;

use emulator::{Config, Faults};
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tessera_machines_suite::compare::{Difference, compare};
use tessera_machines_suite::script::{Op, PAGE, Step, WINDOW, any_script, prelude};

/// How many scripts, unless the environment says otherwise.
const SCRIPTS: u32 = 200;

/// Most steps in a script.
const STEPS: usize = 16;

fn variable(name: &str) -> Option<u32> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

#[test]
fn generated() {
    let cases = variable("SCRIPTS").unwrap_or(SCRIPTS);
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&variable("SEED").unwrap_or(1).to_le_bytes());
    let config =
        RunnerConfig { cases, failure_persistence: None, max_shrink_iters: 4000, ..RunnerConfig::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let (done, refused) = (Cell::new(0), Cell::new(0));
    let result = runner.run(&any_script(STEPS), |script| {
        let fail = |difference: Difference| TestCaseError::fail(difference.to_string());
        let tally = compare(&script, Config::default()).map_err(fail)?;
        done.set(done.get() + tally.done);
        refused.set(refused.get() + tally.refused);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    println!("{cases} scripts went the same way: {} steps done, {} refused", done.get(), refused.get());
    assert!(done.get() > refused.get(), "scripts that are mostly refused show little");
}

/// An operation on pages from the window's start on, without syncs.
fn op(flags: u32, bo_handle: u32, page: u64, pages: u64) -> Op {
    let (va, size) = (WINDOW.start + page * PAGE, pages * PAGE);
    Op { op: VmBindOp { flags, bo_handle, va, size, ..Default::default() }, syncs: vec![] }
}

const SPARSE: u32 = VM_BIND_OP_TYPE_MAP | VM_BIND_OP_MAP_NOEXEC | VM_BIND_OP_MAP_SPARSE;

/// What generated scripts have shown, at its shortest.
#[test]
fn found() {
    let queued = |ops| Step::Bind { id: 1, flags: VM_BIND_ASYNC, ops };
    let scripts = [
        ("an empty sparse map in a queue", vec![queued(vec![op(SPARSE, 0, 0, 0)])]),
        ("an empty map in a queue", vec![queued(vec![op(0, 1, 0, 0)])]),
        ("an empty unmap in a queue", vec![queued(vec![op(VM_BIND_OP_TYPE_UNMAP, 0, 0, 0)])]),
        ("an empty map over a map", vec![queued(vec![op(0, 1, 0, 4), op(0, 1, 2, 0)])]),
        ("an empty unmap in a map", vec![queued(vec![op(0, 1, 0, 4), op(VM_BIND_OP_TYPE_UNMAP, 0, 2, 0)])]),
    ];
    let mut failures = Vec::new();
    for (what, steps) in scripts {
        if let Err(difference) = compare(&[prelude(), steps].concat(), Config::default()) {
            failures.push(format!("{what}: {difference}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The negative control: what an emulator does wrong is noticed.
#[test]
fn a_wrong_emulator() {
    let bind = Step::Bind { id: 1, flags: 0, ops: vec![op(0, 1, 0, 4)] };
    let queued = Step::Bind { id: 1, flags: VM_BIND_ASYNC, ops: vec![op(0, 1, 0, 4)] };
    // The first operation is that of the player itself, in VM 1, the second that in VM 2.
    let faults = Faults { op: Some(3), ..Faults::default() };
    let wrong =
        |step: Step| compare(&[prelude(), vec![step]].concat(), Config { faults, ..Config::default() });
    assert!(matches!(wrong(bind), Err(Difference::Outcome { step: 8, .. })));
    assert!(matches!(wrong(queued), Err(Difference::View { step: 8, .. })));
}

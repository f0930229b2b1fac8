//! The emulator against the kernel: generated scripts, played on both, must go the same way on both.
//!
//! `SCRIPTS` is their number, `SEED` where they start; a difference is shrunk to a script that is as short as can be.

use emulator::{Config, Faults};
use kmd::uapi::panthor::*;
use tessera_machines_suite::compare::{self, Difference, Tally};
use tessera_machines_suite::generated::play_all;
use tessera_machines_suite::kernel::{Emulated, RealPanthor};
use tessera_machines_suite::script::panthor::{Op, Panthor, Step, any_script, prelude};
use tessera_machines_suite::script::{self, PAGE, WINDOW};

/// Most steps in a script.
const STEPS: usize = 16;

fn compare(script: &[script::Step<Step>], config: Config) -> Result<Tally, Difference> {
    compare::compare::<Panthor>(script, RealPanthor::open(), Emulated::panthor(config))
}

/// The prelude and these steps.
fn after_prelude(steps: Vec<Step>) -> Vec<script::Step<Step>> {
    prelude().into_iter().chain(steps.into_iter().map(script::Step::Driver)).collect()
}

#[test]
fn generated() {
    play_all(&any_script(STEPS), |script| compare(&script, Config::default()));
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
        if let Err(difference) = compare(&after_prelude(steps), Config::default()) {
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
    let wrong = |step: Step| compare(&after_prelude(vec![step]), Config { faults, ..Config::default() });
    assert!(matches!(wrong(bind), Err(Difference::Outcome { step: 8, .. })));
    assert!(matches!(wrong(queued), Err(Difference::View { step: 8, .. })));
}

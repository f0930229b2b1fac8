//! The emulated msm against the kernel's: generated scripts, played on both, must go the same way on both.
//!
//! `SCRIPTS` is their number, `SEED` where they start; a difference is shrunk to a script that is as short as can be.

use emulator::{Config, Faults};
use kmd::uapi::msm::*;
use tessera_machines_suite::compare::{self, Difference, Tally};
use tessera_machines_suite::generated::play_all;
use tessera_machines_suite::kernel::{Emulated, RealMsm};
use tessera_machines_suite::script::msm::{Msm, Step, any_script, prelude};
use tessera_machines_suite::script::{self, PAGE, WINDOW};

/// Most steps in a script.
const STEPS: usize = 16;

fn compare(script: &[script::Step<Step>], config: Config) -> Result<Tally, Difference> {
    compare::compare::<Msm>(script, RealMsm::open(), Emulated::msm(config))
}

/// The prelude and these steps.
fn after_prelude(steps: Vec<Step>) -> Vec<script::Step<Step>> {
    prelude().into_iter().chain(steps.into_iter().map(script::Step::Driver)).collect()
}

#[test]
fn generated() {
    play_all(&any_script(STEPS), |script| compare(&script, Config::default()));
}

/// The negative control: what an emulator does wrong is noticed.
#[test]
fn a_wrong_emulator() {
    let op =
        VmBindOp { op: VM_BIND_OP_MAP, handle: 1, iova: WINDOW.start, range: 4 * PAGE, ..Default::default() };
    let bind = Step::Bind { queue: 1, flags: 0, ops: vec![op], waits: vec![], signals: vec![] };
    let wrong = |faults| compare(&after_prelude(vec![bind.clone()]), Config { faults, ..Config::default() });
    let at = prelude().len();
    let op = Faults { op: Some(1), ..Faults::default() };
    assert!(matches!(wrong(op), Err(Difference::View { step, .. }) if step == at));
    assert!(wrong(Faults::default()).is_ok());
}

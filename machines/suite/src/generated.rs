//! Generated scripts: how many, from where on, and what they came to.

use std::cell::Cell;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::compare::{Difference, Tally};

/// How many scripts, unless the environment says otherwise.
const SCRIPTS: u32 = 200;

fn variable(name: &str) -> Option<u32> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// Has `play` play scripts at random, `SCRIPTS` of them, from `SEED` on. A difference is shrunk to a script that is as short as
/// can be, and panics.
pub fn play_all<S: Strategy>(scripts: &S, play: impl Fn(S::Value) -> Result<Tally, Difference>) {
    let cases = variable("SCRIPTS").unwrap_or(SCRIPTS);
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&variable("SEED").unwrap_or(1).to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let (done, refused) = (Cell::new(0), Cell::new(0));
    let result = runner.run(scripts, |script| {
        let fail = |difference: Difference| TestCaseError::fail(difference.to_string());
        let tally = play(script).map_err(fail)?;
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

//! Runs the suite against the layer that this workspace builds, on lavapipe: as it is, on the driver's own binding, in trap mode, under
//! the Khronos validation layer, and against a layer that maps nothing.
//!
//! `TESSERA_LAYER_LIB` names another library; `VK_DRIVER_FILES` or `VK_ICD_FILENAMES` another driver.

mod common;

use std::process::{Command, Output};

/// Runs `cts-runner suite` with the layer and `arguments`.
fn suite(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cts-runner"));
    command.arg("suite").arg("--layer").arg(common::library()).args(arguments);
    if !arguments.contains(&"--negative-control") {
        let kernel = match () {
            () if arguments.contains(&"emulated-msm") => "emulated-msm",
            () if arguments.contains(&"forward") => "forward-lavapipe",
            () => "emulated-lavapipe",
        };
        let known = format!("{}/expectations/{kernel}-fails.txt", env!("CARGO_MANIFEST_DIR"));
        command.args(["--baseline", &known]);
    }
    common::on_lavapipe(&mut command);
    command.output().expect("cts-runner runs")
}

/// Runs the suite and demands that nothing failed and that enough ran to mean something.
fn all_pass(arguments: &[&str], at_least: usize) {
    let output = suite(arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let failures: Vec<_> = text
        .lines()
        .filter(|line| !line.ends_with("(expected)"))
        .filter(|line| {
            ["Fail ", "Crash ", "Timeout ", "    | ", " known"].iter().any(|mark| line.contains(mark))
        })
        .collect();
    let last = text.lines().last().unwrap_or_default();
    assert!(
        output.status.success(),
        "{}\n{last}\n{}",
        failures.join("\n"),
        String::from_utf8_lossy(&output.stderr)
    );
    let passed: usize = last.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(passed >= at_least, "{passed} cases passed, at least {at_least} are expected to run: {last}");
}

#[test]
fn plain() {
    all_pass(&[], 380);
}

#[test]
fn plain_on_msm() {
    all_pass(&["--kernel", "emulated-msm"], 380);
}

#[test]
fn handed_to_the_driver() {
    all_pass(&["--kernel", "forward"], 350);
}

#[test]
fn unbound_pages_trap() {
    all_pass(&["--unbound", "trap"], 370);
}

#[test]
fn a_layer_that_maps_nothing_is_noticed() {
    all_pass(&["--negative-control"], 240);
}

#[test]
fn validation_is_silent_above_and_below() {
    // `both` would be every case twice, for which the time is short.
    all_pass(&["--validation", "alternating"], 360);
}

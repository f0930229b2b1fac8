//! The program `gpuvm-replay`, as a script sees it.
#![cfg(all(feature = "replay", not(miri)))]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

fn start(plan: bool) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpuvm-replay"));
    if plan {
        command.arg("--plan");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn replay(plan: bool, script: &[u8]) -> String {
    let mut child = start(plan);
    child.stdin.take().unwrap().write_all(script).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// A script with the answer to each line; lines that begin with a space, `=`, `.` or `>` are answers, and every
/// command is followed by `ok`.
#[track_caller]
fn conversation(plan: bool, text: &str) {
    let is_answer = |line: &str| line.starts_with(['>', '=', '.']);
    let (mut script, mut expected, mut open) = (String::new(), String::new(), false);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !is_answer(line) {
            expected.push_str(if open { "ok\n" } else { "" });
            open = true;
        }
        let to = if is_answer(line) { &mut expected } else { &mut script };
        to.push_str(line);
        to.push('\n');
    }
    expected.push_str("ok\n");
    assert_eq!(replay(plan, script.as_bytes()), expected, "\n{script}");
}

/// Maps `request` over `old` and expects the steps and what is mapped then; object a is 1, b is 2; n is page 0x10, m
/// page 0x90 of an object.
#[track_caller]
fn case(old: &str, request: &str, steps: &[&str], new: &[&str]) {
    let steps: String = steps.iter().map(|step| format!("> {step}\n")).collect();
    let new: String = new.iter().map(|mapping| format!("= {mapping}\n")).collect();
    conversation(
        false,
        &format!(
            "vm 0 0x10000\n map {old}\n > map {old}\n map {request}\n {steps}\n > map {request}\n dump\n {new}\n ."
        ),
    );
}

#[test]
fn the_fifteen_cases_of_drm_gpuvm() {
    // 1 identical, 2 other offset, 3 other object
    let old = "0x0 0x1000 0x1 0x10000";
    case(old, old, &["unmap 0x0 0x1000 0x1 0x10000 keep 0x1"], &[old]);
    for new in ["0x0 0x1000 0x1 0x90000", "0x0 0x1000 0x2 0x10000"] {
        case(old, new, &["unmap 0x0 0x1000 0x1 0x10000 keep 0x0"], &[new]);
    }
    // 4 the old one is the left part
    let new = "0x0 0x2000 0x1 0x10000";
    case(old, new, &["unmap 0x0 0x1000 0x1 0x10000 keep 0x1"], &[new]);
    // 5 the left part of the old one, other object; 6 the same object
    let (old, rest) = ("0x0 0x2000 0x1 0x10000", "0x1000 0x1000 0x1 0x11000");
    for (new, keep) in [("0x0 0x1000 0x2 0x10000", "0x0"), ("0x0 0x1000 0x1 0x10000", "0x1")] {
        let step =
            format!("remap unmap 0x0 0x2000 0x1 0x10000 keep {keep} prev - next 0x1000 0x1000 0x11000");
        case(old, new, &[&step], &[new, rest]);
    }
    // 7 the right part of the old one, other object; 8 the same object; 9 and 10 with more behind it
    let rest = "0x0 0x1000 0x1 0x10000";
    for (new, keep) in [
        ("0x1000 0x1000 0x2 0x90000", "0x0"),
        ("0x1000 0x1000 0x1 0x11000", "0x1"),
        ("0x1000 0x2000 0x2 0x90000", "0x0"),
        ("0x1000 0x2000 0x1 0x11000", "0x1"),
    ] {
        let step = format!("remap unmap 0x0 0x2000 0x1 0x10000 keep {keep} prev 0x0 0x1000 0x10000 next -");
        case(old, new, &[&step], &[rest, new]);
    }
    // 11 the middle of the old one, other object; 12 the same object
    let (old, prev, next) = ("0x0 0x3000 0x1 0x10000", "0x0 0x1000 0x1 0x10000", "0x2000 0x1000 0x1 0x12000");
    for (new, keep) in [("0x1000 0x1000 0x2 0x90000", "0x0"), ("0x1000 0x1000 0x1 0x11000", "0x1")] {
        let step =
            format!("remap unmap {old} keep {keep} prev 0x0 0x1000 0x10000 next 0x2000 0x1000 0x12000");
        case(old, new, &[&step], &[prev, new, next]);
    }
    // 13 the old one is the right part, 14 the middle
    let old = "0x1000 0x1000 0x1 0x11000";
    for new in ["0x0 0x2000 0x1 0x10000", "0x0 0x3000 0x1 0x10000"] {
        case(old, new, &["unmap 0x1000 0x1000 0x1 0x11000 keep 0x1"], &[new]);
    }
    // 15 over the beginning of the old one
    case(
        "0x1000 0x2000 0x1 0x10000",
        "0x0 0x2000 0x2 0x90000",
        &["remap unmap 0x1000 0x2000 0x1 0x10000 keep 0x0 prev - next 0x2000 0x1000 0x11000"],
        &["0x0 0x2000 0x2 0x90000", "0x2000 0x1000 0x1 0x11000"],
    );
}

#[test]
fn unmaps_and_mappings_without_object() {
    conversation(
        false,
        "vm 0 0x100000000
         map 0x1000 0x3000 - 0xfffffffffffff000
         > map 0x1000 0x3000 - 0xfffffffffffff000
         map 0x2000 0x1000 - 0
         > remap unmap 0x1000 0x3000 - 0xfffffffffffff000 keep 0x0 prev 0x1000 0x1000 0xfffffffffffff000 next 0x3000 0x1000 0x1000
         > map 0x2000 0x1000 - 0x0
         map 0x2000 0x1000 - 0
         > unmap 0x2000 0x1000 - 0x0 keep 0x0
         > map 0x2000 0x1000 - 0x0
         map 5 2 1048575 18446744073709551615
         > map 0x5 0x2 0xfffff 0xffffffffffffffff
         dump
         = 0x5 0x2 0xfffff 0xffffffffffffffff
         = 0x1000 0x1000 - 0xfffffffffffff000
         = 0x2000 0x1000 - 0x0
         = 0x3000 0x1000 - 0x1000
         .
         unmap 6 0x17fa
         > remap unmap 0x5 0x2 0xfffff 0xffffffffffffffff keep 0x0 prev 0x5 0x1 0xffffffffffffffff next -
         > remap unmap 0x1000 0x1000 - 0xfffffffffffff000 keep 0x0 prev - next 0x1800 0x800 0xfffffffffffff800
         unmap 6 0x17fa
         unmap 0 0x100000000
         > unmap 0x5 0x1 0xfffff 0xffffffffffffffff keep 0x0
         > unmap 0x1800 0x800 - 0xfffffffffffff800 keep 0x0
         > unmap 0x2000 0x1000 - 0x0 keep 0x0
         > unmap 0x3000 0x1000 - 0x1000 keep 0x0
         dump
         .",
    );
}

#[test]
fn the_first_error_that_applies_is_given() {
    let top = "0xffffffffffffffff";
    conversation(
        false,
        &format!(
            "dump
             > error ENODEV
             map 0 0 1048576 0
             > error ENODEV
             map 0 0 1048576
             > error ESYNTAX
             unmap 0 0
             > error ENODEV
             vm 0 0
             > error EINVAL
             vm 1 {top}
             > error EINVAL
             vm 0 {top} 1 {top}
             > error EINVAL
             vm 0 0x1000 0
             > error ESYNTAX
             vm 0 0x10000000000000000
             > error ESYNTAX
             dump
             > error ENODEV
             vm 0x1000 0x9000 0x3000 0x1000
             vm 0 0
             > error EEXIST
             vm 0
             > error ESYNTAX
             map 0 0 1048576 0
             > error ENOENT
             map 0 0 {top} 0
             > error ENOENT
             map 0 0 - 0
             > error EINVAL
             map 0x2000 0 1 0
             > error EINVAL
             map 0 0x2000 1 0
             > error EINVAL
             map 0x9000 0x1001 1 0
             > error EINVAL
             map 0x2fff 2 1 0
             > error EINVAL
             map 0x1000 {top} 1 0
             > error EINVAL
             unmap 0x3fff 1
             > error EINVAL
             unmap 0x1000 0x9000
             > error EINVAL
             begin
             > error ESYNTAX
             commit
             > error ESYNTAX
             quit
             > error ESYNTAX
             map 0x2000 0x1000 1048575 {top}
             > map 0x2000 0x1000 0xfffff {top}
             map 0x4000 0x6000 0 0
             > map 0x4000 0x6000 0x0 0x0
             dump
             = 0x2000 0x1000 0xfffff {top}
             = 0x4000 0x6000 0x0 0x0
             ."
        ),
    );
}

/// As drm_gpuvm_init() has it.
#[test]
fn the_reserved_range_may_be_empty_or_anywhere() {
    conversation(
        false,
        "vm 0 0x1000 0x800 0\n map 0 0x1000 1 0\n > map 0x0 0x1000 0x1 0x0\n dump\n = 0x0 0x1000 0x1 0x0\n .",
    );
    conversation(false, "vm 0x1000 0x1000 0 0x1001\n map 0x1000 1 1 0\n > error EINVAL\n dump\n .");
    conversation(
        false,
        "vm 0x1000 0x1000 0x5000 0x1000\n map 0x1000 0x1000 1 0\n > map 0x1000 0x1000 0x1 0x0",
    );
}

#[test]
fn lines_end_anyhow() {
    assert_eq!(replay(false, b""), "");
    assert_eq!(replay(false, b"\n# nothing\n\r\n   \n"), "");
    assert_eq!(replay(false, b"vm 0 16\r\n# \xff\r\n\tdump \r\ndump"), "ok\n.\nok\n.\nok\n");
    assert_eq!(replay(false, b"vm 0 16\0\n"), "> error ESYNTAX\nok\n");
    assert_eq!(replay(false, b"\xff\xfe\n"), "> error ESYNTAX\nok\n");
}

#[test]
fn a_batch_is_planned_as_a_whole() {
    conversation(
        true,
        "begin
         > error ENODEV
         commit
         > error ESYNTAX
         vm 0 0x100000 0x80000 0x1000
         commit
         > error ESYNTAX
         begin
         begin
         > error ESYNTAX
         commit 1
         > error ESYNTAX
         map 0x2000 0x1000 1 0x2000
         map 0x0 0x1000 1 0x0
         map 0x1000 0x1000 1 0x1000
         map 0x80000 0x1000 1 0
         > error EINVAL
         map 0x3000 0x1000 1048576 0
         > error ENOENT
         unmap 0x8000 0x1000
         dump
         .
         commit
         > map 0x0 0x3000 0x1 0x0
         commit
         > error ESYNTAX
         dump
         = 0x0 0x3000 0x1 0x0
         .
         begin
         commit
         map 0 0x3000 1 0
         unmap 0x3000 0x1000
         begin
         map 0x0 0x10000 2 0
         unmap 0x1000 0x1000
         map 0x1000 0x1000 1 0x1000
         unmap 0x4001 2
         map 0x8000 1 - 0xffffffffffffffff
         map 0x8001 1 - 0
         commit
         > map 0x0 0x1000 0x2 0x0
         > map 0x2000 0x2001 0x2 0x2000
         > map 0x4003 0x3ffd 0x2 0x4003
         > map 0x8000 0x2 - 0xffffffffffffffff
         > map 0x8002 0x7ffe 0x2 0x8002
         unmap 0 0x2000
         > unmap 0x0 0x2000
         dump
         = 0x2000 0x2001 0x2 0x2000
         = 0x4003 0x3ffd 0x2 0x4003
         = 0x8000 0x2 - 0xffffffffffffffff
         = 0x8002 0x7ffe 0x2 0x8002
         .
         begin
         unmap 0 0x10000",
    );
}

/// Every answer is there before the next command is given, also when a half of that has been written.
#[test]
fn it_can_be_talked_to() {
    let mut child = start(false);
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    input.write_all(b"vm 0 0x1000\ndu").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "ok");
    input.write_all(b"mp\n").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), ".");
    assert_eq!(answers.next().unwrap().unwrap(), "ok");
    drop(input);
    assert!(answers.next().is_none());
    assert!(child.wait().unwrap().success());
}

#[test]
fn nobody_listening_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gpuvm-replay"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    // It may be gone before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(&b"dump\n".repeat(100_000));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stderr, b"");
}

//! `cts-runner run`, `compare` and `triage` with a deqp-vk that crashes, hangs and wavers as it is told to (`fake-deqp-vk`). The CTS itself
//! is not needed; a Vulkan driver is, because a run makes sure of its device and layers first.

mod common;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake-deqp-vk");

const NATIVE: [&str; 7] = ["run", "--deqp", FAKE, "--kernel", "native", "--out", "out"];

/// A folder for results and for the memory of flaky cases.
struct Run {
    folder: TempDir,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(folder.path().join("state")).expect("a folder in it");
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a file");
        self.path(name)
    }

    fn prepare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cts-runner"));
        command.args(arguments).env("FAKE_STATE", self.path("state")).current_dir(self.folder.path());
        common::on_lavapipe(&mut command);
        command
    }

    fn command(&self, arguments: &[&str]) -> Output {
        self.prepare(arguments).output().expect("cts-runner runs")
    }

    /// Runs the fake natively.
    fn cts(&self, arguments: &[&str]) -> Output {
        self.command(&[&NATIVE[..], &["--timeout", "3"], arguments].concat())
    }

    /// The statuses in results.csv, by the name without `dEQP-VK.fake.`.
    fn statuses(&self) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.path("out/results.csv")).expect("results.csv");
        text.lines()
            .filter_map(|line| line.strip_prefix("dEQP-VK.fake."))
            .map(|line| {
                let mut cells = line.split(',').map(str::to_owned);
                (cells.next().expect("a case"), cells.next().expect("a status"))
            })
            .collect()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn crashes_and_hangs_lose_no_other_case() {
    let run = Run::new();
    let output = run.cts(&["--group", "fake", "--jobs", "2", "--env", "FAKE_VALUE=yes"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let statuses = run.statuses();
    assert_eq!(statuses.len(), 62);
    for group in ["alpha", "beta"] {
        for (end, status) in [
            ("pass", "Pass"),
            ("fail", "Fail"),
            ("warn", "Warn"),
            ("refused", "NotSupported"),
            ("crash", "Crash"),
            ("hang", "Timeout"),
            ("lost", "Crash"),
            ("flaky", "Flake"),
            ("env", "Pass"),
            ("layered", "NotSupported"),
            ("unlisted", "Missing"),
        ] {
            assert_eq!(statuses[&format!("{group}.{end}")], status, "{group}.{end}");
        }
        let many = statuses.iter().filter(|(case, _)| case.starts_with(&format!("{group}.many")));
        assert!(many.clone().all(|(_, status)| status == "Pass") && many.count() == 20);
    }
    let table = std::fs::read_to_string(run.path("out/results.md")).expect("results.md");
    let row = table.lines().find(|line| line.contains("dEQP-VK.fake.alpha")).expect("a row for the group");
    assert_eq!(
        row.split('|').map(str::trim).collect::<Vec<_>>()[2..],
        ["31", "22", "1", "1", "2", "1", "1", "1", "2", ""],
        "{table}"
    );
    let junit = std::fs::read_to_string(run.path("out/junit.xml")).expect("junit.xml");
    assert!(junit.contains("signal 11: about to crash"), "{junit}");
    assert!(junit.contains("tests=\"62\""), "{junit}");
    let crash = std::fs::read_dir(run.path("out/logs"))
        .expect("logs")
        .flatten()
        .any(|entry| std::fs::read_to_string(entry.path()).is_ok_and(|text| text.contains("about to crash")));
    assert!(crash, "the log of a process that crashed is kept");
}

#[test]
fn a_run_that_is_killed_leaves_the_results_so_far() {
    let run = Run::new();
    let hang = ["--group", "fake.alpha", "--jobs", "1", "--batch", "1", "--timeout", "60"];
    let mut command = run.prepare(&[&NATIVE[..], &hang].concat());
    let mut runner = command.process_group(0).stdout(Stdio::null()).spawn().expect("cts-runner runs");
    // Cases run in the order of a hash of their names: it is the same each time.
    let before = ["env", "fail", "warn"].map(|end| format!("alpha.{end}"));
    let results = Path::new(&run.path("out/results.csv")).to_owned();
    while !results.exists() || !before.iter().all(|case| run.statuses().contains_key(case)) {
        assert_eq!(runner.try_wait().expect("a child"), None, "ended before it was to hang");
        std::thread::sleep(Duration::from_millis(20));
    }
    let group = format!("-{}", runner.id());
    assert!(Command::new("kill").args(["-KILL", "--", &group]).status().is_ok_and(|status| status.success()));
    runner.wait().expect("a killed child");
    assert!(!Path::new(&run.path("out/results.md")).exists(), "it was killed in the midst of its cases");
    assert!(before.iter().all(|case| run.statuses().contains_key(case)));
}

#[test]
fn the_baseline_decides_what_is_worse() {
    let run = Run::new();
    // Known failures of groups that are not run say nothing.
    let fails = "# known\ndEQP-VK.fake.alpha.crash,Crash\ndEQP-VK.fake.alpha.fail,Fail # why\ndEQP-VK.fake.beta.x,Fail\n";
    let file = run.write("here-fails.txt", fails);
    run.write("here-flakes.txt", "dEQP-VK.fake.*.flaky\n");
    run.write("here-skips.txt", "# hangs\n.*\\.hang$\ndEQP-VK.fake.alpha.lost\n.*unlisted\n");
    let known = ["--group", "fake.alpha", "--env", "FAKE_VALUE=yes", "--baseline", &file];
    let output = run.cts(&known);
    assert!(output.status.success(), "{}", text(&output));
    let statuses = run.statuses();
    assert_eq!((&*statuses["alpha.hang"], &*statuses["alpha.lost"]), ("Skip", "Skip"));
    assert!(!statuses.contains_key("beta.pass"));

    // Better is not worse, but is said.
    run.write("here-fails.txt", &format!("{fails}dEQP-VK.fake.alpha.pass,Fail\n"));
    let output = run.cts(&known);
    assert!(output.status.success());
    assert!(
        text(&output).contains("dEQP-VK.fake.alpha.pass: passes where Fail is known"),
        "{}",
        text(&output)
    );

    for (lines, difference) in [
        ("dEQP-VK.fake.alpha.fail,Fail\n", "dEQP-VK.fake.alpha.crash: new Crash"),
        (
            "dEQP-VK.fake.alpha.crash,Fail\ndEQP-VK.fake.alpha.fail,Fail\n",
            "dEQP-VK.fake.alpha.crash: Crash where Fail is known",
        ),
        (
            &format!("{fails}dEQP-VK.fake.alpha.gone,Fail\n"),
            "dEQP-VK.fake.alpha.gone: in the baseline, but there is no such case",
        ),
    ] {
        run.write("here-fails.txt", lines);
        let output = run.cts(&known);
        assert_eq!(output.status.code(), Some(1), "{lines}");
        assert!(text(&output).contains(difference), "{}", text(&output));
    }

    // What a run writes is a baseline.
    let failures = std::fs::read_to_string(run.path("out/failures.txt")).expect("failures.txt");
    run.write("here-fails.txt", &failures);
    assert!(run.cts(&known).status.success());
}

#[test]
fn shards_and_lists_choose() {
    let run = Run::new();
    let mut seen = Vec::new();
    for shard in ["1/3", "2/3", "3/3"] {
        assert!(run.cts(&["--group", "fake", "--filter", "many", "--shard", shard]).status.success());
        seen.extend(run.statuses().into_keys());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 40);

    let list =
        run.write("list.txt", "dEQP-VK.fake.alpha.pass\ndEQP-VK.fake.beta.pass\ndEQP-VK.fake.new.pass\n");
    let output = run.cts(&["--caselist", &list]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("dEQP-VK.fake.new.pass: new Missing"), "{}", text(&output));
    assert!(run.cts(&["--caselist", &list, "--group", "fake.beta"]).status.success());
    assert_eq!(run.statuses().len(), 1);
}

#[test]
fn a_deqp_that_cannot_start_is_an_error_and_no_result() {
    let run = Run::new();
    let output = run.cts(&["--group", "fake", "--env", "FAKE_BROKEN=1"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("VK_ERROR_INCOMPATIBLE_DRIVER"), "{}", text(&output));
    assert_eq!(run.cts(&["--group", "nothing"]).status.code(), Some(2));
    assert_eq!(run.cts(&["--trap"]).status.code(), Some(2), "there is nothing to trap natively");
}

#[test]
fn two_results_are_put_side_by_side() {
    let run = Run::new();
    let a = run.write("a.csv", "case,status\ndEQP-VK.fake.alpha.x,Pass\ndEQP-VK.fake.alpha.y,Crash\n");
    let b = run.write("b.csv", "case,status\ndEQP-VK.fake.alpha.x,Fail\ndEQP-VK.fake.alpha.y,Pass\n");
    let output = run.command(&["compare", &a, &b]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(said.contains("Pass -> Fail (worse), 1 cases:\n* dEQP-VK.fake.alpha.x"), "{said}");
    assert!(said.contains("Crash -> Pass, 1 cases:\n* dEQP-VK.fake.alpha.y"), "{said}");
    assert!(run.command(&["compare", &a, &a]).status.success());
    assert_eq!(run.command(&["compare", &a, "nowhere"]).status.code(), Some(2));
}

#[test]
fn triage_collects_what_a_case_leaves() {
    let run = Run::new();
    let triage = |case: &str| {
        run.command(&[
            "triage",
            case,
            "--deqp",
            FAKE,
            "--kernel",
            "native",
            "--env",
            "FAKE_VALUE=it's me",
            "--out",
            "t",
        ])
    };
    let output = triage("dEQP-VK.fake.beta.crash");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let folder = run.folder.path().join("t");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of triage");
    assert!(read("summary.md").contains("Crash        dEQP-VK.fake.beta.crash"));
    assert!(read("native/case.err").contains("about to crash"));
    assert!(read("native/case.qpa").contains("#beginTestCaseResult dEQP-VK.fake.beta.crash"));
    assert!(read("native/environment.sh").contains("export FAKE_VALUE='it'\\''s me'"));
    assert!(triage("dEQP-VK.fake.beta.pass").status.success());
    assert_eq!(triage("dEQP-VK.fake.beta.nothing").status.code(), Some(2));
    assert!(Path::new(FAKE).parent().is_some_and(|folder| !folder.join("TestResults.qpa").exists()));
}

#[test]
fn deqp_runs_under_the_layer_and_its_switches() {
    let run = Run::new();
    let layer = common::library().to_str().expect("UTF-8");
    let arguments =
        ["run", "--deqp", FAKE, "--layer", layer, "--trap", "--out", "out", "--group", "fake.beta.layered"];
    let output = run.command(&arguments);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(run.statuses()["beta.layered"], "Pass");
    assert!(text(&output).contains("VK_LAYER_TESSERA_sparse_binding"), "{}", text(&output));
}

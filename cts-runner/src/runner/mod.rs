//! Runs the suite: a process a case, so that a crash or a hang loses that case alone.

pub(crate) mod child;

use crate::baseline::Baseline;
use crate::environment::{Environment, Place};
use crate::report::{self, Record, Status, Tally};
use crate::settings::{Kernel, Listening, Settings, Unbound};
use crate::suite::{self, Case};
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wait_timeout::ChildExt as _;

/// Where the Khronos validation layer listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Validation {
    None,
    Above,
    Below,
    /// Every case twice: the loader loads a layer only once an instance.
    Both,
    /// Every case once: above and below by turns.
    Alternating,
}

/// The options of `cts-runner suite`.
#[derive(Args)]
pub(crate) struct SuiteArguments {
    /// Who executes the binds: the layer's kernels, or the driver alone
    #[arg(long, value_enum, default_value_t = Kernel::Auto)]
    kernel: Kernel,
    /// Only cases whose name contains this
    #[arg(long, value_name = "SUBSTR")]
    filter: Option<String>,
    /// Lists the cases instead of running them
    #[arg(long)]
    list: bool,
    /// What unbound pages do under an emulated kernel; `trap` skips the cases that touch some on purpose
    #[arg(long, value_enum, default_value_t = Unbound::Zero)]
    unbound: Unbound,
    /// Where the Khronos validation layer listens; its messages fail a case
    #[arg(long, value_enum, default_value_t = Validation::None)]
    validation: Validation,
    #[command(flatten)]
    place: Place,
    /// `TESSERA_FAULT` for every case, such as map-nothing
    #[arg(long, value_name = "SPEC")]
    fault: Option<String>,
    /// Runs the cases that notice a layer which maps nothing, against such a layer: passes when each of them fails
    #[arg(long, conflicts_with = "fault")]
    negative_control: bool,
    /// Cases at a time [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Seconds that a case may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    /// Known failures, as lines `case,Status`: only what differs from them fails the run. NAME-flakes.txt beside
    /// NAME-fails.txt lists cases whose end does not matter, NAME-skips.txt those that are not run
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Writes the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// One run of one case.
struct Job<'a> {
    case: &'a Case,
    settings: Settings,
}

/// Runs the suite as `arguments` say. `Ok(true)`: all is as expected.
pub(crate) fn run(arguments: &SuiteArguments) -> Result<bool> {
    let all = suite::cases();
    let wanted: Vec<&Case> = all
        .iter()
        .filter(|case| arguments.filter.as_ref().is_none_or(|part| case.name.contains(part.as_str())))
        .filter(|case| !arguments.negative_control || case.detects_missing_maps)
        .collect();
    if wanted.is_empty() {
        bail!("no case's name contains {:?}", arguments.filter.as_deref().unwrap_or_default());
    }
    if arguments.list {
        for case in &wanted {
            println!("{}", case.name);
        }
        return Ok(true);
    }
    let baseline = arguments.baseline.as_deref().map(Baseline::read).transpose()?;
    let listening: &[Listening] = match arguments.validation {
        Validation::None => &[Listening::None],
        Validation::Above => &[Listening::Above],
        Validation::Below => &[Listening::Below],
        Validation::Both | Validation::Alternating => &[Listening::Above, Listening::Below],
    };
    let settings: Vec<Settings> = listening
        .iter()
        .map(|&listening| Settings { kernel: arguments.kernel, unbound: arguments.unbound, listening })
        .collect();
    if arguments.negative_control && !settings.iter().all(Settings::emulated) {
        bail!("--negative-control needs an emulated kernel: only these can be told to map nothing");
    }
    let environment = Environment::new(&arguments.place, None)?;
    for settings in &settings {
        println!("{}", environment.probe(settings, |command| fault(arguments, settings, None, command))?);
    }
    let every = if arguments.validation == Validation::Alternating { settings.len() } else { 1 };
    let jobs: Vec<Job<'_>> = wanted
        .iter()
        .enumerate()
        .flat_map(|(turn, case)| {
            let settings = settings.iter().skip(turn % every).step_by(every);
            settings.map(|settings| Job { case, settings: settings.clone() })
        })
        .collect();
    let records = run_all(arguments, &environment, &jobs, baseline.as_ref())?;
    if let Some(file) = &arguments.junit {
        report::write_junit(file, "tessera suite", &records)?;
    }
    let tally = Tally::of(&records);
    let good = match baseline.map(|baseline| baseline.differences(&records)) {
        Some(differences) => {
            differences.iter().for_each(|line| println!("{line}"));
            differences.is_empty()
        }
        None => tally.failed == 0,
    };
    println!("{tally}");
    Ok(good)
}

/// Tells `command` which faults the emulated kernel is to show.
fn fault(arguments: &SuiteArguments, settings: &Settings, case: Option<&Case>, command: &mut Command) {
    let fault = if arguments.negative_control { Some("map-nothing") } else { arguments.fault.as_deref() };
    if let Some(fault) = case.and_then(|case| case.fault.as_deref()).or(fault).filter(|_| settings.layer()) {
        command.env("TESSERA_FAULT", fault);
    }
    match case.and_then(Case::added_queues).filter(|_| settings.layer()) {
        Some(queues) => command.env("TESSERA_SPARSE_QUEUES", queues),
        None => command.env_remove("TESSERA_SPARSE_QUEUES"),
    };
}

fn run_all(
    arguments: &SuiteArguments,
    environment: &Environment,
    jobs: &[Job<'_>],
    baseline: Option<&Baseline>,
) -> Result<Vec<Record>> {
    let threads = threads(arguments.jobs)?;
    let next = AtomicUsize::new(0);
    let records = Mutex::new(Vec::with_capacity(jobs.len()));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let record = judge(arguments, job, run_job(arguments, environment, job, baseline)?);
                        let expected = baseline.is_some_and(|baseline| baseline.expects(&record));
                        let mut records = records.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        println!("[{}/{}] {}", records.len() + 1, jobs.len(), record.line(expected));
                        records.push(record);
                    }
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a worker of the suite panicked"),
            }
        }
        Ok(())
    })?;
    let mut records = records.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    records.sort_by(|a: &Record, b| (&a.case, &a.variant).cmp(&(&b.case, &b.variant)));
    Ok(records)
}

/// How many jobs run at a time.
pub(crate) fn threads(asked: Option<usize>) -> Result<usize> {
    match asked {
        Some(0) => bail!("--jobs 0 would run nothing"),
        Some(threads) => Ok(threads),
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

/// Turns a result around under the negative control: a case that passes did not notice that nothing is mapped.
fn judge(arguments: &SuiteArguments, job: &Job<'_>, mut record: Record) -> Record {
    if !arguments.negative_control {
        return record;
    }
    match record.status {
        Status::Fail | Status::Crash | Status::Timeout => {
            record.message = format!("noticed: {}", record.message.lines().next().unwrap_or_default());
            record.status = Status::Pass;
        }
        Status::Pass => {
            record.message = format!("{} passes although nothing is mapped", job.case.name);
            record.status = Status::Fail;
        }
        _ => {}
    }
    record
}

fn run_job(
    arguments: &SuiteArguments,
    environment: &Environment,
    job: &Job<'_>,
    baseline: Option<&Baseline>,
) -> Result<Record> {
    let variant = match job.settings.listening {
        Listening::None => None,
        Listening::Above => Some("validation-above"),
        Listening::Below => Some("validation-below"),
    };
    let mut record = Record { variant, ..Record::new(&job.case.name) };
    let faulty = arguments.fault.is_some() || arguments.negative_control;
    if let Some(reason) = job.case.skip_reason(&job.settings, faulty) {
        record.message = reason.to_owned();
        return Ok(record);
    }
    if baseline.is_some_and(|baseline| baseline.skips(&job.case.name)) {
        record.message = "skipped by the baseline".to_owned();
        return Ok(record);
    }
    let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
    environment.apply(&job.settings, &mut command);
    fault(arguments, &job.settings, Some(job.case), &mut command);
    command.arg("case").arg(&job.case.name).args(job.settings.arguments());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut process = command.spawn().context("cannot start a case")?;
    // Both pipes are drained while the child runs, or a talkative child would block.
    let drain = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                // What came before an error is still worth showing.
                let _ = stream.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = drain(process.stdout.take().map(|stream| Box::new(stream) as _));
    let stderr = drain(process.stderr.take().map(|stream| Box::new(stream) as _));
    let status =
        process.wait_timeout(Duration::from_secs(arguments.timeout)).context("waiting for a case")?;
    if status.is_none() {
        // It may have ended by itself since.
        let _ = process.kill();
        process.wait().context("waiting for a killed case")?;
    }
    record.duration = begin.elapsed();
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    let report = stdout
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix(child::MARK))
        .and_then(|line| serde_json::from_str::<child::Report>(line).ok());
    record.output = format!("{stdout}{stderr}");
    (record.status, record.message) = match (status, report) {
        (None, _) => (Status::Timeout, format!("still running after {} s", arguments.timeout)),
        (Some(status), Some(report)) if status.success() => (report.status.into(), report.message),
        (Some(status), report) => {
            let after = report.map_or("", |_| " after its end");
            let how = match status.signal() {
                Some(signal) => format!("signal {signal}{after}"),
                None => format!("{status}{after}"),
            };
            let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            (Status::Crash, format!("{how} {last}").trim_end().to_owned())
        }
    };
    // A validation layer that found no messenger writes to standard output.
    if record.status == Status::Pass
        && let Some(line) = record.output.lines().find(|line| line.contains("Validation Error"))
    {
        record.message = line.to_owned();
        record.status = Status::Fail;
    }
    Ok(record)
}

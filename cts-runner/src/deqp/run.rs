//! `cts-runner run`: cases in batches, a process a batch, several at a time.

use super::cases::{self, Selection};
use super::target::{Manner, Target, TargetArguments};
use crate::baseline::{Baseline, Difference};
use crate::report::{self, Record, Status, Tally};
use crate::runner::threads;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The options of `cts-runner run`.
#[derive(Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    selection: Selection,
    /// What is known: NAME-fails.txt with lines `case,Status`, and NAME-flakes.txt and NAME-skips.txt beside it with names or regular
    /// expressions. Only what is worse fails the run
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Folder for results.csv, results.md, junit.xml, failures.txt (usable as a baseline), and the logs of processes with failures
    #[arg(long, value_name = "DIR", default_value = "out/cts")]
    out: PathBuf,
    /// Processes at a time [default: one a processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Cases a process at most
    #[arg(long, value_name = "N", default_value_t = 250)]
    batch: usize,
}

/// How many differences are printed; the rest is in results.md.
const PRINTED: usize = 50;
/// Above this many unexpected failures it is no matter of flakes, and nothing is run again.
const AGAIN: usize = 200;
/// How often progress is told where there is no terminal to draw on.
const TELL: Duration = Duration::from_secs(30);

/// Runs the CTS as `arguments` say. `Ok(true)`: nothing is worse than the baseline, or without one, nothing failed.
pub(crate) fn run(arguments: &RunArguments) -> Result<bool> {
    if arguments.batch == 0 {
        bail!("--batch 0 would run nothing");
    }
    let target = Target::new(&arguments.target, None)?;
    let baseline = arguments.baseline.as_deref().map(Baseline::read).transpose()?;
    let out = std::path::absolute(&arguments.out).context("--out")?;
    let logs = out.join("logs");
    if logs.exists() {
        std::fs::remove_dir_all(&logs).with_context(|| logs.display().to_string())?;
    }
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let seen = target.probe(&target.settings)?;
    println!("{seen}");
    let cases = arguments.selection.find(&target, &out)?;
    let known = baseline.unwrap_or_default();
    let (skipped, wanted): (Vec<_>, Vec<_>) =
        cases.chosen.iter().cloned().partition(|case| known.skips(case));

    let workers = threads(arguments.jobs)?;
    println!("{} of {} cases, {workers} at a time", cases.chosen.len(), cases.all.len());
    crate::runner::child::no_core_files();
    let begin = Instant::now();
    let results = out.join("results.csv");
    let work = Work::new(&target, &known, &logs, &results, wanted.len());
    work.all(&cases::batches(&wanted, arguments.batch, workers), workers)?;
    work.again(workers)?;
    let Shared { mut records, notes, .. } = work.finish();
    records.extend(
        skipped.iter().map(|case| Record { message: "skipped by the baseline".into(), ..Record::new(case) }),
    );
    records.sort_by(|a, b| a.case.cmp(&b.case));

    let mut differences = known.differences(&records);
    let all: HashSet<&str> = cases.all.iter().map(String::as_str).collect();
    differences.extend(known.gone(|case| arguments.selection.covers(case) && !all.contains(case)));
    let table = report::markdown(&records);
    let tally = format!("{} in {}", Tally::of(&records), HumanDuration(begin.elapsed()));
    report::write_csv(&results, &records)?;
    report::write_junit(&out.join("junit.xml"), "deqp-vk", &records)?;
    let write = |name: &str, text: String| {
        std::fs::write(out.join(name), text)
            .with_context(|| format!("cannot write {name} in {}", out.display()))
    };
    let failures =
        records.iter().filter(|record| record.status.is_failure() && record.status != Status::Flake);
    write("failures.txt", failures.map(|record| format!("{},{}\n", record.case, record.status)).collect())?;
    let lines: Vec<_> = differences.iter().map(Difference::to_string).chain(notes.iter().cloned()).collect();
    write(
        "results.md",
        format!(
            "{seen}\n\n{table}\n\n{tally}\n{}",
            lines.iter().map(|line| format!("\n* {line}")).collect::<String>()
        ),
    )?;
    println!("{table}");
    lines.iter().take(PRINTED).for_each(|line| println!("{line}"));
    if lines.len() > PRINTED {
        println!("... and {} more, see {}", lines.len() - PRINTED, out.join("results.md").display());
    }
    println!("{tally}; results in {}", out.display());
    Ok(notes.is_empty() && !differences.iter().any(Difference::is_worse))
}

/// What the workers share.
struct Work<'a> {
    target: &'a Target,
    known: &'a Baseline,
    logs: &'a Path,
    /// Holds what is known after each batch, so that a run that is ended loses no more than a batch.
    results: &'a Path,
    /// Number of the next process, for the names of its files.
    process: AtomicUsize,
    /// A worker met an error: the others need not go on.
    stop: AtomicBool,
    bar: ProgressBar,
    shared: Mutex<Shared>,
}

struct Shared {
    records: Vec<Record>,
    /// What went wrong outside of any case.
    notes: Vec<String>,
    told: Instant,
}

impl<'a> Work<'a> {
    fn new(target: &'a Target, known: &'a Baseline, logs: &'a Path, results: &'a Path, cases: usize) -> Self {
        let bar = ProgressBar::new(cases as u64);
        if let Ok(style) =
            ProgressStyle::with_template("[{elapsed}] {wide_bar} {pos}/{len}, {eta} left; {msg}")
        {
            bar.set_style(style);
        }
        let shared = Shared { records: Vec::with_capacity(cases), notes: Vec::new(), told: Instant::now() };
        Self {
            target,
            known,
            logs,
            results,
            process: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            bar,
            shared: Mutex::new(shared),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs all `batches`.
    fn all(&self, batches: &[&[String]], workers: usize) -> Result<()> {
        self.spread(workers, batches, |batch| self.keep(self.batch(batch)?))
    }

    /// Runs unexpected failures again, each in a process of its own. One that ends in another way depends on chance or on the cases before
    /// it.
    fn again(&self, workers: usize) -> Result<()> {
        let failed: Vec<String> = {
            let shared = self.shared();
            let failed = shared.records.iter().filter(|record| record.status.is_failure());
            let failed =
                failed.filter(|record| record.status != Status::Missing && !self.known.expects(record));
            failed.map(|record| record.case.clone()).collect()
        };
        if failed.is_empty() || failed.len() > AGAIN {
            return Ok(());
        }
        self.bar.suspend(|| println!("{} unexpected failures: each again, alone", failed.len()));
        self.bar.inc_length(failed.len() as u64);
        self.spread(workers, &failed, |case| {
            let second = self.batch(std::slice::from_ref(case))?;
            let mut shared = self.shared();
            let first = shared.records.iter_mut().find(|record| record.case == *case);
            if let (Some(first), Some(second)) = (first, second.first())
                && first.status != second.status
            {
                first.message = format!("{}, alone {}: {}", first.status, second.status, first.message);
                first.status = Status::Flake;
            }
            Ok(())
        })
    }

    /// Has `workers` threads take `items` in order.
    fn spread<T: Sync>(
        &self,
        workers: usize,
        items: &[T],
        work: impl Fn(&T) -> Result<()> + Sync,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let worker = || -> Result<()> {
                while !self.stop.load(Ordering::Relaxed)
                    && let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    work(item).inspect_err(|_| self.stop.store(true, Ordering::Relaxed))?;
                }
                Ok(())
            };
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
            for worker in workers {
                match worker.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("a worker panicked"),
                }
            }
            Ok(())
        })
    }

    /// Runs the cases of one batch, in as many processes as it takes.
    fn batch(&self, batch: &[String]) -> Result<Vec<Record>> {
        let mut left: Vec<&str> = batch.iter().map(String::as_str).collect();
        let (mut records, mut barren) = (Vec::<Record>::new(), 0);
        while !left.is_empty() {
            let number = self.process.fetch_add(1, Ordering::Relaxed);
            let stem = self.logs.join(format!("{number:05}"));
            let manner = Manner { settings: &self.target.settings, variables: &[], thorough: false };
            let session = self.target.run(&manner, &left, &stem, || self.step())?;
            let done: HashSet<&str> = session.records.iter().map(|record| record.case.as_str()).collect();
            left.retain(|case| !done.contains(case));
            let failed = session.records.iter().any(|record| record.status.is_failure());
            let in_case = matches!(
                session.records.last(),
                Some(Record { status: Status::Crash | Status::Timeout, .. })
            );
            for message in session.outside {
                // Every process says the same.
                let notes = &mut self.shared().notes;
                if !notes.contains(&message) {
                    notes.push(message);
                }
            }
            if session.records.is_empty() {
                barren += 1;
            } else {
                barren = 0;
                if let Some(how) = session.bad_end.as_ref().filter(|_| !in_case) {
                    self.shared().notes.push(format!(
                        "a process ended badly after its cases: {how}; the last was {}",
                        session.records.last().map_or("", |record| &record.case)
                    ));
                }
            }
            if !failed && session.bad_end.is_none() {
                remove_logs(&stem);
            }
            records.extend(session.records);
            let reason = match session.bad_end {
                None if barren > 0 => "deqp-vk does not know this case".to_owned(),
                // Once may be chance.
                Some(how) if barren > 1 => format!("deqp-vk ends before it begins a case: {how}"),
                _ => continue,
            };
            if barren > 1 && records.is_empty() && self.shared().records.is_empty() {
                bail!("{reason}");
            }
            for case in left.drain(..) {
                records.push(Record {
                    status: Status::Missing,
                    message: reason.clone(),
                    ..Record::new(case)
                });
                self.step();
            }
        }
        Ok(records)
    }

    /// Counts a case that ended.
    fn step(&self) {
        self.bar.inc(1);
        if !self.bar.is_hidden() {
            return;
        }
        let mut shared = self.shared();
        if shared.told.elapsed() > TELL {
            shared.told = Instant::now();
            let (at, of) = (self.bar.position(), self.bar.length().unwrap_or(0));
            println!("{at}/{of}, {} left; {}", HumanDuration(self.bar.eta()), counted(&shared.records));
        }
    }

    /// Takes results, writes all that there are, and shows those that were not expected.
    fn keep(&self, records: Vec<Record>) -> Result<()> {
        let mut shared = self.shared();
        for record in &records {
            if record.status.is_failure() && !self.known.expects(record) {
                self.bar.suspend(|| println!("{}", record.summary()));
            }
        }
        shared.records.extend(records);
        self.bar.set_message(counted(&shared.records));
        report::write_csv(self.results, &shared.records)
    }

    fn finish(self) -> Shared {
        self.bar.finish_and_clear();
        self.shared.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counts of all statuses in one line.
fn counted(records: &[Record]) -> String {
    let (_, all) = report::counts(records);
    all.iter().map(|(status, count)| format!("{count} {status}")).collect::<Vec<_>>().join(", ")
}

/// Removes the files of a process that nobody will ask for.
fn remove_logs(stem: &Path) {
    for extension in ["cases", "qpa", "out", "err", "shadercache"] {
        // Not every process writes every file.
        let _ = std::fs::remove_file(stem.with_extension(extension));
    }
}

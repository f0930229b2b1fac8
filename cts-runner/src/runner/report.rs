//! Results: one line a case, the summary, JUnit.

use super::child::Ended;
use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Pass,
    Fail,
    Crash,
    Timeout,
    NotSupported,
    Skip,
}

impl Status {
    /// Whether the case ran and went wrong.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Fail | Self::Crash | Self::Timeout)
    }

    /// The status of this name, as baselines spell it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Pass, Self::Fail, Self::Crash, Self::Timeout, Self::NotSupported, Self::Skip]
            .into_iter()
            .find(|status| status.to_string() == name)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("{self:?}"))
    }
}

impl From<Ended> for Status {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Pass => Self::Pass,
            Ended::Fail => Self::Fail,
            Ended::NotSupported => Self::NotSupported,
            Ended::Skip => Self::Skip,
        }
    }
}

/// The result of one run of one case.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) case: String,
    /// What tells several runs of a case in one run of the suite apart.
    pub(crate) variant: Option<&'static str>,
    pub(crate) status: Status,
    /// Why, unless it passed.
    pub(crate) message: String,
    pub(crate) duration: Duration,
    /// Everything that the child wrote.
    pub(crate) output: String,
}

/// How many lines of a failed case's output are shown.
const OUTPUT_LINES: usize = 12;

impl Record {
    /// The name with the variant.
    pub(crate) fn name(&self) -> String {
        match self.variant {
            Some(variant) => format!("{}@{variant}", self.case),
            None => self.case.clone(),
        }
    }

    /// What is printed when the case has ended; an expected failure without its output.
    pub(crate) fn line(&self, expected: bool) -> String {
        let mut line = format!("{:<12} {} ({:.2} s)", self.status, self.name(), self.duration.as_secs_f64());
        if !self.message.is_empty() {
            line += &format!(": {}", self.message);
        }
        if self.status.is_failure() && expected {
            line += " (expected)";
        } else if self.status.is_failure() {
            let output: Vec<_> = self
                .output
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with(super::child::MARK))
                .filter(|line| line.strip_prefix("failed: ") != Some(self.message.as_str()))
                .collect();
            for text in &output[output.len().saturating_sub(OUTPUT_LINES)..] {
                line += &format!("\n    | {text}");
            }
        }
        line
    }
}

/// The counts of the summary.
pub(crate) struct Tally {
    passed: usize,
    pub(crate) failed: usize,
    skipped: usize,
}

impl Tally {
    pub(crate) fn of(records: &[Record]) -> Self {
        let count =
            |wanted: fn(Status) -> bool| records.iter().filter(|record| wanted(record.status)).count();
        Self {
            passed: count(|status| status == Status::Pass),
            failed: count(Status::is_failure),
            skipped: count(|status| matches!(status, Status::NotSupported | Status::Skip)),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Writes `records` as JUnit XML, a test suite an area.
pub(crate) fn write_junit(file: &Path, records: &[Record]) -> Result<()> {
    let mut report = quick_junit::Report::new("tessera suite");
    let area = |record: &Record| record.case.split('.').next().unwrap_or_default().to_owned();
    for chunk in records.chunk_by(|a, b| area(a) == area(b)) {
        let mut suite = TestSuite::new(area(&chunk[0]));
        for record in chunk {
            let mut status = match record.status {
                Status::Pass => TestCaseStatus::success(),
                Status::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Status::Crash | Status::Timeout => TestCaseStatus::non_success(NonSuccessKind::Error),
                Status::NotSupported | Status::Skip => TestCaseStatus::skipped(),
            };
            if !record.message.is_empty() {
                status.set_type(record.status.to_string()).set_message(record.message.as_str());
            }
            let mut case = TestCase::new(record.name(), status);
            case.set_time(record.duration);
            if record.status.is_failure() {
                case.set_system_out(record.output.as_str());
            }
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
    }
    let text = report.to_string().context("JUnit")?;
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

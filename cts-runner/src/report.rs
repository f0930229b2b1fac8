//! Results of both suites: one line a case, the summary, CSV, JUnit, a table per group.

use crate::runner::child::{Ended, MARK};
use anyhow::{Context as _, Result};
use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Status {
    Pass,
    /// Passes with a remark of the suite, such as low quality.
    Warn,
    Fail,
    Crash,
    Timeout,
    /// Failed, and ended in another way when it was run again alone.
    Flake,
    /// Asked for, and never begun.
    Missing,
    NotSupported,
    Skip,
}

impl Status {
    /// All, in the order of tables.
    pub(crate) const ALL: [Self; 9] = [
        Self::Pass,
        Self::Warn,
        Self::Fail,
        Self::Crash,
        Self::Timeout,
        Self::Flake,
        Self::Missing,
        Self::NotSupported,
        Self::Skip,
    ];

    /// Whether the case went wrong.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Fail | Self::Crash | Self::Timeout | Self::Flake | Self::Missing)
    }

    /// The status of this name, as baselines spell it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.to_string() == name)
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
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) case: String,
    /// What tells several runs of a case in one run of the suite apart.
    pub(crate) variant: Option<&'static str>,
    pub(crate) status: Status,
    /// Why, unless it passed.
    pub(crate) message: String,
    pub(crate) duration: Duration,
    /// Everything that was written meanwhile.
    pub(crate) output: String,
}

/// How many lines of a failed case's output are shown.
const OUTPUT_LINES: usize = 12;

impl Record {
    /// A case that has not been run.
    pub(crate) fn new(case: &str) -> Self {
        Self {
            case: case.to_owned(),
            variant: None,
            status: Status::Skip,
            message: String::new(),
            duration: Duration::ZERO,
            output: String::new(),
        }
    }

    /// The name with the variant.
    pub(crate) fn name(&self) -> String {
        match self.variant {
            Some(variant) => format!("{}@{variant}", self.case),
            None => self.case.clone(),
        }
    }

    /// What is printed when the case has ended; an expected failure without its output.
    pub(crate) fn line(&self, expected: bool) -> String {
        let mut line = self.summary();
        if self.status.is_failure() && expected {
            line += " (expected)";
        } else if self.status.is_failure() {
            let output: Vec<_> = self
                .output
                .lines()
                .filter(|line| !line.is_empty() && !line.starts_with(MARK))
                .filter(|line| line.strip_prefix("failed: ") != Some(self.message.as_str()))
                .collect();
            for text in &output[output.len().saturating_sub(OUTPUT_LINES)..] {
                line += &format!("\n    | {text}");
            }
        }
        line
    }

    /// Status, name, duration and message.
    pub(crate) fn summary(&self) -> String {
        let mut line = format!("{:<12} {} ({:.2} s)", self.status, self.name(), self.duration.as_secs_f64());
        if !self.message.is_empty() {
            line += &format!(": {}", self.message);
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
            passed: count(|status| matches!(status, Status::Pass | Status::Warn)),
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

/// The group of a case: the area of our own suite, package, test group and group of the CTS.
pub(crate) fn group(case: &str) -> &str {
    let parts = if case.starts_with("dEQP-") { 3 } else { 1 };
    case.match_indices('.').nth(parts - 1).map_or(case, |(end, _)| &case[..end])
}

/// Writes `records`, which are in order, as JUnit XML, a test suite a group.
pub(crate) fn write_junit(file: &Path, name: &str, records: &[Record]) -> Result<()> {
    let mut report = quick_junit::Report::new(name);
    for chunk in records.chunk_by(|a, b| group(&a.case) == group(&b.case)) {
        let mut suite = TestSuite::new(group(&chunk[0].case));
        for record in chunk {
            let mut status = match record.status {
                Status::Pass | Status::Warn => TestCaseStatus::success(),
                Status::Fail | Status::Flake => TestCaseStatus::non_success(NonSuccessKind::Failure),
                Status::Crash | Status::Timeout | Status::Missing => {
                    TestCaseStatus::non_success(NonSuccessKind::Error)
                }
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

/// A line of `results.csv`.
#[derive(Serialize, Deserialize)]
struct Row {
    case: String,
    status: Status,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    message: String,
}

/// Writes `records` as CSV with a heading.
pub(crate) fn write_csv(file: &Path, records: &[Record]) -> Result<()> {
    let context = || format!("cannot write {}", file.display());
    let mut writer = csv::Writer::from_path(file).with_context(context)?;
    for record in records {
        let row = Row {
            case: record.name(),
            status: record.status,
            seconds: record.duration.as_micros() as f64 / 1e6,
            message: record.message.clone(),
        };
        writer.serialize(row).with_context(context)?;
    }
    writer.flush().with_context(context)
}

/// Reads what [`write_csv`] wrote; columns but `case` and `status` may be absent.
pub(crate) fn read_csv(file: &Path) -> Result<Vec<Record>> {
    let context = || format!("cannot read {}", file.display());
    let mut records = Vec::new();
    for row in csv::Reader::from_path(file).with_context(context)?.deserialize() {
        let row: Row = row.with_context(context)?;
        let duration = Duration::try_from_secs_f64(row.seconds).with_context(context)?;
        records.push(Record { status: row.status, duration, message: row.message, ..Record::new(&row.case) });
    }
    Ok(records)
}

/// How often each status was reached.
pub(crate) type Counts = BTreeMap<Status, usize>;

/// The counts of each group, in order, and of all.
pub(crate) fn counts<'a>(
    records: impl IntoIterator<Item = &'a Record>,
) -> (BTreeMap<&'a str, Counts>, Counts) {
    let (mut groups, mut all) = (BTreeMap::<_, Counts>::new(), Counts::new());
    for record in records {
        *groups.entry(group(&record.case)).or_default().entry(record.status).or_default() += 1;
        *all.entry(record.status).or_default() += 1;
    }
    (groups, all)
}

/// The counts as a Markdown table, a row a group, a column for each status that was reached.
pub(crate) fn markdown(records: &[Record]) -> String {
    let (groups, all) = counts(records);
    let statuses: Vec<_> = Status::ALL.into_iter().filter(|status| all.contains_key(status)).collect();
    let row = |name: &str, counts: &Counts| {
        let cell = |count: usize| if count == 0 { String::new() } else { count.to_string() };
        let counted = statuses.iter().map(|status| cell(counts.get(status).copied().unwrap_or(0)));
        [name.to_owned(), counts.values().sum::<usize>().to_string()].into_iter().chain(counted).collect()
    };
    let mut rows: Vec<Vec<String>> = groups.iter().map(|(name, counts)| row(name, counts)).collect();
    rows.push(row("all", &all));
    let heading = ["group".to_owned(), "cases".to_owned()].into_iter();
    table(heading.chain(statuses.iter().map(Status::to_string)).collect(), rows)
}

/// A Markdown table whose first column is text, and whose others are numbers.
pub(crate) fn table(heading: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_header(heading).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let record = |case: &str, status| Record { status, ..Record::new(case) };
        vec![
            record("dEQP-VK.sparse_resources.buffer.a", Status::Pass),
            Record {
                message: "two\nlines, \"quoted\"".into(),
                duration: Duration::from_micros(1_500_001),
                ..record("dEQP-VK.sparse_resources.buffer.b.c", Status::Crash)
            },
            record("dEQP-VK.sparse_resources.image_rebind.2d", Status::NotSupported),
        ]
    }

    #[test]
    fn groups_are_areas_or_the_ctss() {
        assert_eq!(group("dEQP-VK.sparse_resources.buffer.b.c"), "dEQP-VK.sparse_resources.buffer");
        assert_eq!(group("dEQP-VK.info.build"), "dEQP-VK.info.build");
        assert_eq!(group("image.residency.2d"), "image");
    }

    #[test]
    fn csv_is_read_as_it_was_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_csv(file.path(), &records()).unwrap();
        let read = read_csv(file.path()).unwrap();
        for (read, written) in read.iter().zip(&records()) {
            assert_eq!(
                (&read.case, read.status, &read.message, read.duration),
                (&written.case, written.status, &written.message, written.duration)
            );
        }
        assert_eq!(read.len(), 3);
        std::fs::write(file.path(), "case,status\na.b,Fail\n").unwrap();
        assert_eq!(read_csv(file.path()).unwrap()[0].status, Status::Fail);
        std::fs::write(file.path(), "case,status\na.b,Fial\n").unwrap();
        assert!(read_csv(file.path()).is_err());
    }

    #[test]
    fn the_table_has_a_row_a_group() {
        let text = markdown(&records());
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let lines: Vec<_> = text.lines().map(cells).collect();
        assert_eq!(lines[0][1..6], ["group", "cases", "Pass", "Crash", "NotSupported"]);
        assert_eq!(lines[2][1..6], ["dEQP-VK.sparse_resources.buffer", "2", "1", "1", ""]);
        assert_eq!(lines[4][1..6], ["all", "3", "1", "1", "1"]);
    }
}

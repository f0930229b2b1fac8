//! Known failures, in the format of Mesa's lists: `NAME-fails.txt` has lines `case,Status`, `NAME-flakes.txt` beside it
//! lines `case` for what ends now this way and now that; `#` begins a comment.

use super::report::{Record, Status};
use anyhow::{Context as _, Result, bail};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// What is known to fail, and how.
pub(crate) struct Baseline {
    known: HashMap<String, Status>,
    flakes: HashSet<String>,
}

impl Baseline {
    /// Reads a list of failures and, where there is one, the list of flakes beside it.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let read = |file: &Path| {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let flakes = file.to_str().and_then(|name| name.strip_suffix("-fails.txt"));
        let flakes =
            flakes.map(|stem| PathBuf::from(format!("{stem}-flakes.txt"))).filter(|file| file.exists());
        let flakes = flakes.map(|file| read(&file)).transpose()?.unwrap_or_default();
        Self::parse(&read(file)?, &flakes).with_context(|| file.display().to_string())
    }

    fn parse(text: &str, flakes: &str) -> Result<Self> {
        let mut known = HashMap::new();
        for (number, line) in entries(text) {
            match line.rsplit_once(',').and_then(|(case, status)| Some((case, Status::parse(status)?))) {
                Some((case, status)) if status.is_failure() => known.insert(case.to_owned(), status),
                _ => bail!("line {}: expected case,Fail or case,Crash or case,Timeout", number + 1),
            };
        }
        Ok(Self { known, flakes: entries(flakes).map(|(_, line)| line.to_owned()).collect() })
    }

    /// Whether the case is known to fail in this way.
    pub(crate) fn expects(&self, record: &Record) -> bool {
        self.flakes.contains(&record.case) || self.known.get(&record.case) == Some(&record.status)
    }

    /// One line for each result that differs from what is known.
    pub(crate) fn differences(&self, records: &[Record]) -> Vec<String> {
        let mut lines = Vec::new();
        for record in records.iter().filter(|record| !self.flakes.contains(&record.case)) {
            match self.known.get(&record.case) {
                Some(&status) if status == record.status => {}
                Some(status) if record.status.is_failure() => {
                    lines.push(format!("{}: {} where {status} is known", record.name(), record.status));
                }
                Some(status) if record.status == Status::Pass => {
                    lines.push(format!("{}: passes where {status} is known", record.name()));
                }
                None if record.status.is_failure() => {
                    lines.push(format!("{}: new {}", record.name(), record.status));
                }
                _ => {}
            }
        }
        lines
    }
}

/// Numbered lines without comments and empty ones.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn record(case: &str, status: Status) -> Record {
        Record {
            case: case.to_owned(),
            variant: None,
            status,
            message: String::new(),
            duration: Duration::ZERO,
            output: String::new(),
        }
    }

    #[test]
    fn what_differs_from_the_baseline_is_named() {
        let baseline = Baseline::parse("# why\na.one,Fail\na.two,Crash # also why\n\n", "a.flaky\n").unwrap();
        let records = [
            record("a.one", Status::Fail),
            record("a.two", Status::Fail),
            record("a.three", Status::Timeout),
            record("a.four", Status::Pass),
            record("a.flaky", Status::Crash),
        ];
        assert_eq!(
            baseline.differences(&records),
            ["a.two: Fail where Crash is known", "a.three: new Timeout"]
        );
        assert_eq!(
            baseline.differences(&[record("a.one", Status::Pass)]),
            ["a.one: passes where Fail is known"]
        );
        assert!(baseline.differences(&[record("a.one", Status::NotSupported)]).is_empty());
    }

    #[test]
    fn a_line_without_a_failing_status_is_refused() {
        for line in ["a.one", "a.one,Pass", "a.one,Failed", ","] {
            assert!(Baseline::parse(line, "").is_err(), "{line}");
        }
    }
}

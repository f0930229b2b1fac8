//! Known failures, in the format of Mesa's `-fails.txt`: lines `case,Status`, `#` begins a comment.

use super::report::{Record, Status};
use anyhow::{Context as _, Result, bail};
use std::collections::HashMap;
use std::path::Path;

/// What is known to fail, and how.
pub(crate) struct Baseline {
    known: HashMap<String, Status>,
}

impl Baseline {
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut known = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            match line.rsplit_once(',').and_then(|(case, status)| Some((case, Status::parse(status)?))) {
                Some((case, status)) if status.is_failure() => known.insert(case.to_owned(), status),
                _ => bail!("line {}: expected case,Fail or case,Crash or case,Timeout", number + 1),
            };
        }
        Ok(Self { known })
    }

    /// Whether the case is known to fail in this way.
    pub(crate) fn expects(&self, record: &Record) -> bool {
        self.known.get(&record.case) == Some(&record.status)
    }

    /// One line for each result that differs from what is known.
    pub(crate) fn differences(&self, records: &[Record]) -> Vec<String> {
        let mut lines = Vec::new();
        for record in records {
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
        let baseline = Baseline::parse("# why\na.one,Fail\na.two,Crash # also why\n\n").unwrap();
        let records = [
            record("a.one", Status::Fail),
            record("a.two", Status::Fail),
            record("a.three", Status::Timeout),
            record("a.four", Status::Pass),
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
            assert!(Baseline::parse(line).is_err(), "{line}");
        }
    }
}

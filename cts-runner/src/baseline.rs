//! What is known of a suite's results, in the format of Mesa's lists (a case may be named with its variant, `case@variant`). Three files side by side, of which only the first
//! has to exist; `#` begins a comment:
//!
//! * `NAME-fails.txt`: lines `case,Status` with the status `Fail`, `Crash`, `Timeout` or `Missing`;
//! * `NAME-flakes.txt`: lines that match cases which end now this way and now that;
//! * `NAME-skips.txt`: lines that match cases which are not to be run.
//!
//! A line of the latter two is a regular expression that is searched in the name (as deqp-runner does it), or, where it has
//! none of their special characters, a whole name.

use crate::report::{Record, Status};
use anyhow::{Context as _, Result, bail};
use regex::RegexSet;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// What is known to fail, and how.
#[derive(Default)]
pub(crate) struct Baseline {
    known: HashMap<String, Status>,
    flakes: Patterns,
    skips: Patterns,
}

/// A result that is not what the baseline says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Fails, and was not known to.
    NewFailure { case: String, status: Status },
    /// Fails in another way than is known.
    OtherFailure { case: String, status: Status, known: Status },
    /// Passes although it is known to fail.
    NewPass { case: String, known: Status },
    /// Is known to fail, and there is no such case.
    Gone { case: String },
}

impl Difference {
    /// Whether this makes the results worse than the baseline.
    pub(crate) fn is_worse(&self) -> bool {
        !matches!(self, Self::NewPass { .. })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewFailure { case, status } => write!(out, "{case}: new {status}"),
            Self::OtherFailure { case, status, known } => {
                write!(out, "{case}: {status} where {known} is known")
            }
            Self::NewPass { case, known } => write!(out, "{case}: passes where {known} is known"),
            Self::Gone { case } => write!(out, "{case}: in the baseline, but there is no such case"),
        }
    }
}

impl Baseline {
    /// Reads a list of failures and, where they are, the lists of flakes and of skips beside it.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let stem = file.to_str().and_then(|name| name.strip_suffix("-fails.txt"));
        let beside = |kind: &str| -> Result<Patterns> {
            let Some(file) = stem.map(|stem| PathBuf::from(format!("{stem}-{kind}.txt"))) else {
                return Ok(Patterns::default());
            };
            match file.exists() {
                true => Patterns::parse(&read(&file)?).with_context(|| file.display().to_string()),
                false => Ok(Patterns::default()),
            }
        };
        let known = parse_failures(&read(file)?).with_context(|| file.display().to_string())?;
        Ok(Self { known, flakes: beside("flakes")?, skips: beside("skips")? })
    }

    /// Whether the case is not to be run.
    pub(crate) fn skips(&self, case: &str) -> bool {
        self.skips.contain(case)
    }

    /// Whether the case is known to fail in this way.
    pub(crate) fn expects(&self, record: &Record) -> bool {
        self.known_of(record) == Some(record.status) || self.flakes.contain(&record.case)
    }

    /// What is known of the case in its variant, else of the case.
    fn known_of(&self, record: &Record) -> Option<Status> {
        self.known.get(&record.name()).or_else(|| self.known.get(&record.case)).copied()
    }

    /// The results that differ from what is known.
    pub(crate) fn differences(&self, records: &[Record]) -> Vec<Difference> {
        let differs = |record: &Record| {
            let (case, status) = (record.name(), record.status);
            match self.known_of(record) {
                Some(known) if known == status => None,
                Some(known) if status.is_failure() => Some(Difference::OtherFailure { case, status, known }),
                Some(known) if status == Status::Pass => Some(Difference::NewPass { case, known }),
                None if status.is_failure() => Some(Difference::NewFailure { case, status }),
                _ => None,
            }
        };
        let differences = records.iter().filter(|record| !self.flakes.contain(&record.case));
        differences.filter_map(differs).collect()
    }

    /// The known failures of which `is_gone` says that there is no such case, in order.
    pub(crate) fn gone(&self, is_gone: impl Fn(&str) -> bool) -> Vec<Difference> {
        let mut gone: Vec<_> = self.known.keys().filter(|case| is_gone(case)).collect();
        gone.sort_unstable();
        gone.into_iter().map(|case| Difference::Gone { case: case.clone() }).collect()
    }
}

/// Names of cases, whole or as regular expressions.
#[derive(Default)]
struct Patterns {
    names: HashSet<String>,
    expressions: RegexSet,
}

impl Patterns {
    fn parse(text: &str) -> Result<Self> {
        let is_expression = |line: &&str| line.contains(['*', '+', '?', '[', '(', '{', '|', '^', '$', '\\']);
        let (expressions, names): (Vec<_>, Vec<_>) =
            entries(text).map(|(_, line)| line).partition(is_expression);
        let expressions = RegexSet::new(expressions)?;
        Ok(Self { names: names.into_iter().map(str::to_owned).collect(), expressions })
    }

    fn contain(&self, case: &str) -> bool {
        self.names.contains(case) || self.expressions.is_match(case)
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn parse_failures(text: &str) -> Result<HashMap<String, Status>> {
    let mut known = HashMap::new();
    for (number, line) in entries(text) {
        match line.rsplit_once(',').and_then(|(case, status)| Some((case, Status::parse(status)?))) {
            Some((case, status)) if status.is_failure() && status != Status::Flake => {
                known.insert(case.to_owned(), status)
            }
            _ => bail!("line {}: expected case,Fail or case,Crash, case,Timeout, case,Missing", number + 1),
        };
    }
    Ok(known)
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

    fn record(case: &str, status: Status) -> Record {
        Record { status, ..Record::new(case) }
    }

    fn baseline(fails: &str, flakes: &str, skips: &str) -> Baseline {
        let folder = tempfile::tempdir().unwrap();
        for (kind, text) in [("fails", fails), ("flakes", flakes), ("skips", skips)] {
            std::fs::write(folder.path().join(format!("a-{kind}.txt")), text).unwrap();
        }
        Baseline::read(&folder.path().join("a-fails.txt")).unwrap()
    }

    fn lines(differences: &[Difference]) -> Vec<String> {
        differences.iter().map(Difference::to_string).collect()
    }

    #[test]
    fn what_differs_from_the_baseline_is_named() {
        let baseline = baseline("# why\na.one,Fail\na.two,Crash # also why\n\n", "a.flaky\n", "");
        let records = [
            record("a.one", Status::Fail),
            record("a.two", Status::Fail),
            record("a.three", Status::Timeout),
            record("a.four", Status::Pass),
            record("a.flaky", Status::Crash),
        ];
        let differences = baseline.differences(&records);
        assert_eq!(lines(&differences), ["a.two: Fail where Crash is known", "a.three: new Timeout"]);
        assert!(differences.iter().all(Difference::is_worse));
        let differences = baseline.differences(&[record("a.one", Status::Pass)]);
        assert_eq!(lines(&differences), ["a.one: passes where Fail is known"]);
        assert!(!differences[0].is_worse());
        assert!(baseline.differences(&[record("a.one", Status::NotSupported)]).is_empty());
        assert_eq!(
            lines(&baseline.gone(|case| case != "a.one")),
            ["a.two: in the baseline, but there is no such case"]
        );
    }

    #[test]
    fn plain_lines_are_whole_names_and_others_expressions() {
        let baseline = baseline("", "# both\n.*image\\.[23]d\\..*\n", "a.slow\n");
        assert!(baseline.skips("a.slow"));
        assert!(!baseline.skips("a.slower") && !baseline.skips("aXslow"));
        assert!(baseline.expects(&record("b.image.3d.r8", Status::Crash)));
        assert!(!baseline.expects(&record("b.image.cube.r8", Status::Crash)));
    }

    #[test]
    fn a_line_without_a_failing_status_is_refused() {
        for line in ["a.one", "a.one,Pass", "a.one,Failed", "a.one,Flake", ","] {
            assert!(parse_failures(line).is_err(), "{line}");
        }
        assert!(Patterns::parse("a.(b").is_err());
    }
}

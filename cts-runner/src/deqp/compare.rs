//! `cts-runner compare`: two results side by side.

use crate::report::{self, Counts, Record, Status};
use anyhow::{Context as _, Result};
use clap::Args;
use std::collections::{BTreeMap, HashSet};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// The options of `cts-runner compare`.
#[derive(Args)]
pub(crate) struct CompareArguments {
    /// The folder of a run, or its results.csv
    a: PathBuf,
    /// The other one
    b: PathBuf,
    /// Prints the table alone
    #[arg(long)]
    table: bool,
    /// Only cases that occur in both, as when one is a shard or a fraction
    #[arg(long)]
    common: bool,
}

/// Prints both results as a Markdown table per group, and the cases that differ. `Ok(true)`: no case ends worse in B.
pub(crate) fn compare(arguments: &CompareArguments) -> Result<bool> {
    let (mut a, mut b) = (read(&arguments.a)?, read(&arguments.b)?);
    if arguments.common {
        let cases =
            |records: &[Record]| records.iter().map(|record| record.case.clone()).collect::<HashSet<_>>();
        let (in_a, in_b) = (cases(&a), cases(&b));
        a.retain(|record| in_b.contains(&record.case));
        b.retain(|record| in_a.contains(&record.case));
    }
    let changes = changes(&a, &b);
    let mut text = table(&a, &b) + "\n";
    for (change, cases) in changes.iter().filter(|_| !arguments.table) {
        let cases: String = cases.iter().map(|case| format!("* {case}\n")).collect();
        text += &format!("\n{}, {} cases:\n{cases}", change.describe(), cases.lines().count());
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        // Who reads the table alone closes the pipe early.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("standard output"),
        _ => Ok(!changes.keys().any(|change| change.is_worse())),
    }
}

fn read(path: &Path) -> Result<Vec<Record>> {
    report::read_csv(&if path.is_dir() { path.join("results.csv") } else { path.into() })
}

/// How a case ends in A and in B; in `None` it does not occur.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Change(Option<Status>, Option<Status>);

impl Change {
    /// Whether the case fails in B alone, fails in another way there, or is lost for the tests. A case that occurs in one of both says nothing:
    /// the two were asked for different cases.
    fn is_worse(self) -> bool {
        match (self.0, self.1) {
            (Some(a), Some(b)) => b.is_failure() || (a == Status::Pass && b != Status::Warn),
            _ => false,
        }
    }

    fn describe(self) -> String {
        let name = |status: Option<Status>| status.map_or("absent".to_owned(), |status| status.to_string());
        let verdict = if self.is_worse() { " (worse)" } else { "" };
        format!("{} -> {}{verdict}", name(self.0), name(self.1))
    }
}

/// The cases that do not end in the same way, by how they change.
fn changes<'a>(a: &'a [Record], b: &'a [Record]) -> BTreeMap<Change, Vec<&'a str>> {
    let mut both = BTreeMap::<&str, Change>::new();
    for record in a {
        both.entry(&record.case).or_insert(Change(None, None)).0 = Some(record.status);
    }
    for record in b {
        both.entry(&record.case).or_insert(Change(None, None)).1 = Some(record.status);
    }
    let mut changes = BTreeMap::<_, Vec<_>>::new();
    for (case, change) in both.into_iter().filter(|(_, change)| change.0 != change.1) {
        changes.entry(change).or_default().push(case);
    }
    changes
}

/// A row a group, a column for each status that was reached in A or B, with `A / B` where they differ.
fn table(a: &[Record], b: &[Record]) -> String {
    let ((groups_a, all_a), (groups_b, all_b)) = (report::counts(a), report::counts(b));
    let statuses: Vec<_> = Status::ALL
        .into_iter()
        .filter(|status| all_a.contains_key(status) || all_b.contains_key(status))
        .collect();
    let none = Counts::new();
    let row = |name: &str, a: &Counts, b: &Counts| {
        let cell = |a: usize, b: usize| match (a, b) {
            (0, 0) => String::new(),
            (a, b) if a == b => a.to_string(),
            (a, b) => format!("{a} / {b}"),
        };
        let count = |counts: &Counts, status| counts.get(status).copied().unwrap_or(0);
        let all = cell(a.values().sum(), b.values().sum());
        let counted = statuses.iter().map(|status| cell(count(a, status), count(b, status)));
        [name.to_owned(), all].into_iter().chain(counted).collect::<Vec<_>>()
    };
    let mut names: Vec<_> = groups_a.keys().chain(groups_b.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let mut rows: Vec<_> = names
        .into_iter()
        .map(|name| row(name, groups_a.get(name).unwrap_or(&none), groups_b.get(name).unwrap_or(&none)))
        .collect();
    rows.push(row("all", &all_a, &all_b));
    let heading = ["group (A / B)".to_owned(), "cases".to_owned()].into_iter();
    report::table(heading.chain(statuses.iter().map(Status::to_string)).collect(), rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(cases: &[(&str, Status)]) -> Vec<Record> {
        cases.iter().map(|(case, status)| Record { status: *status, ..Record::new(case) }).collect()
    }

    #[test]
    fn cases_are_listed_by_how_they_change() {
        let a = records(&[
            ("g.a", Status::Fail),
            ("g.b", Status::Pass),
            ("g.c", Status::Pass),
            ("g.d", Status::Fail),
        ]);
        let b = records(&[
            ("g.a", Status::Pass),
            ("g.b", Status::Crash),
            ("g.c", Status::Pass),
            ("h.e", Status::Fail),
        ]);
        let changes = changes(&a, &b);
        let lines: Vec<_> =
            changes.iter().map(|(change, cases)| (change.describe(), cases.concat())).collect();
        let line = |change: &str, cases: &str| (change.to_owned(), cases.to_owned());
        assert_eq!(
            lines,
            [
                line("absent -> Fail", "h.e"),
                line("Pass -> Crash (worse)", "g.b"),
                line("Fail -> absent", "g.d"),
                line("Fail -> Pass", "g.a"),
            ]
        );
    }

    #[test]
    fn what_is_lost_is_worse_and_what_is_refused_instead_of_failed_is_not() {
        assert!(Change(Some(Status::Pass), Some(Status::NotSupported)).is_worse());
        assert!(Change(Some(Status::Fail), Some(Status::Crash)).is_worse());
        assert!(!Change(Some(Status::Crash), Some(Status::NotSupported)).is_worse());
        assert!(!Change(Some(Status::NotSupported), Some(Status::Pass)).is_worse());
    }

    #[test]
    fn the_table_shows_both_where_they_differ() {
        let text = table(
            &records(&[("g.a", Status::Fail), ("g.b", Status::Pass)]),
            &records(&[("g.a", Status::Pass), ("g.b", Status::Pass)]),
        );
        let row: Vec<_> = text.lines().nth(2).unwrap().split('|').map(str::trim).collect();
        assert_eq!(row[1..5], ["g", "2", "1 / 2", "1 / 0"]);
    }
}

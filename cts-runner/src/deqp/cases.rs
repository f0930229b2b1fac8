//! Which cases there are, and which of them a run takes.

use super::target::Target;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use regex::Regex;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::UNIX_EPOCH;

/// Which cases are run.
#[derive(Args)]
pub(super) struct Selection {
    /// Groups or cases, with or without the package's name: sparse_resources, sparse_resources.buffer [default: sparse_resources; with
    /// --caselist all that is in it]
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    group: Vec<String>,
    /// Takes the cases from a file instead of asking deqp-vk: a name a line, or the names of further files, as in the CTS's mustpass lists
    #[arg(long, value_name = "FILE")]
    caselist: Option<PathBuf>,
    /// Only cases in whose name this regular expression is found
    #[arg(long, value_name = "REGEX")]
    filter: Option<Regex>,
    /// A share of the cases, such as 0.1, picked by --seed
    #[arg(long, value_name = "SHARE", default_value = "1", value_parser = share)]
    fraction: f64,
    /// Decides which cases belong to --fraction and in which order batches are made
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// One of N parts of the cases: 1/N to N/N have every case once
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
}

/// One part of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shard {
    /// Counted from zero.
    index: usize,
    of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| text.parse::<usize>().ok();
        match text.split_once('/').map(|(index, of)| (parse(index), parse(of))) {
            Some((Some(index), Some(of))) if (1..=of).contains(&index) => Ok(Self { index: index - 1, of }),
            _ => Err("expected I/N with I from 1 to N".into()),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|&share| share > 0.0 && share <= 1.0)
        .ok_or_else(|| "expected a number above 0, at most 1".into())
}

/// The cases of a run.
pub(super) struct Cases {
    /// Every case that was found, in order.
    pub(super) all: Vec<String>,
    /// Those that are to be run, mixed: batches of such take about the same time.
    pub(super) chosen: Vec<String>,
}

impl Selection {
    /// Finds the cases. deqp-vk's list is kept in `folder`, and used again while deqp-vk stays as it is.
    pub(super) fn find(&self, target: &Target, folder: &Path) -> Result<Cases> {
        let all = match &self.caselist {
            Some(file) => {
                let mut all = Vec::new();
                read_list(file, &mut all)?;
                all.retain(|case| {
                    self.group.is_empty() || self.group.iter().any(|group| within(case, group))
                });
                all
            }
            None => self.ask(target, &folder.join("cases.txt"))?,
        };
        let mut seen = HashSet::new();
        let all: Vec<_> = all.into_iter().filter(|case| seen.insert(case.clone())).collect();
        let chosen = self.choose(&all);
        if chosen.is_empty() {
            bail!("no case is left of {}", all.len());
        }
        Ok(Cases { all, chosen })
    }

    /// Whether the cases that were found would have `case` among them if it existed. A list is what somebody wants, not all that there is.
    pub(super) fn covers(&self, case: &str) -> bool {
        self.caselist.is_none() && self.groups().iter().any(|group| within(case, group))
    }

    /// The groups to ask deqp-vk for.
    fn groups(&self) -> Vec<String> {
        match self.group.is_empty() {
            true => vec![full("sparse_resources")],
            false => self.group.iter().map(|group| full(group)).collect(),
        }
    }

    /// Filter, fraction and shard, by a hash of the name: a case's place does not depend on which others there are.
    fn choose(&self, all: &[String]) -> Vec<String> {
        let mut chosen: Vec<_> = all
            .iter()
            .filter(|case| self.filter.as_ref().is_none_or(|filter| filter.is_match(case)))
            .map(|case| (hash(self.seed, case), case))
            .collect();
        chosen.sort_unstable();
        let count = (chosen.len() as f64 * self.fraction).ceil() as usize;
        chosen.truncate(count);
        let shard = chosen.into_iter().skip(self.shard.index).step_by(self.shard.of);
        shard.map(|(_, case)| case.clone()).collect()
    }

    fn ask(&self, target: &Target, file: &Path) -> Result<Vec<String>> {
        let pattern: Vec<_> = self.groups().iter().map(|group| format!("{group},{group}.*")).collect();
        let pattern = pattern.join(",");
        let binary = std::fs::metadata(&target.binary).context("deqp-vk")?;
        let age = binary.modified()?.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
        let heading = format!("# {} {} {age} {pattern}", target.binary.display(), binary.len());
        let known = std::fs::read_to_string(file).unwrap_or_default();
        if known.lines().next() != Some(&heading) {
            let list = target.list(&pattern)?;
            std::fs::write(file, format!("{heading}\n{list}"))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let mut all = Vec::new();
        read_list(file, &mut all)?;
        if all.is_empty() {
            bail!("{} has no cases {pattern}", target.binary.display());
        }
        Ok(all)
    }
}

/// A group's name with the package's.
fn full(group: &str) -> String {
    let group = group.trim_end_matches(".*").trim_end_matches('.');
    if group.starts_with("dEQP-") { group.to_owned() } else { format!("dEQP-VK.{group}") }
}

/// Whether `case` is in `group`, or is it.
fn within(case: &str, group: &str) -> bool {
    case.strip_prefix(&full(group)).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Appends the cases of a list: deqp-vk's own with `TEST: `, or plain names, and what files named in it have.
fn read_list(file: &Path, cases: &mut Vec<String>) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    for line in text.lines().map(str::trim) {
        let line = line.strip_prefix("TEST: ").unwrap_or(line);
        if line.is_empty() || line.starts_with('#') || line.starts_with("GROUP: ") {
            continue;
        }
        if line.ends_with(".txt") {
            read_list(&file.parent().unwrap_or(Path::new("")).join(line), cases)?;
        } else if line.starts_with("dEQP-") {
            cases.push(line.to_owned());
        } else {
            bail!("{}: {line:?} is no case of the CTS", file.display());
        }
    }
    Ok(())
}

/// FNV-1a over the name, then the last step of SplitMix64: FNV alone leaves the high bits of similar names similar.
fn hash(seed: u64, name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut hash = name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, step);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Cuts `cases` into batches of at most `size`, smaller ones at the end so that no worker waits long for the last.
pub(super) fn batches(cases: &[String], size: usize, workers: usize) -> Vec<&[String]> {
    let (mut batches, mut rest) = (Vec::new(), cases);
    while !rest.is_empty() {
        // Below this a process's start would be most of a batch.
        const SMALLEST: usize = 25;
        let fair = rest.len().div_ceil(2 * workers).max(SMALLEST.min(size));
        let (batch, after) = rest.split_at(fair.min(size).min(rest.len()));
        batches.push(batch);
        rest = after;
    }
    batches.sort_by_key(|batch| Reverse(batch.len()));
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        selection: Selection,
    }

    fn selection(arguments: &[&str]) -> Selection {
        Arguments::try_parse_from(["run"].iter().chain(arguments)).unwrap_or_else(|e| panic!("{e}")).selection
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("dEQP-VK.sparse_resources.a.case_{index}")).collect()
    }

    #[test]
    fn shards_have_every_case_once() {
        let all = names(1000);
        let mut together: Vec<_> =
            (1..=3).flat_map(|part| selection(&["--shard", &format!("{part}/3")]).choose(&all)).collect();
        together.sort_unstable();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(together, sorted);
        for wrong in ["0/3", "4/3", "1", "a/b"] {
            assert!(Arguments::try_parse_from(["run", "--shard", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_fraction_is_the_same_for_the_same_seed_only() {
        let all = names(1000);
        let pick = |seed: &str| selection(&["--fraction", "0.1", "--seed", seed]).choose(&all);
        assert_eq!(pick("1").len(), 100);
        assert_eq!(pick("1"), pick("1"));
        assert_ne!(pick("1"), pick("2"));
        assert!(Arguments::try_parse_from(["run", "--fraction", "0"]).is_err());
    }

    #[test]
    fn lists_name_cases_and_other_lists() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.txt");
        std::fs::create_dir(folder.path().join("part")).unwrap();
        std::fs::write(&main, "# all\nGROUP: dEQP-VK\npart/sub.txt\nTEST: dEQP-VK.a.b\n\n").unwrap();
        std::fs::write(folder.path().join("part/sub.txt"), "dEQP-VK.c.d\n").unwrap();
        let mut cases = Vec::new();
        read_list(&main, &mut cases).unwrap();
        assert_eq!(cases, ["dEQP-VK.c.d", "dEQP-VK.a.b"]);
        std::fs::write(&main, "KHR-GL.x\n").unwrap();
        assert!(read_list(&main, &mut cases).is_err());
    }

    #[test]
    fn a_group_ends_at_a_dot() {
        assert!(within("dEQP-VK.sparse_resources.buffer.ssbo", "sparse_resources.buffer"));
        assert!(within("dEQP-VK.sparse_resources.buffer.ssbo", "dEQP-VK.sparse_resources.buffer.ssbo"));
        assert!(!within("dEQP-VK.sparse_resources.buffer_x", "sparse_resources.buffer"));
    }

    #[test]
    fn batches_have_every_case_once_and_get_smaller() {
        let all = names(1003);
        let cut = batches(&all, 200, 2);
        assert_eq!(cut.concat(), all);
        assert_eq!((cut[0].len(), cut.last().unwrap().len() <= 25), (200, true));
        assert!(batches(&all, 1, 2).iter().all(|batch| batch.len() == 1));
    }
}

//! Measures a row: the driver and the layer side by side, then what reaches the kernel.

use crate::child::{Child, Launcher, Way};
use crate::rows::{Row, Suite, Work};
use crate::sample::{Counts, Sample};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What was measured.
pub(crate) struct Measured {
    pub(crate) native: Times,
    pub(crate) layer: Option<Times>,
    pub(crate) kernel: Kernel,
    pub(crate) driver: String,
}

/// Medians, in nanoseconds.
pub(crate) struct Times {
    /// Of the calls, what was not spent in the emulated node.
    pub(crate) own: f64,
    /// Of the calls.
    pub(crate) calls: f64,
    /// To the completion of the fence.
    pub(crate) done: f64,
}

/// What reached the kernel, per unit of the row.
pub(crate) enum Kernel {
    /// Calls that bind nothing.
    Nothing,
    /// Operations as counted by the layer: it emulates the kernel itself.
    Operations { asked: f64, sent: Option<f64>, minimum: f64 },
    /// As counted by the emulated node; these are for all units together.
    Node { asked: f64, per: f64, native: Counts, layer: Option<Counts> },
}

/// How long to measure.
pub(crate) struct Effort {
    /// Times that both sides take turns.
    pub(crate) rounds: u32,
    /// Time for one side's turn, if a sample is not longer than that.
    pub(crate) turn: Duration,
}

/// Samples a turn at most.
const MOST_SAMPLES: f64 = 500.0;
/// Pairs of processes that share a row's rounds: where a process happens to lie in memory can be worth more than what is measured.
const PAIRS: u32 = 3;

/// Measures row `index`; the driver alone, or the layer beside it.
pub(crate) fn measure(
    launcher: &Launcher,
    index: usize,
    row: &Row,
    with_layer: bool,
    effort: &Effort,
) -> Result<Measured> {
    let ways: &[Way] = if with_layer { &[Way::Native, Way::Layer] } else { &[Way::Native] };
    let mut samples = vec![vec![]; ways.len()];
    let mut driver = String::new();
    for pair in 0..PAIRS {
        let mut sides =
            ways.iter().map(|way| Side::start(launcher, index, *way, effort)).collect::<Result<Vec<_>>>()?;
        for round in (pair..effort.rounds).step_by(PAIRS as usize) {
            // In turns, and the first of a round is the second of the next: what drifts on the machine meets both alike.
            if round % 2 == 0 {
                sides.iter_mut().try_for_each(Side::turn)?;
            } else {
                sides.iter_mut().rev().try_for_each(Side::turn)?;
            }
        }
        driver.clone_from(&sides[0].child.hello.driver);
        for (side, samples) in sides.into_iter().zip(&mut samples) {
            samples.extend(side.finish()?);
        }
    }
    let mut times = samples.iter().map(|samples| Times::of(samples));
    let native = times.next().context("nothing was measured")?;
    let layer = times.next();
    Ok(Measured { native, layer, kernel: kernel(launcher, index, row, with_layer)?, driver })
}

fn kernel(launcher: &Launcher, index: usize, row: &Row, with_layer: bool) -> Result<Kernel> {
    let Work::Bind(workload) = row.work else { return Ok(Kernel::Nothing) };
    let workload = workload();
    let (per, asked) = (f64::from(workload.per), workload.asked());
    Ok(match launcher.suite {
        Suite::Lavapipe => {
            let sent = if with_layer { Some(sent(launcher, index)? / per) } else { None };
            Kernel::Operations { asked, sent, minimum: workload.minimum() as f64 / per }
        }
        Suite::Drivers => {
            let native = counts(launcher, index, Way::Native)?;
            let layer = if with_layer { Some(counts(launcher, index, Way::Layer)?) } else { None };
            Kernel::Node { asked, per, native, layer }
        }
    })
}

impl Times {
    fn of(samples: &[Sample]) -> Self {
        let median_of = |time: fn(&Sample) -> u64| median(samples.iter().map(time).collect());
        Self {
            own: median_of(|sample| sample.calls.saturating_sub(sample.node)),
            calls: median_of(|sample| sample.calls),
            done: median_of(|sample| sample.done),
        }
    }
}

struct Side {
    child: Child,
    samples: Vec<Sample>,
    each_turn: u32,
}

impl Side {
    /// Starts the process, takes samples that do not count, and learns how many fit into a turn.
    fn start(launcher: &Launcher, index: usize, way: Way, effort: &Effort) -> Result<Self> {
        let mut child = launcher.start(index, way, None)?;
        child.samples(1)?;
        let began = Instant::now();
        child.samples(1)?;
        let fit = effort.turn.as_secs_f64() / began.elapsed().as_secs_f64();
        Ok(Self { child, samples: vec![], each_turn: fit.clamp(1.0, MOST_SAMPLES) as u32 })
    }

    fn turn(&mut self) -> Result<()> {
        self.samples.extend(self.child.samples(self.each_turn)?);
        Ok(())
    }

    fn finish(self) -> Result<Vec<Sample>> {
        self.child.end()?;
        Ok(self.samples)
    }
}

fn median(mut samples: Vec<u64>) -> f64 {
    samples.sort_unstable();
    let (low, high) = ((samples.len() - 1) / 2, samples.len() / 2);
    (samples[low] as f64 + samples[high] as f64) / 2.0
}

/// What the node does in one measurement.
fn counts(launcher: &Launcher, index: usize, way: Way) -> Result<Counts> {
    let mut child = launcher.start(index, way, None)?;
    // The first call makes what a queue needs.
    child.samples(1)?;
    let counts = child.counts()?;
    child.end()?;
    Ok(counts)
}

/// The counters that the layer writes when a device ends; of many, what is needed here.
#[derive(Deserialize)]
struct Stats {
    ops_sent: u64,
}

/// Operations of one measurement: what a process that makes it sends, less what one sends that stops before.
fn sent(launcher: &Launcher, index: usize) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let count = |samples: u32| -> Result<u64> {
        let stats: PathBuf = folder.path().join(samples.to_string());
        let mut child = launcher.start(index, Way::Layer, Some(&stats))?;
        child.samples(samples)?;
        child.end()?;
        let text = std::fs::read_to_string(&stats)
            .with_context(|| format!("the layer wrote no counters to {}", stats.display()))?;
        text.lines().map(|line| Ok(serde_json::from_str::<Stats>(line)?.ops_sent)).sum()
    };
    let before = count(0)?;
    let after = count(1)?;
    Ok(after as f64 - before as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![9, 1, 5]), 5.0);
        assert_eq!(median(vec![4, 1, 9, 2]), 3.0);
        assert_eq!(median(vec![7]), 7.0);
    }
}

//! Measures a row: the driver and the layer side by side, then the operations that the layer sends.

use crate::child::{Child, Launcher, Way};
use crate::rows::{Row, Work};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What was measured; times are medians in nanoseconds.
pub(crate) struct Measured {
    pub(crate) native: f64,
    pub(crate) layer: Option<f64>,
    pub(crate) operations: Option<Operations>,
    pub(crate) driver: String,
}

/// Operations per unit of the row.
pub(crate) struct Operations {
    pub(crate) asked: f64,
    /// Sent to the kernel.
    pub(crate) sent: Option<f64>,
    pub(crate) minimum: f64,
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
    let medians: Vec<f64> = samples.into_iter().map(median).collect();
    let operations = match row.work {
        Work::Bind(workload) => {
            let workload = workload();
            let per = f64::from(workload.per);
            let sent = if with_layer { Some(sent(launcher, index)? / per) } else { None };
            Some(Operations { asked: workload.asked(), sent, minimum: workload.minimum() as f64 / per })
        }
        Work::Call(..) => None,
    };
    Ok(Measured { native: medians[0], layer: medians.get(1).copied(), operations, driver })
}

struct Side {
    child: Child,
    samples: Vec<u64>,
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

    fn finish(self) -> Result<Vec<u64>> {
        self.child.end()?;
        Ok(self.samples)
    }
}

fn median(mut samples: Vec<u64>) -> f64 {
    samples.sort_unstable();
    let (low, high) = ((samples.len() - 1) / 2, samples.len() / 2);
    (samples[low] as f64 + samples[high] as f64) / 2.0
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

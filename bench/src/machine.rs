//! What binds cost on a real kernel, in a machine that `scripts/machines` boots. Its clock counts instructions of its one processor, of
//! programs and kernel alike: nothing has to be repeated or averaged away. One machine records the driver alone, one the layer.

use crate::binder::Binder;
use crate::gpu::{Driver, Gpu};
use crate::report::machine::{self as table, Line};
use crate::rows::{Machine, Row, Work};
use crate::sample::Sample;
use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Binds on a real kernel, in a machine: use scripts/machines cost
    Record {
        #[arg(value_enum)]
        machine: Machine,
        /// Only rows whose name contains this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Makes the table of what two machines recorded
    Table {
        #[arg(value_enum)]
        machine: Machine,
        /// What the driver alone takes
        alone: PathBuf,
        /// What it takes with the layer
        layered: PathBuf,
        /// Also put the table into a Markdown file, in place of the one that was generated there before
        #[arg(long, value_name = "FILE")]
        markdown: Option<PathBuf>,
    },
}

/// What a row takes: a line of the recording.
#[derive(Serialize, Deserialize)]
pub(crate) struct Recorded {
    row: String,
    /// Binds asked for.
    pub(crate) asked: f64,
    driver: String,
    /// Release of the kernel.
    kernel: String,
    /// Whether the layer is in the process.
    layer: bool,
    /// Instructions, which are nanoseconds in the machine.
    pub(crate) sample: Sample,
}

impl Recorded {
    /// What the numbers were taken on.
    pub(crate) fn under(&self) -> String {
        format!("{} on Linux {}", self.driver, self.kernel)
    }
}

/// Measurements of a row: the middle one counts. The first makes what a queue needs, and is left out.
const REPEATED: usize = 3;

impl Command {
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Record { machine, filter } => record(machine.rows(), filter),
            Self::Table { machine, alone, layered, markdown } => {
                let (alone, layered) = (read(alone)?, read(layered)?);
                let lines = pair(machine.rows(), &alone, &layered)?;
                println!("{}", table::text(&lines, false));
                let Some(file) = markdown else { return Ok(()) };
                let program = format!("scripts/machines cost {}", machine.name());
                crate::update(&program, file, &table::markdown(&lines))
                    .with_context(|| file.display().to_string())
            }
        }
    }
}

fn record(rows: &[Row], filter: &str) -> Result<()> {
    let gpu = Gpu::open(Driver::Real, true)?;
    let layer = fs::read_to_string("/proc/self/maps")?.contains(manifest::LIBRARY);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    for row in rows.iter().filter(|row| row.name.contains(filter)) {
        let Work::Bind(workload) = row.work else { bail!("{} binds nothing", row.name) };
        let workload = workload();
        let mut binder = Binder::new(&gpu, &workload).context(row.name)?;
        let mut sample = || -> Result<Sample> {
            binder.restore()?;
            binder.measure()
        };
        sample().context(row.name)?;
        let mut samples = (0..REPEATED).map(|_| sample()).collect::<Result<Vec<_>>>().context(row.name)?;
        samples.sort_unstable_by_key(|sample| sample.done);
        let recorded = Recorded {
            row: row.name.into(),
            asked: workload.asked(),
            driver: gpu.driver.clone(),
            kernel: kernel.clone(),
            layer,
            sample: samples[REPEATED / 2],
        };
        println!("{}", serde_json::to_string(&recorded)?);
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<Recorded>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// The rows that both recordings have, in the order of the table.
fn pair<'a>(rows: &'a [Row], alone: &'a [Recorded], layered: &'a [Recorded]) -> Result<Vec<Line<'a>>> {
    ensure!(alone.iter().all(|recorded| !recorded.layer), "the first recording is one with the layer");
    ensure!(layered.iter().all(|recorded| recorded.layer), "the second recording is one without the layer");
    let of = |row: &Row, all: &'a [Recorded]| all.iter().find(|recorded| recorded.row == row.name);
    Ok(rows.iter().filter_map(|row| Some((row, of(row, alone)?, of(row, layered)?))).collect())
}

//! Sparse binding through a stock driver on an emulated node or a real kernel: with the layer, what is mapped must be what it is without it,
//! and the binds fewer.
//!
//!     TESSERA_EMULATE=msm:a750 scripts/chroot run -- target/debug/drivers-suite compare

mod gpu;
mod node;
mod steps;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use gpu::Gpu;
use manifest::Kind;
use node::{Binds, Mapping};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The most operations that the layer puts into an ioctl.
const MAX_OPS: u64 = 512;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs every step with the driver alone and with the layer, and compares
    Compare {
        /// The layer's library [default: the one built beside this program]
        #[arg(long, value_name = "FILE")]
        layer: Option<PathBuf>,
        /// Only steps whose name contains this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Compares what two runs printed: of the driver alone, and with the layer
    Judge { alone: PathBuf, layered: PathBuf },
    /// Runs the steps as the environment says, and prints what came of each: a line of JSON
    Run {
        /// Only steps whose name contains this
        #[arg(default_value = "")]
        filter: String,
    },
}

/// What came of a step.
#[derive(Serialize, Deserialize)]
struct Outcome {
    name: String,
    /// It takes what the driver does not have.
    skipped: bool,
    error: Option<String>,
    /// Unknown where nobody counts.
    binds: Option<Binds>,
    table: Vec<Mapping>,
}

impl Outcome {
    fn skipped(name: &str) -> Self {
        Self { name: name.into(), skipped: true, error: None, binds: None, table: Vec::new() }
    }
}

fn run(filter: &str) -> Result<()> {
    let gpu = Gpu::new()?;
    for step in steps::all().filter(|step| step.name.contains(filter)) {
        if !step.needs.are_met(&gpu) {
            println!("{}", serde_json::to_string(&Outcome::skipped(step.name))?);
            continue;
        }
        gpu.node.mark(step.name);
        let resources = (step.prepare)(&gpu).with_context(|| step.name)?;
        gpu.node.mark("prepared");
        let before = gpu.node.binds();
        let result = (step.run)(&gpu, &resources);
        let after = gpu.node.binds();
        // What was not waited for is part of the outcome too.
        // SAFETY: the device is alive.
        let result = result.and(unsafe { gpu.device.device_wait_idle() }.map_err(Into::into));
        let outcome = Outcome {
            name: step.name.into(),
            skipped: false,
            error: result.err().map(|error| format!("{error:#}")),
            binds: before.zip(after).map(|(before, after)| Binds {
                ioctls: after.ioctls - before.ioctls,
                ops: after.ops - before.ops,
            }),
            table: gpu.node.page_table()?,
        };
        println!("{}", serde_json::to_string(&outcome)?);
        resources.destroy(&gpu);
    }
    Ok(())
}

/// Runs all steps in a process of their own.
fn outcomes(filter: &str, variables: &[(&str, &std::ffi::OsStr)]) -> Result<Vec<Outcome>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["run", filter]).stdout(Stdio::piped()).env_remove("VK_INSTANCE_LAYERS");
    command.envs(variables.iter().copied());
    let output = command.output()?;
    ensure!(output.status.success(), "the steps ended with {} ({variables:?})", output.status);
    read(&String::from_utf8(output.stdout)?)
}

fn read(lines: &str) -> Result<Vec<Outcome>> {
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What is wrong with a step.
fn judge(alone: &Outcome, layered: &Outcome, fewest: steps::Fewest) -> Option<String> {
    if let Some(error) = &alone.error {
        return Some(format!("the driver alone fails: {error}"));
    }
    if let Some(error) = &layered.error {
        return Some(error.clone());
    }
    // Only the layer can: there is nothing to compare with, but the layer has compared its picture with the page table.
    if alone.skipped || layered.skipped {
        return None;
    }
    if alone.table != layered.table {
        let pair = alone.table.iter().zip(&layered.table).find(|(a, b)| a != b);
        let counts = (alone.table.len(), layered.table.len());
        return Some(format!("the page tables differ, first in {pair:x?} of {counts:?} mappings"));
    }
    match layered.binds.zip(fewest) {
        Some((binds, fewest)) if binds.ops > fewest => Some(format!("{fewest} operations would do")),
        // One for each call of the step, and one for what the driver did before.
        Some((binds, fewest)) if binds.ioctls > fewest.div_ceil(MAX_OPS) + 3 => {
            Some("too many ioctls".into())
        }
        _ => None,
    }
}

fn compare(layer: Option<PathBuf>, filter: &str) -> Result<()> {
    let library = layer.or_else(manifest::built_library).context("there is no layer to compare with")?;
    let library = library.canonicalize().with_context(|| library.display().to_string())?;
    let folder = tempfile::tempdir()?;
    Kind::Explicit.write(folder.path(), &library)?;
    let alone = outcomes(filter, &[])?;
    let layered = outcomes(
        filter,
        &[
            ("VK_LAYER_PATH", folder.path().as_os_str()),
            ("VK_INSTANCE_LAYERS", manifest::LAYER.as_ref()),
            ("TESSERA_VERIFY", "1".as_ref()),
        ],
    )?;
    report(&alone, &layered)
}

/// Prints the steps side by side. An error: some are wrong.
fn report(alone: &[Outcome], layered: &[Outcome]) -> Result<()> {
    let mut wrong = 0;
    println!("{:44} {:>14} {:>14}", "step (VM_BIND: ioctls, operations)", "driver", "layer");
    for (alone, layered) in alone.iter().zip(layered) {
        let fewest = steps::all().find(|step| step.name == alone.name).and_then(|step| step.fewest);
        let count = |outcome: &Outcome| match outcome {
            Outcome { skipped: true, .. } => "cannot".into(),
            Outcome { binds: None, .. } => "".into(),
            Outcome { binds: Some(binds), .. } => format!("{} {:>6}", binds.ioctls, binds.ops),
        };
        let judged = judge(alone, layered, fewest);
        wrong += usize::from(judged.is_some());
        let judged = judged.unwrap_or_default();
        println!("{:44} {:>14} {:>14}  {judged}", alone.name, count(alone), count(layered));
    }
    ensure!(alone.len() == layered.len(), "with the layer {} of {} steps ran", layered.len(), alone.len());
    if wrong > 0 {
        bail!("{wrong} steps are wrong");
    }
    Ok(())
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Compare { layer, filter } => compare(layer, &filter),
        What::Judge { alone, layered } => {
            let [alone, layered] = [alone, layered].map(|path| read(&std::fs::read_to_string(path)?));
            report(&alone?, &layered?)
        }
        What::Run { filter } => run(&filter),
    }
}

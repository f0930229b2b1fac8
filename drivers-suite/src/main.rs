//! Sparse binding through a stock driver on an emulated node or a real kernel: with the layer, what is mapped must be what it is without it,
//! and the binds fewer.
//!
//!     TESSERA_EMULATE=msm:a750 scripts/chroot run -- target/debug/drivers-suite compare

mod gpu;
mod image;
mod node;
mod real;
mod steps;

use anyhow::{Context as _, Result, bail, ensure};
use ash::vk;
use clap::{Parser, Subcommand};
use gpu::Gpu;
use image::Piece;
use manifest::Kind;
use node::{Binds, Mapping};
use serde::{Deserialize, Serialize};
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

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
    /// Binds, and ends amid that: for steps that look at what others have of it then
    End {
        how: steps::End,
        /// Memory of the process that looks, as a descriptor
        memory: RawFd,
    },
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
    /// What is bound in an image, where there is one.
    image: Vec<Piece>,
    /// What is said to be needed of it.
    needs: String,
    /// Whether the device has residency of 2D images.
    residency: bool,
}

impl Outcome {
    fn skipped(name: &str, residency: bool) -> Self {
        Self {
            name: name.into(),
            skipped: true,
            error: None,
            binds: None,
            table: Vec::new(),
            image: Vec::new(),
            needs: String::new(),
            residency,
        }
    }
}

fn run(filter: &str) -> Result<()> {
    let gpu = Gpu::new()?;
    let residency = gpu.features.sparse_residency_image2_d == vk::TRUE;
    for step in steps::all().filter(|step| step.name.contains(filter)) {
        if !step.needs.are_met(&gpu) {
            println!("{}", serde_json::to_string(&Outcome::skipped(step.name, residency))?);
            continue;
        }
        gpu.node.mark(step.name);
        gpu.name_anew();
        // The driver unmaps in its own time what was destroyed; what a step has lost stays.
        let empty = |table: &Vec<Mapping>| table.iter().all(|mapping| mapping.object.is_some());
        let settled = soon(|| Ok(Some(gpu.node.page_table()?).filter(empty)))?;
        let before = settled.map_or_else(|| gpu.node.page_table(), Ok)?;
        let resources = (step.prepare)(&gpu).with_context(|| step.name)?;
        if resources.is_empty() {
            println!("{}", serde_json::to_string(&Outcome::skipped(step.name, residency))?);
            continue;
        }
        let image = match &resources.layers {
            Some(layers) => soon(|| Ok(layers.addresses(&before, &gpu.node.page_table()?)))?
                .map(|addresses| (layers, addresses)),
            None => None,
        };
        gpu.node.mark("prepared");
        let before = gpu.node.binds();
        let result = (step.run)(&gpu, &resources);
        let after = gpu.node.binds();
        // The mirror is that of this step.
        if let Some(path) = real::picture() {
            _ = std::fs::remove_file(path);
        }
        // What was not waited for is part of the outcome too.
        // SAFETY: the device is alive.
        let result = result.and(unsafe { gpu.device.device_wait_idle() }.map_err(Into::into));
        let table = gpu.node.checked_page_table(steps::is_layered());
        let (result, table) = match table {
            Ok(table) => (result, table),
            Err(error) => (result.and(Err(error)), Vec::new()),
        };
        let outcome = Outcome {
            name: step.name.into(),
            skipped: false,
            error: result.err().map(|error| format!("{error:#}")),
            binds: before.zip(after).map(|(before, after)| Binds {
                ioctls: after.ioctls - before.ioctls,
                ops: after.ops - before.ops,
            }),
            image: image.map(|(layers, at)| layers.pieces(&table, at)).unwrap_or_default(),
            needs: resources.layers.as_ref().map(|layers| layers.needs.clone()).unwrap_or_default(),
            table,
            residency,
        };
        println!("{}", serde_json::to_string(&outcome)?);
        resources.destroy(&gpu);
    }
    Ok(())
}

/// What comes about within a second or so.
fn soon<R>(look: impl Fn() -> Result<Option<R>>) -> Result<Option<R>> {
    for _ in 0..1000 {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(None)
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
fn judge(alone: &Outcome, layered: &Outcome, fewest: steps::Fewest, extra: bool) -> Option<String> {
    if let Some(error) = &alone.error {
        return Some(format!("the driver alone fails: {error}"));
    }
    if let Some(error) = &layered.error {
        return Some(error.clone());
    }
    // Only the layer can: there is nothing to compare with, but the layer has compared its picture with the page table.
    if alone.skipped {
        return None;
    }
    // What the driver does not offer it shows all the same; the layer need not be able to do all of it.
    let offered = alone.residency || !layered.residency;
    if layered.skipped {
        return (offered || extra).then(|| "the layer cannot".into());
    }
    if alone.needs != layered.needs {
        return Some(format!("needed: {}, with the layer {}", alone.needs, layered.needs));
    }
    if !offered && alone.image.is_empty() != layered.image.is_empty() {
        return Some("the image's addresses were not found".into());
    }
    if !offered && alone.image != layered.image {
        let pair = alone.image.iter().zip(&layered.image).find(|(a, b)| a != b);
        let counts = (alone.image.len(), layered.image.len());
        return Some(format!("the images differ, first in {pair:x?} of {counts:?} pieces"));
    }
    if (offered || alone.image.is_empty()) && alone.table != layered.table {
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
    // Nobody counts what a real kernel is asked for.
    let counted = alone.iter().chain(layered).any(|outcome| outcome.binds.is_some());
    let heading =
        if counted { "step (VM_BIND: ioctls, operations)" } else { "step (what is mapped in the end)" };
    println!("{heading:44} {:>14} {:>14}", "driver", "layer");
    for (alone, layered) in alone.iter().zip(layered) {
        let step = steps::all().find(|step| step.name == alone.name);
        let (fewest, extra) = step.map_or((None, false), |step| (step.fewest, step.extra));
        let count = |outcome: &Outcome| match outcome {
            Outcome { skipped: true, .. } => "cannot".into(),
            Outcome { binds: None, table, .. } => {
                format!("{} pages", table.iter().map(|mapping| mapping.len / image::PAGE).sum::<u64>())
            }
            Outcome { binds: Some(binds), .. } => format!("{} {:>6}", binds.ioctls, binds.ops),
        };
        let judged = judge(alone, layered, fewest, extra);
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
        What::End { how, memory } => steps::other(how, memory),
        What::Run { filter } => run(&filter),
    }
}

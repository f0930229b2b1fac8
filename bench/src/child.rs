//! A process that opens lavapipe in one of the two ways and measures one row, sample by sample, as its parent asks.
//!
//! Protocol: on start the child writes a [`Hello`] as a line of JSON. Every line it reads is a number of samples to take, 0 meaning to lead
//! the resource to the row's start and no further; it answers with a line of JSON, the samples in nanoseconds. At the end of its input it
//! destroys its device and ends.

use crate::binder::Binder;
use crate::gpu::Gpu;
use crate::rows::{Row, Work};
use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

/// Who binds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Native,
    Layer,
}

/// What a child tells of itself.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) driver: String,
    /// Whether the layer's library is in the process.
    layer: bool,
}

/// Keeps the process, and the driver's threads that it will have, on the processor where it is.
///
/// Otherwise a short row measures whether the scheduler woke the driver's thread beside the caller or on a processor that had to be
/// woken first, which is three times what the row takes, and chance on both sides.
fn stay() -> Result<()> {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).context("staying on one processor")
}

/// The child's side.
pub(crate) fn serve(row: &Row) -> Result<()> {
    stay()?;
    let sparse = match row.work {
        Work::Bind(_) => true,
        Work::Call(_, sparse) => sparse,
    };
    let gpu = Gpu::open(sparse)?;
    let layer = std::fs::read_to_string("/proc/self/maps")?.contains(manifest::LIBRARY);
    answer(&Hello { driver: gpu.driver.clone(), layer })?;
    match row.work {
        Work::Bind(workload) => {
            let mut binder = Binder::new(&gpu, &workload())?;
            serve_samples(|count| {
                if count == 0 {
                    binder.restore()?;
                }
                (0..count)
                    .map(|_| {
                        binder.restore()?;
                        Ok(binder.measure()?.as_nanos() as u64)
                    })
                    .collect()
            })
        }
        Work::Call(call, _) => {
            serve_samples(|count| (0..count).map(|_| Ok(call.measure(&gpu)?.as_nanos() as u64)).collect())
        }
    }
}

fn serve_samples(mut take: impl FnMut(u32) -> Result<Vec<u64>>) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        answer(&take(line?.trim().parse()?)?)?;
    }
    Ok(())
}

fn answer(value: &impl Serialize) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(value)?)?;
    Ok(output.flush()?)
}

/// How children find the layer.
pub(crate) struct Launcher {
    /// Folder of the layer's manifest, where it is not installed.
    pub(crate) layer_path: Option<PathBuf>,
}

/// The parent's side of a child. A child that is dropped is ended.
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pub(crate) hello: Hello,
}

impl Launcher {
    /// Starts a child for the row of number `row`. The layer's counters go to `stats`.
    pub(crate) fn start(&self, row: usize, way: Way, stats: Option<&PathBuf>) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--child", &row.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env_remove("VK_INSTANCE_LAYERS").env_remove("ENABLE_TESSERA").env_remove("DISABLE_TESSERA");
        command.env_remove("TESSERA_STATS");
        match way {
            Way::Native => {
                command.env("DISABLE_TESSERA", "1");
            }
            Way::Layer => {
                command.env("VK_INSTANCE_LAYERS", manifest::LAYER);
                if let Some(folder) = &self.layer_path {
                    let mut folders = OsString::from(folder);
                    if let Some(before) =
                        std::env::var_os("VK_ADD_LAYER_PATH").filter(|value| !value.is_empty())
                    {
                        folders.push(":");
                        folders.push(before);
                    }
                    command.env("VK_ADD_LAYER_PATH", folders);
                }
                if let Some(stats) = stats {
                    command.env("TESSERA_STATS", stats);
                }
            }
        }
        let mut process = command.spawn().context("this program cannot start itself")?;
        let input = process.stdin.take();
        let mut output = BufReader::new(process.stdout.take().context("no pipe")?);
        let hello: Hello = read(&mut output)?;
        if hello.layer != (way == Way::Layer) {
            let _ = process.kill();
            match way {
                Way::Layer => bail!(
                    "the loader did not load {}: build it with `cargo build --release`, install it, or give --layer-path DIR",
                    manifest::LAYER
                ),
                Way::Native => bail!(
                    "the layer is in every process: take it out of VK_INSTANCE_LAYERS or the loader's settings"
                ),
            }
        }
        Ok(Child { process, input, output, hello })
    }
}

impl Child {
    /// Takes samples, in nanoseconds.
    pub(crate) fn samples(&mut self, count: u32) -> Result<Vec<u64>> {
        let input = self.input.as_mut().context("the child was already told to end")?;
        writeln!(input, "{count}").context("the measuring process has died")?;
        read(&mut self.output)
    }

    /// Lets the child destroy its device and end.
    pub(crate) fn end(mut self) -> Result<()> {
        self.input = None;
        let status = self.process.wait()?;
        ensure!(status.success(), "the measuring process ended with {status}");
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both do nothing to a process that `end` has waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read<T: for<'de> Deserialize<'de>>(output: &mut impl BufRead) -> Result<T> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(!line.is_empty(), "the measuring process has died");
    serde_json::from_str(&line).with_context(|| format!("unexpected answer {line:?}"))
}

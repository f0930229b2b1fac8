//! A process that opens the driver in one of the two ways and measures one row, sample by sample, as its parent asks.
//!
//! Protocol, in lines of JSON: on start the child writes a [`Hello`], then it answers every [`Request`]. At the end of its input it destroys
//! its device and ends.

use crate::binder::Binder;
use crate::gpu::Gpu;
use crate::rows::{Row, Suite, Work};
use crate::sample::{Counts, Sample};
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

/// What a child is asked for.
#[derive(Serialize, Deserialize)]
enum Request {
    /// To take samples, answered with a list of [`Sample`]; 0: to lead the resource to the row's start and no further.
    Samples(u32),
    /// To bind once, answered with [`Counts`].
    Counts,
}

/// Lets threads that are woken, the emulated node's, run when the caller waits and not in the midst of the calls that are timed.
fn wake_no_one_early() -> Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: a valid structure; the policy is this process's alone.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) };
    ensure!(set == 0, "the scheduler does not let this process be SCHED_BATCH");
    Ok(())
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
pub(crate) fn serve(suite: Suite, row: &Row) -> Result<()> {
    stay()?;
    if suite == Suite::Drivers {
        wake_no_one_early()?;
    }
    let sparse = match row.work {
        Work::Bind(_) => true,
        Work::Call(_, sparse) => sparse,
    };
    let gpu = Gpu::open(suite.driver(), sparse)?;
    let layer = std::fs::read_to_string("/proc/self/maps")?.contains(manifest::LIBRARY);
    answer(&Hello { driver: gpu.driver.clone(), layer })?;
    match row.work {
        Work::Bind(workload) => {
            let mut binder = Binder::new(&gpu, &workload())?;
            serve_requests(|request| match request {
                Request::Samples(count) => {
                    if count == 0 {
                        binder.restore()?;
                    }
                    let mut sample = || -> Result<Sample> {
                        binder.restore()?;
                        binder.measure()
                    };
                    answer(&(0..count).map(|_| sample()).collect::<Result<Vec<_>>>()?)
                }
                Request::Counts => {
                    binder.restore()?;
                    answer(&binder.count()?)
                }
            })
        }
        Work::Call(call, _) => serve_requests(|request| match request {
            Request::Samples(count) => {
                answer(&(0..count).map(|_| call.measure(&gpu)).collect::<Result<Vec<_>>>()?)
            }
            Request::Counts => bail!("a row that binds nothing has no counts"),
        }),
    }
}

fn serve_requests(mut serve: impl FnMut(Request) -> Result<()>) -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        serve(serde_json::from_str(&line?)?)?;
    }
    Ok(())
}

fn answer(value: &impl Serialize) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(value)?)?;
    Ok(output.flush()?)
}

/// How children are started.
pub(crate) struct Launcher {
    pub(crate) suite: Suite,
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
    /// Starts a child for the suite's row of number `row`. The layer's counters go to `stats`.
    pub(crate) fn start(&self, row: usize, way: Way, stats: Option<&PathBuf>) -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([self.suite.name(), "--child", &row.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.env_remove("VK_INSTANCE_LAYERS").env_remove("ENABLE_TESSERA").env_remove("DISABLE_TESSERA");
        command.env_remove("TESSERA_STATS").env_remove("TESSERA_VERIFY");
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
    pub(crate) fn samples(&mut self, count: u32) -> Result<Vec<Sample>> {
        self.ask(&Request::Samples(count))
    }

    /// Binds once.
    pub(crate) fn counts(&mut self) -> Result<Counts> {
        self.ask(&Request::Counts)
    }

    fn ask<T: for<'de> Deserialize<'de>>(&mut self, request: &Request) -> Result<T> {
        let input = self.input.as_mut().context("the child was already told to end")?;
        writeln!(input, "{}", serde_json::to_string(request)?).context("the measuring process has died")?;
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

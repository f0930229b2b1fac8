//! What sparse binding costs, a driver alone and with the layer side by side in one run.

mod binder;
mod calls;
mod child;
mod gpu;
mod machine;
mod measure;
mod node;
mod report;
mod rows;
mod sample;
mod workload;

use anyhow::{Context, Result, bail};
use child::Launcher;
use clap::Parser;
use manifest::Kind;
use measure::Effort;
use report::Line;
use rows::{Row, Suite};
use std::fs;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measures sparse binding, without and with the layer in turns, each call to the completion of its fence.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    machine: Option<machine::Command>,
    /// What to measure on
    #[arg(value_enum, default_value_t = Suite::Lavapipe)]
    suite: Suite,
    /// Measure only rows whose name contains this
    #[arg(long, value_name = "SUBSTR")]
    filter: Option<String>,
    /// Measure only the driver, without the layer
    #[arg(long)]
    native: bool,
    /// Folder of the layer's manifest [default: the layer built beside this program, else the installed one]
    #[arg(long, value_name = "DIR")]
    layer_path: Option<PathBuf>,
    /// Times that both sides take turns in a row
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    rounds: u32,
    /// Length of a turn, ms: samples are taken until it is filled
    #[arg(long, value_name = "MS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    turn: u64,
    /// Also put the table into a Markdown file, in place of the one that was generated there before; - writes it to the terminal
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Be a process that measures the row of this number
    #[arg(long, hide = true, value_name = "ROW")]
    child: Option<usize>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(command) = &arguments.machine {
        return command.run();
    }
    let suite = arguments.suite;
    if let Some(index) = arguments.child {
        return child::serve(suite, suite.rows().get(index).context("there is no such row")?);
    }
    let wanted = |row: &Row| arguments.filter.as_deref().is_none_or(|part| row.name.contains(part));
    let rows: Vec<_> = suite.rows().iter().enumerate().filter(|(_, row)| wanted(row)).collect();
    if rows.is_empty() {
        let names: Vec<_> = suite.rows().iter().map(|row| row.name).collect();
        bail!("no row's name contains that; the rows are:\n  {}", names.join("\n  "));
    }

    let folder = tempfile::tempdir()?;
    let launcher = Launcher { suite, layer_path: layer_path(&arguments, folder.path())? };
    let effort = Effort { rounds: arguments.rounds, turn: Duration::from_millis(arguments.turn) };
    let mut lines = vec![];
    for (done, (index, row)) in rows.iter().enumerate() {
        progress(&format!("{}/{} {}", done + 1, rows.len(), row.name));
        let measured =
            measure::measure(&launcher, *index, row, !arguments.native, &effort).with_context(|| row.name)?;
        lines.push(Line { row, measured });
    }
    progress("");

    match arguments.markdown.as_deref() {
        Some(file) if file == Path::new("-") => print!("{}", report::markdown(suite, &lines)),
        file => {
            println!("{} {}", report::machine(), lines[0].measured.driver);
            println!("{}", report::tables(suite, &lines, false));
            if let Some(file) = file {
                update(report::program(suite), file, &report::markdown(suite, &lines))
                    .with_context(|| file.display().to_string())?;
            }
        }
    }
    Ok(())
}

/// The folder to tell the loader; nothing when it finds the layer by itself.
fn layer_path(arguments: &Arguments, scratch: &Path) -> Result<Option<PathBuf>> {
    if let Some(folder) = &arguments.layer_path {
        return Ok(Some(std::path::absolute(folder)?));
    }
    Ok(match manifest::built_library() {
        Some(library) => {
            Kind::Explicit.write(scratch, &library)?;
            Some(scratch.into())
        }
        None => None,
    })
}

fn update(program: &str, file: &Path, section: &str) -> Result<()> {
    let document = match fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        document => document?,
    };
    Ok(fs::write(file, report::replace(program, &document, section))?)
}

/// Says on a terminal what is being done, in a line that the next one overwrites.
fn progress(text: &str) {
    let mut output = std::io::stderr();
    if output.is_terminal() {
        // Nothing depends on this line.
        let _ = write!(output, "\r\x1b[K{text}");
        let _ = output.flush();
    }
}

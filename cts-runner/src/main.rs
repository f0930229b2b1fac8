//! `cts-runner`: runs test suites for sparse binding against any back end.
//!
//! An ordinary Vulkan program: it reaches the layer only through the loader and environment variables.

mod baseline;
mod deqp;
mod environment;
mod gpu;
mod outcome;
mod report;
mod runner;
mod settings;
mod suite;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Runs test suites for sparse binding against any back end.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the project's own suite, each case in a process of its own.
    ///
    /// The last line is the summary. Exit status: 0 when all is as expected, 1 when a case failed, 2 when the suite could not run.
    Suite(runner::SuiteArguments),
    /// Runs cases of the Vulkan CTS with deqp-vk, whatever crashes or hangs on the way.
    ///
    /// Exit status: 0 when nothing is worse than the baseline (without one: when nothing failed), 1 when something is, 2 when it could not
    /// run.
    Run(deqp::RunArguments),
    /// Puts two results of the CTS side by side: native and layer, plain and trap, two kernels.
    ///
    /// Exit status: 0 when no case ends worse in B, 1 when some do.
    Compare(deqp::CompareArguments),
    /// Runs one case of the CTS with everything that the layer can tell, and natively beside it, and collects what they leave in a folder.
    ///
    /// Exit status: 0 when the case passes with the layer.
    Triage(deqp::TriageArguments),
    /// Runs one case of the suite in this process (what `suite` starts for every case).
    #[command(hide = true)]
    Case {
        name: String,
        #[command(flatten)]
        settings: settings::Settings,
    },
    /// Says which device and layers an instance made in this environment has (what `suite` starts first).
    #[command(hide = true)]
    Probe {
        #[command(flatten)]
        settings: settings::Settings,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Suite(arguments) => runner::run(&arguments),
        Command::Run(arguments) => deqp::run(&arguments),
        Command::Compare(arguments) => deqp::compare(&arguments),
        Command::Triage(arguments) => deqp::triage(&arguments),
        Command::Case { name, settings } => return runner::child::run_case(&name, &settings),
        Command::Probe { settings } => runner::child::probe(&settings).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("cts-runner: {error:#}");
            ExitCode::from(2)
        }
    }
}

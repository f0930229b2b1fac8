//! Real kernels without hardware: a stock Debian kernel in stock QEMU, its GPU driver over an emulated GPU, and a program in
//! that machine. `docs/machines.md` tells how it works.

mod channel;
mod devicetree;
mod gpu;
mod initramfs;
mod kernel;
mod modules;
mod qemu;
mod run;
mod vulkan;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Real kernels in QEMU over emulated GPUs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boots a machine, runs a program in it, and ends with the program's exit status.
    Run(run::Options),
}

fn main() -> ExitCode {
    let Arguments { command: Command::Run(options) } = Arguments::parse();
    match run::run(&options) {
        // What does not fit is what no shell could tell apart either.
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("machines: {error:#}");
            ExitCode::from(run::FAILED)
        }
    }
}

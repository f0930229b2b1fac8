//! The first process of an emulated machine. It plays the GPU in a thread, loads the kernel driver for it, runs a program,
//! reports output, files and exit status to the host, and switches the machine off.
//!
//! It is linked statically and is the only program that the machine needs besides the one to run.

mod channel;
mod device;
mod modules;
mod physical;
mod program;
mod ram;

use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

use channel::Channel;
use wire::paths;

/// The render node appears while the driver probes, which may go on after its module is loaded.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

fn main() {
    if std::process::id() != 1 {
        eprintln!("this is the first process of a machine; `machines run` starts it");
        std::process::exit(2);
    }
    // Before there is a channel, the console is the only place for an error; the host shows its end.
    if let Err(error) = mount_all().and_then(|()| report()) {
        eprintln!("init: {error:#}");
    }
    let error = reboot(RebootCommand::PowerOff);
    panic!("cannot switch off: {error:?}");
}

/// Runs the program; what goes wrong before is told to the host, which misses the exit status then.
fn report() -> Result<()> {
    let channel = Channel::open().context("cannot map the channel")?;
    if let Err(error) = run(&channel) {
        channel.log(&format!("{error:#}"));
    }
    Ok(())
}

fn mount_all() -> Result<()> {
    let filesystems = [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("debugfs", "/sys/kernel/debug"),
        ("tracefs", "/sys/kernel/tracing"),
        ("tmpfs", "/tmp"),
    ];
    for (kind, target) in filesystems {
        fs::create_dir_all(target)?;
        mount(kind, target, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {target}"))?;
    }
    fs::create_dir_all(paths::OUT)?;
    Ok(())
}

fn run(channel: &Channel) -> Result<()> {
    let device = device::start()?;
    modules::load()?;
    wait_for_render_node()?;
    let status = program::run(channel)?;
    program::send_files(channel)?;
    channel.log(&format!("device: {}", device.counters()));
    channel.status(status);
    Ok(())
}

fn wait_for_render_node() -> Result<()> {
    let start = Instant::now();
    while !has_render_node() {
        if start.elapsed() > PROBE_TIMEOUT {
            bail!("the driver did not come up: no render node");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn has_render_node() -> bool {
    let Ok(entries) = fs::read_dir("/dev/dri") else { return false };
    entries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"renderD"))
}

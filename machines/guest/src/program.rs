//! Runs the program, and sends what it leaves.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, thread};

use anyhow::{Context, Result};
use wire::channel::Kind;
use wire::paths;

use crate::channel::Channel;

/// Runs what [`paths::COMMAND`] says, and returns its exit status: its exit code, or 128 and the signal that ended it.
pub fn run(channel: &Channel) -> Result<i32> {
    let command = fs::read(paths::COMMAND).context("no command to run")?;
    let mut words = command.split(|byte| *byte == 0).map(OsStr::from_bytes);
    let program = words.next().context("an empty command")?;
    // What follows the last zero byte is no argument.
    let mut arguments: Vec<_> = words.collect();
    arguments.pop();
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs([("PATH", "/bin"), ("HOME", "/tmp"), (paths::OUT_VARIABLE, paths::OUT)])
        .envs([("RUST_BACKTRACE", "1")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let status = thread::scope(|scope| {
        scope.spawn(|| pump(channel, Kind::Stdout, stdout));
        scope.spawn(|| pump(channel, Kind::Stderr, stderr));
        child.wait()
    })?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

fn pump(channel: &Channel, kind: Kind, pipe: Option<impl Read>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 0x1_0000];
    let mut full = false;
    // An error of a pipe means that there is nothing more to come, as its end does.
    while let Ok(len @ 1..) = pipe.read(&mut buffer) {
        // It has to be read on, or the program would wait for ever.
        if !channel.send(kind, &buffer[..len]) && !full {
            channel.log("the program writes more than the channel holds: output is lost");
            full = true;
        }
    }
}

/// Sends the files below [`paths::OUT`].
pub fn send_files(channel: &Channel) -> Result<()> {
    send_folder(channel, Path::new(paths::OUT))
}

fn send_folder(channel: &Channel, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            send_folder(channel, &path)?;
            continue;
        }
        let data = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(paths::OUT)?.as_os_str().as_bytes();
        if !(channel.send(Kind::FileName, name) && channel.send(Kind::FileData, &data)) {
            channel.log(&format!("no room left for the file {}", path.display()));
        }
    }
    Ok(())
}

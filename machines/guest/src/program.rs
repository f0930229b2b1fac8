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
    let environment = fs::read(paths::ENVIRONMENT).context("no environment")?;
    let mut arguments = words(&command);
    let program = arguments.next().context("an empty command")?;
    let variables = words(&environment).filter_map(|word| {
        let word = word.as_bytes();
        let at = word.iter().position(|byte| *byte == b'=')?;
        Some((OsStr::from_bytes(&word[..at]), OsStr::from_bytes(&word[at + 1..])))
    });
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs([("PATH", "/bin"), ("HOME", "/tmp"), (paths::OUT_VARIABLE, paths::OUT)])
        .envs(variables)
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

/// Words that are each ended by a zero byte.
fn words(bytes: &[u8]) -> impl Iterator<Item = &OsStr> {
    bytes
        .split_inclusive(|byte| *byte == 0)
        .map(|word| OsStr::from_bytes(word.strip_suffix(b"\0").unwrap_or(word)))
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

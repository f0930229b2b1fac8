//! `cts-runner triage`: one case, looked at closely.

use super::target::{Manner, Target, TargetArguments};
use crate::report::{Record, Status};
use crate::settings::{Kernel, Listening, Settings};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The options of `cts-runner triage`.
#[derive(Args)]
pub(crate) struct TriageArguments {
    /// The case's whole name
    case: String,
    #[command(flatten)]
    target: TargetArguments,
    /// What the layer logs, as in TESSERA_LOG
    #[arg(long, value_name = "FILTER", default_value = "trace")]
    log: String,
    /// Folder for what is collected [default: out/triage/CASE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the case with the layer and natively. `Ok(true)`: it passes in the run that was asked for.
pub(crate) fn triage(arguments: &TriageArguments) -> Result<bool> {
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("out/triage").join(&arguments.case));
    let out = std::path::absolute(out).context("--out")?;
    let target = Target::new(&arguments.target, Some(&out.join("manifest")))?;
    if !target.list(&arguments.case)?.lines().any(|line| line.strip_prefix("TEST: ") == Some(&arguments.case))
    {
        bail!("{} has no case {}", target.binary.display(), arguments.case);
    }
    crate::runner::child::no_core_files();
    let native = Settings { kernel: Kernel::Native, listening: Listening::None, ..target.settings.clone() };
    let asked = target.settings.clone();
    let sides = match asked.layer() {
        true => vec![("layer", asked), ("native", native)],
        false => vec![("native", asked)],
    };
    let mut summary = format!("# {}\n", arguments.case);
    let mut passes = Vec::new();
    for (side, settings) in sides {
        let (record, text) = one(&target, arguments, &settings, &out.join(side))?;
        passes.push(matches!(record.status, Status::Pass | Status::Warn));
        write!(summary, "\n## {side}\n\n{}\n\n{text}", record.summary()).context("the summary")?;
    }
    let file = out.join("summary.md");
    std::fs::write(&file, &summary).with_context(|| file.display().to_string())?;
    println!("{summary}\n{}", out.display());
    Ok(passes.first() == Some(&true))
}

/// Runs the case under `settings`; the files lie in `folder`. Returns the result and what there is to read.
fn one(
    target: &Target,
    arguments: &TriageArguments,
    settings: &Settings,
    folder: &Path,
) -> Result<(Record, String)> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let stats = folder.join("stats.json");
    // The layer appends to it.
    let _ = std::fs::remove_file(&stats);
    let mut variables: Vec<(&str, OsString)> = vec![("VK_LOADER_DEBUG", "error,warn,layer,driver".into())];
    if settings.layer() {
        variables.push(("TESSERA_LOG", arguments.log.clone().into()));
        variables.push(("TESSERA_VM_LOG", "10".into()));
        variables.push(("TESSERA_STATS", stats.clone().into()));
    }
    let manner = Manner { settings, variables: &variables, thorough: true };
    let seen = target.probe(settings)?;
    let environment = folder.join("environment.sh");
    std::fs::write(&environment, shell(target, &manner, &arguments.case))
        .with_context(|| environment.display().to_string())?;
    let session = target.run(&manner, &[&arguments.case], &folder.join("case"), || ())?;
    let record = session.records.into_iter().next().unwrap_or_else(|| Record {
        status: Status::Missing,
        message: session.bad_end.clone().unwrap_or_else(|| "deqp-vk does not know this case".into()),
        ..Record::new(&arguments.case)
    });

    let mut text = format!("{seen}\n\n");
    if let Some(how) = session.bad_end {
        write!(text, "The process ended badly: {how}\n\n").context("the summary")?;
    }
    let files = [
        ("case.qpa", "what the case logged, with images, shaders, and the stack of a crash"),
        ("case.out", "standard output of deqp-vk, with messages of the validation layer"),
        ("case.err", "standard error: the loader's and the layer's log"),
        ("stats.json", "the layer's counters, a line a device"),
        ("environment.sh", "the variables, and the command to run it by hand"),
    ];
    for (name, what) in files {
        if let Ok(metadata) = folder.join(name).metadata() {
            writeln!(text, "* {name}: {what} ({} bytes)", metadata.len()).context("the summary")?;
        }
    }
    Ok((record, text))
}

/// A shell script that does what [`Target::run`] does. Of this process's variables it names those alone that drivers and loader heed.
fn shell(target: &Target, manner: &Manner<'_>, case: &str) -> Vec<u8> {
    const HEEDED: [&str; 9] =
        ["VK_", "TESSERA_", "MESA_", "LP_", "GALLIVM_", "GALLIUM_", "LIBGL_", "LD_", "XDG_DATA_"];
    let set = target.variables(manner);
    let mut script = b"#!/bin/sh\n".to_vec();
    let mut inherited: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| HEEDED.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes())))
        .filter(|(name, _)| name.to_str().is_none_or(|name| !set.contains_key(name)))
        .collect();
    inherited.sort_unstable();
    let mut export = |name: &[u8], value: Option<&OsString>| {
        match value {
            Some(value) => script.extend([b"export ", name, b"=", &quoted(value.as_bytes()), b"\n"].concat()),
            None => script.extend([b"unset ", name, b"\n"].concat()),
        };
    };
    inherited.iter().for_each(|(name, value)| export(name.as_bytes(), Some(value)));
    set.iter().for_each(|(name, value)| export(name.as_bytes(), value.as_ref()));
    let folder = target.binary.parent().unwrap_or(Path::new("/")).as_os_str().as_bytes();
    script.extend(
        [b"cd ", &*quoted(folder), b" && exec ", &quoted(target.binary.as_os_str().as_bytes())].concat(),
    );
    script.extend(format!(" --deqp-case={case} --deqp-log-filename=/dev/null\n").bytes());
    script
}

/// `text` as one word of the shell.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut word = vec![b'\''];
    for &byte in text {
        match byte {
            b'\'' => word.extend(b"'\\''"),
            byte => word.push(byte),
        }
    }
    word.push(b'\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for text in ["plain", "it's \"here\" $HOME\\", ""] {
            let script = [b"printf %s ", &*quoted(text.as_bytes())].concat();
            let output = std::process::Command::new("sh")
                .arg("-c")
                .arg(String::from_utf8(script).unwrap())
                .output()
                .unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }
}

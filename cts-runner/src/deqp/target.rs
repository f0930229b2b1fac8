//! deqp-vk, what it runs against, and one process of it.

use super::qpa::{Open, Reader};
use crate::environment::{Environment, Place};
use crate::report::{Record, Status};
use crate::settings::{Kernel, Listening, Settings, Unbound};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use wait_timeout::ChildExt as _;

/// deqp-vk, and what it is run against.
#[derive(Args)]
pub(super) struct TargetArguments {
    /// The deqp-vk to run; it is run in its own folder, where its data are
    #[arg(long, value_name = "PATH")]
    deqp: PathBuf,
    /// Who executes the binds: the layer's kernels, or the driver alone
    #[arg(long, value_enum, default_value_t = Kernel::Auto)]
    kernel: Kernel,
    /// Unbound pages end the process that touches them (under an emulated kernel)
    #[arg(long)]
    trap: bool,
    /// Loads the Khronos validation layer between our layer and the driver, or above ours; its errors fail a case
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value_t = Listening::None,
          default_missing_value = "below")]
    validation: Listening,
    #[command(flatten)]
    place: Place,
    /// A variable for deqp-vk's environment; the last word on it
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// An argument more for deqp-vk
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    deqp_arg: Vec<String>,
    /// Seconds that a case may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

/// deqp-vk with all that its processes need.
pub(super) struct Target {
    pub(super) binary: PathBuf,
    pub(super) settings: Settings,
    environment: Environment,
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    timeout: Duration,
}

/// How one process is run.
pub(super) struct Manner<'a> {
    pub(super) settings: &'a Settings,
    /// Variables beside those that the settings mean.
    pub(super) variables: &'a [(&'static str, OsString)],
    /// Logs images, shaders, and the stack where a case crashes.
    pub(super) thorough: bool,
}

/// What became of one process.
pub(super) struct Session {
    /// The cases that ended, the one that the process ended in among them.
    pub(super) records: Vec<Record>,
    /// What the validation layer said outside of any case.
    pub(super) outside: Vec<String>,
    /// How the process ended, unless in an orderly way.
    pub(super) bad_end: Option<String>,
}

/// How often a process's log is looked at.
const POLL: Duration = Duration::from_millis(20);

impl Target {
    /// `keep` is a folder for the layer's manifest, where that is to outlive this.
    pub(super) fn new(arguments: &TargetArguments, keep: Option<&Path>) -> Result<Self> {
        let binary = arguments.deqp.canonicalize();
        let binary = binary.with_context(|| format!("--deqp {}", arguments.deqp.display()))?;
        if !binary.is_file() {
            bail!("--deqp {} is no file", binary.display());
        }
        let unbound = if arguments.trap { Unbound::Trap } else { Unbound::Zero };
        let settings = Settings { kernel: arguments.kernel, unbound, listening: arguments.validation };
        if arguments.trap && !settings.emulated() {
            bail!("--trap needs an emulated kernel: only these can make unbound pages inaccessible");
        }
        Ok(Self {
            binary,
            settings,
            environment: Environment::new(&arguments.place, keep)?,
            variables: arguments.env.clone(),
            arguments: arguments.deqp_arg.clone(),
            timeout: Duration::from_secs(arguments.timeout),
        })
    }

    /// The device and the layers that deqp-vk will see.
    ///
    /// # Errors
    /// There is no driver, or a layer that was asked for is not loaded: the results would be about something else.
    pub(super) fn probe(&self, settings: &Settings) -> Result<String> {
        let seen = self.environment.probe(settings, |command| {
            command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        })?;
        Ok(match self.environment.library().filter(|_| settings.layer()) {
            Some(library) => format!("{seen} ({})", library.display()),
            None => seen,
        })
    }

    /// The variables that are set for deqp-vk; without a value: removed.
    pub(super) fn variables(&self, manner: &Manner<'_>) -> BTreeMap<String, Option<OsString>> {
        let settings = self.environment.variables(manner.settings);
        let more = manner.variables.iter().map(|(name, value)| (*name, Some(value.clone())));
        let given = self.variables.iter().map(|(name, value)| (name.as_str(), Some(value.into())));
        settings.into_iter().chain(more).chain(given).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// deqp-vk in its folder.
    fn command(&self, manner: &Manner<'_>) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.binary.parent().unwrap_or(Path::new("/"))).stdin(Stdio::null());
        for (name, value) in self.variables(manner) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// The cases that match deqp's `pattern`, as deqp-vk lists them.
    pub(super) fn list(&self, pattern: &str) -> Result<String> {
        let scratch = tempfile::tempdir().context("a folder for the case list")?;
        let file = scratch.path().join("cases.txt");
        let settings =
            Settings { kernel: Kernel::Native, listening: Listening::None, ..self.settings.clone() };
        let mut command = self.command(&Manner { settings: &settings, variables: &[], thorough: false });
        command
            .arg("--deqp-runmode=txt-caselist")
            .arg(option("--deqp-caselist-export-file", &file))
            .arg(option("--deqp-log-filename", &scratch.path().join("list.qpa")))
            .arg(format!("--deqp-case={pattern}"));
        let output = command.output().with_context(|| format!("cannot start {}", self.binary.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} cannot list its cases: {}, {}", self.binary.display(), output.status, said.trim());
        }
        std::fs::read_to_string(&file).context("the case list of deqp-vk")
    }

    /// Runs one process with `cases`. Its files are called `stem`.cases, .qpa, .out and .err; `each` is told of every case that ended.
    ///
    /// # Errors
    /// The process cannot be started or its files not be written. Whatever it does by itself is no error.
    pub(super) fn run(
        &self,
        manner: &Manner<'_>,
        cases: &[&str],
        stem: &Path,
        mut each: impl FnMut(),
    ) -> Result<Session> {
        let list = stem.with_extension("cases");
        let (log, out, err) =
            (stem.with_extension("qpa"), stem.with_extension("out"), stem.with_extension("err"));
        // An older log would be taken for this process's until it has begun its own.
        let _ = std::fs::remove_file(&log);
        std::fs::write(&list, cases.join("\n") + "\n").with_context(|| list.display().to_string())?;
        let enable = if manner.thorough { "enable" } else { "disable" };
        let mut command = self.command(manner);
        command
            .arg(option("--deqp-caselist-file", &list))
            .arg(option("--deqp-log-filename", &log))
            .arg(option("--deqp-shadercache-filename", &stem.with_extension("shadercache")))
            .arg(format!("--deqp-log-images={enable}"))
            .arg(format!("--deqp-log-shader-sources={enable}"))
            .arg(format!("--deqp-crashhandler={enable}"))
            .args(&self.arguments)
            .stdout(File::create(&out).with_context(|| out.display().to_string())?)
            .stderr(File::create(&err).with_context(|| err.display().to_string())?);
        let mut process =
            command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))?;

        let (mut reader, mut records) = (Reader::default(), Vec::new());
        let (mut file, mut bytes, mut since) = (None, Vec::new(), Instant::now());
        let end = loop {
            // Looked at before the log is read: what was written before the end is in it.
            let end = process.wait_timeout(POLL).context("waiting for deqp-vk")?;
            if file.is_none() {
                file = File::open(&log).ok();
            }
            if let Some(file) = &mut file {
                bytes.clear();
                file.read_to_end(&mut bytes).with_context(|| log.display().to_string())?;
                let before = reader.marks();
                for record in reader.feed(&bytes) {
                    records.push(record);
                    each();
                }
                if reader.marks() != before {
                    since = Instant::now();
                }
            }
            if end.is_some() {
                break end;
            }
            if since.elapsed() > self.timeout {
                // It may have ended by itself since.
                let _ = process.kill();
                process.wait().context("waiting for a killed deqp-vk")?;
                break None;
            }
        };

        let errors = std::fs::read(&err).unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors);
        let bad_end = match end {
            // 1 says that cases failed.
            Some(status) if reader.ended() && matches!(status.code(), Some(0 | 1)) => None,
            Some(status) => Some(how(status, &errors)),
            None => Some(format!("no end within {} s", self.timeout.as_secs())),
        };
        if let Some(Open { case, text }) = reader.into_open() {
            let status = if end.is_some() { Status::Crash } else { Status::Timeout };
            let message = bad_end.clone().unwrap_or_else(|| "the log breaks off".into());
            let output = format!("{text}{errors}");
            records.push(Record { status, message, duration: since.elapsed(), output, ..Record::new(&case) });
            each();
        }
        let outside = match manner.settings.listening {
            Listening::None => Vec::new(),
            _ => {
                let said = std::fs::read(&out).unwrap_or_default();
                blame_validation(&mut records, &String::from_utf8_lossy(&said))
            }
        };
        Ok(Session { records, outside, bad_end })
    }
}

/// `name=path` as one argument.
fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push("=");
    option.push(path);
    option
}

/// How a process ended, with the last that it said.
fn how(status: ExitStatus, errors: &str) -> String {
    let how = match status.signal() {
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    };
    match errors.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(last) => format!("{how}: {last}"),
        None => how,
    }
}

/// Whether the validation layer only says that the CTS or the driver is newer than it is: structures that it does not know, and values that
/// extensions have added since (these begin at 1,000,000,000).
fn of_the_future(text: &str) -> bool {
    text.contains("unknown VkStructureType")
        || text.contains("does not fall within the begin") && text.contains(" (1000")
}

/// Fails the cases during which the validation layer wrote errors to standard output, where it writes when nobody else listens; the message
/// has the names of all kinds, and the first one's text. Returns the errors that came before the first case.
fn blame_validation(records: &mut [Record], said: &str) -> Vec<String> {
    let (mut case, mut outside) = (None, Vec::new());
    let mut blamed = BTreeMap::<&str, (BTreeSet<&str>, &str)>::new();
    for line in said.lines() {
        if let Some(name) = line.strip_prefix("Test case '").and_then(|line| line.split('\'').next()) {
            case = Some(name);
        } else if let Some((_, text)) = line.split_once("Validation Error: ")
            && !of_the_future(text)
        {
            match case {
                None => outside.push(line.to_owned()),
                Some(case) => {
                    let kind = text.trim_start_matches("[ ").split(' ').next().unwrap_or(text);
                    blamed.entry(case).or_insert_with(|| (BTreeSet::new(), text)).0.insert(kind);
                }
            }
        }
    }
    for record in records {
        // A failure that is there already has the better reason.
        if let Some((kinds, text)) = blamed.get(&*record.case).filter(|_| !record.status.is_failure()) {
            let kinds: Vec<_> = kinds.iter().copied().collect();
            record.status = Status::Fail;
            record.message = format!("{}: {text}", kinds.join(" "));
        }
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_errors_fail_the_case_they_came_in() {
        let record = |case: &str, status| Record { status, ..Record::new(case) };
        let mut records = [record("a.one", Status::Pass), record("a.two", Status::Pass)];
        let said = "Validation Error: [ VUID-y ]\nTest case 'a.one'..\nValidation Error: unknown VkStructureType (7)\n\
                    Validation Error: [ VUID-z ] value of format (1000470001) does not fall within the begin..end range\n  Pass (x)\n\n\
                    Test case 'a.two'..\nVUID-x(ERROR): Validation Error: [ VUID-x ] one\n\
                    Validation Error: [ VUID-w ] format (7) does not fall within the begin..end range\n\
                    Validation Error: [ VUID-x ] three\n  Pass (x)\n";
        assert_eq!(blame_validation(&mut records, said), ["Validation Error: [ VUID-y ]"]);
        assert_eq!(records[0].status, Status::Pass);
        assert_eq!(
            (records[1].status, &*records[1].message),
            (Status::Fail, "VUID-w VUID-x: [ VUID-x ] one")
        );
    }
}

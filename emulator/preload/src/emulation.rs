//! The emulated device of this process, as the environment asks for it.

use core::ffi::{CStr, c_int, c_void};
use std::ffi::{CString, OsString};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use emulator::{Config, Faults, Node};
use kmd::Node as _;
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;
use rustix::mm::MprotectFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::decode::Argument;
use crate::dump;
use crate::files::Table;
use crate::log::{self, Calls, Log, Outcome};
use crate::spec::Model;
use crate::tree::Tree;

static EMULATION: OnceLock<Emulation> = OnceLock::new();

/// The descriptors that are the node's.
pub(crate) static FILES: Table<OpenFile> = Table::new();

/// The emulation; `None` when none was asked for, and before the library's constructor has run.
pub(crate) fn get() -> Option<&'static Emulation> {
    EMULATION.get()
}

/// By how much queued jobs run late, and of which bind queue, if it is one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Delay {
    time: Duration,
    queue: Option<u32>,
}

impl Delay {
    /// Reads `MILLISECONDS` or `MILLISECONDS@QUEUE`.
    fn parse(text: &str) -> Option<Self> {
        let (time, queue) = match text.split_once('@') {
            Some((time, queue)) => (time, Some(queue.parse().ok()?)),
            None => (text, None),
        };
        Some(Self { time: Duration::from_millis(time.parse().ok()?), queue })
    }
}

/// An emulated device and what is said about it.
pub(crate) struct Emulation {
    model: Model,
    faults: Faults,
    delay: Delay,
    log: Option<Log>,
    dump: Option<PathBuf>,
    tree: OnceLock<Option<Tree>>,
    /// A file of the device that nobody else has; made when the node is opened for the first time.
    device: Mutex<Option<Arc<Node>>>,
    opened: AtomicU32,
    pub(crate) calls: Calls,
}

/// An open file of the node.
pub(crate) struct OpenFile {
    pub(crate) node: Arc<Node>,
    /// How many were opened before it, and itself: its name in the log.
    number: u32,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let Some(emulation) = get() else { return };
        emulation.write_dump(self, "closed");
        emulation.say(format_args!("node {} CLOSE", self.number));
    }
}

/// Why the environment's wish cannot be met: the variable, and what is wrong with it.
pub(crate) struct Refused(&'static str, String);

impl core::fmt::Display for Refused {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.0, self.1)
    }
}

/// Lets the process have as many descriptors as it may: each object that can be exported is one here, and none with a real
/// kernel, so programs do not count on them.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "the limit of descriptors stays");
    }
}

/// Begins the emulation that the variables ask for, if they ask for any.
pub(crate) fn begin(variable: impl Fn(&str) -> Option<OsString>) -> Result<(), Refused> {
    if let Some(emulation) = Emulation::from_variables(variable)? {
        let emulation = EMULATION.get_or_init(|| emulation);
        emulation.say(format_args!("process {} emulates {}", std::process::id(), emulation.model));
        if emulation.log.is_some() {
            log::listen(|line| {
                if let Some(emulation) = get() {
                    emulation.say(line);
                }
            });
        }
    }
    Ok(())
}

impl Emulation {
    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Self>, Refused> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let text = |name| variable(name).map(|value| value.to_string_lossy().into_owned());
        let Some(model) = text("TESSERA_EMULATE") else { return Ok(None) };
        let model = Model::parse(&model).map_err(|error| Refused("TESSERA_EMULATE", error.to_string()))?;
        let faults = match text("TESSERA_EMULATE_FAULT") {
            Some(faults) => faults.parse().map_err(|error: emulator::FaultsError| {
                Refused("TESSERA_EMULATE_FAULT", error.to_string())
            })?,
            None => Faults::default(),
        };
        let delay = match text("TESSERA_EMULATE_DELAY") {
            Some(delay) => Delay::parse(&delay).ok_or_else(|| {
                Refused(
                    "TESSERA_EMULATE_DELAY",
                    format!("\"{delay}\" is not MILLISECONDS or MILLISECONDS@QUEUE"),
                )
            })?,
            None => Delay::default(),
        };
        let open = |path: OsString| {
            Log::open(path.as_ref())
                .map_err(|error| Refused("TESSERA_EMULATE_LOG", format!("{}: {error}", path.display())))
        };
        let log = variable("TESSERA_EMULATE_LOG").map(open).transpose()?;
        Ok(Some(Self {
            model,
            faults,
            delay,
            log,
            dump: variable("TESSERA_EMULATE_DUMP").map(PathBuf::from),
            tree: OnceLock::new(),
            device: Mutex::new(None),
            opened: AtomicU32::new(0),
            calls: Calls::new(),
        }))
    }

    /// Writes a line to the log, where there is one.
    pub(crate) fn say(&self, text: impl core::fmt::Display) {
        if let Some(log) = &self.log {
            log.entry(text, &[]);
        }
    }

    /// Where a path leads that names a file of the emulation; `None` for all others.
    pub(crate) fn redirect(&self, path: &CStr) -> Option<CString> {
        // The paths of making the tree come by here too: none of them is one of its files.
        if !Tree::covers(&self.model, path) {
            return None;
        }
        let made = self.tree.get_or_init(|| {
            Tree::create(&self.model)
                .inspect_err(|error| eprintln!("tessera-emulator: no place for the node's files: {error}"))
                .ok()
        });
        made.as_ref()?.redirect(path)
    }

    /// The files around the node, if any was asked for yet.
    pub(crate) fn tree(&self) -> Option<&Tree> {
        self.tree.get()?.as_ref()
    }

    /// The device, if it has been opened.
    pub(crate) fn device(&self) -> Option<Arc<Node>> {
        self.device.lock().clone()
    }

    /// Opens the node.
    pub(crate) fn open(&self) -> Result<Arc<OpenFile>, Errno> {
        let mut device = self.device.lock();
        let device = match &*device {
            Some(device) => device,
            None => {
                // GPU addresses are not this process's.
                let config = Config { faults: self.faults, execute: false, ..Config::default() };
                let new = self.model.create(config)?;
                raise_descriptor_limit();
                new.delay_jobs(self.delay.time);
                new.single_out_jobs(self.delay.queue);
                device.insert(new)
            }
        };
        let node = device.open_again()?;
        let number = self.opened.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Arc::new(OpenFile { node, number }))
    }

    /// Says that the node was opened.
    pub(crate) fn say_opened(&self, fd: c_int, file: &OpenFile) {
        self.say(format_args!("node {} OPEN = {fd}", file.number));
    }

    /// Performs an ioctl.
    ///
    /// # Safety
    /// As [`kmd::Node::ioctl`].
    pub(crate) unsafe fn ioctl(&self, file: &OpenFile, request: u32, arg: *mut c_void) -> Result<(), Errno> {
        let began = Instant::now();
        // SAFETY: our caller's promise.
        let result = unsafe { file.node.ioctl(request, arg) };
        self.calls.count(request, result.is_ok(), began.elapsed());
        if let Some(log) = &self.log {
            // SAFETY: the call has just been made.
            let argument = unsafe { Argument::new(request, arg, result.is_ok()) };
            let words = argument.words(file.node.driver_name());
            let unknown = format!("{request:#x}");
            let name = file.node.command_name(request).unwrap_or(&unknown);
            let gap = if words.text.is_empty() { "" } else { " " };
            let line = format_args!("node {} {name}{gap}{} = {}", file.number, words.text, Outcome(result));
            log.entry(line, &words.below);
        }
        result
    }

    /// Maps the node's file, as [`Node::map_file`].
    ///
    /// # Safety
    /// As [`Node::map_file`].
    pub(crate) unsafe fn map(
        &self,
        file: &OpenFile,
        fixed: Option<u64>,
        len: u64,
        prot: MprotectFlags,
        offset: u64,
    ) -> Result<*mut u8, Errno> {
        // SAFETY: our caller's promise.
        let result = unsafe { file.node.map_file(fixed, len, prot, offset) };
        if self.log.is_some() {
            let shown = Outcome(result.map(drop));
            self.say(format_args!("node {} MMAP offset={offset:#x} len={len:#x} = {shown}", file.number));
        }
        result
    }

    /// Appends the page tables of a file to the file that the environment names, if it names one.
    fn write_dump(&self, file: &OpenFile, why: &str) {
        let Some(path) = &self.dump else { return };
        let title = format!("process {} node {} {why}", std::process::id(), file.number);
        if let Err(error) = dump::append(path, &title, &file.node) {
            eprintln!("tessera-emulator: {}: {error}", path.display());
        }
    }

    /// The end of the process: what is to be said about all of it.
    pub(crate) fn end(&self) {
        for file in FILES.all() {
            self.write_dump(&file, "at exit");
        }
        if let (Some(log), Some(device)) = (&self.log, self.device()) {
            log.entry(format_args!("process {} ends", std::process::id()), &self.calls.summary(&device));
        }
    }

    /// Keeps all that a `fork` must find in order.
    pub(crate) fn lock(&self) {
        FILES.lock();
        MutexGuard::leak(self.device.lock());
        if let Some(log) = &self.log {
            log.lock();
        }
    }

    /// Ends what [`Self::lock`] began.
    ///
    /// # Safety
    /// This thread has called `lock`, or its counterpart in the process that it was forked from.
    pub(crate) unsafe fn unlock(&self) {
        // SAFETY: all three were locked by `lock`.
        unsafe {
            if let Some(log) = &self.log {
                log.unlock();
            }
            self.device.force_unlock();
            FILES.unlock();
        }
    }

    /// Leaves what a `fork`ed child inherits alone: the device's threads are not there. The next open makes a device anew.
    pub(crate) fn abandon(&self) {
        FILES.abandon();
        core::mem::forget(self.device.lock().take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_read() {
        let delay = |ms, queue| Some(Delay { time: Duration::from_millis(ms), queue });
        assert_eq!((Delay::parse("20"), Delay::parse("5@1")), (delay(20, None), delay(5, Some(1))));
        for wrong in ["", "x", "5@", "@1", "5@1@2", "-1"] {
            assert_eq!(Delay::parse(wrong), None, "{wrong}");
        }
    }
}

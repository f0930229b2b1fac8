//! The log: a line for every ioctl, written at once, and a summary at the end.

use std::fmt::{self, Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use emulator::{Counters, Node};
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

/// Where the log goes.
enum Target {
    File(File),
    Stderr,
}

/// A log. What is written with one call stays together, also between processes that share the file.
pub(crate) struct Log {
    target: Mutex<Target>,
    start: Instant,
}

impl Log {
    /// Opens a file to append to; `-` is stderr.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let target = if path == Path::new("-") {
            Target::Stderr
        } else {
            Target::File(out_of_the_way(OpenOptions::new().append(true).create(true).open(path)?))
        };
        Ok(Self { target: Mutex::new(target), start: Instant::now() })
    }

    /// Writes an entry: a line with time (seconds since the library was loaded) and thread, then `more` lines below it.
    pub(crate) fn entry(&self, text: impl Display, more: &[String]) {
        let time = self.start.elapsed();
        let thread = rustix::thread::gettid();
        let mut out = format!("{:6}.{:06} {thread} {text}\n", time.as_secs(), time.subsec_micros());
        for line in more {
            // Strings do not fail.
            let _ = writeln!(out, "    {line}");
        }
        self.write(out.as_bytes());
    }

    fn write(&self, text: &[u8]) {
        let result = match &mut *self.target.lock() {
            Target::File(file) => file.write_all(text),
            Target::Stderr => io::stderr().write_all(text),
        };
        // A full disk must not end the program that is being watched; the gap in the log shows.
        drop(result);
    }

    /// Keeps others from writing until [`Self::unlock`], for a `fork`.
    pub(crate) fn lock(&self) {
        MutexGuard::leak(self.target.lock());
    }

    /// Ends what [`Self::lock`] began.
    ///
    /// # Safety
    /// This thread has called `lock`, or its counterpart in the process that it was forked from.
    pub(crate) unsafe fn unlock(&self) {
        // SAFETY: locked by `lock`, whose guard was leaked.
        unsafe { self.target.force_unlock() };
    }
}

/// Has what the emulator itself says (that a VM was given up, and why) written to the log.
pub(crate) fn listen(say: fn(&str)) {
    struct Lines(fn(&str));
    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            (self.0)(String::from_utf8_lossy(line).trim());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(move || Lines(say));
    // Nobody else in this library listens.
    let _ = subscriber.try_init();
}

/// The same file with a high number. A program that closes what it does not know, and opens files of its own, must not find the
/// log in one of them.
fn out_of_the_way(file: File) -> File {
    let end = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let high = end.saturating_sub(64).min(1 << 14);
    match rustix::io::fcntl_dupfd_cloexec(&file, high as i32) {
        Ok(moved) => moved.into(),
        Err(_) => file,
    }
}

/// The result of an ioctl, as strace shows it.
pub(crate) struct Outcome(pub(crate) Result<(), Errno>);

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(()) => f.write_str("0"),
            Err(errno) => f.write_str(&crate::errno::name(errno)),
        }
    }
}

/// How often each command was called, and how long all calls took.
pub(crate) struct Calls {
    /// Indexed by command number.
    commands: [Call; 256],
    nanoseconds: AtomicU64,
}

#[derive(Default)]
struct Call {
    all: AtomicU64,
    refused: AtomicU64,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self { commands: core::array::from_fn(|_| Call::default()), nanoseconds: AtomicU64::new(0) }
    }

    pub(crate) fn count(&self, request: u32, ok: bool, took: Duration) {
        let call = &self.commands[request as usize & 0xff];
        call.all.fetch_add(1, Ordering::Relaxed);
        call.refused.fetch_add(u64::from(!ok), Ordering::Relaxed);
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Time that threads have spent in calls.
    pub(crate) fn nanoseconds(&self) -> u64 {
        self.nanoseconds.load(Ordering::Relaxed)
    }

    /// Calls of a command so far, refused ones included.
    pub(crate) fn of(&self, command: u8) -> u64 {
        self.commands[usize::from(command)].all.load(Ordering::Relaxed)
    }

    /// The summary: a line for each command that was called, and one for what the device did.
    pub(crate) fn summary(&self, device: &Node) -> Vec<String> {
        let mut lines = Vec::new();
        for (nr, call) in (0u32..).zip(&self.commands) {
            let (all, refused) = (call.all.load(Ordering::Relaxed), call.refused.load(Ordering::Relaxed));
            if all > 0 {
                let name = device.command_name(nr).unwrap_or("(unknown)");
                let refused = if refused > 0 { format!(", {refused} refused") } else { String::new() };
                lines.push(format!("{name:<24} {nr:#04x} {all:>8}{refused}"));
            }
        }
        let Counters { ioctls, binds, ops, jobs, table_pages, preallocated_pages, .. } = device.counters();
        let Counters { throttled, entries_written, flushes, live_bos, submits, .. } = device.counters();
        lines.push(format!(
            "{ioctls} ioctls, {binds} binds, {ops} bind operations, {jobs} jobs ({throttled} throttled), {flushes} flushes"
        ));
        lines.push(format!(
            "{table_pages} page-table pages now, {preallocated_pages} preallocated so far, {entries_written} entries \
             written, {live_bos} objects alive, {submits} jobs of the GPU"
        ));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::open(&path).unwrap();
        assert_eq!(Outcome(Err(Errno::from_raw_os_error(525))).to_string(), "error 525");
        log.entry("one", &[]);
        log.lock();
        // SAFETY: locked above.
        unsafe { log.unlock() };
        log.entry(format_args!("two = {}", Outcome(Err(Errno::INVAL))), &["below".into()]);
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].ends_with(" one") && lines[1].ends_with(" two = EINVAL"), "{text}");
        assert_eq!(lines[2], "    below");
    }

    #[test]
    fn the_summary_names_commands() {
        let device = Node::msm(emulator::Gpu::A750, emulator::Config::default()).unwrap();
        let calls = Calls::new();
        calls.count(0x40, true, Duration::from_nanos(20));
        calls.count(0xc018_644d, false, Duration::from_nanos(3));
        let lines = calls.summary(&device);
        assert_eq!(lines[0], "GET_PARAM                0x40        1");
        assert_eq!(lines[1], "VM_BIND                  0x4d        1, 1 refused");
        assert_eq!((calls.of(0x4d), calls.of(0x4e), calls.nanoseconds()), (1, 0, 23));
    }
}

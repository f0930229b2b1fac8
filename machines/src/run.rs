//! `machines run`: from options to an exit status.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::channel::{Event, Reader};
use crate::devicetree::Board;
use crate::gpu::Gpu;
use crate::initramfs::Initramfs;
use crate::kernel::Kernel;
use crate::qemu::{Machine, Setup};
use crate::{modules, vulkan};
use wire::paths;

/// Exit status when it is the machine that failed, not the program in it; `timeout` uses the number below.
pub const FAILED: u8 = 125;

/// How often the guest's output is looked for.
const POLL: Duration = Duration::from_millis(10);

/// How much of the GPU is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// As little as carries all of VM_BIND. A Mali's registers and a firmware image that acknowledges itself: no job ever runs. An
    /// Adreno comes to the end of every submission, without drawing anything.
    Passive,
    /// A Mali whose microcontroller runs groups and their command streams, without shaders. Of an Adreno there is no more than
    /// the other.
    Active,
}

/// Options of `machines run`.
#[derive(Args)]
pub struct Options {
    /// The GPU, and with it the driver.
    #[arg(long, value_enum)]
    gpu: Gpu,
    /// How much of the GPU is emulated.
    #[arg(long, value_enum, default_value = "passive")]
    profile: Profile,
    /// The kernel's series, as Debian names it: by default 7.3 for panthor, 7.2 for msm.
    #[arg(long)]
    kernel: Option<String>,
    /// One processor, one instruction a nanosecond: two runs are the same to the digit.
    #[arg(long)]
    deterministic: bool,
    /// Seconds after which the machine is ended.
    #[arg(long, default_value_t = 60)]
    timeout: u64,
    /// Where the files go that the program leaves in the folder `$OUT`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Another file for the program, as HOST=GUEST. Can be given more than once.
    #[arg(long = "file", value_name = "HOST=GUEST")]
    files: Vec<String>,
    /// A variable of the program's environment: NAME=VALUE, or NAME to take it from here if it is set. Can be given more
    /// than once.
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    environment: Vec<String>,
    /// Prints how long the parts took, and what the guest's first process has to say.
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    stack: vulkan::Stack,
    /// The program, an executable for arm64 Linux, and its arguments. It is static, or --root has its libraries.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Boots, runs, and returns the program's exit status.
pub fn run(options: &Options) -> Result<i32> {
    let start = Instant::now();
    let gpu = options.gpu;
    let kernel = Kernel::fetch(options.kernel.as_deref().unwrap_or(gpu.kernel()))?;
    let processors = if options.deterministic { 1 } else { 2 };
    let board = Board { gpu, processors, ram_alias: gpu.reads_memory(options.profile) };

    let mut initramfs = Initramfs::new();
    initramfs.program("/init", &guest_init()?)?;
    initramfs.file(paths::GPU, gpu.name().into());
    modules::add(&mut initramfs, &kernel, gpu.modules())?;
    let (path, firmware) = gpu.firmware(options.profile);
    initramfs.file(&format!("/lib/firmware/{path}"), firmware);
    let program = add_command(&mut initramfs, &options.command)?;
    let variables = vulkan::add(&mut initramfs, &options.stack, gpu, program)?;
    initramfs.file(paths::ENVIRONMENT, environment(&variables, &options.environment));
    for file in &options.files {
        let (host, guest) = file.split_once('=').with_context(|| format!("--file {file}: no '='"))?;
        initramfs.program(guest, Path::new(host))?;
    }

    let setup = Setup {
        kernel: kernel.image(),
        initramfs: initramfs.finish()?,
        board,
        deterministic: options.deterministic,
    };
    let prepared = start.elapsed();
    let mut machine = Machine::start(&setup)?;
    let status = attend(&mut machine, options);
    if options.verbose {
        let total = start.elapsed();
        eprintln!("machines: {} prepared in {prepared:.1?}, ran in {:.1?}", kernel.release, total - prepared);
    }
    status
}

/// The guest's first process, built beside this program: `target/<triple>/<profile>/tessera-guest` next to
/// `target/<profile>/machines`.
fn guest_init() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let mut folders = exe.ancestors().skip(1);
    let (profile, target) = (folders.next(), folders.next());
    let profile = profile.and_then(Path::file_name).context("this program has no folder")?;
    let path = target.context("this program has no folder")?.join("aarch64-unknown-linux-musl");
    let path = path.join(profile).join("tessera-guest");
    if !path.exists() {
        bail!("{} is missing: scripts/machines builds it", path.display());
    }
    Ok(path)
}

fn add_command<'a>(initramfs: &mut Initramfs, command: &'a [String]) -> Result<&'a Path> {
    let [program, arguments @ ..] = command else { bail!("no program") };
    let host = Path::new(program);
    let name = host.file_name().and_then(|name| name.to_str()).context("the program has no name")?;
    let guest = format!("/bin/{name}");
    initramfs.program(&guest, host)?;
    let words = std::iter::once(guest.as_str()).chain(arguments.iter().map(String::as_str));
    initramfs.file(paths::COMMAND, words.flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect());
    Ok(host)
}

/// What is wanted comes last, so that it counts.
fn environment(variables: &[(&str, String)], wanted: &[String]) -> Vec<u8> {
    let variables = variables.iter().map(|(name, value)| format!("{name}={value}"));
    let taken = |name: &String| Some(format!("{name}={}", std::env::var(name).ok()?));
    let value = |word: &String| if word.contains('=') { Some(word.clone()) } else { taken(word) };
    let words = variables.chain(wanted.iter().filter_map(value));
    words.flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect()
}

/// Passes on what the guest reports, until it says how the program ended: the last that it says.
fn attend(machine: &mut Machine, options: &Options) -> Result<i32> {
    let deadline = Instant::now() + Duration::from_secs(options.timeout);
    let mut reader = Reader::new(machine.memory()?);
    let mut told = Vec::new();
    loop {
        // Looked at first, so that what it wrote last is read afterwards.
        let off = machine.is_off()?;
        let late = Instant::now() > deadline;
        for event in reader.read()? {
            match event {
                Event::Output { error: false, data } => write_all(&mut std::io::stdout(), &data)?,
                Event::Output { error: true, data } => write_all(&mut std::io::stderr(), &data)?,
                Event::Log(text) if options.verbose => eprint!("guest: {text}"),
                Event::Log(text) => told.push(text),
                Event::File { name, data } => keep(options.out.as_deref(), &name, &data)?,
                Event::Status(code) => return Ok(code),
            }
        }
        if off || late {
            let console = machine.console_tail()?;
            let what = if off {
                "ended without an exit status".into()
            } else {
                format!("was ended after {} s", options.timeout)
            };
            bail!("the machine {what}; it said:\n{}{console}", told.concat());
        }
        std::thread::sleep(POLL);
    }
}

fn write_all(to: &mut impl std::io::Write, data: &[u8]) -> Result<()> {
    to.write_all(data)?;
    Ok(to.flush()?)
}

fn keep(out: Option<&Path>, name: &str, data: &[u8]) -> Result<()> {
    let Some(out) = out else { return Ok(()) };
    let path = out.join(name);
    fs::create_dir_all(path.parent().unwrap_or(out))?;
    fs::write(&path, data).with_context(|| format!("cannot write {}", path.display()))
}

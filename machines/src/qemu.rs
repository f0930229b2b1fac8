//! QEMU.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;
use wire::map;

use crate::devicetree::Board;

const PROGRAM: &str = "qemu-system-aarch64";

/// Bytes of the console that are worth showing.
const CONSOLE_TAIL: usize = 8000;

/// What to boot, and how.
pub struct Setup {
    /// The kernel's image.
    pub kernel: PathBuf,
    /// The guest's files.
    pub initramfs: Vec<u8>,
    /// The board.
    pub board: Board,
    /// Whether time is counted in instructions.
    pub deterministic: bool,
}

/// A running machine; dropped, it is off.
pub struct Machine {
    child: Child,
    folder: TempDir,
}

impl Machine {
    /// Boots.
    pub fn start(setup: &Setup) -> Result<Self> {
        // In memory where there is a place for that: the guest's RAM is a file there.
        let shm = Path::new("/dev/shm");
        let folder = if shm.is_dir() { TempDir::new_in(shm) } else { TempDir::new() }?;
        let path = |name: &str| folder.path().join(name);
        fs::write(path("initramfs"), &setup.initramfs)?;
        fs::write(path("devicetree"), setup.board.devicetree()?)?;
        fs::write(path("console"), [])?;
        let len = map::RAM.end - map::RAM.start;
        // Made here, so that it can be read before QEMU has opened it.
        File::create_new(path("memory"))?.set_len(len)?;

        // With a hypervisor's mode, calls of the secure world are answered, if only by a refusal.
        let virtualization = if setup.board.gpu.has_secure_world() { "on" } else { "off" };
        let memory = |id| format!("memory-backend-file,id={id},size={len},mem-path=memory,share=on");
        let mut command = Command::new(PROGRAM);
        command
            .current_dir(folder.path())
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "file:console"])
            .args(["-M", &format!("virt,gic-version=2,virtualization={virtualization},memory-backend=ram")])
            .args(["-cpu", "cortex-a57", "-object", &memory("ram")])
            .args(["-m", &format!("size={len}B"), "-smp", &setup.board.processors.to_string()])
            .args(["-dtb", "devicetree", "-initrd", "initramfs"])
            .arg("-kernel")
            .arg(&setup.kernel)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(path("messages"))?);
        if setup.board.ram_alias {
            command.args(["-object", &memory("alias"), "-device", "ivshmem-plain,memdev=alias"]);
        }
        // A kernel that is broken says so and is off, instead of being waited for.
        let mut append = String::from("console=ttyAMA0 quiet iomem=relaxed oops=panic panic=-1");
        if setup.deterministic {
            // One instruction, one nanosecond; idle time passes at once; no other clock, no other seed.
            command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
            command.args(["-rtc", "base=2026-01-01T00:00:00,clock=vm", "-seed", "1"]);
            append.push_str(" nokaslr");
        } else {
            command.args(["-accel", "tcg,thread=multi"]);
        }
        let child = command.arg("-append").arg(append).spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                anyhow::anyhow!("{PROGRAM} is not installed: scripts/machines installs it")
            }
            _ => anyhow::Error::new(error).context(format!("cannot run {PROGRAM}")),
        })?;
        Ok(Self { child, folder })
    }

    /// The guest's RAM.
    pub fn memory(&self) -> Result<File> {
        Ok(File::open(self.folder.path().join("memory"))?)
    }

    /// Whether it has switched itself off.
    pub fn is_off(&mut self) -> Result<bool> {
        match self.child.try_wait()? {
            Some(status) if !status.success() => {
                let messages = fs::read_to_string(self.folder.path().join("messages")).unwrap_or_default();
                bail!("{PROGRAM} failed ({status}): {messages}")
            }
            status => Ok(status.is_some()),
        }
    }

    /// The end of what the kernel wrote to its console.
    pub fn console_tail(&self) -> Result<String> {
        let console = fs::read(self.folder.path().join("console")).context("no console")?;
        let tail = &console[console.len().saturating_sub(CONSOLE_TAIL)..];
        Ok(String::from_utf8_lossy(tail).replace('\r', ""))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may be off already, and there is nobody to tell if not even that works.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

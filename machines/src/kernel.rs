//! Debian's kernels, fetched by `scripts/machines-kernel` and cached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// An unpacked kernel.
pub struct Kernel {
    /// Its release, such as `7.3.4+deb13-arm64`.
    pub release: String,
    folder: PathBuf,
}

impl Kernel {
    /// The newest kernel of `series` ("7.3") that the Debian archive has, or had when it was fetched.
    pub fn fetch(series: &str) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("scripts").join("machines-kernel");
        let output = Command::new(&script)
            .arg(series)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", script.display()))?;
        if !output.status.success() {
            bail!("no kernel {series}");
        }
        let root = PathBuf::from(String::from_utf8(output.stdout)?.trim_end());
        let modules = root.join("usr/lib/modules");
        let folder = fs::read_dir(&modules)
            .with_context(|| format!("cannot read {}", modules.display()))?
            .next()
            .context("a kernel package without a kernel")??
            .path();
        let release = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { release, folder })
    }

    /// The bootable image.
    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// Where its modules are.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("kernel")
    }
}

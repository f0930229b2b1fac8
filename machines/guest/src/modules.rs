//! Kernel modules.

use std::ffi::CString;
use std::fs::{self, File};

use anyhow::{Context, Result};
use rustix::system::finit_module;
use wire::paths;

/// Loads what [`paths::MODULES`] lists, in order.
pub fn load() -> Result<()> {
    for line in fs::read_to_string(paths::MODULES).context("no list of modules")?.lines() {
        let (path, parameters) = line.split_once(' ').unwrap_or((line, ""));
        let parameters = CString::new(parameters)?;
        let file = File::open(path).with_context(|| format!("no module {path}"))?;
        finit_module(&file, &parameters, 0).with_context(|| format!("cannot load {path}"))?;
    }
    Ok(())
}

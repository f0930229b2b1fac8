//! Kernel modules.

use std::fs::{self, File};

use anyhow::{Context, Result};
use rustix::system::finit_module;
use wire::paths;

/// Loads what [`paths::MODULES`] lists, in order.
pub fn load() -> Result<()> {
    for path in fs::read_to_string(paths::MODULES).context("no list of modules")?.lines() {
        let file = File::open(path).with_context(|| format!("no module {path}"))?;
        finit_module(&file, c"", 0).with_context(|| format!("cannot load {path}"))?;
    }
    Ok(())
}

//! The emulated node under the driver, as `libtessera_emulator.so` shows it.

use anyhow::{Context as _, Result};
use client::Emulator;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A part of the page table. Objects are numbered in the order in which they are met, so that two runs can be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mapping {
    pub va: u64,
    pub len: u64,
    /// Nothing for null mappings.
    pub object: Option<u64>,
    pub offset: u64,
}

/// What VM_BIND was used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Binds {
    pub ioctls: u64,
    pub ops: u64,
}

/// The library, and what is to be known of it.
pub struct Node(Emulator);

impl Node {
    pub fn find() -> Result<Self> {
        Ok(Self(Emulator::find().context("libtessera_emulator.so is not preloaded")?))
    }

    pub fn binds(&self) -> Binds {
        let counters = self.0.counters();
        Binds { ioctls: counters.binds, ops: counters.ops }
    }

    /// Writes a line to the node's log.
    pub fn mark(&self, text: &str) {
        self.0.mark(text);
    }

    /// Runs `body` while the jobs of one bind queue of the kernel's do not run.
    pub fn without<R>(&self, queue: u32, body: impl FnOnce() -> Result<R>) -> Result<R> {
        self.0.single_out(Some(queue))?;
        self.0.hold(true)?;
        let result = body();
        self.0.hold(false)?;
        self.0.single_out(None)?;
        result
    }

    /// The page table of the device's VM: that of the file that was opened last.
    pub fn page_table(&self) -> Result<Vec<Mapping>> {
        let runs = self.0.mappings(None, 1).context("the page table cannot be read")?;
        let mut numbers = HashMap::new();
        Ok(runs
            .into_iter()
            .map(|client::Mapping { va, len, object, offset, .. }| {
                let next = numbers.len() as u64;
                let object = (object != 0).then(|| *numbers.entry(object).or_insert(next));
                Mapping { va, len, object, offset }
            })
            .collect())
    }
}

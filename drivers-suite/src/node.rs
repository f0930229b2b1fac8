//! What is under the driver: the emulated node, as `libtessera_emulator.so` shows it, or a real kernel with its page tables.

use crate::real::Real;
use anyhow::{Context as _, Result, bail};
use client::Emulator;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// A part of the page table. Objects have numbers that are the same in two runs: those of an emulated node in the order in which they are
/// met, of a real kernel the names that the suite gave to its memory.
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

/// The oracle of what is mapped.
pub enum Node {
    Emulated(Emulator),
    Real(Real),
}

impl Node {
    /// To be called before the device is made.
    pub fn find() -> Self {
        Emulator::find().map_or_else(|| Self::Real(Real::new()), Self::Emulated)
    }

    /// The real kernel.
    pub const fn real(&self) -> Option<&Real> {
        if let Self::Real(real) = self { Some(real) } else { None }
    }

    /// None where nobody counts.
    pub fn binds(&self) -> Option<Binds> {
        let Self::Emulated(emulator) = self else { return None };
        let counters = emulator.counters();
        Some(Binds { ioctls: counters.binds, ops: counters.ops })
    }

    /// Writes a line to the emulated node's log.
    pub fn mark(&self, text: &str) {
        if let Self::Emulated(emulator) = self {
            emulator.mark(text);
        }
    }

    /// Whether [`Self::without`] can be had.
    pub const fn holds_queues(&self) -> bool {
        matches!(self, Self::Emulated(_))
    }

    /// Runs `body` while the jobs of one bind queue of the kernel's do not run.
    pub fn without<R>(&self, queue: u32, body: impl FnOnce() -> Result<R>) -> Result<R> {
        let Self::Emulated(emulator) = self else { bail!("a real kernel's queues cannot be held") };
        emulator.single_out(Some(queue))?;
        emulator.hold(true)?;
        let result = body();
        emulator.hold(false)?;
        emulator.single_out(None)?;
        result
    }

    /// The page table of the device's VM, with what continues joined: that of the file that was opened last.
    pub fn page_table(&self) -> Result<Vec<Mapping>> {
        let emulator = match self {
            Self::Emulated(emulator) => emulator,
            Self::Real(real) => return real.page_table(),
        };
        let mut table = Vec::new();
        let mut numbers = HashMap::new();
        let runs = emulator.mappings(None, 1).context("the page table cannot be read")?;
        for client::Mapping { va, len, object, offset, .. } in runs {
            let next = numbers.len() as u64;
            let object = (object != 0).then(|| *numbers.entry(object).or_insert(next));
            join(&mut table, Mapping { va, len, object, offset });
        }
        Ok(table)
    }

    /// The same, held to whatever else a real kernel and, with the layer, its mirror say of it.
    pub fn checked_page_table(&self, layered: bool) -> Result<Vec<Mapping>> {
        match self {
            Self::Emulated(_) => self.page_table(),
            Self::Real(real) => real.checked_page_table(layered),
        }
    }
}

/// Appends a mapping, or has it lengthen the last one.
pub fn join(table: &mut Vec<Mapping>, next: Mapping) {
    if let Some(last) = table.last_mut()
        && last.va + last.len == next.va
        && last.object == next.object
        && (next.object.is_none() || last.offset + last.len == next.offset)
    {
        last.len += next.len;
    } else {
        table.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_continues_is_one() {
        let mapping = |va, object, offset| Mapping { va, len: 16, object, offset };
        let mut table = Vec::new();
        let parts = [
            (0, Some(0), 0),
            (16, Some(0), 16),
            (32, Some(0), 64),
            (48, None, 0),
            (64, None, 0),
            (96, None, 0),
        ];
        parts.into_iter().for_each(|(va, object, offset)| join(&mut table, mapping(va, object, offset)));
        let starts: Vec<_> = table.iter().map(|mapping| (mapping.va, mapping.len)).collect();
        assert_eq!(starts, [(0, 32), (32, 16), (48, 32), (96, 16)]);
    }
}

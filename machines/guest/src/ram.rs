//! The machine's memory, through a PCI function that is the same memory once more.

use core::sync::atomic::{AtomicU32, AtomicU64};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use wire::map;

use crate::physical::Physical;

/// All of the RAM.
pub struct Ram(Physical);

impl Ram {
    /// Maps it. Not every machine has the function.
    pub fn map() -> Result<Option<Self>> {
        let Some(function) = find()? else { return Ok(None) };
        fs::write(function.join("enable"), "1").context("cannot enable the alias of the memory")?;
        let len = map::RAM.end - map::RAM.start;
        Ok(Some(Self(Physical::map_file(&function.join("resource2"), 0..len)?)))
    }

    /// The 32-bit word at a physical address; nothing where there is no RAM.
    pub fn word(&self, address: u64) -> Option<&AtomicU32> {
        self.0.word(address.checked_sub(map::RAM.start)?)
    }

    /// The 64-bit word at a physical address; nothing where there is no RAM.
    pub fn long(&self, address: u64) -> Option<&AtomicU64> {
        self.0.long(address.checked_sub(map::RAM.start)?)
    }

    /// Reads the word at a physical address; nothing where there is no RAM.
    pub fn read(&self, address: u64) -> Option<u32> {
        offset(address).map(|offset| self.0.read(offset))
    }

    /// Writes the word at a physical address. Whether there is RAM.
    pub fn write(&self, address: u64, value: u32) -> bool {
        offset(address).map(|offset| self.0.write(offset, value)).is_some()
    }
}

fn offset(address: u64) -> Option<u32> {
    map::RAM.contains(&address).then(|| (address - map::RAM.start) as u32)
}

fn find() -> Result<Option<PathBuf>> {
    for entry in fs::read_dir("/sys/bus/pci/devices").context("no PCI bus")? {
        let path = entry?.path();
        let id = |name| -> Result<u16> {
            let text = fs::read_to_string(path.join(name))?;
            Ok(u16::from_str_radix(text.trim().trim_start_matches("0x"), 16)?)
        };
        if (id("vendor")?, id("device")?) == map::RAM_ALIAS {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

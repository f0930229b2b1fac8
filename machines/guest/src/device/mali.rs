//! A Mali.

use core::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use anyhow::Result;
use mali::{Gpu, Identity, Interrupts, Line, Memory, Registers};
use wire::map;

use super::{Distributor, Model};
use crate::physical::Physical;
use crate::ram::Ram;

/// Active where the machine has an alias of its memory, else passive.
pub(super) fn new() -> Result<Box<dyn Model>> {
    let registers = Physical::map(map::GPU_REGISTERS)?;
    Ok(Box::new(Gpu::new(Identity::G610, registers, Distributor::map()?, Ram::map()?)))
}

impl Model for Gpu<Physical, Distributor, Ram> {
    fn step(&mut self, now: Duration) -> bool {
        self.step(now)
    }

    fn counters(&self) -> String {
        format!("{:?}", self.counters())
    }
}

impl Registers for Physical {
    fn read(&self, offset: u32) -> u32 {
        self.read(offset)
    }

    fn write(&self, offset: u32, value: u32) {
        self.write(offset, value);
    }

    fn take(&self, offset: u32) -> u32 {
        self.take(offset)
    }
}

impl Interrupts for Distributor {
    fn raise(&self, line: Line) {
        self.raise(line as u32);
    }
}

impl Memory for Ram {
    fn word(&self, physical: u64) -> Option<&AtomicU32> {
        self.word(physical)
    }

    fn long(&self, physical: u64) -> Option<&AtomicU64> {
        self.long(physical)
    }
}

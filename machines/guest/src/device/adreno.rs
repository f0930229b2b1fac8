//! An Adreno.

use std::time::Duration;

use adreno::{Gpu, Interrupts, Line, Memory, Registers};
use anyhow::{Context, Result};
use wire::map;

use super::{Distributor, Model};
use crate::physical::Physical;
use crate::ram::Ram;

pub(super) fn new() -> Result<Box<dyn Model>> {
    let ram = Ram::map()?.context("the machine has no alias of its memory")?;
    Ok(Box::new(Gpu::new(Physical::map(map::GPU_REGISTERS)?, ram, Distributor::map()?)))
}

impl Model for Gpu<Physical, Ram, Distributor> {
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

    fn update(&self, offset: u32, mask: u32, bits: u32) -> u32 {
        self.update(offset, mask, bits)
    }
}

impl Memory for Ram {
    fn load(&self, address: u64) -> Option<u32> {
        self.read(address)
    }

    fn store(&self, address: u64, value: u32) -> bool {
        self.write(address, value)
    }
}

impl Interrupts for Distributor {
    fn raise(&self, line: Line) {
        self.raise(line as u32);
    }
}

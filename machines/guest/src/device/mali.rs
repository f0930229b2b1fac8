//! A Mali.

use std::time::Duration;

use anyhow::Result;
use mali::{Gpu, Identity, Interrupts, Line, Registers};
use wire::map;

use super::{Distributor, Model};
use crate::physical::Physical;

pub(super) fn new() -> Result<Box<dyn Model>> {
    Ok(Box::new(Gpu::new(Identity::G610, Physical::map(map::GPU_REGISTERS)?, Distributor::map()?)))
}

impl Model for Gpu<Physical, Distributor> {
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

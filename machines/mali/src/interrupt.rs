//! The three interrupt blocks.

use core::time::Duration;

use crate::registers::{GPU_INT, INT_CLEAR, INT_MASK, INT_RAWSTAT, INT_STAT, JOB_INT, MMU_INT};
use crate::{Instant, Interrupts, Registers};

/// An interrupt line of the GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Group slots and the global interface of the firmware.
    Job,
    /// Faults of address spaces.
    Mmu,
    /// The GPU as a whole.
    Gpu,
}

impl Line {
    /// All of them, in the order of the device tree's `interrupts`.
    pub const ALL: [Self; 3] = [Self::Job, Self::Mmu, Self::Gpu];

    /// The name in the device tree's `interrupt-names`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Mmu => "mmu",
            Self::Gpu => "gpu",
        }
    }

    fn base(self) -> u32 {
        match self {
            Self::Job => JOB_INT,
            Self::Mmu => MMU_INT,
            Self::Gpu => GPU_INT,
        }
    }
}

/// The hardware's line is a level, ours an edge: while something stays pending, the edge comes again after this time, in case
/// the driver had masked its handler when it came.
const RAISE_AGAIN: Duration = Duration::from_millis(2);

/// One block: what has happened, and whether the line is up.
pub(crate) struct Block {
    line: Line,
    raw: u32,
    raised: Option<Instant>,
}

impl Block {
    pub(crate) fn new(line: Line) -> Self {
        Self { line, raw: 0, raised: None }
    }

    /// Something has happened.
    pub(crate) fn set(&mut self, bits: u32) {
        self.raw |= bits;
    }

    /// Forgets everything, as a reset does.
    pub(crate) fn reset(&mut self) {
        self.raw = 0;
    }

    /// Takes what the driver wrote to the clear register. Whether there was anything.
    pub(crate) fn clear(&mut self, registers: &impl Registers) -> bool {
        let bits = registers.take(self.line.base() + INT_CLEAR);
        self.raw &= !bits;
        bits != 0
    }

    /// Shows the state, and raises the line when it is due. Whether it was.
    pub(crate) fn show(
        &mut self,
        registers: &impl Registers,
        interrupts: &impl Interrupts,
        now: Instant,
    ) -> bool {
        let base = self.line.base();
        let pending = self.raw & registers.read(base + INT_MASK);
        registers.write(base + INT_RAWSTAT, self.raw);
        registers.write(base + INT_STAT, pending);
        if pending == 0 {
            self.raised = None;
            return false;
        }
        let due = self.raised.is_none_or(|at| now.saturating_sub(at) > RAISE_AGAIN);
        if due {
            self.raised = Some(now);
            interrupts.raise(self.line);
        }
        due
    }
}

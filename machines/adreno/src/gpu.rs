//! The device: one step takes what the driver has written, and answers.

use core::time::Duration;

use crate::registers as r;
use crate::ring::{Done, Ring};
use crate::smmu::View;
use crate::{Instant, Interrupts, Line, Memory, Registers, power, smmu};

/// What the device has been asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Interrupts of the GPU's raised.
    pub interrupts: u64,
    /// Times that the command processor was started.
    pub starts: u64,
    /// Packets, those of called streams included.
    pub packets: u64,
    /// Events that wrote a timestamp.
    pub timestamps: u64,
    /// Command streams that the ring buffer called, and those that they called.
    pub streams: u64,
    /// Accesses to addresses that are not mapped.
    pub faults: u64,
}

/// In [`r::CP_RB_WPTR`] while the driver has written nothing new: no index in any ring.
const NO_NEWS: u32 = u32::MAX;

/// The hardware's line is a level, ours an edge: while something stays pending, the edge comes again after this time, in case
/// the driver had masked its handler when it came.
const RAISE_AGAIN: Duration = Duration::from_millis(2);

/// An Adreno A702 behind `R`, interrupting through `I`, with the machine's memory `M`.
pub struct Gpu<R, M, I> {
    registers: R,
    memory: M,
    interrupts: I,
    ring: Ring,
    /// What has happened and is not forgotten.
    pending: u32,
    raised: Option<Instant>,
    counters: Counters,
}

impl<R: Registers, M: Memory, I: Interrupts> Gpu<R, M, I> {
    /// A GPU with its power off.
    pub fn new(registers: R, memory: M, interrupts: I) -> Self {
        smmu::reset(&registers);
        power::reset(&registers);
        // Nothing is ever under way when the bus is to be halted.
        registers.write(r::RBBM_GBIF_HALT_ACK, u32::MAX);
        registers.write(r::GBIF_HALT_ACK, u32::MAX);
        registers.write(r::CP_RB_WPTR, NO_NEWS);
        let (ring, counters) = (Ring::default(), Counters::default());
        Self { registers, memory, interrupts, ring, pending: 0, raised: None, counters }
    }

    /// What it has been asked to do so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes what the driver has written since the last step, and answers. Whether there was anything.
    ///
    /// The registers are memory, so the order of the driver's writes is lost and has to be inferred. It starts the command
    /// processor *before* it says that there is something in the ring: so the ring's end is read first, and a start that is
    /// seen with it, or before it, is the one that it was meant for. It writes both, and clears an interrupt, before it looks
    /// at the fences in memory: so clears are taken before the ring runs.
    pub fn step(&mut self, now: Instant) -> bool {
        self.registers.write_long(r::CP_ALWAYS_ON_COUNTER, ticks(now));
        let mut busy = power::step(&self.registers);
        let end = self.registers.update(r::CP_RB_WPTR, u32::MAX, NO_NEWS);
        let switch = self.take(r::CP_SQE_CNTL);
        let clear = self.take(r::RBBM_INT_CLEAR_CMD);
        self.pending &= !clear;
        if self.pending == 0 {
            self.raised = None;
        }
        if switch == r::SQE_RUN {
            self.ring = Ring::default();
            self.counters.starts += 1;
        }
        if end != NO_NEWS {
            self.run(end);
        }
        busy |= end != NO_NEWS || switch | clear != 0;
        self.show(now);
        busy
    }

    fn take(&self, offset: u32) -> u32 {
        // Most words are zero most of the time, and a read costs less.
        if self.registers.read(offset) == 0 { 0 } else { self.registers.update(offset, u32::MAX, 0) }
    }

    fn run(&mut self, end: u32) {
        let mut done = Done::default();
        self.ring.run(&View { registers: &self.registers, memory: &self.memory }, end, &mut done);
        self.counters.packets += done.packets;
        self.counters.timestamps += done.timestamps;
        self.counters.streams += done.streams;
        self.counters.faults += done.faults;
        if let Some(fault) = done.fault {
            smmu::report(&self.registers, fault);
            self.interrupts.raise(Line::Fault);
        }
        if done.interrupt {
            self.pending |= r::INT_CACHE_FLUSH_TS;
        }
    }

    /// Shows what has happened, and raises the line when it is due.
    fn show(&mut self, now: Instant) {
        self.registers.write(r::RBBM_INT_0_STATUS, self.pending);
        let due = self.pending & self.registers.read(r::RBBM_INT_0_MASK) != 0;
        if due && self.raised.is_none_or(|at| now.saturating_sub(at) > RAISE_AGAIN) {
            self.raised = Some(now);
            self.counters.interrupts += 1;
            self.interrupts.raise(Line::Gpu);
        }
    }
}

/// Ticks of the GPU's counter, 19.2 MHz.
fn ticks(now: Instant) -> u64 {
    (now.as_nanos() * 12 / 625) as u64
}

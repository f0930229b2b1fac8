//! The device: one step takes what the driver has written, and answers.

use crate::identity::Identity;
use crate::interrupt::{Block, Line};
use crate::mcu::Mcu;
use crate::memory::{Access, Fault, Memory};
use crate::registers as r;
use crate::{Instant, Interrupts, REGISTERS_LEN, Registers};

/// What the device has been asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Interrupts raised, on all lines.
    pub interrupts: u64,
    /// Resets.
    pub resets: u64,
    /// Flushes of the caches by GPU command.
    pub cache_flushes: u64,
    /// Rings of the MCU's doorbell.
    pub doorbells: u64,
    /// Address spaces that took a translation table.
    pub as_updates: u64,
    /// Regions that were locked.
    pub as_locks: u64,
    /// Faults of address spaces.
    pub faults: u64,
    /// Draws, dispatches and the like that streams asked for, and nothing executed.
    pub skipped: u64,
}

/// A Mali GPU behind `R`, interrupting through `I`, and with `M` reaching memory.
pub struct Gpu<R, I, M> {
    registers: R,
    interrupts: I,
    identity: Identity,
    mcu: Option<Mcu<M>>,
    job: Block,
    mmu: Block,
    gpu: Block,
    mcu_control: u32,
    counters: Counters,
}

/// What the driver asked for since the last step.
struct Triggers {
    mcu_control: u32,
    /// Doorbells that were rung, a bit each; the first is the MCU's own.
    doorbells: u32,
    command: u32,
}

impl<R: Registers, I: Interrupts, M: Memory> Gpu<R, I, M> {
    /// A GPU that has just been powered. With memory its MCU is active, without it passive; the driver has to find the
    /// [firmware](crate::firmware) for the one or the other.
    pub fn new(identity: Identity, registers: R, interrupts: I, memory: Option<M>) -> Self {
        identity.write(&registers);
        registers.write(r::INJECT, 0);
        Self {
            registers,
            interrupts,
            identity,
            mcu: memory.map(Mcu::new),
            job: Block::new(Line::Job),
            mmu: Block::new(Line::Mmu),
            gpu: Block::new(Line::Gpu),
            mcu_control: 0,
            counters: Counters::default(),
        }
    }

    /// What it has been asked to do so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes what the driver has written since the last step, answers, and lets streams run. Whether there was anything for
    /// either side.
    ///
    /// The registers are memory, so the order of the driver's writes is lost and has to be inferred. It clears an interrupt
    /// *before* it triggers what will raise it again: so triggers are read first, clears second, and only then the triggers
    /// act. A clear that is seen with a trigger then never takes away the answer to it.
    pub fn step(&mut self, now: Instant) -> bool {
        let mut triggers = Triggers {
            mcu_control: self.registers.read(r::MCU_CONTROL),
            doorbells: self.doorbells(),
            command: self.registers.take(r::GPU_CMD),
        };
        let mut busy = false;
        for block in [&mut self.job, &mut self.mmu, &mut self.gpu] {
            busy |= block.clear(&self.registers);
        }
        busy |= self.gpu_command(&mut triggers);
        busy |= self.power();
        // Before the doorbells: the driver does not wait for the tables that it gives to be taken.
        busy |= self.address_spaces();
        // The driver rings only while the MCU is on: what is seen together with the switch came before it went off, or rings
        // for a firmware that boots anyway.
        busy |= self.run_mcu(triggers.doorbells, now);
        busy |= self.switch_mcu(triggers.mcu_control);
        for block in [&mut self.job, &mut self.mmu, &mut self.gpu] {
            self.counters.interrupts += u64::from(block.show(&self.registers, &self.interrupts, now));
        }
        busy
    }

    fn gpu_command(&mut self, triggers: &mut Triggers) -> bool {
        let command = triggers.command;
        match command & 0xff {
            r::GPU_CMD_RESET => {
                self.counters.resets += 1;
                self.reset();
                triggers.mcu_control = 0;
                self.gpu.set(r::GPU_IRQ_RESET_COMPLETED);
            }
            r::GPU_CMD_FLUSH_CACHES => {
                self.counters.cache_flushes += 1;
                self.gpu.set(r::GPU_IRQ_CLEAN_CACHES_COMPLETED);
            }
            // Counters on and off: nothing counts here.
            _ => {}
        }
        command != 0
    }

    /// Everything off, no address space, nothing pending. What the driver is told of it is the caller's.
    fn reset(&mut self) {
        for domain in &r::POWER_DOMAINS {
            self.registers.write(domain.ready, 0);
        }
        self.registers.write(r::MCU_CONTROL, 0);
        self.registers.write(r::MCU_STATUS, r::MCU_STATUS_DISABLED);
        self.repair();
        self.mcu_control = 0;
        self.mcu.iter_mut().for_each(Mcu::stop);
        let spaces = r::AS..r::AS + r::AS_STRIDE * u32::from(self.identity.address_spaces);
        for offset in spaces.step_by(4) {
            self.registers.write(offset, 0);
        }
        self.job.reset();
        self.mmu.reset();
    }

    /// What a test has broken works again.
    fn repair(&self) {
        self.registers.write(r::INJECT, 0);
        for space in 0..u32::from(self.identity.address_spaces) {
            self.registers.write(r::AS + space * r::AS_STRIDE + r::AS_STATUS, 0);
        }
    }

    fn power(&mut self) -> bool {
        let mut busy = false;
        for domain in &r::POWER_DOMAINS {
            let (on, off) = (self.registers.take(domain.on), self.registers.take(domain.off));
            if on | off != 0 {
                let ready = self.registers.read(domain.ready);
                let ready = (ready | on) & !off;
                self.registers.write(domain.ready, ready);
                if domain.ready == r::L2_READY && ready == 0 {
                    self.repair();
                }
                busy = true;
            }
        }
        busy
    }

    /// Takes all doorbells.
    fn doorbells(&self) -> u32 {
        let offsets = (r::DOORBELL..REGISTERS_LEN as u32).step_by(r::DOORBELL_STRIDE as usize);
        let rung = offsets.map(|offset| u32::from(self.registers.take(offset) != 0));
        (0..).zip(rung).map(|(number, rung)| rung << number).sum()
    }

    fn run_mcu(&mut self, doorbells: u32, now: Instant) -> bool {
        let hangs = self.registers.read(r::INJECT) & r::INJECT_MCU_HANG != 0;
        if self.mcu_control == 0 || hangs {
            return doorbells != 0;
        }
        self.counters.doorbells += u64::from(doorbells & 1);
        let Some(mcu) = &mut self.mcu else {
            if doorbells & 1 != 0 {
                // Every request has acknowledged itself. What is left is to halt, and the driver looks at that only when it
                // has asked for it.
                self.registers.write(r::MCU_STATUS, r::MCU_STATUS_HALT);
            }
            return doorbells != 0;
        };
        let Some(news) = mcu.step(doorbells, &self.registers, now) else { return doorbells != 0 };
        if news.halted {
            self.registers.write(r::MCU_STATUS, r::MCU_STATUS_HALT);
        }
        self.counters.skipped += news.skipped;
        // Once more, with the news in memory: a clear that has been written by now is not for them. Whoever writes one later
        // looks for news afterwards, and finds them even if the clear takes their interrupt away.
        for block in [&mut self.job, &mut self.mmu] {
            block.clear(&self.registers);
        }
        self.job.set(news.groups | if news.global { r::JOB_INT_GLOBAL_IF } else { 0 });
        let told = news.halted || news.global || news.groups != 0 || !news.faults.is_empty();
        for fault in news.faults {
            self.fault(fault);
        }
        // A stream that goes on and on is no reason not to sleep.
        told || doorbells != 0
    }

    fn fault(&mut self, fault: Fault) {
        self.counters.faults += 1;
        let at = r::AS + fault.space * r::AS_STRIDE;
        let access = match fault.access {
            Access::Read => r::AS_FAULTSTATUS_READ,
            Access::Write => r::AS_FAULTSTATUS_WRITE,
        };
        self.registers.write(at + r::AS_FAULTSTATUS, access | u32::from(fault.exception));
        self.registers.write(at + r::AS_FAULTADDRESS, fault.va as u32);
        self.registers.write(at + r::AS_FAULTADDRESS + 4, (fault.va >> 32) as u32);
        self.mmu.set(1 << fault.space);
    }

    fn switch_mcu(&mut self, control: u32) -> bool {
        if control == self.mcu_control {
            return false;
        }
        self.mcu_control = control;
        if control == 0 {
            self.mcu.iter_mut().for_each(Mcu::stop);
            self.registers.write(r::MCU_STATUS, r::MCU_STATUS_DISABLED);
            return true;
        }
        match self.mcu.as_mut().map_or(Ok(()), |mcu| mcu.boot(&self.registers)) {
            Ok(()) => {
                self.registers.write(r::MCU_STATUS, r::MCU_STATUS_ENABLED);
                self.job.set(r::JOB_INT_GLOBAL_IF);
            }
            Err(fault) => {
                self.registers.write(r::MCU_STATUS, r::MCU_STATUS_FATAL);
                self.fault(fault);
            }
        }
        true
    }

    /// Every command is done at once: there is no cache of translations, so AS_STATUS never says busy by itself.
    fn address_spaces(&mut self) -> bool {
        let mut busy = false;
        let hangs = self.registers.read(r::INJECT) & r::INJECT_MMU_HANG != 0;
        for space in 0..u32::from(self.identity.address_spaces) {
            let command = self.registers.take(r::AS + space * r::AS_STRIDE + r::AS_COMMAND);
            match command {
                r::AS_COMMAND_UPDATE => self.counters.as_updates += 1,
                r::AS_COMMAND_LOCK => self.counters.as_locks += 1,
                _ => {}
            }
            busy |= command != 0;
            if hangs {
                self.registers.write(r::AS + space * r::AS_STRIDE + r::AS_STATUS, 1);
            }
        }
        busy
    }
}

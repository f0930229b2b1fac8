//! The device: one step takes what the driver has written, and answers.

use crate::identity::Identity;
use crate::interrupt::{Block, Line};
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
}

/// A Mali GPU behind `R`, interrupting through `I`.
pub struct Gpu<R, I> {
    registers: R,
    interrupts: I,
    identity: Identity,
    job: Block,
    mmu: Block,
    gpu: Block,
    mcu_control: u32,
    counters: Counters,
}

/// What the driver asked for since the last step.
struct Triggers {
    mcu_control: u32,
    doorbell: bool,
    command: u32,
}

impl<R: Registers, I: Interrupts> Gpu<R, I> {
    /// A GPU that has just been powered.
    pub fn new(identity: Identity, registers: R, interrupts: I) -> Self {
        identity.write(&registers);
        Self {
            registers,
            interrupts,
            identity,
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

    /// Takes what the driver has written since the last step, and answers. Whether there was anything.
    ///
    /// The registers are memory, so the order of the driver's writes is lost and has to be inferred. It clears an interrupt
    /// *before* it triggers what will raise it again: so triggers are read first, clears second, and only then the triggers
    /// act. A clear that is seen with a trigger then never takes away the answer to it.
    pub fn step(&mut self, now: Instant) -> bool {
        let mut triggers = Triggers {
            mcu_control: self.registers.read(r::MCU_CONTROL),
            doorbell: self.registers.take(r::DOORBELL) != 0,
            command: self.registers.take(r::GPU_CMD),
        };
        let mut busy = false;
        for block in [&mut self.job, &mut self.mmu, &mut self.gpu] {
            busy |= block.clear(&self.registers);
        }
        busy |= self.gpu_command(&mut triggers);
        busy |= self.power();
        // The driver rings only while the MCU is on: what is seen together with the switch came before it went off, or rings
        // for a firmware that boots anyway.
        busy |= self.ring(triggers.doorbell);
        busy |= self.switch_mcu(triggers.mcu_control);
        busy |= self.address_spaces();
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
        self.mcu_control = 0;
        let spaces = r::AS..r::AS + r::AS_STRIDE * u32::from(self.identity.address_spaces);
        for offset in spaces.step_by(4) {
            self.registers.write(offset, 0);
        }
        self.job.reset();
        self.mmu.reset();
    }

    fn power(&mut self) -> bool {
        let mut busy = false;
        for domain in &r::POWER_DOMAINS {
            let (on, off) = (self.registers.take(domain.on), self.registers.take(domain.off));
            if on | off != 0 {
                let ready = self.registers.read(domain.ready);
                self.registers.write(domain.ready, (ready | on) & !off);
                busy = true;
            }
        }
        busy
    }

    /// The doorbell of the global interface, and those of the streams, which nobody listens to.
    fn ring(&mut self, rung: bool) -> bool {
        let streams =
            (r::DOORBELL + r::DOORBELL_STRIDE..REGISTERS_LEN as u32).step_by(r::DOORBELL_STRIDE as usize);
        let mut busy = rung;
        for doorbell in streams {
            busy |= self.registers.take(doorbell) != 0;
        }
        if rung && self.mcu_control != 0 {
            self.counters.doorbells += 1;
            // Every request has acknowledged itself. What is left is to halt, and the driver looks at that only when it has
            // asked for it.
            self.registers.write(r::MCU_STATUS, r::MCU_STATUS_HALT);
        }
        busy
    }

    fn switch_mcu(&mut self, control: u32) -> bool {
        if control == self.mcu_control {
            return false;
        }
        self.mcu_control = control;
        if control == 0 {
            self.registers.write(r::MCU_STATUS, r::MCU_STATUS_DISABLED);
        } else {
            self.registers.write(r::MCU_STATUS, r::MCU_STATUS_ENABLED);
            self.job.set(r::JOB_INT_GLOBAL_IF);
        }
        true
    }

    /// Every command is done at once: there is no cache of translations, so AS_STATUS never says busy.
    fn address_spaces(&mut self) -> bool {
        let mut busy = false;
        for space in 0..u32::from(self.identity.address_spaces) {
            let command = self.registers.take(r::AS + space * r::AS_STRIDE + r::AS_COMMAND);
            match command {
                r::AS_COMMAND_UPDATE => self.counters.as_updates += 1,
                r::AS_COMMAND_LOCK => self.counters.as_locks += 1,
                _ => {}
            }
            busy |= command != 0;
        }
        busy
    }
}

//! The microcontroller and what its firmware does: it takes the driver's requests, and runs groups of command streams.

mod group;
mod instruction;
mod interface;
mod stream;

use self::group::Group;
use self::interface::{Interface, Section};
use core::time::Duration;

use crate::firmware::{GROUPS, Words};
use crate::memory::{Fault, Memory, Space};
use crate::{Instant, Registers};

/// The first word of every interface, of requests on the driver's side and of acknowledgements on the MCU's.
const REQ: u32 = 0x0;
const ACK: u32 = 0x0;

/// Offsets in the global words, and bits in them: `panthor_fw_global_input_iface`, `panthor_fw_global_output_iface`.
const ACK_IRQ_MASK: u32 = 0x4;
const DOORBELL_REQ: u32 = 0x8;
const DOORBELL_ACK: u32 = 0x8;
const HALT: u32 = 1 << 0;
const IDLE: u32 = 1 << 26;
const REQUESTS: u32 = 0x7ff;

/// How long a group, or all of them, have nothing to do before the driver is told. What the driver asks for, in units of a
/// clock that there is not, comes to the same. It counts from when the driver has seen what they did last: panthor looks for
/// groups to run when one becomes idle, and not when it finds that one can go on.
const IDLE_AFTER: Duration = Duration::from_micros(800);

/// The address space of the MCU itself.
const OWN_SPACE: u32 = 0;

/// What a run of the MCU has to tell.
#[derive(Default)]
pub(crate) struct News {
    /// Groups with news for the driver, a bit each.
    pub groups: u32,
    /// News in the global words.
    pub global: bool,
    /// It has halted, as it was asked to.
    pub halted: bool,
    /// What the MMU did not let through.
    pub faults: Vec<Fault>,
    /// Draws and dispatches that were passed over.
    pub skipped: u64,
}

/// The MCU with the memory it reaches.
pub(crate) struct Mcu<M> {
    memory: M,
    /// Known while it runs.
    section: Option<Section>,
    groups: [Group; GROUPS as usize],
    /// When a group last ran, until the driver has been told that none has anything to do.
    ran: Option<Instant>,
}

impl<M: Memory> Mcu<M> {
    pub(crate) fn new(memory: M) -> Self {
        Self { memory, section: None, groups: Default::default(), ran: None }
    }

    /// Starts. The error is a firmware that is not where it should be.
    pub(crate) fn boot(&mut self, registers: &impl Registers) -> Result<(), Fault> {
        self.stop();
        let own = Space::new(registers, &self.memory, OWN_SPACE);
        self.section = Some(Section::find(&own)?);
        Ok(())
    }

    /// Forgets what it was doing.
    pub(crate) fn stop(&mut self) {
        self.section = None;
        self.groups = Default::default();
        self.ran = None;
    }

    /// Takes what was requested, if `doorbells` has the global one, bit 0, and runs the streams that have something to do.
    /// None: there was nothing to do.
    pub(crate) fn step(&mut self, doorbells: u32, registers: &impl Registers, now: Instant) -> Option<News> {
        let section = self.section?;
        if doorbells == 0 && self.ran.is_none() {
            return None;
        }
        let mut news = News::default();
        let words = Interface::new(&self.memory, &section);
        let own = Space::new(registers, &self.memory, OWN_SPACE);
        if doorbells & 1 != 0 {
            ring(&words, &own, &mut self.groups, &mut news);
            if news.halted {
                self.section = None;
                return Some(news);
            }
        }
        let mut synced = false;
        for (number, group) in (0..).zip(&mut self.groups) {
            group.wake(doorbells & !1);
            if !group.is_attended() {
                continue;
            }
            if group.is_busy() {
                self.ran = Some(now);
            }
            let user = Space::new(registers, &self.memory, group.space());
            let turn = group.run(number, &words, &own, &user, now);
            synced |= turn.synced;
            if turn.unseen && self.ran.is_some() {
                self.ran = Some(now);
            }
            news.groups |= u32::from(turn.interrupt) << number;
            news.skipped += turn.skipped;
            news.faults.extend(turn.faults);
        }
        if synced {
            self.groups.iter_mut().for_each(Group::wake_waiting);
        }
        if self.ran.is_some_and(|at| now.saturating_sub(at) >= IDLE_AFTER) {
            self.ran = None;
            raise(&words, Words::GLOBAL, IDLE);
            news.global = true;
        }
        Some(news)
    }
}

/// Raises an event: it stands as long as the two sides differ.
fn raise<M: Memory>(words: &Interface<M>, of: Words, events: u32) {
    let (request, acknowledged) = (words.read(of.input + REQ), words.read(of.output + ACK));
    words.write(of.output + ACK, acknowledged & !events | !request & events);
}

/// Whether one of these events has been raised and the driver has not answered.
fn stands<M: Memory>(words: &Interface<M>, of: Words, events: u32) -> bool {
    (words.read(of.input + REQ) ^ words.read(of.output + ACK)) & events != 0
}

/// The global doorbell.
fn ring<M: Memory>(words: &Interface<M>, own: &Space<M>, groups: &mut [Group], news: &mut News) {
    let Words { input, output } = Words::GLOBAL;
    let (request, acknowledged) = (words.read(input + REQ), words.read(output + ACK));
    words.write(output + ACK, acknowledged & !REQUESTS | request & REQUESTS);
    news.halted = request & HALT != 0;
    news.global = (request ^ acknowledged) & REQUESTS & words.read(input + ACK_IRQ_MASK) != 0;
    let rung = words.read(input + DOORBELL_REQ) ^ words.read(output + DOORBELL_ACK);
    words.write(output + DOORBELL_ACK, words.read(input + DOORBELL_REQ));
    for (number, group) in (0..).zip(groups).filter(|(number, _)| rung >> number & 1 != 0) {
        match group.ring(number, words, own) {
            Ok(interrupt) => news.groups |= u32::from(interrupt) << number,
            // Rings and suspend buffers are the driver's own. What it cannot have meant is not acknowledged.
            Err(fault) => news.faults.push(fault),
        }
    }
}

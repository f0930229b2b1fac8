//! A group of streams, in one of the MCU's slots.

use super::interface::Interface;
use super::stream::{Error, Ring, Stream, Wait};
use super::{ACK, IDLE_AFTER, REQ, raise, stands};
use crate::Instant;
use crate::firmware::{STREAM_SUSPEND_LEN, STREAMS, Words};
use crate::memory::{Fault, Memory, Space};

/// Offsets in a group's words, and bits in them: `panthor_fw_csg_input_iface`, `panthor_fw_csg_output_iface`.
const DOORBELL_REQ: u32 = 0x8;
const DOORBELL_ACK: u32 = 0x8;
const STREAM_IRQ_ACK: u32 = 0xc;
const STREAM_IRQ_REQ: u32 = 0xc;
const STATUS_STATE: u32 = 0x18;
const SUSPEND_BUFFER: u32 = 0x40;
const CONFIG: u32 = 0x50;
const CONFIG_SPACE: u32 = 0xf;
const STATE: u32 = 0x7;
const STATE_TERMINATE: u32 = 0;
const STATE_START: u32 = 1;
const STATE_SUSPEND: u32 = 2;
const STATE_RESUME: u32 = 3;
const ENDPOINT_CONFIG: u32 = 1 << 4;
const STATUS_UPDATE: u32 = 1 << 5;
const SYNC_UPDATE: u32 = 1 << 28;
const IDLE: u32 = 1 << 29;
const REQUESTS: u32 = STATE | ENDPOINT_CONFIG | STATUS_UPDATE;

/// The same of a stream's words: `panthor_fw_cs_input_iface`, `panthor_fw_cs_output_iface`.
mod stream {
    pub const CONFIG: u32 = 0x4;
    pub const RING_BASE: u32 = 0x10;
    pub const RING_SIZE: u32 = 0x18;
    pub const RING_INPUT: u32 = 0x30;
    pub const RING_OUTPUT: u32 = 0x38;
    pub const STATUS_WAIT: u32 = 0x48;
    pub const STATUS_WAIT_GREATER: u32 = 1 << 24;
    pub const STATUS_WAIT_64: u32 = 1 << 30;
    pub const STATUS_WAIT_SYNC: u32 = 1 << 31;
    pub const STATUS_WAIT_ADDRESS: u32 = 0x50;
    pub const STATUS_WAIT_VALUE: u32 = 0x58;
    pub const STATUS_BLOCKED_REASON: u32 = 0x60;
    pub const BLOCKED_BY_SYNC: u32 = 3;
    pub const STATUS_WAIT_VALUE_HIGH: u32 = 0x64;
    pub const FATAL: u32 = 0x84;
    pub const FATAL_INFO: u32 = 0x90;
    pub const STATE: u32 = 0x7;
    pub const STATE_START: u32 = 1;
    /// State and what counts as idle.
    pub const REQUESTS: u32 = STATE | 1 << 4 | 0xf << 8;
    pub const FATAL_EVENT: u32 = 1 << 30;
}

/// A stream that has been started, and the doorbell that is its own.
struct Slot {
    stream: Stream,
    doorbell: u32,
}

/// A slot for a group.
#[derive(Default)]
pub(super) struct Group {
    space: u32,
    streams: [Option<Slot>; STREAMS as usize],
    /// When a stream last ran, until the driver has been told that none has anything to do.
    ran: Option<Instant>,
}

/// What has come of a turn of a group.
#[derive(Default)]
pub(super) struct Turn {
    /// Objects of synchronisation have changed.
    pub synced: bool,
    /// There is news for the driver in the words of the group.
    pub interrupt: bool,
    /// The driver has not seen yet that such objects had changed before.
    pub unseen: bool,
    /// Instructions executed without effect, that would have drawn or computed something.
    pub skipped: u64,
    /// What the MMU did not let through.
    pub faults: Vec<Fault>,
}

impl Group {
    /// Takes the requests of group `number`. Whether there is news for the driver.
    pub(super) fn ring<M: Memory>(
        &mut self,
        number: u32,
        words: &Interface<M>,
        mcu: &Space<M>,
    ) -> Result<bool, Fault> {
        let Words { input, output } = Words::group(number);
        let (request, acknowledged) = (words.read(input + REQ), words.read(output + ACK));
        let changed = (request ^ acknowledged) & REQUESTS;
        let rung = words.read(input + DOORBELL_REQ) ^ words.read(output + DOORBELL_ACK);
        words.write(output + DOORBELL_ACK, words.read(input + DOORBELL_REQ));
        for (index, slot) in (0..).zip(&mut self.streams) {
            let of = Words::stream(number, index);
            let request = words.read(of.input + REQ) & stream::REQUESTS;
            let events = words.read(of.output + ACK) & !stream::REQUESTS;
            words.write(of.output + ACK, request | events);
            if let Some(slot) = slot.as_mut().filter(|_| rung >> index & 1 != 0) {
                slot.stream.wake();
            }
        }
        if changed & STATE != 0 {
            let buffer = words.read_long(input + SUSPEND_BUFFER);
            match request & STATE {
                STATE_START => self.start(number, words, |ring, _| Stream::start(ring, mcu))?,
                STATE_RESUME => self.start(number, words, |ring, index| {
                    Stream::resume(ring, mcu, buffer + u64::from(index * STREAM_SUSPEND_LEN))
                })?,
                STATE_SUSPEND => {
                    for (index, slot) in (0..).zip(&self.streams) {
                        if let Some(slot) = slot {
                            slot.stream.suspend(mcu, buffer + index * u64::from(STREAM_SUSPEND_LEN))?;
                        }
                    }
                    self.show_status(number, words);
                    *self = Self::default();
                }
                STATE_TERMINATE => *self = Self::default(),
                // There is no such request; what is not acknowledged will time out.
                _ => return Ok(false),
            }
        }
        if changed & STATUS_UPDATE != 0 {
            self.show_status(number, words);
        }
        words.write(output + ACK, acknowledged & !REQUESTS | request & REQUESTS);
        Ok(changed != 0)
    }

    fn start<M: Memory>(
        &mut self,
        number: u32,
        words: &Interface<M>,
        make: impl Fn(Ring, u32) -> Result<Stream, Fault>,
    ) -> Result<(), Fault> {
        self.space = words.read(Words::group(number).input + CONFIG) & CONFIG_SPACE;
        for (index, slot) in (0..).zip(&mut self.streams) {
            let at = Words::stream(number, index).input;
            *slot = None;
            if words.read(at + REQ) & stream::STATE == stream::STATE_START {
                let ring = Ring {
                    base: words.read_long(at + stream::RING_BASE),
                    size: words.read(at + stream::RING_SIZE),
                    input: words.read_long(at + stream::RING_INPUT),
                    output: words.read_long(at + stream::RING_OUTPUT),
                };
                let doorbell = words.read(at + stream::CONFIG) >> 8 & 0xff;
                *slot = Some(Slot { stream: make(ring, index)?, doorbell });
            }
        }
        Ok(())
    }

    /// Writes what each stream waits for, and whether anything is left to do.
    fn show_status<M: Memory>(&self, number: u32, words: &Interface<M>) {
        for (index, slot) in (0..).zip(&self.streams) {
            let at = Words::stream(number, index).output;
            let wait = slot.as_ref().and_then(|slot| slot.stream.waits_for());
            words.write(at + stream::STATUS_BLOCKED_REASON, wait.map_or(0, |_| stream::BLOCKED_BY_SYNC));
            let Some(Wait { va, value, greater, wide }) = wait else {
                words.write(at + stream::STATUS_WAIT, 0);
                continue;
            };
            let greater = if greater { stream::STATUS_WAIT_GREATER } else { 0 };
            let wide = if wide { stream::STATUS_WAIT_64 } else { 0 };
            words.write(at + stream::STATUS_WAIT, stream::STATUS_WAIT_SYNC | greater | wide);
            words.write_long(at + stream::STATUS_WAIT_ADDRESS, va);
            words.write(at + stream::STATUS_WAIT_VALUE, value as u32);
            words.write(at + stream::STATUS_WAIT_VALUE_HIGH, (value >> 32) as u32);
        }
        words.write(Words::group(number).output + STATUS_STATE, (!self.is_busy()).into());
    }

    /// The streams with this doorbell look at their rings.
    pub(super) fn wake(&mut self, doorbells: u32) {
        let rung = |slot: &&mut Slot| slot.doorbell < u32::BITS && doorbells >> slot.doorbell & 1 != 0;
        self.streams.iter_mut().flatten().filter(rung).for_each(|slot| slot.stream.wake());
    }

    /// The streams that wait look at what they wait for.
    pub(super) fn wake_waiting(&mut self) {
        let waits = |slot: &&mut Slot| slot.stream.waits_for().is_some();
        self.streams.iter_mut().flatten().filter(waits).for_each(|slot| slot.stream.wake());
    }

    /// Whether a stream has something to do, as far as is known.
    pub(super) fn is_busy(&self) -> bool {
        self.streams.iter().flatten().any(|slot| slot.stream.is_ready())
    }

    /// Where its streams live.
    pub(super) fn space(&self) -> u32 {
        self.space
    }

    /// Whether there is something to do or to tell.
    pub(super) fn is_attended(&self) -> bool {
        self.ran.is_some() || self.is_busy()
    }

    /// Gives every stream that is ready a turn.
    pub(super) fn run<M: Memory>(
        &mut self,
        number: u32,
        words: &Interface<M>,
        mcu: &Space<M>,
        user: &Space<M>,
        now: Instant,
    ) -> Turn {
        let mut turn = Turn::default();
        let mut tell_host = false;
        for (index, slot) in (0..).zip(&mut self.streams) {
            let Some(slot) = slot.as_mut().filter(|slot| slot.stream.is_ready()) else { continue };
            let result = slot.stream.run(mcu, user, now);
            turn.synced |= result.synced;
            turn.skipped += result.skipped;
            tell_host |= result.tell_host;
            if let Some(error) = result.error {
                report(error, number, index, words);
                turn.interrupt = true;
                turn.faults.extend(match error {
                    Error::Mmu(fault) => Some(fault),
                    _ => None,
                });
            }
            self.ran = Some(now);
        }
        let mut events = if tell_host { SYNC_UPDATE } else { 0 };
        // On a busy host the driver may take longer to see what it was told than what comes after may wait.
        turn.unseen = stands(words, Words::group(number), SYNC_UPDATE);
        if turn.unseen && self.ran.is_some() {
            self.ran = Some(now);
        }
        if self.ran.is_some_and(|at| now.saturating_sub(at) >= IDLE_AFTER) {
            self.ran = None;
            events |= IDLE;
        }
        if events != 0 {
            words.write(Words::group(number).output + STATUS_STATE, (!self.is_busy()).into());
            raise(words, Words::group(number), events);
            turn.interrupt = true;
        }
        turn
    }
}

/// Tells the driver that a stream cannot go on.
fn report<M: Memory>(error: Error, number: u32, index: u32, words: &Interface<M>) {
    let of = Words::stream(number, index);
    let (exception, info) = error.exception();
    words.write(of.output + stream::FATAL, exception);
    words.write_long(of.output + stream::FATAL_INFO, info);
    raise(words, of, stream::FATAL_EVENT);
    let Words { input, output } = Words::group(number);
    let (seen, told) = (words.read(input + STREAM_IRQ_ACK), words.read(output + STREAM_IRQ_REQ));
    let bit = 1 << index;
    words.write(output + STREAM_IRQ_REQ, told & !bit | !seen & bit);
}

//! The command processor: takes packets out of the ring buffer, and does what they say.

use crate::packet::{self, Packet};
use crate::registers as r;
use crate::smmu::{Fault, View};
use crate::{Memory, Registers};

/// How deep command streams may call each other: the ring, and the two levels that the hardware has.
const DEPTH: u32 = 2;

/// What the packets came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) packets: u64,
    pub(crate) timestamps: u64,
    pub(crate) streams: u64,
    pub(crate) faults: u64,
    /// The first of them.
    pub(crate) fault: Option<Fault>,
    /// An event wants to interrupt.
    pub(crate) interrupt: bool,
}

impl Done {
    fn note(&mut self, fault: Fault) {
        self.faults += 1;
        self.fault.get_or_insert(fault);
    }

    /// Notes what went wrong with a write, which is dropped then.
    fn written(&mut self, result: Result<(), Fault>) {
        if let Err(fault) = result {
            self.note(fault);
        }
    }
}

/// It cannot go on: a stream that is not mapped, or makes no sense.
pub(crate) struct Hang;

/// A stream of words, at a place in it.
#[derive(Clone, Copy)]
struct Stream {
    base: u64,
    /// Words, for the ring a power of two after which it starts again.
    len: u32,
    at: u32,
}

impl Stream {
    fn next<R: Registers, M: Memory>(&mut self, view: &View<'_, R, M>, done: &mut Done) -> Result<u32, Hang> {
        let word = view.read(self.base + u64::from(self.at) * 4).map_err(|fault| {
            done.note(fault);
            Hang
        })?;
        self.at += 1;
        Ok(word)
    }
}

/// The command processor's state.
#[derive(Default)]
pub(crate) struct Ring {
    /// Index of the next word.
    at: u32,
    hung: bool,
}

impl Ring {
    /// Runs what is in the ring up to `end`.
    pub(crate) fn run<R: Registers, M: Memory>(&mut self, view: &View<'_, R, M>, end: u32, done: &mut Done) {
        let len = 2 << (view.registers.read(r::CP_RB_CNTL) & 0x3f).min(24);
        let base = view.registers.read_long(r::CP_RB_BASE);
        while !self.hung && self.at != end % len {
            let mut stream = Stream { base, len, at: self.at };
            match step(view, &mut stream, 0, done) {
                Ok(()) => self.at = stream.at % len,
                Err(Hang) => self.hung = true,
            }
        }
        view.registers.write(r::CP_RB_RPTR, self.at);
        // Where the driver looks.
        done.written(view.write(view.registers.read_long(r::CP_RB_RPTR_ADDR), self.at));
    }
}

/// Runs a packet.
fn step<R: Registers, M: Memory>(
    view: &View<'_, R, M>,
    stream: &mut Stream,
    depth: u32,
    done: &mut Done,
) -> Result<(), Hang> {
    let packet = Packet::decode(stream.next(view, done)?).ok_or(Hang)?;
    done.packets += 1;
    // Only these are looked into, and none is longer than a word can say.
    let mut words = Vec::new();
    let looked_at =
        [packet::EVENT_WRITE, packet::MEM_WRITE, packet::INDIRECT_BUFFER, packet::SMMU_TABLE_UPDATE];
    if !packet.opcode.is_some_and(|opcode| looked_at.contains(&opcode)) {
        stream.at += packet.len;
        return Ok(());
    }
    for _ in 0..packet.len {
        if depth == 0 {
            stream.at %= stream.len;
        }
        words.push(stream.next(view, done)?);
    }
    let address = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    match (packet.opcode, &words[..]) {
        (Some(packet::EVENT_WRITE), &[event, low, high, value, ..]) => {
            done.written(view.write(address(low, high), value));
            done.timestamps += 1;
            done.interrupt |= event & packet::EVENT_WRITE_IRQ != 0;
        }
        (Some(packet::MEM_WRITE), &[low, high, ref values @ ..]) => {
            for (va, value) in (address(low, high)..).step_by(4).zip(values) {
                done.written(view.write(va, *value));
            }
        }
        (Some(packet::INDIRECT_BUFFER), &[low, high, size]) if depth < DEPTH => {
            done.streams += 1;
            let len = size & packet::INDIRECT_BUFFER_LEN;
            let mut called = Stream { base: address(low, high), len, at: 0 };
            while called.at < called.len {
                step(view, &mut called, depth + 1, done)?;
            }
        }
        // The high word also has the ASID, above the 16 bits of the address.
        (Some(packet::SMMU_TABLE_UPDATE), &[low, high, ..]) => {
            view.registers.write_long(r::SMMU_TTBR0, address(low, high & 0xffff));
        }
        _ => {}
    }
    Ok(())
}

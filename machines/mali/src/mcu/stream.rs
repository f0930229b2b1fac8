//! A command stream: a ring of instructions that the driver fills, and what it calls.

use core::sync::atomic::Ordering;

use super::instruction::{Condition, Instruction, Sync, SyncKind};
use crate::Instant;
use crate::firmware::{STREAM_REGISTERS, STREAM_SUSPEND_LEN};
use crate::memory::{Access, Fault, Memory, Space};

/// Calls within calls.
const MAX_CALLS: usize = 8;

/// Instructions that a stream executes before another has its turn.
const SLICE: u32 = 512;

/// Where a stream's instructions come from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ring {
    /// Address in the group's address space.
    pub base: u64,
    /// Bytes.
    pub size: u32,
    /// Address, in the MCU's address space, of how far the driver has written, and of where to start.
    pub input: u64,
    /// Address, in the MCU's address space, of how far the stream has read.
    pub output: u64,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub va: u64,
    pub value: u64,
    pub greater: bool,
    pub wide: bool,
}

/// Why a stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    Mmu(Fault),
    /// An instruction that is none, at this address.
    Invalid(u64),
    /// A call too deep, at this address.
    CallStackOverflow(u64),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Mmu(fault)
    }
}

impl Error {
    /// The exception as the interface of a stream tells it, and the address that goes with it.
    pub(super) fn exception(self) -> (u32, u64) {
        match self {
            Self::Mmu(fault) => (0x48, fault.va),
            Self::Invalid(at) => (0x49, at),
            Self::CallStackOverflow(at) => (0x4a, at),
        }
    }
}

/// What has come of a turn.
#[derive(Default)]
pub(super) struct Turn {
    /// Objects of synchronisation have changed: others may go on.
    pub synced: bool,
    /// The host is to look at them too.
    pub tell_host: bool,
    /// Draws, dispatches and the like that were passed over.
    pub skipped: u64,
    /// The turn ended with this.
    pub error: Option<Error>,
}

/// Instructions between two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    at: u64,
    end: u64,
}

/// A stream in a slot of a group.
pub(super) struct Stream {
    ring: Ring,
    extract: u64,
    registers: [u32; STREAM_REGISTERS as usize],
    calls: Vec<Call>,
    wait: Option<Wait>,
    /// It may have something to do.
    ready: bool,
    dead: bool,
}

impl Stream {
    /// Starts a stream with what is in its ring.
    pub(super) fn start<M: Memory>(ring: Ring, mcu: &Space<M>) -> Result<Self, Fault> {
        let extract = mcu.long(ring.input + 8, Access::Read)?.load(Ordering::Acquire);
        let registers = [0; STREAM_REGISTERS as usize];
        Ok(Self { ring, extract, registers, calls: Vec::new(), wait: None, ready: true, dead: false })
    }

    /// Starts a stream where [`Self::suspend`] left it.
    pub(super) fn resume<M: Memory>(ring: Ring, mcu: &Space<M>, buffer: u64) -> Result<Self, Fault> {
        let mut stream = Self::start(ring, mcu)?;
        let mut at = buffer;
        let mut next = || {
            let word = mcu.word(at, Access::Read)?.load(Ordering::Relaxed);
            at += 4;
            Ok(word)
        };
        for register in &mut stream.registers {
            *register = next()?;
        }
        for _ in 0..next()?.min(MAX_CALLS as u32) {
            let [a, b, c, d] = [next()?, next()?, next()?, next()?];
            stream.calls.push(Call { at: long(a, b), end: long(c, d) });
        }
        Ok(stream)
    }

    /// Writes to `buffer` what [`Self::resume`] needs.
    pub(super) fn suspend<M: Memory>(&self, mcu: &Space<M>, buffer: u64) -> Result<(), Fault> {
        const { assert!((STREAM_REGISTERS as usize + 1 + MAX_CALLS * 4) * 4 <= STREAM_SUSPEND_LEN as usize) };
        let calls = self.calls.iter().flat_map(|call| [call.at, call.end]);
        let calls = calls.flat_map(|address| [address as u32, (address >> 32) as u32]);
        let words = self.registers.into_iter().chain([self.calls.len() as u32]).chain(calls);
        for (word, at) in words.zip((buffer..).step_by(4)) {
            mcu.word(at, Access::Write)?.store(word, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The driver has rung, or an object of synchronisation has changed.
    pub(super) fn wake(&mut self) {
        self.ready = !self.dead;
    }

    /// Whether it has something to do, as far as is known.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// What it waits for.
    pub(super) fn waits_for(&self) -> Option<Wait> {
        self.wait
    }

    /// Executes until the ring is empty, an object of synchronisation has to change, or the turn is over. `user` is the
    /// group's address space.
    pub(super) fn run<M: Memory>(&mut self, mcu: &Space<M>, user: &Space<M>, now: Instant) -> Turn {
        let mut turn = Turn::default();
        let result = self.execute_slice(mcu, user, now, &mut turn);
        if result.is_err() {
            (self.dead, self.ready) = (true, false);
        }
        let told = self.tell(mcu);
        turn.error = result.err().or(told.err().map(Error::Mmu));
        turn
    }

    /// Tells the driver how far it is.
    fn tell<M: Memory>(&self, mcu: &Space<M>) -> Result<(), Fault> {
        mcu.long(self.ring.output, Access::Write)?.store(self.extract, Ordering::Release);
        mcu.word(self.ring.output + 8, Access::Write)?.store(self.ready.into(), Ordering::Release);
        Ok(())
    }

    fn execute_slice<M: Memory>(
        &mut self,
        mcu: &Space<M>,
        user: &Space<M>,
        now: Instant,
        turn: &mut Turn,
    ) -> Result<(), Error> {
        self.wait = None;
        let insert = mcu.long(self.ring.input, Access::Read)?;
        for _ in 0..SLICE {
            if self.calls.last().is_some_and(|call| call.at >= call.end) {
                self.calls.pop();
                continue;
            }
            let at = match self.calls.last() {
                Some(call) => call.at,
                None if self.extract == insert.load(Ordering::Acquire) => {
                    self.ready = false;
                    return Ok(());
                }
                None => self.ring.base + self.extract % u64::from(self.ring.size.max(8)),
            };
            let word = user.long(at, Access::Read)?.load(Ordering::Relaxed);
            let instruction = Instruction::decode(word).ok_or(Error::Invalid(at))?;
            if let Instruction::Sync(sync) = instruction
                && let Some(wait) = self.sync(sync, user, turn)?
            {
                // Not passed: it will be looked at again.
                (self.wait, self.ready) = (Some(wait), false);
                return Ok(());
            }
            self.pass();
            self.execute(instruction, at, user, now, turn)?;
        }
        Ok(())
    }

    /// Steps over an instruction.
    fn pass(&mut self) {
        match self.calls.last_mut() {
            Some(call) => call.at += 8,
            None => self.extract += 8,
        }
    }

    fn execute<M: Memory>(
        &mut self,
        instruction: Instruction,
        at: u64,
        user: &Space<M>,
        now: Instant,
        turn: &mut Turn,
    ) -> Result<(), Error> {
        match instruction {
            Instruction::Nothing | Instruction::Sync(_) => {}
            Instruction::Skipped => turn.skipped += 1,
            Instruction::Move48 { to, value } => self.set_long(to, value),
            Instruction::Move32 { to, value } => self.set(to, value),
            Instruction::Add32 { to, from, value } => self.set(to, self.get(from).wrapping_add(value as u32)),
            Instruction::Add64 { to, from, value } => {
                self.set_long(to, self.get_long(from).wrapping_add_signed(value.into()));
            }
            Instruction::Min32 { to, a, b } => self.set(to, self.get(a).min(self.get(b))),
            Instruction::Load { to, address, offset, mask } => {
                for (index, va) in self.multiple(address, offset, mask) {
                    let value = user.word(va, Access::Read)?.load(Ordering::Relaxed);
                    self.set(to.wrapping_add(index), value);
                }
            }
            Instruction::Store { from, address, offset, mask } => {
                for (index, va) in self.multiple(address, offset, mask) {
                    let value = self.get(from.wrapping_add(index));
                    user.word(va, Access::Write)?.store(value, Ordering::Relaxed);
                }
            }
            Instruction::StoreTime { address, offset } => {
                let va = self.get_long(address).wrapping_add_signed(offset.into());
                user.long(va, Access::Write)?.store(now.as_nanos() as u64, Ordering::Relaxed);
            }
            Instruction::Branch { condition, value, offset } => {
                // Only what is called has a place to go to.
                let call = self.calls.last().copied().ok_or(Error::Invalid(at))?;
                if condition.holds(&(self.get(value) as i32), &0) {
                    let at = call.at.wrapping_add_signed(i64::from(offset) * 8);
                    self.calls.pop();
                    self.calls.push(Call { at, ..call });
                }
            }
            Instruction::Call { address, len } => {
                if self.calls.len() == MAX_CALLS {
                    return Err(Error::CallStackOverflow(at));
                }
                self.calls.push(self.target(address, len));
            }
            Instruction::Jump { address, len } => {
                self.calls.pop().ok_or(Error::Invalid(at))?;
                self.calls.push(self.target(address, len));
            }
        }
        Ok(())
    }

    /// Executes an instruction of synchronisation; what it waits for, if it does.
    fn sync<M: Memory>(&self, sync: Sync, user: &Space<M>, turn: &mut Turn) -> Result<Option<Wait>, Fault> {
        let va = self.get_long(sync.address);
        let value = if sync.wide { self.get_long(sync.data) } else { self.get(sync.data).into() };
        match sync.kind {
            SyncKind::Add { .. } if sync.wide => {
                user.long(va, Access::Write)?.fetch_add(value, Ordering::AcqRel);
            }
            SyncKind::Add { .. } => {
                user.word(va, Access::Write)?.fetch_add(value as u32, Ordering::AcqRel);
            }
            SyncKind::Set { .. } if sync.wide => {
                user.long(va, Access::Write)?.store(value, Ordering::Release)
            }
            SyncKind::Set { .. } => user.word(va, Access::Write)?.store(value as u32, Ordering::Release),
            SyncKind::Wait { condition } => {
                let now = if sync.wide {
                    user.long(va, Access::Read)?.load(Ordering::Acquire)
                } else {
                    user.word(va, Access::Read)?.load(Ordering::Acquire).into()
                };
                let greater = condition == Condition::Greater;
                let wait = Wait { va, value, greater, wide: sync.wide };
                return Ok((!condition.holds(&now, &value)).then_some(wait));
            }
        }
        turn.synced = true;
        turn.tell_host |=
            matches!(sync.kind, SyncKind::Add { system: true } | SyncKind::Set { system: true });
        Ok(None)
    }

    fn target(&self, address: u8, len: u8) -> Call {
        let at = self.get_long(address);
        Call { at, end: at + u64::from(self.get(len)) }
    }

    /// The registers, by their distance from the first, and the addresses that go with them.
    fn multiple(&self, address: u8, offset: i16, mask: u16) -> impl Iterator<Item = (u8, u64)> + use<> {
        let base = self.get_long(address).wrapping_add_signed(offset.into());
        (0..16)
            .filter(move |index| mask >> index & 1 != 0)
            .map(move |index| (index, base + u64::from(index) * 4))
    }

    /// Registers that are none read as zero.
    fn get(&self, register: u8) -> u32 {
        self.registers.get(usize::from(register)).copied().unwrap_or(0)
    }

    fn set(&mut self, register: u8, value: u32) {
        if let Some(register) = self.registers.get_mut(usize::from(register)) {
            *register = value;
        }
    }

    fn get_long(&self, register: u8) -> u64 {
        long(self.get(register), self.get(register.wrapping_add(1)))
    }

    fn set_long(&mut self, register: u8, value: u64) {
        self.set(register, value as u32);
        self.set(register.wrapping_add(1), (value >> 32) as u32);
    }
}

fn long(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

//! Instructions of command streams, architecture 10, as far as they mean something without shaders. The encoding is what
//! Mesa's `v10.xml` and the driver's `prepare_job_instrs` say.

/// An instruction. Numbers of registers are those of the first where a value takes two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    /// Changes nothing that is emulated: waits for work that is done at once, flushes of caches, resources, heaps.
    Nothing,
    /// Draws, dispatches and what belongs to them: passed over.
    Skipped,
    Move48 {
        to: u8,
        value: u64,
    },
    Move32 {
        to: u8,
        value: u32,
    },
    Add32 {
        to: u8,
        from: u8,
        value: i32,
    },
    Add64 {
        to: u8,
        from: u8,
        value: i32,
    },
    Min32 {
        to: u8,
        a: u8,
        b: u8,
    },
    Load {
        to: u8,
        address: u8,
        offset: i16,
        mask: u16,
    },
    Store {
        from: u8,
        address: u8,
        offset: i16,
        mask: u16,
    },
    /// Stores time or cycles: here the same.
    StoreTime {
        address: u8,
        offset: i16,
    },
    /// `offset` instructions on, if a register compares to zero.
    Branch {
        condition: Condition,
        value: u8,
        offset: i16,
    },
    Call {
        address: u8,
        len: u8,
    },
    Jump {
        address: u8,
        len: u8,
    },
    Sync(Sync),
}

/// An instruction about an object of synchronisation: a number in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sync {
    pub kind: SyncKind,
    pub address: u8,
    pub data: u8,
    /// 64 bits, not 32.
    pub wide: bool,
}

/// What is done about it. What changes it with the scope of the system is told to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncKind {
    Add { system: bool },
    Set { system: bool },
    Wait { condition: Condition },
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    LessOrEqual,
    Greater,
    Equal,
    NotEqual,
    Less,
    GreaterOrEqual,
    Always,
}

impl Condition {
    fn decode(value: u64) -> Option<Self> {
        let all = [
            Self::LessOrEqual,
            Self::Greater,
            Self::Equal,
            Self::NotEqual,
            Self::Less,
            Self::GreaterOrEqual,
            Self::Always,
        ];
        all.get(value as usize).copied()
    }

    pub(super) fn holds<T: Ord>(self, a: &T, b: &T) -> bool {
        match self {
            Self::LessOrEqual => a <= b,
            Self::Greater => a > b,
            Self::Equal => a == b,
            Self::NotEqual => a != b,
            Self::Less => a < b,
            Self::GreaterOrEqual => a >= b,
            Self::Always => true,
        }
    }
}

impl Instruction {
    /// None for what architecture 10 does not have.
    pub(super) fn decode(word: u64) -> Option<Self> {
        let byte = |at: u32| (word >> at) as u8;
        let (to, a, b) = (byte(48), byte(40), byte(32));
        let (offset, mask, value) = (word as i16, (word >> 16) as u16, word as u32);
        let system = word >> 1 & 3 == 0;
        let sync = |kind, wide| Some(Self::Sync(Sync { kind, address: a, data: b, wide }));
        let opcode = byte(56);
        Some(match opcode {
            // NOP, WAIT, SET_SB_ENTRY, PROGRESS_WAIT, SET_EXCEPTION_HANDLER, REQ_RESOURCE, FLUSH_CACHE2, PROT_REGION,
            // PROGRESS_STORE, PROGRESS_LOAD, ERROR_BARRIER, HEAP_SET, HEAP_OPERATION, TRACE_POINT
            0 | 3 | 23..=25 | 34 | 36 | 41..=43 | 47..=50 => Self::Nothing,
            1 => Self::Move48 { to, value: word & ((1 << 48) - 1) },
            2 => Self::Move32 { to, value },
            // RUN_COMPUTE, RUN_TILING, RUN_IDVS, RUN_FRAGMENT, RUN_FULLSCREEN, FINISH_TILING, FINISH_FRAGMENT,
            // RUN_COMPUTE_INDIRECT
            4..=9 | 11 | 44 => Self::Skipped,
            16 => Self::Add32 { to, from: a, value: value as i32 },
            17 => Self::Add64 { to, from: a, value: value as i32 },
            18 => Self::Min32 { to, a, b },
            20 => Self::Load { to, address: a, offset, mask },
            21 => Self::Store { from: to, address: a, offset, mask },
            22 => Self::Branch { condition: Condition::decode(word >> 28 & 7)?, value: a, offset },
            32 => Self::Call { address: a, len: b },
            33 => Self::Jump { address: a, len: b },
            37 | 51 => return sync(SyncKind::Add { system }, opcode == 51),
            38 | 52 => return sync(SyncKind::Set { system }, opcode == 52),
            39 | 53 => {
                return sync(SyncKind::Wait { condition: Condition::decode(word >> 28 & 15)? }, opcode == 53);
            }
            40 => match word >> 32 & 3 {
                0 | 1 => Self::StoreTime { address: a, offset },
                // Counts of what never happens here.
                _ => Self::Nothing,
            },
            _ => return None,
        })
    }
}

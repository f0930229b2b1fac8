//! PM4, the format of command streams.

/// A packet's header, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// What to do; nothing for a write to registers.
    pub(crate) opcode: Option<u32>,
    /// Words that follow.
    pub(crate) len: u32,
}

/// Flushes, and writes a timestamp.
pub(crate) const EVENT_WRITE: u32 = 0x46;
/// Writes words to memory.
pub(crate) const MEM_WRITE: u32 = 0x3d;
/// Runs another command stream.
pub(crate) const INDIRECT_BUFFER: u32 = 0x3f;
/// Changes the SMMU's table.
pub(crate) const SMMU_TABLE_UPDATE: u32 = 0x53;

/// [`EVENT_WRITE`], first word: interrupt when it is done.
pub(crate) const EVENT_WRITE_IRQ: u32 = 1 << 31;
/// [`INDIRECT_BUFFER`], third word: the stream's length in words.
pub(crate) const INDIRECT_BUFFER_LEN: u32 = 0xf_ffff;

impl Packet {
    /// Of a header; nothing where that is no header.
    pub(crate) fn decode(header: u32) -> Option<Self> {
        match header >> 28 {
            4 => Some(Self { opcode: None, len: header & 0x7f }),
            7 => Some(Self { opcode: Some(header >> 16 & 0x7f), len: header & 0x3fff }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        assert_eq!(Packet::decode(0x7046_0004), Some(Packet { opcode: Some(EVENT_WRITE), len: 4 }));
        // With the parity bits that the driver sets.
        assert_eq!(Packet::decode(0x70bf_8003), Some(Packet { opcode: Some(INDIRECT_BUFFER), len: 3 }));
        assert_eq!(Packet::decode(0x4808_8581), Some(Packet { opcode: None, len: 1 }));
        assert_eq!(Packet::decode(0), None);
    }
}

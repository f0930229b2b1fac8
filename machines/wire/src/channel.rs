//! From guest to host: a stream of frames in a piece of the guest's memory, which the host reads from outside.
//!
//! The first word counts the bytes that follow at [`DATA`]; it grows after they are written, and nothing is ever taken away.
//! A frame is a header word, payload length in bytes and above it the [`Kind`], and the payload, padded to a word:
//! the guest's side is device memory, which only takes aligned words.

/// Offset of the first frame.
pub const DATA: u64 = 0x1000;

/// Most payload bytes in a frame.
pub const MAX_PAYLOAD: usize = (1 << KIND_SHIFT) - 1;

const KIND_SHIFT: u32 = 24;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Standard output of the program.
    Stdout = 1,
    /// Standard error of the program.
    Stderr = 2,
    /// Text of the guest's init.
    Log = 3,
    /// Path of an output file, relative: the data frames that follow are its contents.
    FileName = 4,
    /// The next bytes of the file named last.
    FileData = 5,
    /// The program's exit status, a little-endian word: its exit code, or 128 and the signal that ended it. The last frame.
    Status = 6,
}

impl Kind {
    fn from_u8(value: u8) -> Option<Self> {
        let all = [Self::Stdout, Self::Stderr, Self::Log, Self::FileName, Self::FileData, Self::Status];
        all.into_iter().find(|kind| *kind as u8 == value)
    }
}

/// The words of a frame. `payload` has at most [`MAX_PAYLOAD`] bytes.
pub fn encode(kind: Kind, payload: &[u8]) -> impl Iterator<Item = u32> {
    debug_assert!(payload.len() <= MAX_PAYLOAD);
    let header = u32::from(kind as u8) << KIND_SHIFT | payload.len() as u32;
    let words = payload.chunks(4).map(|chunk| {
        let mut bytes = [0; 4];
        bytes[..chunk.len()].copy_from_slice(chunk);
        u32::from_le_bytes(bytes)
    });
    core::iter::once(header).chain(words)
}

/// The stream makes no sense: the guest has gone mad, or something wrote to its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest's channel holds an unknown frame {0:#x}")]
pub struct Corrupt(u32);

/// Takes the first frame off `stream`; `None` when it is empty.
pub fn decode<'a>(stream: &mut &'a [u8]) -> Result<Option<(Kind, &'a [u8])>, Corrupt> {
    let Some((header, rest)) = stream.split_first_chunk() else { return Ok(None) };
    let header = u32::from_le_bytes(*header);
    let len = header as usize & MAX_PAYLOAD;
    let kind = Kind::from_u8((header >> KIND_SHIFT) as u8).ok_or(Corrupt(header))?;
    if len.next_multiple_of(4) > rest.len() {
        return Err(Corrupt(header));
    }
    let (payload, rest) = rest.split_at(len.next_multiple_of(4));
    *stream = rest;
    Ok(Some((kind, &payload[..len])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let frames = [(Kind::Stdout, &b"hello"[..]), (Kind::FileData, b""), (Kind::Status, b"\0\0\0\0")];
        let words: Vec<u32> = frames.iter().flat_map(|(kind, payload)| encode(*kind, payload)).collect();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut stream = &bytes[..];
        for (kind, payload) in frames {
            assert_eq!(decode(&mut stream), Ok(Some((kind, payload))));
        }
        assert_eq!(decode(&mut stream), Ok(None));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(decode(&mut &[0xff; 8][..]), Err(Corrupt(u32::MAX)));
        let cut: Vec<u8> = encode(Kind::Log, b"12345678").take(2).flat_map(u32::to_le_bytes).collect();
        assert!(decode(&mut &cut[..]).is_err(), "a frame is written as a whole");
    }
}

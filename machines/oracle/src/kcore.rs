//! Physical memory, as the kernel shows it to root: `/proc/kcore`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::mark;

/// The file, and where memory is in it.
pub struct Kcore {
    file: File,
    segments: Vec<Segment>,
}

/// Memory that continues in the file as it does in the machine.
struct Segment {
    offset: u64,
    /// Where the kernel itself has it.
    kernel: u64,
    address: u64,
    len: u64,
}

const HEADER_LEN: usize = 64;
const SEGMENT_LEN: usize = 56;
const PT_LOAD: u32 = 1;

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of that length")
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}

impl Kcore {
    /// Opens it. The file is that of a 64-bit kernel: an ELF core with a segment for each piece of memory.
    pub fn open() -> io::Result<Self> {
        let file = File::open("/proc/kcore")?;
        let mut header = [0; HEADER_LEN];
        file.read_exact_at(&mut header, 0)?;
        let (table, count) = (long(&header, 32), u16::from_le_bytes(number(&header, 56)));
        let mut bytes = vec![0; SEGMENT_LEN * usize::from(count)];
        file.read_exact_at(&mut bytes, table)?;
        Ok(Self { file, segments: segments(&bytes) })
    }

    /// Fills `to` with what is at physical address `address`. NotFound: the kernel has no memory there.
    pub fn read(&self, address: u64, to: &mut [u8]) -> io::Result<()> {
        let inside = |segment: &&Segment| {
            address.checked_sub(segment.address).is_some_and(|at| at + to.len() as u64 <= segment.len)
        };
        let segment = self.segments.iter().find(inside).ok_or(io::ErrorKind::NotFound)?;
        self.file.read_exact_at(to, segment.offset + (address - segment.address))
    }

    /// What [`mark()`](mark::mark) has written to the page at physical address `address`: the object's name, and the page's offset
    /// in it in bytes. Nothing where it has not.
    pub fn marked(&self, address: u64) -> io::Result<Option<(u32, u64)>> {
        let mut word = [0; 8];
        self.read(address, &mut word)?;
        Ok(mark::decode(u64::from_le_bytes(word)))
    }

    /// The physical address of what the kernel has at `address`. NotFound: that is no memory.
    pub fn physical(&self, address: u64) -> io::Result<u64> {
        let found = self.segments.iter().find_map(|segment| {
            let at = address.checked_sub(segment.kernel)?;
            (at < segment.len).then_some(segment.address + at)
        });
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Segments out of the program headers. What is no memory (modules, what the kernel maps by itself) has no physical address.
fn segments(headers: &[u8]) -> Vec<Segment> {
    let loaded =
        |header: &&[u8]| u32::from_le_bytes(number(header, 0)) == PT_LOAD && long(header, 24) != u64::MAX;
    let segment = |header: &[u8]| Segment {
        offset: long(header, 8),
        kernel: long(header, 16),
        address: long(header, 24),
        len: long(header, 32),
    };
    headers.chunks_exact(SEGMENT_LEN).filter(loaded).map(segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_counts() {
        let header = |kind: u64, address: u64| -> Vec<u8> {
            [kind, 0x2000, 0xffff_0000_0000_0000, address, 0x1000, 0x1000, 0]
                .iter()
                .flat_map(|n| n.to_le_bytes())
                .collect()
        };
        let headers = [header(4, 0), header(1, u64::MAX), header(1, 0x4000_0000)].concat();
        let found = segments(&headers);
        assert_eq!(
            found.iter().map(|s| (s.offset, s.address, s.len)).collect::<Vec<_>>(),
            [(0x2000, 0x4000_0000, 0x1000)]
        );
    }
}

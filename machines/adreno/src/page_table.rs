//! The page tables that the SMMU walks: those of AArch64, stage 1, four levels of 4 KiB, 48 bits of address
//! (`io-pgtable-arm.c`).

use crate::Memory;

/// Bytes that a last-level entry maps.
pub const PAGE: u64 = 0x1000;

/// Bits of an entry that are an address.
pub(crate) const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

const VALID: u64 = 1 << 0;
/// Of an entry above the last level: it points to a table. Of one on the last level: it maps a page.
const TABLE: u64 = 1 << 1;
const READ_ONLY: u64 = 1 << 7;

/// Address bits below those that index the table of a level.
const SHIFTS: [u32; 4] = [39, 30, 21, 12];

/// An entry that maps something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// First address.
    pub va: u64,
    /// Bytes: a page, or a block of 2 MiB or 1 GiB.
    pub len: u64,
    /// First physical address.
    pub address: u64,
    /// Whether writes fault.
    pub read_only: bool,
}

/// What an entry says.
enum Entry {
    Table(u64),
    Leaf(u64),
}

impl Entry {
    /// Nothing where the entry maps nothing, or is reserved: the first level has no blocks, the last one no tables.
    fn decode(entry: u64, shift: u32) -> Option<Self> {
        match (entry & VALID != 0, entry & TABLE != 0, shift) {
            (true, true, 12) | (true, false, 21 | 30) => Some(Self::Leaf(entry)),
            (true, true, _) => Some(Self::Table(entry & ADDRESS)),
            _ => None,
        }
    }
}

/// The physical address of `va` by the table at `root` (as in a TTBR); nothing where none is mapped.
pub fn translate(memory: &impl Memory, root: u64, va: u64) -> Option<u64> {
    let mut table = root & ADDRESS;
    for shift in SHIFTS {
        let at = table + (va >> shift & 0x1ff) * 8;
        let entry = u64::from(memory.load(at)?) | u64::from(memory.load(at + 4)?) << 32;
        match Entry::decode(entry, shift)? {
            Entry::Table(next) => table = next,
            Entry::Leaf(entry) => {
                let inside = (1 << shift) - 1;
                return Some(entry & ADDRESS & !inside | va & inside);
            }
        }
    }
    None
}

/// Everything that the table at `root` maps, in order of address. `read` gives the table at a physical address.
pub fn leaves<E>(
    root: u64,
    read: &mut impl FnMut(u64) -> Result<[u8; PAGE as usize], E>,
) -> Result<Vec<Leaf>, E> {
    let mut found = Vec::new();
    collect(root & ADDRESS, 0, &SHIFTS, read, &mut found)?;
    Ok(found)
}

fn collect<E>(
    table: u64,
    start: u64,
    shifts: &[u32],
    read: &mut impl FnMut(u64) -> Result<[u8; PAGE as usize], E>,
    found: &mut Vec<Leaf>,
) -> Result<(), E> {
    let [shift, below @ ..] = shifts else { return Ok(()) };
    let bytes = read(table)?;
    let entries =
        bytes.chunks_exact(8).map(|entry| u64::from_le_bytes(entry.try_into().expect("eight bytes")));
    for (va, entry) in (start..).step_by(1 << shift).zip(entries) {
        match Entry::decode(entry, *shift) {
            Some(Entry::Table(next)) => collect(next, va, below, read, found)?,
            Some(Entry::Leaf(entry)) => {
                let len = 1 << shift;
                let (address, read_only) = (entry & ADDRESS & !(len - 1), entry & READ_ONLY != 0);
                found.push(Leaf { va, len, address, read_only });
            }
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_blocks_and_what_is_reserved() {
        let mut tables = vec![[0u64; 512]; 4];
        tables[0][0] = 0x1003;
        // A block is nothing for the first level to have.
        tables[0][1] = 0x4000_0001;
        tables[1][4] = 0x2003;
        tables[2][0] = 0x3003;
        tables[2][1] = 0x20_0081;
        tables[3][0] = 0x5003;
        tables[3][2] = 0x7001;
        let mut read = |address: u64| {
            let mut bytes = [0; PAGE as usize];
            for (entry, to) in tables[(address / PAGE) as usize].iter().zip(bytes.chunks_exact_mut(8)) {
                to.copy_from_slice(&entry.to_le_bytes());
            }
            Ok::<_, ()>(bytes)
        };
        let page = Leaf { va: 1 << 32, len: PAGE, address: 0x5000, read_only: false };
        let block = Leaf { va: (1 << 32) + (2 << 20), len: 2 << 20, address: 2 << 20, read_only: true };
        assert_eq!(leaves(0, &mut read), Ok(vec![page, block]));
    }
}

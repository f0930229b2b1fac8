//! The translation tables of an address space: those of AArch64 stage 1 with a granule of 4 KiB and 48 bits of address, as
//! the kernel's `io-pgtable-arm` writes them.

/// What a last-level entry maps, in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// The last level of a table; the root is level 0.
pub(crate) const LAST_LEVEL: u8 = 3;

/// Exception of an address that is not mapped, plus the level where the walk ended.
pub(crate) const TRANSLATION_FAULT: u8 = 0xc0;

/// Exception of an access that a mapping does not allow, plus the level of the entry.
pub(crate) const PERMISSION_FAULT: u8 = 0xc8;

const PAGE_SHIFT: u32 = 12;
/// Address bits that a level resolves.
const LEVEL_BITS: u32 = 9;
const ENTRIES: u64 = 1 << LEVEL_BITS;

const VALID: u64 = 1 << 0;
/// A table above the last level, a page in it; without it a block.
const TABLE: u64 = 1 << 1;
const READ_ONLY: u64 = 1 << 7;
const ADDRESS: u64 = 0xffff_ffff_f000;
const NO_EXECUTE: u64 = 1 << 54;

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Physical address of the page.
    pub physical: u64,
    /// Whether it may only be read.
    pub read_only: bool,
}

/// An entry of a table that maps something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// First virtual address.
    pub va: u64,
    /// Bytes: a page, or a block of 2 MiB or 1 GiB.
    pub len: u64,
    /// First physical address.
    pub physical: u64,
    /// Whether it may only be read.
    pub read_only: bool,
    /// Whether nothing there may be executed.
    pub no_execute: bool,
}

/// Looks up the page at `va`. `read` loads 64 bits of physical memory. The error is the level whose entry maps nothing.
pub fn translate(read: impl Fn(u64) -> Option<u64>, root: u64, va: u64) -> Result<Translation, u8> {
    let mut table = root & ADDRESS;
    for level in 0..=LAST_LEVEL {
        let index = va >> shift(level) & (ENTRIES - 1);
        let entry = read(table + index * 8).ok_or(level)?;
        if entry & VALID == 0 {
            return Err(level);
        }
        if !is_table(entry, level) {
            let within = (1 << shift(level)) - 1;
            let physical = (entry & ADDRESS & !within) + (va & within & ADDRESS);
            return Ok(Translation { physical, read_only: entry & READ_ONLY != 0 });
        }
        table = entry & ADDRESS;
    }
    unreachable!("an entry of the last level is no table")
}

/// All that the table at `root` maps, in order of address. `read` fills a buffer from physical memory; what it cannot read
/// is an error.
pub fn leaves<E>(read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>, root: u64) -> Result<Vec<Leaf>, E> {
    let mut found = Vec::new();
    collect(read, root & ADDRESS, 0, 0, &mut found)?;
    Ok(found)
}

fn collect<E>(
    read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    table: u64,
    level: u8,
    start: u64,
    found: &mut Vec<Leaf>,
) -> Result<(), E> {
    let mut bytes = [0; PAGE_SIZE as usize];
    read(table, &mut bytes)?;
    let entries =
        bytes.chunks_exact(8).map(|entry| u64::from_le_bytes(entry.try_into().expect("eight bytes")));
    for (index, entry) in entries.enumerate().filter(|(_, entry)| entry & VALID != 0) {
        let len = 1 << shift(level);
        let va = start + index as u64 * len;
        if is_table(entry, level) {
            collect(read, entry & ADDRESS, level + 1, va, found)?;
            continue;
        }
        let (read_only, no_execute) = (entry & READ_ONLY != 0, entry & NO_EXECUTE != 0);
        found.push(Leaf { va, len, physical: entry & ADDRESS & !(len - 1), read_only, no_execute });
    }
    Ok(())
}

fn is_table(entry: u64, level: u8) -> bool {
    level < LAST_LEVEL && entry & TABLE != 0
}

/// How far an address is shifted to get its index in a table of `level`.
fn shift(level: u8) -> u32 {
    PAGE_SHIFT + LEVEL_BITS * u32::from(LAST_LEVEL - level)
}

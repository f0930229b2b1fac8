//! Objects are told apart by what they hold: each page of one has a mark, with the object's name and the page's place in it.

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// The names that there are: below this.
pub const NAMES: u32 = 1 << 16;

/// In the upper bits of a mark; no pointer begins like this.
const MAGIC: u64 = 0x7e_55e7;

/// Pages that an object can have: the lower bits of a mark.
const PAGES: u64 = 1 << 24;

/// What is written into the page that is `offset` bytes from the start of the object `name`.
fn word(name: u32, offset: u64) -> u64 {
    MAGIC << 40 | u64::from(name % NAMES) << 24 | (offset / PAGE % PAGES)
}

/// The name of the object and the page's offset in it, in bytes, by the first word of a page; nothing where that is no mark.
pub(crate) fn decode(word: u64) -> Option<(u32, u64)> {
    (word >> 40 == MAGIC).then_some(((word >> 24) as u32 % NAMES, word % PAGES * PAGE))
}

/// Writes a mark into each page that is mapped at `start`. `name` is less than [`NAMES`].
///
/// # Safety
/// `len` bytes at `start` are an object's, mapped to be written, and nobody else's concern.
pub unsafe fn mark(start: *mut u8, len: u64, name: u32) {
    for offset in (0..len).step_by(PAGE as usize) {
        // SAFETY: the caller's promise.
        unsafe { start.add(offset as usize).cast::<u64>().write_volatile(word(name, offset)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_is_told() {
        let mut pages = vec![0u64; 3 * PAGE as usize / 8];
        // SAFETY: three pages of ours.
        unsafe { mark(pages.as_mut_ptr().cast(), 3 * PAGE, NAMES - 1) };
        let told: Vec<_> = pages.chunks(PAGE as usize / 8).map(|page| decode(page[0])).collect();
        assert_eq!(told, [0, PAGE, 2 * PAGE].map(|offset| Some((NAMES - 1, offset))));
        assert_eq!(decode(0), None);
        assert_eq!(decode(u64::MAX), None);
    }
}

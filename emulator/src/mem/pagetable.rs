//! A VM's page table: four levels of 512 entries over 48 bits, leaves of 4 KiB in the last level and of 2 MiB in the one before.
//!
//! An entry leads back to what it maps: a slot of the VM's object list and a page in that object, or nothing real (sparse).

use super::PAGE;

const VALID: u64 = 1 << 0;
const TABLE: u64 = 1 << 1;
const SPARSE: u64 = 1 << 2;
const READONLY: u64 = 1 << 3;
const PAGE_SHIFT: u32 = 4;
const PAGE_BITS: u32 = 34;
const SLOT_SHIFT: u32 = PAGE_SHIFT + PAGE_BITS;

const LAST: usize = 3;
const BLOCK: usize = LAST - 1;
const ENTRIES: u64 = 512;

/// One more than the highest slot number that an entry can hold.
pub(crate) const MAX_SLOTS: u32 = 1 << (u64::BITS - SLOT_SHIFT);
/// Objects must not be larger, in pages, for an entry to hold every page number.
pub(crate) const MAX_OBJECT_PAGES: u64 = 1 << PAGE_BITS;
/// End of the address space.
pub(crate) const VA_END: u64 = 1 << 48;

/// Bytes that one entry of a level spans.
const fn span(level: usize) -> u64 {
    PAGE << (9 * (LAST - level))
}

/// What a page is mapped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// Page `page` of the object in `slot`.
    Object { slot: u32, page: u64, readonly: bool },
    /// Nothing real.
    Sparse,
}

impl Leaf {
    fn entry(self) -> u64 {
        match self {
            Self::Sparse => VALID | SPARSE,
            Self::Object { slot, page, readonly } => {
                VALID
                    | if readonly { READONLY } else { 0 }
                    | page << PAGE_SHIFT
                    | u64::from(slot) << SLOT_SHIFT
            }
        }
    }

    fn from_entry(entry: u64) -> Self {
        if entry & SPARSE != 0 {
            return Self::Sparse;
        }
        Self::Object {
            slot: (entry >> SLOT_SHIFT) as u32,
            page: entry >> PAGE_SHIFT & (MAX_OBJECT_PAGES - 1),
            readonly: entry & READONLY != 0,
        }
    }

    /// The same mapping, `pages` further on.
    pub(crate) fn advance(self, pages: u64) -> Self {
        match self {
            Self::Sparse => Self::Sparse,
            Self::Object { slot, page, readonly } => Self::Object { slot, page: page + pages, readonly },
        }
    }

    /// Whether a 2 MiB entry may start here. Sparse ranges repeat one 2 MiB object, so they always can.
    fn fits_block(self) -> bool {
        match self {
            Self::Sparse => true,
            Self::Object { page, .. } => page % ENTRIES == 0,
        }
    }
}

struct Table {
    entries: Box<[u64; ENTRIES as usize]>,
    used: u16,
}

/// A page table.
pub(crate) struct PageTable {
    /// The root is table 0.
    tables: Vec<Table>,
    free: Vec<u32>,
    written: u64,
    blocks: bool,
}

/// Hears of every leaf that goes: its object's slot and its size in pages.
pub(crate) trait Released: FnMut(u32, u64) {}
impl<F: FnMut(u32, u64)> Released for F {}

impl PageTable {
    /// An empty one. `blocks`: whether an entry may map 2 MiB.
    pub(crate) fn new(blocks: bool) -> Self {
        let mut table = Self { tables: Vec::new(), free: Vec::new(), written: 0, blocks };
        table.alloc();
        table
    }

    /// Table pages in use.
    pub(crate) fn table_pages(&self) -> u64 {
        (self.tables.len() - self.free.len()) as u64
    }

    /// Entries written since the table was made, cleared ones included.
    pub(crate) fn entries_written(&self) -> u64 {
        self.written
    }

    fn alloc(&mut self) -> u32 {
        // Freed tables are empty again.
        self.free.pop().unwrap_or_else(|| {
            self.tables.push(Table { entries: Box::new([0; ENTRIES as usize]), used: 0 });
            (self.tables.len() - 1) as u32
        })
    }

    /// Maps the page-aligned range to `leaf` and what follows it, over whatever was there.
    pub(crate) fn map(&mut self, va: u64, len: u64, leaf: Leaf, released: &mut impl Released) {
        debug_assert!(va % PAGE == 0 && len % PAGE == 0 && va + len <= VA_END);
        self.set(0, 0, va, va + len, Some(leaf), released);
    }

    /// Clears the page-aligned range.
    pub(crate) fn unmap(&mut self, va: u64, len: u64, released: &mut impl Released) {
        debug_assert!(va % PAGE == 0 && len % PAGE == 0 && va + len <= VA_END);
        self.set(0, 0, va, va + len, None, released);
    }

    fn write(&mut self, table: u32, index: usize, entry: u64) {
        let table = &mut self.tables[table as usize];
        table.used = table.used + u16::from(entry != 0) - u16::from(table.entries[index] != 0);
        table.entries[index] = entry;
        self.written += 1;
    }

    fn set(
        &mut self,
        table: u32,
        level: usize,
        start: u64,
        end: u64,
        leaf: Option<Leaf>,
        released: &mut impl Released,
    ) {
        if level == LAST {
            return self.set_pages(table, start, end, leaf, released);
        }
        let (mut va, span) = (start, span(level));
        while va < end {
            let base = va & !(span - 1);
            let next = end.min(base + span);
            let whole = next - va == span;
            let here = leaf.map(|leaf| leaf.advance((va - start) / PAGE));
            let index = (base / span % ENTRIES) as usize;
            let old = self.tables[table as usize].entries[index];
            let from = core::mem::replace(&mut va, next);
            match here {
                None if old == 0 => {}
                None if whole => {
                    self.release(old, level, released);
                    self.write(table, index, 0);
                }
                Some(leaf) if level == BLOCK && whole && self.blocks && leaf.fits_block() => {
                    self.release(old, level, released);
                    self.write(table, index, leaf.entry());
                }
                here => {
                    let child = self.child(table, index, old);
                    self.set(child, level + 1, from, next, here, released);
                    if self.tables[child as usize].used == 0 {
                        self.free.push(child);
                        self.write(table, index, 0);
                    }
                }
            }
        }
    }

    /// The last level, where nearly all stores happen.
    fn set_pages(
        &mut self,
        table: u32,
        start: u64,
        end: u64,
        leaf: Option<Leaf>,
        released: &mut impl Released,
    ) {
        let (first, count) = ((start / PAGE % ENTRIES) as usize, ((end - start) / PAGE) as usize);
        let table = &mut self.tables[table as usize];
        let mut entry = leaf.map_or(0, Leaf::entry);
        let step = match leaf {
            Some(Leaf::Object { .. }) => 1 << PAGE_SHIFT,
            _ => 0,
        };
        let mut used = table.used;
        let mut written = 0;
        // Neighbours mostly belong to the same object: tell once a run.
        let mut run = (0, 0);
        for slot in &mut table.entries[first..first + count] {
            let old = core::mem::replace(slot, entry);
            written += u64::from(old | entry != 0);
            used = used + u16::from(entry != 0) - u16::from(old != 0);
            entry = entry.wrapping_add(step);
            if old != 0 && old & SPARSE == 0 {
                let object = (old >> SLOT_SHIFT) as u32;
                if run.1 > 0 && run.0 != object {
                    released(run.0, run.1);
                    run.1 = 0;
                }
                run = (object, run.1 + 1);
            }
        }
        if run.1 > 0 {
            released(run.0, run.1);
        }
        table.used = used;
        self.written += written;
    }

    /// The table behind an entry that is not a whole leaf for the caller: there already, made, or split out of a 2 MiB leaf.
    fn child(&mut self, table: u32, index: usize, old: u64) -> u32 {
        if old & TABLE != 0 {
            return (old >> PAGE_SHIFT) as u32;
        }
        let child = self.alloc();
        if old != 0 {
            // The small pages of a leaf differ from it by their number alone.
            let step = if old & SPARSE != 0 { 0 } else { 1 << PAGE_SHIFT };
            let split = &mut self.tables[child as usize];
            let mut entry = old;
            for page in split.entries.iter_mut() {
                *page = entry;
                entry = entry.wrapping_add(step);
            }
            split.used = ENTRIES as u16;
            self.written += ENTRIES;
        }
        self.write(table, index, VALID | TABLE | u64::from(child) << PAGE_SHIFT);
        child
    }

    /// Drops what an entry of `level` holds, down to the leaves. The entry itself is the caller's.
    fn release(&mut self, entry: u64, level: usize, released: &mut impl Released) {
        if entry & TABLE != 0 {
            let child = (entry >> PAGE_SHIFT) as u32;
            for index in 0..ENTRIES as usize {
                let entry = core::mem::take(&mut self.tables[child as usize].entries[index]);
                if entry != 0 {
                    self.written += 1;
                    self.release(entry, level + 1, released);
                }
            }
            self.tables[child as usize].used = 0;
            self.free.push(child);
        } else if entry != 0 && entry & SPARSE == 0 {
            released((entry >> SLOT_SHIFT) as u32, span(level) / PAGE);
        }
    }

    /// Whether nothing is mapped in the range.
    pub(crate) fn is_free(&self, va: u64, len: u64) -> bool {
        let mut free = true;
        self.visit(va, len, &mut |_, _, _| free = false);
        free
    }

    /// Calls `visit(va, len, leaf)` for every leaf that touches the range, in order, clipped to it.
    pub(crate) fn visit(&self, va: u64, len: u64, visit: &mut impl FnMut(u64, u64, Leaf)) {
        self.visit_table(0, 0, 0, va, va + len, visit);
    }

    fn visit_table(
        &self,
        table: u32,
        level: usize,
        base: u64,
        start: u64,
        end: u64,
        visit: &mut impl FnMut(u64, u64, Leaf),
    ) {
        let span = span(level);
        let first = (start.max(base) - base) / span;
        for index in first..ENTRIES {
            let at = base + index * span;
            if at >= end {
                return;
            }
            match self.tables[table as usize].entries[index as usize] {
                0 => {}
                entry if entry & TABLE != 0 => {
                    self.visit_table((entry >> PAGE_SHIFT) as u32, level + 1, at, start, end, visit);
                }
                entry => {
                    let (from, to) = (start.max(at), end.min(at + span));
                    visit(from, to - from, Leaf::from_entry(entry).advance((from - at) / PAGE));
                }
            }
        }
    }

    /// As [`Self::visit`], with leaves that continue each other joined.
    pub(crate) fn runs(&self, va: u64, len: u64, visit: &mut impl FnMut(u64, u64, Leaf)) {
        let mut run: Option<(u64, u64, Leaf)> = None;
        self.visit(va, len, &mut |va, len, leaf| match &mut run {
            Some((at, room, first)) if *at + *room == va && first.advance(*room / PAGE) == leaf => {
                *room += len
            }
            other => {
                if let Some((at, room, first)) = other.replace((va, len, leaf)) {
                    visit(at, room, first);
                }
            }
        });
        if let Some((at, room, first)) = run {
            visit(at, room, first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const HUGE: u64 = super::super::HUGE_PAGE;

    fn object(slot: u32, page: u64) -> Leaf {
        Leaf::Object { slot, page, readonly: false }
    }

    fn pages(table: &PageTable) -> BTreeMap<u64, Leaf> {
        let mut pages = BTreeMap::new();
        table.visit(0, VA_END, &mut |va, len, leaf| {
            for i in 0..len / PAGE {
                assert_eq!(pages.insert(va / PAGE + i, leaf.advance(i)), None);
            }
        });
        pages
    }

    #[test]
    fn a_64k_map_writes_16_entries() {
        let mut table = PageTable::new(true);
        table.map(0x10000, 0x10000, object(1, 0), &mut |_, _| panic!("nothing was there"));
        let before = table.entries_written();
        table.map(0x20000, 0x10000, object(1, 16), &mut |_, _| panic!("nothing was there"));
        assert_eq!(table.entries_written() - before, 16);
        assert_eq!(table.table_pages(), 4);
    }

    #[test]
    fn blocks_split_and_tables_go() {
        let mut table = PageTable::new(true);
        table.map(4 * HUGE, 2 * HUGE, object(7, 512), &mut |_, _| panic!("nothing was there"));
        assert_eq!((table.table_pages(), table.entries_written()), (3, 4));
        let mut gone = Vec::new();
        table.unmap(4 * HUGE + PAGE, PAGE, &mut |slot, pages| gone.push((slot, pages)));
        assert_eq!((table.table_pages(), &*gone), (4, &[(7, 1)][..]));
        let mut runs = Vec::new();
        table.runs(0, VA_END, &mut |va, len, leaf| runs.push((va, len, leaf)));
        assert_eq!(
            runs,
            [(4 * HUGE, PAGE, object(7, 512)), (4 * HUGE + 2 * PAGE, 2 * HUGE - 2 * PAGE, object(7, 514)),]
        );
        table.unmap(0, VA_END / 2, &mut |_, _| {});
        assert_eq!((table.table_pages(), pages(&table).len()), (1, 0));
    }

    #[test]
    fn misaligned_offsets_use_small_pages() {
        let mut table = PageTable::new(true);
        table.map(0, HUGE, object(0, 1), &mut |_, _| {});
        assert_eq!(table.table_pages(), 4);
        table.map(0, HUGE, Leaf::Sparse, &mut |_, _| {});
        assert_eq!(table.table_pages(), 3);
        // 8 GiB of sparse are 4096 blocks in eight tables.
        table.map(1 << 33, 1 << 33, Leaf::Sparse, &mut |_, _| {});
        assert_eq!(table.table_pages(), 3 + 8);
    }

    #[test]
    fn entries_hold_the_extremes() {
        for leaf in [
            Leaf::Sparse,
            Leaf::Object { slot: MAX_SLOTS - 1, page: MAX_OBJECT_PAGES - 1, readonly: true },
            object(0, 0),
        ] {
            assert_eq!(Leaf::from_entry(leaf.entry()), leaf);
        }
    }

    proptest! {
        #[test]
        fn behaves_as_an_array_of_pages(
            ops in prop::collection::vec((0u64..3000, 1u64..1500, 0u8..4, 0u32..3, 0u64..3), 1..60)
        ) {
            let mut table = PageTable::new(true);
            let mut model: BTreeMap<u64, Leaf> = BTreeMap::new();
            let mut mapped = [0u64; 3];
            for (start, count, kind, slot, offset) in ops {
                let leaf = match kind {
                    0 => None,
                    1 => Some(Leaf::Sparse),
                    // Every third one lies so that 2 MiB entries fit.
                    _ => Some(Leaf::Object { slot, page: start % 512 + offset / 2 * 7 + 512, readonly: kind == 3 }),
                };
                let mut released = |slot: u32, pages: u64| mapped[slot as usize] -= pages;
                match leaf {
                    None => table.unmap(start * PAGE, count * PAGE, &mut released),
                    Some(leaf) => table.map(start * PAGE, count * PAGE, leaf, &mut released),
                }
                if let Some(Leaf::Object { slot, .. }) = leaf {
                    mapped[slot as usize] += count;
                }
                for i in 0..count {
                    match leaf {
                        None => model.remove(&(start + i)),
                        Some(leaf) => model.insert(start + i, leaf.advance(i)),
                    };
                }
            }
            prop_assert_eq!(&pages(&table), &model);
            for slot in 0..3 {
                let count = model.values().filter(|l| matches!(l, Leaf::Object { slot: s, .. } if *s == slot)).count();
                prop_assert_eq!(mapped[slot as usize], count as u64);
            }
            table.unmap(0, VA_END, &mut |slot, pages| mapped[slot as usize] -= pages);
            prop_assert_eq!((table.table_pages(), mapped), (1, [0; 3]));
        }
    }
}

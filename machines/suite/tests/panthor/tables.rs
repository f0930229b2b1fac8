//! What the page tables say, entry by entry, beside the kernel's own account of what is mapped.

use std::collections::{BTreeMap, HashMap};

use kmd::uapi::panthor::*;
use kmd::{BindOp, BindTarget, BufferObject, Vm};
use oracle::translation::PageTables;

use crate::rig::*;

/// A rig whose VM's page table is known.
struct Table {
    rig: Rig,
    tables: PageTables,
    root: u64,
}

/// A page as the table maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    physical: u64,
    read_only: bool,
    no_execute: bool,
}

impl Table {
    fn new() -> Self {
        let rig = Rig::new();
        let tables = PageTables::open().unwrap();
        let at = rig.marker_address() + PAGE;
        let bind = |target| rig.vm.bind(&[BindOp { va: at, len: PAGE, target }]).unwrap();
        let root = tables.root(at, || bind(BindTarget::Null)).unwrap();
        bind(BindTarget::Unmap);
        Self { rig, tables, root }
    }

    /// An object whose pages are told apart by what is in them.
    fn bo(&self, size: u64) -> BufferObject {
        let bo = self.rig.bo(size);
        let mapping = bo.map().unwrap();
        for page in 0..size / PAGE {
            // SAFETY: within the mapping, and aligned.
            unsafe {
                mapping
                    .as_ptr()
                    .cast::<u64>()
                    .add((page * PAGE / 8) as usize)
                    .write_volatile(content(bo.handle().0, page));
            }
        }
        bo
    }

    /// What is in the page.
    fn content(&self, page: &Page) -> u64 {
        let mut bytes = [0; 8];
        self.tables.memory().read(page.physical, &mut bytes).unwrap();
        u64::from_le_bytes(bytes)
    }

    /// The table below the markers, each page for itself, and how many entries are blocks.
    fn read(&self) -> (BTreeMap<u64, Page>, usize) {
        let leaves = self.tables.leaves(self.root).unwrap();
        let ours: Vec<_> = leaves.iter().filter(|leaf| (BASE..MARKERS).contains(&leaf.va)).collect();
        let page = |leaf: &mali::page_table::Leaf, at: u64| Page {
            physical: leaf.physical + at,
            read_only: leaf.read_only,
            no_execute: leaf.no_execute,
        };
        let all = ours.iter().flat_map(|leaf| {
            (0..leaf.len).step_by(PAGE as usize).map(|at| (leaf.va - BASE + at, page(leaf, at)))
        });
        (all.collect(), ours.iter().filter(|leaf| leaf.len == BLOCK).count())
    }

    /// Holds the table to the account: every page that it should have, and none besides.
    fn check(&self) {
        let (mut table, _) = self.read();
        let mut dummies = HashMap::new();
        for (va, len, object) in self.rig.dump() {
            for at in (0..len).step_by(PAGE as usize) {
                let page = table.remove(&(va + at)).unwrap_or_else(|| panic!("{:#x} is not mapped", va + at));
                assert!(page.no_execute && !page.read_only);
                match object {
                    Some((handle, offset)) => {
                        assert_eq!(self.content(&page), content(handle, (offset + at) / PAGE));
                    }
                    // One object for all, of 2 MiB, over and over.
                    None => {
                        let dummy = dummies.entry((va + at) % BLOCK).or_insert(page.physical);
                        assert_eq!(page.physical, *dummy);
                    }
                }
            }
        }
        assert!(table.is_empty(), "too much: {table:x?}");
    }
}

/// What is in a page of an object.
fn content(handle: u32, page: u64) -> u64 {
    u64::from(handle) << 32 | (page + 1)
}

#[test]
fn pages_blocks_and_flags() {
    let table = Table::new();
    let bo = table.bo(4 * PAGE);
    table.check();
    table.rig.map(&bo, PAGE, 0, 2 * PAGE).unwrap();
    table.check();
    table.rig.null(BLOCK, 2 * BLOCK).unwrap();
    table.check();
    let blocks = table.read().1;
    // What is taken out of a block leaves pages.
    table.rig.map(&bo, 0, BLOCK + 16 * PAGE, 4 * PAGE).unwrap();
    table.check();
    assert_eq!(table.read().1, blocks.saturating_sub(1));
    table.rig.unmap(0, 1 << 30).unwrap();
    table.check();

    let handle = bo.handle().0;
    let flags = VM_BIND_OP_TYPE_MAP | VM_BIND_OP_MAP_READONLY;
    let op = VmBindOp { flags, bo_handle: handle, va: BASE, size: PAGE, ..Default::default() };
    raw_bind(&*table.rig.node, table.rig.vm.id(), 0, &[op]).0.unwrap();
    let (pages, _) = table.read();
    let [(0, page)] = pages.into_iter().collect::<Vec<_>>()[..] else { panic!("one page is mapped") };
    assert_eq!((table.content(&page), page.read_only, page.no_execute), (content(handle, 0), true, false));
}

/// A walk of binds at random places, checked at every step.
#[test]
fn whatever_is_bound() {
    let table = Table::new();
    let bos = [table.bo(BLOCK), table.bo(64 * PAGE)];
    let mut state = 1u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..100 {
        let (va, len) = (random(1024) * PAGE, (1 + random(200)) * PAGE);
        let bo = &bos[random(2) as usize];
        match random(4) {
            0 => table.rig.unmap(va, len).unwrap(),
            1 => table.rig.null(va, len * 4).unwrap(),
            _ => {
                let len = len.min(bo.size());
                table.rig.map(bo, random((bo.size() - len) / PAGE + 1) * PAGE, va, len).unwrap();
            }
        }
        table.check();
    }
}

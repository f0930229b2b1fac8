//! A GPU's address space: page table, the objects it refers to, and the process memory that shows it. Knows no driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::io::Errno;

use crate::drm::Device;
use crate::drm::gem::Object;
use crate::mem::pagetable::{Leaf, MAX_SLOTS, PageTable, VA_END};
use crate::mem::{HUGE_PAGE, PAGE};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What an operation does to its range.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Maps an object from a byte offset on.
    Map {
        object: Arc<Object>,
        offset: u64,
        readonly: bool,
    },
    /// Maps nothing real.
    MapSparse,
    Unmap,
}

/// One operation on an address space. Bytes, page-aligned.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) va: u64,
    pub(crate) len: u64,
    pub(crate) action: Action,
}

/// A run of pages that continue each other, as the page table holds them. Bytes.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) va: u64,
    pub(crate) len: u64,
    /// Object and byte offset; nothing for sparse pages.
    pub(crate) object: Option<(Arc<Object>, u64)>,
}

struct Slot {
    object: Arc<Object>,
    /// Pages that map it. Every one holds the object; we count them in one place.
    pages: u64,
}

/// The objects that a page table refers to.
#[derive(Default)]
struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_object: FxHashMap<u64, u32>,
    /// The slot that was asked for last: binds come in bursts of one object.
    last: Option<u32>,
}

impl Slots {
    /// The slot of `object`, with `pages` more pages. `ENOMEM` when there are no more slots.
    fn take(&mut self, object: &Arc<Object>, pages: u64) -> Result<u32, Errno> {
        if let Some(slot) = self.last
            && let Some(entry) = self.slots[slot as usize].as_mut()
            && Arc::ptr_eq(&entry.object, object)
        {
            entry.pages += pages;
            return Ok(slot);
        }
        if let Some(&slot) = self.by_object.get(&object.id) {
            self.last = Some(slot);
            self.slots[slot as usize].as_mut().expect("a listed slot is in use").pages += pages;
            return Ok(slot);
        }
        let entry = Some(Slot { object: object.clone(), pages });
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = entry;
                slot
            }
            None if self.slots.len() < MAX_SLOTS as usize => {
                self.slots.push(entry);
                (self.slots.len() - 1) as u32
            }
            None => return Err(Errno::NOMEM),
        };
        self.by_object.insert(object.id, slot);
        Ok(slot)
    }

    /// Takes `pages` pages off a slot; objects that lost their last one go to `dead`.
    fn release(&mut self, slot: u32, pages: u64, dead: &mut Vec<Arc<Object>>) {
        let entry = self.slots[slot as usize].as_mut().expect("a mapped slot is in use");
        entry.pages -= pages;
        if entry.pages == 0 {
            let object = self.slots[slot as usize].take().expect("looked at above").object;
            self.by_object.remove(&object.id);
            self.free.push(slot);
            dead.push(object);
        }
    }

    fn object(&self, slot: u32) -> &Arc<Object> {
        &self.slots[slot as usize].as_ref().expect("a mapped slot is in use").object
    }
}

struct Tree {
    table: PageTable,
    slots: Slots,
    /// No page is shown or recorded any more.
    dead: bool,
}

/// An address space. Operations on it run one at a time.
pub(crate) struct AddressSpace {
    /// Never used twice.
    pub(crate) id: u64,
    device: Arc<Device>,
    tree: Mutex<Tree>,
}

impl AddressSpace {
    /// An empty one. `blocks`: whether 2 MiB may be mapped by one entry.
    pub(crate) fn new(device: Arc<Device>, blocks: bool) -> Self {
        let table = PageTable::new(blocks);
        device.stats.table_pages.add(table.table_pages());
        let tree = Mutex::new(Tree { table, slots: Slots::default(), dead: false });
        Self { id: NEXT_ID.fetch_add(1, Ordering::Relaxed), device, tree }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Whether an operation may touch the process's memory: it lies in registered windows, or touches none.
    pub(crate) fn permits(&self, op: &Operation) -> bool {
        matches!(op.action, Action::Unmap) || self.device.space.covers(op.va, op.len)
    }

    /// Runs one operation. When it fails nothing has changed. `allow_map` is asked under the lock, and refuses a map with
    /// `EINVAL`.
    pub(crate) fn run(
        &self,
        op: &Operation,
        allow_map: impl FnOnce(&PageTable) -> bool,
    ) -> Result<(), Errno> {
        let stats = &self.device.stats;
        let mut released = Vec::new();
        let result = {
            let mut tree = self.tree.lock();
            if tree.dead || op.len == 0 {
                // What was queued before the end still runs, in a table that nobody can see.
                Ok(())
            } else if !matches!(op.action, Action::Unmap) && !allow_map(&tree.table) {
                Err(Errno::INVAL)
            } else {
                let before = (tree.table.table_pages(), tree.table.entries_written());
                let result = self.execute(&mut tree, op, &mut released);
                let after = (tree.table.table_pages(), tree.table.entries_written());
                stats.entries_written.add(after.1 - before.1);
                if before.0 != after.0 {
                    // Two steps: the count must never go through a negative number.
                    stats.table_pages.add(after.0);
                    stats.table_pages.sub(before.0);
                }
                result
            }
        };
        // The last reference frees memory, which takes a while: not under the lock.
        drop(released);
        result
    }

    /// The process's memory first, as it can fail; the page table cannot.
    fn execute(&self, tree: &mut Tree, op: &Operation, released: &mut Vec<Arc<Object>>) -> Result<(), Errno> {
        let Tree { table, slots, .. } = tree;
        match &op.action {
            Action::Map { object, offset, readonly } => {
                let slot = slots.take(object, op.len / PAGE)?;
                let shown = self.device.space.map(op.va, op.len, &object.backing, *offset, *readonly);
                if let Err(errno) = shown {
                    slots.release(slot, op.len / PAGE, released);
                    return Err(errno);
                }
                let leaf = Leaf::Object { slot, page: offset / PAGE, readonly: *readonly };
                table.map(op.va, op.len, leaf, &mut |slot, pages| slots.release(slot, pages, released));
            }
            Action::MapSparse => {
                self.device.space.map_sparse(op.va, op.len)?;
                table.map(op.va, op.len, Leaf::Sparse, &mut |slot, pages| {
                    slots.release(slot, pages, released)
                });
            }
            Action::Unmap => {
                // What was never mapped needs no call.
                let mut mapped: Option<(u64, u64)> = None;
                table.visit(op.va, op.len, &mut |va, len, _| {
                    mapped = Some((mapped.map_or(va, |(start, _)| start), va + len));
                });
                let Some((start, end)) = mapped else { return Ok(()) };
                if let Err(errno) = self.device.space.unmap(start, end - start) {
                    self.show_again(tree, start, end - start);
                    return Err(errno);
                }
                table.unmap(op.va, op.len, &mut |slot, pages| slots.release(slot, pages, released));
            }
        }
        Ok(())
    }

    /// Makes the process's memory agree with the page table again after an operation that got half way.
    fn show_again(&self, tree: &Tree, va: u64, len: u64) {
        tree.table.runs(va, len, &mut |va, len, leaf| {
            let shown = match leaf {
                Leaf::Sparse => self.device.space.map_sparse(va, len),
                Leaf::Object { slot, page, readonly } => {
                    let object = tree.slots.object(slot);
                    self.device.space.map(va, len, &object.backing, page * PAGE, readonly)
                }
            };
            if let Err(error) = shown {
                tracing::error!(%error, va = format_args!("{va:#x}"), "a failed unmap cannot be taken back");
            }
        });
    }

    /// Unmaps everything, for ever.
    pub(crate) fn destroy(&self) {
        let mut released = Vec::new();
        {
            let mut tree = self.tree.lock();
            let Tree { table, slots, dead } = &mut *tree;
            if core::mem::replace(dead, true) {
                return;
            }
            table.runs(0, VA_END, &mut |va, len, _| {
                if let Err(error) = self.device.space.unmap(va, len) {
                    tracing::error!(%error, va = format_args!("{va:#x}"), "a destroyed VM leaves memory mapped");
                }
            });
            let before = table.table_pages();
            table.unmap(0, VA_END, &mut |slot, pages| slots.release(slot, pages, &mut released));
            self.device.stats.table_pages.sub(before);
        }
        drop(released);
    }

    /// What is mapped, in order of address.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let tree = self.tree.lock();
        let mut runs: Vec<Run> = Vec::new();
        tree.table.runs(0, VA_END, &mut |va, len, leaf| {
            let object = match leaf {
                Leaf::Sparse => None,
                Leaf::Object { slot, page, .. } => Some((tree.slots.object(slot).clone(), page * PAGE)),
            };
            match runs.last_mut() {
                // Runs that differ in protection alone have the same content.
                Some(last) if last.va + last.len == va && last.continues(&object) => last.len += len,
                _ => runs.push(Run { va, len, object }),
            }
        });
        runs
    }
}

impl Run {
    fn continues(&self, next: &Option<(Arc<Object>, u64)>) -> bool {
        match (&self.object, next) {
            (None, None) => true,
            (Some((a, offset)), Some((b, next))) => Arc::ptr_eq(a, b) && offset + self.len == *next,
            _ => false,
        }
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// Tables of three levels that a map of the range can need at most, the root left out.
pub(crate) fn tables(va: u64, end: u64) -> u64 {
    [1 << 39, 1 << 30, HUGE_PAGE].iter().map(|size| end.div_ceil(*size) - va / size).sum()
}

/// Page-table pages that panthor preallocates for an operation: three levels for a map, the edges of 2 MiB blocks for an unmap.
pub(crate) fn preallocation(op: &Operation) -> u64 {
    match op.action {
        Action::Map { .. } | Action::MapSparse => tables(op.va, op.va + op.len),
        Action::Unmap => {
            let end = op.va + op.len;
            let first = u64::from(op.va % HUGE_PAGE != 0);
            let apart = end.next_multiple_of(HUGE_PAGE) != op.va.next_multiple_of(HUGE_PAGE);
            first + u64::from(end % HUGE_PAGE != 0 && apart)
        }
    }
}

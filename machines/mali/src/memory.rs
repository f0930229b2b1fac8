//! Physical memory as the GPU reaches it, and virtual memory as its MMU shows it.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::Registers;
use crate::page_table::{self, PAGE_SIZE, Translation};
use crate::registers as r;

/// The memory that CPU and GPU share, by physical address.
pub trait Memory {
    /// The 32-bit word at `physical`, a multiple of four; none where there is no memory.
    fn word(&self, physical: u64) -> Option<&AtomicU32>;

    /// The 64-bit word at `physical`, a multiple of eight; none where there is no memory.
    fn long(&self, physical: u64) -> Option<&AtomicU64>;
}

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads.
    Read,
    /// Stores, or loads and stores.
    Write,
}

/// An access that the MMU did not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The address space, by its number.
    pub space: u32,
    /// What was accessed.
    pub va: u64,
    /// How.
    pub access: Access,
    /// The exception: a translation fault or a permission fault, at a level of the table.
    pub exception: u8,
}

/// An address space: what the MMU makes of the tables that the driver gave it.
///
/// It remembers the page of the last access, so it is to be made anew for every piece of work.
pub(crate) struct Space<'a, M> {
    memory: &'a M,
    number: u32,
    root: Option<u64>,
    last: Cell<Option<(u64, Translation)>>,
}

impl<'a, M: Memory> Space<'a, M> {
    /// Address space `number` as its registers are now.
    pub(crate) fn new(registers: &impl Registers, memory: &'a M, number: u32) -> Self {
        let at = r::AS + number * r::AS_STRIDE;
        let configured = registers.read(at + r::AS_TRANSCFG) & r::AS_TRANSCFG_ADRMODE;
        let root = u64::from(registers.read(at + r::AS_TRANSTAB + 4)) << 32
            | u64::from(registers.read(at + r::AS_TRANSTAB));
        let root = (configured == r::AS_TRANSCFG_ADRMODE_AARCH64_4K).then_some(root);
        Self { memory, number, root, last: Cell::new(None) }
    }

    /// The 32-bit word at `va`.
    pub(crate) fn word(&self, va: u64, access: Access) -> Result<&'a AtomicU32, Fault> {
        let physical = self.translate(va, access)?;
        self.memory.word(physical & !3).ok_or_else(|| self.fault(va, access, page_table::TRANSLATION_FAULT))
    }

    /// The 64-bit word at `va`.
    pub(crate) fn long(&self, va: u64, access: Access) -> Result<&'a AtomicU64, Fault> {
        let physical = self.translate(va, access)?;
        self.memory.long(physical & !7).ok_or_else(|| self.fault(va, access, page_table::TRANSLATION_FAULT))
    }

    /// The physical address of `va`, where there is memory.
    pub(crate) fn physical(&self, va: u64, access: Access) -> Result<u64, Fault> {
        self.word(va, access)?;
        self.translate(va, access)
    }

    fn translate(&self, va: u64, access: Access) -> Result<u64, Fault> {
        let page = va & !(PAGE_SIZE - 1);
        let translation = match self.last.get() {
            Some((last, translation)) if last == page => translation,
            _ => {
                let root = self.root.ok_or_else(|| self.fault(va, access, page_table::TRANSLATION_FAULT))?;
                let read =
                    |physical| Some(self.memory.long(physical)?.load(core::sync::atomic::Ordering::Relaxed));
                let translation = page_table::translate(read, root, page)
                    .map_err(|level| self.fault(va, access, page_table::TRANSLATION_FAULT + level))?;
                self.last.set(Some((page, translation)));
                translation
            }
        };
        if access == Access::Write && translation.read_only {
            return Err(self.fault(va, access, page_table::PERMISSION_FAULT + page_table::LAST_LEVEL));
        }
        Ok(translation.physical + va % PAGE_SIZE)
    }

    fn fault(&self, va: u64, access: Access, exception: u8) -> Fault {
        Fault { space: self.number, va, access, exception }
    }
}

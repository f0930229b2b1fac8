//! The words through which driver and MCU talk: the shared section of the firmware, in memory.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::firmware::{SHARED_LEN, SHARED_VA};
use crate::memory::{Access, Fault, Memory, Space};
use crate::page_table::PAGE_SIZE;

const PAGES: usize = SHARED_LEN as usize / PAGE_SIZE as usize;

/// Where the section's pages are.
#[derive(Clone, Copy)]
pub(super) struct Section([u64; PAGES]);

impl Section {
    /// Finds the section in the MCU's address space.
    pub(super) fn find<M: Memory>(mcu: &Space<M>) -> Result<Self, Fault> {
        let mut pages = [0; PAGES];
        for (page, va) in pages.iter_mut().zip((u64::from(SHARED_VA)..).step_by(PAGE_SIZE as usize)) {
            *page = mcu.physical(va, Access::Write)?;
        }
        Ok(Self(pages))
    }
}

/// The section's words, by their offsets.
#[derive(Clone, Copy)]
pub(super) struct Interface<'a, M> {
    memory: &'a M,
    section: &'a Section,
}

impl<'a, M: Memory> Interface<'a, M> {
    pub(super) fn new(memory: &'a M, section: &'a Section) -> Self {
        Self { memory, section }
    }

    pub(super) fn read(&self, offset: u32) -> u32 {
        self.word(offset).load(Ordering::Acquire)
    }

    pub(super) fn write(&self, offset: u32, value: u32) {
        self.word(offset).store(value, Ordering::Release);
    }

    pub(super) fn read_long(&self, offset: u32) -> u64 {
        u64::from(self.read(offset + 4)) << 32 | u64::from(self.read(offset))
    }

    pub(super) fn write_long(&self, offset: u32, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }

    fn word(&self, offset: u32) -> &'a AtomicU32 {
        let page = self.section.0[offset as usize / PAGE_SIZE as usize];
        self.memory
            .word(page + u64::from(offset) % PAGE_SIZE)
            .expect("there was memory when the section was found")
    }
}

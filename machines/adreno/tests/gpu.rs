//! The device as a driver sees it: registers that are written and polled, a ring buffer in memory behind page tables.

use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use tessera_adreno::page_table::translate;
use tessera_adreno::registers::*;
use tessera_adreno::{Gpu, Interrupts, Line, Memory, Registers};

/// Registers, RAM, and the interrupts that came.
#[derive(Default)]
struct Bus {
    words: RefCell<HashMap<u32, u32>>,
    ram: RefCell<HashMap<u64, u32>>,
    raised: Cell<u32>,
    faults: Cell<u32>,
}

impl Registers for &Bus {
    fn read(&self, offset: u32) -> u32 {
        self.words.borrow().get(&offset).copied().unwrap_or(0)
    }

    fn write(&self, offset: u32, value: u32) {
        self.words.borrow_mut().insert(offset, value);
    }

    fn update(&self, offset: u32, mask: u32, bits: u32) -> u32 {
        let old = self.read(offset);
        self.write(offset, old & !mask | bits & mask);
        old
    }
}

const RAM_END: u64 = 0x10_0000;

impl Memory for &Bus {
    fn load(&self, address: u64) -> Option<u32> {
        (address < RAM_END).then(|| self.ram.borrow().get(&address).copied().unwrap_or(0))
    }

    fn store(&self, address: u64, value: u32) -> bool {
        self.ram.borrow_mut().insert(address, value);
        address < RAM_END
    }
}

impl Interrupts for &Bus {
    fn raise(&self, line: Line) {
        let count = if line == Line::Fault { &self.faults } else { &self.raised };
        count.set(count.get() + 1);
    }
}

const NOW: Duration = Duration::ZERO;
/// Where the kernel's addresses start: bit 48.
const KERNEL: u64 = 1 << 48;
const RING: u64 = KERNEL + 0x10_0000;
const SHADOW: u64 = KERNEL + 0x20_0000;
const FENCE: u64 = SHADOW + 8;
const RING_WORDS: u32 = 1024;

impl Bus {
    fn put(&self, address: u64, descriptor: u64) {
        self.ram.borrow_mut().insert(address, descriptor as u32);
        self.ram.borrow_mut().insert(address + 4, (descriptor >> 32) as u32);
    }

    /// A page in the tables at `root`, whose lower levels come from `free` on.
    fn map(&self, root: u64, free: &mut u64, va: u64, page: u64) {
        let mut table = root;
        for shift in [39, 30, 21] {
            let at = table + (va >> shift & 0x1ff) * 8;
            let there = u64::from(self.read_word(at));
            table = if there == 0 {
                *free += 0x1000;
                self.put(at, *free | 3);
                *free
            } else {
                there & !0xfff
            };
        }
        self.put(table + (va >> 12 & 0x1ff) * 8, page | 3);
    }

    fn read_word(&self, address: u64) -> u32 {
        self.ram.borrow().get(&address).copied().unwrap_or(0)
    }

    /// A ring at 0x1000, its shadow at 0x2000; tables of the kernel from 0x10000 on, of a process from 0x20000 on.
    fn powered(&self) -> Gpu<&Self, &Self, &Self> {
        let gpu = Gpu::new(self, self, self);
        let mut free = 0x10000;
        self.map(0x10000, &mut free, RING & 0xffff_ffff_ffff, 0x1000);
        self.map(0x10000, &mut free, SHADOW & 0xffff_ffff_ffff, 0x2000);
        (&self).write_long(SMMU_TTBR1, 0x10000);
        (&self).write_long(CP_RB_BASE, RING);
        (&self).write_long(CP_RB_RPTR_ADDR, SHADOW);
        self.set(CP_RB_CNTL, 9);
        self.set(RBBM_INT_0_MASK, INT_CACHE_FLUSH_TS);
        self.set(CP_SQE_CNTL, SQE_RUN);
        gpu
    }

    fn set(&self, offset: u32, value: u32) {
        (&self).write(offset, value);
    }

    fn get(&self, offset: u32) -> u32 {
        (&self).read(offset)
    }

    fn ring(&self, at: u32, words: &[u32]) {
        for (n, word) in (at..).zip(words) {
            self.ram.borrow_mut().insert(0x1000 + u64::from(n % RING_WORDS) * 4, *word);
        }
        self.set(CP_RB_WPTR, (at + words.len() as u32) % RING_WORDS);
    }
}

fn fence(value: u32) -> [u32; 5] {
    [0x7046_0004, 1 << 31 | 4, FENCE as u32, (FENCE >> 32) as u32, value]
}

#[test]
fn power_goes_on_and_off() {
    let bus = &Bus::default();
    let mut gpu = Gpu::new(bus, bus, bus);
    for domain in &POWER_DOMAINS {
        assert_eq!(bus.get(domain.status) & GDSC_ON, 0);
        bus.set(domain.control, bus.get(domain.control) & !GDSC_COLLAPSE | 0x10);
        assert!(gpu.step(NOW));
        assert_eq!((bus.get(domain.status) & GDSC_ON, bus.get(domain.control) & 0x10), (GDSC_ON, 0x10));
        bus.set(domain.control, bus.get(domain.control) | GDSC_COLLAPSE);
        assert!(gpu.step(NOW));
        assert_eq!(bus.get(domain.status) & GDSC_ON, 0);
    }
    assert!(!gpu.step(NOW), "nothing was asked");
}

#[test]
fn a_fence_is_written_and_interrupts() {
    let bus = &Bus::default();
    let mut gpu = bus.powered();
    bus.ring(0, &[&[0x7010_0001, 0][..], &fence(7)].concat());
    assert!(gpu.step(NOW));
    assert_eq!((bus.read_word(0x2008), bus.read_word(0x2000), bus.get(CP_RB_RPTR)), (7, 7, 7));
    assert_eq!((bus.get(RBBM_INT_0_STATUS), bus.raised.get()), (INT_CACHE_FLUSH_TS, 1));
    gpu.step(NOW);
    assert_eq!(bus.raised.get(), 1, "one edge");
    gpu.step(Duration::from_millis(3));
    assert_eq!(bus.raised.get(), 2, "again while it is pending");
    // The next fence comes with the clear of the last.
    bus.set(RBBM_INT_CLEAR_CMD, INT_CACHE_FLUSH_TS);
    bus.ring(7, &fence(8));
    gpu.step(Duration::from_millis(3));
    assert_eq!((bus.read_word(0x2008), bus.raised.get()), (8, 3));
    bus.set(RBBM_INT_CLEAR_CMD, INT_CACHE_FLUSH_TS);
    gpu.step(Duration::from_millis(9));
    assert_eq!((bus.get(RBBM_INT_0_STATUS), bus.raised.get()), (0, 3));
}

#[test]
fn the_ring_starts_again_at_its_end_and_when_it_is_told() {
    let bus = &Bus::default();
    let mut gpu = bus.powered();
    // One long packet, up to three words before the end.
    bus.ring(0, &[vec![0x7010_0000 | (RING_WORDS - 4)], vec![0; RING_WORDS as usize - 4]].concat());
    gpu.step(NOW);
    assert_eq!(bus.get(CP_RB_RPTR), RING_WORDS - 3);
    bus.ring(RING_WORDS - 3, &fence(1));
    gpu.step(NOW);
    assert_eq!((bus.read_word(0x2008), bus.get(CP_RB_RPTR)), (1, 2));
    assert!(!gpu.step(NOW));
    bus.set(CP_SQE_CNTL, SQE_RUN);
    bus.ring(0, &fence(2));
    gpu.step(NOW);
    assert_eq!((bus.read_word(0x2008), bus.get(CP_RB_RPTR), gpu.counters().starts), (2, 5, 2));
}

#[test]
fn a_process_writes_through_its_own_table() {
    let bus = &Bus::default();
    let mut gpu = bus.powered();
    let mut free = 0x20000;
    let (stream, data, null) = (0x1_0000_0000u64, 0x1_0020_0000u64, 0x1_0020_1000u64);
    for (va, page) in [(stream, 0x3000), (data, 0x4000), (null, 0x5000)] {
        bus.map(0x20000, &mut free, va, page);
    }
    (&bus).write_long(SMMU_PRR_ADDRESS, 0x5000);
    let write = |va: u64| [0x703d_0003, va as u32, (va >> 32) as u32, 0x1234];
    let words = [write(data + 8), write(null + 8), write(data + 0x10_0008)].concat();
    for (n, word) in (0u64..).zip(&words) {
        bus.ram.borrow_mut().insert(0x3000 + n * 4, *word);
    }
    let switch = [0x7053_0004, 0x20000, 0, 0, 0];
    let call = [0x703f_0003, stream as u32, (stream >> 32) as u32, words.len() as u32];
    bus.ring(0, &[&switch[..], &call, &fence(1)].concat());
    gpu.step(NOW);
    assert_eq!((bus.read_word(0x4008), bus.read_word(0x5008)), (0x1234, 0), "no write to a null mapping");
    assert_eq!((gpu.counters().faults, gpu.counters().streams, bus.read_word(0x2008)), (1, 1, 1));
    assert_eq!(
        (bus.faults.get(), bus.get(SMMU_FSR), bus.get(SMMU_FSYNR0)),
        (1, FSR_TRANSLATION, FSYNR0_WRITE)
    );
    assert_eq!((&bus).read_long(SMMU_FAR), data + 0x10_0008);
    assert_eq!(translate(&bus, 0x20000, data + 8), Some(0x4008));
    assert_eq!(translate(&bus, 0x20000, data + 0x10_0000), None);
}

#[test]
fn what_is_not_mapped_hangs_until_a_restart() {
    let bus = &Bus::default();
    let mut gpu = bus.powered();
    bus.ring(0, &[&[0x703f_0003, 0x1000, 1, 8][..], &fence(1)].concat());
    gpu.step(NOW);
    assert_eq!((bus.read_word(0x2008), bus.get(CP_RB_RPTR)), (0, 0));
    assert_eq!(
        (bus.faults.get(), (&bus).read_long(SMMU_FAR), bus.get(SMMU_FSYNR0)),
        (1, 1 << 32 | 0x1000, 0)
    );
    bus.set(CP_SQE_CNTL, SQE_RUN);
    bus.ring(0, &fence(2));
    gpu.step(NOW);
    assert_eq!(bus.read_word(0x2008), 2);
}

//! The active device as a driver sees it: requests and acknowledgements in memory, page tables, a group that runs a stream.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use tessera_mali::registers::*;
use tessera_mali::{Gpu, Identity, Interrupts, Line, Memory, Registers, firmware};

const PAGE: u64 = 4096;
/// Physical memory starts here, as on no machine at zero.
const RAM: u64 = 0x4000_0000;
const RAM_LEN: u64 = 2 << 20;

/// A machine: registers, the lines that were raised, memory, and how much of it is given away.
struct Machine {
    registers: RefCell<HashMap<u32, u32>>,
    raised: RefCell<Vec<Line>>,
    memory: Vec<AtomicU64>,
    used: Cell<u64>,
}

impl Registers for &Machine {
    fn read(&self, offset: u32) -> u32 {
        self.registers.borrow().get(&offset).copied().unwrap_or(0)
    }

    fn write(&self, offset: u32, value: u32) {
        self.registers.borrow_mut().insert(offset, value);
    }

    fn take(&self, offset: u32) -> u32 {
        self.registers.borrow_mut().remove(&offset).unwrap_or(0)
    }
}

impl Interrupts for &Machine {
    fn raise(&self, line: Line) {
        self.raised.borrow_mut().push(line);
    }
}

impl Memory for &Machine {
    fn word(&self, physical: u64) -> Option<&AtomicU32> {
        let long: *const AtomicU64 = Memory::long(self, physical & !7)?;
        // SAFETY: half of the number; atomics of both sizes may meet there, and the host is little-endian.
        Some(unsafe { &*long.cast::<AtomicU32>().add(physical as usize / 4 % 2) })
    }

    fn long(&self, physical: u64) -> Option<&AtomicU64> {
        self.memory.get(usize::try_from(physical.checked_sub(RAM)? / 8).ok()?)
    }
}

impl Machine {
    fn new() -> Self {
        let memory = (0..RAM_LEN / 8).map(|_| AtomicU64::new(0)).collect();
        Self { registers: RefCell::default(), raised: RefCell::default(), memory, used: Cell::new(0) }
    }

    /// A page of memory.
    fn page(&self) -> u64 {
        self.used.replace(self.used.get() + PAGE) + RAM
    }

    fn get(&self, physical: u64) -> u64 {
        Memory::long(&self, physical).unwrap().load(Ordering::Relaxed)
    }

    fn put(&self, physical: u64, value: u64) {
        Memory::long(&self, physical).unwrap().store(value, Ordering::Relaxed);
    }

    fn get_word(&self, physical: u64) -> u32 {
        Memory::word(&self, physical).unwrap().load(Ordering::Relaxed)
    }

    fn put_word(&self, physical: u64, value: u32) {
        Memory::word(&self, physical).unwrap().store(value, Ordering::Relaxed);
    }

    /// Maps a page in the table at `root`.
    fn map(&self, root: u64, va: u64, physical: u64) {
        let mut table = root;
        for shift in [39, 30, 21] {
            let entry = table + (va >> shift & 511) * 8;
            if self.get(entry) == 0 {
                self.put(entry, self.page() | 3);
            }
            table = self.get(entry) & !0xfff;
        }
        self.put(table + (va >> 12 & 511) * 8, physical | 3);
    }

    /// Gives the table to an address space.
    fn enable(&self, space: u32, root: u64) {
        let at = AS + space * AS_STRIDE;
        (&self).write(at + AS_TRANSTAB, root as u32);
        (&self).write(at + AS_TRANSCFG, AS_TRANSCFG_ADRMODE_AARCH64_4K);
        (&self).write(at + AS_COMMAND, AS_COMMAND_UPDATE);
    }
}

/// A driver: the MCU has booted, and a group of one stream is in slot 0, in address space 1.
struct Driver<'a> {
    machine: &'a Machine,
    gpu: Gpu<&'a Machine, &'a Machine, &'a Machine>,
    /// Physical addresses of the pages of the shared section.
    shared: Vec<u64>,
    /// Physical address of the page with the ring's input, and behind it its output.
    ring_words: u64,
    /// Physical addresses of the ring and of a page of data.
    ring: u64,
    data: u64,
}

const SHARED: u64 = 0x0400_0000;
const RING_WORDS: u64 = 0x0500_0000;
const SUSPEND: u64 = 0x0600_0000;
const RING: u64 = 0x10_0000;
const DATA: u64 = 0x20_0000;

impl<'a> Driver<'a> {
    fn boot(machine: &'a Machine) -> Self {
        let (own, user) = (machine.page(), machine.page());
        let image = firmware::active();
        let shared: Vec<u64> = (0..16).map(|_| machine.page()).collect();
        // The section's data is the last of the image.
        let section = &image[image.len() - shared.len() * PAGE as usize..];
        for ((page, data), va) in
            shared.iter().zip(section.chunks(PAGE as usize)).zip((SHARED..).step_by(4096))
        {
            machine.map(own, va, *page);
            for (at, long) in (*page..).step_by(8).zip(data.chunks_exact(8)) {
                machine.put(at, u64::from_le_bytes(long.try_into().unwrap()));
            }
        }
        let [ring_words, suspend, more, ring, data] = [(); 5].map(|()| machine.page());
        for (root, va, page) in [
            (own, RING_WORDS, ring_words),
            (own, SUSPEND, suspend),
            (own, SUSPEND + PAGE, more),
            (user, RING, ring),
            (user, DATA, data),
        ] {
            machine.map(root, va, page);
        }
        let gpu = Gpu::new(Identity::G610, machine, machine, Some(machine));
        let mut driver = Self { machine, gpu, shared, ring_words, ring, data };
        machine.enable(0, own);
        machine.enable(1, user);
        (&machine).write(JOB_INT + INT_MASK, !0);
        (&machine).write(MMU_INT + INT_MASK, !0);
        (&machine).write(MCU_CONTROL, 2);
        driver.step();
        assert_eq!((&machine).read(MCU_STATUS), MCU_STATUS_ENABLED);
        assert_eq!(driver.interrupts(), 1 << 31, "it has booted");
        driver
    }

    fn step(&mut self) {
        self.gpu.step(Duration::ZERO);
    }

    /// Takes and clears the job interrupts.
    fn interrupts(&mut self) -> u32 {
        let raw = (&self.machine).read(JOB_INT + INT_RAWSTAT);
        (&self.machine).write(JOB_INT + INT_CLEAR, raw);
        self.step();
        raw
    }

    fn at(&self, offset: u64) -> u64 {
        self.shared[(offset / PAGE) as usize] + offset % PAGE
    }

    fn read(&self, offset: u64) -> u32 {
        self.machine.get_word(self.at(offset))
    }

    fn write(&self, offset: u64, value: u32) {
        self.machine.put_word(self.at(offset), value);
    }

    /// Where the interface whose control is at an offset has its two sides.
    fn sides(&self, control: u64) -> (u64, u64) {
        let side = |n| u64::from(self.read(control + n)) - SHARED;
        (side(4), side(8))
    }

    /// Asks for a state of the group, and for its streams to look at their rings.
    fn request(&mut self, state: u32) {
        let ((global, _), (group, ack)) = (self.sides(4), self.sides(0x1000));
        self.write(group, state);
        self.write(global + 8, self.read(global + 8) ^ 1);
        (&self.machine).write(DOORBELL, 1);
        self.step();
        assert_eq!(self.read(ack) & 7, state, "acknowledged");
    }

    /// Starts the group with the stream's ring, whose doorbell is the second.
    fn start(&mut self, state: u32) {
        let ((stream, _), (group, _)) = (self.sides(0x1040), self.sides(0x1000));
        let words = [
            (0x0, 1),
            (0x4, 1 << 8),
            (0x10, RING),
            (0x18, PAGE),
            (0x30, RING_WORDS),
            (0x38, RING_WORDS + 16),
        ];
        for (offset, value) in words {
            self.write(stream + offset, value as u32);
        }
        self.write(group + 0x40, SUSPEND as u32);
        self.write(group + 0x50, 1);
        // It goes on where it was.
        self.machine.put(self.ring_words + 8, self.machine.get(self.ring_words + 16));
        self.request(state);
    }

    /// Puts instructions into the ring, and rings.
    fn submit(&mut self, instructions: &[u64]) {
        let insert = self.machine.get(self.ring_words);
        for (at, instruction) in (self.ring + insert..).step_by(8).zip(instructions) {
            self.machine.put(at, *instruction);
        }
        self.machine.put(self.ring_words, insert + instructions.len() as u64 * 8);
        (&self.machine).write(DOORBELL + DOORBELL_STRIDE, 1);
        self.step();
    }
}

/// r0 = address, r2 = value, and an instruction on the two.
fn with(va: u64, value: u64, instruction: u64) -> [u64; 3] {
    [1 << 56 | va, 1 << 56 | 2 << 48 | value, instruction | 2 << 32]
}

const ADD64: u64 = 51 << 56;
const WAIT_GREATER: u64 = 53 << 56 | 1 << 28;

#[test]
fn requests_are_acknowledged() {
    let machine = &Machine::new();
    let mut driver = Driver::boot(machine);
    let (input, output) = driver.sides(4);
    driver.write(input + 4, 1 << 8);
    driver.write(input, 1 << 8);
    (&machine).write(DOORBELL, 1);
    driver.step();
    assert_eq!((driver.read(output), driver.interrupts()), (1 << 8, 1 << 31), "a ping");
    (&machine).write(INJECT, INJECT_MCU_HANG);
    driver.write(input, 0);
    (&machine).write(DOORBELL, 1);
    driver.step();
    assert_eq!(driver.read(output), 1 << 8, "it hangs");
}

#[test]
fn a_stream_waits_is_suspended_and_goes_on() {
    let machine = &Machine::new();
    let mut driver = Driver::boot(machine);
    driver.start(1);
    let first = with(DATA, 5, ADD64);
    driver.submit(&[&first[..], &with(DATA + 64, 0, WAIT_GREATER), &with(DATA, 1, ADD64)].concat());
    assert_eq!((machine.get(driver.data), machine.get(driver.ring_words + 16)), (5, 5 * 8), "at the wait");
    assert_eq!(driver.interrupts() & 1, 1, "a counter has changed");
    driver.request(2);
    let (_, status) = driver.sides(0x1040);
    assert_eq!(
        (driver.read(status + 0x60), driver.read(status + 0x50)),
        (3, DATA as u32 + 64),
        "why it waits"
    );
    machine.put(driver.data + 64, 1);
    driver.start(3);
    assert_eq!((machine.get(driver.data), machine.get(driver.ring_words + 16)), (6, 9 * 8), "to the end");
}

/// However late the driver looks, it hears of what changed before it hears that there is nothing more to do.
#[test]
fn idle_comes_after_what_was_seen() {
    const SYNC_UPDATE: u32 = 1 << 28;
    const IDLE: u32 = 1 << 29;
    let machine = &Machine::new();
    let mut driver = Driver::boot(machine);
    driver.start(1);
    let (input, output) = driver.sides(0x1000);
    let events = |driver: &Driver| (driver.read(input) ^ driver.read(output)) & (SYNC_UPDATE | IDLE);
    driver.submit(&with(DATA, 5, ADD64));
    assert_eq!(events(&driver), SYNC_UPDATE);
    driver.gpu.step(Duration::from_millis(10));
    assert_eq!(events(&driver), SYNC_UPDATE, "the driver has not looked yet");
    driver.write(input, driver.read(input) ^ SYNC_UPDATE);
    driver.gpu.step(Duration::from_micros(10_500));
    assert_eq!(events(&driver), 0, "too early");
    driver.gpu.step(Duration::from_millis(11));
    assert_eq!(events(&driver), IDLE);
}

#[test]
fn what_is_not_mapped_faults() {
    let machine = &Machine::new();
    let mut driver = Driver::boot(machine);
    driver.start(1);
    driver.submit(&with(DATA + PAGE, 1, ADD64));
    let space = AS + AS_STRIDE;
    assert_eq!((&machine).read(MMU_INT + INT_STAT), 1 << 1);
    assert_eq!((&machine).read(space + AS_FAULTSTATUS), AS_FAULTSTATUS_WRITE | 0xc3);
    assert_eq!((&machine).read(space + AS_FAULTADDRESS), (DATA + PAGE) as u32);
    let (_, stream) = driver.sides(0x1040);
    assert_eq!((driver.read(stream + 0x84), driver.read(stream) >> 30 & 1), (0x48, 1), "a fatal bus fault");
    driver.submit(&with(DATA, 1, ADD64));
    assert_eq!(machine.get(driver.data), 0, "nothing runs any more");
    assert!(machine.raised.borrow().contains(&Line::Mmu));
}

//! The device as a driver sees it: registers that are written and polled.

use core::sync::atomic::{AtomicU32, AtomicU64};
use core::time::Duration;
use std::cell::RefCell;
use std::collections::HashMap;

use tessera_mali::registers::*;
use tessera_mali::{Gpu, Identity, Interrupts, Line, Memory, Registers};

/// A register file, and the interrupts that came.
#[derive(Default)]
struct Bus {
    words: RefCell<HashMap<u32, u32>>,
    raised: RefCell<Vec<Line>>,
}

impl Registers for &Bus {
    fn read(&self, offset: u32) -> u32 {
        self.words.borrow().get(&offset).copied().unwrap_or(0)
    }

    fn write(&self, offset: u32, value: u32) {
        self.words.borrow_mut().insert(offset, value);
    }

    fn take(&self, offset: u32) -> u32 {
        self.words.borrow_mut().remove(&offset).unwrap_or(0)
    }
}

impl Interrupts for &Bus {
    fn raise(&self, line: Line) {
        self.raised.borrow_mut().push(line);
    }
}

impl Bus {
    fn raised(&self) -> Vec<Line> {
        self.raised.take()
    }
}

const NOW: Duration = Duration::ZERO;

/// There is no memory.
enum Nothing {}

impl Memory for Nothing {
    fn word(&self, _: u64) -> Option<&AtomicU32> {
        match *self {}
    }

    fn long(&self, _: u64) -> Option<&AtomicU64> {
        match *self {}
    }
}

fn device(bus: &Bus) -> Gpu<&Bus, &Bus, Nothing> {
    Gpu::new(Identity::G610, bus, bus, None)
}

#[test]
fn it_says_who_it_is() {
    let bus = &Bus::default();
    let mut gpu = device(bus);
    assert_eq!((bus.read(GPU_ID) >> 28, bus.read(MMU_FEATURES), bus.read(AS_PRESENT)), (10, 0x2830, 0xff));
    assert_eq!(Identity::G610.firmware_dir(), "arch10.8");
    assert!(!gpu.step(NOW), "nothing was asked");
}

#[test]
fn a_reset_interrupts_when_it_may() {
    let bus = &Bus::default();
    let mut gpu = device(bus);
    bus.write(GPU_CMD, GPU_CMD_RESET | 1 << 8);
    assert!(gpu.step(NOW));
    assert_eq!(bus.read(GPU_INT + INT_RAWSTAT), GPU_IRQ_RESET_COMPLETED);
    assert_eq!((bus.read(GPU_INT + INT_STAT), bus.raised()), (0, vec![]), "masked");
    bus.write(GPU_INT + INT_MASK, !0);
    gpu.step(NOW);
    assert_eq!((bus.read(GPU_INT + INT_STAT), bus.raised()), (GPU_IRQ_RESET_COMPLETED, vec![Line::Gpu]));
    gpu.step(NOW);
    assert_eq!(bus.raised(), [], "one edge");
    gpu.step(Duration::from_millis(3));
    assert_eq!(bus.raised(), [Line::Gpu], "again while it is pending");
    bus.write(GPU_INT + INT_CLEAR, GPU_IRQ_RESET_COMPLETED);
    gpu.step(Duration::from_millis(9));
    assert_eq!((bus.read(GPU_INT + INT_RAWSTAT), bus.raised()), (0, vec![]));
}

/// The driver clears the last flush's interrupt, and asks for the next: the device may see both at once.
#[test]
fn a_clear_does_not_take_the_answer_to_what_came_after_it() {
    let bus = &Bus::default();
    let mut gpu = device(bus);
    bus.write(GPU_INT + INT_CLEAR, GPU_IRQ_CLEAN_CACHES_COMPLETED);
    bus.write(GPU_CMD, GPU_CMD_FLUSH_CACHES);
    gpu.step(NOW);
    assert_eq!(bus.read(GPU_INT + INT_RAWSTAT), GPU_IRQ_CLEAN_CACHES_COMPLETED);
}

#[test]
fn the_mcu_boots_halts_and_goes_off() {
    let bus = &Bus::default();
    let mut gpu = device(bus);
    bus.write(JOB_INT + INT_MASK, !0);
    bus.write(DOORBELL, 1);
    gpu.step(NOW);
    assert_eq!(bus.read(MCU_STATUS), MCU_STATUS_DISABLED, "it does not hear a bell while it is off");
    bus.write(DOORBELL, 1);
    bus.write(MCU_CONTROL, 2);
    gpu.step(NOW);
    assert_eq!((bus.read(MCU_STATUS), bus.raised()), (MCU_STATUS_ENABLED, vec![Line::Job]));
    assert_eq!(bus.read(JOB_INT + INT_STAT), JOB_INT_GLOBAL_IF);
    bus.write(DOORBELL, 1);
    gpu.step(NOW);
    assert_eq!((bus.read(MCU_STATUS), gpu.counters().doorbells), (MCU_STATUS_HALT, 1));
    bus.write(MCU_CONTROL, 0);
    gpu.step(NOW);
    assert_eq!(bus.read(MCU_STATUS), MCU_STATUS_DISABLED);
}

#[test]
fn a_reset_switches_everything_off() {
    let bus = &Bus::default();
    let mut gpu = device(bus);
    let l2 = &POWER_DOMAINS[2];
    bus.write(l2.on, 1);
    bus.write(MCU_CONTROL, 2);
    bus.write(AS, 0x1000);
    gpu.step(NOW);
    assert_eq!((bus.read(l2.ready), bus.read(MCU_STATUS)), (1, MCU_STATUS_ENABLED));
    bus.write(GPU_CMD, GPU_CMD_RESET | 1 << 8);
    gpu.step(NOW);
    assert_eq!((bus.read(l2.ready), bus.read(MCU_CONTROL), bus.read(AS)), (0, 0, 0));
    assert_eq!((bus.read(MCU_STATUS), bus.read(JOB_INT + INT_RAWSTAT)), (MCU_STATUS_DISABLED, 0));
    gpu.step(NOW);
    assert_eq!(bus.read(MCU_STATUS), MCU_STATUS_DISABLED, "it stays off");
}

#[test]
fn address_spaces_take_commands_at_once() {
    let bus = &Bus::default();
    let mut gpu = device(bus);
    for (space, command) in [(0, AS_COMMAND_UPDATE), (7, AS_COMMAND_LOCK), (7, AS_COMMAND_UNLOCK)] {
        bus.write(AS + space * AS_STRIDE + AS_COMMAND, command);
        assert!(gpu.step(NOW));
        assert_eq!(bus.read(AS + space * AS_STRIDE + AS_COMMAND), 0);
    }
    assert_eq!((gpu.counters().as_updates, gpu.counters().as_locks), (1, 1));
}

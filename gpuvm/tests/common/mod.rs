//! The bind patterns that tests and benchmarks share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use gpuvm::{Target, VaRange, Vm};

/// Bytes of one slot.
pub const SLOT: u64 = 64 << 10;

/// Sebastiano Vigna's splitmix64.
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Fisher-Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() % (i as u64 + 1)) as usize);
        }
    }
}

pub fn range(start: u64, len: u64) -> VaRange {
    VaRange::new(start, len).unwrap()
}

/// A VM of `64 * count` slots.
pub fn vm(count: u64) -> Vm<u32> {
    Vm::new(range(0, 64 * count * SLOT), None).unwrap()
}

pub fn map(vm: &mut Vm<u32>, slot: u64, object: u32, offset: u64) {
    vm.sm_map(range(slot * SLOT, SLOT), Target::Object { object, offset }, &mut |step| {
        std::hint::black_box(&step);
    })
    .unwrap();
}

/// `count` maps, each behind the one before it.
pub fn seq(vm: &mut Vm<u32>, count: u64) {
    for slot in 0..count {
        map(vm, slot, 1, slot * SLOT);
    }
}

/// `count` maps anywhere.
pub fn random(vm: &mut Vm<u32>, count: u64) {
    let mut rng = SplitMix64(1);
    for _ in 0..count {
        let slot = rng.next() % (64 * count);
        let offset = (rng.next() % (1 << 20)) * SLOT;
        map(vm, slot, 1, offset);
    }
}

/// `count` maps of the same range to two objects in turn. Each time one `vm_bo` is made and one dies and is freed.
pub fn rebind(vm: &mut Vm<u32>, count: u64) {
    for i in 0..count {
        map(vm, 7, (i % 2) as u32, 0);
        vm.deferred_cleanup();
    }
}

/// One mapping of everything, in which `count` maps punch holes.
pub fn split(vm: &mut Vm<u32>, count: u64) {
    let mut rng = SplitMix64(1);
    vm.sm_map(vm.range(), Target::Object { object: 1, offset: 0 }, &mut |_| {}).unwrap();
    for _ in 0..count {
        let slot = 1 + rng.next() % (64 * count - 2);
        let offset = (rng.next() % (1 << 20)) * SLOT;
        map(vm, slot, 2, offset);
    }
}

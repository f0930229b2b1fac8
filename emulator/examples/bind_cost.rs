//! What VM_BIND on the emulated panthor costs beyond the mmap calls that it cannot avoid: 8192 scattered binds of 64 KiB.
//!
//! `cargo run --release -p tessera-emulator --example bind_cost`

extern crate tessera_emulator as emulator;

use core::ffi::c_void;
use core::ptr::null_mut;

use emulator::Config;
use kmd::panthor::{BoOptions, PanthorVm, create_bo};
use kmd::{BindOp, BindTarget, Node, Vm};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use rustix::time::{ClockId, clock_gettime};

const TILES: u64 = 8192;
const TILE: u64 = 64 << 10;
const ROUNDS: usize = 15;

/// A fixed shuffle of the tiles (xorshift, Fisher-Yates).
fn shuffle(seed: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..TILES).collect();
    let mut x = seed;
    for i in (1..order.len()).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        order.swap(i, (x % (i as u64 + 1)) as usize);
    }
    order
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// CPU time of this thread in microseconds, kernel included: other programs on the machine do not count.
fn now() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

fn reserve() -> u64 {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping.
    let at = unsafe { mmap_anonymous(null_mut(), (TILES * TILE) as usize, ProtFlags::empty(), flags) };
    at.expect("address space").addr() as u64
}

fn main() {
    let (to, from) = ([shuffle(1), shuffle(2)], [shuffle(3), shuffle(4)]);
    let node = emulator::Node::panthor(Config::default()).expect("a device");
    let vm = PanthorVm::create(node.clone()).expect("a VM");
    let dynamic: std::sync::Arc<dyn Node> = node.clone();
    let options = BoOptions { flags: 0, exclusive_vm_id: Some(vm.id()) };
    let bo = create_bo(dynamic, TILES * TILE, options).expect("an object");
    let (ours, bare) = (reserve(), reserve());
    node.add_window(ours..ours + TILES * TILE).expect("a window");
    let table_only =
        emulator::Node::panthor(Config { execute: false, ..Config::default() }).expect("a device");
    let table_vm = PanthorVm::create(table_only.clone()).expect("a VM");
    let options = BoOptions { flags: 0, exclusive_vm_id: Some(table_vm.id()) };
    let table_bo = create_bo(table_only, TILES * TILE, options).expect("an object");
    assert_eq!(table_bo.handle(), bo.handle(), "both are the first object of their file");
    let fd = rustix::fs::memfd_create("bare", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    rustix::fs::ftruncate(&fd, TILES * TILE).expect("its size");

    let blank = |base: u64, prot| {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: over the program's own reservation.
        unsafe { mmap_anonymous(base as *mut c_void, (TILES * TILE) as usize, prot, flags).expect("blank") };
    };
    let mut rows: [Vec<f64>; 6] = Default::default();
    for round in 0..ROUNDS {
        // Two patterns in turn, so that no bind is already there.
        let (to, from) = (&to[round % 2], &from[round % 2]);
        let timed = |row: &mut Vec<f64>, run: &mut dyn FnMut()| {
            let start = now();
            run();
            row.push(now() - start);
        };
        timed(&mut rows[0], &mut || {
            for (to, from) in to.iter().zip(from) {
                let (at, flags) = ((bare + to * TILE) as *mut c_void, MapFlags::SHARED | MapFlags::FIXED);
                let prot = ProtFlags::READ | ProtFlags::WRITE;
                // SAFETY: over the program's own reservation.
                unsafe { mmap(at, TILE as usize, prot, flags, &fd, from * TILE).expect("mmap") };
            }
        });
        // Gone before the next row, so that both rows meet the same number of mappings in the process.
        timed(&mut rows[3], &mut || blank(bare, ProtFlags::READ | ProtFlags::WRITE));
        let ops: Vec<BindOp> = to
            .iter()
            .zip(from)
            .map(|(to, from)| {
                let target = BindTarget::Map { bo: bo.handle(), offset: from * TILE };
                BindOp { va: ours + to * TILE, len: TILE, target }
            })
            .collect();
        timed(&mut rows[1], &mut || vm.bind(&ops).expect("bind"));
        timed(&mut rows[2], &mut || ops.iter().for_each(|op| vm.bind(&[*op]).expect("bind")));
        timed(&mut rows[5], &mut || table_vm.bind(&ops).expect("bind"));
        let all = BindOp { va: ours, len: TILES * TILE, target: BindTarget::Null };
        timed(&mut rows[4], &mut || vm.bind(&[all]).expect("unbind"));
    }
    let [bare_map, batch, single, bare_unbind, unbind, table] = rows.map(median);
    let per = |time: f64| time / TILES as f64;
    println!("{TILES} scattered binds of 64 KiB, medians of {ROUNDS} rounds, us of CPU time (a bind)");
    println!("mmap alone              {bare_map:10.0} ({:.3})", per(bare_map));
    println!("1024 operations a call  {batch:10.0} ({:.3})  {:.3} x", per(batch), batch / bare_map);
    println!("one operation a call    {single:10.0} ({:.3})  {:.3} x", per(single), single / bare_map);
    println!("page table alone        {table:10.0} ({:.3})  {:.3} x", per(table), table / bare_map);
    println!("all unbound, mmap alone {bare_unbind:10.0}");
    println!("all unbound, one call   {unbind:10.0}           {:.3} x", unbind / bare_unbind);
}

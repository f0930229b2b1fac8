//! What msm's page tables map, read past the driver: from the SMMU's registers on through physical memory.
//!
//! The kernel has no list of the mappings of msm's VMs that a program could read. But the GPU is told which tables to use when
//! work of a VM is to run; and the emulated SMMU's registers are memory, as those of a real one would be.

use std::fs::File;
use std::io;
use std::sync::Mutex;

use adreno::page_table::{self, Leaf, PAGE};
use adreno::registers::{SMMU_PRR_ADDRESS, SMMU_TTBR0, part};
use kmd::uapi::msm::{GemSubmit, PIPE_3D0, Timespec, WaitFence};
use kmd::{Node, Request};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use wire::map;

use crate::kcore::Kcore;

/// Bits of a TTBR that are not the address: the ASID above, the bit for common tables below.
const ROOT: u64 = 0x0000_ffff_ffff_f000;

/// The SMMU's registers and the machine's memory.
pub struct Smmu {
    memory: Kcore,
    registers: &'static [u32],
}

impl Smmu {
    /// Root may look, if the kernel was started with `iomem=relaxed`.
    pub fn open() -> io::Result<Self> {
        let mem = File::open("/dev/mem")?;
        let len = part::SMMU.len();
        let at = map::GPU_REGISTERS.start + u64::from(part::SMMU.start);
        // SAFETY: a new mapping where the kernel likes, which is only read.
        let start = unsafe { mmap(core::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, &mem, at)? };
        // SAFETY: `len` bytes, page-aligned, never unmapped; only read as volatile words.
        let registers = unsafe { core::slice::from_raw_parts(start.cast(), len / 4) };
        Ok(Self { memory: Kcore::open()?, registers })
    }

    fn register(&self, offset: u32) -> u64 {
        let word = |offset: u32| {
            let word = &raw const self.registers[offset as usize / 4];
            // SAFETY: a reference is a valid pointer; others write the word.
            u64::from(unsafe { word.read_volatile() })
        };
        word(offset) | word(offset + 4) << 32
    }

    /// The root of the page tables of `node`'s VM: that of the open file whose work was the last to run on the GPU. So some
    /// work is given to it here; see [`run_nothing`].
    pub fn root(&self, node: &dyn Node) -> io::Result<u64> {
        // Not while another thread does the same.
        static LAST: Mutex<()> = Mutex::new(());
        let _last = LAST.lock();
        run_nothing(node)?;
        Ok(self.register(SMMU_TTBR0) & ROOT)
    }

    /// The physical address of the page that null mappings map.
    pub fn null_page(&self) -> u64 {
        self.register(SMMU_PRR_ADDRESS)
    }

    /// All that the tables at `root` map.
    pub fn leaves(&self, root: u64) -> io::Result<Vec<Leaf>> {
        page_table::leaves(root, &mut |address| {
            let mut table = [0; PAGE as usize];
            self.memory.read(address, &mut table).map(|()| table)
        })
    }

    /// The memory that the tables are in, and what they map.
    pub fn memory(&self) -> &Kcore {
        &self.memory
    }
}

/// Submits to queue 0 without any command stream, and waits for the end of that. EPIPE: the VM is unusable.
pub fn run_nothing(node: &dyn Node) -> io::Result<()> {
    let mut submit = GemSubmit { flags: PIPE_3D0, ..Default::default() };
    ioctl(node, &mut submit)?;
    let timeout = Timespec { tv_sec: i64::from(u32::MAX), tv_nsec: 0 };
    ioctl(node, &mut WaitFence { fence: submit.fence, timeout, ..Default::default() })
}

fn ioctl<R: Request>(node: &dyn Node, arg: &mut R) -> io::Result<()> {
    // SAFETY: the arguments above hold no pointers.
    unsafe { kmd::call(node, arg) }.map_err(io::Error::from)
}

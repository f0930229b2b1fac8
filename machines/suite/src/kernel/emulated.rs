//! The emulated kernel.

use std::sync::{Arc, OnceLock};

use emulator::{Config, Gpu, SwFence};
use kmd::Node;
use oracle::smmu::run_nothing;
use rustix::fd::OwnedFd;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::{Kernel, Mapping};
use crate::script::WINDOW;

/// Room for markers behind the window.
const LEN: u64 = WINDOW.end - WINDOW.start + (16 << 20);

/// An open file of an emulated device.
pub struct Emulated {
    node: Arc<emulator::Node>,
    held: Vec<SwFence>,
}

impl Emulated {
    /// A new panthor; see [`Self::on`].
    pub fn panthor(config: Config) -> Self {
        Self::on(emulator::Node::panthor(config).expect("an emulated device"))
    }

    /// A new msm with the GPU that machines have; see [`Self::on`].
    pub fn msm(config: Config) -> Self {
        // Not fused to any speed; the clock of the device tree.
        let gpu = Gpu { chip_id: 0xffff << 32 | Gpu::A702.chip_id, max_freq: 500_000_000, ..Gpu::A702 };
        Self::on(emulator::Node::msm(gpu, config).expect("an emulated device"))
    }

    /// The device behind `node` may bind [`WINDOW`] of this process.
    ///
    /// Panics where the process has no such range: nothing can be compared then.
    fn on(node: Arc<emulator::Node>) -> Self {
        // The window is the same for all: it is reserved once, and every device is gone before the next.
        static RESERVED: OnceLock<()> = OnceLock::new();
        RESERVED.get_or_init(|| {
            let at = core::ptr::with_exposed_provenance_mut(WINDOW.start as usize);
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
            // SAFETY: replaces nothing.
            unsafe { mmap_anonymous(at, LEN as usize, ProtFlags::empty(), flags) }.expect("a free window");
        });
        node.add_window(WINDOW.start..WINDOW.start + LEN).expect("a window");
        Self { node, held: Vec::new() }
    }
}

impl Kernel for Emulated {
    fn node(&self) -> &dyn Node {
        &*self.node
    }

    fn hold(&mut self) -> OwnedFd {
        let fence = SwFence::new();
        let file = fence.sync_file().expect("a sync file");
        self.held.push(fence);
        file
    }

    fn release(&mut self) {
        for fence in self.held.drain(..) {
            fence.signal();
        }
    }

    /// The real one does it too, to find the VM's page tables.
    fn locate(&mut self) {
        run_nothing(&*self.node).expect("a VM that is fine");
    }

    /// An object's name is its handle; zero where that was closed.
    fn mappings(&self, vm: u32, marker: u64) -> Vec<Mapping> {
        let below = self.node.mappings(vm).into_iter().filter(|run| run.va < marker);
        // The marker may continue a sparse range.
        below
            .map(|run| Mapping {
                va: run.va,
                len: run.len.min(marker - run.va),
                object: run.bo.map(|(handle, offset)| (handle.0.into(), offset)),
            })
            .collect()
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        self.release();
    }
}

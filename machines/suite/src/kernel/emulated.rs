//! The emulated kernel.

use std::sync::{Arc, OnceLock};

use emulator::{Config, SwFence};
use kmd::Node;
use rustix::fd::OwnedFd;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::{Kernel, Mapping};
use crate::script::WINDOW;

/// Room for markers behind the window.
const LEN: u64 = WINDOW.end - WINDOW.start + (16 << 20);

/// An open file of an emulated panthor.
pub struct Emulated {
    node: Arc<emulator::Node>,
    held: Vec<SwFence>,
}

impl Emulated {
    /// A new device, opened, which may bind [`WINDOW`] of this process.
    ///
    /// Panics where the process has no such device or range: nothing can be compared then.
    pub fn open(config: Config) -> Self {
        // The window is the same for all: it is reserved once, and every device is gone before the next.
        static RESERVED: OnceLock<()> = OnceLock::new();
        RESERVED.get_or_init(|| {
            let at = core::ptr::with_exposed_provenance_mut(WINDOW.start as usize);
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
            // SAFETY: replaces nothing.
            unsafe { mmap_anonymous(at, LEN as usize, ProtFlags::empty(), flags) }.expect("a free window");
        });
        let node = emulator::Node::panthor(config).expect("an emulated device");
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

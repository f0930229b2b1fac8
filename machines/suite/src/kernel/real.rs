//! The running kernel.

use kmd::{Node, RenderNode, gpuvas};
use rustix::fd::OwnedFd;

use super::{Kernel, Mapping};
use crate::gate::Gate;

/// Fences that are held back. Dropped, they are signalled: a queue that waits must not outlive its file.
#[derive(Default)]
pub struct Held(Vec<Gate>);

impl Held {
    /// A sync file of one more.
    pub fn hold(&mut self) -> OwnedFd {
        let gate = Gate::new().expect("vgem makes fences");
        let file = gate.sync_file().try_clone_to_owned().expect("one more descriptor");
        self.0.push(gate);
        file
    }

    /// Signals all of them.
    pub fn release(&mut self) {
        for gate in self.0.drain(..) {
            gate.open().expect("vgem signals its fences");
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// An open file of the running kernel's panthor.
pub struct RealPanthor {
    // Dropped first.
    held: Held,
    node: RenderNode,
}

impl RealPanthor {
    /// Opens it. Panics where there is none: nothing can be compared then.
    pub fn open() -> Self {
        Self { held: Held::default(), node: RenderNode::find("panthor").expect("a panthor device") }
    }
}

impl Kernel for RealPanthor {
    fn node(&self) -> &dyn Node {
        &self.node
    }

    fn hold(&mut self) -> OwnedFd {
        self.held.hold()
    }

    fn release(&mut self) {
        self.held.release();
    }

    /// An object's name is its address in the kernel.
    fn mappings(&self, _: u32, marker: u64) -> Vec<Mapping> {
        let vms = gpuvas::read().expect("debugfs tells what is mapped");
        let has_marker = |vm: &Vec<gpuvas::Mapping>| vm.iter().any(|mapping| mapping.va == marker);
        let vm = vms.into_iter().find(has_marker).expect("a VM with the marker");
        let sparse = vm.iter().find(|mapping| mapping.va == marker).expect("looked for above").object;
        // A queued map of no size leaves a mapping of no size in the kernel's list, in no page table and in nobody's way.
        let below = vm.into_iter().filter(|mapping| mapping.va < marker && mapping.len != 0);
        let content = |m: &gpuvas::Mapping| (m.object != sparse).then_some((m.object, m.offset));
        below.map(|m| Mapping { va: m.va, len: m.len, object: content(&m) }).collect()
    }
}

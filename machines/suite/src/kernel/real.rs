//! The running kernel.

use kmd::{Node, RenderNode, gpuvas};
use rustix::fd::OwnedFd;

use super::{Kernel, Mapping};
use crate::gate::Gate;

/// An open file of the running kernel's panthor.
pub struct Real {
    node: RenderNode,
    held: Vec<Gate>,
}

impl Real {
    /// Opens it. Panics where there is none: nothing can be compared then.
    pub fn open() -> Self {
        Self { node: RenderNode::find("panthor").expect("a panthor device"), held: Vec::new() }
    }
}

impl Kernel for Real {
    fn node(&self) -> &dyn Node {
        &self.node
    }

    fn hold(&mut self) -> OwnedFd {
        let gate = Gate::new().expect("vgem makes fences");
        let file = gate.sync_file().try_clone_to_owned().expect("one more descriptor");
        self.held.push(gate);
        file
    }

    fn release(&mut self) {
        for gate in self.held.drain(..) {
            gate.open().expect("vgem signals its fences");
        }
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

impl Drop for Real {
    fn drop(&mut self) {
        // A queue that waits would keep the file's VMs alive until vgem's patience ends.
        self.release();
    }
}

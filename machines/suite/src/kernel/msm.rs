//! The running kernel's msm.

use std::cell::RefCell;
use std::collections::HashMap;

use kmd::msm::mmap_offset;
use kmd::{GemHandle, Node, RenderNode};
use oracle::mark::mark;
use oracle::smmu::Smmu;
use rustix::fd::OwnedFd;
use rustix::mm::munmap;

use super::{Held, Kernel, Mapping};

/// An open file of the running kernel's msm, and the page tables of its VM.
pub struct RealMsm {
    // Dropped first.
    held: Held,
    node: RenderNode,
    smmu: Smmu,
    root: Option<u64>,
    /// The name of the object that was made last.
    name: u32,
    /// What is in a page, by its physical address: a page becomes another object's only when that is made.
    marks: RefCell<HashMap<u64, (u32, u64)>>,
}

impl RealMsm {
    /// Opens it. Panics where there is none, or nothing to be seen of it: nothing can be compared then.
    pub fn open() -> Self {
        Self {
            held: Held::default(),
            node: RenderNode::find("msm").expect("an msm device"),
            smmu: Smmu::open().expect("registers and memory, for root to read"),
            root: None,
            name: 0,
            marks: RefCell::default(),
        }
    }
}

impl Kernel for RealMsm {
    fn node(&self) -> &dyn Node {
        &self.node
    }

    fn hold(&mut self) -> OwnedFd {
        self.held.hold()
    }

    fn release(&mut self) {
        self.held.release();
    }

    fn made(&mut self, handle: u32, len: u64) {
        self.name += 1;
        self.marks.get_mut().clear();
        let offset = mmap_offset(&self.node, GemHandle(handle)).expect("an object that the CPU can map");
        // SAFETY: a new mapping, all of which is the object, and nobody uses that yet. It goes with its only user.
        unsafe {
            let start = self.node.mmap(offset, len as usize).expect("room for a mapping");
            mark(start, len, self.name);
            munmap(start.cast(), len as usize).expect("just mapped");
        }
    }

    fn locate(&mut self) {
        self.root = Some(self.smmu.root(&self.node).expect("a VM that is fine"));
    }

    /// An object's name is what its pages were marked with.
    fn mappings(&self, _: u32, marker: u64) -> Vec<Mapping> {
        let Some(root) = self.root else { return Vec::new() };
        let (null, mut marks) = (self.smmu.null_page(), self.marks.borrow_mut());
        let leaves = self.smmu.leaves(root).expect("page tables in memory");
        let mut object = |address| {
            let known = marks.entry(address);
            let (name, offset) = known.or_insert_with(|| {
                let mark = self.smmu.memory().marked(address).expect("a page in memory");
                mark.expect("a page of an object")
            });
            (u64::from(*name), *offset)
        };
        let below = leaves.into_iter().filter(|leaf| leaf.va < marker);
        below
            .map(|leaf| Mapping {
                va: leaf.va,
                len: leaf.len,
                object: (leaf.address != null).then(|| object(leaf.address)),
            })
            .collect()
    }
}

//! What the tests share: a VM and its objects.

use std::sync::Arc;

use kmd::msm::{BoOptions, MsmVm, create_bo};
use kmd::{BindOp, BindTarget, BufferObject, GemHandle, Node, Refused, RenderNode, Vm};

pub const PAGE: u64 = 4096;

/// Where tests map.
pub const BASE: u64 = 0x10_0000_0000;

pub struct Rig {
    pub node: Arc<dyn Node>,
    pub vm: MsmVm,
}

pub fn open() -> Arc<dyn Node> {
    Arc::new(RenderNode::find("msm").expect("an msm device"))
}

impl Rig {
    pub fn new() -> Self {
        let node = open();
        let vm = MsmVm::create(node.clone()).unwrap();
        Self { node, vm }
    }

    pub fn bo(&self, size: u64) -> BufferObject {
        create_bo(self.node.clone(), size, BoOptions::default()).unwrap()
    }

    pub fn map(&self, bo: &BufferObject, offset: u64, va: u64, len: u64) -> Result<(), Refused> {
        self.vm.bind(&[map(va, len, bo.handle(), offset)])
    }

    pub fn null(&self, va: u64, len: u64) -> Result<(), Refused> {
        self.vm.bind(&[null(va, len)])
    }

    pub fn unmap(&self, va: u64, len: u64) -> Result<(), Refused> {
        self.vm.bind(&[unmap(va, len)])
    }
}

/// A map at `va` bytes from [`BASE`] on; likewise the two below.
pub fn map(va: u64, len: u64, bo: GemHandle, offset: u64) -> BindOp {
    BindOp { va: BASE + va, len, target: BindTarget::Map { bo, offset } }
}

pub fn null(va: u64, len: u64) -> BindOp {
    BindOp { va: BASE + va, len, target: BindTarget::Null }
}

pub fn unmap(va: u64, len: u64) -> BindOp {
    BindOp { va: BASE + va, len, target: BindTarget::Unmap }
}

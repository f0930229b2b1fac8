//! What the tests share: a node with a VM and a window, raw VM_BIND, and looks at memory that do not crash.

use std::sync::Arc;

use emulator::{Config, Unbound};
use kmd::panthor::{BoOptions, PanthorVm, create_bo};
use kmd::uapi::panthor::*;
use kmd::{BindOp, BindTarget, BufferObject, Errno, GemHandle, Node, Vm};

pub(crate) use crate::common::*;

/// A node, a VM, and a window at `base`.
pub(crate) struct Rig {
    pub(crate) vm: PanthorVm,
    pub(crate) node: Arc<emulator::Node>,
    pub(crate) window: Reservation,
    pub(crate) base: u64,
}

impl Rig {
    pub(crate) fn new(len: u64) -> Self {
        Self::with(len, Config::default())
    }

    pub(crate) fn trap(len: u64) -> Self {
        Self::with(len, Config { unbound: Unbound::Trap, ..Config::default() })
    }

    pub(crate) fn with(len: u64, config: Config) -> Self {
        let node = emulator::Node::panthor(config).unwrap();
        let vm = PanthorVm::create(node.clone()).unwrap();
        let window = Reservation::new(len);
        node.add_window(window.range()).unwrap();
        let base = window.start;
        Self { vm, node, window, base }
    }

    pub(crate) fn dyn_node(&self) -> Arc<dyn Node> {
        self.node.clone()
    }

    /// An object of this VM alone, every page of which starts with `tag` + its number.
    pub(crate) fn bo(&self, size: u64, tag: u64) -> BufferObject {
        let options = BoOptions { flags: 0, exclusive_vm_id: Some(self.vm.id()) };
        let bo = create_bo(self.dyn_node(), size, options).unwrap();
        fill(&bo, tag);
        bo
    }

    /// An object that can be exported.
    pub(crate) fn shared_bo(&self, size: u64, tag: u64) -> BufferObject {
        let bo = create_bo(self.dyn_node(), size, BoOptions::default()).unwrap();
        fill(&bo, tag);
        bo
    }

    pub(crate) fn map(&self, bo: &BufferObject, offset: u64, va: u64, len: u64) -> Result<(), Errno> {
        self.one(va, len, BindTarget::Map { bo: bo.handle(), offset })
    }

    pub(crate) fn sparse(&self, va: u64, len: u64) -> Result<(), Errno> {
        self.one(va, len, BindTarget::Null)
    }

    pub(crate) fn unmap(&self, va: u64, len: u64) -> Result<(), Errno> {
        self.one(va, len, BindTarget::Unmap)
    }

    fn one(&self, va: u64, len: u64, target: BindTarget) -> Result<(), Errno> {
        self.vm.bind(&[BindOp { va, len, target }]).map_err(|refused| refused.errno)
    }

    /// What is mapped: address (from the base on), length, object and offset.
    pub(crate) fn dump(&self) -> Vec<Run> {
        let runs = self.node.mappings(self.vm.id());
        runs.iter().map(|r| (r.va - self.base, r.len, r.bo.map(|(bo, offset)| (bo.0, offset)))).collect()
    }
}

/// A raw VM_BIND: its result, and `ops.count` afterwards.
pub(crate) fn bind(node: &dyn Node, vm_id: u32, flags: u32, ops: &[VmBindOp]) -> (Result<(), Errno>, u32) {
    let mut arg = VmBind { vm_id, flags, ops: ObjArray::new(ops) };
    (ioctl(node, &mut arg), arg.ops.count)
}

pub(crate) fn map_op(bo: GemHandle, offset: u64, va: u64, size: u64) -> VmBindOp {
    let flags = VM_BIND_OP_TYPE_MAP | VM_BIND_OP_MAP_NOEXEC;
    VmBindOp { flags, bo_handle: bo.0, bo_offset: offset, va, size, ..Default::default() }
}

pub(crate) fn unmap_op(va: u64, size: u64) -> VmBindOp {
    VmBindOp { flags: VM_BIND_OP_TYPE_UNMAP, va, size, ..Default::default() }
}

pub(crate) fn sparse_op(va: u64, size: u64) -> VmBindOp {
    let flags = VM_BIND_OP_TYPE_MAP | VM_BIND_OP_MAP_NOEXEC | VM_BIND_OP_MAP_SPARSE;
    VmBindOp { flags, va, size, ..Default::default() }
}

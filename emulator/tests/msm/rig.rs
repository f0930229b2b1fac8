//! What the tests share: a node with a VM and a window, and raw VM_BIND.

use std::sync::Arc;

use emulator::{Config, Gpu};
use kmd::msm::{BoOptions, MsmVm, create_bo};
use kmd::uapi::msm::*;
use kmd::uapi::user_address;
use kmd::{BindOp, BindTarget, BufferObject, Errno, GemHandle, Node, Vm};

pub(crate) use crate::common::*;

/// A node, a VM, and a window at `base`.
pub(crate) struct Rig {
    pub(crate) vm: MsmVm,
    pub(crate) node: Arc<emulator::Node>,
    pub(crate) base: u64,
    window: Reservation,
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Jobs may still be queued, and objects and syncobjs keep the node alive.
        self.node.remove_window(self.window.range());
    }
}

impl Rig {
    pub(crate) fn new(len: u64) -> Self {
        Self::with(len, Gpu::A750, Config::default())
    }

    pub(crate) fn with(len: u64, gpu: Gpu, config: Config) -> Self {
        let node = emulator::Node::msm(gpu, config).unwrap();
        let vm = MsmVm::create(node.clone()).unwrap();
        let window = Reservation::new(len);
        node.add_window(window.range()).unwrap();
        Self { vm, node, base: window.start, window }
    }

    pub(crate) fn dyn_node(&self) -> Arc<dyn Node> {
        self.node.clone()
    }

    /// An object of this VM alone, every page of which starts with `tag` + its number.
    pub(crate) fn bo(&self, size: u64, tag: u64) -> BufferObject {
        let bo = create_bo(self.dyn_node(), size, BoOptions { flags: 0, private: true }).unwrap();
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

    pub(crate) fn null(&self, va: u64, len: u64) -> Result<(), Errno> {
        self.one(va, len, BindTarget::Null)
    }

    pub(crate) fn unmap(&self, va: u64, len: u64) -> Result<(), Errno> {
        self.one(va, len, BindTarget::Unmap)
    }

    fn one(&self, va: u64, len: u64, target: BindTarget) -> Result<(), Errno> {
        self.vm.bind(&[BindOp { va, len, target }]).map_err(|refused| refused.errno)
    }

    /// A bind queue of the test's own.
    pub(crate) fn queue(&self) -> u32 {
        let mut arg = SubmitqueueNew { flags: SUBMITQUEUE_VM_BIND, ..Default::default() };
        ioctl(&*self.node, &mut arg).unwrap();
        arg.id
    }

    /// What is mapped: address (from the base on), length, object and offset.
    pub(crate) fn dump(&self) -> Vec<Run> {
        let runs = self.node.mappings(1);
        runs.iter().map(|r| (r.va - self.base, r.len, r.bo.map(|(bo, offset)| (bo.0, offset)))).collect()
    }
}

/// A raw VM_BIND.
pub(crate) struct Call<'a> {
    pub(crate) queue: u32,
    pub(crate) flags: u32,
    pub(crate) fence_fd: i32,
    pub(crate) ops: &'a [VmBindOp],
    pub(crate) waits: &'a [Syncobj],
    pub(crate) signals: &'a [Syncobj],
}

impl<'a> Call<'a> {
    pub(crate) fn new(queue: u32, ops: &'a [VmBindOp]) -> Self {
        Self { queue, flags: 0, fence_fd: -1, ops, waits: &[], signals: &[] }
    }

    /// Makes the call; returns `fence_fd` afterwards.
    pub(crate) fn make(&self, node: &dyn Node) -> Result<i32, Errno> {
        let mut arg = VmBind {
            flags: self.flags,
            fence_fd: self.fence_fd,
            queue_id: self.queue,
            in_syncobjs: user_address(self.waits),
            out_syncobjs: user_address(self.signals),
            nr_in_syncobjs: self.waits.len() as u32,
            nr_out_syncobjs: self.signals.len() as u32,
            syncobj_stride: size_of::<Syncobj>() as u32,
            ..Default::default()
        };
        arg.set_ops(self.ops);
        ioctl(node, &mut arg).map(|()| arg.fence_fd)
    }
}

pub(crate) fn map_op(bo: GemHandle, obj_offset: u64, iova: u64, range: u64) -> VmBindOp {
    VmBindOp { op: VM_BIND_OP_MAP, handle: bo.0, obj_offset, iova, range, ..Default::default() }
}

pub(crate) fn unmap_op(iova: u64, range: u64) -> VmBindOp {
    VmBindOp { op: VM_BIND_OP_UNMAP, iova, range, ..Default::default() }
}

pub(crate) fn null_op(iova: u64, range: u64) -> VmBindOp {
    VmBindOp { op: VM_BIND_OP_MAP_NULL, iova, range, ..Default::default() }
}

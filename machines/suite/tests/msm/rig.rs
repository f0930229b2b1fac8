//! What the tests share: a VM, its objects, and a look at what its page tables map.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use kmd::msm::{BoOptions, MsmVm, create_bo};
use kmd::uapi::msm::{BO_NO_SHARE, SUBMITQUEUE_VM_BIND, SubmitqueueNew, VmBind, VmBindOp};
use kmd::{BindOp, BufferObject, Errno, Node, Refused, RenderNode, Syncobj, Vm};
use oracle::mark::mark;
use oracle::smmu::Smmu;
use rustix::fs::OFlags;
use tessera_machines_suite::bind;
pub use tessera_machines_suite::bind::*;

/// A mapping: address from [`BASE`] on, length, object (none: null) and offset in it. Pages that continue each other are one.
pub type Seen = (u64, u64, Option<(u32, u64)>);

pub struct Rig {
    pub node: Arc<dyn Node>,
    pub vm: MsmVm,
    smmu: Smmu,
    root: u64,
}

pub fn open() -> Arc<dyn Node> {
    Arc::new(RenderNode::find("msm").expect("an msm device"))
}

impl Rig {
    pub fn new() -> Self {
        Self::on(open())
    }

    pub fn on(node: Arc<dyn Node>) -> Self {
        let vm = MsmVm::create(node.clone()).unwrap();
        let smmu = Smmu::open().unwrap();
        let root = smmu.root(&*node).unwrap();
        Self { node, vm, smmu, root }
    }

    /// An object that can be exported.
    pub fn bo(&self, size: u64) -> BufferObject {
        self.bo_with(size, 0)
    }

    /// An object of this VM alone.
    pub fn private_bo(&self, size: u64) -> BufferObject {
        self.bo_with(size, BO_NO_SHARE)
    }

    pub fn bo_with(&self, size: u64, flags: u32) -> BufferObject {
        let options = BoOptions { flags, private: false };
        let bo = create_bo(self.node.clone(), size, options).unwrap();
        Self::mark(&bo);
        bo
    }

    /// Writes into every page of the object which one it is.
    fn mark(bo: &BufferObject) {
        let map = bo.map().unwrap();
        // SAFETY: all of a new object, which is ours alone.
        unsafe { mark(map.as_ptr(), bo.size(), bo.handle().0) };
    }

    /// What the page tables map, by what is there in memory.
    pub fn dump(&self) -> Vec<Seen> {
        let null = self.smmu.null_page();
        let mut seen: Vec<Seen> = Vec::new();
        for leaf in self.smmu.leaves(self.root).unwrap() {
            assert_eq!(leaf.len, PAGE, "msm maps no blocks with VM_BIND");
            let object = (leaf.address != null).then(|| {
                let mark = self.smmu.memory().marked(leaf.address).unwrap();
                mark.expect("a page of an object")
            });
            let va = leaf.va.wrapping_sub(BASE);
            match seen.last_mut() {
                Some((start, len, last))
                    if *start + *len == va && last.map(|(o, at)| (o, at + *len)) == object =>
                {
                    *len += PAGE;
                }
                _ => seen.push((va, PAGE, object)),
            }
        }
        seen
    }

    /// Whether the page at `va` is mapped so that writes fault.
    pub fn is_read_only(&self, va: u64) -> bool {
        let leaves = self.smmu.leaves(self.root).unwrap();
        leaves.iter().find(|leaf| leaf.va == BASE + va).expect("a mapped page").read_only
    }

    pub fn map(&self, bo: &BufferObject, offset: u64, va: u64, len: u64) -> Result<(), Refused> {
        self.vm.bind(&[map(va, len, bo, offset)])
    }

    pub fn null(&self, va: u64, len: u64) -> Result<(), Refused> {
        self.vm.bind(&[null(va, len)])
    }

    pub fn unmap(&self, va: u64, len: u64) -> Result<(), Refused> {
        self.vm.bind(&[unmap(va, len)])
    }

    pub fn syncobj(&self) -> Syncobj {
        Syncobj::create(self.node.clone(), false).unwrap()
    }

    /// Another bind queue of the VM.
    pub fn queue(&self) -> u32 {
        let mut arg = SubmitqueueNew { flags: SUBMITQUEUE_VM_BIND, ..Default::default() };
        ioctl(&*self.node, &mut arg).unwrap();
        arg.id
    }
}

/// A map at `va` bytes from [`BASE`] on.
pub fn map(va: u64, len: u64, bo: &BufferObject, offset: u64) -> BindOp {
    bind::map(va, len, bo.handle(), offset)
}

/// The lines of the kernel's log.
pub fn kernel_log() -> Vec<String> {
    // Reading ends where a read would wait.
    let nonblock = OFlags::NONBLOCK.bits() as i32;
    let mut log = File::options().read(true).custom_flags(nonblock).open("/dev/kmsg").unwrap();
    let mut buffer = [0; 8192];
    let mut lines = Vec::new();
    while let Ok(len @ 1..) = log.read(&mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..len]);
        let text = line.split_once(';').map_or("", |(_, text)| text).lines().next().unwrap_or("");
        lines.push(text.to_owned());
    }
    lines
}

/// A raw VM_BIND without syncobjs.
pub fn raw_bind(node: &dyn Node, queue_id: u32, flags: u32, ops: &[VmBindOp]) -> Result<VmBind, Errno> {
    let mut arg = VmBind { queue_id, flags, ..Default::default() };
    arg.set_ops(ops);
    ioctl(node, &mut arg).map(|()| arg)
}

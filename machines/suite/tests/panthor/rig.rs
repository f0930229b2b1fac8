//! What the tests share: a VM, its objects, and a look at what it maps.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kmd::panthor::{BoOptions, PanthorVm, create_bo};
use kmd::uapi::panthor::*;
use kmd::{
    BindOp, BindTarget, BufferObject, Errno, GemHandle, Node, Refused, RenderNode, Syncobj, Vm, gpuvas,
};
pub use tessera_machines_suite::bind::*;

/// Above this, every rig has a page of its own, by which its VM is found among all.
pub const MARKERS: u64 = 0x7f00_0000_0000;
static NEXT_MARKER: AtomicU64 = AtomicU64::new(MARKERS);

/// A mapping: address from [`BASE`] on, length, object (none: sparse) and offset in it.
pub type Seen = (u64, u64, Option<(u32, u64)>);

pub struct Rig {
    pub node: Arc<dyn Node>,
    pub vm: PanthorVm,
    marker: u64,
    /// Objects by their address in the kernel.
    objects: Mutex<HashMap<u64, u32>>,
}

pub fn open() -> Arc<dyn Node> {
    Arc::new(RenderNode::find("panthor").expect("a panthor device"))
}

impl Rig {
    pub fn new() -> Self {
        let node = open();
        let vm = PanthorVm::create(node.clone()).unwrap();
        assert!(vm.limits().null_mapping, "these tests are for panthor 1.9 (Linux 7.3) and later");
        let marker = NEXT_MARKER.fetch_add(2 * PAGE, Ordering::Relaxed);
        vm.bind(&[BindOp { va: marker, len: PAGE, target: BindTarget::Null }]).unwrap();
        Self { node, vm, marker, objects: Mutex::default() }
    }

    /// Where the VM has a page of its own; the page behind it is free.
    pub fn marker_address(&self) -> u64 {
        self.marker
    }

    /// An object of this VM alone.
    pub fn private_bo(&self, size: u64) -> BufferObject {
        self.bo_with(size, Some(self.vm.id()))
    }

    /// An object that can be exported.
    pub fn bo(&self, size: u64) -> BufferObject {
        self.bo_with(size, None)
    }

    fn bo_with(&self, size: u64, exclusive_vm_id: Option<u32>) -> BufferObject {
        let options = BoOptions { flags: 0, exclusive_vm_id };
        let bo = create_bo(self.node.clone(), size, options).unwrap();
        self.know(bo.handle());
        bo
    }

    /// Learns the object's address in the kernel, by mapping it at a known place for a moment.
    pub fn know(&self, bo: GemHandle) {
        let at = self.marker + PAGE;
        self.vm.bind(&[BindOp { va: at, len: PAGE, target: BindTarget::Map { bo, offset: 0 } }]).unwrap();
        let object = self.raw().iter().find(|mapping| mapping.va == at).expect("just mapped").object;
        self.vm.bind(&[BindOp { va: at, len: PAGE, target: BindTarget::Unmap }]).unwrap();
        self.objects.lock().unwrap().insert(object, bo.0);
    }

    fn raw(&self) -> Vec<gpuvas::Mapping> {
        let vms = account();
        let ours = |vm: &Vec<gpuvas::Mapping>| vm.iter().any(|mapping| mapping.va == self.marker);
        vms.into_iter().find(ours).expect("our VM is listed")
    }

    /// What is mapped, each of the kernel's mappings for itself.
    pub fn dump(&self) -> Vec<Seen> {
        let (raw, objects) = (self.raw(), self.objects.lock().unwrap());
        let marker = raw.iter().find(|mapping| mapping.va == self.marker).expect("our VM");
        let (sparse, ours) = (marker.object, raw.iter().filter(|mapping| mapping.va < MARKERS));
        let object = |m: &gpuvas::Mapping| (m.object != sparse).then(|| (objects[&m.object], m.offset));
        ours.map(|m| (m.va.wrapping_sub(BASE), m.len, object(m))).collect()
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

    pub fn syncobj(&self) -> Syncobj {
        Syncobj::create(self.node.clone(), false).unwrap()
    }

    /// Waits until all that was queued so far has run.
    pub fn idle(&self) {
        let done = self.syncobj();
        self.vm.bind_async(&[], &[], &[done.binary()]).unwrap();
        wait(&done, None);
    }
}

/// What the kernel says that VMs map. It says nothing (ENODEV) while one goes.
fn account() -> Vec<Vec<gpuvas::Mapping>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match gpuvas::read() {
            Ok(vms) => return vms,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A raw VM_BIND: its result, and `ops.count` afterwards.
pub fn raw_bind(node: &dyn Node, vm_id: u32, flags: u32, ops: &[VmBindOp]) -> (Result<(), Errno>, u32) {
    let mut arg = VmBind { vm_id, flags, ops: ObjArray::new(ops) };
    (ioctl(node, &mut arg), arg.ops.count)
}

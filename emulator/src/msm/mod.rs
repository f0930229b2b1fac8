//! The msm driver, version 1.13, with VM_BIND: everything but addresses that the kernel chooses and the execution of GPU jobs.

mod bind;
mod bo;
mod gpu;
mod param;
mod queue;
mod tree;
mod vm;

use std::collections::BTreeMap;
use std::sync::Arc;

use kmd::bo::MmapOffset;
use kmd::uapi::COMMAND_BASE;
use kmd::uapi::msm::DRIVER_NAME;
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::config::Config;
use crate::drm::user::{Call, User};
use crate::drm::{Device, DriverInfo, File};
use crate::node::{Driver, VmUpdate};
use crate::vm::Run;
pub use gpu::Gpu;
use queue::SubmitQueue;
use vm::Vm;

const DRIVER: DriverInfo = DriverInfo {
    name: DRIVER_NAME,
    description: "MSM Snapdragon DRM",
    version: (1, 13, 0),
    export_private: Errno::PERM,
};

/// The number of a file's VM in [`crate::Node::mappings`].
const VM_ID: u32 = 1;

/// Names of the driver's commands, in order.
const COMMANDS: [&str; 15] = [
    "GET_PARAM",
    "SET_PARAM",
    "GEM_NEW",
    "GEM_INFO",
    "GEM_CPU_PREP",
    "GEM_CPU_FINI",
    "GEM_SUBMIT",
    "WAIT_FENCE",
    "GEM_MADVISE",
    "GEM_SVM_NEW",
    "SUBMITQUEUE_NEW",
    "SUBMITQUEUE_CLOSE",
    "SUBMITQUEUE_QUERY",
    "VM_BIND",
    "PERFCNTR_CONFIG",
];

/// An open file of an emulated msm.
pub(crate) struct Msm {
    file: File,
    gpu: Gpu,
    context: Mutex<Context>,
}

/// What an open file has besides handles.
struct Context {
    /// User space has opted in to VM_BIND, and chooses the addresses.
    user_managed: bool,
    /// Made by the first request that looks for it.
    vm: Option<Arc<Vm>>,
    queues: BTreeMap<u32, Arc<SubmitQueue>>,
    next_queue: u32,
}

impl Msm {
    /// A new device, opened.
    pub(crate) fn new(gpu: Gpu, config: &Config) -> Self {
        Self::on(Device::new(DRIVER, config), gpu)
    }

    fn on(device: Arc<Device>, gpu: Gpu) -> Self {
        // Queue 0 is always there.
        let queues = BTreeMap::from([(0, Arc::new(SubmitQueue::default()))]);
        let context = Context { user_managed: false, vm: None, queues, next_queue: 1 };
        Self { file: File::open(device), gpu, context: Mutex::new(context) }
    }

    /// The file's VM, made now if it is not there. `ENOMEM`: it could not be made.
    fn vm(&self) -> Result<Arc<Vm>, Errno> {
        let mut context = self.context.lock();
        if let Some(vm) = &context.vm {
            return Ok(vm.clone());
        }
        if self.file.device.faults.alloc.strikes() {
            return Err(Errno::NOMEM);
        }
        let va = gpu::VA_START..gpu::VA_START + self.gpu.va_size;
        Ok(context.vm.insert(Vm::new(self.file.device.clone(), va)).clone())
    }

    fn existing_vm(&self, id: u32) -> Option<Arc<Vm>> {
        self.context.lock().vm.clone().filter(|_| id == VM_ID)
    }

    fn is_user_managed(&self) -> bool {
        self.context.lock().user_managed
    }
}

impl Driver for Msm {
    fn file(&self) -> &File {
        &self.file
    }

    fn open_again(&self) -> Box<dyn Driver> {
        Box::new(Self::on(self.file.device.clone(), self.gpu))
    }

    fn ioctl(&self, call: &Call, user: &User) -> Result<(), Errno> {
        match call.nr() - u32::from(COMMAND_BASE) {
            0x0 => call.with(|args| self.get_param(args)),
            0x1 => call.with(|args| self.set_param(args, user)),
            0x2 => call.with(|args| self.gem_new(args)),
            0x3 => call.with(|args| self.gem_info(args, user)),
            0x4 => call.with(|args| self.gem_cpu_prep(args)),
            0x5 => call.with(|args| self.gem_cpu_fini(args)),
            0x7 => call.with(|args| self.wait_fence(args)),
            0x8 => call.with(|args| self.gem_madvise(args)),
            0xa => call.with(|args| self.submitqueue_new(args)),
            0xb => call.with(|args| self.submitqueue_close(args)),
            0xc => call.with(|args| self.submitqueue_query(args, user)),
            0xd => call.with(|args| self.vm_bind(args, user)),
            index => {
                if let Some(name) = COMMANDS.get(index as usize) {
                    tracing::warn!("the emulated msm runs no GPU jobs: {name} is refused");
                }
                Err(Errno::INVAL)
            }
        }
    }

    fn mmap_offset(&self) -> MmapOffset {
        kmd::msm::mmap_offset
    }

    fn commands(&self) -> &'static [&'static str] {
        &COMMANDS
    }

    fn vm_ids(&self) -> Vec<u32> {
        self.existing_vm(VM_ID).map(|_| VM_ID).into_iter().collect()
    }

    fn runs(&self, vm_id: u32) -> Option<Vec<Run>> {
        Some(self.existing_vm(vm_id)?.space.runs())
    }

    fn vm_log(&self, vm_id: u32) -> Vec<VmUpdate> {
        self.existing_vm(vm_id).map(|vm| vm.log()).unwrap_or_default()
    }
}

impl Drop for Msm {
    fn drop(&mut self) {
        let context = self.context.get_mut();
        for queue in context.queues.values() {
            queue.close();
        }
        if let Some(vm) = &context.vm {
            vm.space.destroy();
        }
        self.file.release();
    }
}

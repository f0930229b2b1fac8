//! The msm driver, version 1.13: everything but the execution of command streams and performance counters.

mod bind;
mod bo;
mod gpu;
mod managed;
mod param;
mod queue;
mod submit;
mod sync;
mod tree;
mod vm;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kmd::bo::MmapOffset;
use kmd::uapi::COMMAND_BASE;
use kmd::uapi::msm::{DRIVER_NAME, Timespec};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::config::Config;
use crate::drm::fence::Fence;
use crate::drm::gem::Object;
use crate::drm::user::{Call, User};
use crate::drm::{Device, DriverInfo, File};
use crate::node::{Driver, VmUpdate};
use crate::queue::Queue;
use crate::vm::Run;
pub use gpu::Gpu;
use queue::{Kind, SubmitQueue};
use submit::SubmitWork;
use vm::Vm;

const DRIVER: DriverInfo = DriverInfo {
    name: DRIVER_NAME,
    description: "MSM Snapdragon DRM",
    version: (1, 13, 0),
    export_private: Errno::PERM,
};

/// The number of a file's VM in [`crate::Node::mappings`].
const VM_ID: u32 = 1;

/// The largest allocation in one piece that the kernel has; what it keeps of a call's arrays is one.
const LARGEST_ALLOCATION: u64 = 4 << 20;

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
    /// What is queued for the GPU, by priority.
    entities: BTreeMap<u32, Arc<Queue<SubmitWork>>>,
}

/// The instant of an absolute time of `CLOCK_MONOTONIC`; nothing when it is too far away to matter.
fn deadline(time: &Timespec) -> Option<Instant> {
    let nanoseconds = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    let now = clock_gettime(ClockId::Monotonic);
    let left = nanoseconds - (i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec));
    let left = u64::try_from(left.max(0)).ok()?;
    Instant::now().checked_add(Duration::from_nanos(left))
}

impl Msm {
    /// A new device, opened.
    pub(crate) fn new(gpu: Gpu, config: &Config) -> Self {
        Self::on(Device::new(DRIVER, config), gpu)
    }

    fn on(device: Arc<Device>, gpu: Gpu) -> Self {
        // Queue 0 is always there, at a medium priority.
        let jobs = Queue::new(device.pace.clone(), None);
        let priority = (gpu.rings * param::PRIORITIES_PER_RING - 1).div_ceil(2) as u32;
        let queues = BTreeMap::from([(0, Arc::new(SubmitQueue::new(Kind::Gpu(jobs.clone()))))]);
        let entities = BTreeMap::from([(priority, jobs)]);
        let context = Context { user_managed: false, vm: None, queues, next_queue: 1, entities };
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
        let vm = Vm::new(self.file.device.clone(), va, context.user_managed);
        Ok(context.vm.insert(vm).clone())
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
            0x6 => call.with(|args| self.gem_submit(args, user)),
            0x7 => call.with(|args| self.wait_fence(args)),
            0x8 => call.with(|args| self.gem_madvise(args)),
            0xa => call.with(|args| self.submitqueue_new(args)),
            0xb => call.with(|args| self.submitqueue_close(args)),
            0xc => call.with(|args| self.submitqueue_query(args, user)),
            0xd => call.with(|args| self.vm_bind(args, user)),
            // The answer of a GPU without performance counters.
            0xe => Err(Errno::NXIO),
            _ => Err(Errno::INVAL),
        }
    }

    fn handle_closed(&self, object: &Object) {
        let vm = self.context.lock().vm.clone();
        let Some((vm, managed)) = vm.as_ref().and_then(|vm| Some((vm, vm.managed.as_ref()?))) else { return };
        object.attributes.resv.fences(true).iter().for_each(Fence::wait);
        managed.lock().clear(&vm.space, object);
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
        context.queues.values().for_each(|queue| queue.close());
        context.entities.values().for_each(|jobs| jobs.close());
        if let Some(vm) = &context.vm {
            vm.space.destroy();
        }
        self.file.release();
    }
}

//! Turnip (Mesa's driver for Qualcomm Adreno): the layer binds through VM_BIND on the driver's own open file of msm.
//!
//! The driver reports where its sparse resources are ([`report`]), and what it exports has the driver's own handles on that file. What
//! it maps by itself it maps on a bind queue of its own: the layer's binds come behind that ([`OwnBinds`]).

mod image;
mod node;
pub mod report;
mod verify;

pub use node::Descriptors;

use super::{Additions, Icd};
use crate::address_space::{AddressSpace, BoId};
use crate::buffer::Buffer;
use crate::carrier::{AtOnce, Backing, Before};
use crate::chain::ChainCopy;
use crate::device::{Device, Sparse};
use crate::image::Image;
use crate::instance::Instance;
use crate::layout::BLOCK;
use crate::memory::{self, MappedAt, MemoryError};
use crate::payload::{self, Payloads};
use crate::queue::{BindQueue, kernel};
use crate::resource::CreateError;
use crate::tiles::Banks;
use ash::vk;
use core::ffi::{CStr, c_void};
use gpuvm::{OpKind, VaRange};
use kmd::msm::{self, BorrowedQueue, MsmVm};
use kmd::uapi::msm as uapi;
use kmd::{BorrowedObject, Errno, Node, SyncPoint, Syncobj, Vm};
use parking_lot::Mutex;
use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// What the layer turns on for itself.
pub const ADDITIONS: Additions = Additions {
    extensions: &[payload::EXTENSIONS[0], payload::EXTENSIONS[1], ash::khr::external_memory_fd::NAME],
    edited: &[
        vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        vk::StructureType::PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
    ],
    edit: enable_timelines,
};

/// Semaphores that only the driver knows are bridged with timelines.
fn enable_timelines(chain: &mut ChainCopy) {
    if let Some(features) = chain.get_mut::<vk::PhysicalDeviceVulkan12Features<'_>>() {
        features.timeline_semaphore = vk::TRUE;
    } else if let Some(features) = chain.get_mut::<vk::PhysicalDeviceTimelineSemaphoreFeatures<'_>>() {
        features.timeline_semaphore = vk::TRUE;
    } else {
        chain.push_front(vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true));
    }
}

/// Pages of the GPU, which are also what Turnip aligns sparse resources to.
const PAGE: u64 = 4096;

/// Why a device cannot be bound for.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the driver's own open file of msm was not found")]
    NoNode,
    #[error("the instance has no debug messengers, by which the driver says where its objects are")]
    NoMessenger,
    #[error("the driver does not say where its objects are")]
    NoReports,
    #[error("msm: {0}")]
    Kernel(#[from] Errno),
    #[error("the mirror: {0}")]
    Vm(#[from] gpuvm::VmError),
}

/// The driver's own bind queue. When it makes or destroys a sparse resource it maps or unmaps there, without waiting. The kernel's list
/// of mappings changes with each call, but the page tables when a queue's job runs: a bind of another queue that came first would leave
/// the kernel with pages where it expects none, and it would give the address space up.
struct OwnBinds {
    queue: BorrowedQueue,
    /// Counts what the driver did.
    done: AtomicU64,
    /// Signalled behind it, at points that count up.
    timeline: Syncobj,
    /// What the last point covers, and the point.
    covered: Mutex<(u64, u64)>,
}

impl OwnBinds {
    fn new(node: Arc<dyn Node>) -> Result<Self, Errno> {
        Ok(Self {
            queue: BorrowedQueue::first(node.clone())?,
            done: AtomicU64::new(0),
            timeline: Syncobj::create(node, false)?,
            covered: Mutex::default(),
        })
    }

    /// The driver has bound something: its call is over, its job may not be.
    fn note(&self) {
        self.done.fetch_add(1, Ordering::Release);
    }
}

impl Before for OwnBinds {
    fn state(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    fn point(&self) -> Result<SyncPoint, Errno> {
        let (covered, point) = &mut *self.covered.lock();
        let done = self.state();
        if *covered != done {
            self.queue.signal(self.timeline.point(*point + 1))?;
            (*covered, *point) = (done, *point + 1);
        }
        Ok(self.timeline.point(*point))
    }
}

/// Turnip's adapter.
pub struct Turnip {
    node: Arc<dyn Node>,
    payloads: Arc<Payloads>,
    own_binds: Arc<OwnBinds>,
    memory_fd: ash::khr::external_memory_fd::DeviceFn,
    banks: Banks,
    null_mapping: bool,
}

impl Turnip {
    /// The adapter of a new device that was created with [`ADDITIONS`], and its address space. `load` finds the device's functions;
    /// `before` are the descriptors from before it was made.
    pub fn start(
        instance: &Instance,
        physical: vk::PhysicalDevice,
        device: &ash::Device,
        mut load: impl FnMut(&CStr) -> *const c_void,
        before: &Descriptors,
    ) -> Result<(Self, AddressSpace), StartError> {
        if !instance.reports_addresses() {
            return Err(StartError::NoMessenger);
        }
        check_reports(device)?;
        let node = before.opened_since(uapi::DRIVER_NAME).ok_or(StartError::NoNode)?;
        let file = node.as_fd().try_clone_to_owned().ok();
        let node: Arc<dyn Node> = Arc::new(node);
        let vm = Arc::new(MsmVm::attach(node.clone())?);
        let banks = Banks {
            highest_bit: u32::try_from(msm::get_param(&*node, uapi::PARAM_HIGHEST_BANK_BIT)?).unwrap_or(0),
            swizzle: u32::try_from(msm::get_param(&*node, uapi::PARAM_UBWC_SWIZZLE)?).unwrap_or(u32::MAX),
        };
        tracing::debug!(?banks, "msm");
        let config = instance.config;
        let verifier = if config.verify { verify::verifier(file) } else { None };
        let home = Box::new(AtOnce::new(vm.clone()));
        let address_space = AddressSpace::new(vm.limits(), home, verifier, config.vm_log)?;
        let turnip = Self {
            payloads: Arc::new(Payloads::new(&instance.next, physical, node.clone(), &mut load)),
            own_binds: Arc::new(OwnBinds::new(node.clone())?),
            memory_fd: ash::khr::external_memory_fd::DeviceFn::load(&mut load),
            banks,
            null_mapping: vm.limits().null_mapping,
            node,
        };
        Ok((turnip, address_space))
    }

    /// What the driver has where nothing is bound.
    fn unbound(&self, residency: bool) -> OpKind<BoId> {
        if residency && self.null_mapping { OpKind::Null } else { OpKind::Unmap }
    }

    /// The mirror follows what the driver did for a new resource.
    fn adopt(&self, sparse: &Sparse, range: VaRange, residency: bool) -> Result<(), CreateError> {
        sparse.address_space.adopt_window(range, self.unbound(residency)).map_err(CreateError::Bind)?;
        self.own_binds.note();
        Ok(())
    }

    /// The mirror follows what the driver is about to do.
    fn forget(&self, sparse: &Sparse, range: VaRange) {
        if let Err(error) = sparse.address_space.forget_window(range) {
            sparse.address_space.lose(&format!("a resource's addresses could not be forgotten: {error}"));
        }
    }
}

/// Whether the driver says where it puts a sparse buffer.
fn check_reports(device: &ash::Device) -> Result<(), StartError> {
    let info = vk::BufferCreateInfo::default()
        .flags(vk::BufferCreateFlags::SPARSE_BINDING)
        .size(BLOCK)
        .usage(vk::BufferUsageFlags::TRANSFER_DST);
    // SAFETY: a valid create info for a device with sparse binding on.
    let made = report::listen(|| unsafe { device.create_buffer(&info, None) });
    let (buffer, range) = made.map_err(|_| StartError::NoReports)?;
    // SAFETY: made above.
    unsafe { device.destroy_buffer(buffer, None) };
    let fits = range.is_some_and(|range| range.start % PAGE == 0 && range.len >= BLOCK);
    if fits { Ok(()) } else { Err(StartError::NoReports) }
}

/// Whole pages.
fn pages(range: VaRange) -> VaRange {
    VaRange { start: range.start, len: range.len.next_multiple_of(PAGE) }
}

impl Icd for Turnip {
    unsafe fn create_buffer(
        &self,
        d: &Device,
        sparse: &Sparse,
        info: &vk::BufferCreateInfo<'_>,
        allocator: Option<&vk::AllocationCallbacks<'_>>,
    ) -> Result<(vk::Buffer, Buffer), CreateError> {
        // SAFETY: the application's valid arguments, handed on.
        let (handle, range) = report::listen(|| unsafe { d.next.create_buffer(info, allocator) })
            .map_err(|result| CreateError::Driver { call: "vkCreateBuffer", result })?;
        let residency = info.flags.contains(vk::BufferCreateFlags::SPARSE_RESIDENCY);
        let placed = range.ok_or(CreateError::NoAddress).and_then(|range| {
            let range = pages(range);
            self.adopt(sparse, range, residency)?;
            Ok(range)
        });
        match placed {
            Ok(range) => {
                let unbound = self.unbound(residency);
                let (alignment, requirements) = (PAGE, None);
                Ok((handle, Buffer { size: info.size, range, alignment, unbound, requirements, plain: None }))
            }
            Err(error) => {
                // SAFETY: the buffer was made here and nobody knows it.
                unsafe { d.next.destroy_buffer(handle, allocator) };
                Err(error)
            }
        }
    }

    fn release_buffer(&self, _d: &Device, sparse: &Sparse, buffer: &Buffer) {
        self.forget(sparse, buffer.range);
    }

    unsafe fn create_image(
        &self,
        d: &Device,
        sparse: &Sparse,
        info: &vk::ImageCreateInfo<'_>,
        allocator: Option<&vk::AllocationCallbacks<'_>>,
    ) -> Result<(vk::Image, Image), CreateError> {
        // SAFETY: the caller's promise.
        unsafe { self.make_image(d, sparse, info, allocator) }
    }

    fn release_image(&self, sparse: &Sparse, image: &Image) {
        image.opaque.iter().for_each(|&range| self.forget(sparse, range));
    }

    fn backing(
        &self,
        d: &Device,
        memory: vk::DeviceMemory,
        _size: u64,
        _mapped: Option<MappedAt>,
    ) -> Result<Backing, MemoryError> {
        let info = vk::MemoryGetFdInfoKHR::default().memory(memory).handle_type(memory::EXPORT);
        let mut fd = -1;
        // SAFETY: memory of this device, allocated to be exported like this.
        unsafe { (self.memory_fd.get_memory_fd_khr)(d.next.handle(), &info, &mut fd) }
            .result()
            .map_err(MemoryError::Export)?;
        // SAFETY: the driver has just made this descriptor for us.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        // The object has a handle on this file, and that is the driver's: importing finds it.
        let object = BorrowedObject::import(self.node.clone(), file.as_fd(), msm::mmap_offset);
        Ok(Backing::Borrowed(object.map_err(MemoryError::Handle)?))
    }

    fn payloads(&self) -> Option<&Payloads> {
        Some(&self.payloads)
    }

    fn exports_memory(&self) -> bool {
        true
    }

    fn keeps_freed_memory(&self) -> bool {
        true
    }

    fn passes_on(&self) -> bool {
        true
    }

    fn bind_queue(&self, _d: &Device, number: u32) -> Result<Arc<dyn BindQueue>, vk::Result> {
        // Queues of Vulkan's do not wait for each other, so each has one of the kernel's.
        let vm = MsmVm::attach(self.node.clone()).map_err(|errno| {
            tracing::error!("vkQueueBindSparse: msm makes no bind queue: {errno}");
            vk::Result::ERROR_OUT_OF_HOST_MEMORY
        })?;
        let before: Arc<dyn Before> = self.own_binds.clone();
        Ok(Arc::new(kernel::Queue::new(number, self.payloads.clone(), Arc::new(vm), Some(before))))
    }
}

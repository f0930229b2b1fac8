//! Drivers on whose own open file of the kernel's the layer binds, through VM_BIND.
//!
//! They report where their sparse resources are ([`report`]), and what they export has their own handles on that file. Drivers differ
//! in how the file and its VM are found, in what they bind by themselves, and in how they lay images out: [`Driver`].

mod modifier;
mod node;
pub mod report;
mod verify;

pub use modifier::{Named, modifier};
pub use node::{Descriptors, drm_nodes};

use super::{Additions, Icd, ImageRequirements, Way, enable_timelines, panvk, turnip};
use crate::address_space::{AddressSpace, BoId};
use crate::buffer::Buffer;
use crate::carrier::{AtOnce, Backing, Before, KernelQueue};
use crate::device::{Device, Sparse};
use crate::image::{Image, ImagePlane};
use crate::instance::Instance;
use crate::layout::{BLOCK, PlaneLayout};
use crate::memory::{self, MappedAt, MemoryError};
use crate::mirror::Mirror;
use crate::payload::{self, Payloads};
use crate::queue::{BindQueue, kernel};
use crate::resource::CreateError;
use ash::vk;
use core::ffi::{CStr, c_void};
use drm_fourcc::DrmModifier;
use gpuvm::{OpKind, VaRange};
use kmd::bo::MmapOffset;
use kmd::{BorrowedObject, Errno, RenderNode, Vm};
use parking_lot::{Mutex, MutexGuard};
use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use thiserror::Error;

/// What the layer turns on for itself.
pub const ADDITIONS: Additions = Additions {
    extensions: &[payload::EXTENSIONS[0], payload::EXTENSIONS[1], ash::khr::external_memory_fd::NAME],
    edited: &[
        vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        vk::StructureType::PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
    ],
    // Semaphores that only the driver knows are bridged with timelines.
    edit: enable_timelines,
    hide: None,
};

/// Pages of the GPU, which are also what drivers align sparse resources to.
pub const PAGE: u64 = 4096;

/// Why a device cannot be bound for.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the driver's own open file of {0} was not found")]
    NoNode(&'static str),
    #[error("the instance has no debug messengers, by which the driver says where its objects are")]
    NoMessenger,
    #[error("the driver does not say where its objects are")]
    NoReports,
    #[error("the kernel's panthor has no sparse maps: it takes version 1.9, of Linux 7.3")]
    NoSparseMaps,
    #[error("the kernel: {0}")]
    Kernel(#[from] Errno),
    #[error("the mirror: {0}")]
    Vm(#[from] gpuvm::VmError),
}

/// How a residency image is laid out.
pub struct Layout {
    /// What the driver's layout is called.
    pub modifier: DrmModifier,
    /// The aspects that blocks hold.
    pub aspects: vk::ImageAspectFlags,
    pub blocks: PlaneLayout,
    /// Where the layer makes the image what the driver does not.
    pub made: Option<Made>,
}

/// What an image with residency needs that the driver makes without.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub memory: vk::MemoryRequirements,
    pub sparse: vk::SparseImageMemoryRequirements,
    /// Bytes of a layer.
    pub layer: u64,
    /// Bytes from one layer to the next in opaque binds.
    pub span: u64,
}

impl Made {
    fn requirements(&self) -> ImageRequirements {
        ImageRequirements { memory: Some(self.memory), sparse: vec![self.sparse] }
    }
}

/// The create info of an image that takes the place of the application's, with everything that it points to.
pub struct StandIn<'a> {
    pub info: vk::ImageCreateInfo<'a>,
    /// The formats that it may be seen as.
    pub _formats: Vec<vk::Format>,
    pub _chain: crate::chain::ChainCopy,
}

/// What drivers differ in.
pub trait Driver: Send + Sync {
    /// What the driver is asked for in place of a residency image that it does not offer; `None` where it is asked for just that.
    ///
    /// # Safety
    /// The create info is valid, and outlives the answer.
    unsafe fn stand_in<'a>(
        &self,
        _info: &vk::ImageCreateInfo<'a>,
    ) -> Result<Option<StandIn<'a>>, CreateError> {
        Ok(None)
    }

    /// Leaves new addresses unbound that the driver leaves unmapped.
    fn map_null(&self, _range: VaRange) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    /// Where the blocks of a new residency image are, whose addresses are `size` bytes; `None` where what is known does not fit together.
    /// `info` is what the driver was asked for.
    fn layout(
        &self,
        d: &Device,
        image: vk::Image,
        size: u64,
        info: &vk::ImageCreateInfo<'_>,
    ) -> Option<Layout>;

    /// The kernel's bind queue for one queue of Vulkan's: of its own where the kernel has several in a VM.
    fn bind_queue(&self) -> Result<KernelQueue, Errno>;

    /// Whether what is unbound of a resource without residency becomes a null mapping too.
    fn unbinds_to_null(&self) -> bool {
        false
    }

    /// What the layer's binds must come behind.
    fn before(&self) -> Option<Arc<dyn Before>> {
        None
    }

    /// The driver has bound something by itself: its call is over.
    fn note_own_bind(&self) {}

    /// How the kernel is asked for an object's fake file offset.
    fn mmap_offset(&self) -> MmapOffset;
}

/// The file on which a new device works.
pub struct Opened {
    pub node: Arc<RenderNode>,
    pub vm: Arc<dyn Vm>,
    /// The VM's number on that file.
    pub vm_id: u32,
    pub driver: Box<dyn Driver>,
}

/// Held while a driver makes a device: another one's must not look like this one's.
static ALONE: Mutex<()> = Mutex::new(());

/// What there was before a driver made a device, so that what is the device's can be told afterwards.
pub struct Opening {
    before: Seen,
    _alone: MutexGuard<'static, ()>,
}

enum Seen {
    Msm { before: Descriptors, extra: bool },
    Panthor(panvk::Vms),
}

impl Opening {
    /// `None` where the layer does not bind on the driver's file.
    pub fn new(way: Way) -> Option<Self> {
        let alone = ALONE.lock();
        let before = match way {
            Way::Turnip { extra } => Seen::Msm { before: Descriptors::now(), extra },
            Way::Panvk => Seen::Panthor(panvk::Vms::now()),
            Way::Aside | Way::Lavapipe | Way::Forward => return None,
        };
        Some(Self { before, _alone: alone })
    }

    /// The adapter of the device that was made since, with [`ADDITIONS`], and its address space. `load` finds the device's functions.
    pub fn start(
        &self,
        instance: &Instance,
        physical: vk::PhysicalDevice,
        device: &ash::Device,
        mut load: impl FnMut(&CStr) -> *const c_void,
    ) -> Result<(Direct, AddressSpace), StartError> {
        if !instance.reports_addresses() {
            return Err(StartError::NoMessenger);
        }
        check_reports(device)?;
        let Opened { node, vm, vm_id, driver } = match &self.before {
            Seen::Msm { before, extra } => turnip::open(before, *extra)?,
            Seen::Panthor(before) => panvk::open(before)?,
        };
        let config = instance.config;
        let verifier = if config.verify { verify::verifier(&node, vm_id) } else { None };
        let home = Box::new(AtOnce::new(vm.clone()));
        let address_space = AddressSpace::new(vm.limits(), Mirror::staged, home, verifier, config.vm_log)?
            .shown_in(config.mirror.clone());
        let direct = Direct {
            payloads: Arc::new(Payloads::new(&instance.next, physical, node.clone(), &mut load)),
            memory_fd: ash::khr::external_memory_fd::DeviceFn::load(&mut load),
            null_mapping: vm.limits().null_mapping,
            queued: config.queued,
            node,
            driver,
        };
        Ok((direct, address_space))
    }
}

/// The adapter of a device on whose file the layer binds.
pub struct Direct {
    node: Arc<RenderNode>,
    payloads: Arc<Payloads>,
    memory_fd: ash::khr::external_memory_fd::DeviceFn,
    null_mapping: bool,
    /// Whether binds go through the kernel's queue even where that is not needed.
    queued: bool,
    driver: Box<dyn Driver>,
}

impl Direct {
    /// What unbinding leaves.
    fn unbound(&self, residency: bool) -> OpKind<BoId> {
        let null = self.null_mapping && (residency || self.driver.unbinds_to_null());
        if null { OpKind::Null } else { OpKind::Unmap }
    }

    /// The mirror follows what the driver did for a new resource.
    fn adopt(&self, sparse: &Sparse, range: VaRange, residency: bool) -> Result<(), CreateError> {
        let adopted = sparse.address_space.adopt_window(range, residency && self.null_mapping);
        adopted.map_err(CreateError::Bind)?;
        self.driver.note_own_bind();
        Ok(())
    }

    /// The mirror follows what the driver is about to do.
    fn forget(&self, sparse: &Sparse, range: VaRange) {
        if let Err(error) = sparse.address_space.forget_window(range) {
            sparse.address_space.lose(&format!("a resource's addresses could not be forgotten: {error}"));
        }
    }

    /// `info` is the application's, `asked` what the driver was asked for.
    fn place_image(
        &self,
        d: &Device,
        sparse: &Sparse,
        (handle, range): (vk::Image, Option<VaRange>),
        info: &vk::ImageCreateInfo<'_>,
        asked: &vk::ImageCreateInfo<'_>,
    ) -> Result<Image, CreateError> {
        let range = pages(range.ok_or(CreateError::NoAddress)?);
        let residency = info.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY);
        let stands_in = asked.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY) != residency;
        // SAFETY: a new image, here and below.
        let needs = unsafe { d.next.get_image_memory_requirements(handle) };
        let layout = residency.then(|| self.driver.layout(d, handle, range.len, asked)).flatten();
        let as_is = residency && layout.is_none();
        match &layout {
            Some(Layout { modifier, made, .. }) => {
                tracing::debug!(?handle, format = ?info.format, modifier = %Named(*modifier), ?made, "image");
            }
            None if stands_in => return Err(CreateError::Format(info.format)),
            None if as_is => tracing::info!(
                "{:?}: how the driver lays it out is not known; binds of its blocks are the driver's",
                info.format
            ),
            None => {}
        }
        if stands_in {
            self.driver.map_null(range).map_err(CreateError::Kernel)?;
        }
        self.adopt(sparse, range, residency)?;
        let made = layout.as_ref().and_then(|layout| layout.made);
        let planes =
            layout.map(|Layout { aspects, blocks, .. }| ImagePlane { aspects, range, layout: Some(blocks) });
        let layers = made.map(|made| {
            (0..u64::from(info.array_layers))
                .map(|layer| VaRange { start: range.start + layer * made.layer, len: made.layer })
                .collect()
        });
        Ok(Image {
            // The driver asks for memory in larger units than it has addresses for: binds there bind nothing.
            size: made.map_or(needs.size.max(range.len), |made| made.memory.size),
            alignment: PAGE,
            opaque: layers.unwrap_or_else(|| vec![range]),
            padding: made.map_or(0, |made| made.span - made.layer),
            regions: Vec::new(),
            planes: planes.into_iter().collect(),
            residency,
            unbound: self.unbound(residency),
            as_is,
            requirements: made.map(|made| made.requirements()),
        })
    }

    /// What an image with this create info needs that the driver does not offer.
    ///
    /// # Safety
    /// The create info is valid.
    unsafe fn made(&self, d: &Device, info: &vk::ImageCreateInfo<'_>) -> Option<Made> {
        // SAFETY: the caller's promise.
        let stand_in = unsafe { self.driver.stand_in(info) }.ok()??;
        // SAFETY: as above, edited. Only an image says where its levels are.
        let made = report::listen(|| unsafe { d.next.create_image(&stand_in.info, None) });
        let (image, range) = made.ok()?;
        let layout = range.and_then(|range| self.driver.layout(d, image, pages(range).len, &stand_in.info));
        // SAFETY: made above.
        unsafe { d.next.destroy_image(image, None) };
        self.driver.note_own_bind();
        layout?.made
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

impl Icd for Direct {
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
        // SAFETY: the application's valid argument.
        let stand_in = unsafe { self.driver.stand_in(info) }?;
        let asked = stand_in.as_ref().map_or(info, |stand_in| &stand_in.info);
        // SAFETY: the application's valid arguments, edited.
        let (handle, range) = report::listen(|| unsafe { d.next.create_image(asked, allocator) })
            .map_err(|result| CreateError::Driver { call: "vkCreateImage", result })?;
        match self.place_image(d, sparse, (handle, range), info, asked) {
            Ok(image) => Ok((handle, image)),
            Err(error) => {
                // SAFETY: the image was made here and nobody knows it.
                unsafe { d.next.destroy_image(handle, allocator) };
                // What the driver unmapped then.
                self.driver.note_own_bind();
                Err(error)
            }
        }
    }

    unsafe fn image_requirements(
        &self,
        d: &Device,
        info: &vk::ImageCreateInfo<'_>,
    ) -> Option<ImageRequirements> {
        // SAFETY: the caller's promise.
        Some(unsafe { self.made(d, info) }?.requirements())
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
        let object = BorrowedObject::import(self.node.clone(), file.as_fd(), self.driver.mmap_offset());
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
        let KernelQueue { vm, pending } = self.driver.bind_queue().map_err(|errno| {
            tracing::error!("vkQueueBindSparse: the kernel makes no bind queue: {errno}");
            match errno {
                Errno::PIPE => vk::Result::ERROR_DEVICE_LOST,
                _ => vk::Result::ERROR_OUT_OF_HOST_MEMORY,
            }
        })?;
        let (payloads, before) = (self.payloads.clone(), self.driver.before());
        let pending = (!self.queued).then_some(pending);
        Ok(Arc::new(kernel::Queue::new(number, payloads, vm, before, pending)))
    }
}

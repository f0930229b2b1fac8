//! lavapipe (Mesa's CPU driver): a GPU address is a CPU address, memory is a mapping of the process, shaders read residency bits. The
//! layer executes its binds on an emulated kernel, which maps the process's pages.

mod buffer;
mod image;
mod learn;

pub use buffer::Plain;
pub use learn::{LearnError, check, texel_bytes};

use super::{Additions, Icd, ImageRequirements, enable_timelines};
use crate::address_space::{AddressSpace, BindError, Verifier};
use crate::buffer::Buffer;
use crate::carrier::{AtOnce, Backing};
use crate::chain::ChainCopy;
use crate::config::{Config, Kernel};
use crate::device::{Device, SetupError, Sparse};
use crate::image::Image;
use crate::instance::Instance;
use crate::memory::{MappedAt, MemoryError};
use crate::mirror::{Difference, Mirror};
use crate::queue::{BindQueue, cpu};
use crate::report::SPARSE_ADDRESS_SPACE;
use crate::residency::Residency;
use crate::resource::CreateError;
use ash::vk;
use core::ffi::{CStr, c_void};
use emulator::{Gpu, Node};
use gpuvm::VaRange;
use kmd::BufferObject;
use kmd::msm::MsmVm;
use kmd::panthor::PanthorVm;
use learn::Functions;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// What the layer turns on for itself.
pub const ADDITIONS: Additions = Additions {
    extensions: &learn::EXTENSIONS,
    edited: &[
        vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        vk::StructureType::PHYSICAL_DEVICE_SAMPLER_YCBCR_CONVERSION_FEATURES,
        vk::StructureType::PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        vk::StructureType::PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES,
        vk::StructureType::PHYSICAL_DEVICE_TIMELINE_SEMAPHORE_FEATURES,
        vk::StructureType::PHYSICAL_DEVICE_DESCRIPTOR_BUFFER_FEATURES_EXT,
    ],
    edit: enable_features,
    hide: None,
};

fn enable_features(chain: &mut ChainCopy) {
    // A structure must not be chained twice: what the application has is edited in the copy, what it lacks is added.
    if let Some(features) = chain.get_mut::<vk::PhysicalDeviceDescriptorBufferFeaturesEXT<'_>>() {
        features.descriptor_buffer = vk::TRUE;
    } else {
        chain.push_front(vk::PhysicalDeviceDescriptorBufferFeaturesEXT::default().descriptor_buffer(true));
    }
    if let Some(features) = chain.get_mut::<vk::PhysicalDeviceVulkan11Features<'_>>() {
        features.sampler_ycbcr_conversion = vk::TRUE;
    } else if let Some(features) = chain.get_mut::<vk::PhysicalDeviceSamplerYcbcrConversionFeatures<'_>>() {
        features.sampler_ycbcr_conversion = vk::TRUE;
    } else {
        chain.push_front(
            vk::PhysicalDeviceSamplerYcbcrConversionFeatures::default().sampler_ycbcr_conversion(true),
        );
    }
    if let Some(features) = chain.get_mut::<vk::PhysicalDeviceVulkan12Features<'_>>() {
        features.buffer_device_address = vk::TRUE;
    } else if let Some(features) = chain.get_mut::<vk::PhysicalDeviceBufferDeviceAddressFeatures<'_>>() {
        features.buffer_device_address = vk::TRUE;
    } else {
        chain
            .push_front(vk::PhysicalDeviceBufferDeviceAddressFeatures::default().buffer_device_address(true));
    }
    enable_timelines(chain);
}

/// Why a resource got no addresses.
#[derive(Debug, Error)]
pub enum WindowError {
    #[error("sparseAddressSpaceSize ({SPARSE_ADDRESS_SPACE:#x} bytes) is used up")]
    Full,
    #[error("the kernel refused the address range: {0}")]
    Refused(kmd::Errno),
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// lavapipe's adapter: the emulated kernel, and what the layer asks of the driver.
pub struct Lavapipe {
    functions: Functions,
    node: Arc<Node>,
    /// Bytes of address space that resources have.
    claimed: AtomicU64,
}

impl Lavapipe {
    /// The adapter of a new device, and its address space. `load` finds the functions of a device that was created with [`ADDITIONS`].
    pub fn start(
        instance: &Instance,
        physical: vk::PhysicalDevice,
        load: impl Fn(&CStr) -> *const c_void,
    ) -> Result<(Self, AddressSpace), SetupError> {
        let config = instance.config;
        let (node, vm) = open_kernel(config).map_err(SetupError::Kernel)?;
        let verifier = config.verify.then(|| verifier(node.clone()));
        let home = Box::new(AtOnce::new(vm.clone()));
        let address_space = AddressSpace::new(vm.limits(), Mirror::immediate, home, verifier, config.vm_log)
            .map_err(SetupError::Vm)?
            .shown_in(config.mirror.clone());
        let functions = Functions::new(&instance.next, physical, load);
        Ok((Self { functions, node, claimed: AtomicU64::new(0) }, address_space))
    }

    /// Gives a resource its addresses: nothing is bound in them.
    fn open_window(
        &self,
        sparse: &Sparse,
        range: VaRange,
        residency: Option<Residency>,
    ) -> Result<(), WindowError> {
        let claim = |claimed: u64| claimed.checked_add(range.len).filter(|&sum| sum <= SPARSE_ADDRESS_SPACE);
        self.claimed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim)
            .map_err(|_| WindowError::Full)?;
        let unclaim = || self.claimed.fetch_sub(range.len, Ordering::Relaxed);
        if let Err(error) = self.node.add_window(range.start..range.end()) {
            unclaim();
            return Err(WindowError::Refused(error));
        }
        if let Err(error) = sparse.address_space.add_window(range, residency) {
            self.node.remove_window(range.start..range.end());
            unclaim();
            return Err(error.into());
        }
        Ok(())
    }

    /// Takes a resource's addresses away, with whatever is bound there.
    fn close_window(&self, sparse: &Sparse, range: VaRange) {
        // Nobody can be told of a failure: the addresses go to somebody else. A moment's lack of memory may be over at the second try.
        let unbound =
            sparse.address_space.remove_window(range).or_else(|_| sparse.address_space.remove_window(range));
        if let Err(error) = unbound {
            sparse.address_space.lose(&format!("a resource's addresses could not be unbound: {error}"));
        }
        self.node.remove_window(range.start..range.end());
        self.claimed.fetch_sub(range.len, Ordering::Relaxed);
    }
}

impl Icd for Lavapipe {
    unsafe fn create_buffer(
        &self,
        d: &Device,
        sparse: &Sparse,
        info: &vk::BufferCreateInfo<'_>,
        allocator: Option<&vk::AllocationCallbacks<'_>>,
    ) -> Result<(vk::Buffer, Buffer), CreateError> {
        // SAFETY: the caller's promise.
        unsafe { self.make_buffer(d, sparse, info, allocator) }
    }

    fn release_buffer(&self, d: &Device, sparse: &Sparse, buffer: &Buffer) {
        self.close_window(sparse, buffer.range);
        if let Some(plain) = &buffer.plain {
            plain.release(d);
        }
    }

    unsafe fn buffer_requirements(
        &self,
        info: &vk::BufferCreateInfo<'_>,
        ask: &mut dyn FnMut(&vk::BufferCreateInfo<'_>) -> vk::MemoryRequirements,
    ) -> Option<vk::MemoryRequirements> {
        // SAFETY: the caller's promise.
        let plain = unsafe { buffer::PlainInfo::new(info) };
        Some(buffer::requirements(info.size, ask(plain.info())))
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
        for plane in &image.planes {
            self.close_window(sparse, plane.range);
        }
    }

    unsafe fn image_requirements(
        &self,
        d: &Device,
        info: &vk::ImageCreateInfo<'_>,
    ) -> Option<ImageRequirements> {
        let residency = info.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY);
        let sparse = residency.then(|| image::requirements(d, info).ok()).flatten().unwrap_or_default();
        Some(ImageRequirements { memory: None, sparse })
    }

    fn backing(
        &self,
        d: &Device,
        memory: vk::DeviceMemory,
        size: u64,
        mapped: Option<MappedAt>,
    ) -> Result<Backing, MemoryError> {
        // The driver maps memory as a whole, so any mapping of the application's leads to byte 0. Otherwise the layer maps for the
        // moment of the import.
        let start = match mapped {
            Some(MappedAt(start)) => start,
            None => {
                let flags = vk::MemoryMapFlags::empty();
                // SAFETY: memory of this device that is not mapped.
                unsafe { d.next.map_memory(memory, 0, vk::WHOLE_SIZE, flags) }
                    .map_err(MemoryError::Map)?
                    .cast()
            }
        };
        // SAFETY: the driver maps whole pages; the mapping lives until the memory is freed, and the import keeps what it needs.
        let imported = unsafe { self.node.import_host(start, size) };
        if mapped.is_none() {
            // SAFETY: mapped above.
            unsafe { d.next.unmap_memory(memory) };
        }
        let offset = self.node.mmap_offset();
        Ok(Backing::Owned(BufferObject::from_handle(self.node.clone(), imported?, size, offset)))
    }

    fn bind_queue(&self, d: &Device, number: u32) -> Result<Arc<dyn BindQueue>, vk::Result> {
        Ok(Arc::new(cpu::Queue::new(&d.next, number)?))
    }

    fn rewrites_shaders(&self) -> bool {
        true
    }

    fn map_calls(&self) -> u64 {
        self.node.counters().map_calls
    }
}

/// An open file of the emulated device, and the VM that is its first.
fn open_kernel(config: &Config) -> Result<(Arc<Node>, Arc<dyn kmd::Vm>), kmd::Errno> {
    let device =
        emulator::Config { unbound: config.unbound, faults: config.faults, execute: !config.map_nothing };
    if config.kernel == Kernel::EmulatedMsm {
        let node = Node::msm(Gpu::A750, device)?;
        Ok((node.clone(), Arc::new(MsmVm::create(node)?)))
    } else {
        let node = Node::panthor(device)?;
        Ok((node.clone(), Arc::new(PanthorVm::create(node)?)))
    }
}

/// Compares the mirror with the page table of the node's first VM.
fn verifier(node: Arc<Node>) -> Verifier {
    Box::new(move |mirror| {
        let kernel = node.mappings(1);
        for n in 0..mirror.len().max(kernel.len()) {
            let (mine, theirs) = (mirror.get(n), kernel.get(n));
            let mine_there = mine.map(|mine| {
                let target = match mine.target {
                    gpuvm::Target::Null => None,
                    gpuvm::Target::Object { object, offset } => Some((object, offset)),
                };
                (mine.range.start, target, mine.range.len)
            });
            let theirs_there = theirs.map(|theirs| (theirs.va, theirs.bo, theirs.len));
            if mine_there != theirs_there {
                return Err(Difference {
                    at: first_difference(mine_there, theirs_there),
                    what: format!("the page table has {theirs:x?}, the mirror {mine:x?}"),
                });
            }
        }
        Ok(())
    })
}

/// The first address that two lists do not have in common, whose next runs these are: where they start, what they show, how long they are.
fn first_difference<T: PartialEq>(a: Option<(u64, T, u64)>, b: Option<(u64, T, u64)>) -> u64 {
    match (a, b) {
        (Some(a), Some(b)) if (a.0, &a.1) == (b.0, &b.1) => a.0 + a.2.min(b.2),
        (a, b) => a.into_iter().chain(b).map(|(start, ..)| start).min().unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_where_one_list_goes_on() {
        let at = |a, b| first_difference(a, b);
        assert_eq!(at(Some((4, 'a', 2)), Some((4, 'b', 2))), 4);
        assert_eq!(at(Some((4, 'a', 2)), Some((3, 'a', 2))), 3);
        assert_eq!(at(Some((4, 'a', 2)), Some((4, 'a', 5))), 6);
        assert_eq!(at(None, Some((4, 'a', 5))), 4);
    }
}

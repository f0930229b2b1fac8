//! What the layer knows of each driver: where its resources are, how its memory is reached, how its queues wait. One file a driver.

pub mod direct;
pub mod forward;
pub mod lavapipe;
mod panvk;
pub mod turnip;

use crate::buffer::Buffer;
use crate::carrier::Backing;
use crate::chain::ChainCopy;
use crate::device::{Device, Sparse};
use crate::image::Image;
use crate::memory::{MappedAt, MemoryError};
use crate::payload::Payloads;
use crate::queue::BindQueue;
use crate::resource::CreateError;
use ash::vk;
use core::ffi::CStr;
use std::sync::Arc;

/// Who executes the binds of a physical device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// The driver; the layer stands aside.
    Aside,
    /// An emulated kernel, under lavapipe.
    Lavapipe,
    /// The driver, which is given the plan.
    Forward,
    /// The kernel's msm, under Turnip.
    Turnip {
        /// With residency of 2D images, which the driver does not offer.
        extra: bool,
    },
    /// The kernel's panthor, under PanVK.
    Panvk,
}

/// What the layer turns on for itself when a device is made.
pub struct Additions {
    /// Device extensions; the driver has them.
    pub extensions: &'static [&'static CStr],
    /// Structures of VkDeviceCreateInfo's chain that [`Self::edit`] may change.
    pub edited: &'static [vk::StructureType],
    /// Turns features on, in a copy of the chain.
    pub edit: fn(&mut ChainCopy),
    /// Takes core features back that the layer has and the driver does not, wherever they are.
    pub hide: Option<fn(&mut vk::PhysicalDeviceFeatures)>,
}

/// What images of a kind need, where that is not for the driver to say.
pub struct ImageRequirements {
    /// `None`: the driver's answer.
    pub memory: Option<vk::MemoryRequirements>,
    pub sparse: Vec<vk::SparseImageMemoryRequirements>,
}

/// Turns timeline semaphores on. A structure must not be chained twice: what the application has is edited in the copy, what it lacks is
/// added.
fn enable_timelines(chain: &mut ChainCopy) {
    if let Some(features) = chain.get_mut::<vk::PhysicalDeviceVulkan12Features<'_>>() {
        features.timeline_semaphore = vk::TRUE;
    } else if let Some(features) = chain.get_mut::<vk::PhysicalDeviceTimelineSemaphoreFeatures<'_>>() {
        features.timeline_semaphore = vk::TRUE;
    } else {
        chain.push_front(vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true));
    }
}

/// A driver's adapter on one device. Whatever it makes of the driver's stays the driver's.
pub trait Icd: Send + Sync {
    /// Makes a sparse buffer and learns where it is. The create info follows the specification's rules for sparse buffers.
    ///
    /// # Safety
    /// The arguments are valid.
    unsafe fn create_buffer(
        &self,
        d: &Device,
        sparse: &Sparse,
        info: &vk::BufferCreateInfo<'_>,
        allocator: Option<&vk::AllocationCallbacks<'_>>,
    ) -> Result<(vk::Buffer, Buffer), CreateError>;

    /// Takes the addresses of a buffer away, before the driver gives them back: they may belong to somebody else the next moment.
    fn release_buffer(&self, d: &Device, sparse: &Sparse, buffer: &Buffer);

    /// What a sparse buffer with this create info needs, where that is not for the driver to say: `ask` gives the driver's answer for
    /// another create info.
    ///
    /// # Safety
    /// The create info is valid.
    unsafe fn buffer_requirements(
        &self,
        _info: &vk::BufferCreateInfo<'_>,
        _ask: &mut dyn FnMut(&vk::BufferCreateInfo<'_>) -> vk::MemoryRequirements,
    ) -> Option<vk::MemoryRequirements> {
        None
    }

    /// Makes a sparse image and learns where it is. The create info follows the specification's rules for sparse images.
    ///
    /// # Safety
    /// The arguments are valid.
    unsafe fn create_image(
        &self,
        d: &Device,
        sparse: &Sparse,
        info: &vk::ImageCreateInfo<'_>,
        allocator: Option<&vk::AllocationCallbacks<'_>>,
    ) -> Result<(vk::Image, Image), CreateError>;

    /// Takes the addresses of an image away, before the driver gives them back: they may belong to somebody else the next moment.
    fn release_image(&self, sparse: &Sparse, image: &Image);

    /// What a sparse image with this create info needs, where that is not for the driver to say.
    ///
    /// # Safety
    /// The create info is valid.
    unsafe fn image_requirements(
        &self,
        _d: &Device,
        _info: &vk::ImageCreateInfo<'_>,
    ) -> Option<ImageRequirements> {
        None
    }

    /// What is behind memory of `size` bytes, of which the application has byte 0 mapped at `mapped`. Asked once, at the first bind.
    fn backing(
        &self,
        d: &Device,
        memory: vk::DeviceMemory,
        size: u64,
        mapped: Option<MappedAt>,
    ) -> Result<Backing, MemoryError>;

    /// Semaphores and fences as the kernel knows them, where binds are the kernel's.
    fn payloads(&self) -> Option<&Payloads> {
        None
    }

    /// Whether memory has to be exportable for the layer to bind it.
    fn exports_memory(&self) -> bool {
        false
    }

    /// Whether what is bound stays so when its memory is freed: its mappings keep it.
    fn keeps_freed_memory(&self) -> bool {
        false
    }

    /// A queue that binds; `number` names it in the log of the address space.
    fn bind_queue(&self, d: &Device, number: u32) -> Result<Arc<dyn BindQueue>, vk::Result>;

    /// Whether batches that cannot be planned go to the driver as they are.
    fn passes_on(&self) -> bool {
        false
    }

    /// Whether shaders have to be rewritten so that their residency codes come right.
    fn rewrites_shaders(&self) -> bool {
        false
    }

    /// Calls that changed the process's mappings, where an emulated kernel makes such.
    fn map_calls(&self) -> u64 {
        0
    }
}

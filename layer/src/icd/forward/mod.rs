//! Any driver that has sparse binding, and no adapter that knows more of it: the planned result goes down as a rewritten
//! vkQueueBindSparse.
//!
//! The driver's resources are its own, and so is all that it says of them. The mirror keeps what is bound under addresses that the
//! layer makes up ([`places`]); the plan's operations become the fewest binds again ([`rewrite`], [`boxes`]).

mod boxes;
mod image;
mod places;
mod queue;
mod rewrite;
#[cfg(test)]
mod tests;

use super::Icd;
use crate::address_space::AddressSpace;
use crate::buffer::Buffer;
use crate::carrier::{Backing, Follow};
use crate::device::{Device, SetupError, Sparse};
use crate::image::Image;
use crate::instance::Instance;
use crate::layout::BLOCK;
use crate::memory::{MappedAt, MemoryError};
use crate::mirror::Mirror;
use crate::queue::BindQueue;
use crate::resource::CreateError;
use ash::vk;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use gpuvm::{OpKind, VaRange};
use kmd::Limits;
use places::{Part, Places, Resource, Tail};
use std::sync::Arc;

/// The addresses that the layer makes up: every byte can be bound alone, and a call is as long as it has to be.
const LIMITS: Limits = Limits {
    page_size: 1,
    va: 0..places::END,
    kernel: None,
    max_ops: usize::MAX,
    null_mapping: true,
    block_size: 2 << 20,
    remap_in_use: false,
    prefers_at_once: false,
    last_first: false,
    shares_tables: false,
    cost: kmd::Cost { op: 1, table: 0, entry: 0, pages: 0 },
};

/// The adapter of drivers that nothing is known of but what Vulkan says.
pub struct Forward {
    places: Arc<Places>,
    /// Whether the device has more than one queue that binds.
    has_queues: bool,
    /// Bytes that an opaque bind of an image must not exceed. lavapipe marks only the first 64 KiB of one as resident, and does not stop
    /// at the end of a plane.
    opaque_step: Option<u64>,
    /// Whether the log has been told of images that are not planned.
    told: AtomicBool,
}

impl Forward {
    /// The adapter of a device that was created with these queues, and its address space.
    pub fn start(
        instance: &Instance,
        physical: vk::PhysicalDevice,
        queues: &[vk::DeviceQueueCreateInfo<'_>],
    ) -> Result<(Self, AddressSpace), SetupError> {
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        // SAFETY: a physical device of this instance.
        unsafe { instance.next.get_physical_device_properties2(physical, &mut properties) };
        let opaque_step = (driver.driver_id == vk::DriverId::MESA_LLVMPIPE).then_some(BLOCK);
        let config = instance.config;
        if config.verify {
            tracing::warn!(
                "TESSERA_VERIFY: the driver binds by itself, there is no page table to compare with"
            );
        }
        let address_space = AddressSpace::new(&LIMITS, Mirror::staged, Box::new(Follow), None, config.vm_log)
            .map_err(SetupError::Vm)?;
        let places = Arc::new(Places::new(places::END));
        let has_queues = bind_queues(instance, physical, queues) > 1;
        let told = AtomicBool::new(false);
        Ok((Self { places, has_queues, opaque_step, told }, address_space.forgetting()))
    }

    /// Gives a resource its addresses: nothing is bound in them.
    fn open(
        &self,
        sparse: &Sparse,
        resource: Resource,
        parts: Vec<(u64, Part)>,
        tails: Vec<Tail>,
    ) -> Result<Vec<VaRange>, CreateError> {
        let bytes = parts.iter().map(|(len, _)| len).sum();
        let ranges = self.places.add(resource, parts, tails).ok_or(CreateError::AddressSpace(bytes))?;
        for (opened, &range) in ranges.iter().enumerate() {
            if let Err(error) = sparse.address_space.insert_window(range) {
                self.close(sparse, ranges[0].start, ranges[..opened].iter().copied());
                return Err(CreateError::Bind(error));
            }
        }
        Ok(ranges)
    }

    /// Takes a resource's addresses away; `start` is where its first part is.
    fn close(&self, sparse: &Sparse, start: u64, ranges: impl Iterator<Item = VaRange>) {
        for range in ranges {
            if let Err(error) = sparse.address_space.forget_window(range) {
                sparse.address_space.lose(&format!("a resource's addresses could not be forgotten: {error}"));
            }
        }
        self.places.remove(start);
    }
}

/// How many of a device's queues bind.
fn bind_queues(
    instance: &Instance,
    physical: vk::PhysicalDevice,
    queues: &[vk::DeviceQueueCreateInfo<'_>],
) -> u32 {
    // SAFETY: a physical device of this instance.
    let families = unsafe { instance.next.get_physical_device_queue_family_properties(physical) };
    let binds = |info: &&vk::DeviceQueueCreateInfo<'_>| {
        let family = families.get(info.queue_family_index as usize);
        family.is_some_and(|family| family.queue_flags.contains(vk::QueueFlags::SPARSE_BINDING))
    };
    queues.iter().filter(binds).map(|info| info.queue_count).sum()
}

impl Icd for Forward {
    unsafe fn create_buffer(
        &self,
        d: &Device,
        sparse: &Sparse,
        info: &vk::BufferCreateInfo<'_>,
        allocator: Option<&vk::AllocationCallbacks<'_>>,
    ) -> Result<(vk::Buffer, Buffer), CreateError> {
        // SAFETY: the application's valid arguments, handed on.
        let handle = unsafe { d.next.create_buffer(info, allocator) }
            .map_err(|result| CreateError::Driver { call: "vkCreateBuffer", result })?;
        // SAFETY: a new buffer.
        let needs = unsafe { d.next.get_buffer_memory_requirements(handle) };
        let part = Part::Bytes { offset: 0, flags: vk::SparseMemoryBindFlags::empty(), step: None };
        match self.open(sparse, Resource::Buffer(handle), vec![(needs.size, part)], Vec::new()) {
            Ok(ranges) => {
                let alignment = needs.alignment;
                let buffer = Buffer {
                    size: info.size,
                    range: ranges[0],
                    alignment,
                    unbound: OpKind::Null,
                    requirements: None,
                    plain: None,
                };
                Ok((handle, buffer))
            }
            Err(error) => {
                // SAFETY: the buffer was made here and nobody knows it.
                unsafe { d.next.destroy_buffer(handle, allocator) };
                Err(error)
            }
        }
    }

    fn release_buffer(&self, _d: &Device, sparse: &Sparse, buffer: &Buffer) {
        self.close(sparse, buffer.range.start, core::iter::once(buffer.range));
    }

    unsafe fn create_image(
        &self,
        d: &Device,
        sparse: &Sparse,
        info: &vk::ImageCreateInfo<'_>,
        allocator: Option<&vk::AllocationCallbacks<'_>>,
    ) -> Result<(vk::Image, Image), CreateError> {
        // SAFETY: the application's valid arguments, handed on.
        let handle = unsafe { d.next.create_image(info, allocator) }
            .map_err(|result| CreateError::Driver { call: "vkCreateImage", result })?;
        // SAFETY: a new sparse image.
        let (needs, sparse_needs) = unsafe {
            let needs = d.next.get_image_memory_requirements(handle);
            (needs, d.next.get_image_sparse_memory_requirements(handle))
        };
        let shape = image::Shape::new(info, needs, &sparse_needs);
        if shape.as_is && !self.told.swap(true, Relaxed) {
            tracing::info!(
                "{:?}: what the driver says of its blocks does not fit the format; binds of such images' blocks are handed on as they are",
                info.format
            );
        }
        let (parts, tails) = shape.parts(self.opaque_step);
        match self.open(sparse, Resource::Image(handle), parts, tails) {
            Ok(ranges) => Ok((handle, shape.at(&ranges))),
            Err(error) => {
                // SAFETY: the image was made here and nobody knows it.
                unsafe { d.next.destroy_image(handle, allocator) };
                Err(error)
            }
        }
    }

    fn release_image(&self, sparse: &Sparse, image: &Image) {
        let ranges = image.opaque.iter().copied();
        let ranges = ranges.chain(image.planes.iter().map(|plane| plane.range).filter(|range| range.len > 0));
        let ranges = ranges.chain(image.regions.iter().map(|region| region.range));
        self.close(sparse, image.opaque[0].start, ranges);
    }

    fn backing(
        &self,
        _d: &Device,
        memory: vk::DeviceMemory,
        _size: u64,
        _mapped: Option<MappedAt>,
    ) -> Result<Backing, MemoryError> {
        Ok(Backing::Memory(memory))
    }

    fn bind_queue(&self, _d: &Device, number: u32) -> Result<Arc<dyn BindQueue>, vk::Result> {
        Ok(Arc::new(queue::Queue::new(number, self.has_queues, self.places.clone())))
    }

    fn passes_on(&self) -> bool {
        true
    }
}

//! A device with sparse binding, as any application makes one.

use crate::node::Node;
use anyhow::{Context as _, Result, bail, ensure};
use ash::vk;
use oracle::mark::{NAMES, mark};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a sparse block.
pub const BLOCK: u64 = 64 << 10;
/// Bytes of the memory that steps bind. Drivers offer no more than a part of a small machine's memory.
pub const POOL: u64 = 64 << 20;
/// Bytes of the resource that shows what unbound pages are.
const SIZE_OF_UNBOUND: u64 = 4 << 20;

/// The device, a queue that binds, and memory to bind.
pub struct Gpu {
    _entry: ash::Entry,
    instance: ash::Instance,
    physical: vk::PhysicalDevice,
    pub device: ash::Device,
    pub features: vk::PhysicalDeviceFeatures,
    /// Of a family that binds and does nothing else.
    pub queue: vk::Queue,
    /// Of one that draws, too.
    pub other: vk::Queue,
    /// Whether that one binds, too.
    pub other_binds: bool,
    pub driver: vk::DriverId,
    pub memory: vk::DeviceMemory,
    /// How much memory has a name.
    names: AtomicU32,
    pub node: Node,
}

/// What a batch waits for and signals; values count for timelines.
#[derive(Clone, Copy, Default)]
pub struct Points<'a> {
    pub waits: &'a [(vk::Semaphore, u64)],
    pub signals: &'a [(vk::Semaphore, u64)],
}

impl Gpu {
    pub fn new() -> Result<Self> {
        // SAFETY: the system's loader; this function and the ones below follow Vulkan's rules for the handles that they make.
        unsafe {
            let entry = ash::Entry::load().context("the Vulkan loader")?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let info = vk::InstanceCreateInfo::default().application_info(&application);
            let instance = entry.create_instance(&info, None)?;
            let physical = instance.enumerate_physical_devices()?;
            let physical = *physical.first().context("no Vulkan device")?;
            let features = instance.get_physical_device_features(physical);
            ensure!(features.sparse_binding == vk::TRUE, "the driver has no sparse binding");
            let families = instance.get_physical_device_queue_family_properties(physical);
            let with = |wanted: vk::QueueFlags, not: vk::QueueFlags| {
                let found = families.iter().position(|family| {
                    family.queue_flags.contains(wanted) && !family.queue_flags.intersects(not)
                });
                found.map(|index| index as u32).context("no such queue family")
            };
            let sparse = with(vk::QueueFlags::SPARSE_BINDING, vk::QueueFlags::GRAPHICS)?;
            let general = with(vk::QueueFlags::GRAPHICS, vk::QueueFlags::empty())?;
            let other_binds = families[general as usize].queue_flags.contains(vk::QueueFlags::SPARSE_BINDING);
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
            instance.get_physical_device_properties2(physical, &mut properties);
            let driver = driver.driver_id;
            let priorities = [1.0];
            let queues = [sparse, general].map(|family| {
                vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&priorities)
            });
            let mut timelines =
                vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
            let extensions =
                [ash::khr::external_semaphore_fd::NAME.as_ptr(), ash::khr::external_memory_fd::NAME.as_ptr()];
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_features(&features)
                .enabled_extension_names(&extensions)
                .push_next(&mut timelines);
            let node = Node::find();
            let device = instance.create_device(physical, &info, None)?;
            let (queue, other) = (device.get_device_queue(sparse, 0), device.get_device_queue(general, 0));
            let mut gpu = Self {
                _entry: entry,
                instance,
                physical,
                device,
                features,
                queue,
                other,
                other_binds,
                driver,
                memory: vk::DeviceMemory::null(),
                names: AtomicU32::new(0),
                node,
            };
            gpu.learn()?;
            gpu.memory = gpu.allocate(POOL)?;
            Ok(gpu)
        }
    }

    /// Has the node learn where the device's VM is, from a buffer that nobody binds.
    fn learn(&self) -> Result<()> {
        let Some(real) = self.node.real() else { return Ok(()) };
        // SAFETY: nothing uses it.
        let destroy = |buffer| unsafe { self.device.destroy_buffer(buffer, None) };
        // What is left unbound in it are all pages that null mappings have: they repeat after 2 MiB.
        real.learn(|| self.residency_buffer(SIZE_OF_UNBOUND), destroy)
    }

    /// Memory to be bound. On a real kernel each of its pages has a mark, by which it is told in page tables.
    pub fn allocate(&self, size: u64) -> Result<vk::DeviceMemory> {
        let info = vk::MemoryAllocateInfo::default().allocation_size(size);
        // SAFETY: a valid allocate info; the new memory is nobody else's, and marked within its size while it is mapped.
        unsafe {
            let heaps = || self.instance.get_physical_device_memory_properties(self.physical).memory_heaps[0];
            let memory = self.device.allocate_memory(&info, None);
            let memory = memory.with_context(|| format!("{size} bytes of memory of {:?}", heaps()))?;
            if self.node.real().is_some() {
                let name = self.names.fetch_add(1, Ordering::Relaxed);
                ensure!(name < NAMES, "too much memory to have names");
                let start = self.device.map_memory(memory, 0, size, vk::MemoryMapFlags::empty())?;
                mark(start.cast(), size, name);
                self.device.unmap_memory(memory);
            }
            Ok(memory)
        }
    }

    /// Memory that is allocated from now on has the same names as in other runs of the step.
    pub fn name_anew(&self) {
        // The pool is the first.
        self.names.store(1, Ordering::Relaxed);
    }

    /// The instance's function of this name, of an extension of the device.
    pub fn semaphore_fd(&self) -> ash::khr::external_semaphore_fd::Device {
        ash::khr::external_semaphore_fd::Device::new(&self.instance, &self.device)
    }

    /// As [`Self::semaphore_fd`].
    pub fn memory_fd(&self) -> ash::khr::external_memory_fd::Device {
        ash::khr::external_memory_fd::Device::new(&self.instance, &self.device)
    }

    pub fn buffer(&self, size: u64, flags: vk::BufferCreateFlags) -> Result<vk::Buffer> {
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::TRANSFER_DST;
        let flags = flags | vk::BufferCreateFlags::SPARSE_BINDING;
        let info = vk::BufferCreateInfo::default().flags(flags).size(size).usage(usage);
        // SAFETY: a valid create info.
        Ok(unsafe { self.device.create_buffer(&info, None)? })
    }

    /// A buffer with residency, whose memory may be bound in two places; without what the driver does not have.
    pub fn residency_buffer(&self, size: u64) -> Result<vk::Buffer> {
        let mut flags = vk::BufferCreateFlags::empty();
        if self.features.sparse_residency_buffer == vk::TRUE {
            flags |= vk::BufferCreateFlags::SPARSE_RESIDENCY;
        }
        if self.features.sparse_residency_aliased == vk::TRUE {
            flags |= vk::BufferCreateFlags::SPARSE_ALIASED;
        }
        self.buffer(size, flags)
    }

    /// Whether there are 2D images of this format with residency. Turnip makes them on hardware, too, for which it does not say so: there it
    /// shows what the layer has to come to.
    pub fn has_residency(&self, format: vk::Format) -> bool {
        let offered = self.features.sparse_residency_image2_d == vk::TRUE;
        let (ty, tiling) = (vk::ImageType::TYPE_2D, vk::ImageTiling::OPTIMAL);
        // SAFETY: a physical device of the instance.
        let properties = unsafe {
            self.instance.get_physical_device_image_format_properties(
                self.physical,
                format,
                ty,
                tiling,
                IMAGE_USAGE,
                RESIDENCY,
            )
        };
        (offered || self.driver == vk::DriverId::MESA_TURNIP) && properties.is_ok()
    }

    /// What is said of residency of 2D images of a format.
    pub fn sparse_properties(&self, format: vk::Format) -> Vec<vk::SparseImageFormatProperties> {
        // SAFETY: a physical device of the instance.
        unsafe {
            self.instance.get_physical_device_sparse_image_format_properties(
                self.physical,
                format,
                vk::ImageType::TYPE_2D,
                vk::SampleCountFlags::TYPE_1,
                IMAGE_USAGE,
                vk::ImageTiling::OPTIMAL,
            )
        }
    }

    pub fn image(&self, format: vk::Format, size: [u32; 2], levels: u32, layers: u32) -> Result<vk::Image> {
        // SAFETY: a valid create info.
        Ok(unsafe { self.device.create_image(&image_info(format, size, levels, layers), None)? })
    }

    /// What an image of this kind needs, which is not there yet.
    pub fn needs(
        &self,
        format: vk::Format,
        size: [u32; 2],
        levels: u32,
        layers: u32,
    ) -> (vk::MemoryRequirements, Vec<vk::SparseImageMemoryRequirements>) {
        let info = image_info(format, size, levels, layers);
        let query = vk::DeviceImageMemoryRequirements::default().create_info(&info);
        let mut memory = vk::MemoryRequirements2::default();
        // SAFETY: a valid create info.
        let sparse = unsafe {
            self.device.get_device_image_memory_requirements(&query, &mut memory);
            let count = self.device.get_device_image_sparse_memory_requirements_len(&query);
            let mut sparse = vec![vk::SparseImageMemoryRequirements2::default(); count];
            self.device.get_device_image_sparse_memory_requirements(&query, &mut sparse);
            sparse
        };
        (memory.memory_requirements, sparse.iter().map(|sparse| sparse.memory_requirements).collect())
    }

    /// Binds, and waits until that is done.
    pub fn bind(&self, infos: &[vk::BindSparseInfo<'_>]) -> Result<()> {
        // SAFETY: valid infos; nobody else uses the queue.
        unsafe {
            let fence = self.device.create_fence(&vk::FenceCreateInfo::default(), None)?;
            self.device.queue_bind_sparse(self.queue, infos, fence)?;
            let waited = self.device.wait_for_fences(&[fence], true, 10_000_000_000);
            self.device.destroy_fence(fence, None);
            match waited {
                Ok(()) => Ok(()),
                Err(vk::Result::TIMEOUT) => bail!("a bind does not end"),
                Err(error) => Err(error.into()),
            }
        }
    }

    /// Binds, with semaphores and a fence, and waits for nothing. One thread at a time may use a queue.
    pub fn submit(
        &self,
        queue: vk::Queue,
        bind: Option<(vk::Buffer, vk::SparseMemoryBind)>,
        points: Points<'_>,
        fence: vk::Fence,
    ) -> Result<()> {
        let split = |points: &[(vk::Semaphore, u64)]| -> (Vec<_>, Vec<_>) { points.iter().copied().unzip() };
        let (waits, signals) = (split(points.waits), split(points.signals));
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&waits.1)
            .signal_semaphore_values(&signals.1);
        let bind = bind.map(|(buffer, bind)| (buffer, [bind]));
        let buffers: Vec<_> = bind
            .iter()
            .map(|(buffer, binds)| vk::SparseBufferMemoryBindInfo::default().buffer(*buffer).binds(binds))
            .collect();
        let info = vk::BindSparseInfo::default()
            .wait_semaphores(&waits.0)
            .buffer_binds(&buffers)
            .signal_semaphores(&signals.0)
            .push_next(&mut values);
        // SAFETY: valid arguments; one thread uses the queue.
        unsafe { self.device.queue_bind_sparse(queue, &[info], fence)? };
        Ok(())
    }

    pub fn bind_buffer(&self, buffer: vk::Buffer, binds: &[vk::SparseMemoryBind]) -> Result<()> {
        let buffers = [vk::SparseBufferMemoryBindInfo::default().buffer(buffer).binds(binds)];
        self.bind(&[vk::BindSparseInfo::default().buffer_binds(&buffers)])
    }

    pub fn bind_blocks(&self, image: vk::Image, binds: &[vk::SparseImageMemoryBind]) -> Result<()> {
        let images = [vk::SparseImageMemoryBindInfo::default().image(image).binds(binds)];
        self.bind(&[vk::BindSparseInfo::default().image_binds(&images)])
    }

    pub fn bind_opaque(&self, image: vk::Image, binds: &[vk::SparseMemoryBind]) -> Result<()> {
        let images = [vk::SparseImageOpaqueMemoryBindInfo::default().image(image).binds(binds)];
        self.bind(&[vk::BindSparseInfo::default().image_opaque_binds(&images)])
    }

    /// A bind of a buffer's bytes.
    pub fn part(&self, offset: u64, size: u64, memory_offset: u64) -> vk::SparseMemoryBind {
        vk::SparseMemoryBind::default()
            .resource_offset(offset)
            .size(size)
            .memory(self.memory)
            .memory_offset(memory_offset)
    }

    pub fn timeline(&self) -> Result<vk::Semaphore> {
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: a valid create info.
        Ok(unsafe { self.device.create_semaphore(&info, None)? })
    }

    pub fn semaphore(&self) -> Result<vk::Semaphore> {
        // SAFETY: a valid create info.
        Ok(unsafe { self.device.create_semaphore(&vk::SemaphoreCreateInfo::default(), None)? })
    }

    pub fn fence(&self) -> Result<vk::Fence> {
        // SAFETY: a valid create info.
        Ok(unsafe { self.device.create_fence(&vk::FenceCreateInfo::default(), None)? })
    }

    /// Signals a timeline by the host.
    pub fn signal(&self, semaphore: vk::Semaphore, value: u64) -> Result<()> {
        let info = vk::SemaphoreSignalInfo::default().semaphore(semaphore).value(value);
        // SAFETY: a timeline of the device, whose value grows.
        unsafe { self.device.signal_semaphore(&info)? };
        Ok(())
    }

    /// Waits until a timeline has come to a value.
    pub fn wait(&self, semaphore: vk::Semaphore, value: u64) -> Result<()> {
        let (semaphores, values) = ([semaphore], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: a semaphore of the device.
        unsafe { self.device.wait_semaphores(&info, 10_000_000_000) }.context("a semaphore is not signalled")
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: what steps made they have destroyed, and nothing runs any more.
        unsafe {
            self.device.free_memory(self.memory, None);
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

const IMAGE_USAGE: vk::ImageUsageFlags = vk::ImageUsageFlags::from_raw(
    vk::ImageUsageFlags::SAMPLED.as_raw() | vk::ImageUsageFlags::TRANSFER_DST.as_raw(),
);
const RESIDENCY: vk::ImageCreateFlags = vk::ImageCreateFlags::from_raw(
    vk::ImageCreateFlags::SPARSE_BINDING.as_raw() | vk::ImageCreateFlags::SPARSE_RESIDENCY.as_raw(),
);

fn image_info(format: vk::Format, size: [u32; 2], levels: u32, layers: u32) -> vk::ImageCreateInfo<'static> {
    vk::ImageCreateInfo::default()
        .flags(RESIDENCY)
        .image_type(vk::ImageType::TYPE_2D)
        .format(format)
        .extent(vk::Extent3D { width: size[0], height: size[1], depth: 1 })
        .mip_levels(levels)
        .array_layers(layers)
        .samples(vk::SampleCountFlags::TYPE_1)
        .usage(IMAGE_USAGE)
}

/// No memory.
pub fn unbind(offset: u64, size: u64) -> vk::SparseMemoryBind {
    vk::SparseMemoryBind::default().resource_offset(offset).size(size)
}

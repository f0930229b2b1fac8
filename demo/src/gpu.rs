//! The Vulkan device: instance, queues, memory and the one timeline that orders everything.

use std::collections::HashSet;
use std::ffi::CStr;

use anyhow::{Context as _, Result, anyhow, bail};
use ash::vk;

use crate::pool::{Layout, TILE};

/// The format of texture and picture.
pub(crate) const FORMAT: vk::Format = vk::Format::R8G8B8A8_UNORM;

/// How the texture is used. Reading back is part of it, so that tiles can be verified.
pub(crate) const TEXTURE_USAGE: vk::ImageUsageFlags = vk::ImageUsageFlags::from_raw(
    vk::ImageUsageFlags::SAMPLED.as_raw()
        | vk::ImageUsageFlags::TRANSFER_DST.as_raw()
        | vk::ImageUsageFlags::TRANSFER_SRC.as_raw(),
);

/// A device with one queue that draws and one (perhaps the same) that binds.
pub(crate) struct Gpu {
    // Keeps the loader's library mapped.
    _entry: ash::Entry,
    instance: ash::Instance,
    pub(crate) device: ash::Device,
    memory: vk::PhysicalDeviceMemoryProperties,
    pub(crate) name: String,
    /// The driver runs on the CPU: device memory is ordinary memory and images are stored uncompressed.
    cpu: bool,
    pub(crate) draw_family: u32,
    pub(crate) bind_family: u32,
    draw_queue: vk::Queue,
    bind_queue: vk::Queue,
    timeline: vk::Semaphore,
    /// The value that the last submission signals.
    last: u64,
    pool: vk::CommandPool,
}

/// What a physical device is good for.
struct Candidate {
    physical: vk::PhysicalDevice,
    name: String,
    cpu: bool,
    draw_family: u32,
    bind_family: u32,
}

impl Gpu {
    /// Opens the first device that can do what the flight needs.
    ///
    /// # Errors
    /// Says for every device what it lacks, and how to get a driver that has it.
    pub(crate) fn open(layout: Layout) -> Result<Self> {
        // SAFETY: the library is the system's Vulkan loader, whose initialisers are meant to be run.
        let entry = unsafe { ash::Entry::load() }
            .context("there is no Vulkan loader on this machine: install the Debian package libvulkan1")?;
        let application =
            vk::ApplicationInfo::default().application_name(c"tessera-demo").api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `info` and what it points at live through the call.
        let instance = unsafe { entry.create_instance(&info, None) }.map_err(|error| match error {
            vk::Result::ERROR_INCOMPATIBLE_DRIVER => anyhow!(NO_DRIVER),
            vk::Result::ERROR_LAYER_NOT_PRESENT => anyhow!(
                "a layer that VK_INSTANCE_LAYERS names cannot be loaded; VK_LOADER_DEBUG=error,layer tells why"
            ),
            error => anyhow!("vkCreateInstance fails: {error}"),
        })?;
        let candidate = choose(&instance, layout)?;
        Self::with_device(entry, instance, candidate)
    }

    fn with_device(entry: ash::Entry, instance: ash::Instance, candidate: Candidate) -> Result<Self> {
        let families: HashSet<u32> = [candidate.draw_family, candidate.bind_family].into();
        let queues: Vec<_> = families
            .iter()
            .map(|family| {
                vk::DeviceQueueCreateInfo::default().queue_family_index(*family).queue_priorities(&[1.0])
            })
            .collect();
        let core = vk::PhysicalDeviceFeatures::default().sparse_binding(true).sparse_residency_image2_d(true);
        let mut features12 = vk::PhysicalDeviceVulkan12Features::default().timeline_semaphore(true);
        let mut features13 =
            vk::PhysicalDeviceVulkan13Features::default().synchronization2(true).dynamic_rendering(true);
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_features(&core)
            .push_next(&mut features12)
            .push_next(&mut features13);
        // SAFETY: the physical device is of this instance; `info` lives through the call.
        let device = unsafe { instance.create_device(candidate.physical, &info, None) }
            .map_err(|error| anyhow!("vkCreateDevice fails on {}: {error}", candidate.name))?;
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let pool_info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(candidate.draw_family);
        // SAFETY: all handles are of this device and instance, the structures live through the calls.
        let (draw_queue, bind_queue, timeline, pool, memory) = unsafe {
            (
                device.get_device_queue(candidate.draw_family, 0),
                device.get_device_queue(candidate.bind_family, 0),
                device.create_semaphore(&vk::SemaphoreCreateInfo::default().push_next(&mut kind), None)?,
                device.create_command_pool(&pool_info, None)?,
                instance.get_physical_device_memory_properties(candidate.physical),
            )
        };
        Ok(Self {
            _entry: entry,
            instance,
            device,
            memory,
            name: candidate.name,
            cpu: candidate.cpu,
            draw_family: candidate.draw_family,
            bind_family: candidate.bind_family,
            draw_queue,
            bind_queue,
            timeline,
            last: 0,
            pool,
        })
    }

    /// A command buffer that can be recorded again and again.
    pub(crate) fn command_buffer(&self) -> Result<vk::CommandBuffer> {
        let info = vk::CommandBufferAllocateInfo::default().command_pool(self.pool).command_buffer_count(1);
        // SAFETY: the pool is of this device.
        Ok(unsafe { self.device.allocate_command_buffers(&info) }?[0])
    }

    /// Records `commands` with `record`, runs them after everything submitted so far, and waits until they are done.
    pub(crate) fn run(
        &mut self,
        commands: vk::CommandBuffer,
        record: impl FnOnce(&ash::Device),
    ) -> Result<()> {
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        let buffers = [vk::CommandBufferSubmitInfo::default().command_buffer(commands)];
        let at = |value| {
            [vk::SemaphoreSubmitInfo::default()
                .semaphore(self.timeline)
                .value(value)
                .stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)]
        };
        let (waits, signals) = (at(self.last), at(self.last + 1));
        let submit = vk::SubmitInfo2::default()
            .wait_semaphore_infos(&waits)
            .command_buffer_infos(&buffers)
            .signal_semaphore_infos(&signals);
        // SAFETY: the command buffer is of this device and idle, because every run is waited for; the queue is used by
        // this thread alone.
        unsafe {
            self.device.begin_command_buffer(commands, &begin)?;
            record(&self.device);
            self.device.end_command_buffer(commands)?;
            self.device.queue_submit2(self.draw_queue, &[submit], vk::Fence::null())?;
        }
        self.last += 1;
        self.wait()
    }

    /// Hands sparse binds to the bind queue, after everything submitted so far, and waits until they are in force.
    pub(crate) fn bind_sparse(&mut self, info: vk::BindSparseInfo<'_>) -> Result<()> {
        let semaphores = [self.timeline];
        let (waits, signals) = ([self.last], [self.last + 1]);
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&waits)
            .signal_semaphore_values(&signals);
        let info = info.wait_semaphores(&semaphores).signal_semaphores(&semaphores).push_next(&mut values);
        // SAFETY: the caller's binds point at live objects of this device; the queue is used by this thread alone.
        unsafe { self.device.queue_bind_sparse(self.bind_queue, &[info], vk::Fence::null()) }
            .map_err(|error| anyhow!("vkQueueBindSparse fails: {error}"))?;
        self.last += 1;
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        let (semaphores, values) = ([self.timeline], [self.last]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the semaphore is of this device, the arrays live through the call.
        unsafe { self.device.wait_semaphores(&info, 30_000_000_000) }.map_err(|error| match error {
            vk::Result::TIMEOUT => anyhow!("the device has not finished its work within 30 s"),
            error => anyhow!("waiting for the device fails: {error}"),
        })
    }

    /// A memory type among `bits` with all of `wanted`.
    fn memory_type(&self, bits: u32, wanted: vk::MemoryPropertyFlags) -> Option<u32> {
        let types = self.memory.memory_types_as_slice();
        (0..types.len() as u32)
            .find(|index| bits & (1 << index) != 0 && types[*index as usize].property_flags.contains(wanted))
    }

    /// Memory for a resource; device-local if `bits` allow it.
    pub(crate) fn allocate(&self, size: u64, bits: u32) -> Result<vk::DeviceMemory> {
        let index = (self.memory_type(bits, vk::MemoryPropertyFlags::DEVICE_LOCAL))
            .or_else(|| self.memory_type(bits, vk::MemoryPropertyFlags::empty()))
            .context("the resource fits no memory type of the device")?;
        self.allocate_from(index, size)
    }

    /// Memory for tiles and, on a CPU driver, where it lies, so that one can look whether a tile is really there.
    pub(crate) fn allocate_pool(
        &self,
        size: u64,
        bits: u32,
    ) -> Result<(vk::DeviceMemory, Option<*const u8>)> {
        let visible = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        match self.memory_type(bits, visible).filter(|_| self.cpu) {
            Some(index) => {
                let memory = self.allocate_from(index, size)?;
                // SAFETY: the memory is new, of this device, and of a type that can be mapped.
                let address = unsafe {
                    self.device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())
                }?;
                Ok((memory, Some(address.cast_const().cast())))
            }
            None => Ok((self.allocate(size, bits)?, None)),
        }
    }

    fn allocate_from(&self, index: u32, size: u64) -> Result<vk::DeviceMemory> {
        let info = vk::MemoryAllocateInfo::default().allocation_size(size).memory_type_index(index);
        // SAFETY: the index is one of the device's.
        unsafe { self.device.allocate_memory(&info, None) }
            .map_err(|error| anyhow!("{} MiB of device memory cannot be had: {error}", size >> 20))
    }

    /// A buffer that the CPU sees all the time.
    pub(crate) fn host_buffer(&self, size: u64, usage: vk::BufferUsageFlags) -> Result<HostBuffer> {
        let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT;
        let info = vk::BufferCreateInfo::default().size(size).usage(usage);
        // SAFETY: plain creation, binding and mapping of objects of this device; `size` is what was asked for.
        unsafe {
            let buffer = self.device.create_buffer(&info, None)?;
            let needs = self.device.get_buffer_memory_requirements(buffer);
            let index = (self
                .memory_type(needs.memory_type_bits, wanted | vk::MemoryPropertyFlags::HOST_CACHED))
            .or_else(|| self.memory_type(needs.memory_type_bits, wanted))
            .context("the device has no memory that the CPU can see")?;
            let memory = self.allocate_from(index, needs.size)?;
            self.device.bind_buffer_memory(buffer, memory, 0)?;
            let address = self.device.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
            Ok(HostBuffer { buffer, memory, address: address.cast(), size: size as usize })
        }
    }

    /// An ordinary 2D image of one level with memory and a view.
    pub(crate) fn image(
        &self,
        format: vk::Format,
        extent: vk::Extent2D,
        usage: vk::ImageUsageFlags,
    ) -> Result<Image> {
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(format)
            .extent(vk::Extent3D { width: extent.width, height: extent.height, depth: 1 })
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .usage(usage);
        // SAFETY: plain creation of objects of this device.
        unsafe {
            let image = self.device.create_image(&info, None)?;
            let needs = self.device.get_image_memory_requirements(image);
            let memory = self.allocate(needs.size, needs.memory_type_bits)?;
            self.device.bind_image_memory(image, memory, 0)?;
            Ok(Image { image, memory, view: self.view(image, format, 1)? })
        }
    }

    /// A view of the first `levels` levels of a 2D colour image.
    pub(crate) fn view(&self, image: vk::Image, format: vk::Format, levels: u32) -> Result<vk::ImageView> {
        let info = vk::ImageViewCreateInfo::default()
            .image(image)
            .view_type(vk::ImageViewType::TYPE_2D)
            .format(format)
            .subresource_range(colour_range(levels));
        // SAFETY: the image is of this device.
        Ok(unsafe { self.device.create_image_view(&info, None) }?)
    }

    pub(crate) fn destroy_buffer(&self, buffer: &HostBuffer) {
        // SAFETY: every submission has been waited for, and the owner gives the buffer up.
        unsafe {
            self.device.destroy_buffer(buffer.buffer, None);
            self.device.free_memory(buffer.memory, None);
        }
    }

    pub(crate) fn destroy_image(&self, image: &Image) {
        // SAFETY: every submission has been waited for, and the owner gives the image up.
        unsafe {
            self.device.destroy_image_view(image.view, None);
            self.device.destroy_image(image.image, None);
            self.device.free_memory(image.memory, None);
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: everything made from the device has been destroyed by its owners; waiting covers work that an error
        // left behind.
        unsafe {
            let _ = self.device.device_wait_idle();
            self.device.destroy_semaphore(self.timeline, None);
            self.device.destroy_command_pool(self.pool, None);
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// A buffer in coherent memory, mapped.
pub(crate) struct HostBuffer {
    pub(crate) buffer: vk::Buffer,
    memory: vk::DeviceMemory,
    address: *mut u8,
    size: usize,
}

impl HostBuffer {
    /// The buffer's bytes. The device must be idle: `Gpu::run` waits, so it is.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is as long as the buffer and lives as long as it; `&mut self` keeps other CPU users away, and
        // the device only works inside `Gpu::run`.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.size) }
    }
}

/// An image, its memory and its view.
pub(crate) struct Image {
    pub(crate) image: vk::Image,
    memory: vk::DeviceMemory,
    pub(crate) view: vk::ImageView,
}

/// The first `levels` levels of a colour image.
pub(crate) fn colour_range(levels: u32) -> vk::ImageSubresourceRange {
    vk::ImageSubresourceRange::default()
        .aspect_mask(vk::ImageAspectFlags::COLOR)
        .level_count(levels)
        .layer_count(1)
}

const NO_DRIVER: &str = "the Vulkan loader finds no driver. On Debian 12 the software driver lavapipe with sparse residency is \
     mesa-vulkan-drivers 25.0.7 from bookworm-backports: apt install -t bookworm-backports mesa-vulkan-drivers";

fn choose(instance: &ash::Instance, layout: Layout) -> Result<Candidate> {
    // SAFETY: the instance is alive.
    let devices = unsafe { instance.enumerate_physical_devices() }.unwrap_or_default();
    if devices.is_empty() {
        bail!(NO_DRIVER);
    }
    let mut report = String::new();
    for physical in devices {
        match examine(instance, physical, layout) {
            Ok(candidate) => return Ok(candidate),
            Err((name, lacks)) => report += &format!("\n  {name}: {}", lacks.join(", ")),
        }
    }
    bail!(
        "no Vulkan device here can show the texture; each lacks something:{report}\nThe software driver lavapipe can since \
         Mesa 25.0 (Debian 12: apt install -t bookworm-backports mesa-vulkan-drivers)"
    )
}

/// What the flight needs of a device, or the device's name and what it lacks.
fn examine(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
    layout: Layout,
) -> Result<Candidate, (String, Vec<String>)> {
    // SAFETY: the physical device is of this instance.
    let properties = unsafe { instance.get_physical_device_properties(physical) };
    let name = properties.device_name_as_c_str().unwrap_or(c"unnamed device").to_string_lossy().into_owned();
    if properties.api_version < vk::API_VERSION_1_3 {
        let (major, minor) =
            (vk::api_version_major(properties.api_version), vk::api_version_minor(properties.api_version));
        return Err((name, vec![format!("Vulkan 1.3 (it has {major}.{minor})")]));
    }
    let mut features12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut features13 = vk::PhysicalDeviceVulkan13Features::default();
    let mut features =
        vk::PhysicalDeviceFeatures2::default().push_next(&mut features12).push_next(&mut features13);
    // SAFETY: as above; the chain lives through the call.
    unsafe { instance.get_physical_device_features2(physical, &mut features) };
    let core = features.features;
    let mut lacks: Vec<String> = [
        ("sparseBinding", core.sparse_binding),
        ("sparseResidencyImage2D", core.sparse_residency_image2_d),
        ("timelineSemaphore", features12.timeline_semaphore),
        ("synchronization2", features13.synchronization2),
        ("dynamicRendering", features13.dynamic_rendering),
    ]
    .into_iter()
    .filter(|(_, has)| *has == vk::FALSE)
    .map(|(feature, _)| feature.to_owned())
    .collect();

    if properties.limits.max_image_dimension2_d < layout.size {
        lacks.push(format!(
            "images of {0}x{0} (it has {1}; --texture takes less)",
            layout.size, properties.limits.max_image_dimension2_d
        ));
    }
    // SAFETY: as above.
    let (blocks, families) = unsafe {
        (
            instance.get_physical_device_sparse_image_format_properties(
                physical,
                FORMAT,
                vk::ImageType::TYPE_2D,
                vk::SampleCountFlags::TYPE_1,
                TEXTURE_USAGE,
                vk::ImageTiling::OPTIMAL,
            ),
            instance.get_physical_device_queue_family_properties(physical),
        )
    };
    if !blocks
        .iter()
        .any(|block| block.image_granularity.width == TILE && block.image_granularity.height == TILE)
    {
        lacks.push("standard 128x128 sparse blocks for RGBA8".to_owned());
    }
    let with = |flags: vk::QueueFlags| {
        (0..families.len()).find(|index| families[*index].queue_flags.contains(flags))
    };
    let draws = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
    let draw = with(draws | vk::QueueFlags::SPARSE_BINDING).or_else(|| with(draws));
    let bind = with(draws | vk::QueueFlags::SPARSE_BINDING).or_else(|| with(vk::QueueFlags::SPARSE_BINDING));
    match (draw, bind) {
        (Some(draw), Some(bind)) if lacks.is_empty() => {
            let cpu = properties.device_type == vk::PhysicalDeviceType::CPU;
            Ok(Candidate { physical, name, cpu, draw_family: draw as u32, bind_family: bind as u32 })
        }
        (_, None) => {
            lacks.push("a queue that binds sparse resources".to_owned());
            Err((name, lacks))
        }
        _ => Err((name, lacks)),
    }
}

/// Whether the loader lists an instance layer of this name. Also `false` when there is no loader.
pub(crate) fn layer_listed(name: &CStr) -> bool {
    // SAFETY: as in `Gpu::open`.
    let Ok(entry) = (unsafe { ash::Entry::load() }) else { return false };
    // SAFETY: the entry is alive.
    let layers = unsafe { entry.enumerate_instance_layer_properties() }.unwrap_or_default();
    layers.iter().any(|layer| layer.layer_name_as_c_str() == Ok(name))
}

/// Everything before happens before everything after, for all of an image of `levels` levels.
pub(crate) fn transition(
    device: &ash::Device,
    commands: vk::CommandBuffer,
    image: vk::Image,
    levels: u32,
    from: vk::ImageLayout,
    to: vk::ImageLayout,
) {
    let barriers = [vk::ImageMemoryBarrier2::default()
        .src_stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
        .src_access_mask(vk::AccessFlags2::MEMORY_WRITE)
        .dst_stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
        .dst_access_mask(vk::AccessFlags2::MEMORY_READ | vk::AccessFlags2::MEMORY_WRITE)
        .old_layout(from)
        .new_layout(to)
        .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
        .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
        .image(image)
        .subresource_range(colour_range(levels))];
    let dependency = vk::DependencyInfo::default().image_memory_barriers(&barriers);
    // SAFETY: the command buffer is being recorded outside of rendering, the image is of its device.
    unsafe { device.cmd_pipeline_barrier2(commands, &dependency) };
}

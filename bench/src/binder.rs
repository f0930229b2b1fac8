//! Turns a workload into calls of vkQueueBindSparse and times them.

use crate::gpu::Gpu;
use crate::node::page_table;
use crate::sample::{Counts, Sample};
use crate::workload::{Bind, Resource, Workload};
use anyhow::{Context, Result, ensure};
use ash::vk;

/// The handle of what is bound.
#[derive(Clone, Copy)]
enum Object {
    Buffer(vk::Buffer),
    Image(vk::Image),
}

/// A workload on a device: objects, and the structures of every call, made beforehand.
pub(crate) struct Binder<'gpu> {
    gpu: &'gpu Gpu,
    object: Object,
    memories: Vec<vk::DeviceMemory>,
    calls: Vec<Prepared>,
    /// Leads from anywhere to the state in which measuring starts; empty when the calls do so themselves.
    restore: Vec<Prepared>,
    start: Vec<Prepared>,
    started: bool,
    wait_each: bool,
    fence: bool,
    per: u32,
}

/// One call's structures. They point into each other's heap blocks, which a move leaves where they are; only `infos` is read.
struct Prepared {
    infos: Vec<vk::BindSparseInfo<'static>>,
    _of_buffers: Vec<(vk::SparseBufferMemoryBindInfo<'static>, Vec<vk::SparseMemoryBind>)>,
    _of_images: Vec<(vk::SparseImageMemoryBindInfo<'static>, Vec<vk::SparseImageMemoryBind>)>,
}

impl<'gpu> Binder<'gpu> {
    pub(crate) fn new(gpu: &'gpu Gpu, workload: &Workload) -> Result<Self> {
        let resource = workload.resource;
        let bytes = resource.bytes();
        let object = match resource {
            Resource::Buffer { .. } => Object::Buffer(create_buffer(gpu, bytes)?),
            Resource::Image { side } => Object::Image(create_image(gpu, side)?),
        };
        let memories = (0..workload.memories()).map(|_| gpu.allocate(bytes)).collect::<Result<Vec<_>>>()?;
        let prepare = |call: &Vec<Vec<Bind>>| Prepared::new(resource, object, &memories, call);
        let unbind = vec![vec![Bind { first: 0, count: resource.pages(), memory: None }]];
        let start = vec![prepare(&vec![workload.start.clone()])];
        let restore = if workload.is_closed() {
            vec![]
        } else {
            vec![prepare(&unbind), prepare(&vec![workload.start.clone()])]
        };
        let calls = workload.calls.iter().map(prepare).collect();
        let Workload { wait_each, fence, per, .. } = *workload;
        Ok(Self { gpu, object, memories, calls, restore, start, started: false, wait_each, fence, per })
    }

    /// Brings the resource to the state in which measuring starts.
    pub(crate) fn restore(&mut self) -> Result<()> {
        let calls = if self.started { &self.restore } else { &self.start };
        self.bind(calls, true)?;
        self.started = true;
        Ok(())
    }

    /// One measurement, per the workload's unit. Profilers collect from its beginning to its end (`callgrind --toggle-collect`).
    #[inline(never)]
    pub(crate) fn measure(&mut self) -> Result<Sample> {
        Ok(self.bind(&self.calls, self.wait_each)? / self.per)
    }

    fn bind(&self, calls: &[Prepared], wait_each: bool) -> Result<Sample> {
        let mut sample = Sample::default();
        let mut stretch = self.gpu.stretch();
        for (index, call) in calls.iter().enumerate() {
            let wait = wait_each || index + 1 == calls.len();
            self.submit(call, wait)?;
            if wait {
                sample += stretch.end(self.fence)?;
                stretch = self.gpu.stretch();
            }
        }
        Ok(sample)
    }

    /// The node's side of one measurement; every call is waited for. The resource was restored.
    pub(crate) fn count(&self) -> Result<Counts> {
        let node = self.gpu.node.as_ref().context("only the emulated node counts")?;
        let mut counts = Counts::default();
        let mut table = page_table(node)?;
        for call in &self.calls {
            let before = node.counters();
            self.submit(call, true)?;
            let called = node.counters();
            self.gpu.wait(self.fence)?;
            counts += Counts::between(&before, &called, &node.counters());
            let after = page_table(node)?;
            counts += Counts::fewest(&table, &after);
            table = after;
        }
        Ok(counts)
    }

    /// One call, after which there is a wait or not.
    fn submit(&self, call: &Prepared, wait: bool) -> Result<()> {
        let fence = if wait && self.fence { self.gpu.fence } else { vk::Fence::null() };
        // SAFETY: the structures and the objects they name live in `self`; this thread alone uses queue and fence.
        Ok(unsafe { self.gpu.device.queue_bind_sparse(self.gpu.queue, &call.infos, fence) }?)
    }
}

impl Drop for Binder<'_> {
    fn drop(&mut self) {
        let device = &self.gpu.device;
        // SAFETY: the queue is idle, so that nothing uses the objects, which were made for this workload alone.
        unsafe {
            let _ = device.queue_wait_idle(self.gpu.queue);
            match self.object {
                Object::Buffer(buffer) => device.destroy_buffer(buffer, None),
                Object::Image(image) => device.destroy_image(image, None),
            }
            self.memories.iter().for_each(|memory| device.free_memory(*memory, None));
        }
    }
}

fn create_buffer(gpu: &Gpu, bytes: u64) -> Result<vk::Buffer> {
    let create = vk::BufferCreateInfo::default()
        .flags(vk::BufferCreateFlags::SPARSE_BINDING | vk::BufferCreateFlags::SPARSE_RESIDENCY)
        .size(bytes)
        .usage(vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::TRANSFER_DST);
    // SAFETY: the device has sparse residency of buffers enabled.
    Ok(unsafe { gpu.device.create_buffer(&create, None) }?)
}

fn create_image(gpu: &Gpu, blocks: u32) -> Result<vk::Image> {
    let side = blocks * 128;
    let create = vk::ImageCreateInfo::default()
        .flags(vk::ImageCreateFlags::SPARSE_BINDING | vk::ImageCreateFlags::SPARSE_RESIDENCY)
        .image_type(vk::ImageType::TYPE_2D)
        .format(vk::Format::R8G8B8A8_UNORM)
        .extent(vk::Extent3D { width: side, height: side, depth: 1 })
        // The last level may be the mip tail, which has no blocks.
        .mip_levels(2)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .usage(vk::ImageUsageFlags::SAMPLED | vk::ImageUsageFlags::TRANSFER_DST);
    // SAFETY: the device has sparse residency of 2D images enabled.
    let image = unsafe { gpu.device.create_image(&create, None) }?;
    // SAFETY: the image was just made.
    let needs = unsafe { gpu.device.get_image_sparse_memory_requirements(image) };
    let block = needs.first().context("a sparse image without blocks")?.format_properties.image_granularity;
    ensure!(
        (block.width, block.height) == (128, 128),
        "blocks are {}x{} texels, not 128x128",
        block.width,
        block.height
    );
    Ok(image)
}

impl Prepared {
    fn new(resource: Resource, object: Object, memories: &[vk::DeviceMemory], call: &[Vec<Bind>]) -> Self {
        let source = |bind: &Bind| match bind.memory {
            Some(page) => {
                let (memory, page) = (page / resource.pages(), page % resource.pages());
                (memories[memory as usize], u64::from(page) * resource.page())
            }
            None => (vk::DeviceMemory::null(), 0),
        };
        // Lists without binds are not allowed in a VkBindSparseInfo: they become batches without lists.
        let count = |binds: &[Bind]| u32::from(!binds.is_empty());
        let mut prepared = Self { infos: vec![], _of_buffers: vec![], _of_images: vec![] };
        match object {
            Object::Buffer(buffer) => {
                let of_buffer = |binds: &Vec<Bind>| {
                    let list: Vec<_> =
                        binds.iter().map(|bind| buffer_bind(resource, bind, source(bind))).collect();
                    let (bind_count, p_binds) = (list.len() as u32, list.as_ptr());
                    let info =
                        vk::SparseBufferMemoryBindInfo { buffer, bind_count, p_binds, ..Default::default() };
                    (info, list)
                };
                prepared._of_buffers = call.iter().map(of_buffer).collect();
                prepared.infos = call
                    .iter()
                    .zip(&prepared._of_buffers)
                    .map(|(binds, (info, _))| vk::BindSparseInfo {
                        buffer_bind_count: count(binds),
                        p_buffer_binds: info,
                        ..Default::default()
                    })
                    .collect();
            }
            Object::Image(image) => {
                let of_image = |binds: &Vec<Bind>| {
                    let list: Vec<_> =
                        binds.iter().map(|bind| image_bind(resource, bind, source(bind))).collect();
                    let (bind_count, p_binds) = (list.len() as u32, list.as_ptr());
                    let info =
                        vk::SparseImageMemoryBindInfo { image, bind_count, p_binds, ..Default::default() };
                    (info, list)
                };
                prepared._of_images = call.iter().map(of_image).collect();
                prepared.infos = call
                    .iter()
                    .zip(&prepared._of_images)
                    .map(|(binds, (info, _))| vk::BindSparseInfo {
                        image_bind_count: count(binds),
                        p_image_binds: info,
                        ..Default::default()
                    })
                    .collect();
            }
        }
        prepared
    }
}

fn buffer_bind(
    resource: Resource,
    bind: &Bind,
    (memory, memory_offset): (vk::DeviceMemory, u64),
) -> vk::SparseMemoryBind {
    vk::SparseMemoryBind {
        resource_offset: u64::from(bind.first) * resource.page(),
        size: u64::from(bind.count) * resource.page(),
        memory,
        memory_offset,
        flags: vk::SparseMemoryBindFlags::empty(),
    }
}

fn image_bind(
    resource: Resource,
    bind: &Bind,
    (memory, memory_offset): (vk::DeviceMemory, u64),
) -> vk::SparseImageMemoryBind {
    let side = resource.pages().isqrt();
    let blocks = if bind.count == 1 { 1 } else { side };
    assert_eq!(bind.count, blocks * blocks, "an image bind is a block or the level");
    let (x, y) = (bind.first % side, bind.first / side);
    vk::SparseImageMemoryBind {
        subresource: vk::ImageSubresource {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            mip_level: 0,
            array_layer: 0,
        },
        offset: vk::Offset3D { x: (x * 128) as i32, y: (y * 128) as i32, z: 0 },
        extent: vk::Extent3D { width: blocks * 128, height: blocks * 128, depth: 1 },
        memory,
        memory_offset,
        flags: vk::SparseMemoryBindFlags::empty(),
    }
}

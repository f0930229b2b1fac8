//! A small Vulkan program's tool box: instance, device, queues, and an owner for everything that is created on the way.
//!
//! The functions take raw handles. They are meant for handles of the same [`Gpu`]; the suite's bad-input cases hand in
//! others on purpose, which is what these cases test.

mod bind;
mod compute;
mod draw;
mod external;
mod image;
mod memory;
pub(crate) mod messages;
mod need;
mod shader;

pub(crate) use bind::{Batch, image_bind, memory_bind};
pub(crate) use compute::{Bound, Dispatch};
pub(crate) use draw::{Draw, VertexInput};
pub(crate) use external::{Burn, HostPages};
pub(crate) use image::{Format, ImageSpec, Kind, find_format, level_extent, region};
pub(crate) use memory::{Mapped, MemorySpec};
pub(crate) use need::Need;
pub(crate) use shader::{Shader, shaders};

use crate::outcome::{Called as _, Outcome, Stop};
use ash::vk;
use need::Enable;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Vulkan 1.3: what the suite is written against.
const API_VERSION: u32 = vk::API_VERSION_1_3;

/// The pattern that the suite fills memory with; `shaders/suite/pattern.glsl` computes the same.
pub(crate) fn pattern(seed: u32, index: u32) -> u32 {
    let state =
        index.wrapping_mul(747_796_405).wrapping_add(seed.wrapping_mul(2_891_336_453)).wrapping_add(1);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// A Vulkan instance and, where asked for, its messenger.
pub(crate) struct Instance {
    pub(crate) raw: ash::Instance,
    messenger: Option<(ash::ext::debug_utils::Instance, vk::DebugUtilsMessengerEXT)>,
    // Dropped last: it holds the loader's library.
    pub(crate) entry: ash::Entry,
}

impl Instance {
    /// Creates an instance, with a messenger when `validation` is on.
    pub(crate) fn new(validation: bool) -> Outcome<Self> {
        // SAFETY: the library is the Vulkan loader, whose initialisers do nothing unsound.
        let entry = unsafe { ash::Entry::load() }.map_err(|error| {
            Stop::Fail(format!("cannot load the Vulkan loader ({error}): install the package libvulkan1"))
        })?;
        let application = vk::ApplicationInfo::default()
            .application_name(c"tessera suite")
            .engine_name(c"tessera suite")
            .api_version(API_VERSION);
        let mut messenger_info = messages::messenger_info();
        // The first for its names of commands that are core by now; every loader has it.
        let names =
            [ash::khr::get_physical_device_properties2::NAME.as_ptr(), ash::ext::debug_utils::NAME.as_ptr()];
        let mut info = vk::InstanceCreateInfo::default()
            .application_info(&application)
            .enabled_extension_names(&names[..1 + usize::from(validation)]);
        if validation {
            info = info.push_next(&mut messenger_info);
        }
        // SAFETY: the structures live until the call returns.
        let raw = unsafe { entry.create_instance(&info, None) }.called("vkCreateInstance")?;
        let mut this = Self { raw, messenger: None, entry };
        if validation {
            let utils = ash::ext::debug_utils::Instance::new(&this.entry, &this.raw);
            // SAFETY: the extension is enabled; the callback is a static function.
            let messenger = unsafe { utils.create_debug_utils_messenger(&messages::messenger_info(), None) }
                .called("vkCreateDebugUtilsMessengerEXT")?;
            this.messenger = Some((utils, messenger));
        }
        Ok(this)
    }

    /// The first physical device that has `sparseBinding`; without any, the first one.
    pub(crate) fn physical_device(&self) -> Outcome<vk::PhysicalDevice> {
        // SAFETY: the instance is alive.
        let all = unsafe { self.raw.enumerate_physical_devices() }.called("vkEnumeratePhysicalDevices")?;
        let sparse = |&physical: &vk::PhysicalDevice| {
            // SAFETY: `physical` is this instance's.
            unsafe { self.raw.get_physical_device_features(physical) }.sparse_binding == vk::TRUE
        };
        let found = all.iter().copied().find(sparse).or(all.first().copied());
        found.ok_or_else(|| {
            Stop::Fail("no Vulkan device: install the package mesa-vulkan-drivers (25.0 or later)".to_owned())
        })
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: nothing of the instance is in use any more: a Gpu drops its device before its instance.
        unsafe {
            if let Some((utils, messenger)) = &self.messenger {
                utils.destroy_debug_utils_messenger(*messenger, None);
            }
            self.raw.destroy_instance(None);
        }
    }
}

/// A queue and its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) handle: vk::Queue,
    pub(crate) family: u32,
}

/// Something that is destroyed with the device unless a case destroys it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owned {
    Buffer(vk::Buffer),
    BufferView(vk::BufferView),
    DescriptorPool(vk::DescriptorPool),
    DescriptorSetLayout(vk::DescriptorSetLayout),
    Fence(vk::Fence),
    Framebuffer(vk::Framebuffer),
    Image(vk::Image),
    ImageView(vk::ImageView),
    Memory(vk::DeviceMemory),
    Pipeline(vk::Pipeline),
    PipelineLayout(vk::PipelineLayout),
    RenderPass(vk::RenderPass),
    Sampler(vk::Sampler),
    Semaphore(vk::Semaphore),
}

/// A device with a queue for commands, the queues that take binds, and everything created on it.
pub(crate) struct Gpu {
    pub(crate) raw: ash::Device,
    pub(crate) physical: vk::PhysicalDevice,
    pub(crate) properties: vk::PhysicalDeviceProperties,
    pub(crate) memory_properties: vk::PhysicalDeviceMemoryProperties,
    /// Runs command buffers.
    pub(crate) work: Queue,
    /// Every queue that takes `vkQueueBindSparse`; the first is `work` where `work` takes binds.
    pub(crate) sparse: Vec<Queue>,
    /// Whether buffer device addresses are on, so that memory needs the flag for them.
    addresses: bool,
    /// Handle types of external memory that buffers are made for from now on.
    external: Mutex<vk::ExternalMemoryHandleTypeFlags>,
    pool: vk::CommandPool,
    owned: Mutex<Vec<Owned>>,
    pipelines: Mutex<HashMap<&'static str, compute::Pipeline>>,
    sampler: vk::Sampler,
    comparing_sampler: vk::Sampler,
    /// Queues and the command pool are externally synchronised.
    queues: Mutex<()>,
    pub(crate) instance: Instance,
}

impl Gpu {
    /// Creates instance and device with everything that `needs` names.
    pub(crate) fn new(needs: &[Need], validation: bool) -> Outcome<Self> {
        let instance = Instance::new(validation)?;
        let physical = instance.physical_device()?;
        let mut enable = Enable::new(&instance.raw, physical, needs)?;
        // SAFETY: `physical` is the instance's.
        let (families, properties, memory_properties) = unsafe {
            (
                instance.raw.get_physical_device_queue_family_properties(physical),
                instance.raw.get_physical_device_properties(physical),
                instance.raw.get_physical_device_memory_properties(physical),
            )
        };
        let work_family = families
            .iter()
            .position(|family| {
                family.queue_flags.contains(vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE)
            })
            .ok_or_else(|| Stop::NotSupported("no queue family for graphics and compute".to_owned()))?;
        let takes_binds = |index: usize| families[index].queue_flags.contains(vk::QueueFlags::SPARSE_BINDING);
        let wanted: Vec<usize> =
            (0..families.len()).filter(|&index| index == work_family || takes_binds(index)).collect();
        let priorities =
            vec![1.0; families.iter().map(|family| family.queue_count as usize).max().unwrap_or(1)];
        let queue_infos: Vec<_> = wanted
            .iter()
            .map(|&index| {
                vk::DeviceQueueCreateInfo::default()
                    .queue_family_index(index as u32)
                    .queue_priorities(&priorities[..families[index].queue_count as usize])
            })
            .collect();
        let extensions: Vec<_> = enable.extensions.iter().map(|name| name.as_ptr()).collect();
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queue_infos)
            .enabled_extension_names(&extensions)
            .enabled_features(&enable.core)
            .push_next(&mut enable.v11)
            .push_next(&mut enable.v12)
            .push_next(&mut enable.v13);
        // SAFETY: the structures live until the call returns; what they enable is offered.
        let raw = unsafe { instance.raw.create_device(physical, &info, None) }.called("vkCreateDevice")?;

        let mut sparse = Vec::new();
        let mut work = None;
        for &index in &wanted {
            for number in 0..families[index].queue_count {
                // SAFETY: family and number were asked for above.
                let handle = unsafe { raw.get_device_queue(index as u32, number) };
                let queue = Queue { handle, family: index as u32 };
                if index == work_family && number == 0 {
                    work = Some(queue);
                }
                if takes_binds(index) {
                    sparse.push(queue);
                }
            }
        }
        let work = work.ok_or_else(|| Stop::Fail("the queue family for work has no queue".to_owned()))?;
        sparse.sort_by_key(|queue| *queue != work);
        let mut this = Self {
            raw,
            physical,
            properties,
            memory_properties,
            work,
            sparse,
            addresses: enable.v12.buffer_device_address == vk::TRUE,
            external: Mutex::default(),
            pool: vk::CommandPool::null(),
            owned: Mutex::default(),
            pipelines: Mutex::default(),
            sampler: vk::Sampler::null(),
            comparing_sampler: vk::Sampler::null(),
            queues: Mutex::default(),
            instance,
        };
        if this.sparse.is_empty() {
            crate::outcome::fail!("sparseBinding is offered but no queue family has SPARSE_BINDING");
        }
        if needs.contains(&Need::TwoSparseQueues) && this.sparse.len() < 2 {
            return Err(Stop::NotSupported("one queue takes binds".to_owned()));
        }
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::TRANSIENT | vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER)
            .queue_family_index(work.family);
        // SAFETY: the device is alive and has the family.
        this.pool = unsafe { this.raw.create_command_pool(&info, None) }.called("vkCreateCommandPool")?;
        let info = vk::SamplerCreateInfo::default().max_lod(vk::LOD_CLAMP_NONE);
        // SAFETY: the device is alive.
        this.sampler = unsafe { this.raw.create_sampler(&info, None) }.called("vkCreateSampler")?;
        this.own(Owned::Sampler(this.sampler));
        let info = info.compare_enable(true).compare_op(vk::CompareOp::LESS_OR_EQUAL);
        // SAFETY: the device is alive.
        this.comparing_sampler = unsafe { this.raw.create_sampler(&info, None) }.called("vkCreateSampler")?;
        this.own(Owned::Sampler(this.comparing_sampler));
        Ok(this)
    }

    /// Holds the queues and the command pool: both are externally synchronised.
    pub(crate) fn lock_queues(&self) -> MutexGuard<'_, ()> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes buffers from now on for memory with these external handle types.
    pub(crate) fn make_buffers_external(&self, types: vk::ExternalMemoryHandleTypeFlags) {
        *self.external.lock().unwrap_or_else(PoisonError::into_inner) = types;
    }

    /// Hands an object to the device's end.
    pub(crate) fn own(&self, object: Owned) {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).push(object);
    }

    /// Destroys an object now.
    pub(crate) fn destroy(&self, object: Owned) {
        self.owned.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != object);
        // SAFETY: the object is this device's, no longer owned, and the case has waited for what used it.
        unsafe { self.destroy_raw(object) };
    }

    /// # Safety
    /// `object` is this device's, is not in use, and is not destroyed again.
    unsafe fn destroy_raw(&self, object: Owned) {
        let device = &self.raw;
        // SAFETY: promised by the caller.
        unsafe {
            match object {
                Owned::Buffer(handle) => device.destroy_buffer(handle, None),
                Owned::BufferView(handle) => device.destroy_buffer_view(handle, None),
                Owned::DescriptorPool(handle) => device.destroy_descriptor_pool(handle, None),
                Owned::DescriptorSetLayout(handle) => device.destroy_descriptor_set_layout(handle, None),
                Owned::Fence(handle) => device.destroy_fence(handle, None),
                Owned::Framebuffer(handle) => device.destroy_framebuffer(handle, None),
                Owned::Image(handle) => device.destroy_image(handle, None),
                Owned::ImageView(handle) => device.destroy_image_view(handle, None),
                Owned::Memory(handle) => device.free_memory(handle, None),
                Owned::Pipeline(handle) => device.destroy_pipeline(handle, None),
                Owned::PipelineLayout(handle) => device.destroy_pipeline_layout(handle, None),
                Owned::RenderPass(handle) => device.destroy_render_pass(handle, None),
                Owned::Sampler(handle) => device.destroy_sampler(handle, None),
                Owned::Semaphore(handle) => device.destroy_semaphore(handle, None),
            }
        }
    }

    /// Records a command buffer, submits it to the work queue and waits until it is done.
    pub(crate) fn run(&self, record: impl FnOnce(vk::CommandBuffer)) -> Outcome {
        let fence = self.fence()?;
        let command = self.submit(&[], &[], fence, record)?;
        self.wait_fence(fence)?;
        self.destroy(Owned::Fence(fence));
        self.free_command(command);
        Ok(())
    }

    /// Records a command buffer and submits it to the work queue with semaphores (with a value where it is a timeline
    /// semaphore). The command buffer stays until [`Gpu::free_command`] or the end of the device.
    pub(crate) fn submit(
        &self,
        waits: &[(vk::Semaphore, Option<u64>)],
        signals: &[(vk::Semaphore, Option<u64>)],
        fence: vk::Fence,
        record: impl FnOnce(vk::CommandBuffer),
    ) -> Outcome<vk::CommandBuffer> {
        self.submit_to(self.work, self.pool, waits, signals, fence, record)
    }

    /// As [`Gpu::submit`], to another queue, with a command buffer from a pool of its family.
    pub(crate) fn submit_to(
        &self,
        queue: Queue,
        pool: vk::CommandPool,
        waits: &[(vk::Semaphore, Option<u64>)],
        signals: &[(vk::Semaphore, Option<u64>)],
        fence: vk::Fence,
        record: impl FnOnce(vk::CommandBuffer),
    ) -> Outcome<vk::CommandBuffer> {
        let _guard = self.lock_queues();
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool is alive and locked; the structures live until each call returns.
        unsafe {
            let command = self.raw.allocate_command_buffers(&info).called("vkAllocateCommandBuffers")?[0];
            let begin =
                vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
            self.raw.begin_command_buffer(command, &begin).called("vkBeginCommandBuffer")?;
            record(command);
            // Everything that a case reads on the host or with the next command buffer is made visible here.
            self.barrier(command);
            self.raw.end_command_buffer(command).called("vkEndCommandBuffer")?;

            let wait_handles: Vec<_> = waits.iter().map(|wait| wait.0).collect();
            let wait_values: Vec<_> = waits.iter().map(|wait| wait.1.unwrap_or(0)).collect();
            let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
            let signal_handles: Vec<_> = signals.iter().map(|signal| signal.0).collect();
            let signal_values: Vec<_> = signals.iter().map(|signal| signal.1.unwrap_or(0)).collect();
            let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
                .wait_semaphore_values(&wait_values)
                .signal_semaphore_values(&signal_values);
            let commands = [command];
            let mut info = vk::SubmitInfo::default()
                .command_buffers(&commands)
                .wait_semaphores(&wait_handles)
                .wait_dst_stage_mask(&stages)
                .signal_semaphores(&signal_handles);
            if waits.iter().chain(signals).any(|semaphore| semaphore.1.is_some()) {
                info = info.push_next(&mut timeline);
            }
            self.raw.queue_submit(queue.handle, &[info], fence).called("vkQueueSubmit")?;
            Ok(command)
        }
    }

    /// Gives a command buffer back that is no longer pending.
    pub(crate) fn free_command(&self, command: vk::CommandBuffer) {
        let _guard = self.lock_queues();
        // SAFETY: the command buffer is of this pool and its execution was waited for.
        unsafe { self.raw.free_command_buffers(self.pool, &[command]) };
    }

    /// Orders everything before against everything after, and makes it visible.
    pub(crate) fn barrier(&self, command: vk::CommandBuffer) {
        let all =
            vk::MemoryBarrier::default().src_access_mask(vk::AccessFlags::MEMORY_WRITE).dst_access_mask(
                vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE | vk::AccessFlags::HOST_READ,
            );
        // SAFETY: the command buffer is recording, outside of a render pass.
        unsafe {
            self.raw.cmd_pipeline_barrier(
                command,
                vk::PipelineStageFlags::ALL_COMMANDS,
                vk::PipelineStageFlags::ALL_COMMANDS | vk::PipelineStageFlags::HOST,
                vk::DependencyFlags::empty(),
                &[all],
                &[],
                &[],
            );
        }
    }

    /// Waits until the device is idle.
    pub(crate) fn wait_idle(&self) -> Outcome {
        let _guard = self.lock_queues();
        // SAFETY: the queues are locked.
        unsafe { self.raw.device_wait_idle() }.called("vkDeviceWaitIdle")
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // A case that failed may have left work behind. A lost device answers with an error and is destroyed all the same.
        let _ = self.wait_idle();
        let owned = std::mem::take(&mut *self.owned.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: the device is idle, each object is destroyed once, in the reverse order of creation.
        unsafe {
            self.raw.destroy_command_pool(self.pool, None);
            for object in owned.into_iter().rev() {
                self.destroy_raw(object);
            }
            self.raw.destroy_device(None);
        }
    }
}

//! `vkQueueBindSparse`, semaphores and fences.

use super::{Gpu, Owned, Queue};
use crate::outcome::{Called as _, Outcome, fail};
use ash::vk;
use std::time::Duration;

/// How long a fence or a semaphore may take: less than a case's time limit, so that the message says what hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// One `VkBindSparseInfo`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    buffers: Vec<(vk::Buffer, Vec<vk::SparseMemoryBind>)>,
    opaque: Vec<(vk::Image, Vec<vk::SparseMemoryBind>)>,
    images: Vec<(vk::Image, Vec<vk::SparseImageMemoryBind>)>,
    waits: Vec<(vk::Semaphore, Option<u64>)>,
    signals: Vec<(vk::Semaphore, Option<u64>)>,
    device_group: Option<(u32, u32)>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn buffer(mut self, buffer: vk::Buffer, binds: Vec<vk::SparseMemoryBind>) -> Self {
        self.buffers.push((buffer, binds));
        self
    }

    pub(crate) fn opaque(mut self, image: vk::Image, binds: Vec<vk::SparseMemoryBind>) -> Self {
        self.opaque.push((image, binds));
        self
    }

    pub(crate) fn image(mut self, image: vk::Image, binds: Vec<vk::SparseImageMemoryBind>) -> Self {
        self.images.push((image, binds));
        self
    }

    /// Waits for a semaphore: for a value where it is a timeline semaphore.
    pub(crate) fn wait(mut self, semaphore: vk::Semaphore, value: Option<u64>) -> Self {
        self.waits.push((semaphore, value));
        self
    }

    /// Signals a semaphore: a value where it is a timeline semaphore.
    pub(crate) fn signal(mut self, semaphore: vk::Semaphore, value: Option<u64>) -> Self {
        self.signals.push((semaphore, value));
        self
    }

    /// Adds `VkDeviceGroupBindSparseInfo` with these resource and memory device indices.
    pub(crate) fn device_group(mut self, resource: u32, memory: u32) -> Self {
        self.device_group = Some((resource, memory));
        self
    }
}

/// Binds `size` bytes of a resource from `resource_offset` on to `memory` from `memory_offset` on; no memory unbinds.
pub(crate) fn memory_bind(
    resource_offset: u64,
    size: u64,
    memory: Option<(vk::DeviceMemory, u64)>,
) -> vk::SparseMemoryBind {
    let (memory, memory_offset) = memory.unwrap_or_default();
    vk::SparseMemoryBind {
        resource_offset,
        size,
        memory,
        memory_offset,
        flags: vk::SparseMemoryBindFlags::empty(),
    }
}

/// Binds a box of texels of one subresource to `memory`; no memory unbinds.
pub(crate) fn image_bind(
    subresource: vk::ImageSubresource,
    offset: [u32; 3],
    extent: [u32; 3],
    memory: Option<(vk::DeviceMemory, u64)>,
) -> vk::SparseImageMemoryBind {
    let (memory, memory_offset) = memory.unwrap_or_default();
    let [x, y, z] = offset.map(|value| value as i32);
    let [width, height, depth] = extent;
    vk::SparseImageMemoryBind {
        subresource,
        offset: vk::Offset3D { x, y, z },
        extent: vk::Extent3D { width, height, depth },
        memory,
        memory_offset,
        flags: vk::SparseMemoryBindFlags::empty(),
    }
}

impl Gpu {
    /// Calls `vkQueueBindSparse` with all of `batches` and hands its answer on.
    pub(crate) fn queue_bind(
        &self,
        queue: Queue,
        batches: &[Batch],
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        struct Arrays<'a> {
            buffers: Vec<vk::SparseBufferMemoryBindInfo<'a>>,
            opaque: Vec<vk::SparseImageOpaqueMemoryBindInfo<'a>>,
            images: Vec<vk::SparseImageMemoryBindInfo<'a>>,
            waits: Vec<vk::Semaphore>,
            signals: Vec<vk::Semaphore>,
            wait_values: Vec<u64>,
            signal_values: Vec<u64>,
        }
        let arrays: Vec<Arrays<'_>> = batches
            .iter()
            .map(|batch| Arrays {
                buffers: batch
                    .buffers
                    .iter()
                    .map(|(buffer, binds)| {
                        vk::SparseBufferMemoryBindInfo::default().buffer(*buffer).binds(binds)
                    })
                    .collect(),
                // The validation layer 1.3.239 reads as many opaque infos as there are buffer infos: empty ones follow.
                opaque: batch
                    .opaque
                    .iter()
                    .map(|(image, binds)| {
                        vk::SparseImageOpaqueMemoryBindInfo::default().image(*image).binds(binds)
                    })
                    .chain(batch.buffers.iter().map(|_| vk::SparseImageOpaqueMemoryBindInfo::default()))
                    .collect(),
                images: batch
                    .images
                    .iter()
                    .map(|(image, binds)| vk::SparseImageMemoryBindInfo::default().image(*image).binds(binds))
                    .collect(),
                waits: batch.waits.iter().map(|wait| wait.0).collect(),
                signals: batch.signals.iter().map(|signal| signal.0).collect(),
                wait_values: batch.waits.iter().map(|wait| wait.1.unwrap_or(0)).collect(),
                signal_values: batch.signals.iter().map(|signal| signal.1.unwrap_or(0)).collect(),
            })
            .collect();
        let mut chains: Vec<_> = batches
            .iter()
            .zip(&arrays)
            .map(|(batch, arrays)| {
                let group = batch.device_group.map(|(resource, memory)| {
                    vk::DeviceGroupBindSparseInfo::default()
                        .resource_device_index(resource)
                        .memory_device_index(memory)
                });
                let values =
                    batch.waits.iter().chain(&batch.signals).any(|semaphore| semaphore.1.is_some()).then(
                        || {
                            vk::TimelineSemaphoreSubmitInfo::default()
                                .wait_semaphore_values(&arrays.wait_values)
                                .signal_semaphore_values(&arrays.signal_values)
                        },
                    );
                (group, values)
            })
            .collect();
        let infos: Vec<_> = arrays
            .iter()
            .zip(batches)
            .zip(&mut chains)
            .map(|((arrays, batch), (group, values))| {
                let mut info = vk::BindSparseInfo::default()
                    .wait_semaphores(&arrays.waits)
                    .signal_semaphores(&arrays.signals);
                // An empty slice's pointer is not null, and the validation layer 1.3.239 looks at that alone.
                if !batch.buffers.is_empty() {
                    info = info.buffer_binds(&arrays.buffers);
                }
                if !batch.opaque.is_empty() {
                    info = info.image_opaque_binds(&arrays.opaque[..batch.opaque.len()]);
                }
                if !batch.images.is_empty() {
                    info = info.image_binds(&arrays.images);
                }
                if let Some(group) = group {
                    info = info.push_next(group);
                }
                if let Some(values) = values {
                    info = info.push_next(values);
                }
                info
            })
            .collect();
        let _guard = self.lock_queues();
        // SAFETY: the queue is locked; every array and chain lives until the call returns.
        unsafe { self.raw.queue_bind_sparse(queue.handle, &infos, fence) }
    }

    /// Binds on the first sparse queue with a fence, and waits for the fence.
    pub(crate) fn bind(&self, batches: &[Batch]) -> Outcome {
        let fence = self.fence()?;
        let result = self.queue_bind(self.sparse[0], batches, fence).called("vkQueueBindSparse");
        if result.is_ok() {
            self.wait_fence(fence)?;
        } else {
            // The validation layer 1.3.239 takes the fence of a refused bind to be in use until the queue is idle.
            let _idle_or_lost = self.wait_queue(self.sparse[0]);
        }
        self.destroy(Owned::Fence(fence));
        result
    }

    pub(crate) fn fence(&self) -> Outcome<vk::Fence> {
        // SAFETY: the device is alive.
        let fence = unsafe { self.raw.create_fence(&vk::FenceCreateInfo::default(), None) }
            .called("vkCreateFence")?;
        self.own(Owned::Fence(fence));
        Ok(fence)
    }

    /// Waits for a fence, but not for ever.
    pub(crate) fn wait_fence(&self, fence: vk::Fence) -> Outcome {
        // SAFETY: the fence is this device's.
        let result = unsafe { self.raw.wait_for_fences(&[fence], true, PATIENCE.as_nanos() as u64) };
        if result == Err(vk::Result::TIMEOUT) {
            fail!("a fence was not signalled within {PATIENCE:?}");
        }
        result.called("vkWaitForFences")
    }

    pub(crate) fn fence_signalled(&self, fence: vk::Fence) -> Outcome<bool> {
        // SAFETY: the fence is this device's.
        unsafe { self.raw.get_fence_status(fence) }.called("vkGetFenceStatus")
    }

    pub(crate) fn reset_fence(&self, fence: vk::Fence) -> Outcome {
        // SAFETY: the fence is this device's and not pending.
        unsafe { self.raw.reset_fences(&[fence]) }.called("vkResetFences")
    }

    /// A binary semaphore.
    pub(crate) fn semaphore(&self) -> Outcome<vk::Semaphore> {
        self.semaphore_with(
            &mut vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::BINARY),
        )
    }

    /// A timeline semaphore that starts at `value`.
    pub(crate) fn timeline(&self, value: u64) -> Outcome<vk::Semaphore> {
        self.semaphore_with(
            &mut vk::SemaphoreTypeCreateInfo::default()
                .semaphore_type(vk::SemaphoreType::TIMELINE)
                .initial_value(value),
        )
    }

    fn semaphore_with(&self, kind: &mut vk::SemaphoreTypeCreateInfo<'_>) -> Outcome<vk::Semaphore> {
        let info = vk::SemaphoreCreateInfo::default().push_next(kind);
        // SAFETY: the structures live until the call returns.
        let semaphore = unsafe { self.raw.create_semaphore(&info, None) }.called("vkCreateSemaphore")?;
        self.own(Owned::Semaphore(semaphore));
        Ok(semaphore)
    }

    /// Signals a timeline semaphore from the host.
    pub(crate) fn signal_timeline(&self, semaphore: vk::Semaphore, value: u64) -> Outcome {
        let info = vk::SemaphoreSignalInfo::default().semaphore(semaphore).value(value);
        // SAFETY: the semaphore is this device's.
        unsafe { self.raw.signal_semaphore(&info) }.called("vkSignalSemaphore")
    }

    /// Waits on the host until a timeline semaphore has reached `value`, but not for ever.
    pub(crate) fn wait_timeline(&self, semaphore: vk::Semaphore, value: u64) -> Outcome {
        let (semaphores, values) = ([semaphore], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        // SAFETY: the structures live until the call returns.
        let result = unsafe { self.raw.wait_semaphores(&info, PATIENCE.as_nanos() as u64) };
        if result == Err(vk::Result::TIMEOUT) {
            fail!("a timeline semaphore did not reach {value} within {PATIENCE:?}");
        }
        result.called("vkWaitSemaphores")
    }

    pub(crate) fn timeline_value(&self, semaphore: vk::Semaphore) -> Outcome<u64> {
        // SAFETY: the semaphore is this device's.
        unsafe { self.raw.get_semaphore_counter_value(semaphore) }.called("vkGetSemaphoreCounterValue")
    }

    /// Waits until a queue is idle.
    pub(crate) fn wait_queue(&self, queue: Queue) -> Outcome {
        let _guard = self.lock_queues();
        // SAFETY: the queue is locked.
        unsafe { self.raw.queue_wait_idle(queue.handle) }.called("vkQueueWaitIdle")
    }
}

//! Calls that bind nothing sparsely: what the layer costs those who never use it.

use crate::gpu::Gpu;
use crate::sample::Sample;
use anyhow::Result;
use ash::vk;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    /// vkQueueSubmit of one batch without anything in it.
    Submit,
    Allocate,
    CreateBuffer,
}

/// Calls a measurement: one alone is too short for the clock.
const REPEATED: u32 = 256;

impl Call {
    /// One measurement: time a call.
    pub(crate) fn measure(self, gpu: &Gpu) -> Result<Sample> {
        let stretch = gpu.stretch();
        match self {
            Self::Submit => {
                for index in 1..=REPEATED {
                    let fence = if index == REPEATED { gpu.fence } else { vk::Fence::null() };
                    // SAFETY: this thread alone uses queue and fence.
                    unsafe { gpu.device.queue_submit(gpu.queue, &[vk::SubmitInfo::default()], fence) }?;
                }
                return Ok(stretch.end(true)? / REPEATED);
            }
            Self::Allocate => {
                for _ in 0..REPEATED {
                    let memory = gpu.allocate(1 << 20)?;
                    // SAFETY: nothing uses the memory.
                    unsafe { gpu.device.free_memory(memory, None) };
                }
            }
            Self::CreateBuffer => {
                let create =
                    vk::BufferCreateInfo::default().size(1 << 20).usage(vk::BufferUsageFlags::STORAGE_BUFFER);
                for _ in 0..REPEATED {
                    // SAFETY: the device is alive, and nothing uses the buffer.
                    unsafe {
                        let buffer = gpu.device.create_buffer(&create, None)?;
                        gpu.device.destroy_buffer(buffer, None);
                    }
                }
            }
        }
        Ok(stretch.end_unfenced() / REPEATED)
    }
}

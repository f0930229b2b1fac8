//! Semaphores: which of them have a counter that can be asked, so that a wait that is over costs nothing.

use crate::chain;
use crate::device::{Device, Sparse, on_device};
use ash::vk;

/// A timeline semaphore of the application's. Binary ones are of no interest.
pub struct Timeline;

/// Whether all of these waits are over already: each a timeline semaphore whose counter has come to its value.
pub fn reached(d: &Device, sparse: &Sparse, semaphores: &[vk::Semaphore], values: &[u64]) -> bool {
    semaphores.iter().zip(values).all(|(&semaphore, &value)| {
        sparse.timelines.get(semaphore).is_some()
            // SAFETY: a timeline semaphore of this device, alive while its wait is being submitted.
            && unsafe { d.next.get_semaphore_counter_value(semaphore) }.is_ok_and(|counter| counter >= value)
    })
}

pub(crate) unsafe extern "system" fn create_semaphore(
    device: vk::Device,
    info: *const vk::SemaphoreCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    semaphore: *mut vk::Semaphore,
) -> vk::Result {
    on_device(device, "vkCreateSemaphore", |d, sparse| {
        // SAFETY: the application's valid arguments, handed on.
        let result = unsafe { (d.next.fp_v1_0().create_semaphore)(device, info, allocator, semaphore) };
        // SAFETY: as above.
        let kind = unsafe { chain::find::<vk::SemaphoreTypeCreateInfo<'_>>((*info).p_next) };
        if let (Some(sparse), vk::Result::SUCCESS) = (sparse, result)
            && kind.is_some_and(|kind| kind.semaphore_type == vk::SemaphoreType::TIMELINE)
        {
            // SAFETY: as above, and the call succeeded.
            sparse.timelines.insert(unsafe { *semaphore }, Timeline);
        }
        result
    })
}

pub(crate) unsafe extern "system" fn destroy_semaphore(
    device: vk::Device,
    semaphore: vk::Semaphore,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    on_device(device, "vkDestroySemaphore", |d, sparse| {
        if let Some(sparse) = sparse {
            sparse.timelines.remove(semaphore);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().destroy_semaphore)(device, semaphore, allocator) };
    });
}

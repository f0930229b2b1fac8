//! Semaphores: which of them have a counter that can be asked, so that a wait that is over costs nothing.

use crate::arrays::slice;
use crate::chain;
use crate::device::{Device, Sparse, on_device};
use ash::vk;

/// A timeline semaphore of the application's. Binary ones are of no interest.
pub struct Timeline;

/// Semaphores, and the values of those that are timelines; none where the application says that none of them is.
#[derive(Clone, Copy, Default)]
pub struct Points<'a> {
    pub semaphores: &'a [vk::Semaphore],
    pub values: &'a [u64],
}

impl<'a> Points<'a> {
    /// # Safety
    /// The arrays are valid.
    pub unsafe fn new(
        semaphores: *const vk::Semaphore,
        count: u32,
        values: Option<(*const u64, u32)>,
    ) -> Self {
        let (values, value_count) = values.unwrap_or((core::ptr::null(), 0));
        // SAFETY: the caller's promise.
        let (semaphores, values) = unsafe { (slice(semaphores, count), slice(values, value_count)) };
        // Too few values are those of an application that breaks the rules: the driver must not read behind them.
        Self { semaphores, values: values.get(..semaphores.len()).unwrap_or_default() }
    }

    /// Each semaphore with its value, which is of no interest for a binary one.
    pub fn iter(self) -> impl Iterator<Item = (vk::Semaphore, u64)> + 'a {
        let values = self.values.iter().copied().chain(core::iter::repeat(0));
        self.semaphores.iter().copied().zip(values)
    }
}

/// Whether all of these waits are over already: each a timeline semaphore whose counter has come to its value.
pub fn reached(d: &Device, sparse: &Sparse, waits: Points<'_>) -> bool {
    waits.semaphores.len() == waits.values.len()
        && waits.semaphores.iter().zip(waits.values).all(|(&semaphore, &value)| {
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
        // SAFETY: the application's valid arguments, handed on; the driver writes the semaphore where it makes one.
        let next = |info: &vk::SemaphoreCreateInfo<'_>| unsafe {
            let result = (d.next.fp_v1_0().create_semaphore)(device, info, allocator, semaphore);
            result.result().map(|()| *semaphore)
        };
        // SAFETY: as above.
        let info = unsafe { &*info };
        let made = match sparse.and_then(|sparse| sparse.icd.payloads()) {
            // SAFETY: as above.
            Some(payloads) => unsafe { payloads.create_semaphore(info, next) },
            None => next(info),
        };
        // SAFETY: as above.
        let kind = unsafe { chain::find::<vk::SemaphoreTypeCreateInfo<'_>>(info.p_next) };
        match made {
            Ok(made) => {
                if let Some(sparse) = sparse
                    && kind.is_some_and(|kind| kind.semaphore_type == vk::SemaphoreType::TIMELINE)
                {
                    sparse.timelines.insert(made, Timeline);
                }
                vk::Result::SUCCESS
            }
            Err(error) => error,
        }
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
            if let Some(payloads) = sparse.icd.payloads() {
                payloads.forget_semaphore(semaphore);
            }
        }
        if let Some(added) = &d.added {
            added.schedule.forget(semaphore);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().destroy_semaphore)(device, semaphore, allocator) };
    });
}

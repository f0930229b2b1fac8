//! Queues that the layer adds to those of the driver: one more family, for transfer and sparse binding (`TESSERA_SPARSE_QUEUES`).
//!
//! The driver's own queue does their work, each thing when its turn has come (`schedule`), so that the queues depend on each other
//! through semaphores alone, as an application expects of them. The driver never hears of the family: its index is translated
//! wherever one is named (`family`, `sharing`, `barriers`), and its queues, which no driver would know, are held back from every
//! command that takes a queue (`submit`, `labels`). Devices without such a queue have none of these entry points.

pub mod barriers;
pub mod family;
pub mod labels;
pub mod schedule;
pub mod sharing;
pub mod submit;

use crate::device::Device;
use crate::loader::SetDeviceLoaderData;
use ash::vk::{self, Handle as _};
use family::Family;
use schedule::Schedule;

/// What the layer keeps for a device with a queue of the added family.
pub struct Added {
    pub family: Family,
    pub schedule: Schedule,
    /// Which command buffers are of the added family.
    pub recorded: barriers::Recorded,
    pub labels: labels::Labels,
    /// The queues as the application sees them.
    handles: Box<[Handle]>,
}

/// What a queue's handle points to: the loader's dispatch table comes first in every dispatchable object.
#[repr(C)]
struct Handle {
    dispatch: usize,
}

impl Handle {
    fn queue(&self) -> vk::Queue {
        vk::Queue::from_raw(core::ptr::from_ref(self) as u64)
    }
}

impl Added {
    /// Makes the queues that the application asked for.
    pub fn new(
        next: &ash::Device,
        family: Family,
        wanted: u32,
        set_loader_data: SetDeviceLoaderData,
    ) -> Result<Self, vk::Result> {
        let device = next.handle();
        // SAFETY: the device was created with a queue of this family (`family::DeviceQueues`).
        let serving = unsafe { next.get_device_queue(family.serving, 0) };
        // Layers below find their device by the dispatch table, which the loader gives only to queues that pass through itself.
        // SAFETY: the loader's callback, with its device and a queue of it.
        unsafe { set_loader_data(device, serving.as_raw() as *mut _) }.result()?;
        // They stay where they are as long as the device lives.
        let mut handles: Box<[Handle]> = (0..wanted).map(|_| Handle { dispatch: 0 }).collect();
        for handle in &mut handles {
            // SAFETY: as above; the object has room for the table.
            unsafe { set_loader_data(device, core::ptr::from_mut(handle).cast()) }.result()?;
        }
        Ok(Self {
            family,
            schedule: Schedule::new(serving),
            recorded: barriers::Recorded::default(),
            labels: labels::Labels::default(),
            handles,
        })
    }

    /// A queue of the added family by its number.
    fn queue(&self, number: u32) -> vk::Queue {
        self.handles.get(number as usize).map_or(vk::Queue::null(), Handle::queue)
    }

    /// Whether a queue is one of the layer's.
    pub fn owns(&self, queue: vk::Queue) -> bool {
        self.handles.iter().any(|handle| handle.queue() == queue)
    }

    /// The driver's queue that does the work of a queue of the application's.
    pub fn driver_queue(&self, queue: vk::Queue) -> vk::Queue {
        if self.owns(queue) { self.schedule.serving } else { queue }
    }

    /// Ends what still runs; the device is idle then, by valid usage.
    pub fn release(&self) {
        self.schedule.release();
    }
}

/// Runs `own` where the device has added queues, `next` where the layer is only in the way.
fn choose<R>(d: &Device, own: impl FnOnce(&Added) -> R, next: impl FnOnce() -> R) -> R {
    match &d.added {
        Some(added) => own(added),
        None => next(),
    }
}

//! PanVK (Mesa's driver for Arm Mali) on panthor. Devices share the open file of their physical device, and make a VM on it; what the
//! driver maps by itself it maps at once, so nothing has to be waited for.

mod image;
mod vms;

pub use vms::Vms;

use super::direct::{Driver, Layout, Opened, StartError};
use crate::carrier::{KernelQueue, Pending};
use crate::device::Device;
use ash::vk;
use kmd::bo::MmapOffset;
use kmd::panthor::{self, PanthorVm};
use kmd::uapi::panthor as uapi;
use kmd::{Errno, Vm};
use std::sync::Arc;

/// What is PanVK's own.
struct Panvk {
    /// panthor has one bind queue a VM.
    queue: KernelQueue,
}

/// The file of a new device; `before` are the VMs from before it was made.
pub fn open(before: &Vms) -> Result<Opened, StartError> {
    let (node, vm_id) = before.made_since().ok_or(StartError::NoNode(uapi::DRIVER_NAME))?;
    let node = Arc::new(node);
    let vm = Arc::new(PanthorVm::attach(node.clone(), vm_id, panthor::user_addresses(&*node)?)?);
    // Without, the driver maps memory of its own where nothing is bound, over and over; nobody else can have that.
    if !vm.limits().null_mapping {
        return Err(StartError::NoSparseMaps);
    }
    let queue = KernelQueue { vm: vm.clone(), pending: Arc::new(Pending::new(node.clone())?) };
    let driver = Box::new(Panvk { queue });
    Ok(Opened { node, vm, vm_id, driver })
}

impl Driver for Panvk {
    fn layout(
        &self,
        d: &Device,
        image: vk::Image,
        size: u64,
        info: &vk::ImageCreateInfo<'_>,
    ) -> Option<Layout> {
        image::layout(d, image, size, info)
    }

    fn unbinds_to_null(&self) -> bool {
        true
    }

    fn bind_queue(&self) -> Result<KernelQueue, Errno> {
        Ok(self.queue.clone())
    }

    fn mmap_offset(&self) -> MmapOffset {
        panthor::mmap_offset
    }
}

//! A driver, as any application opens it.

use crate::node;
use crate::sample::Sample;
use anyhow::{Context, Result, bail};
use ash::vk;
use client::Emulator;
use std::time::Instant;

/// Which driver to open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Driver {
    Lavapipe,
    /// That of the emulated node, which is preloaded.
    Emulated,
    /// That of the kernel's own node.
    Real,
}

/// The opened device, and what a measurement needs of it.
pub(crate) struct Gpu {
    // Keeps libvulkan loaded.
    _entry: ash::Entry,
    instance: ash::Instance,
    pub(crate) device: ash::Device,
    pub(crate) queue: vk::Queue,
    pub(crate) fence: vk::Fence,
    /// Driver and version, as the driver tells.
    pub(crate) driver: String,
    /// What is emulated under it.
    pub(crate) node: Option<Emulator>,
}

/// Calls that are being timed.
pub(crate) struct Stretch<'gpu> {
    gpu: &'gpu Gpu,
    node: u64,
    began: Instant,
}

impl Gpu {
    /// Opens the driver, with the sparse features enabled or not.
    pub(crate) fn open(wanted: Driver, sparse: bool) -> Result<Self> {
        let node = match wanted {
            Driver::Lavapipe | Driver::Real => None,
            Driver::Emulated => Some(node::find()?),
        };
        // SAFETY: loading the system's Vulkan loader runs no code of ours, and nothing unloads it before the last call.
        let entry = unsafe { ash::Entry::load() }
            .context("there is no Vulkan loader (Debian: apt install libvulkan1)")?;
        let application = vk::ApplicationInfo::default()
            .application_name(c"tessera-bench")
            .api_version(vk::make_api_version(0, 1, 3, 0));
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `create` and what it points at live through the call.
        let instance = unsafe { entry.create_instance(&create, None) }.context(
            "vkCreateInstance (a layer that was asked for and not found is ERROR_LAYER_NOT_PRESENT)",
        )?;
        // SAFETY: the instance is alive; the queries write into structures that live through them.
        let (physical, driver) = unsafe { find(&instance, wanted) }?;
        let priorities = [1.0];
        // SAFETY: the physical device belongs to the instance.
        let family = unsafe { family(&instance, physical) }.context("no queue family binds")?;
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&priorities)];
        // SAFETY: as above.
        let images = unsafe { instance.get_physical_device_features(physical) }.sparse_residency_image2_d;
        let features = vk::PhysicalDeviceFeatures::default()
            .sparse_binding(sparse)
            .sparse_residency_buffer(sparse)
            .sparse_residency_image2_d(sparse && images == vk::TRUE);
        let create = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_features(&features);
        // SAFETY: the physical device belongs to the instance; the structures live through the call.
        let device = unsafe { instance.create_device(physical, &create, None) }.context("vkCreateDevice")?;
        // SAFETY: the family was created with one queue.
        let queue = unsafe { device.get_device_queue(family, 0) };
        // SAFETY: the device is alive.
        let fence = unsafe { device.create_fence(&vk::FenceCreateInfo::default(), None) }?;
        Ok(Self { _entry: entry, instance, device, queue, fence, driver, node })
    }

    /// Memory that nothing reads or writes.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<vk::DeviceMemory> {
        // lavapipe has one memory type; Turnip binds any.
        let allocate = vk::MemoryAllocateInfo::default().allocation_size(bytes);
        // SAFETY: the device is alive.
        unsafe { self.device.allocate_memory(&allocate, None) }.context("vkAllocateMemory")
    }

    /// Waits for the fence and resets it, or waits for the queue.
    pub(crate) fn wait(&self, fence: bool) -> Result<()> {
        // SAFETY: the fence belongs to the device and was handed to a submission; this thread alone uses the queue.
        unsafe {
            if fence {
                self.device.wait_for_fences(&[self.fence], true, u64::MAX)?;
                self.device.reset_fences(&[self.fence])?;
            } else {
                self.device.queue_wait_idle(self.queue)?;
            }
        }
        Ok(())
    }

    /// Begins to time calls.
    pub(crate) fn stretch(&self) -> Stretch<'_> {
        Stretch { gpu: self, node: self.in_node(), began: Instant::now() }
    }

    /// Nanoseconds that the process has spent in the node's ioctls.
    fn in_node(&self) -> u64 {
        self.node.as_ref().map_or(0, |node| node.counters().ioctl_ns)
    }
}

impl Stretch<'_> {
    /// After calls, of which the last has the fence or none has.
    pub(crate) fn end(self, fence: bool) -> Result<Sample> {
        let gpu = self.gpu;
        let mut sample = self.end_unfenced();
        let returned = Instant::now();
        gpu.wait(fence)?;
        sample.done += returned.elapsed().as_nanos() as u64;
        Ok(sample)
    }

    /// After calls that leave nothing to wait for.
    pub(crate) fn end_unfenced(self) -> Sample {
        let calls = self.began.elapsed().as_nanos() as u64;
        Sample { calls, node: self.gpu.in_node() - self.node, done: calls }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: every submission was waited for; whoever made other objects has destroyed them.
        unsafe {
            self.device.destroy_fence(self.fence, None);
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

/// A family that binds and does nothing else, which the driver has with the layer as without; else the first that binds.
///
/// # Safety
/// The physical device belongs to the instance, which is alive.
unsafe fn family(instance: &ash::Instance, physical: vk::PhysicalDevice) -> Option<u32> {
    // SAFETY: as the caller promises.
    let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
    let binding = (0..)
        .zip(&families)
        .filter(|(_, family)| family.queue_flags.contains(vk::QueueFlags::SPARSE_BINDING));
    binding
        .min_by_key(|(_, family)| family.queue_flags.contains(vk::QueueFlags::GRAPHICS))
        .map(|(index, _)| index)
}

/// # Safety
/// The instance is alive.
unsafe fn find(instance: &ash::Instance, wanted: Driver) -> Result<(vk::PhysicalDevice, String)> {
    // SAFETY: as the caller promises.
    for physical in unsafe { instance.enumerate_physical_devices() }? {
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        // SAFETY: the physical device was just enumerated.
        unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
        let name =
            properties.properties.device_name_as_c_str().unwrap_or_default().to_string_lossy().into_owned();
        let software = driver.driver_id == vk::DriverId::MESA_LLVMPIPE;
        if software != (wanted == Driver::Lavapipe) {
            continue;
        }
        // SAFETY: as above.
        let features = unsafe { instance.get_physical_device_features(physical) };
        let version = driver.driver_info_as_c_str().unwrap_or_default().to_string_lossy().into_owned();
        let kind = match wanted {
            Driver::Lavapipe => "lavapipe".into(),
            Driver::Emulated | Driver::Real => {
                driver.driver_name_as_c_str().unwrap_or_default().to_string_lossy()
            }
        };
        let told = format!("{kind} {version}, {name}");
        if features.sparse_residency_image2_d == vk::FALSE {
            match wanted {
                Driver::Lavapipe => bail!(
                    "{told} has no sparse residency: Mesa 25 or newer is needed (Debian 12: bookworm-backports)"
                ),
                Driver::Emulated => {
                    bail!("{told} has no sparse residency of images: choose another GPU in TESSERA_EMULATE")
                }
                Driver::Real => {}
            }
        }
        return Ok((physical, told));
    }
    match wanted {
        Driver::Lavapipe => {
            bail!("there is no lavapipe: install mesa-vulkan-drivers (Debian 12: from bookworm-backports)")
        }
        Driver::Emulated => bail!("there is no Vulkan device on the emulated node"),
        Driver::Real => bail!("there is no Vulkan device"),
    }
}

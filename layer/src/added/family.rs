//! The added queue family as physical devices answer for it, and the devices that ask for its queues.

use super::{Added, choose};
use crate::arrays::{slice, slice_mut, write_array};
use crate::chain;
use crate::device::on_device;
use crate::icd::Way;
use crate::instance::{Instance, on_physical_device};
use ash::vk;
use core::ffi::CStr;

/// What a queue of the family can do: it binds, and it copies what was bound.
const FLAGS: vk::QueueFlags =
    vk::QueueFlags::from_raw(vk::QueueFlags::TRANSFER.as_raw() | vk::QueueFlags::SPARSE_BINDING.as_raw());

/// The family that the layer adds to a physical device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Family {
    /// Behind those of the driver.
    pub index: u32,
    /// The driver's family whose first queue does the work.
    pub serving: u32,
    pub queues: u32,
}

impl Family {
    /// The driver's name for a family.
    pub fn translate(&self, family: u32) -> u32 {
        if family == self.index { self.serving } else { family }
    }

    /// `None` where the environment asks for no queues, or the layer does not own binding.
    pub fn of(instance: &Instance, device: vk::PhysicalDevice) -> Option<Self> {
        let queues = instance.config.sparse_queues;
        if queues == 0 || !instance.owns(device) {
            return None;
        }
        // SAFETY: a physical device of this instance.
        let families = unsafe { instance.next.get_physical_device_queue_family_properties(device) };
        // Either of these includes transfer, whether it is named or not.
        let works = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE;
        let serving = families.iter().position(|family| family.queue_flags.intersects(works))?;
        Some(Self { index: families.len() as u32, serving: serving as u32, queues })
    }

    /// What the family is, from what the serving one is.
    fn properties(&self, serving: vk::QueueFamilyProperties) -> vk::QueueFamilyProperties {
        vk::QueueFamilyProperties { queue_flags: FLAGS, queue_count: self.queues, ..serving }
    }
}

/// Queues that draw can bind too where binds are calls of the kernel's and take no part of the driver's queue. PanVK has queues for
/// binding alone, while most applications look for one that does everything.
fn binds_too(way: Way, family: &mut vk::QueueFamilyProperties) {
    if way == Way::Panvk && family.queue_flags.contains(vk::QueueFlags::GRAPHICS) {
        family.queue_flags |= vk::QueueFlags::SPARSE_BINDING;
    }
}

pub(crate) unsafe extern "system" fn get_physical_device_queue_family_properties(
    device: vk::PhysicalDevice,
    count: *mut u32,
    out: *mut vk::QueueFamilyProperties,
) {
    on_physical_device(device, "vkGetPhysicalDeviceQueueFamilyProperties", |instance, _| {
        let Some(family) = Family::of(instance, device) else {
            // SAFETY: the application's valid arguments, handed on; then what was written is edited.
            return unsafe {
                (instance.next.fp_v1_0().get_physical_device_queue_family_properties)(device, count, out);
                let way = instance.way(device);
                slice_mut(out, *count).iter_mut().for_each(|family| binds_too(way, family));
            };
        };
        // SAFETY: a physical device of this instance.
        let mut families = unsafe { instance.next.get_physical_device_queue_family_properties(device) };
        families.push(family.properties(families[family.serving as usize]));
        // SAFETY: the application's count and array, as the specification describes them.
        unsafe { write_array(&families, count, out, |slot, value| *slot = value) };
    });
}

pub(crate) unsafe extern "system" fn get_physical_device_queue_family_properties2(
    device: vk::PhysicalDevice,
    count: *mut u32,
    out: *mut vk::QueueFamilyProperties2<'_>,
) {
    on_physical_device(device, "vkGetPhysicalDeviceQueueFamilyProperties2", |instance, _| {
        let next = instance.next.fp_v1_1().get_physical_device_queue_family_properties2;
        let Some(family) = Family::of(instance, device) else {
            // SAFETY: the application's valid arguments, handed on; then what was written is edited.
            return unsafe {
                next(device, count, out);
                let (way, families) = (instance.way(device), slice_mut(out, *count));
                families.iter_mut().for_each(|family| binds_too(way, &mut family.queue_family_properties));
            };
        };
        // SAFETY: the application's count and array, as the specification describes them.
        unsafe {
            if out.is_null() {
                *count = family.index + 1;
                return;
            }
            let room = *count;
            next(device, count, out);
            if room <= family.index {
                return;
            }
            // What extends the structure is true of the added family too: the same queue works for it.
            let own = &mut *out.add(family.index as usize);
            let mut all = vec![vk::QueueFamilyProperties2::default(); family.index as usize];
            all[family.serving as usize].p_next = own.p_next;
            let mut driver_count = family.index;
            next(device, &raw mut driver_count, all.as_mut_ptr());
            own.queue_family_properties =
                family.properties(all[family.serving as usize].queue_family_properties);
            if let Some(video) = chain::find_mut::<vk::QueueFamilyVideoPropertiesKHR<'_>>(own.p_next) {
                video.video_codec_operations = vk::VideoCodecOperationFlagsKHR::empty();
            }
            *count = family.index + 1;
        }
    });
}

pub(crate) unsafe extern "system" fn get_physical_device_surface_support_khr(
    device: vk::PhysicalDevice,
    family: u32,
    surface: vk::SurfaceKHR,
    supported: *mut vk::Bool32,
) -> vk::Result {
    on_physical_device(device, "vkGetPhysicalDeviceSurfaceSupportKHR", |instance, _| {
        if is_added(instance, device, family) {
            // SAFETY: the application's valid argument.
            unsafe { *supported = vk::FALSE };
            return vk::Result::SUCCESS;
        }
        let name = c"vkGetPhysicalDeviceSurfaceSupportKHR";
        // SAFETY: the next layer's function of this name, and the application's valid arguments.
        unsafe {
            match instance.next_function::<vk::PFN_vkGetPhysicalDeviceSurfaceSupportKHR>(name) {
                Some(next) => next(device, family, surface, supported),
                None => vk::Result::ERROR_EXTENSION_NOT_PRESENT,
            }
        }
    })
}

fn is_added(instance: &Instance, device: vk::PhysicalDevice, family: u32) -> bool {
    Family::of(instance, device).is_some_and(|added| added.index == family)
}

/// Whether a family presents to a window system: the added one to none. `next` asks the next layer.
fn presents<F: Copy>(
    device: vk::PhysicalDevice,
    name: &CStr,
    family: u32,
    next: impl FnOnce(F) -> vk::Bool32,
) -> vk::Bool32 {
    on_physical_device(device, "presentation support", |instance, _| {
        if is_added(instance, device, family) {
            return vk::FALSE;
        }
        // SAFETY: the callers name the function whose type is `F`.
        unsafe { instance.next_function::<F>(name) }.map_or(vk::FALSE, next)
    })
}

pub(crate) unsafe extern "system" fn get_physical_device_wayland_presentation_support_khr(
    device: vk::PhysicalDevice,
    family: u32,
    display: *mut vk::wl_display,
) -> vk::Bool32 {
    let name = c"vkGetPhysicalDeviceWaylandPresentationSupportKHR";
    presents::<vk::PFN_vkGetPhysicalDeviceWaylandPresentationSupportKHR>(device, name, family, |next| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe { next(device, family, display) }
    })
}

pub(crate) unsafe extern "system" fn get_physical_device_xlib_presentation_support_khr(
    device: vk::PhysicalDevice,
    family: u32,
    display: *mut vk::Display,
    visual: vk::VisualID,
) -> vk::Bool32 {
    let name = c"vkGetPhysicalDeviceXlibPresentationSupportKHR";
    presents::<vk::PFN_vkGetPhysicalDeviceXlibPresentationSupportKHR>(device, name, family, |next| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe { next(device, family, display, visual) }
    })
}

pub(crate) unsafe extern "system" fn get_physical_device_xcb_presentation_support_khr(
    device: vk::PhysicalDevice,
    family: u32,
    connection: *mut vk::xcb_connection_t,
    visual: vk::xcb_visualid_t,
) -> vk::Bool32 {
    let name = c"vkGetPhysicalDeviceXcbPresentationSupportKHR";
    presents::<vk::PFN_vkGetPhysicalDeviceXcbPresentationSupportKHR>(device, name, family, |next| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe { next(device, family, connection, visual) }
    })
}

/// The queues of a device as the driver is asked for them.
pub struct DeviceQueues<'a> {
    pub family: Family,
    /// How many of the family's queues the application wants.
    pub wanted: u32,
    infos: Vec<vk::DeviceQueueCreateInfo<'a>>,
}

impl<'a> DeviceQueues<'a> {
    /// `None` where the application asks for no queue of the added family.
    ///
    /// # Safety
    /// `info` is valid with everything it points to.
    pub unsafe fn new(
        instance: &Instance,
        device: vk::PhysicalDevice,
        info: &vk::DeviceCreateInfo<'a>,
    ) -> Option<Self> {
        let family = Family::of(instance, device)?;
        // SAFETY: the caller's promise.
        let asked = unsafe { slice(info.p_queue_create_infos, info.queue_create_info_count) };
        let (own, mut infos): (Vec<_>, Vec<_>) =
            asked.iter().copied().partition(|info| info.queue_family_index == family.index);
        let wanted = own.first()?.queue_count;
        if !infos.iter().any(|info| info.queue_family_index == family.serving) {
            let serving = vk::DeviceQueueCreateInfo::default().queue_family_index(family.serving);
            infos.push(serving.queue_priorities(&[1.0]));
        }
        Some(Self { family, wanted, infos })
    }

    pub fn infos(&self) -> &[vk::DeviceQueueCreateInfo<'a>] {
        &self.infos
    }
}

fn own_queue(added: &Added, family: u32, number: u32) -> Option<vk::Queue> {
    (family == added.family.index).then(|| added.queue(number))
}

pub(crate) unsafe extern "system" fn get_device_queue(
    device: vk::Device,
    family: u32,
    number: u32,
    queue: *mut vk::Queue,
) {
    on_device(device, "vkGetDeviceQueue", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let next = || unsafe { (d.next.fp_v1_0().get_device_queue)(device, family, number, queue) };
        choose(
            d,
            |added| match own_queue(added, family, number) {
                // SAFETY: as above.
                Some(own) => unsafe { *queue = own },
                None => next(),
            },
            next,
        );
    });
}

pub(crate) unsafe extern "system" fn get_device_queue2(
    device: vk::Device,
    info: *const vk::DeviceQueueInfo2<'_>,
    queue: *mut vk::Queue,
) {
    on_device(device, "vkGetDeviceQueue2", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let next = || unsafe { (d.next.fp_v1_1().get_device_queue2)(device, info, queue) };
        // SAFETY: as above.
        let asked = unsafe { &*info };
        choose(
            d,
            |added| match own_queue(added, asked.queue_family_index, asked.queue_index) {
                // SAFETY: as above.
                Some(own) => unsafe { *queue = own },
                None => next(),
            },
            next,
        );
    });
}

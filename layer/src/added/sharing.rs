//! Create infos that list the families which share a resource.

use super::family::Family;
use crate::arrays::slice;
use crate::chain::{self, ChainCopy};
use crate::device::{Device, on_device};
use ash::vk::{self, TaggedStructure as _};

/// A create info with a sharing mode.
pub trait Shared: Copy {
    fn list(&mut self) -> (&mut vk::SharingMode, &mut u32, &mut *const u32);
}

macro_rules! shared {
    ($info:ty, $mode:ident) => {
        impl Shared for $info {
            fn list(&mut self) -> (&mut vk::SharingMode, &mut u32, &mut *const u32) {
                (&mut self.$mode, &mut self.queue_family_index_count, &mut self.p_queue_family_indices)
            }
        }
    };
}
shared!(vk::BufferCreateInfo<'_>, sharing_mode);
shared!(vk::ImageCreateInfo<'_>, sharing_mode);
shared!(vk::SwapchainCreateInfoKHR<'_>, image_sharing_mode);
shared!(vk::PhysicalDeviceImageDrmFormatModifierInfoEXT<'_>, sharing_mode);

/// A create info in the driver's words.
pub struct Translated<T> {
    info: T,
    _families: Vec<u32>,
}

impl<T> Translated<T> {
    pub fn info(&self) -> &T {
        &self.info
    }
}

/// `info` without the added family; `None` where it does not name it.
///
/// # Safety
/// `info` is valid.
pub unsafe fn translated<T: Shared>(family: Family, info: &T) -> Option<Translated<T>> {
    let mut info = *info;
    let (mode, count, list) = info.list();
    if *mode != vk::SharingMode::CONCURRENT {
        return None;
    }
    // SAFETY: the caller's promise; the list counts where sharing is concurrent.
    let asked = unsafe { slice(*list, *count) };
    if !asked.contains(&family.index) {
        return None;
    }
    let mut families: Vec<u32> = asked.iter().map(|&asked| family.translate(asked)).collect();
    families.sort_unstable();
    families.dedup();
    // One family shares with nobody.
    if families.len() == 1 {
        *mode = vk::SharingMode::EXCLUSIVE;
        families.clear();
    }
    (*count, *list) = (families.len() as u32, families.as_ptr());
    Some(Translated { info, _families: families })
}

/// The create info as a device's driver understands it; `None` where that is the application's own.
///
/// # Safety
/// `info` is valid.
pub unsafe fn for_driver<T: Shared>(d: &Device, info: &T) -> Option<Translated<T>> {
    let added = d.added.as_ref()?;
    // SAFETY: the caller's promise.
    unsafe { translated(added.family, info) }
}

/// Asks `next` about an image whose modifier is shared by families of the driver's.
///
/// # Safety
/// `query` is valid.
pub unsafe fn with_modifier<'a, R>(
    family: Option<Family>,
    query: &vk::PhysicalDeviceImageFormatInfo2<'a>,
    next: impl FnOnce(*const vk::PhysicalDeviceImageFormatInfo2<'a>) -> R,
) -> R {
    type Modifier = vk::PhysicalDeviceImageDrmFormatModifierInfoEXT<'static>;
    // SAFETY: the caller's promise.
    let modifier = unsafe { chain::find::<Modifier>(query.p_next) };
    // SAFETY: as above.
    let named = family.zip(modifier).and_then(|(family, modifier)| unsafe { translated(family, modifier) });
    let Some(named) = named else { return next(query) };
    // SAFETY: as above.
    let mut chain = unsafe { ChainCopy::new_until(query.p_next, &[Modifier::STRUCTURE_TYPE]) };
    if let Some(modifier) = chain.get_mut::<Modifier>() {
        modifier.sharing_mode = named.info.sharing_mode;
        modifier.queue_family_index_count = named.info.queue_family_index_count;
        modifier.p_queue_family_indices = named.info.p_queue_family_indices;
    }
    let mut query = *query;
    query.p_next = chain.as_ptr();
    next(&raw const query)
}

pub(crate) unsafe extern "system" fn create_swapchain_khr(
    device: vk::Device,
    info: *const vk::SwapchainCreateInfoKHR<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    swapchain: *mut vk::SwapchainKHR,
) -> vk::Result {
    on_device(device, "vkCreateSwapchainKHR", |d, _| {
        // SAFETY: the next layer's function of this name, and the application's valid arguments, handed on.
        unsafe {
            let Some(next) = d.next_function::<vk::PFN_vkCreateSwapchainKHR>(c"vkCreateSwapchainKHR") else {
                return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
            };
            let translated = for_driver(d, &*info);
            let info = translated.as_ref().map_or(info, |translated| translated.info());
            next(device, info, allocator, swapchain)
        }
    })
}

pub(crate) unsafe extern "system" fn create_shared_swapchains_khr(
    device: vk::Device,
    count: u32,
    infos: *const vk::SwapchainCreateInfoKHR<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    swapchains: *mut vk::SwapchainKHR,
) -> vk::Result {
    on_device(device, "vkCreateSharedSwapchainsKHR", |d, _| {
        // SAFETY: the next layer's function of this name, and the application's valid arguments, handed on.
        unsafe {
            let name = c"vkCreateSharedSwapchainsKHR";
            let Some(next) = d.next_function::<vk::PFN_vkCreateSharedSwapchainsKHR>(name) else {
                return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
            };
            let infos = slice(infos, count);
            let translated: Vec<_> = infos.iter().map(|info| for_driver(d, info)).collect();
            let infos: Vec<_> = infos
                .iter()
                .zip(&translated)
                .map(|(info, translated)| translated.as_ref().map_or(*info, |translated| *translated.info()))
                .collect();
            next(device, count, infos.as_ptr(), allocator, swapchains)
        }
    })
}

pub(crate) unsafe extern "system" fn get_device_image_subresource_layout_khr(
    device: vk::Device,
    info: *const vk::DeviceImageSubresourceInfoKHR<'_>,
    out: *mut vk::SubresourceLayout2KHR<'_>,
) {
    on_device(device, "vkGetDeviceImageSubresourceLayoutKHR", |d, _| {
        // SAFETY: the next layer's function of either name, and the application's valid arguments, handed on.
        unsafe {
            let names = [c"vkGetDeviceImageSubresourceLayoutKHR", c"vkGetDeviceImageSubresourceLayout"];
            let next = |name| d.next_function::<vk::PFN_vkGetDeviceImageSubresourceLayoutKHR>(name);
            let Some(next) = names.into_iter().find_map(next) else { return };
            let mut query = *info;
            let translated = for_driver(d, &*query.p_create_info);
            if let Some(translated) = &translated {
                query.p_create_info = translated.info();
            }
            next(device, &raw const query, out);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILY: Family = Family { index: 2, serving: 0, queues: 1 };

    fn list(families: &[u32]) -> Option<(vk::SharingMode, Vec<u32>)> {
        let info = vk::BufferCreateInfo::default()
            .sharing_mode(vk::SharingMode::CONCURRENT)
            .queue_family_indices(families);
        // SAFETY: the list outlives the call.
        let translated = unsafe { translated(FAMILY, &info) }?;
        // SAFETY: the list outlives this.
        let families = unsafe {
            slice(translated.info.p_queue_family_indices, translated.info.queue_family_index_count)
        };
        Some((translated.info.sharing_mode, families.to_vec()))
    }

    #[test]
    fn lists_name_the_drivers_families_once() {
        assert_eq!(list(&[0, 1]), None);
        assert_eq!(list(&[1, 2]), Some((vk::SharingMode::CONCURRENT, vec![0, 1])));
        assert_eq!(list(&[2, 0, 1]), Some((vk::SharingMode::CONCURRENT, vec![0, 1])));
        assert_eq!(list(&[2, 0]), Some((vk::SharingMode::EXCLUSIVE, vec![])));
    }

    #[test]
    fn exclusive_resources_have_no_list() {
        let info = vk::BufferCreateInfo::default().queue_family_indices(&[2]);
        // SAFETY: the list outlives the call.
        assert!(unsafe { translated(FAMILY, &info) }.is_none());
    }
}

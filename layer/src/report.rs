//! What the layer says of physical devices whose binding it owns; every entry point that answers a question answers it from here.

use crate::added::{family::Family, sharing};
use crate::arrays::write_array;
use crate::chain::ChainCopy;
use crate::format;
use crate::icd::Way;
use crate::icd::turnip::extra::{self, Asked, Kind};
use crate::instance::{Instance, on_physical_device};
use ash::vk;

/// Bytes of address space for sparse resources: far more than the driver's 2 GiB, a small part of what a process has.
pub const SPARSE_ADDRESS_SPACE: u64 = 1 << 40;

fn own_limits(properties: &mut vk::PhysicalDeviceProperties) {
    properties.limits.sparse_address_space_size = SPARSE_ADDRESS_SPACE;
}

/// What is offered of sparse residency: one entry a plane, or none.
///
/// The driver must offer it too; block shapes are the standard ones, in texels (lavapipe gives those of block-compressed formats in
/// blocks, and offers formats whose texels do not fill a block).
pub fn sparse_properties(
    instance: &ash::Instance,
    device: vk::PhysicalDevice,
    query: &vk::PhysicalDeviceSparseImageFormatInfo2<'_>,
) -> Vec<vk::SparseImageFormatProperties> {
    // SAFETY: a physical device of this instance.
    let driver = unsafe {
        instance.get_physical_device_sparse_image_format_properties(
            device,
            query.format,
            query.ty,
            query.samples,
            query.usage,
            query.tiling,
        )
    };
    if driver.is_empty()
        || query.samples != vk::SampleCountFlags::TYPE_1
        || query.tiling != vk::ImageTiling::OPTIMAL
    {
        return Vec::new();
    }
    residency_planes(query.format, query.ty).unwrap_or_default()
}

/// `None` unless every plane of the format has a standard block shape.
fn residency_planes(
    format: vk::Format,
    image_type: vk::ImageType,
) -> Option<Vec<vk::SparseImageFormatProperties>> {
    let planes = format::planes(format);
    let properties = planes.iter().map(|plane| {
        Some(vk::SparseImageFormatProperties {
            aspect_mask: plane.aspects,
            image_granularity: plane.granularity(image_type)?,
            flags: vk::SparseImageFormatFlags::empty(),
        })
    });
    properties.collect()
}

/// Whether an image of this kind is refused although the driver would make it.
fn refused(flags: vk::ImageCreateFlags, format: vk::Format, image_type: vk::ImageType) -> bool {
    flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY)
        && residency_planes(format, image_type).is_none_or(|planes| planes.is_empty())
}

/// Whether residency of 2D images is the layer's to offer.
fn is_extra(instance: &Instance, device: vk::PhysicalDevice) -> bool {
    instance.way(device) == Way::Turnip { extra: true }
}

/// The driver's answer for what takes the place of images of a kind with residency; `ERROR_FORMAT_NOT_SUPPORTED` where nothing does.
///
/// # Safety
/// The query is valid.
unsafe fn extra_properties(
    instance: &Instance,
    device: vk::PhysicalDevice,
    query: &vk::PhysicalDeviceImageFormatInfo2<'_>,
    out: &mut vk::ImageFormatProperties2<'_>,
) -> vk::Result {
    let kind = Kind {
        format: query.format,
        image_type: query.ty,
        tiling: query.tiling,
        usage: query.usage,
        flags: query.flags,
        // SAFETY: the caller's promise.
        views: unsafe { extra::views(query.p_next) },
    };
    let Some(asked) = Asked::of(&kind) else {
        out.image_format_properties = vk::ImageFormatProperties::default();
        return vk::Result::ERROR_FORMAT_NOT_SUPPORTED;
    };
    // SAFETY: as above.
    let chain: ChainCopy = unsafe { asked.chain(query.p_next) };
    let query = vk::PhysicalDeviceImageFormatInfo2 { flags: asked.flags, p_next: chain.as_ptr(), ..*query };
    let next = instance.next.fp_v1_1().get_physical_device_image_format_properties2;
    // SAFETY: as above, edited.
    let result = unsafe { next(device, &raw const query, out) };
    if result == vk::Result::SUCCESS {
        out.image_format_properties.sample_counts = vk::SampleCountFlags::TYPE_1;
    }
    result
}

/// What the layer offers of residency where the driver offers none: an entry, or none.
fn extra_sparse_properties(
    instance: &Instance,
    device: vk::PhysicalDevice,
    query: &vk::PhysicalDeviceSparseImageFormatInfo2<'_>,
) -> Vec<vk::SparseImageFormatProperties> {
    let image = vk::PhysicalDeviceImageFormatInfo2::default()
        .format(query.format)
        .ty(query.ty)
        .tiling(query.tiling)
        .usage(query.usage)
        .flags(vk::ImageCreateFlags::SPARSE_BINDING | vk::ImageCreateFlags::SPARSE_RESIDENCY);
    let mut properties = vk::ImageFormatProperties2::default();
    // SAFETY: a valid query.
    let result = unsafe { extra_properties(instance, device, &image, &mut properties) };
    if result != vk::Result::SUCCESS || query.samples != vk::SampleCountFlags::TYPE_1 {
        return Vec::new();
    }
    residency_planes(query.format, query.ty).unwrap_or_default()
}

pub(crate) unsafe extern "system" fn get_physical_device_features(
    device: vk::PhysicalDevice,
    out: *mut vk::PhysicalDeviceFeatures,
) {
    on_physical_device(device, "vkGetPhysicalDeviceFeatures", |instance, _| {
        // SAFETY: the application's valid arguments, handed on; then `out` is written.
        unsafe {
            (instance.next.fp_v1_0().get_physical_device_features)(device, out);
            if is_extra(instance, device) {
                (*out).sparse_residency_image2_d = vk::TRUE;
            }
        }
    });
}

pub(crate) unsafe extern "system" fn get_physical_device_features2(
    device: vk::PhysicalDevice,
    out: *mut vk::PhysicalDeviceFeatures2<'_>,
) {
    on_physical_device(device, "vkGetPhysicalDeviceFeatures2", |instance, _| {
        // SAFETY: the application's valid arguments, handed on; then `out` is written.
        unsafe {
            (instance.next.fp_v1_1().get_physical_device_features2)(device, out);
            if is_extra(instance, device) {
                (*out).features.sparse_residency_image2_d = vk::TRUE;
            }
        }
    });
}

pub(crate) unsafe extern "system" fn get_physical_device_properties(
    device: vk::PhysicalDevice,
    out: *mut vk::PhysicalDeviceProperties,
) {
    on_physical_device(device, "vkGetPhysicalDeviceProperties", |instance, owned| {
        // SAFETY: the application's valid arguments, handed on; then `out` is written.
        unsafe {
            (instance.next.fp_v1_0().get_physical_device_properties)(device, out);
            if owned {
                own_limits(&mut *out);
            }
        }
    });
}

pub(crate) unsafe extern "system" fn get_physical_device_properties2(
    device: vk::PhysicalDevice,
    out: *mut vk::PhysicalDeviceProperties2<'_>,
) {
    on_physical_device(device, "vkGetPhysicalDeviceProperties2", |instance, owned| {
        // SAFETY: the application's valid arguments, handed on; then `out` is written.
        unsafe {
            (instance.next.fp_v1_1().get_physical_device_properties2)(device, out);
            if owned {
                own_limits(&mut (*out).properties);
            }
        }
    });
}

pub(crate) unsafe extern "system" fn get_physical_device_image_format_properties(
    device: vk::PhysicalDevice,
    format: vk::Format,
    image_type: vk::ImageType,
    tiling: vk::ImageTiling,
    usage: vk::ImageUsageFlags,
    flags: vk::ImageCreateFlags,
    out: *mut vk::ImageFormatProperties,
) -> vk::Result {
    on_physical_device(device, "vkGetPhysicalDeviceImageFormatProperties", |instance, owned| {
        if owned && refused(flags, format, image_type) {
            // SAFETY: the application's valid argument.
            unsafe { *out = vk::ImageFormatProperties::default() };
            return vk::Result::ERROR_FORMAT_NOT_SUPPORTED;
        }
        if flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY) && is_extra(instance, device) {
            let query = vk::PhysicalDeviceImageFormatInfo2::default()
                .format(format)
                .ty(image_type)
                .tiling(tiling)
                .usage(usage)
                .flags(flags);
            let mut properties = vk::ImageFormatProperties2::default();
            // SAFETY: the application's valid arguments.
            unsafe {
                let result = extra_properties(instance, device, &query, &mut properties);
                *out = properties.image_format_properties;
                return result;
            }
        }
        let next = instance.next.fp_v1_0().get_physical_device_image_format_properties;
        // SAFETY: the application's valid arguments, handed on.
        unsafe { next(device, format, image_type, tiling, usage, flags, out) }
    })
}

pub(crate) unsafe extern "system" fn get_physical_device_image_format_properties2(
    device: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceImageFormatInfo2<'_>,
    out: *mut vk::ImageFormatProperties2<'_>,
) -> vk::Result {
    on_physical_device(device, "vkGetPhysicalDeviceImageFormatProperties2", |instance, owned| {
        // SAFETY: the application's valid arguments.
        let query = unsafe { &*info };
        if owned && refused(query.flags, query.format, query.ty) {
            // SAFETY: as above.
            unsafe { (*out).image_format_properties = vk::ImageFormatProperties::default() };
            return vk::Result::ERROR_FORMAT_NOT_SUPPORTED;
        }
        if query.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY) && is_extra(instance, device) {
            // SAFETY: as above.
            return unsafe { extra_properties(instance, device, query, &mut *out) };
        }
        let next = instance.next.fp_v1_1().get_physical_device_image_format_properties2;
        // SAFETY: as above, handed on.
        unsafe {
            sharing::with_modifier(Family::of(instance, device), query, |query| next(device, query, out))
        }
    })
}

/// What is offered of sparse residency where that is the layer's to say: binding is its own (`owned`), or residency is extra.
fn offered(
    instance: &Instance,
    device: vk::PhysicalDevice,
    owned: bool,
    query: &vk::PhysicalDeviceSparseImageFormatInfo2<'_>,
) -> Vec<vk::SparseImageFormatProperties> {
    if owned {
        sparse_properties(&instance.next, device, query)
    } else {
        extra_sparse_properties(instance, device, query)
    }
}

pub(crate) unsafe extern "system" fn get_physical_device_sparse_image_format_properties(
    device: vk::PhysicalDevice,
    format: vk::Format,
    image_type: vk::ImageType,
    samples: vk::SampleCountFlags,
    usage: vk::ImageUsageFlags,
    tiling: vk::ImageTiling,
    count: *mut u32,
    out: *mut vk::SparseImageFormatProperties,
) {
    on_physical_device(device, "vkGetPhysicalDeviceSparseImageFormatProperties", |instance, owned| {
        if !owned && !is_extra(instance, device) {
            let next = instance.next.fp_v1_0().get_physical_device_sparse_image_format_properties;
            // SAFETY: the application's valid arguments, handed on.
            return unsafe { next(device, format, image_type, samples, usage, tiling, count, out) };
        }
        let query = vk::PhysicalDeviceSparseImageFormatInfo2::default()
            .format(format)
            .ty(image_type)
            .samples(samples)
            .usage(usage)
            .tiling(tiling);
        let properties = offered(instance, device, owned, &query);
        // SAFETY: the application's count and array, as the specification describes them.
        unsafe { write_array(&properties, count, out, |slot, value| *slot = value) };
    });
}

pub(crate) unsafe extern "system" fn get_physical_device_sparse_image_format_properties2(
    device: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceSparseImageFormatInfo2<'_>,
    count: *mut u32,
    out: *mut vk::SparseImageFormatProperties2<'_>,
) {
    on_physical_device(device, "vkGetPhysicalDeviceSparseImageFormatProperties2", |instance, owned| {
        if !owned && !is_extra(instance, device) {
            let next = instance.next.fp_v1_1().get_physical_device_sparse_image_format_properties2;
            // SAFETY: the application's valid arguments, handed on.
            return unsafe { next(device, info, count, out) };
        }
        // SAFETY: the application's valid argument.
        let properties = offered(instance, device, owned, unsafe { &*info });
        // SAFETY: the application's count and array, as the specification describes them.
        unsafe { write_array(&properties, count, out, |slot, value| slot.properties = value) };
    });
}

//! Names, labels and private data of the added queues, which the driver and the layers below do not know.

use super::{Added, choose};
use crate::device::{Device, on_device};
use ash::vk::{self, Handle as _};
use core::ffi::CStr;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// What applications store with the added queues.
#[derive(Default)]
pub struct Labels {
    private: Mutex<FxHashMap<(vk::PrivateDataSlot, u64), u64>>,
}

fn is_own(added: &Added, object_type: vk::ObjectType, handle: u64) -> bool {
    object_type == vk::ObjectType::QUEUE && added.owns(vk::Queue::from_raw(handle))
}

/// A command that says something of an object: dropped where the object is an added queue (`own`).
///
/// # Safety
/// `F` is the type of the function `name`.
unsafe fn say<F: Copy, R>(
    d: &Arc<Device>,
    name: &CStr,
    own: impl FnOnce(&Added) -> bool,
    dropped: R,
    next: impl FnOnce(F) -> R,
) -> R {
    if d.added.as_ref().is_some_and(own) {
        return dropped;
    }
    // SAFETY: the caller's promise.
    match unsafe { d.next_function::<F>(name) } {
        Some(function) => next(function),
        None => dropped,
    }
}

pub(crate) unsafe extern "system" fn set_debug_utils_object_name_ext(
    device: vk::Device,
    info: *const vk::DebugUtilsObjectNameInfoEXT<'_>,
) -> vk::Result {
    on_device(device, "vkSetDebugUtilsObjectNameEXT", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            let own = |added: &Added| is_own(added, (*info).object_type, (*info).object_handle);
            say::<vk::PFN_vkSetDebugUtilsObjectNameEXT, _>(
                d,
                c"vkSetDebugUtilsObjectNameEXT",
                own,
                vk::Result::SUCCESS,
                |next| next(device, info),
            )
        }
    })
}

pub(crate) unsafe extern "system" fn set_debug_utils_object_tag_ext(
    device: vk::Device,
    info: *const vk::DebugUtilsObjectTagInfoEXT<'_>,
) -> vk::Result {
    on_device(device, "vkSetDebugUtilsObjectTagEXT", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            let own = |added: &Added| is_own(added, (*info).object_type, (*info).object_handle);
            say::<vk::PFN_vkSetDebugUtilsObjectTagEXT, _>(
                d,
                c"vkSetDebugUtilsObjectTagEXT",
                own,
                vk::Result::SUCCESS,
                |next| next(device, info),
            )
        }
    })
}

/// Whether an object is an added queue in the words of VK_EXT_debug_marker.
fn is_own_marked(added: &Added, object_type: vk::DebugReportObjectTypeEXT, handle: u64) -> bool {
    object_type == vk::DebugReportObjectTypeEXT::QUEUE && added.owns(vk::Queue::from_raw(handle))
}

pub(crate) unsafe extern "system" fn debug_marker_set_object_name_ext(
    device: vk::Device,
    info: *const vk::DebugMarkerObjectNameInfoEXT<'_>,
) -> vk::Result {
    on_device(device, "vkDebugMarkerSetObjectNameEXT", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            let own = |added: &Added| is_own_marked(added, (*info).object_type, (*info).object);
            say::<vk::PFN_vkDebugMarkerSetObjectNameEXT, _>(
                d,
                c"vkDebugMarkerSetObjectNameEXT",
                own,
                vk::Result::SUCCESS,
                |next| next(device, info),
            )
        }
    })
}

pub(crate) unsafe extern "system" fn debug_marker_set_object_tag_ext(
    device: vk::Device,
    info: *const vk::DebugMarkerObjectTagInfoEXT<'_>,
) -> vk::Result {
    on_device(device, "vkDebugMarkerSetObjectTagEXT", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            let own = |added: &Added| is_own_marked(added, (*info).object_type, (*info).object);
            say::<vk::PFN_vkDebugMarkerSetObjectTagEXT, _>(
                d,
                c"vkDebugMarkerSetObjectTagEXT",
                own,
                vk::Result::SUCCESS,
                |next| next(device, info),
            )
        }
    })
}

pub(crate) unsafe extern "system" fn queue_begin_debug_utils_label_ext(
    queue: vk::Queue,
    label: *const vk::DebugUtilsLabelEXT<'_>,
) {
    on_device(queue, "vkQueueBeginDebugUtilsLabelEXT", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            say::<vk::PFN_vkQueueBeginDebugUtilsLabelEXT, _>(
                d,
                c"vkQueueBeginDebugUtilsLabelEXT",
                |added| added.owns(queue),
                (),
                |next| next(queue, label),
            );
        }
    });
}

pub(crate) unsafe extern "system" fn queue_end_debug_utils_label_ext(queue: vk::Queue) {
    on_device(queue, "vkQueueEndDebugUtilsLabelEXT", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            say::<vk::PFN_vkQueueEndDebugUtilsLabelEXT, _>(
                d,
                c"vkQueueEndDebugUtilsLabelEXT",
                |added| added.owns(queue),
                (),
                |next| next(queue),
            );
        }
    });
}

pub(crate) unsafe extern "system" fn queue_insert_debug_utils_label_ext(
    queue: vk::Queue,
    label: *const vk::DebugUtilsLabelEXT<'_>,
) {
    on_device(queue, "vkQueueInsertDebugUtilsLabelEXT", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            say::<vk::PFN_vkQueueInsertDebugUtilsLabelEXT, _>(
                d,
                c"vkQueueInsertDebugUtilsLabelEXT",
                |added| added.owns(queue),
                (),
                |next| next(queue, label),
            );
        }
    });
}

pub(crate) unsafe extern "system" fn set_private_data(
    device: vk::Device,
    object_type: vk::ObjectType,
    handle: u64,
    slot: vk::PrivateDataSlot,
    data: u64,
) -> vk::Result {
    on_device(device, "vkSetPrivateData", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let next = || unsafe { (d.next.fp_v1_3().set_private_data)(device, object_type, handle, slot, data) };
        choose(
            d,
            |added| {
                if !is_own(added, object_type, handle) {
                    return next();
                }
                added.labels.private.lock().insert((slot, handle), data);
                vk::Result::SUCCESS
            },
            next,
        )
    })
}

pub(crate) unsafe extern "system" fn get_private_data(
    device: vk::Device,
    object_type: vk::ObjectType,
    handle: u64,
    slot: vk::PrivateDataSlot,
    data: *mut u64,
) {
    on_device(device, "vkGetPrivateData", |d, _| {
        // SAFETY: the application's valid arguments, handed on.
        let next = || unsafe { (d.next.fp_v1_3().get_private_data)(device, object_type, handle, slot, data) };
        choose(
            d,
            |added| {
                if !is_own(added, object_type, handle) {
                    return next();
                }
                let stored = added.labels.private.lock().get(&(slot, handle)).copied();
                // SAFETY: as above.
                unsafe { *data = stored.unwrap_or(0) };
            },
            next,
        );
    });
}

pub(crate) unsafe extern "system" fn destroy_private_data_slot(
    device: vk::Device,
    slot: vk::PrivateDataSlot,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    on_device(device, "vkDestroyPrivateDataSlot", |d, _| {
        if let Some(added) = &d.added {
            added.labels.private.lock().retain(|(of, _), _| *of != slot);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_3().destroy_private_data_slot)(device, slot, allocator) };
    });
}

//! The functions behind the names in `commands.txt`, and the answers to "where is this function?".

pub(crate) use crate::added::barriers::{
    allocate_command_buffers, cmd_pipeline_barrier, cmd_pipeline_barrier2, cmd_set_event2, cmd_wait_events,
    cmd_wait_events2, create_command_pool, destroy_command_pool, free_command_buffers,
};
pub(crate) use crate::added::family::{
    get_device_queue, get_device_queue2, get_physical_device_queue_family_properties,
    get_physical_device_queue_family_properties2, get_physical_device_surface_support_khr,
    get_physical_device_wayland_presentation_support_khr, get_physical_device_xcb_presentation_support_khr,
    get_physical_device_xlib_presentation_support_khr,
};
pub(crate) use crate::added::labels::{
    debug_marker_set_object_name_ext, debug_marker_set_object_tag_ext, destroy_private_data_slot,
    get_private_data, queue_begin_debug_utils_label_ext, queue_end_debug_utils_label_ext,
    queue_insert_debug_utils_label_ext, set_debug_utils_object_name_ext, set_debug_utils_object_tag_ext,
    set_private_data,
};
pub(crate) use crate::added::sharing::{
    create_shared_swapchains_khr, create_swapchain_khr, get_device_image_subresource_layout_khr,
};
pub(crate) use crate::added::submit::{
    device_wait_idle, get_fence_status, queue_present_khr, queue_submit, queue_submit2, queue_wait_idle,
    signal_semaphore, wait_for_fences,
};
pub(crate) use crate::buffer::{
    create_buffer, destroy_buffer, get_buffer_memory_requirements, get_buffer_memory_requirements2,
    get_device_buffer_memory_requirements,
};
pub(crate) use crate::device::{create_device, destroy_device};
pub(crate) use crate::image::{
    create_image, destroy_image, get_device_image_memory_requirements,
    get_device_image_sparse_memory_requirements, get_image_memory_requirements,
    get_image_memory_requirements2, get_image_sparse_memory_requirements,
    get_image_sparse_memory_requirements2,
};
pub(crate) use crate::instance::{create_instance, destroy_instance};
pub(crate) use crate::memory::{
    allocate_memory, free_memory, map_memory, map_memory2_khr, unmap_memory, unmap_memory2_khr,
};
pub(crate) use crate::payload::{
    acquire_next_image_khr, acquire_next_image2_khr, create_fence, destroy_fence, import_fence_fd_khr,
    import_semaphore_fd_khr,
};
pub(crate) use crate::queue::queue_bind_sparse;
pub(crate) use crate::report::{
    get_physical_device_features, get_physical_device_features2, get_physical_device_image_format_properties,
    get_physical_device_image_format_properties2, get_physical_device_properties,
    get_physical_device_properties2, get_physical_device_sparse_image_format_properties,
    get_physical_device_sparse_image_format_properties2,
};
pub(crate) use crate::semaphore::{create_semaphore, destroy_semaphore};
pub(crate) use crate::shader::{
    create_compute_pipelines, create_graphics_pipelines, create_ray_tracing_pipelines_khr,
    create_shader_module, create_shaders_ext,
};

use crate::device::{self, Role};
use crate::instance::{self, guard};
use crate::loader::{self, NegotiateLayerInterface};
use crate::vk_registry::{Level, lookup};
use ash::vk;
use core::ffi::c_char;

/// The layer's function of a name, with its level.
///
/// # Safety
/// `name` is null or a NUL-terminated string.
unsafe fn own(name: *const c_char) -> Option<(Level, vk::PFN_vkVoidFunction)> {
    // SAFETY: the caller's promise.
    lookup(unsafe { loader::name_of(name) }?.to_bytes())
}

pub(crate) unsafe extern "system" fn get_instance_proc_addr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    guard("vkGetInstanceProcAddr", || {
        // SAFETY: the loader's or the application's valid argument.
        match unsafe { own(name) } {
            // Before there is an instance there is nobody to ask; afterwards the layer offers only what is there without it.
            Some((Level::Global, function)) => function,
            Some((_, function)) => instance::next_proc_addr(instance, name).and(function),
            None => instance::next_proc_addr(instance, name),
        }
    })
}

pub(crate) unsafe extern "system" fn get_device_proc_addr(
    handle: vk::Device,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    guard("vkGetDeviceProcAddr", || {
        let (next, role) = device::next_proc_addr(handle, name);
        // SAFETY: the loader's or the application's valid argument.
        let named = unsafe { loader::name_of(name) };
        match lookup(named?.to_bytes()) {
            // On a device that the layer leaves alone, only its end is of interest.
            Some((Level::Device, function))
                if role >= Role::OwnsBinding
                    || named == Some(c"vkDestroyDevice")
                    || named == Some(c"vkGetDeviceProcAddr") =>
            {
                next.and(function)
            }
            Some((Level::AddedQueues, function)) if role == Role::HasQueues => next.and(function),
            _ => next,
        }
    })
}

unsafe extern "system" fn get_physical_device_proc_addr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    guard("vk_layerGetPhysicalDeviceProcAddr", || {
        // SAFETY: a handle of the loader's.
        let record = instance::find(unsafe { loader::DispatchKey::of(instance) })?;
        // SAFETY: the loader's valid arguments.
        let next = record.get_physical_device_proc_addr.and_then(|next| unsafe { next(instance, name) });
        // SAFETY: as above.
        match unsafe { own(name) } {
            Some((Level::PhysicalDevice, function)) => next.and(function),
            _ => next,
        }
    })
}

/// The loader's first call (loader and layer interface, version 2).
///
/// # Safety
/// `interface` is null or the loader's structure.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vkNegotiateLoaderLayerInterfaceVersion(
    interface: *mut NegotiateLayerInterface,
) -> vk::Result {
    // SAFETY: the caller's promise.
    let Some(interface) = (unsafe { interface.as_mut() }) else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    if interface.s_type != loader::NEGOTIATE_INTERFACE_STRUCT
        || interface.loader_layer_interface_version < loader::LOADER_LAYER_INTERFACE_VERSION
    {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    }
    interface.loader_layer_interface_version = loader::LOADER_LAYER_INTERFACE_VERSION;
    interface.get_instance_proc_addr = Some(get_instance_proc_addr);
    interface.get_device_proc_addr = Some(get_device_proc_addr);
    interface.get_physical_device_proc_addr = Some(get_physical_device_proc_addr);
    vk::Result::SUCCESS
}

//! The loader's side of the layer interface (vulkan/vk_layer.h), which is not part of vk.xml.

use ash::vk;
use core::ffi::{CStr, c_char, c_void};

/// `PFN_GetPhysicalDeviceProcAddr`.
pub type PfnGetPhysicalDeviceProcAddr =
    unsafe extern "system" fn(vk::Instance, *const c_char) -> vk::PFN_vkVoidFunction;

/// The interface version that this layer speaks.
pub const LOADER_LAYER_INTERFACE_VERSION: u32 = 2;

/// `VkNegotiateLayerInterface`.
#[repr(C)]
pub struct NegotiateLayerInterface {
    pub s_type: i32,
    pub p_next: *mut c_void,
    pub loader_layer_interface_version: u32,
    pub get_instance_proc_addr: Option<vk::PFN_vkGetInstanceProcAddr>,
    pub get_device_proc_addr: Option<vk::PFN_vkGetDeviceProcAddr>,
    pub get_physical_device_proc_addr: Option<PfnGetPhysicalDeviceProcAddr>,
}

/// `LAYER_NEGOTIATE_INTERFACE_STRUCT`.
pub const NEGOTIATE_INTERFACE_STRUCT: i32 = 1;

/// `VK_LAYER_LINK_INFO` and `VK_LOADER_DATA_CALLBACK`, the `VkLayerFunction`s that the layer reads.
const LINK_INFO: i32 = 0;
const LOADER_DATA_CALLBACK: i32 = 1;

/// `VkLayerInstanceLink`: the next layer of the instance chain.
#[repr(C)]
pub struct InstanceLink {
    next: *mut InstanceLink,
    pub get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr,
    pub get_physical_device_proc_addr: Option<PfnGetPhysicalDeviceProcAddr>,
}

/// `VkLayerDeviceLink`: the next layer of the device chain.
#[repr(C)]
pub struct DeviceLink {
    next: *mut DeviceLink,
    pub get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr,
    pub get_device_proc_addr: vk::PFN_vkGetDeviceProcAddr,
}

/// `VkLayerInstanceCreateInfo` and `VkLayerDeviceCreateInfo`, which differ only in the type of the link.
#[repr(C)]
struct LayerCreateInfo<Link> {
    s_type: vk::StructureType,
    p_next: *mut c_void,
    function: i32,
    link: *mut Link,
}

trait Chained: Sized {
    fn next(&self) -> *mut Self;
}
impl Chained for InstanceLink {
    fn next(&self) -> *mut Self {
        self.next
    }
}
impl Chained for DeviceLink {
    fn next(&self) -> *mut Self {
        self.next
    }
}

/// Takes this layer's link out of a create info's chain: the chain then names the layer after the next one.
///
/// # Safety
/// `p_next` is a valid chain from the loader; the layer links in it are the loader's and may be written (the interface says so).
unsafe fn take_link<Link: Chained>(
    mut p_next: *const c_void,
    s_type: vk::StructureType,
) -> Option<&'static Link> {
    while !p_next.is_null() {
        let info = p_next.cast_mut().cast::<LayerCreateInfo<Link>>();
        // SAFETY: every chained structure begins with sType and pNext; the rest is read only when sType says what it is.
        unsafe {
            if (*info).s_type == s_type && (*info).function == LINK_INFO {
                let link = (*info).link.as_ref()?;
                (*info).link = link.next();
                return Some(link);
            }
            p_next = (*info).p_next;
        }
    }
    None
}

/// See [`take_link`].
///
/// # Safety
/// `info` comes from the loader through `vkCreateInstance`.
pub unsafe fn take_instance_link(info: &vk::InstanceCreateInfo) -> Option<&'static InstanceLink> {
    // SAFETY: the caller's promise.
    unsafe { take_link(info.p_next, vk::StructureType::LOADER_INSTANCE_CREATE_INFO) }
}

/// See [`take_link`].
///
/// # Safety
/// `info` comes from the loader through `vkCreateDevice`.
pub unsafe fn take_device_link(info: &vk::DeviceCreateInfo) -> Option<&'static DeviceLink> {
    // SAFETY: the caller's promise.
    unsafe { take_link(info.p_next, vk::StructureType::LOADER_DEVICE_CREATE_INFO) }
}

/// `PFN_vkSetDeviceLoaderData`: gives a dispatchable object of a device its dispatch table.
pub type SetDeviceLoaderData = unsafe extern "system" fn(vk::Device, *mut c_void) -> vk::Result;

/// The loader's callback for objects that a layer makes.
///
/// # Safety
/// `info` comes from the loader through `vkCreateDevice`.
pub unsafe fn device_loader_data(info: &vk::DeviceCreateInfo<'_>) -> Option<SetDeviceLoaderData> {
    let mut p_next = info.p_next;
    while !p_next.is_null() {
        let found = p_next.cast::<LayerCreateInfo<c_void>>();
        // SAFETY: every chained structure begins with sType and pNext; the rest is read only when sType says what it is. With this
        // function, the union after it holds the callback, which is a pointer as the link is.
        unsafe {
            if (*found).s_type == vk::StructureType::LOADER_DEVICE_CREATE_INFO
                && (*found).function == LOADER_DATA_CALLBACK
            {
                return core::mem::transmute::<*mut c_void, Option<SetDeviceLoaderData>>((*found).link);
            }
            p_next = (*found).p_next;
        }
    }
    None
}

/// What a dispatchable handle begins with: the loader's dispatch table, the same for an instance and its physical devices, and for
/// a device, its queues and its command buffers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DispatchKey(usize);

impl DispatchKey {
    /// # Safety
    /// `handle` is a valid dispatchable handle.
    pub unsafe fn of<H: vk::Handle>(handle: H) -> Self {
        // SAFETY: a dispatchable handle is a pointer to an object whose first word is the dispatch table (loader interface).
        Self(unsafe { *(handle.as_raw() as *const usize) })
    }
}

/// The bytes of a command's name as the loader and applications pass it.
///
/// # Safety
/// `name` is null or a NUL-terminated string.
pub unsafe fn name_of<'a>(name: *const c_char) -> Option<&'a CStr> {
    // SAFETY: the caller's promise.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })
}

//! Where a driver puts its objects: it says so through VK_EXT_device_address_binding_report, to a messenger of the layer's.
//!
//! Drivers report while they make the object, in the thread that asked for it, whether or not the extension's feature is on.

use crate::instance::Instance;
use ash::vk;
use core::ffi::{CStr, c_void};
use gpuvm::VaRange;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The instance extension that messengers need.
pub const EXTENSION: &CStr = ash::ext::debug_utils::NAME;

/// Addresses that an object has got, in bytes as reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Report {
    object: u64,
    range: VaRange,
}

thread_local! {
    /// What was reported to this thread, while somebody listens.
    static HEARD: RefCell<Option<Vec<Report>>> = const { RefCell::new(None) };
}

/// Listens to an instance's reports.
pub struct Messenger {
    handle: vk::DebugUtilsMessengerEXT,
    destroy: vk::PFN_vkDestroyDebugUtilsMessengerEXT,
}

impl Messenger {
    /// `None` where the instance has no debug messengers.
    pub fn new(instance: &Instance) -> Option<Self> {
        type Create = vk::PFN_vkCreateDebugUtilsMessengerEXT;
        type Destroy = vk::PFN_vkDestroyDebugUtilsMessengerEXT;
        // SAFETY: the functions of these names.
        let (create, destroy) = unsafe {
            (
                instance.next_function::<Create>(c"vkCreateDebugUtilsMessengerEXT")?,
                instance.next_function::<Destroy>(c"vkDestroyDebugUtilsMessengerEXT")?,
            )
        };
        let info = vk::DebugUtilsMessengerCreateInfoEXT::default()
            .message_severity(vk::DebugUtilsMessageSeverityFlagsEXT::INFO)
            .message_type(vk::DebugUtilsMessageTypeFlagsEXT::DEVICE_ADDRESS_BINDING)
            .pfn_user_callback(Some(hear));
        let mut handle = vk::DebugUtilsMessengerEXT::null();
        // SAFETY: the instance is alive, the create info valid.
        let result = unsafe { create(instance.next.handle(), &info, core::ptr::null(), &mut handle) };
        (result == vk::Result::SUCCESS).then_some(Self { handle, destroy })
    }

    /// Ends it, before its instance.
    pub fn release(&self, instance: &ash::Instance) {
        // SAFETY: made in `new`.
        unsafe { (self.destroy)(instance.handle(), self.handle, core::ptr::null()) };
    }
}

/// Makes an object, and tells which addresses the driver reported for it meanwhile: none unless it was exactly one range.
pub fn listen<H: vk::Handle + Copy, E>(
    make: impl FnOnce() -> Result<H, E>,
) -> Result<(H, Option<VaRange>), E> {
    HEARD.set(Some(Vec::new()));
    let made = make();
    let heard = HEARD.take().unwrap_or_default();
    let made = made?;
    let mut own = heard.iter().filter(|report| report.object == made.as_raw());
    let range = own.next().map(|report| report.range).filter(|_| own.next().is_none());
    Ok((made, range))
}

unsafe extern "system" fn hear(
    _: vk::DebugUtilsMessageSeverityFlagsEXT,
    _: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    _: *mut c_void,
) -> vk::Bool32 {
    let heard = AssertUnwindSafe(|| {
        // SAFETY: the driver's valid argument, here and below.
        let data = unsafe { &*data };
        // SAFETY: as above.
        let binding =
            unsafe { crate::chain::find::<vk::DeviceAddressBindingCallbackDataEXT<'_>>(data.p_next) };
        // SAFETY: as above.
        let objects = unsafe { crate::arrays::slice(data.p_objects, data.object_count) };
        if let (Some(binding), [object]) = (binding, objects)
            && binding.binding_type == vk::DeviceAddressBindingTypeEXT::BIND
        {
            HEARD.with_borrow_mut(|heard| {
                if let Some(heard) = heard {
                    let range = VaRange { start: binding.base_address, len: binding.size };
                    heard.push(Report { object: object.object_handle, range });
                }
            });
        }
    });
    // Nobody here may unwind into the driver; what was not heard makes the layer stand aside for one object.
    let _ = catch_unwind(heard);
    vk::FALSE
}

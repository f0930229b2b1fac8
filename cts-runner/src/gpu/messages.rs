//! What validation layers say while a case runs.

use ash::vk;
use std::ffi::{CStr, c_void};
use std::sync::Mutex;

/// Every message of this process: a case has a process of its own.
static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The messenger that collects errors and warnings of validation layers.
pub(crate) fn messenger_info() -> vk::DebugUtilsMessengerCreateInfoEXT<'static> {
    vk::DebugUtilsMessengerCreateInfoEXT::default()
        .message_severity(
            vk::DebugUtilsMessageSeverityFlagsEXT::ERROR | vk::DebugUtilsMessageSeverityFlagsEXT::WARNING,
        )
        .message_type(vk::DebugUtilsMessageTypeFlagsEXT::VALIDATION)
        .pfn_user_callback(Some(callback))
}

/// Takes the messages collected so far.
pub(crate) fn take() -> Vec<String> {
    std::mem::take(&mut *MESSAGES.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

unsafe extern "system" fn callback(
    _severity: vk::DebugUtilsMessageSeverityFlagsEXT,
    _types: vk::DebugUtilsMessageTypeFlagsEXT,
    data: *const vk::DebugUtilsMessengerCallbackDataEXT<'_>,
    _user: *mut c_void,
) -> vk::Bool32 {
    // SAFETY: Vulkan hands over a valid structure for the time of the call, or a layer a null pointer by mistake.
    if let Some(data) = unsafe { data.as_ref() } {
        let text = |pointer: *const std::ffi::c_char| {
            if pointer.is_null() {
                String::new()
            } else {
                // SAFETY: not null, so a NUL-terminated string as the structure demands.
                unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
            }
        };
        let message = format!("{}: {}", text(data.p_message_id_name), text(data.p_message));
        MESSAGES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(message);
    }
    vk::FALSE
}

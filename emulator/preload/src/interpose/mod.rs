//! The functions of the C library that programs call through this library.
//!
//! Each does what the C library's own does ([`crate::real`]), with three exceptions: paths of the emulation lead to its files,
//! descriptors of the node lead to the device, and the node's placeholder looks like the node.
//!
//! The C library itself does not come by here: `fopen` opens by its own means, which is why it is among them.
//! Functions that are variadic in C are declared with their last argument: where C passes variadic arguments as it
//! passes others (Linux on x86-64 and aarch64 do), the two are called alike. An argument that the caller left out is some value
//! that is handed on and looked at by nobody.

mod descriptors;
mod memory;
mod paths;
mod status;

use core::ffi::{CStr, c_char};

use crate::emulation;

/// Calls `call` with `path`, or with where it leads if it names a file of the emulation.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn redirected<T>(path: *const c_char, call: impl FnOnce(*const c_char) -> T) -> T {
    if let Some(emulation) = emulation::get()
        && !path.is_null()
    {
        // SAFETY: our caller's promise.
        let text = unsafe { CStr::from_ptr(path) };
        if let Some(inside) = emulation.redirect(text) {
            return call(inside.as_ptr());
        }
    }
    call(path)
}

//! What making a sparse buffer and making a sparse image have in common.

use crate::address_space::BindError;
use crate::handles::Table;
use crate::icd::lavapipe::{LearnError, WindowError};
use ash::vk;
use core::hash::Hash;
use thiserror::Error;

/// Why a sparse resource could not be made.
#[derive(Debug, Error)]
pub enum CreateError {
    #[error("{0}")]
    Rule(&'static str),
    #[error(
        "{0:?} has no sparse residency of this kind (vkGetPhysicalDeviceSparseImageFormatProperties says so)"
    )]
    Format(vk::Format),
    #[error("{call} failed: {result}")]
    Driver { call: &'static str, result: vk::Result },
    #[error("the driver does not say where it put the resource")]
    NoAddress,
    #[error("no {0:#x} bytes of address space are left")]
    AddressSpace(u64),
    #[error("the driver put the resource at {driver:#x}, not at {expected:#x}")]
    Place { driver: u64, expected: u64 },
    #[error("the resource is not where the layer expected it: {0}")]
    Learn(#[from] LearnError),
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("the kernel does not map what is unbound of it: {0}")]
    Kernel(kmd::Errno),
    #[error(transparent)]
    Bind(BindError),
}

impl CreateError {
    /// What the application is told.
    fn result(&self) -> vk::Result {
        match self {
            Self::Rule(_) => vk::Result::ERROR_VALIDATION_FAILED_EXT,
            Self::Format(_) => vk::Result::ERROR_FORMAT_NOT_SUPPORTED,
            Self::Driver { result, .. } => *result,
            Self::AddressSpace(_) | Self::Bind(_) | Self::Window(_) | Self::Kernel(_) => {
                vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
            }
            Self::NoAddress | Self::Place { .. } | Self::Learn(_) => vk::Result::ERROR_INITIALIZATION_FAILED,
        }
    }
}

/// Ends a creation: notes the resource and gives its handle to the application, or says in the log why there is none.
///
/// # Safety
/// `out` is valid.
pub unsafe fn hand_out<H: Copy + Eq + Hash, R>(
    call: &str,
    made: Result<(H, R), CreateError>,
    table: &Table<H, R>,
    out: *mut H,
) -> vk::Result {
    match made {
        Ok((handle, record)) => {
            table.insert(handle, record);
            // SAFETY: the caller's promise.
            unsafe { *out = handle };
            vk::Result::SUCCESS
        }
        Err(error) => {
            tracing::error!("{call}: {error}");
            error.result()
        }
    }
}

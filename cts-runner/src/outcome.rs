//! How a case ends when it does not simply pass.

use ash::vk;

/// Why a case stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stop {
    /// What was read, returned or reported is not what the specification asks for.
    #[error("{0}")]
    Fail(String),
    /// A Vulkan command that has to succeed here did not.
    #[error("{call} returned {result:?}")]
    Vulkan { call: &'static str, result: vk::Result },
    /// The implementation does not offer what the case needs.
    #[error("{0}")]
    NotSupported(String),
    /// The case says nothing under these settings.
    #[error("{0}")]
    Skip(String),
}

/// What a case returns.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

impl Stop {
    /// Whether a Vulkan command answered that memory ran out, on the host or on the device.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Vulkan { result, .. } if out_of_memory(*result))
    }
}

/// Whether `result` says that memory ran out, on the host or on the device.
pub(crate) fn out_of_memory(result: vk::Result) -> bool {
    matches!(result, vk::Result::ERROR_OUT_OF_HOST_MEMORY | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY)
}

/// Names the command whose result is looked at.
pub(crate) trait Called<T> {
    fn called(self, call: &'static str) -> Outcome<T>;
}

impl<T> Called<T> for Result<T, vk::Result> {
    fn called(self, call: &'static str) -> Outcome<T> {
        self.map_err(|result| Stop::Vulkan { call, result })
    }
}

/// Fails the case with a formatted message. It is also written down at once: what is torn down on the way out may hang.
macro_rules! fail {
    ($($message:tt)+) => {{
        let message = format!($($message)+);
        eprintln!("failed: {message}");
        return Err($crate::outcome::Stop::Fail(message))
    }};
}

/// Fails the case with a formatted message unless the condition holds.
macro_rules! check {
    ($condition:expr, $($message:tt)+) => { if !$condition { $crate::outcome::fail!($($message)+) } };
}

pub(crate) use {check, fail};

//! Why a request is refused.

use std::sync::Arc;

use crate::VaRange;

/// A refused request. Nothing has changed when one of these is returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VmError {
    /// The size is zero.
    #[error("the range at {start:#x} is empty")]
    Empty {
        /// First byte of the refused range.
        start: u64,
    },
    /// `start + len` does not fit in 64 bits. As in `drm_gpuvm_check_overflow()` the *end* has to fit, so the
    /// last byte of the 64-bit space cannot be mapped.
    #[error("{start:#x} + {len:#x} does not fit in 64 bits")]
    Overflow {
        /// First byte of the refused range.
        start: u64,
        /// Length in bytes.
        len: u64,
    },
    /// The range is not entirely inside the VM.
    #[error("{range} is not inside the VM's {vm}")]
    OutOfRange {
        /// The refused range.
        range: VaRange,
        /// What the VM manages.
        vm: VaRange,
    },
    /// The range touches the part of the VM that the kernel keeps for itself.
    #[error("{range} touches the reserved {reserved}")]
    Reserved {
        /// The refused range.
        range: VaRange,
        /// The kernel's part.
        reserved: VaRange,
    },
    /// An address, a length or an object offset is not a multiple of the page size.
    #[error("{value:#x} is not a multiple of the page size {page_size:#x}")]
    Misaligned {
        /// The offending address, length or offset in bytes.
        value: u64,
        /// The policy's page size in bytes.
        page_size: u64,
    },
    /// Something is mapped there already.
    #[error("{range} overlaps the mapping at {mapped}")]
    Occupied {
        /// The refused range.
        range: VaRange,
        /// The first mapping in the way.
        mapped: VaRange,
    },
    /// The VM has become unusable; it still unmaps.
    #[error("the VM is unusable: {reason}")]
    Unusable {
        /// Why it has.
        reason: Arc<str>,
    },
    /// The object has no `vm_bo` in the VM.
    #[error("the VM does not know the object")]
    UnknownObject,
    /// A job, a handle or a lock belongs to another VM.
    #[error("it belongs to another VM")]
    OtherVm,
    /// A reservation is not locked that protects what the request touches.
    #[error("a reservation that has to be locked is not")]
    NotLocked,
}

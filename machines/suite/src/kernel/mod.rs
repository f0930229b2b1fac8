//! The two kernels that play scripts.

mod emulated;
mod msm;
mod real;

pub use emulated::Emulated;
pub use msm::RealMsm;
pub use real::{Held, RealPanthor};

use kmd::Node;
use rustix::fd::OwnedFd;

/// A kernel with an open file of a driver, as scripts need it.
pub trait Kernel {
    /// The open file.
    fn node(&self) -> &dyn Node;

    /// A sync file of a fence that nobody signals before [`Self::release`].
    fn hold(&mut self) -> OwnedFd;

    /// Signals all fences that are held.
    fn release(&mut self);

    /// The object `handle` of `len` bytes is new: what is in it does not matter yet.
    fn made(&mut self, _handle: u32, _len: u64) {}

    /// The file has a VM now, which will be looked at; a submission without a command stream may help.
    fn locate(&mut self) {}

    /// What VM `vm` maps below `marker`, in order of address. `marker` is the address of a sparse page that no other VM has,
    /// where a driver has more than one VM in a file.
    fn mappings(&self, vm: u32, marker: u64) -> Vec<Mapping>;
}

/// A range that a VM maps. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub va: u64,
    /// Length.
    pub len: u64,
    /// The object, by whatever the kernel knows it, and the offset in it; nothing for a sparse range.
    pub object: Option<(u64, u64)>,
}

impl Mapping {
    /// Whether `next` is this range's continuation in address and content. Never for the object zero, which may be any.
    pub fn continues_as(&self, next: &Self) -> bool {
        let content = match (self.object, next.object) {
            (None, None) => true,
            (Some((object, offset)), Some(other)) => object != 0 && (object, offset + self.len) == other,
            _ => false,
        };
        content && self.va + self.len == next.va
    }
}

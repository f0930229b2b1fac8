//! Addresses that the kernel chooses: VMs of those who have not opted in to VM_BIND. An object has one place in such a VM, and is
//! mapped there from the first submission that names it until its handle is closed.

use core::ops::Range;
use std::collections::HashMap;
use std::sync::Arc;

use rustix::io::Errno;

use crate::drm::gem::Object;
use crate::mem::PAGE;
use crate::mem::ranges::Ranges;
use crate::vm::{Action, AddressSpace, Operation};

/// The places of objects in a VM.
pub(super) struct Managed {
    ranges: Ranges,
    /// By the object's number.
    places: HashMap<u64, Place>,
}

#[derive(Clone, Copy)]
struct Place {
    va: u64,
    len: u64,
    mapped: bool,
}

impl Managed {
    pub(super) fn new(va: Range<u64>) -> Self {
        Self { ranges: Ranges::new(va.start, va.end), places: HashMap::new() }
    }

    /// The object's address: the one it has, or a new one. `ENOSPC`: there is none.
    pub(super) fn address(&mut self, object: &Object) -> Result<u64, Errno> {
        if let Some(place) = self.places.get(&object.id) {
            return Ok(place.va);
        }
        let va = self.ranges.alloc(object.size, PAGE).ok_or(Errno::NOSPC)?;
        self.places.insert(object.id, Place { va, len: object.size, mapped: false });
        Ok(va)
    }

    /// Puts an object at the address that user space wants, or with zero nowhere. `ENOSPC`: not there. `EBUSY`: it was elsewhere,
    /// and is nowhere now.
    pub(super) fn put(&mut self, space: &AddressSpace, object: &Object, va: u64) -> Result<(), Errno> {
        let old = self.places.get(&object.id).map(|place| place.va);
        if va == 0 || old.is_some_and(|old| old != va) {
            self.clear(space, object);
            return if va == 0 { Ok(()) } else { Err(Errno::BUSY) };
        }
        if old.is_none() {
            if va % PAGE != 0 || !self.ranges.alloc_at(va, object.size) {
                return Err(Errno::NOSPC);
            }
            self.places.insert(object.id, Place { va, len: object.size, mapped: false });
        }
        Ok(())
    }

    /// Maps an object, if it is not mapped.
    pub(super) fn pin(&mut self, space: &AddressSpace, object: &Arc<Object>) -> Result<(), Errno> {
        let va = self.address(object)?;
        let readonly = object.attributes.flags & kmd::uapi::msm::BO_GPU_READONLY != 0;
        if let Some(place) = self.places.get_mut(&object.id).filter(|place| !place.mapped) {
            let action = Action::Map { object: object.clone(), offset: 0, readonly };
            space.run(&Operation { va, len: place.len, action }, |_| true)?;
            place.mapped = true;
        }
        Ok(())
    }

    /// Takes an object's place away.
    pub(super) fn clear(&mut self, space: &AddressSpace, object: &Object) {
        let Some(place) = self.places.remove(&object.id) else { return };
        self.ranges.free(place.va, place.len);
        if place.mapped {
            let unmap = Operation { va: place.va, len: place.len, action: Action::Unmap };
            if let Err(error) = space.run(&unmap, |_| true) {
                tracing::error!(%error, "a closed object stays mapped");
            }
        }
    }
}

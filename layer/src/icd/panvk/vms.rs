//! The open file and the VM on which a PanVK device works: devices share the file of their physical device, and make a VM on it.

use crate::icd::direct::drm_nodes;
use kmd::uapi::panthor::DRIVER_NAME;
use kmd::{RenderNode, panthor};
use rustix::fd::RawFd;
use std::collections::BTreeMap;

/// The VMs of panthor's that the process has, by descriptor.
#[derive(Default)]
pub struct Vms(BTreeMap<RawFd, Vec<u32>>);

impl Vms {
    /// Those there are now.
    pub fn now() -> Self {
        Self(nodes().map(|(fd, _, ids)| (fd, ids)).collect())
    }

    /// The one VM that was made since, and a descriptor of the layer's own for its open file.
    pub fn made_since(&self) -> Option<(RenderNode, u32)> {
        // A descriptor that is new may be one more of an old file, with all of its VMs: those that are known show what is new.
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for (fd, node, ids) in nodes() {
            let before = self.0.get(&fd);
            let made: Vec<_> = ids.into_iter().filter(|id| !before.is_some_and(|b| b.contains(id))).collect();
            // Several could not be told apart.
            if let [id] = made[..] {
                if before.is_some() { known.push((node, id)) } else { new.push((node, id)) }
            }
        }
        known.into_iter().chain(new).next()
    }
}

fn nodes() -> impl Iterator<Item = (RawFd, RenderNode, Vec<u32>)> {
    drm_nodes(DRIVER_NAME).filter_map(|(fd, node)| {
        let ids = panthor::vms(&node).ok()?;
        Some((fd, node, ids))
    })
}

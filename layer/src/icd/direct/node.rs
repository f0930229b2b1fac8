//! The open file on which a driver's device works.

use kmd::{DriverVersion, RenderNode};
use rustix::fd::{BorrowedFd, RawFd};
use rustix::fs::{FileType, fstat, major};
use std::collections::BTreeSet;

/// DRM's character devices.
const DRM_MAJOR: u32 = 226;

/// Descriptors of the process that are DRM nodes.
#[derive(Default)]
pub struct Descriptors(BTreeSet<RawFd>);

impl Descriptors {
    /// Those there are now. What opens or closes descriptors meanwhile may be missed.
    pub fn now() -> Self {
        let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Self::default() };
        let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Self(numbers.filter(|&fd| is_drm(fd)).collect())
    }

    /// The one node of a kernel driver that was opened since, as a descriptor of the layer's own for the same open file. What else is
    /// the driver's stays its own.
    pub fn opened_since(&self, driver: &str) -> Option<RenderNode> {
        let opened = drm_nodes(driver).filter(|(fd, _)| !self.0.contains(fd));
        let mut opened: Vec<_> = opened.map(|(_, node)| node).collect();
        // Two could not be told apart.
        opened.pop().filter(|_| opened.is_empty())
    }
}

/// The process's open nodes of a kernel driver: each number, with a descriptor of the layer's own for the same open file.
pub fn drm_nodes(driver: &str) -> impl Iterator<Item = (RawFd, RenderNode)> {
    Descriptors::now().0.into_iter().filter_map(move |fd| {
        // SAFETY: open a moment ago. If somebody else has closed it meanwhile, the call fails; if the number has become another
        // file, that is looked at like any other.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        let node = RenderNode::from_fd(rustix::io::fcntl_dupfd_cloexec(file, 3).ok()?);
        (DriverVersion::query(&node).ok()?.name == driver).then_some((fd, node))
    })
}

fn is_drm(fd: RawFd) -> bool {
    // SAFETY: only asked what it is; a number without a file gives an error.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    fstat(file).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && major(stat.st_rdev) == DRM_MAJOR
    })
}

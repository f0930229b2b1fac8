//! A DRM render node: the one door to a kernel, real or emulated.

use crate::uapi::{drm as core_uapi, user_address_mut};
use core::ffi::c_void;
use drm::Device;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::path::Path;

/// An open render node.
///
/// Implemented by `RenderNode` for the running kernel and by the emulator in process; everything above speaks
/// ioctls through it and cannot tell the two apart.
pub trait Node: Send + Sync {
    /// Performs one ioctl.
    ///
    /// # Safety
    /// `arg` points to the structure that `request` (the full `_IOC` number) encodes, writable, and every pointer inside it is
    /// valid for what the request does with it.
    unsafe fn ioctl(&self, request: u32, arg: *mut c_void) -> Result<(), Errno>;

    /// Maps `len` bytes of the node's file at `offset` (a fake offset that the driver handed out), shared, readable and writable.
    ///
    /// # Safety
    /// The caller owns the new mapping and must not outlive it with pointers into it.
    unsafe fn mmap(&self, offset: u64, len: usize) -> Result<*mut u8, Errno>;
}

/// An ioctl argument structure that knows its request number.
///
/// # Safety
/// `REQUEST` encodes the size and direction of exactly this `repr(C)` structure.
pub unsafe trait Request: Sized {
    /// The full `_IOC` number.
    const REQUEST: u32;
}

/// Performs the ioctl that `arg`'s type names, again when a signal or a busy driver interrupted it (as libdrm does).
///
/// # Safety
/// Every pointer inside `arg` is valid for what the request does with it.
pub unsafe fn call<R: Request>(node: &dyn Node, arg: &mut R) -> Result<(), Errno> {
    loop {
        // SAFETY: `arg` is the structure that R::REQUEST encodes (contract of Request); the rest is our caller's promise.
        match unsafe { node.ioctl(R::REQUEST, (&raw mut *arg).cast()) } {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            result => return result,
        }
    }
}

/// A driver's name and version, as it reports them itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverVersion {
    /// Name, such as `panthor`.
    pub name: String,
    /// Major version.
    pub major: i32,
    /// Minor version: grows with every compatible addition to the uapi.
    pub minor: i32,
    /// Patch level.
    pub patchlevel: i32,
}

impl DriverVersion {
    /// Asks the driver behind `node`.
    pub fn query(node: &dyn Node) -> Result<Self, Errno> {
        // Longer than any driver's name; the kernel cuts a longer one.
        let mut name = [0u8; 64];
        let mut arg = core_uapi::Version {
            name_len: name.len(),
            name: user_address_mut(&mut name) as usize,
            ..Default::default()
        };
        // SAFETY: the name buffer has `name_len` bytes and outlives the call; no length, no write, for the other two.
        unsafe { call(node, &mut arg)? };
        let len = arg.name_len.min(name.len());
        Ok(Self {
            name: String::from_utf8_lossy(&name[..len]).into_owned(),
            major: arg.version_major,
            minor: arg.version_minor,
            patchlevel: arg.version_patchlevel,
        })
    }
}

/// The real thing: an open render node of the running kernel.
///
/// System calls go through libc and not straight to the kernel (rustix's `use-libc`), so that a preloaded library, such as
/// an emulated device, sees them.
#[derive(Debug)]
pub struct RenderNode(OwnedFd);

impl RenderNode {
    /// Opens a node, such as `/dev/dri/renderD128`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Errno> {
        rustix::fs::open(path.as_ref(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(Self)
    }

    /// Opens the first render node whose driver has this name. ENODEV when there is none.
    pub fn find(driver: &str) -> Result<Self, Errno> {
        let entries = match std::fs::read_dir("/dev/dri") {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Errno::NODEV),
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        };
        let mut paths: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"renderD")))
            .collect();
        // The order of minors, which is the order in which the kernel found the devices.
        paths.sort();
        let mut failure = Errno::NODEV;
        for path in paths {
            match Self::open(&path).map(|node| (node.get_driver(), node)) {
                Ok((Ok(found), node)) if found.name() == driver => return Ok(node),
                Ok((Ok(_), _)) => {}
                Ok((Err(error), _)) => {
                    tracing::debug!(?path, %error, "a render node does not tell its driver")
                }
                // Remembered: "permission denied" says more than "no such device" when nothing else is found.
                Err(errno) => {
                    tracing::debug!(?path, %errno, "cannot open a render node");
                    failure = errno;
                }
            }
        }
        Err(failure)
    }

    /// Wraps a file that is already open. A duplicate of a driver's descriptor shares the driver's open file, with its
    /// handles and VMs.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for RenderNode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Device for RenderNode {}

impl Node for RenderNode {
    unsafe fn ioctl(&self, request: u32, arg: *mut c_void) -> Result<(), Errno> {
        // SAFETY: our caller promises what Ioctl and the request ask for.
        unsafe { rustix::ioctl::ioctl(self, Raw { request, arg }) }
    }

    unsafe fn mmap(&self, offset: u64, len: usize) -> Result<*mut u8, Errno> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches none that exists.
        let start =
            unsafe { rustix::mm::mmap(core::ptr::null_mut(), len, prot, MapFlags::SHARED, self, offset)? };
        Ok(start.cast())
    }
}

/// An ioctl whose number is known only at run time.
struct Raw {
    request: u32,
    arg: *mut c_void,
}

// SAFETY: passes number and pointer on as they are, and returns nothing; that they fit each other is the promise of
// Node::ioctl's caller.
unsafe impl rustix::ioctl::Ioctl for Raw {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> rustix::ioctl::Opcode {
        self.request as rustix::ioctl::Opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.arg
    }

    unsafe fn output_from_ptr(_: rustix::ioctl::IoctlOutput, _: *mut c_void) -> Result<(), Errno> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_come_through() {
        assert_eq!(RenderNode::open("/dev/dri/no such node").err(), Some(Errno::NOENT));
        // Not a DRM file: the ioctl reaches the kernel, which knows no such request for it.
        let node = RenderNode::open("/dev/null").unwrap();
        assert_eq!(DriverVersion::query(&node), Err(Errno::NOTTY));
        // SAFETY: the caller owns what is mapped, and /dev/null maps nothing.
        assert_eq!(unsafe { node.mmap(0, 4096) }, Err(Errno::NODEV));
    }

    #[test]
    fn unknown_driver_is_not_found() {
        assert!(RenderNode::find("no such driver").is_err());
    }
}

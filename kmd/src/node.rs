//! A DRM render node: the one door to a kernel, real or emulated.

use core::ffi::c_void;
use rustix::io::Errno;

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

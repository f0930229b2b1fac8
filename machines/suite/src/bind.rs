//! What tests of every driver bind, and how they wait for it.

use std::time::Duration;

use kmd::syncobj::{Wait, Waited};
use kmd::{BindOp, BindTarget, Errno, GemHandle, Node, Request, Syncobj};

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Bytes that one entry of the level above maps.
pub const BLOCK: u64 = 2 << 20;
/// Where tests map.
pub const BASE: u64 = 0x10_0000_0000;

/// A map at `va` bytes from [`BASE`] on; likewise the two below.
pub fn map(va: u64, len: u64, bo: GemHandle, offset: u64) -> BindOp {
    BindOp { va: BASE + va, len, target: BindTarget::Map { bo, offset } }
}

/// A null mapping.
pub fn null(va: u64, len: u64) -> BindOp {
    BindOp { va: BASE + va, len, target: BindTarget::Null }
}

/// Nothing mapped.
pub fn unmap(va: u64, len: u64) -> BindOp {
    BindOp { va: BASE + va, len, target: BindTarget::Unmap }
}

/// Waits for a syncobj or a point of it, as long as anything here may take.
///
/// # Panics
/// It does not come.
pub fn wait(syncobj: &Syncobj, point: Option<u64>) {
    let how = Wait { for_submit: true, ..Wait::ALL }.within(Duration::from_secs(10));
    assert_eq!(syncobj.wait(point, how), Ok(Waited::Done { first: 0 }), "a wait that should end");
}

/// Whether it is signalled now.
///
/// # Panics
/// The kernel refuses to say.
pub fn is_signaled(syncobj: &Syncobj, point: Option<u64>) -> bool {
    let how = Wait { until_ns: 0, for_submit: true, ..Wait::ALL };
    syncobj.wait(point, how).expect("a syncobj of ours") == Waited::Done { first: 0 }
}

/// An ioctl without kmd's retries and checks.
///
/// # Errors
/// The kernel's.
pub fn ioctl<R: Request>(node: &dyn Node, arg: &mut R) -> Result<(), Errno> {
    // SAFETY: the tests pass structures whose pointers are valid, or values that the kernel refuses.
    unsafe { node.ioctl(R::REQUEST, (&raw mut *arg).cast()) }
}

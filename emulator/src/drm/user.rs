//! User memory: ioctl arguments and the arrays they point at.

use core::ffi::c_void;
use kmd::Request;
use kmd::uapi::{drm, msm, panthor, sync_file};
use rustix::io::Errno;

use crate::mem::TASK_SIZE;

/// Plain data: any bit pattern is a value, no byte of it is padding.
///
/// # Safety
/// `repr(C)` or primitive, made of integers alone, without implicit padding.
pub(crate) unsafe trait Plain: Copy + Default {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => { $(
        // SAFETY: integers, or a uapi structure (repr(C) integers; its definition asserts that there is no padding).
        unsafe impl Plain for $type {}
    )* };
}

plain! {
    u8, u32, u64,
    drm::Version, drm::GetCap, drm::GemClose, drm::PrimeHandleToFd, drm::PrimeFdToHandle,
    drm::SyncobjCreate, drm::SyncobjDestroy, drm::SyncobjHandleToFd, drm::SyncobjFdToHandle, drm::SyncobjWait,
    drm::SyncobjReset, drm::SyncobjSignal, drm::SyncobjTimelineWait, drm::SyncobjQuery, drm::SyncobjTransfer,
    drm::SyncobjTimelineSignal, drm::SyncobjEventfd,
    sync_file::MergeData, sync_file::FenceInfo, sync_file::FileInfo, sync_file::SetDeadline,
    msm::GetParam, msm::SetParam, msm::GemNew, msm::GemInfo, msm::GemCpuPrep, msm::GemCpuFini, msm::GemMadvise,
    msm::SubmitReloc, msm::SubmitCmd, msm::SubmitBo, msm::GemSubmit,
    msm::Syncobj, msm::VmBind, msm::VmBindOp, msm::WaitFence, msm::SubmitqueueNew, msm::SubmitqueueClose,
    msm::SubmitqueueQuery,
    panthor::DevQuery, panthor::GpuInfo, panthor::CsifInfo, panthor::TimestampInfo, panthor::MmuInfo,
    panthor::GroupPrioritiesInfo, panthor::VmCreate, panthor::VmDestroy, panthor::VmBind, panthor::VmBindOp,
    panthor::QueueCreate, panthor::GroupCreate, panthor::GroupDestroy, panthor::GroupGetState, panthor::QueueSubmit,
    panthor::GroupSubmit, panthor::TilerHeapCreate, panthor::TilerHeapDestroy, panthor::SyncOp, panthor::VmGetState, panthor::BoCreate, panthor::BoMmapOffset, panthor::BoSetLabel,
    panthor::SetUserMmioOffset, panthor::BoSync, panthor::BoSyncOp, panthor::BoQueryInfo,
}

const IOC_WRITE: u32 = 1 << 30;
const IOC_READ: u32 = 1 << 31;
/// Lowest address that a process may map by default: below it, a pointer is a null pointer with an offset.
const MIN_ADDRESS: u64 = 0x1_0000;
/// The kernel refuses array copies larger than this.
const MAX_COPY: usize = i32::MAX as usize;

/// The right to follow the pointers of one ioctl's argument.
///
/// Whoever holds one may pass it addresses that came from that argument. Addresses that can belong to no mapping give `EFAULT`;
/// others are dereferenced, on the promise of the ioctl's caller.
pub(crate) struct User(());

impl User {
    /// # Safety
    /// Every pointer in the argument of the ioctl that this is made for is valid for what the ioctl does with it.
    pub(crate) unsafe fn promised() -> Self {
        Self(())
    }

    fn check(addr: u64, len: usize) -> Result<(), Errno> {
        let end = addr.checked_add(len as u64).ok_or(Errno::FAULT)?;
        if len > 0 && (addr < MIN_ADDRESS || end > TASK_SIZE) { Err(Errno::FAULT) } else { Ok(()) }
    }

    /// Reads `count` values. `EFAULT` for impossible addresses, `ENOMEM` for impossible sizes.
    pub(crate) fn read<T: Plain>(&self, addr: u64, count: usize) -> Result<Vec<T>, Errno> {
        let bytes =
            count.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= MAX_COPY).ok_or(Errno::NOMEM)?;
        Self::check(addr, bytes)?;
        let mut out = vec![T::default(); count];
        // SAFETY: `count` elements at `addr` are readable (promise made to `promised`); T is plain.
        unsafe { core::ptr::copy_nonoverlapping(addr as *const u8, out.as_mut_ptr().cast::<u8>(), bytes) };
        Ok(out)
    }

    /// Writes bytes.
    pub(crate) fn write_bytes(&self, addr: u64, bytes: &[u8]) -> Result<(), Errno> {
        Self::check(addr, bytes.len())?;
        // SAFETY: the destination is writable for that many bytes (promise made to `promised`).
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), addr as *mut u8, bytes.len()) };
        Ok(())
    }

    /// Writes values.
    pub(crate) fn write<T: Plain>(&self, addr: u64, values: &[T]) -> Result<(), Errno> {
        self.write_bytes(addr, bytes_of(values))
    }

    /// Reads a value of which user space knows `user_size` bytes: zero-extends a shorter one, and takes a longer one when the
    /// rest is zero (`E2BIG` otherwise).
    pub(crate) fn read_struct<T: Plain>(&self, addr: u64, user_size: usize) -> Result<T, Errno> {
        Self::check(addr, user_size)?;
        let mut value = T::default();
        let known = user_size.min(size_of::<T>());
        if user_size > known
            && self.read::<u8>(addr + known as u64, user_size - known)?.iter().any(|b| *b != 0)
        {
            return Err(Errno::TOOBIG);
        }
        // SAFETY: `known` bytes at `addr` are readable (promise made to `promised`) and fit `value`, which is plain.
        unsafe { core::ptr::copy_nonoverlapping(addr as *const u8, (&raw mut value).cast::<u8>(), known) };
        Ok(value)
    }

    /// Reads a panthor object array whose elements must have at least `min_stride` bytes.
    pub(crate) fn read_array<T: Plain>(
        &self,
        array: &panthor::ObjArray,
        min_stride: usize,
    ) -> Result<Vec<T>, Errno> {
        let (count, stride) = (array.count as usize, array.stride as usize);
        if count == 0 {
            return Ok(Vec::new());
        }
        if stride < min_stride {
            return Err(Errno::INVAL);
        }
        if stride == size_of::<T>() {
            return self.read(array.array, count);
        }
        count.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= MAX_COPY).ok_or(Errno::NOMEM)?;
        (0..count as u64)
            .map(|i| self.read_struct(array.array.wrapping_add(i * stride as u64), stride))
            .collect()
    }

    /// Writes a structure of which user space knows `user_size` bytes, at least `min_size` (`EINVAL`); what the kernel does not
    /// know is filled with zeroes.
    pub(crate) fn write_struct<T: Plain>(
        &self,
        addr: u64,
        user_size: u32,
        min_size: usize,
        value: &T,
    ) -> Result<(), Errno> {
        let user_size = user_size as usize;
        if user_size < min_size {
            return Err(Errno::INVAL);
        }
        let known = user_size.min(size_of::<T>());
        self.write_bytes(addr, &bytes_of(core::slice::from_ref(value))[..known])?;
        self.write_bytes(addr.wrapping_add(known as u64), &vec![0; user_size - known])
    }
}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain data has no padding, so every byte is initialised; the borrow keeps it in place.
    unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// One ioctl: its request number and its argument.
pub(crate) struct Call {
    request: u32,
    arg: *mut c_void,
}

impl Call {
    /// # Safety
    /// `arg` is valid, for reading and writing, for the size that `request` encodes, for as long as the result lives.
    pub(crate) unsafe fn new(request: u32, arg: *mut c_void) -> Self {
        Self { request, arg }
    }

    /// The command number, which alone decides what the ioctl is.
    pub(crate) fn nr(&self) -> u32 {
        self.request & 0xff
    }

    /// The `_IOC` type: `d` for DRM.
    pub(crate) fn magic(&self) -> u8 {
        (self.request >> 8) as u8
    }

    /// Runs `body` on the argument as `drm_ioctl` does: what the caller's structure lacks is zero, what it has more is left alone,
    /// and the result is copied back even when the ioctl fails.
    pub(crate) fn with<R: Request + Plain>(
        &self,
        body: impl FnOnce(&mut R) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let size = (self.request >> 16 & 0x3fff) as usize;
        let both = self.request & R::REQUEST;
        let in_size = if both & IOC_WRITE != 0 { size } else { 0 };
        let out_size = if both & IOC_READ != 0 { size } else { 0 };
        User::check(self.arg.addr() as u64, in_size.max(out_size))?;
        let mut value = R::default();
        let at = (&raw mut value).cast::<u8>();
        // SAFETY: `arg` is readable for `in_size` bytes (contract of `new`), `value` is plain and as large as R.
        unsafe { core::ptr::copy_nonoverlapping(self.arg.cast::<u8>(), at, in_size.min(size_of::<R>())) };
        let result = body(&mut value);
        // SAFETY: `arg` is writable for `out_size` bytes (contract of `new`).
        unsafe {
            core::ptr::copy_nonoverlapping(at, self.arg.cast::<u8>(), out_size.min(size_of::<R>()));
            if in_size == 0 && out_size > size_of::<R>() {
                self.arg.cast::<u8>().add(size_of::<R>()).write_bytes(0, out_size - size_of::<R>());
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        // SAFETY: the tests only pass addresses of their own live buffers, or ones that `check` refuses.
        unsafe { User::promised() }
    }

    #[test]
    fn stride_rules() {
        let bytes = [7u64, 0, 9, 0, 11, 1];
        let array = |stride, count| panthor::ObjArray { stride, count, array: bytes.as_ptr().addr() as u64 };
        assert_eq!(user().read_array::<u64>(&array(8, 2), 8), Ok(vec![7, 0]));
        assert_eq!(user().read_array::<u64>(&array(16, 2), 8), Ok(vec![7, 9]));
        assert_eq!(user().read_array::<u64>(&array(16, 3), 8), Err(Errno::TOOBIG));
        assert_eq!(user().read_array::<u64>(&array(4, 2), 8), Err(Errno::INVAL));
        assert_eq!(user().read_array::<u64>(&array(4, 2), 4), Ok(vec![7, 0]));
        assert_eq!(user().read_array::<u64>(&array(0, 0), 8), Ok(vec![]));
        assert_eq!(user().read_array::<u64>(&array(8, u32::MAX), 8), Err(Errno::NOMEM));
        let null = panthor::ObjArray { stride: 8, count: 1, array: 0 };
        assert_eq!(user().read_array::<u64>(&null, 8), Err(Errno::FAULT));
    }

    #[test]
    fn arguments_are_zero_extended_and_left_alone_beyond() {
        let mut short = 5u32;
        let request = kmd::uapi::iowr::<u32>(kmd::uapi::COMMAND_BASE + 1);
        // SAFETY: `short` is as large as the request says.
        let call = unsafe { Call::new(request, (&raw mut short).cast()) };
        let result = call.with::<panthor::VmCreate>(|vm| {
            assert_eq!((vm.flags, vm.id, vm.user_va_range), (5, 0, 0));
            (vm.flags, vm.id) = (6, 1);
            Err(Errno::INVAL)
        });
        assert_eq!((result, short), (Err(Errno::INVAL), 6));

        let mut long = [1u64, 2, 3, 4];
        let request = kmd::uapi::iowr::<[u64; 4]>(kmd::uapi::COMMAND_BASE + 1);
        // SAFETY: `long` is as large as the request says.
        let call = unsafe { Call::new(request, (&raw mut long).cast()) };
        let result = call.with::<panthor::VmCreate>(|vm| {
            vm.user_va_range = 9;
            Ok(())
        });
        assert_eq!((result, long), (Ok(()), [1, 9, 3, 4]));
    }
}

//! `mmap`. What was mapped is memory like any other, so `munmap` and the rest need no help.

use core::ffi::{c_int, c_void};

use libc::{MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_SHARED, MAP_TYPE, off_t, size_t};
use rustix::io::Errno;
use rustix::mm::MprotectFlags;

use crate::emulation::{self, FILES};
use crate::errno::guard;
use crate::real;

/// Maps the node's file; `None` for other files.
///
/// # Safety
/// As `mmap`.
unsafe fn map_node(
    addr: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> Option<*mut c_void> {
    let file = FILES.get(fd)?;
    let emulation = emulation::get()?;
    Some(guard(libc::MAP_FAILED, || {
        // A private copy of GPU memory is nothing that a driver gives. MAP_SHARED_VALIDATE has the bit too.
        if flags & MAP_TYPE & MAP_SHARED == 0 {
            return Err(Errno::INVAL);
        }
        let fixed = if flags & MAP_FIXED_NOREPLACE != 0 {
            // Takes the place if it is free; what is mapped over below is this.
            let taken = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
            // SAFETY: a new mapping that replaces none.
            let place = unsafe { real::mmap(addr, len, libc::PROT_NONE, taken, -1, 0) };
            if place == libc::MAP_FAILED {
                return Err(Errno::EXIST);
            }
            Some(addr)
        } else {
            (flags & MAP_FIXED != 0).then_some(addr)
        };
        let prot = MprotectFlags::from_bits_retain(prot as u32);
        let at = fixed.map(|addr| addr.addr() as u64);
        // SAFETY: our caller's promise, and the place taken above.
        let mapped = unsafe { emulation.map(&file, at, len as u64, prot, offset as u64)? };
        Ok(mapped.cast())
    }))
}

/// Defines `mmap` and its twin.
macro_rules! mmaps {
    ($($name:ident)*) => { $(
        #[doc = concat!("`", stringify!($name), "` of the C library.")]
        ///
        /// # Safety
        /// As there.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            addr: *mut c_void,
            len: size_t,
            prot: c_int,
            flags: c_int,
            fd: c_int,
            offset: off_t,
        ) -> *mut c_void {
            // SAFETY: our caller's promise.
            unsafe {
                match map_node(addr, len, prot, flags, fd, offset) {
                    Some(mapped) => mapped,
                    None => real::$name(addr, len, prot, flags, fd, offset),
                }
            }
        }
    )* };
}

mmaps! { mmap mmap64 }

//! Buffer objects of msm.

use std::ffi::CString;
use std::sync::Arc;
use std::time::Instant;

use kmd::uapi::msm::*;
use rustix::io::Errno;

use super::Msm;
use crate::drm::gem::{Attributes, Object};
use crate::drm::user::User;

/// Size of an object's name in the kernel, with the terminating NUL.
const NAME_SIZE: u32 = 32;
/// Most metadata of an object.
const METADATA_MAX: u32 = 128;
/// An error of the kernel's own that reaches user space as a bare number (`ETOOSMALL`).
const TOO_SMALL: Errno = Errno::from_raw_os_error(525);

impl Msm {
    pub(super) fn gem_new(&self, args: &mut GemNew) -> Result<(), Errno> {
        if args.flags & !BO_FLAGS != 0 {
            return Err(Errno::INVAL);
        }
        let home = match args.flags & BO_NO_SHARE {
            0 => None,
            _ => Some(self.vm().map_err(|_| Errno::INVAL)?),
        };
        // Deprecated BO_UNCACHED is refused as well: the kernel promotes it, and then looks at what came in.
        let known = match args.flags & BO_CACHE_MASK {
            BO_CACHED | BO_WC => true,
            BO_CACHED_COHERENT => self.gpu.cached_coherent,
            _ => false,
        };
        if args.size == 0 || !known {
            return Err(Errno::INVAL);
        }
        let attributes = Attributes {
            flags: args.flags,
            exclusive: home.as_ref().map(|vm| vm.space.id),
            imported: false,
            resv: home.map_or_else(Arc::default, |vm| vm.resv.clone()),
        };
        let object = self.file.device.create_object(args.size, attributes)?;
        args.handle = self.file.handle_of(object)?;
        Ok(())
    }

    pub(super) fn gem_info(&self, args: &mut GemInfo, user: &User) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        match args.info {
            INFO_GET_OFFSET | INFO_GET_IOVA | INFO_SET_IOVA | INFO_GET_FLAGS if args.len != 0 => {
                return Err(Errno::INVAL);
            }
            INFO_GET_OFFSET..=INFO_GET_METADATA => {}
            _ => return Err(Errno::INVAL),
        }
        let object = self.file.object(args.handle).ok_or(Errno::NOENT)?;
        match args.info {
            INFO_GET_OFFSET => args.value = object.fake_offset,
            INFO_GET_IOVA | INFO_SET_IOVA => {
                let vm = self.vm()?;
                let mut managed = vm.managed.as_ref().ok_or(Errno::INVAL)?.lock();
                match args.info {
                    INFO_GET_IOVA => args.value = managed.address(&object)?,
                    _ => managed.put(&vm.space, &object, args.value)?,
                }
            }
            INFO_GET_FLAGS if object.attributes.imported => return Err(Errno::INVAL),
            INFO_GET_FLAGS => args.value = object.attributes.flags.into(),
            INFO_SET_NAME => set_name(&object, args, user)?,
            INFO_GET_NAME => get_name(&object, args, user)?,
            INFO_SET_METADATA if args.len > METADATA_MAX => return Err(Errno::OVERFLOW),
            INFO_SET_METADATA => {
                let data = user.read(args.value, args.len as usize)?;
                *object.metadata.lock() = data;
            }
            _ => {
                let data = object.metadata.lock().clone();
                if args.value != 0 {
                    if (args.len as usize) < data.len() {
                        return Err(TOO_SMALL);
                    }
                    user.write_bytes(args.value, &data)?;
                }
                args.len = data.len() as u32;
            }
        }
        Ok(())
    }

    /// Waits for the GPU, and for binds that map the object. Submissions with VM_BIND keep no object busy.
    pub(super) fn gem_cpu_prep(&self, args: &mut GemCpuPrep) -> Result<(), Errno> {
        if args.op & !PREP_FLAGS != 0 {
            return Err(Errno::INVAL);
        }
        let object = self.file.object(args.handle).ok_or(Errno::NOENT)?;
        let nosync = args.op & PREP_NOSYNC != 0;
        let until = if nosync { Some(Instant::now()) } else { super::deadline(&args.timeout) };
        let now = Instant::now();
        let fences = object.attributes.resv.fences(args.op & PREP_WRITE != 0);
        if fences.iter().all(|fence| fence.wait_until(until)) {
            return Ok(());
        }
        // Who gives no time is told that it is in use.
        Err(if until.is_some_and(|until| until <= now) { Errno::BUSY } else { Errno::TIMEDOUT })
    }

    pub(super) fn gem_cpu_fini(&self, args: &mut GemCpuFini) -> Result<(), Errno> {
        self.file.object(args.handle).map(drop).ok_or(Errno::NOENT)
    }

    /// Memory is never so short here that unneeded content would go.
    pub(super) fn gem_madvise(&self, args: &mut GemMadvise) -> Result<(), Errno> {
        if !matches!(args.madv, MADV_WILLNEED | MADV_DONTNEED) {
            return Err(Errno::INVAL);
        }
        self.file.object(args.handle).ok_or(Errno::NOENT)?;
        args.retained = 1;
        Ok(())
    }
}

fn set_name(object: &Object, args: &GemInfo, user: &User) -> Result<(), Errno> {
    if args.len >= NAME_SIZE {
        return Err(Errno::INVAL);
    }
    let text: Vec<u8> = user.read(args.value, args.len as usize)?;
    let printable = text.into_iter().take_while(|byte| (b' '..=b'~').contains(byte)).collect::<Vec<_>>();
    *object.label.lock() = CString::new(printable).ok();
    Ok(())
}

fn get_name(object: &Object, args: &mut GemInfo, user: &User) -> Result<(), Errno> {
    let name = object.label.lock().clone().unwrap_or_default();
    let name = name.as_bytes();
    if args.value != 0 {
        if (args.len as usize) < name.len() {
            return Err(TOO_SMALL);
        }
        user.write_bytes(args.value, name)?;
    }
    args.len = name.len() as u32;
    Ok(())
}

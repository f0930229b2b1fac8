//! Buffer objects of panthor.

use std::ffi::CString;

use kmd::uapi::panthor::*;
use rustix::io::Errno;

use super::Panthor;
use crate::drm::gem::Attributes;
use crate::drm::user::User;

/// Longest label, terminating NUL included.
const LABEL_MAX: usize = 4096;

impl Panthor {
    pub(super) fn bo_create(&self, args: &mut BoCreate) -> Result<(), Errno> {
        const BOTH: u32 = BO_NO_MMAP | BO_WB_MMAP;
        if args.size == 0 || args.pad != 0 || args.flags & !BOTH != 0 || args.flags & BOTH == BOTH {
            return Err(Errno::INVAL);
        }
        let exclusive = match args.exclusive_vm_id {
            0 => None,
            id => Some(self.vm(id).ok_or(Errno::INVAL)?.space.id),
        };
        let attributes = Attributes { flags: args.flags, exclusive, ..Attributes::default() };
        let object = self.file.device.create_object(args.size, attributes)?;
        args.size = object.size;
        args.handle = self.file.handle_of(object)?;
        Ok(())
    }

    pub(super) fn bo_mmap_offset(&self, args: &mut BoMmapOffset) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let object = self.file.object(args.handle).ok_or(Errno::NOENT)?;
        if object.attributes.flags & BO_NO_MMAP != 0 {
            return Err(Errno::PERM);
        }
        args.offset = object.fake_offset;
        Ok(())
    }

    pub(super) fn bo_set_label(&self, args: &mut BoSetLabel, user: &User) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let object = self.file.object(args.handle).ok_or(Errno::NOENT)?;
        let label = if args.label == 0 { None } else { Some(read_label(args.label, user)?) };
        *object.label.lock() = label;
        Ok(())
    }

    pub(super) fn bo_query_info(&self, args: &mut BoQueryInfo) -> Result<(), Errno> {
        let object = self.file.object(args.handle).ok_or(Errno::NOENT)?;
        args.pad = 0;
        args.create_flags = object.attributes.flags;
        args.extra_flags = if object.attributes.imported { BO_IS_IMPORTED } else { 0 };
        Ok(())
    }

    /// CPU and "GPU" share their caches here, so only the checks remain.
    pub(super) fn bo_sync(&self, args: &mut BoSync, user: &User) -> Result<(), Errno> {
        let ops: Vec<BoSyncOp> = user.read_array(&args.ops, size_of::<BoSyncOp>())?;
        for op in ops {
            let object = self.file.object(op.handle).ok_or(Errno::NOENT)?;
            let end = op.offset.checked_add(op.size).ok_or(Errno::INVAL)?;
            let known = matches!(op.r#type, BO_SYNC_CPU_CACHE_FLUSH | BO_SYNC_CPU_CACHE_FLUSH_AND_INVALIDATE);
            if end > object.size || object.attributes.imported || !known {
                return Err(Errno::INVAL);
            }
        }
        Ok(())
    }
}

/// A NUL-terminated string of at most [`LABEL_MAX`] bytes (`E2BIG`).
fn read_label(addr: u64, user: &User) -> Result<CString, Errno> {
    let mut text = Vec::new();
    while text.len() < LABEL_MAX {
        // Byte by byte: the string may end right before unmapped memory.
        match user.read::<u8>(addr + text.len() as u64, 1)?[0] {
            0 => return CString::new(text).map_err(|_| Errno::INVAL),
            byte => text.push(byte),
        }
    }
    Err(Errno::TOOBIG)
}

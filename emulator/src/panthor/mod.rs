//! The panthor driver, version 1.9 or 1.8: everything but the execution of command streams.

mod bind;
mod bo;
mod group;
mod heap;
mod mali;
mod query;
mod submit;
mod vm;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kmd::bo::MmapOffset;
use kmd::uapi::COMMAND_BASE;
use kmd::uapi::panthor::{
    DRIVER_NAME, SetUserMmioOffset, USER_FLUSH_ID_MMIO_OFFSET, USER_MMIO_OFFSET, USER_MMIO_OFFSET_32BIT,
    USER_MMIO_OFFSET_64BIT,
};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::config::Config;
use crate::drm::ids::Ids;
use crate::drm::user::{Call, User};
use crate::drm::{Device, DriverInfo, File};
use crate::mem::PAGE;
use crate::mem::backing::Backing;
use crate::node::Driver;
use crate::vm::Run;
use group::Group;
pub use mali::Mali;
use vm::Vm;

const DRIVER: DriverInfo = DriverInfo {
    name: DRIVER_NAME,
    description: "Panthor DRM driver",
    version: (1, 9, 0),
    export_private: Errno::INVAL,
};

/// Names of the driver's commands, in order.
const COMMANDS: [&str; 17] = [
    "DEV_QUERY",
    "VM_CREATE",
    "VM_DESTROY",
    "VM_BIND",
    "VM_GET_STATE",
    "BO_CREATE",
    "BO_MMAP_OFFSET",
    "GROUP_CREATE",
    "GROUP_DESTROY",
    "GROUP_SUBMIT",
    "GROUP_GET_STATE",
    "TILER_HEAP_CREATE",
    "TILER_HEAP_DESTROY",
    "BO_SET_LABEL",
    "SET_USER_MMIO_OFFSET",
    "BO_SYNC",
    "BO_QUERY_INFO",
];

/// An open file of an emulated panthor.
pub(crate) struct Panthor {
    file: File,
    mali: Mali,
    vms: Mutex<Ids<Arc<Vm>>>,
    groups: Mutex<Ids<Arc<Group>>>,
    /// Where the file's pages of registers start.
    user_mmio_offset: AtomicU64,
}

/// The flush id of a GPU that is powered off, as ours always is.
const FLUSH_ID_WHILE_OFF: u32 = 1;

impl Panthor {
    /// A new device, opened.
    pub(crate) fn new(mali: Mali, config: &Config) -> Self {
        Self::on(Device::new(DriverInfo { version: (1, mali.minor, 0), ..DRIVER }, config), mali)
    }

    fn on(device: Arc<Device>, mali: Mali) -> Self {
        Self {
            file: File::open(device),
            mali,
            vms: Mutex::new(Ids::new(vm::MAX_VMS)),
            groups: Mutex::new(Ids::new(group::MAX_GROUPS)),
            user_mmio_offset: AtomicU64::new(USER_MMIO_OFFSET),
        }
    }

    fn set_user_mmio_offset(&self, args: &mut SetUserMmioOffset) -> Result<(), Errno> {
        match args.offset {
            USER_MMIO_OFFSET_32BIT | USER_MMIO_OFFSET_64BIT => {
                self.user_mmio_offset.store(args.offset, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Errno::INVAL),
        }
    }
}

impl Driver for Panthor {
    fn file(&self) -> &File {
        &self.file
    }

    fn open_again(&self) -> Box<dyn Driver> {
        Box::new(Self::on(self.file.device.clone(), self.mali))
    }

    fn ioctl(&self, call: &Call, user: &User) -> Result<(), Errno> {
        match call.nr() - u32::from(COMMAND_BASE) {
            0x0 => call.with(|args| self.dev_query(args, user)),
            0x1 => call.with(|args| self.vm_create(args)),
            0x2 => call.with(|args| self.vm_destroy(args)),
            0x3 => call.with(|args| self.vm_bind(args, user)),
            0x4 => call.with(|args| self.vm_get_state(args)),
            0x5 => call.with(|args| self.bo_create(args)),
            0x6 => call.with(|args| self.bo_mmap_offset(args)),
            0x7 => call.with(|args| self.group_create(args, user)),
            0x8 => call.with(|args| self.group_destroy(args)),
            0x9 => call.with(|args| self.group_submit(args, user)),
            0xa => call.with(|args| self.group_get_state(args)),
            0xb => call.with(|args| self.tiler_heap_create(args)),
            0xc => call.with(|args| self.tiler_heap_destroy(args)),
            0xd => call.with(|args| self.bo_set_label(args, user)),
            0xe => call.with(|args| self.set_user_mmio_offset(args)),
            0xf => call.with(|args| self.bo_sync(args, user)),
            0x10 => call.with(|args| self.bo_query_info(args)),
            _ => Err(Errno::INVAL),
        }
    }

    fn mmap_offset(&self) -> MmapOffset {
        kmd::panthor::mmap_offset
    }

    fn commands(&self) -> &'static [&'static str] {
        &COMMANDS
    }

    fn vm_ids(&self) -> Vec<u32> {
        self.vms.lock().ids()
    }

    fn runs(&self, vm_id: u32) -> Option<Vec<Run>> {
        Some(self.vm(vm_id)?.space.runs())
    }

    fn registers(&self, offset: u64, len: u64) -> Result<Option<Backing>, Errno> {
        let start = self.user_mmio_offset.load(Ordering::Relaxed);
        let Some(offset) = offset.checked_sub(start) else { return Ok(None) };
        if offset != USER_FLUSH_ID_MMIO_OFFSET - USER_MMIO_OFFSET || len.div_ceil(PAGE) != 1 {
            return Err(Errno::INVAL);
        }
        Backing::with_content(PAGE, &FLUSH_ID_WHILE_OFF.to_ne_bytes()).map(Some)
    }
}

impl Drop for Panthor {
    fn drop(&mut self) {
        for group in self.groups.get_mut().drain() {
            group.destroy();
        }
        for vm in self.vms.get_mut().drain() {
            vm.destroy();
        }
        self.file.release();
    }
}

//! The panthor driver, version 1.9: everything but the execution of GPU jobs.

mod bind;
mod bo;
mod query;
mod vm;

use std::sync::Arc;

use kmd::bo::MmapOffset;
use kmd::uapi::COMMAND_BASE;
use kmd::uapi::panthor::{DRIVER_NAME, SetUserMmioOffset, USER_MMIO_OFFSET_32BIT, USER_MMIO_OFFSET_64BIT};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::config::Config;
use crate::drm::ids::Ids;
use crate::drm::user::{Call, User};
use crate::drm::{Device, DriverInfo, File};
use crate::node::Driver;
use crate::vm::Run;
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
    vms: Mutex<Ids<Arc<Vm>>>,
}

impl Panthor {
    /// A new device, opened.
    pub(crate) fn new(config: &Config) -> Self {
        Self::on(Device::new(DRIVER, config))
    }

    fn on(device: Arc<Device>) -> Self {
        Self { file: File::open(device), vms: Mutex::new(Ids::new(vm::MAX_VMS)) }
    }
}

impl Driver for Panthor {
    fn file(&self) -> &File {
        &self.file
    }

    fn open_again(&self) -> Box<dyn Driver> {
        Box::new(Self::on(self.file.device.clone()))
    }

    fn ioctl(&self, call: &Call, user: &User) -> Result<(), Errno> {
        let index = call.nr() - u32::from(COMMAND_BASE);
        match index {
            0x0 => call.with(|args| self.dev_query(args, user)),
            0x1 => call.with(|args| self.vm_create(args)),
            0x2 => call.with(|args| self.vm_destroy(args)),
            0x3 => call.with(|args| self.vm_bind(args, user)),
            0x4 => call.with(|args| self.vm_get_state(args)),
            0x5 => call.with(|args| self.bo_create(args)),
            0x6 => call.with(|args| self.bo_mmap_offset(args)),
            0xd => call.with(|args| self.bo_set_label(args, user)),
            0xe => call.with(set_user_mmio_offset),
            0xf => call.with(|args| self.bo_sync(args, user)),
            0x10 => call.with(|args| self.bo_query_info(args)),
            index => {
                if let Some(name) = COMMANDS.get(index as usize) {
                    tracing::warn!("the emulated panthor runs no GPU jobs: {name} is refused");
                }
                Err(Errno::INVAL)
            }
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

    fn check_mmap(&self, offset: u64) -> Result<(), Errno> {
        if offset >= USER_MMIO_OFFSET_32BIT {
            tracing::warn!(
                offset = format_args!("{offset:#x}"),
                "the emulated panthor has no MMIO pages to map"
            );
            return Err(Errno::INVAL);
        }
        Ok(())
    }
}

/// There are no MMIO pages to map, wherever they would be.
fn set_user_mmio_offset(args: &mut SetUserMmioOffset) -> Result<(), Errno> {
    match args.offset {
        USER_MMIO_OFFSET_32BIT | USER_MMIO_OFFSET_64BIT => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

impl Drop for Panthor {
    fn drop(&mut self) {
        for vm in self.vms.get_mut().drain() {
            vm.destroy();
        }
        self.file.release();
    }
}

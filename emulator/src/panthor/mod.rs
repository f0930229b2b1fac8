//! The panthor driver, version 1.9: everything but the execution of GPU jobs.

mod bind;
mod bo;
mod query;
mod queue;
mod vm;

use core::ffi::c_void;
use core::ops::Range;
use std::sync::Arc;

use kmd::uapi::COMMAND_BASE;
use kmd::uapi::panthor::{DRIVER_NAME, SetUserMmioOffset, USER_MMIO_OFFSET_32BIT, USER_MMIO_OFFSET_64BIT};
use kmd::{GemHandle, Node};
use parking_lot::Mutex;
use rustix::io::Errno;

use crate::config::{Config, Counters};
use crate::drm::gem::Attributes;
use crate::drm::ids::Ids;
use crate::drm::user::{Call, User};
use crate::drm::{Device, DriverInfo, File};
use crate::mem::PAGE;
use crate::mem::backing::Place;
use crate::mem::host::ImportError;
use vm::Vm;

const DRIVER: DriverInfo =
    DriverInfo { name: DRIVER_NAME, description: "Panthor DRM driver", version: (1, 9, 0) };

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

/// Pages of a VM that continue each other, read from its page table. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Address of the first page.
    pub va: u64,
    /// Length.
    pub len: u64,
    /// The object and the offset in it; nothing for sparse pages. Handle 0 stands for an object whose handle was closed.
    pub bo: Option<(GemHandle, u64)>,
}

/// One open file of an emulated panthor device, in this process.
///
/// The user range of its VMs is the process's own address space: what VM_BIND maps at an address can be read there. It
/// touches only windows that were registered with [`Self::add_window`].
pub struct PanthorNode {
    pub(crate) file: File,
    vms: Mutex<Ids<Arc<Vm>>>,
}

impl core::fmt::Debug for PanthorNode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PanthorNode").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl PanthorNode {
    /// A new device, opened.
    pub fn open(config: Config) -> Result<Arc<Self>, Errno> {
        Self::on(Device::new(DRIVER, &config))
    }

    /// Another open file of the same device: VM ids and handles of its own; memory, windows, faults and counters in common.
    pub fn open_again(&self) -> Result<Arc<Self>, Errno> {
        Self::on(self.file.device.clone())
    }

    fn on(device: Arc<Device>) -> Result<Arc<Self>, Errno> {
        Ok(Arc::new(Self { file: File::open(device), vms: Mutex::new(Ids::new(vm::MAX_VMS)) }))
    }

    /// Lets VM_BIND change what the process maps in `va` (page-aligned bytes). The memory there is the device's from now on: the
    /// caller has reserved it, and keeps nothing of its own in it.
    ///
    /// `EINVAL`: not a page-aligned range of user addresses. `EEXIST`: it overlaps a window.
    pub fn add_window(&self, va: Range<u64>) -> Result<(), Errno> {
        self.file.device.space.add_window(va)
    }

    /// Takes `va` out of the windows. On return, nothing changes that memory any more; what is mapped there stays.
    pub fn remove_window(&self, va: Range<u64>) {
        self.file.device.space.remove_window(va);
    }

    /// A buffer object over memory of this process, which must be shared (`MAP_SHARED`): private memory cannot be mapped a
    /// second time. The object keeps the memory alive, whatever happens to the mapping at `ptr`.
    ///
    /// # Safety
    /// `len` bytes at `ptr` stay mapped as they are until this returns. Through the object they can be changed at any time
    /// afterwards.
    pub unsafe fn import_host(&self, ptr: *mut u8, len: u64) -> Result<GemHandle, ImportError> {
        let device = &self.file.device;
        let backing = device.importer.import(ptr.addr() as u64, len, device.arena_file())?;
        let object = device.adopt(len.next_multiple_of(PAGE), Attributes::default(), backing)?;
        Ok(GemHandle(self.file.handle_of(object)?))
    }

    /// What the device has done so far.
    pub fn counters(&self) -> Counters {
        self.file.device.stats.snapshot()
    }

    /// What VM `vm_id` maps, in order of address, with pages of continuing content joined. Empty for an unknown VM.
    pub fn mappings(&self, vm_id: u32) -> Vec<PageRun> {
        let Some(vm) = self.vm(vm_id) else { return Vec::new() };
        let runs = vm.space.runs();
        let handles = self.file.handles.lock();
        let handle = |object| GemHandle(handles.find(object).unwrap_or(0));
        runs.iter()
            .map(|run| PageRun {
                va: run.va,
                len: run.len,
                bo: run.object.as_ref().map(|(object, offset)| (handle(object), *offset)),
            })
            .collect()
    }

    fn driver_ioctl(&self, call: &Call, user: &User) -> Result<(), Errno> {
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
}

/// There are no MMIO pages to map, wherever they would be.
fn set_user_mmio_offset(args: &mut SetUserMmioOffset) -> Result<(), Errno> {
    match args.offset {
        USER_MMIO_OFFSET_32BIT | USER_MMIO_OFFSET_64BIT => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

impl Node for PanthorNode {
    unsafe fn ioctl(&self, request: u32, arg: *mut c_void) -> Result<(), Errno> {
        let device = &self.file.device;
        device.stats.ioctls.add(1);
        if device.faults.ioctl.strikes() {
            return Err(Errno::NOMEM);
        }
        // SAFETY: our caller's promise.
        let (call, user) = unsafe { (Call::new(request, arg), User::promised()) };
        if call.magic() != b'd' {
            return Err(Errno::NOTTY);
        }
        let driver = u32::from(COMMAND_BASE)..0xa0;
        if driver.contains(&call.nr()) {
            self.driver_ioctl(&call, &user)
        } else {
            self.file.core_ioctl(&call, &user)
        }
    }

    unsafe fn mmap(&self, offset: u64, len: usize) -> Result<*mut u8, Errno> {
        if offset >= USER_MMIO_OFFSET_32BIT {
            tracing::warn!(
                offset = format_args!("{offset:#x}"),
                "the emulated panthor has no MMIO pages to map"
            );
            return Err(Errno::INVAL);
        }
        if len == 0 || offset % PAGE != 0 {
            return Err(Errno::INVAL);
        }
        // SAFETY: a new mapping, which replaces none.
        unsafe { self.file.mmap(Place::Anywhere, offset, len as u64) }
    }
}

impl Drop for PanthorNode {
    fn drop(&mut self) {
        for vm in self.vms.get_mut().drain() {
            vm.destroy();
        }
        self.file.release();
    }
}

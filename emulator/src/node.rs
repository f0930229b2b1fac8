//! An open file of an emulated device: what a program sees, whichever driver is behind it.

use core::ffi::c_void;
use core::ops::Range;
use core::time::Duration;
use std::sync::Arc;

use kmd::GemHandle;
use kmd::bo::MmapOffset;
use kmd::uapi::COMMAND_BASE;
use rustix::io::Errno;
use rustix::mm::{MprotectFlags, mprotect, munmap};

use crate::config::{Config, Counters, Faults};
use crate::drm::File;
use crate::drm::gem::{Attributes, Object};
use crate::drm::user::{Call, User};
use crate::mem::PAGE;
use crate::mem::backing::{Backing, Place};
use crate::mem::host::ImportError;
use crate::msm::{Gpu, Msm};
use crate::panthor::{Mali, Panthor};
use crate::vm::Run;

/// End of the driver's command numbers.
const COMMAND_END: u32 = 0xa0;

/// A driver's part of an open file.
pub(crate) trait Driver: Send + Sync {
    /// The part that every driver has.
    fn file(&self) -> &File;

    /// Another open file of the same device.
    fn open_again(&self) -> Box<dyn Driver>;

    /// Performs one of the driver's own ioctls. `EINVAL`: no such command.
    fn ioctl(&self, call: &Call, user: &User) -> Result<(), Errno>;

    /// An object has lost its handle.
    fn handle_closed(&self, _object: &Object) {}

    /// How the driver is asked where an object can be mapped.
    fn mmap_offset(&self) -> MmapOffset;

    /// Names of the driver's commands, in order of their numbers.
    fn commands(&self) -> &'static [&'static str];

    /// The VMs that there are.
    fn vm_ids(&self) -> Vec<u32>;

    /// What the page table of a VM maps; `None` for an unknown one.
    fn runs(&self, vm_id: u32) -> Option<Vec<Run>>;

    /// The last updates of a VM's page table, where the driver keeps them.
    fn vm_log(&self, _vm_id: u32) -> Vec<VmUpdate> {
        Vec::new()
    }

    /// The memory behind an offset of the file that is no object's: registers, which can only be read. `EINVAL`: there are none.
    fn registers(&self, _offset: u64, _len: u64) -> Result<Option<Backing>, Errno> {
        Ok(None)
    }
}

/// Pages of a VM that continue each other, read from its page table. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Address of the first page.
    pub va: u64,
    /// Length.
    pub len: u64,
    /// The object and the offset in it; nothing for null mappings. Handle 0 stands for an object whose handle was closed.
    pub bo: Option<(GemHandle, u64)>,
    /// Which object it is: a number that the device never uses twice; 0 for null mappings.
    pub object: u64,
}

/// An update of a VM's page table, as msm logs them for crash dumps. Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmUpdate {
    /// Whether the range was mapped, else unmapped.
    pub map: bool,
    /// First address.
    pub va: u64,
    /// Length.
    pub len: u64,
    /// The bind queue whose job it was.
    pub queue: u32,
}

/// One open file of an emulated device, in this process.
///
/// The user range of its VMs is the process's own address space: what VM_BIND maps at an address can be read there. It
/// touches only windows that were registered with [`Self::add_window`].
pub struct Node {
    driver: Box<dyn Driver>,
}

impl core::fmt::Debug for Node {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = self.driver.file().device.driver.name;
        f.debug_struct(name).field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl Node {
    /// A new panthor device with a Mali-G610, opened.
    pub fn panthor(config: Config) -> Result<Arc<Self>, Errno> {
        Self::mali(Mali::G610, config)
    }

    /// A new panthor device with this GPU, opened.
    pub fn mali(mali: Mali, config: Config) -> Result<Arc<Self>, Errno> {
        Ok(Self::of(Box::new(Panthor::new(mali, &config))))
    }

    /// A new msm device with this GPU, opened. Its files have one VM each, number 1.
    pub fn msm(gpu: Gpu, config: Config) -> Result<Arc<Self>, Errno> {
        Ok(Self::of(Box::new(Msm::new(gpu, &config))))
    }

    /// Another open file of the same device: VMs and handles of its own; memory, windows, faults and counters in common.
    pub fn open_again(&self) -> Result<Arc<Self>, Errno> {
        Ok(Self::of(self.driver.open_again()))
    }

    fn of(driver: Box<dyn Driver>) -> Arc<Self> {
        Arc::new(Self { driver })
    }

    /// Lets VM_BIND change what the process maps in `va` (page-aligned bytes). The memory there is the device's from now on: the
    /// caller has reserved it, and keeps nothing of its own in it.
    ///
    /// `EINVAL`: not a page-aligned range of user addresses. `EEXIST`: it overlaps a window.
    pub fn add_window(&self, va: Range<u64>) -> Result<(), Errno> {
        self.driver.file().device.space.add_window(va)
    }

    /// Takes `va` out of the windows. On return, nothing changes that memory any more; what is mapped there stays.
    pub fn remove_window(&self, va: Range<u64>) {
        self.driver.file().device.space.remove_window(va);
    }

    /// A buffer object over memory of this process, which must be shared (`MAP_SHARED`): private memory cannot be mapped a
    /// second time. The object keeps the memory alive, whatever happens to the mapping at `ptr`.
    ///
    /// # Safety
    /// `len` bytes at `ptr` stay mapped as they are until this returns. Through the object they can be changed at any time
    /// afterwards.
    pub unsafe fn import_host(&self, ptr: *mut u8, len: u64) -> Result<GemHandle, ImportError> {
        let file = self.driver.file();
        let device = &file.device;
        let backing = device.importer.import(ptr.addr() as u64, len, device.arena_file())?;
        let object = device.adopt(len.next_multiple_of(PAGE), Attributes::default(), backing)?;
        Ok(GemHandle(file.handle_of(object)?))
    }

    /// How the driver behind the node is asked for an object's fake file offset; for the constructors of [`kmd::bo`].
    pub fn mmap_offset(&self) -> MmapOffset {
        self.driver.mmap_offset()
    }

    /// What the device has done so far.
    pub fn counters(&self) -> Counters {
        self.driver.file().device.stats.snapshot()
    }

    /// What VM `vm_id` maps, in order of address, with pages of continuing content joined. Empty for an unknown VM. The first
    /// VM of a file is number 1.
    pub fn mappings(&self, vm_id: u32) -> Vec<PageRun> {
        let Some(runs) = self.driver.runs(vm_id) else { return Vec::new() };
        let handles = self.driver.file().handles.lock();
        let handle = |object| GemHandle(handles.find(object).unwrap_or(0));
        runs.iter()
            .map(|run| PageRun {
                va: run.va,
                len: run.len,
                bo: run.object.as_ref().map(|(object, offset)| (handle(object), *offset)),
                object: run.object.as_ref().map_or(0, |(object, _)| object.id),
            })
            .collect()
    }

    /// The numbers of the VMs that there are, in order.
    pub fn vms(&self) -> Vec<u32> {
        self.driver.vm_ids()
    }

    /// Name of the driver, as it reports it itself.
    pub fn driver_name(&self) -> &'static str {
        self.driver.file().device.driver.name
    }

    /// Name of an ioctl's command, such as `VM_BIND`, by the ioctl's request number; `None` when there is no such command.
    pub fn command_name(&self, request: u32) -> Option<&'static str> {
        let nr = request & 0xff;
        match nr.checked_sub(COMMAND_BASE.into()) {
            Some(index) if nr < COMMAND_END => self.driver.commands().get(index as usize).copied(),
            _ => crate::drm::ioctl::command_name(nr),
        }
    }

    /// Keeps every queued job of the device from running for `delay` after its waits are over, from now on.
    pub fn delay_jobs(&self, delay: Duration) {
        self.driver.file().device.pace.delay(delay);
    }

    /// Has [`Self::delay_jobs`] and [`Self::hold_jobs`] concern the jobs of one bind queue alone, so that others overtake them: a submit
    /// queue of msm, or the queue of a VM of panthor, by its number. `None`: all queues, the GPU's among them.
    pub fn single_out_jobs(&self, queue: Option<u32>) {
        self.driver.file().device.pace.single_out(queue);
    }

    /// Injects faults from now on, in place of those that were asked for before.
    pub fn inject(&self, faults: &Faults) {
        self.driver.file().device.faults.set(faults);
    }

    /// Keeps queued jobs of the device from running (`true`) until they are let go (`false`).
    pub fn hold_jobs(&self, hold: bool) {
        self.driver.file().device.pace.hold(hold);
    }

    /// Maps `len` bytes of the node's file at `offset`, as mmap does: at an address that the kernel finds, or with `fixed` over
    /// what is mapped at that page. Shared; `prot` as far as a GPU's memory knows it.
    ///
    /// # Safety
    /// With `fixed`, what is mapped there now is the caller's to replace.
    pub unsafe fn map_file(
        &self,
        fixed: Option<u64>,
        len: u64,
        prot: MprotectFlags,
        offset: u64,
    ) -> Result<*mut u8, Errno> {
        if len == 0 || offset % PAGE != 0 {
            return Err(Errno::INVAL);
        }
        let place = fixed.map_or(Place::Anywhere, Place::Fixed);
        if let Some(registers) = self.driver.registers(offset, len)? {
            if prot.intersects(MprotectFlags::WRITE | MprotectFlags::EXEC) {
                return Err(Errno::INVAL);
            }
            // SAFETY: our caller's promise.
            return unsafe { registers.map(place, 0, len, true) };
        }
        let writable = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: our caller's promise.
        let at = unsafe { self.driver.file().mmap(place, offset, len)? };
        if prot != writable {
            // SAFETY: the mapping made above, which the caller gets only when this succeeds.
            let narrowed = unsafe { mprotect(at.cast(), len as usize, prot) };
            if let Err(errno) = narrowed {
                // SAFETY: as above.
                unsafe { munmap(at.cast(), len as usize)? };
                return Err(errno);
            }
        }
        Ok(at)
    }

    /// The last 256 updates of VM `vm_id`'s page table, oldest first. Only msm keeps them.
    pub fn vm_log(&self, vm_id: u32) -> Vec<VmUpdate> {
        self.driver.vm_log(vm_id)
    }
}

impl kmd::Node for Node {
    unsafe fn ioctl(&self, request: u32, arg: *mut c_void) -> Result<(), Errno> {
        let device = &self.driver.file().device;
        device.stats.ioctls.add(1);
        if device.faults.ioctl.strikes() {
            return Err(Errno::NOMEM);
        }
        // SAFETY: our caller's promise.
        let (call, user) = unsafe { (Call::new(request, arg), User::promised()) };
        if call.magic() != b'd' {
            return Err(Errno::NOTTY);
        }
        let driver = u32::from(COMMAND_BASE)..COMMAND_END;
        if driver.contains(&call.nr()) {
            self.driver.ioctl(&call, &user)
        } else {
            let closed = |object: &_| self.driver.handle_closed(object);
            self.driver.file().core_ioctl(&call, &user, closed)
        }
    }

    unsafe fn mmap(&self, offset: u64, len: usize) -> Result<*mut u8, Errno> {
        // SAFETY: a new mapping, which replaces none.
        unsafe { self.map_file(None, len as u64, MprotectFlags::READ | MprotectFlags::WRITE, offset) }
    }
}

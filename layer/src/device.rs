//! Devices: which of them the layer owns binding on, and everything that it keeps for those.

use crate::added::Added;
use crate::added::family::{DeviceQueues, Family};
use crate::address_space::{AddressSpace, BindError};
use crate::arrays::slice;
use crate::buffer::Buffer;
use crate::chain::{self, ChainCopy};
use crate::handles::Table;
use crate::icd::direct::{self, Opening};
use crate::icd::forward::Forward;
use crate::icd::lavapipe::{self, Lavapipe};
use crate::icd::{Additions, Icd, Way, turnip};
use crate::image::Image;
use crate::instance::{self, Failure, Instance, guard};
use crate::loader::{self, DispatchKey, SetDeviceLoaderData};
use crate::memory::Memory;
use crate::queue::BindQueue;
use crate::semaphore::Timeline;
use crate::stats::Stats;
use ash::vk;
use core::ffi::{CStr, c_char, c_void};
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use std::sync::{Arc, LazyLock};
use thiserror::Error;

/// A device of an application.
pub struct Device {
    pub next: ash::Device,
    /// VK_KHR_map_memory2, or its entry points of core 1.4.
    pub map_memory2: ash::khr::map_memory2::DeviceFn,
    pub instance: Arc<Instance>,
    pub physical: vk::PhysicalDevice,
    get_device_proc_addr: vk::PFN_vkGetDeviceProcAddr,
    /// `None` where the layer stands aside.
    pub sparse: Option<Sparse>,
    /// `None` where the application has no queue that the layer added; otherwise `sparse` is there too.
    pub added: Option<Added>,
}

/// What the layer keeps for a device on which it owns binding.
pub struct Sparse {
    /// What the application enabled.
    pub features: vk::PhysicalDeviceFeatures,
    pub icd: Box<dyn Icd>,
    pub address_space: AddressSpace,
    pub memories: Table<vk::DeviceMemory, Memory>,
    pub buffers: Table<vk::Buffer, Buffer>,
    pub images: Table<vk::Image, Image>,
    pub queues: Table<vk::Queue, Arc<dyn BindQueue>>,
    pub timelines: Table<vk::Semaphore, Timeline>,
    pub stats: Stats,
}

static DEVICES: LazyLock<RwLock<FxHashMap<DispatchKey, Arc<Device>>>> = LazyLock::new(RwLock::default);

fn find(key: DispatchKey) -> Option<Arc<Device>> {
    DEVICES.read().get(&key).cloned()
}

/// Runs the body of an entry point of a device or a queue, with what the layer keeps of it where it owns binding.
pub fn on_device<H: vk::Handle, R: Failure>(
    handle: H,
    call: &str,
    body: impl FnOnce(&Arc<Device>, Option<&Sparse>) -> R,
) -> R {
    guard(call, || {
        // SAFETY: a dispatchable handle of the application's.
        match find(unsafe { DispatchKey::of(handle) }) {
            Some(device) => body(&device, device.sparse.as_ref()),
            None => {
                tracing::error!("{call}: the device is none that the layer knows");
                R::VALUE
            }
        }
    })
}

impl Device {
    /// The next layer's function of a name.
    ///
    /// # Safety
    /// `F` is the type of that function.
    pub unsafe fn next_function<F: Copy>(&self, name: &CStr) -> Option<F> {
        // SAFETY: the device is alive, the name valid.
        let function = unsafe { (self.get_device_proc_addr)(self.next.handle(), name.as_ptr()) }?;
        // SAFETY: the caller's promise: both are function pointers.
        Some(unsafe { core::mem::transmute_copy::<unsafe extern "system" fn(), F>(&function) })
    }
}

/// What a device was created with, and amid.
struct Created<'a> {
    features: vk::PhysicalDeviceFeatures,
    queues: &'a [vk::DeviceQueueCreateInfo<'a>],
    /// What there was before, where the layer binds on the driver's file.
    opening: Option<Opening>,
}

impl Sparse {
    /// `None` where the layer stands aside. `load` finds the functions of the device.
    fn new(
        way: Way,
        instance: &Instance,
        physical: vk::PhysicalDevice,
        next: &ash::Device,
        load: impl Fn(&CStr) -> *const c_void,
        created: &Created<'_>,
    ) -> Result<Option<Self>, SetupError> {
        let (icd, address_space): (Box<dyn Icd>, _) = match way {
            Way::Aside => return Ok(None),
            Way::Lavapipe => {
                let (icd, address_space) = Lavapipe::start(instance, physical, load)?;
                (Box::new(icd), address_space)
            }
            Way::Forward => {
                let (icd, address_space) = Forward::start(instance, physical, created.queues)?;
                (Box::new(icd), address_space)
            }
            Way::Turnip { .. } | Way::Panvk => {
                let started =
                    created.opening.as_ref().map(|opening| opening.start(instance, physical, next, load));
                match started {
                    Some(Ok((icd, address_space))) => (Box::new(icd), address_space),
                    Some(Err(error))
                        if way == (Way::Turnip { extra: true })
                            && created.features.sparse_residency_image2_d == vk::TRUE =>
                    {
                        return Err(SetupError::Extra(error));
                    }
                    // The driver can do it.
                    Some(Err(error)) => {
                        tracing::info!("vkCreateDevice: tessera plans, the driver executes: {error}");
                        let (icd, address_space) = Forward::start(instance, physical, created.queues)?;
                        (Box::new(icd), address_space)
                    }
                    None => return Ok(None),
                }
            }
        };
        Ok(Some(Self {
            features: created.features,
            icd,
            address_space,
            memories: Table::default(),
            buffers: Table::default(),
            images: Table::default(),
            queues: Table::default(),
            timelines: Table::default(),
            stats: Stats::new(instance.config.stats.is_some()),
        }))
    }

    /// What a failed bind is to the application.
    pub fn bind_result(&self, error: &BindError) -> vk::Result {
        match error {
            BindError::OutOfMemory(_) => vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
            BindError::Range(_) => vk::Result::ERROR_VALIDATION_FAILED_EXT,
            BindError::Refused(_) => vk::Result::ERROR_UNKNOWN,
            BindError::Lost(_) => vk::Result::ERROR_DEVICE_LOST,
        }
    }

    /// Ends everything that still runs or is still bound.
    fn release(&self, d: &Device) {
        if let Some(added) = &d.added {
            added.release();
        }
        for (_, queue) in self.queues.take_all() {
            queue.release(d);
        }
        // Valid usage destroys every resource first. Where that was forgotten, addresses must go back before the kernel's VM ends.
        for (_, buffer) in self.buffers.take_all() {
            self.icd.release_buffer(d, self, &buffer);
        }
        for (_, image) in self.images.take_all() {
            self.icd.release_image(self, &image);
        }
        self.address_space.write_log();
        if let Some(path) = &d.instance.config.stats {
            self.stats.append_to(path, &self.address_space, self.icd.map_calls());
        }
    }
}

/// Why a device could not be set up although its driver made it.
#[derive(Debug, Error)]
pub enum SetupError {
    #[error("the kernel: {0}")]
    Kernel(kmd::Errno),
    #[error("the mirror: {0}")]
    Vm(gpuvm::VmError),
    #[error("queueCount of family {} must be 1 to {} (VUID-VkDeviceQueueCreateInfo-queueCount-00382)", .0.index, .0.queues)]
    QueueCount(Family),
    #[error("the loader has no callback for the objects of layers")]
    NoLoaderData,
    #[error("sparseResidencyImage2D cannot be had: {0} (TESSERA_EXTRA=off does not offer it)")]
    Extra(direct::StartError),
    #[error("the added queues: {0}")]
    Queues(vk::Result),
}

/// The queues of the layer's that the application asked for.
fn add_queues(
    next: &ash::Device,
    queues: &DeviceQueues<'_>,
    set_loader_data: Option<SetDeviceLoaderData>,
) -> Result<Added, SetupError> {
    if !(1..=queues.family.queues).contains(&queues.wanted) {
        return Err(SetupError::QueueCount(queues.family));
    }
    let set_loader_data = set_loader_data.ok_or(SetupError::NoLoaderData)?;
    Added::new(next, queues.family, queues.wanted, set_loader_data).map_err(SetupError::Queues)
}

/// A create info with what the layer needs turned on, and everything that it points to.
struct Enabled<'a> {
    info: vk::DeviceCreateInfo<'a>,
    _extensions: Vec<*const c_char>,
    _features: Option<Box<vk::PhysicalDeviceFeatures>>,
    _chain: ChainCopy,
    queues: Option<DeviceQueues<'a>>,
}

impl<'a> Enabled<'a> {
    /// # Safety
    /// `info` is valid with everything it points to.
    unsafe fn new(
        info: &vk::DeviceCreateInfo<'a>,
        queues: Option<DeviceQueues<'a>>,
        additions: &Additions,
    ) -> Self {
        // SAFETY: the caller's promise.
        let mut chain = unsafe { ChainCopy::new_until(info.p_next, additions.edited) };
        (additions.edit)(&mut chain);
        // SAFETY: as above.
        let mut features = unsafe { info.p_enabled_features.as_ref() }.copied().map(Box::new);
        if let Some(hide) = additions.hide {
            features.iter_mut().for_each(|features| hide(features));
            if let Some(chained) = chain.get_mut::<vk::PhysicalDeviceFeatures2<'_>>() {
                hide(&mut chained.features);
            }
        }
        // SAFETY: the caller's promise.
        let mut extensions: Vec<*const c_char> =
            unsafe { slice(info.pp_enabled_extension_names, info.enabled_extension_count) }.to_vec();
        for wanted in additions.extensions {
            // SAFETY: as above.
            if !extensions.iter().any(|&name| unsafe { CStr::from_ptr(name) } == *wanted) {
                extensions.push(wanted.as_ptr());
            }
        }
        let mut enabled = *info;
        enabled.p_next = chain.as_ptr();
        enabled.p_enabled_features = features.as_deref().map_or(core::ptr::null(), core::ptr::from_ref);
        enabled.enabled_extension_count = extensions.len() as u32;
        enabled.pp_enabled_extension_names = extensions.as_ptr();
        if let Some(queues) = &queues {
            let infos = queues.infos();
            enabled.queue_create_info_count = infos.len() as u32;
            enabled.p_queue_create_infos = infos.as_ptr();
        }
        Self { info: enabled, _extensions: extensions, _features: features, _chain: chain, queues }
    }
}

/// The core features that the application enables.
///
/// # Safety
/// `info` is valid with everything it points to.
unsafe fn features_of(info: &vk::DeviceCreateInfo<'_>) -> vk::PhysicalDeviceFeatures {
    // SAFETY: the caller's promise.
    unsafe {
        match (info.p_enabled_features.as_ref(), chain::find::<vk::PhysicalDeviceFeatures2<'_>>(info.p_next))
        {
            (Some(features), _) => *features,
            (None, Some(features)) => features.features,
            (None, None) => vk::PhysicalDeviceFeatures::default(),
        }
    }
}

pub(crate) unsafe extern "system" fn create_device(
    physical: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    device: *mut vk::Device,
) -> vk::Result {
    guard("vkCreateDevice", || {
        // SAFETY: the application's valid arguments.
        let (info, key) = unsafe { (&*info, DispatchKey::of(physical)) };
        // SAFETY: the loader called.
        let (Some(link), Some(instance)) = (unsafe { loader::take_device_link(info) }, instance::find(key))
        else {
            tracing::error!("vkCreateDevice: the loader's chain has no link for the layer");
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        // SAFETY: the application's valid arguments.
        let features = unsafe { features_of(info) };
        // An application that binds nothing sparsely gets its driver as if the layer were not there.
        // SAFETY: as above.
        let queues = unsafe { DeviceQueues::new(&instance, physical, info) };
        let wanted = queues.is_some() || features.sparse_binding == vk::TRUE;
        let way = if wanted { instance.way(physical) } else { Way::Aside };
        // SAFETY: as above.
        let group = unsafe { chain::find::<vk::DeviceGroupDeviceCreateInfo<'_>>(info.p_next) };
        let way = match group {
            Some(group) if group.physical_device_count > 1 && way == Way::Forward => {
                tracing::info!("vkCreateDevice: a device of several physical devices is left alone");
                Way::Aside
            }
            _ => way,
        };
        let additions = match way {
            Way::Aside | Way::Forward => None,
            Way::Lavapipe => Some(&lavapipe::ADDITIONS),
            Way::Turnip { extra: true } => Some(&turnip::extra::ADDITIONS),
            Way::Turnip { extra: false } | Way::Panvk => Some(&direct::ADDITIONS),
        };
        // SAFETY: as above.
        let set_loader_data = unsafe { loader::device_loader_data(info) };
        // SAFETY: as above.
        let enabled = additions.map(|additions| unsafe { Enabled::new(info, queues, additions) });
        let down = enabled.as_ref().map_or(info, |enabled| &enabled.info);
        let opening = Opening::new(way);
        // SAFETY: the application's valid arguments, edited.
        let result = unsafe { (instance.next.fp_v1_0().create_device)(physical, down, allocator, device) };
        if result != vk::Result::SUCCESS {
            return result;
        }
        // SAFETY: the call succeeded.
        let handle = unsafe { *device };
        let next = link.get_device_proc_addr;
        let load = |name: &CStr| {
            // SAFETY: the device just made, and a valid name.
            unsafe { next(handle, name.as_ptr()) }
                .map_or(core::ptr::null(), |function| function as *const c_void)
        };
        // SAFETY: `load` answers with the next layer's functions.
        let functions = unsafe { ash::Device::load_with(load, handle) };
        let queues = enabled.as_ref().and_then(|enabled| enabled.queues.as_ref());
        let made = (|| {
            // SAFETY: the application's valid arguments.
            let own = unsafe { slice(down.p_queue_create_infos, down.queue_create_info_count) };
            let created = Created { features, queues: own, opening };
            let sparse = Sparse::new(way, &instance, physical, &functions, load, &created)?;
            let added = queues.map(|queues| add_queues(&functions, queues, set_loader_data)).transpose()?;
            Ok((sparse, added))
        })();
        let (sparse, added) = match made {
            Ok(made) => made,
            Err(error) => {
                tracing::error!("vkCreateDevice: {error}");
                // SAFETY: the device just made, which nobody knows.
                unsafe { functions.destroy_device(allocator.as_ref()) };
                return match error {
                    SetupError::Kernel(kmd::Errno::NOMEM) => vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
                    SetupError::Extra(_) => vk::Result::ERROR_FEATURE_NOT_PRESENT,
                    _ => vk::Result::ERROR_INITIALIZATION_FAILED,
                };
            }
        };
        let record = Device {
            next: functions,
            map_memory2: ash::khr::map_memory2::DeviceFn::load(load),
            instance,
            physical,
            get_device_proc_addr: next,
            sparse,
            added,
        };
        // SAFETY: the device just made.
        DEVICES.write().insert(unsafe { DispatchKey::of(handle) }, Arc::new(record));
        vk::Result::SUCCESS
    })
}

pub(crate) unsafe extern "system" fn destroy_device(
    device: vk::Device,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    guard("vkDestroyDevice", || {
        if device == vk::Device::null() {
            return;
        }
        // SAFETY: a handle of the application's.
        let record = DEVICES.write().remove(&unsafe { DispatchKey::of(device) });
        let Some(record) = record else { return };
        if let Some(sparse) = &record.sparse {
            sparse.release(&record);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (record.next.fp_v1_0().destroy_device)(device, allocator) };
    });
}

/// What the layer has to do with a device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Nothing: it is the driver's.
    Aside,
    OwnsBinding,
    /// Owns binding, and the device has queues that the layer added.
    HasQueues,
}

/// The next layer's answer for a device, and the layer's role in it.
pub fn next_proc_addr(device: vk::Device, name: *const c_char) -> (vk::PFN_vkVoidFunction, Role) {
    // SAFETY: a handle of the application's.
    let Some(record) = find(unsafe { DispatchKey::of(device) }) else { return (None, Role::Aside) };
    let role = match (&record.sparse, &record.added) {
        (_, Some(_)) => Role::HasQueues,
        (Some(_), None) => Role::OwnsBinding,
        (None, None) => Role::Aside,
    };
    // SAFETY: as above; the name is the caller's valid argument.
    (unsafe { (record.get_device_proc_addr)(device, name) }, role)
}

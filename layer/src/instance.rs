//! Instances: the chain above and below, and which physical devices the layer takes binding over from.

use crate::arrays::slice;
use crate::config::{Config, Kernel};
use crate::icd::direct::report::{self, Messenger};
use crate::icd::{Way, lavapipe};
use crate::loader::{self, DispatchKey};
use ash::vk;
use core::ffi::{CStr, c_char};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, OnceLock};

/// An instance of an application.
pub struct Instance {
    pub next: ash::Instance,
    pub get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr,
    pub get_physical_device_proc_addr: Option<loader::PfnGetPhysicalDeviceProcAddr>,
    pub config: &'static Config,
    /// Who executes a physical device's binds, once it was asked.
    ways: Mutex<HashMap<vk::PhysicalDevice, Way>>,
    /// Hears where drivers put their objects, once somebody wants to know; `None` where they cannot say.
    messenger: OnceLock<Option<Messenger>>,
}

static INSTANCES: LazyLock<RwLock<HashMap<DispatchKey, Arc<Instance>>>> = LazyLock::new(RwLock::default);

/// What an entry point answers when it is called with a handle that the layer never saw, or when the layer itself has a fault.
pub trait Failure {
    const VALUE: Self;
}
impl Failure for () {
    const VALUE: Self = ();
}
impl Failure for vk::Result {
    const VALUE: Self = vk::Result::ERROR_UNKNOWN;
}
impl Failure for vk::Bool32 {
    const VALUE: Self = vk::FALSE;
}
impl Failure for vk::PFN_vkVoidFunction {
    const VALUE: Self = None;
}

/// Runs an entry point's body: a panic ends in the log and an error, never in the application.
pub fn guard<R: Failure>(call: &str, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        tracing::error!("{call}: a fault in tessera itself; please report it");
        R::VALUE
    })
}

/// The instance that a dispatch key belongs to.
pub fn find(key: DispatchKey) -> Option<Arc<Instance>> {
    INSTANCES.read().get(&key).cloned()
}

/// Runs the body of an entry point of a physical device, with its instance and whether the layer owns binding on it.
pub fn on_physical_device<R: Failure>(
    device: vk::PhysicalDevice,
    call: &str,
    body: impl FnOnce(&Instance, bool) -> R,
) -> R {
    guard(call, || {
        // SAFETY: a handle of the application's.
        match find(unsafe { DispatchKey::of(device) }) {
            Some(instance) => body(&instance, instance.owns(device)),
            None => {
                tracing::error!("{call}: the physical device belongs to no instance that the layer knows");
                R::VALUE
            }
        }
    })
}

impl Instance {
    /// The next layer's function of a name.
    ///
    /// # Safety
    /// `F` is the type of that function.
    pub unsafe fn next_function<F: Copy>(&self, name: &CStr) -> Option<F> {
        // SAFETY: the instance is alive, the name valid.
        let function = unsafe { (self.get_instance_proc_addr)(self.next.handle(), name.as_ptr()) }?;
        // SAFETY: the caller's promise: both are function pointers.
        Some(unsafe { core::mem::transmute_copy::<unsafe extern "system" fn(), F>(&function) })
    }

    /// Whether drivers tell the layer where they put objects, from now on.
    pub fn reports_addresses(&self) -> bool {
        self.messenger.get_or_init(|| Messenger::new(self)).is_some()
    }

    /// Who executes the binds of a physical device.
    pub fn way(&self, device: vk::PhysicalDevice) -> Way {
        *self.ways.lock().entry(device).or_insert_with(|| self.decide(device))
    }

    /// Whether what a physical device offers of sparse binding is the layer's to say, in the driver's place.
    pub fn owns(&self, device: vk::PhysicalDevice) -> bool {
        self.way(device) == Way::Lavapipe
    }

    fn decide(&self, device: vk::PhysicalDevice) -> Way {
        if self.config.kernel == Kernel::Off {
            return Way::Aside;
        }
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        // SAFETY: a physical device of this instance.
        unsafe { self.next.get_physical_device_properties2(device, &mut properties) };
        let properties = properties.properties;
        let name = properties.device_name_as_c_str().unwrap_or_default().to_owned();
        if properties.api_version < vk::API_VERSION_1_3 {
            tracing::info!("{name:?}: left alone, it has no Vulkan 1.3");
            return Way::Aside;
        }
        let kernel = self.config.kernel;
        match (driver.driver_id, kernel) {
            (vk::DriverId::MESA_TURNIP, Kernel::Auto | Kernel::Msm) => {
                let extra = self.has_extra(device, &properties);
                if extra {
                    tracing::info!("{name:?}: residency of 2D images is tessera's too (TESSERA_EXTRA)");
                }
                let way = Way::Turnip { extra };
                // It opts in to VM_BIND when it opens the node, before anybody else can, or never.
                let needs = "Mesa 25.2, Linux 6.17 and a GPU with page tables for each process";
                return self.if_sparse(device, &name, way, "executed by the kernel's msm", needs);
            }
            (vk::DriverId::MESA_PANVK, Kernel::Auto | Kernel::Panthor) => {
                let needs = "a Mesa newer than 25.0 and a Mali of v10 or later";
                return self.if_sparse(device, &name, Way::Panvk, "executed by the kernel's panthor", needs);
            }
            _ => {}
        }
        let has_adapter = driver.driver_id == vk::DriverId::MESA_LLVMPIPE;
        if kernel == Kernel::Forward || (kernel == Kernel::Auto && !has_adapter) {
            return self.if_sparse(device, &name, Way::Forward, "executed by the driver", "one that has");
        }
        if !has_adapter || matches!(kernel, Kernel::Msm | Kernel::Panthor) {
            tracing::info!(
                "{name:?}: left alone, TESSERA_KERNEL names a kernel that does not bind for its driver"
            );
            return Way::Aside;
        }
        match lavapipe::check(&self.next, device) {
            Ok(()) => {
                tracing::info!("{name:?}: sparse binding is tessera's, executed by an emulated kernel");
                Way::Lavapipe
            }
            // The one driver that could be served cannot: that is worth a line even in a quiet log.
            Err(error) => {
                tracing::error!("{name:?}: left alone, {error}");
                Way::Aside
            }
        }
    }

    /// Whether a device of Turnip's gets residency of 2D images from the layer: the driver has everything else that it takes, and says
    /// where its objects are.
    fn has_extra(&self, device: vk::PhysicalDevice, properties: &vk::PhysicalDeviceProperties) -> bool {
        // SAFETY: a physical device of this instance.
        let features = unsafe { self.next.get_physical_device_features(device) };
        self.config.extra
            && features.sparse_binding == vk::TRUE
            // Which it has where the kernel has null mappings.
            && features.sparse_residency_buffer == vk::TRUE
            && features.sparse_residency_image2_d == vk::FALSE
            && properties.sparse_properties.residency_standard2_d_block_shape == vk::TRUE
            && self.reports_addresses()
    }

    /// The way of a device whose driver has sparse binding; without, there is none: whoever comes after the driver comes too late.
    fn if_sparse(
        &self,
        device: vk::PhysicalDevice,
        name: &CStr,
        way: Way,
        executed: &str,
        needs: &str,
    ) -> Way {
        // SAFETY: a physical device of this instance.
        let features = unsafe { self.next.get_physical_device_features(device) };
        if features.sparse_binding == vk::FALSE {
            tracing::info!("{name:?}: left alone, its driver has no sparse binding here: it takes {needs}");
            return Way::Aside;
        }
        tracing::info!("{name:?}: sparse binding is tessera's, {executed}");
        way
    }
}

pub(crate) unsafe extern "system" fn create_instance(
    info: *const vk::InstanceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    instance: *mut vk::Instance,
) -> vk::Result {
    guard("vkCreateInstance", || {
        crate::log::start();
        // SAFETY: the application's valid arguments.
        let info = unsafe { &*info };
        // SAFETY: the loader called.
        let Some(link) = (unsafe { loader::take_instance_link(info) }) else {
            tracing::error!("vkCreateInstance: the loader's chain has no link for the layer");
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let config = match Config::get() {
            Ok(config) => config,
            Err(error) => {
                tracing::error!("{error}");
                return vk::Result::ERROR_INITIALIZATION_FAILED;
            }
        };
        let next = link.get_instance_proc_addr;
        // SAFETY: the next layer's function of this name.
        let create = unsafe {
            core::mem::transmute::<vk::PFN_vkVoidFunction, Option<vk::PFN_vkCreateInstance>>(next(
                vk::Instance::null(),
                c"vkCreateInstance".as_ptr(),
            ))
        };
        let Some(create) = create else { return vk::Result::ERROR_INITIALIZATION_FAILED };
        // Drivers hide entry points of versions above the one that the application asked for; the layer uses those of 1.3.
        // SAFETY: valid or null.
        let mut application = unsafe { info.p_application_info.as_ref() }.copied().unwrap_or_default();
        application.api_version = application.api_version.max(vk::API_VERSION_1_3);
        let mut raised = *info;
        raised.p_application_info = &raw const application;
        // Only a real driver's objects have to be asked for.
        let asks = matches!(config.kernel, Kernel::Auto | Kernel::Msm | Kernel::Panthor);
        // SAFETY: the application's valid arguments, here and below.
        let mut extensions =
            unsafe { slice(info.pp_enabled_extension_names, info.enabled_extension_count) }.to_vec();
        // SAFETY: as above.
        if asks && !extensions.iter().any(|&name| unsafe { CStr::from_ptr(name) } == report::EXTENSION) {
            extensions.push(report::EXTENSION.as_ptr());
        }
        let mut asking = raised;
        asking.enabled_extension_count = extensions.len() as u32;
        asking.pp_enabled_extension_names = extensions.as_ptr();
        // SAFETY: the application's valid arguments, edited.
        let mut result = unsafe { create(&raw const asking, allocator, instance) };
        if result == vk::Result::ERROR_EXTENSION_NOT_PRESENT && asks {
            // SAFETY: as above.
            result = unsafe { create(&raw const raised, allocator, instance) };
        }
        if result != vk::Result::SUCCESS {
            return result;
        }
        // SAFETY: the call succeeded.
        let handle = unsafe { *instance };
        let load = |name: &CStr| {
            // SAFETY: the instance just made, and a valid name.
            unsafe { next(handle, name.as_ptr()) }.map_or(core::ptr::null(), |function| function as *const _)
        };
        let record = Instance {
            // SAFETY: `load` answers with the next layer's functions.
            next: unsafe { ash::Instance::load_with(load, handle) },
            get_instance_proc_addr: next,
            get_physical_device_proc_addr: link.get_physical_device_proc_addr,
            config,
            ways: Mutex::default(),
            messenger: OnceLock::new(),
        };
        // SAFETY: the instance just made.
        INSTANCES.write().insert(unsafe { DispatchKey::of(handle) }, Arc::new(record));
        vk::Result::SUCCESS
    })
}

pub(crate) unsafe extern "system" fn destroy_instance(
    instance: vk::Instance,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    guard("vkDestroyInstance", || {
        if instance == vk::Instance::null() {
            return;
        }
        // SAFETY: a handle of the application's.
        let record = INSTANCES.write().remove(&unsafe { DispatchKey::of(instance) });
        if let Some(record) = record {
            if let Some(Some(messenger)) = record.messenger.get() {
                messenger.release(&record.next);
            }
            // SAFETY: the application's valid arguments, handed on.
            unsafe { (record.next.fp_v1_0().destroy_instance)(instance, allocator) };
        }
    });
}

/// The next layer's answer for an instance or, before there is one, nothing.
pub fn next_proc_addr(instance: vk::Instance, name: *const c_char) -> vk::PFN_vkVoidFunction {
    if instance == vk::Instance::null() {
        return None;
    }
    // SAFETY: a handle of the application's; the name is its valid argument.
    unsafe { (find(DispatchKey::of(instance))?.get_instance_proc_addr)(instance, name) }
}

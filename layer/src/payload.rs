//! Semaphores and fences as the kernel knows them: what Mesa's drivers export as an opaque file is the syncobj itself, so the payload of
//! a semaphore or fence travels in a bind's ioctl, and no thread has to wait for it.

use crate::chain::{self, ChainCopy};
use crate::device::{Device, on_device};
use crate::handles::Table;
use ash::vk;
use core::ffi::{CStr, c_void};
use kmd::{Node, SyncPoint, Syncobj};
use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::{Arc, OnceLock};

/// The semaphores and fences of a device that are syncobjs of its driver's open file.
pub struct Payloads {
    node: Arc<dyn Node>,
    semaphore_fd: ash::khr::external_semaphore_fd::DeviceFn,
    fence_fd: ash::khr::external_fence_fd::DeviceFn,
    /// What the driver can export.
    binary: bool,
    timeline: bool,
    fence: bool,
    semaphores: Table<vk::Semaphore, Payload>,
    fences: Table<vk::Fence, Payload>,
}

/// A semaphore or fence that was made exportable, and whose payload was never replaced from elsewhere. While it is held its syncobj's
/// handle stays what it is, though the application destroys what it belongs to.
pub struct Payload {
    is_timeline: bool,
    /// Exported when it is first used by a bind.
    syncobj: OnceLock<Syncobj>,
}

impl Payload {
    fn new(is_timeline: bool) -> Self {
        Self { is_timeline, syncobj: OnceLock::new() }
    }

    fn syncobj(
        &self,
        node: &Arc<dyn Node>,
        export: impl FnOnce() -> Result<OwnedFd, vk::Result>,
    ) -> Option<&Syncobj> {
        if let Some(known) = self.syncobj.get() {
            return Some(known);
        }
        // What fails now may not the next time: the kernel may have been out of memory.
        let file =
            export().inspect_err(|error| tracing::warn!("a semaphore or fence cannot be exported: {error}"));
        let imported = Syncobj::import(node.clone(), file.ok()?.as_fd())
            .inspect_err(|error| tracing::warn!("an exported semaphore or fence is no syncobj: {error}"))
            .ok()?;
        Some(self.syncobj.get_or_init(|| imported))
    }
}

/// Extensions by which payloads are exported.
pub const EXTENSIONS: [&CStr; 2] = [ash::khr::external_semaphore_fd::NAME, ash::khr::external_fence_fd::NAME];

const SEMAPHORE: vk::ExternalSemaphoreHandleTypeFlags = vk::ExternalSemaphoreHandleTypeFlags::OPAQUE_FD;
const FENCE: vk::ExternalFenceHandleTypeFlags = vk::ExternalFenceHandleTypeFlags::OPAQUE_FD;

impl Payloads {
    /// For a device that was created with [`EXTENSIONS`], whose driver works on `node`. `load` finds the device's functions.
    pub fn new(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        node: Arc<dyn Node>,
        mut load: impl FnMut(&CStr) -> *const c_void,
    ) -> Self {
        let semaphore = |kind| {
            let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(kind);
            let info = vk::PhysicalDeviceExternalSemaphoreInfo::default()
                .handle_type(SEMAPHORE)
                .push_next(&mut kind);
            let mut properties = vk::ExternalSemaphoreProperties::default();
            // SAFETY: a physical device of this instance.
            unsafe {
                instance.get_physical_device_external_semaphore_properties(physical, &info, &mut properties)
            };
            properties.external_semaphore_features.contains(vk::ExternalSemaphoreFeatureFlags::EXPORTABLE)
        };
        let info = vk::PhysicalDeviceExternalFenceInfo::default().handle_type(FENCE);
        let mut properties = vk::ExternalFenceProperties::default();
        // SAFETY: a physical device of this instance.
        unsafe { instance.get_physical_device_external_fence_properties(physical, &info, &mut properties) };
        Self {
            node,
            semaphore_fd: ash::khr::external_semaphore_fd::DeviceFn::load(&mut load),
            fence_fd: ash::khr::external_fence_fd::DeviceFn::load(&mut load),
            binary: semaphore(vk::SemaphoreType::BINARY),
            timeline: semaphore(vk::SemaphoreType::TIMELINE),
            fence: properties.external_fence_features.contains(vk::ExternalFenceFeatureFlags::EXPORTABLE),
            semaphores: Table::default(),
            fences: Table::default(),
        }
    }

    /// The node on which the payloads are.
    pub fn node(&self) -> &Arc<dyn Node> {
        &self.node
    }

    /// A semaphore (at `value`, which counts for timelines) as the kernel knows it, and what keeps it so. `None`: only the driver can wait
    /// for it and signal it.
    pub fn semaphore(
        &self,
        d: &Device,
        semaphore: vk::Semaphore,
        value: u64,
    ) -> Option<(SyncPoint, Arc<Payload>)> {
        let payload = self.semaphores.get(semaphore)?;
        let export = || {
            let info = vk::SemaphoreGetFdInfoKHR::default().semaphore(semaphore).handle_type(SEMAPHORE);
            let mut fd = -1;
            // SAFETY: a semaphore of this device, created to be exported like this.
            unsafe { (self.semaphore_fd.get_semaphore_fd_khr)(d.next.handle(), &info, &mut fd) }.result()?;
            // SAFETY: the driver has just made this descriptor for us.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let syncobj = payload.syncobj(&self.node, export)?;
        let point = if payload.is_timeline { syncobj.point(value) } else { syncobj.binary() };
        Some((point, payload))
    }

    /// As [`Self::semaphore`], a fence.
    pub fn fence(&self, d: &Device, fence: vk::Fence) -> Option<(SyncPoint, Arc<Payload>)> {
        let payload = self.fences.get(fence)?;
        let export = || {
            let info = vk::FenceGetFdInfoKHR::default().fence(fence).handle_type(FENCE);
            let mut fd = -1;
            // SAFETY: a fence of this device, created to be exported like this.
            unsafe { (self.fence_fd.get_fence_fd_khr)(d.next.handle(), &info, &mut fd) }.result()?;
            // SAFETY: the driver has just made this descriptor for us.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let point = payload.syncobj(&self.node, export)?.binary();
        Some((point, payload))
    }

    /// Makes a semaphore by `create`, exportable where the driver allows that.
    ///
    /// # Safety
    /// `info` is valid with everything it points to.
    pub unsafe fn create_semaphore(
        &self,
        info: &vk::SemaphoreCreateInfo<'_>,
        create: impl FnOnce(&vk::SemaphoreCreateInfo<'_>) -> Result<vk::Semaphore, vk::Result>,
    ) -> Result<vk::Semaphore, vk::Result> {
        // SAFETY: the caller's promise, here and below.
        let kind = unsafe { chain::find::<vk::SemaphoreTypeCreateInfo<'_>>(info.p_next) };
        let is_timeline = kind.is_some_and(|kind| kind.semaphore_type == vk::SemaphoreType::TIMELINE);
        if !(if is_timeline { self.timeline } else { self.binary }) {
            return create(info);
        }
        // SAFETY: as above.
        let mut chain =
            unsafe { ChainCopy::new_until(info.p_next, &[vk::StructureType::EXPORT_SEMAPHORE_CREATE_INFO]) };
        if let Some(export) = chain.get_mut::<vk::ExportSemaphoreCreateInfo<'_>>() {
            export.handle_types |= SEMAPHORE;
        } else {
            chain.push_front(vk::ExportSemaphoreCreateInfo::default().handle_types(SEMAPHORE));
        }
        let mut exportable = *info;
        exportable.p_next = chain.as_ptr();
        let semaphore = create(&exportable)?;
        self.semaphores.insert(semaphore, Payload::new(is_timeline));
        Ok(semaphore)
    }

    /// As [`Self::create_semaphore`], a fence.
    ///
    /// # Safety
    /// `info` is valid with everything it points to.
    unsafe fn create_fence(
        &self,
        info: &vk::FenceCreateInfo<'_>,
        create: impl FnOnce(&vk::FenceCreateInfo<'_>) -> Result<vk::Fence, vk::Result>,
    ) -> Result<vk::Fence, vk::Result> {
        if !self.fence {
            return create(info);
        }
        // SAFETY: the caller's promise.
        let mut chain =
            unsafe { ChainCopy::new_until(info.p_next, &[vk::StructureType::EXPORT_FENCE_CREATE_INFO]) };
        if let Some(export) = chain.get_mut::<vk::ExportFenceCreateInfo<'_>>() {
            export.handle_types |= FENCE;
        } else {
            chain.push_front(vk::ExportFenceCreateInfo::default().handle_types(FENCE));
        }
        let mut exportable = *info;
        exportable.p_next = chain.as_ptr();
        let fence = create(&exportable)?;
        self.fences.insert(fence, Payload::new(false));
        Ok(fence)
    }

    /// A semaphore is gone, or its payload was replaced by one that only the driver knows.
    pub fn forget_semaphore(&self, semaphore: vk::Semaphore) {
        self.semaphores.remove(semaphore);
    }

    fn forget_fence(&self, fence: vk::Fence) {
        self.fences.remove(fence);
    }
}

pub(crate) unsafe extern "system" fn create_fence(
    device: vk::Device,
    info: *const vk::FenceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    fence: *mut vk::Fence,
) -> vk::Result {
    on_device(device, "vkCreateFence", |d, sparse| {
        // SAFETY: the application's valid arguments, handed on.
        let next = |info: &vk::FenceCreateInfo<'_>| unsafe {
            (d.next.fp_v1_0().create_fence)(device, info, allocator, fence)
        };
        match sparse.and_then(|sparse| sparse.icd.payloads()) {
            // SAFETY: as above; the driver has written the fence where it was made.
            Some(payloads) => unsafe {
                let made = payloads.create_fence(&*info, |info| next(info).result().map(|()| *fence));
                made.err().unwrap_or(vk::Result::SUCCESS)
            },
            // SAFETY: as above.
            None => next(unsafe { &*info }),
        }
    })
}

pub(crate) unsafe extern "system" fn destroy_fence(
    device: vk::Device,
    fence: vk::Fence,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    on_device(device, "vkDestroyFence", |d, sparse| {
        if let Some(payloads) = sparse.and_then(|sparse| sparse.icd.payloads()) {
            payloads.forget_fence(fence);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().destroy_fence)(device, fence, allocator) };
    });
}

/// Hands a call on by which a semaphore and a fence may get payloads from elsewhere, even where the call fails.
fn replacing<F: Copy>(
    device: vk::Device,
    name: &'static CStr,
    semaphore: vk::Semaphore,
    fence: vk::Fence,
    call: impl FnOnce(F) -> vk::Result,
) -> vk::Result {
    on_device(device, name.to_str().unwrap_or_default(), |d, sparse| {
        // SAFETY: the entry points below name their own function.
        let Some(next) = (unsafe { d.next_function::<F>(name) }) else {
            return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
        };
        if let Some(payloads) = sparse.and_then(|sparse| sparse.icd.payloads()) {
            payloads.forget_semaphore(semaphore);
            payloads.forget_fence(fence);
        }
        call(next)
    })
}

pub(crate) unsafe extern "system" fn import_semaphore_fd_khr(
    device: vk::Device,
    info: *const vk::ImportSemaphoreFdInfoKHR<'_>,
) -> vk::Result {
    // SAFETY: the application's valid arguments, handed on.
    let call = |next: vk::PFN_vkImportSemaphoreFdKHR| unsafe { next(device, info) };
    // SAFETY: as above.
    replacing(device, c"vkImportSemaphoreFdKHR", unsafe { (*info).semaphore }, vk::Fence::null(), call)
}

pub(crate) unsafe extern "system" fn import_fence_fd_khr(
    device: vk::Device,
    info: *const vk::ImportFenceFdInfoKHR<'_>,
) -> vk::Result {
    // SAFETY: the application's valid arguments, handed on.
    let call = |next: vk::PFN_vkImportFenceFdKHR| unsafe { next(device, info) };
    // SAFETY: as above.
    replacing(device, c"vkImportFenceFdKHR", vk::Semaphore::null(), unsafe { (*info).fence }, call)
}

pub(crate) unsafe extern "system" fn acquire_next_image_khr(
    device: vk::Device,
    swapchain: vk::SwapchainKHR,
    timeout: u64,
    semaphore: vk::Semaphore,
    fence: vk::Fence,
    index: *mut u32,
) -> vk::Result {
    // SAFETY: the application's valid arguments, handed on.
    let call = |next: vk::PFN_vkAcquireNextImageKHR| unsafe {
        next(device, swapchain, timeout, semaphore, fence, index)
    };
    replacing(device, c"vkAcquireNextImageKHR", semaphore, fence, call)
}

pub(crate) unsafe extern "system" fn acquire_next_image2_khr(
    device: vk::Device,
    info: *const vk::AcquireNextImageInfoKHR<'_>,
    index: *mut u32,
) -> vk::Result {
    // SAFETY: the application's valid arguments.
    let (semaphore, fence) = unsafe { ((*info).semaphore, (*info).fence) };
    // SAFETY: as above, handed on.
    let call = |next: vk::PFN_vkAcquireNextImage2KHR| unsafe { next(device, info, index) };
    replacing(device, c"vkAcquireNextImage2KHR", semaphore, fence, call)
}

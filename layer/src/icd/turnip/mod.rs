//! Turnip (Mesa's driver for Qualcomm Adreno) on msm. It opens a file of its own for every device, with one VM; and what it maps by
//! itself it maps on a bind queue of its own: the layer's binds come behind that ([`OwnBinds`]).

pub mod extra;
mod image;

use super::direct::{Descriptors, Driver, Layout, Opened, StandIn, StartError};
use crate::carrier::{Before, KernelQueue, Pending};
use crate::device::Device;
use crate::resource::CreateError;
use crate::tiles::Banks;
use ash::vk;
use gpuvm::VaRange;
use kmd::bo::MmapOffset;
use kmd::msm::{self, BorrowedQueue, MsmVm};
use kmd::uapi::msm as uapi;
use kmd::{BindOp, BindTarget, Errno, Node, SyncPoint, Syncobj};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The driver's own bind queue. When it makes or destroys a sparse resource it maps or unmaps there, without waiting. The kernel's list
/// of mappings changes with each call, but the page tables when a queue's job runs: a bind of another queue that came first would leave
/// the kernel with pages where it expects none, and it would give the address space up.
struct OwnBinds {
    queue: BorrowedQueue,
    /// Counts what the driver did.
    done: AtomicU64,
    /// Signalled behind it, at points that count up.
    timeline: Syncobj,
    /// What the last point covers, and the point.
    covered: Mutex<(u64, u64)>,
}

impl OwnBinds {
    fn new(node: Arc<dyn Node>) -> Result<Self, Errno> {
        Ok(Self {
            queue: BorrowedQueue::first(node.clone())?,
            done: AtomicU64::new(0),
            timeline: Syncobj::create(node, false)?,
            covered: Mutex::default(),
        })
    }

    /// The driver has bound something: its call is over, its job may not be.
    fn note(&self) {
        self.done.fetch_add(1, Ordering::Release);
    }
}

impl Before for OwnBinds {
    fn state(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    fn point(&self) -> Result<SyncPoint, Errno> {
        let (covered, point) = &mut *self.covered.lock();
        let done = self.state();
        if *covered != done {
            self.queue.signal(self.timeline.point(*point + 1))?;
            (*covered, *point) = (done, *point + 1);
        }
        Ok(self.timeline.point(*point))
    }
}

/// What is Turnip's own.
struct Turnip {
    node: Arc<dyn Node>,
    own_binds: Arc<OwnBinds>,
    banks: Banks,
    /// Whether the layer makes residency of 2D images, which the driver does not offer.
    extra: bool,
}

/// The file of a new device; `before` are the descriptors from before it was made, `extra`: with residency of 2D images that the driver
/// does not offer.
pub fn open(before: &Descriptors, extra: bool) -> Result<Opened, StartError> {
    let node = Arc::new(before.opened_since(uapi::DRIVER_NAME).ok_or(StartError::NoNode(uapi::DRIVER_NAME))?);
    let vm = Arc::new(MsmVm::attach(node.clone())?);
    let banks = Banks {
        highest_bit: u32::try_from(msm::get_param(&*node, uapi::PARAM_HIGHEST_BANK_BIT)?).unwrap_or(0),
        swizzle: u32::try_from(msm::get_param(&*node, uapi::PARAM_UBWC_SWIZZLE)?).unwrap_or(u32::MAX),
    };
    tracing::debug!(?banks, "msm");
    let own_binds = Arc::new(OwnBinds::new(node.clone())?);
    let driver = Box::new(Turnip { node: node.clone(), own_binds, banks, extra });
    // msm has one VM on a file.
    Ok(Opened { node, vm, vm_id: 1, driver })
}

impl Driver for Turnip {
    unsafe fn stand_in<'a>(
        &self,
        info: &vk::ImageCreateInfo<'a>,
    ) -> Result<Option<StandIn<'a>>, CreateError> {
        if !self.extra || !info.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY) {
            return Ok(None);
        }
        // SAFETY: the caller's promise.
        let stand_in = unsafe { extra::stand_in(info) };
        stand_in.map(Some).ok_or(CreateError::Format(info.format))
    }

    fn map_null(&self, range: VaRange) -> Result<(), Errno> {
        // Where the driver would do it for a residency image: behind its unmapping of what was there before.
        let op = BindOp { va: range.start, len: range.len, target: BindTarget::Null };
        self.own_binds.queue.bind(&[op])
    }

    fn layout(
        &self,
        d: &Device,
        image: vk::Image,
        size: u64,
        info: &vk::ImageCreateInfo<'_>,
    ) -> Option<Layout> {
        if self.extra {
            return extra::layout(self.banks, d, image, size, info);
        }
        image::offered(self.banks, d, image, size, info)
    }

    fn bind_queue(&self) -> Result<KernelQueue, Errno> {
        // Queues of Vulkan's do not wait for each other, so each has one of the kernel's.
        let vm = Arc::new(MsmVm::attach(self.node.clone())?);
        Ok(KernelQueue { vm, pending: Arc::new(Pending::new(self.node.clone())?) })
    }

    fn before(&self) -> Option<Arc<dyn Before>> {
        Some(self.own_binds.clone())
    }

    fn note_own_bind(&self) {
        self.own_binds.note();
    }

    fn mmap_offset(&self) -> MmapOffset {
        msm::mmap_offset
    }
}

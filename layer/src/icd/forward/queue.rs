//! vkQueueBindSparse on a driver that binds by itself: what it is given is the plan, as few binds as it takes.
//!
//! # What may be left out
//!
//! The mirror follows the order in which binds are submitted. A bind that changes nothing there can be left out where the driver
//! executes in that order too, as far as the same ranges are concerned. The application has to order binds of a range; what it orders
//! otherwise than it submits it can only order by semaphores, so there are two queues, and a wait for what is submitted later.
//!
//! * A device with a single queue that binds has neither: what is bound already is always left out.
//! * Otherwise what two queues have bound ([`Places`]) is not to be trusted, because a bind of the one may still wait while the other
//!   goes on.
//! * Nor may anything be left out that waits for a semaphore, or comes behind such a bind in its queue, unless the wait was over when it
//!   was submitted: what it waits for may come later, by a queue that nobody saw yet, and undo what the mirror thinks is bound.
//!
//! What must not be trusted is forgotten before it is planned: a hole in the mirror equals nothing.

use super::places::Places;
use super::rewrite::{Binds, Rewrite};
use crate::address_space::Want;
use crate::arrays::slice;
use crate::device::{Device, Sparse};
use crate::queue::{BindQueue, Group, Spare};
use crate::semaphore::{self, Points};
use ash::vk;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use gpuvm::VaRange;
use parking_lot::Mutex;
use std::sync::Arc;

/// A queue of the driver's.
pub struct Queue {
    number: u32,
    places: Arc<Places>,
    /// Whether the device has other queues that bind.
    has_others: bool,
    /// Whether a bind was submitted that may have had to wait, so that those behind it may come late too.
    is_late: AtomicBool,
    spare: Spare,
    /// Only locked during a call on the queue, of which there is one at a time.
    binds: Mutex<Binds>,
}

impl Queue {
    /// `number` tells it from the device's other queues, of which others bind if it `has_others`.
    pub fn new(number: u32, has_others: bool, places: Arc<Places>) -> Self {
        Self {
            number,
            places,
            has_others,
            is_late: AtomicBool::new(false),
            spare: Spare::default(),
            binds: Mutex::default(),
        }
    }

    /// Whether binds behind these waits come before everything that is submitted after them.
    fn is_prompt(&self, d: &Device, sparse: &Sparse, waits: Points<'_>) -> bool {
        if !self.has_others {
            return true;
        }
        if !self.is_late.load(Relaxed) && !semaphore::reached(d, sparse, waits) {
            self.is_late.store(true, Relaxed);
        }
        !self.is_late.load(Relaxed)
    }

    /// Plans and hands down a part of a group. No lock of the address space is held during the driver's call, which may wait in there
    /// for what another queue does.
    fn bind(
        &self,
        d: &Device,
        sparse: &Sparse,
        queue: vk::Queue,
        part: &Group<'_>,
        wants: &[Want],
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        let mut binds = self.binds.lock();
        binds.clear();
        let mut rewrite = Rewrite { places: &self.places, binds: &mut binds };
        sparse.address_space.bind_through(self.number, wants, &mut rewrite).map_err(|error| {
            tracing::error!("vkQueueBindSparse: {error}");
            sparse.bind_result(&error)
        })?;
        let has_points = !part.waits.semaphores.is_empty() || !part.signals.semaphores.is_empty();
        if binds.len() == 0 && !has_points && fence == vk::Fence::null() {
            return Ok(());
        }
        let down = binds.infos();
        let mut values = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(part.waits.values)
            .signal_semaphore_values(part.signals.values);
        let mut info = vk::BindSparseInfo::default()
            .wait_semaphores(part.waits.semaphores)
            .buffer_binds(&down.buffers)
            .image_opaque_binds(&down.opaque)
            .image_binds(&down.images)
            .signal_semaphores(part.signals.semaphores);
        if !part.waits.values.is_empty() || !part.signals.values.is_empty() {
            info = info.push_next(&mut values);
        }
        let infos = if binds.len() > 0 || has_points { core::slice::from_ref(&info) } else { &[] };
        // SAFETY: the application owns the queue during its call; semaphores and fence are its valid arguments, resources and memory
        // were checked.
        let result = unsafe { d.next.queue_bind_sparse(queue, infos, fence) };
        result.inspect_err(|&error| {
            let ranges: Vec<_> = wants.iter().map(|want| want.range).collect();
            failed(sparse, error, &ranges);
        })
    }

    /// Hands a batch down as it is; of what it names, the mirror then knows nothing.
    fn pass_on(
        &self,
        d: &Device,
        sparse: &Sparse,
        queue: vk::Queue,
        info: &vk::BindSparseInfo<'_>,
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        // SAFETY: the application's valid arguments.
        let (buffers, opaque, images) = unsafe {
            (
                slice(info.p_buffer_binds, info.buffer_bind_count),
                slice(info.p_image_opaque_binds, info.image_opaque_bind_count),
                slice(info.p_image_binds, info.image_bind_count),
            )
        };
        let counts = buffers.iter().map(|bind| bind.bind_count);
        let counts = counts.chain(opaque.iter().map(|bind| bind.bind_count));
        let counts = counts.chain(images.iter().map(|bind| bind.bind_count));
        let count: u64 = counts.map(u64::from).sum();
        let buffers = buffers.iter().filter_map(|bind| Some(sparse.buffers.get(bind.buffer)?.range.start));
        let images = opaque.iter().map(|bind| bind.image).chain(images.iter().map(|bind| bind.image));
        let images = images.filter_map(|image| Some(sparse.images.get(image)?.opaque.first()?.start));
        let ranges: Vec<_> =
            buffers.chain(images).flat_map(|address| self.places.give_up(self.number, address)).collect();
        // SAFETY: the application's valid arguments, handed on.
        let result = unsafe { d.next.queue_bind_sparse(queue, core::slice::from_ref(info), fence) };
        let counters = &sparse.address_space.counters;
        counters.wanted.fetch_add(count, Relaxed);
        counters.ops.fetch_add(count, Relaxed);
        counters.calls.fetch_add(1, Relaxed);
        match result {
            Ok(()) => sparse.address_space.forget(&ranges).map_err(|error| sparse.bind_result(&error)),
            Err(error) => {
                failed(sparse, error, &ranges);
                Err(error)
            }
        }
    }
}

/// The driver refused a call: what became of these ranges is unknown.
fn failed(sparse: &Sparse, error: vk::Result, ranges: &[VaRange]) {
    if error == vk::Result::ERROR_DEVICE_LOST {
        sparse.address_space.lose("the driver says so");
    } else if let Err(error) = sparse.address_space.forget(ranges) {
        sparse.address_space.lose(&format!("what the driver refused could not be forgotten: {error}"));
    }
}

impl BindQueue for Queue {
    fn submit(
        self: Arc<Self>,
        d: &Arc<Device>,
        sparse: &Sparse,
        queue: vk::Queue,
        mut group: Group<'_>,
        fence: vk::Fence,
    ) -> Result<(), vk::Result> {
        let wants = core::mem::take(&mut group.wants);
        let result = sparse.stats.bind(|| {
            let is_prompt = self.is_prompt(d, sparse, group.waits);
            if let Some(info) = group.as_is {
                return self.pass_on(d, sparse, queue, info, fence);
            }
            let segments = self.places.segments(self.number, is_prompt, &wants);
            let mut start = 0;
            for (number, segment) in segments.iter().enumerate() {
                sparse.address_space.forget(&segment.forget).map_err(|error| sparse.bind_result(&error))?;
                let is_last = number + 1 == segments.len();
                let part = Group {
                    waits: if number == 0 { group.waits } else { Points::default() },
                    signals: if is_last { group.signals } else { Points::default() },
                    ..Group::default()
                };
                let fence = if is_last { fence } else { vk::Fence::null() };
                self.bind(d, sparse, queue, &part, &wants[start..segment.end], fence)?;
                start = segment.end;
            }
            Ok(())
        });
        self.spare.give_back(wants);
        result
    }

    fn spare(&self) -> &Spare {
        &self.spare
    }

    fn release(&self, _d: &Device) {}
}

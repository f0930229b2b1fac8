//! A node that plays a script: for tests of what goes to the kernel, and of what is made of its answers.

use crate::node::{Node, Request};
use crate::uapi::{drm, msm, panthor};
use core::ffi::c_void;
use parking_lot::Mutex;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::sync::Arc;

/// An ioctl as the kernel saw it, arrays included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    VmBind {
        vm_id: u32,
        flags: u32,
        ops: Vec<(panthor::VmBindOp, Vec<panthor::SyncOp>)>,
    },
    MsmBind {
        queue_id: u32,
        ops: Vec<msm::VmBindOp>,
        waits: Vec<msm::Syncobj>,
        signals: Vec<msm::Syncobj>,
    },
    Wait {
        arg: drm::SyncobjWait,
        handles: Vec<u32>,
    },
    TimelineWait {
        arg: drm::SyncobjTimelineWait,
        handles: Vec<u32>,
        points: Vec<u64>,
    },
    TimelineArray {
        request: u32,
        flags: u32,
        handles: Vec<u32>,
        points: Vec<u64>,
    },
    Array {
        request: u32,
        handles: Vec<u32>,
    },
    /// Any other request, by the words of its argument.
    Other {
        request: u32,
        words: Vec<u32>,
    },
}

type Answer = Box<dyn FnOnce(*mut c_void) -> Result<(), Errno> + Send>;

#[derive(Default)]
pub(crate) struct Fake {
    script: Mutex<VecDeque<(u32, Answer)>>,
    seen: Mutex<Vec<Seen>>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The next ioctl must be an `R`, and is answered by `answer`, which may write the argument.
    pub(crate) fn expect<R: Request + 'static>(
        &self,
        answer: impl FnOnce(&mut R) -> Result<(), Errno> + Send + 'static,
    ) -> &Self {
        // SAFETY: Node::ioctl's caller passes the structure that the request encodes, and the request is R's.
        let answer: Answer = Box::new(|arg| answer(unsafe { &mut *arg.cast::<R>() }));
        self.script.lock().push_back((R::REQUEST, answer));
        self
    }

    /// What was seen since the last time.
    pub(crate) fn take(&self) -> Vec<Seen> {
        assert!(self.script.lock().is_empty(), "an expected ioctl did not come");
        core::mem::take(&mut self.seen.lock())
    }
}

/// Copies an array out of the caller's memory.
///
/// # Safety
/// `address` is that of `count` elements, or `count` is zero.
unsafe fn array<T: Copy>(address: u64, count: u32) -> Vec<T> {
    if count == 0 {
        return Vec::new();
    }
    let start = core::ptr::with_exposed_provenance::<T>(address as usize);
    // SAFETY: by our caller.
    unsafe { core::slice::from_raw_parts(start, count as usize) }.to_vec()
}

/// # Safety
/// As [`Node::ioctl`].
unsafe fn see(request: u32, arg: *mut c_void) -> Seen {
    // SAFETY (of the whole match): the request tells the structure that `arg` points at, and its addresses and counts are
    // valid, by our caller.
    match request {
        panthor::VmBind::REQUEST => {
            // SAFETY: see above.
            unsafe {
                let arg = *arg.cast::<panthor::VmBind>();
                let ops = array::<panthor::VmBindOp>(arg.ops.array, arg.ops.count).into_iter();
                let ops = ops.map(|op| {
                    let syncs = array(op.syncs.array, op.syncs.count);
                    (panthor::VmBindOp { syncs: panthor::ObjArray::default(), ..op }, syncs)
                });
                Seen::VmBind { vm_id: arg.vm_id, flags: arg.flags, ops: ops.collect() }
            }
        }
        msm::VmBind::REQUEST => {
            // SAFETY: see above; one operation is inline.
            unsafe {
                let arg = *arg.cast::<msm::VmBind>();
                let ops = match arg.nr_ops {
                    1 => vec![arg.op],
                    n => array(arg.ops_address(), n),
                };
                let waits = array(arg.in_syncobjs, arg.nr_in_syncobjs);
                let signals = array(arg.out_syncobjs, arg.nr_out_syncobjs);
                Seen::MsmBind { queue_id: arg.queue_id, ops, waits, signals }
            }
        }
        drm::SyncobjWait::REQUEST => {
            // SAFETY: see above.
            unsafe {
                let arg = *arg.cast::<drm::SyncobjWait>();
                let handles = array(arg.handles, arg.count_handles);
                Seen::Wait { arg: drm::SyncobjWait { handles: 0, ..arg }, handles }
            }
        }
        drm::SyncobjTimelineWait::REQUEST => {
            // SAFETY: see above.
            unsafe {
                let arg = *arg.cast::<drm::SyncobjTimelineWait>();
                let handles = array(arg.handles, arg.count_handles);
                let points = array(arg.points, arg.count_handles);
                let arg = drm::SyncobjTimelineWait { handles: 0, points: 0, ..arg };
                Seen::TimelineWait { arg, handles, points }
            }
        }
        drm::SyncobjQuery::REQUEST | drm::SyncobjTimelineSignal::REQUEST => {
            // SAFETY: see above.
            unsafe {
                let arg = *arg.cast::<drm::SyncobjTimelineArray>();
                let handles = array(arg.handles, arg.count_handles);
                let points = array(arg.points, arg.count_handles);
                Seen::TimelineArray { request, flags: arg.flags, handles, points }
            }
        }
        drm::SyncobjReset::REQUEST | drm::SyncobjSignal::REQUEST => {
            // SAFETY: see above.
            unsafe {
                let arg = *arg.cast::<drm::SyncobjArray>();
                Seen::Array { request, handles: array(arg.handles, arg.count_handles) }
            }
        }
        _ => {
            let words = crate::uapi::argument_size(request) / 4;
            // SAFETY: the argument has the size that the request encodes, and no structure has implicit padding.
            let words = unsafe { core::slice::from_raw_parts(arg.cast::<u32>(), words) };
            Seen::Other { request, words: words.to_vec() }
        }
    }
}

impl Node for Fake {
    unsafe fn ioctl(&self, request: u32, arg: *mut c_void) -> Result<(), Errno> {
        // SAFETY: by our caller.
        self.seen.lock().push(unsafe { see(request, arg) });
        let next = self.script.lock().pop_front();
        match next {
            Some((expected, answer)) => {
                assert_eq!(request, expected, "another ioctl than the script's");
                answer(arg)
            }
            None => Ok(()),
        }
    }

    unsafe fn mmap(&self, offset: u64, len: usize) -> Result<*mut u8, Errno> {
        self.seen.lock().push(Seen::Other { request: 0, words: vec![offset as u32, len as u32] });
        let prot = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches none that exists.
        let start = unsafe {
            rustix::mm::mmap_anonymous(core::ptr::null_mut(), len, prot, rustix::mm::MapFlags::SHARED)?
        };
        Ok(start.cast())
    }
}

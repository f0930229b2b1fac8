//! An open file of a kernel, as players use it.

use std::collections::{BTreeMap, BTreeSet};

use kmd::Request;
use kmd::uapi::drm::*;
use kmd::uapi::{user_address, user_address_mut};
use rustix::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Outcome;
use super::drm::Step;
use crate::kernel::Kernel;

/// A kernel with an open file, and what a script has made there.
pub struct Session<K> {
    /// The kernel.
    pub kernel: K,
    /// Syncobjs that exist.
    pub syncobjs: BTreeSet<u32>,
    /// Sizes of the objects that exist, in bytes, by handle.
    pub objects: BTreeMap<u32, u64>,
    /// Exported objects, with their sizes.
    files: Vec<(OwnedFd, u64)>,
}

impl<K: Kernel> Session<K> {
    pub(super) fn new(kernel: K) -> Self {
        Self { kernel, syncobjs: BTreeSet::new(), objects: BTreeMap::new(), files: Vec::new() }
    }

    /// Plays one step of those that all drivers have.
    pub(super) fn play(&mut self, step: &Step) -> Outcome {
        match *step {
            Step::BoClose { handle } => {
                self.objects.remove(&handle);
                self.ioctl(&mut GemClose { handle, pad: 0 }, |_| vec![])
            }
            Step::Export { handle } => {
                let mut arg = PrimeHandleToFd(PrimeHandle { handle, flags: CLOEXEC | RDWR, fd: -1 });
                let outcome = self.ioctl(&mut arg, |_| vec![]);
                if outcome.result.is_ok() {
                    // SAFETY: the kernel has just made this descriptor for us.
                    let file = unsafe { OwnedFd::from_raw_fd(arg.0.fd) };
                    self.files.push((file, self.objects.get(&handle).copied().unwrap_or(0)));
                }
                outcome
            }
            Step::Import { file } => {
                let (fd, len) = self.files.get(file).map_or((-1, 0), |(file, len)| (file.as_raw_fd(), *len));
                let mut arg = PrimeFdToHandle(PrimeHandle { handle: 0, flags: 0, fd });
                let outcome = self.ioctl(&mut arg, |arg| vec![arg.0.handle.into()]);
                if outcome.result.is_ok() {
                    self.objects.insert(arg.0.handle, len);
                }
                outcome
            }
            Step::SyncobjCreate { flags } => {
                let mut arg = SyncobjCreate { handle: 0, flags };
                let outcome = self.ioctl(&mut arg, |arg| vec![arg.handle.into()]);
                if outcome.result.is_ok() {
                    self.syncobjs.insert(arg.handle);
                }
                outcome
            }
            Step::SyncobjDestroy { handle } => {
                self.syncobjs.remove(&handle);
                self.ioctl(&mut SyncobjDestroy { handle, pad: 0 }, |_| vec![])
            }
            Step::Reset { handle } => self.ioctl(&mut SyncobjReset(array(&[handle])), |_| vec![]),
            Step::Signal { handle } => self.ioctl(&mut SyncobjSignal(array(&[handle])), |_| vec![]),
            Step::SignalPoint { handle, point } => {
                let (handles, points) = ([handle], [point]);
                let points = user_address(&points);
                let mut arg = SyncobjTimelineSignal(timeline(&handles, points, 0));
                self.ioctl(&mut arg, |_| vec![])
            }
            Step::Transfer { from, to } => {
                let mut arg = SyncobjTransfer {
                    src_handle: from.0,
                    dst_handle: to.0,
                    src_point: from.1,
                    dst_point: to.1,
                    ..Default::default()
                };
                self.ioctl(&mut arg, |_| vec![])
            }
            Step::Query { handle, flags } => {
                let (handles, mut points) = ([handle], [0u64]);
                let at = user_address_mut(&mut points);
                let outcome = self.ioctl(&mut SyncobjQuery(timeline(&handles, at, flags)), |_| vec![]);
                Outcome { values: points.to_vec(), ..outcome }
            }
            Step::Wait { ref points, flags } => {
                let (handles, values): (Vec<u32>, Vec<u64>) = points.iter().copied().unzip();
                let mut arg = SyncobjTimelineWait {
                    handles: user_address(&handles),
                    points: user_address(&values),
                    count_handles: handles.len() as u32,
                    flags,
                    ..Default::default()
                };
                let all = flags & SYNCOBJ_WAIT_FLAGS_WAIT_ALL != 0;
                let outcome = self.ioctl(&mut arg, |_| vec![]);
                let first =
                    if outcome.result.is_ok() && !all { vec![arg.first_signaled.into()] } else { vec![] };
                Outcome { values: first, ..outcome }
            }
            Step::Hold { handle, point } => self.hold(handle, point),
            Step::Release => {
                self.kernel.release();
                Outcome { result: Ok(()), values: vec![] }
            }
        }
    }

    fn hold(&mut self, handle: u32, point: u64) -> Outcome {
        let file = self.kernel.hold();
        let timeline = if point == 0 { 0 } else { SYNCOBJ_FD_TO_HANDLE_FLAGS_TIMELINE };
        let mut arg = SyncobjFdToHandle(SyncobjHandle {
            handle,
            flags: SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE | timeline,
            fd: file.as_raw_fd(),
            pad: 0,
            point,
        });
        self.ioctl(&mut arg, |_| vec![])
    }

    /// Notes an object that a step has made, if it has.
    pub(super) fn made(&mut self, outcome: &Outcome, handle: u32, len: u64) {
        if outcome.result.is_ok() {
            self.objects.insert(handle, len);
            self.kernel.made(handle, len);
        }
    }

    /// `values` are looked at after success.
    pub(super) fn ioctl<R: Request>(&self, arg: &mut R, values: impl FnOnce(&R) -> Vec<u64>) -> Outcome {
        // SAFETY: every address in the structure is that of an array that lives until the call is over.
        let result = unsafe { self.kernel.node().ioctl(R::REQUEST, (&raw mut *arg).cast()) };
        Outcome { result, values: if result.is_ok() { values(arg) } else { vec![] } }
    }
}

fn array(handles: &[u32]) -> SyncobjArray {
    SyncobjArray { handles: user_address(handles), count_handles: handles.len() as u32, pad: 0 }
}

fn timeline(handles: &[u32], points: u64, flags: u32) -> SyncobjTimelineArray {
    SyncobjTimelineArray {
        handles: user_address(handles),
        points,
        count_handles: handles.len() as u32,
        flags,
    }
}

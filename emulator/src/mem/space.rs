//! The process's address space as a VM's user range: executes what a page table says, inside registered windows only.

use core::ffi::c_void;
use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use super::backing::{Backing, Place};
use super::{PAGE, TASK_SIZE};
use crate::config::{Stats, Unbound};

/// Mappings that are kept in reserve, times two.
const BALLAST: u64 = 64;

/// The part of the process that VM_BIND may touch.
pub(crate) struct Space {
    /// Start to end. They do not overlap.
    windows: RwLock<BTreeMap<u64, u64>>,
    unbound: Unbound,
    execute: bool,
    stats: Arc<Stats>,
    ballast: Mutex<Ballast>,
}

impl Space {
    pub(crate) fn new(unbound: Unbound, execute: bool, stats: Arc<Stats>) -> Self {
        Self { windows: RwLock::default(), unbound, execute, stats, ballast: Mutex::default() }
    }

    /// Registers a window. `EINVAL`: no page-aligned user range; `EEXIST`: it overlaps another.
    pub(crate) fn add_window(&self, va: Range<u64>) -> Result<(), Errno> {
        if va.is_empty() || va.start % PAGE != 0 || va.end % PAGE != 0 || va.end > TASK_SIZE {
            return Err(Errno::INVAL);
        }
        let mut windows = self.windows.write();
        if windows.range(..va.end).next_back().is_some_and(|(_, end)| *end > va.start) {
            return Err(Errno::EXIST);
        }
        windows.insert(va.start, va.end);
        drop(windows);
        if self.execute {
            self.ballast.lock().load();
        }
        Ok(())
    }

    /// Takes the range out of the windows. When it returns, nothing touches that memory any more.
    pub(crate) fn remove_window(&self, va: Range<u64>) {
        let mut windows = self.windows.write();
        let hit: Vec<_> =
            windows.range(..va.end).filter(|(_, end)| **end > va.start).map(|(s, e)| (*s, *e)).collect();
        for (start, end) in hit {
            windows.remove(&start);
            if start < va.start {
                windows.insert(start, va.start);
            }
            if va.end < end {
                windows.insert(va.end, end);
            }
        }
    }

    /// Whether VM_BIND may touch all of the range: one window, or several that adjoin.
    pub(crate) fn covers(&self, va: u64, len: u64) -> bool {
        !self.execute || covers(&self.windows.read(), va, va + len)
    }

    /// Shows `len` bytes of an object at `va`. Nothing changes when it fails.
    pub(crate) fn map(
        &self,
        va: u64,
        len: u64,
        backing: &Backing,
        offset: u64,
        readonly: bool,
    ) -> Result<(), Errno> {
        if !self.execute {
            return Ok(());
        }
        let windows = self.windows.read();
        if !covers(&windows, va, va + len) {
            return Err(Errno::INVAL);
        }
        if !self.ballast.lock().reload() {
            return Err(exhausted(va, len));
        }
        self.stats.map_calls.add(1);
        // SAFETY: inside windows, which their owner gave to us to map over.
        match unsafe { backing.map(Place::Fixed(va), offset, len, readonly) } {
            Ok(_) => Ok(()),
            Err(Errno::NOMEM) => {
                // What is left of the limit is for the program, whose allocator must go on.
                self.ballast.lock().shed();
                Err(exhausted(va, len))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Shows nothing real at `va`. Nothing changes when it fails.
    pub(crate) fn map_sparse(&self, va: u64, len: u64) -> Result<(), Errno> {
        if !self.execute {
            return Ok(());
        }
        let windows = self.windows.read();
        if !covers(&windows, va, va + len) {
            return Err(Errno::INVAL);
        }
        let prot = match self.unbound {
            Unbound::Zero => ProtFlags::READ | ProtFlags::WRITE,
            Unbound::Trap => ProtFlags::empty(),
        };
        self.blank(va, len, prot)
    }

    /// Makes the windows' part of the range inaccessible. When it fails, a part may be; [`Self::pieces`] says in which units.
    pub(crate) fn unmap(&self, va: u64, len: u64) -> Result<(), Errno> {
        if !self.execute {
            return Ok(());
        }
        let windows = self.windows.read();
        for piece in pieces(&windows, va, va + len) {
            self.blank(piece.start, piece.end - piece.start, ProtFlags::empty())?;
        }
        Ok(())
    }

    /// Private anonymous memory, which joins its like on both sides; the windows are locked and cover the range.
    fn blank(&self, va: u64, len: u64, prot: ProtFlags) -> Result<(), Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
        let blank = || {
            self.stats.map_calls.add(1);
            // SAFETY: inside windows, which their owner gave to us to map over.
            unsafe { mmap_anonymous(va as *mut c_void, len as usize, prot, flags) }
        };
        match blank() {
            Ok(_) => Ok(()),
            Err(Errno::NOMEM) => {
                // Past the limit the kernel refuses even a call that would leave fewer mappings behind: make room for it.
                let mut ballast = self.ballast.lock();
                if ballast.shed() && blank().is_ok() {
                    ballast.load();
                    return Ok(());
                }
                Err(exhausted(va, len))
            }
            Err(errno) => Err(errno),
        }
    }
}

fn covers(windows: &BTreeMap<u64, u64>, start: u64, end: u64) -> bool {
    let mut at = start;
    let first = windows.range(..=start).next_back().map(|(s, _)| *s);
    for (from, to) in first.into_iter().flat_map(|first| windows.range(first..end)) {
        if *from > at || *to <= at {
            return false;
        }
        at = *to;
    }
    at >= end && first.is_some()
}

/// The parts of a range that windows cover; adjoining windows give one part.
fn pieces(windows: &BTreeMap<u64, u64>, start: u64, end: u64) -> Vec<Range<u64>> {
    let mut pieces: Vec<Range<u64>> = Vec::new();
    let first = windows.range(..=start).next_back().map_or(start, |(s, _)| *s);
    for (from, to) in windows.range(first..end) {
        let (from, to) = (start.max(*from), end.min(*to));
        match pieces.last_mut() {
            Some(last) if last.end == from => last.end = to,
            _ if from < to => pieces.push(from..to),
            _ => {}
        }
    }
    pieces
}

/// Says which limit it is, as nobody expects it.
fn exhausted(va: u64, len: u64) -> Errno {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    tracing::warn!(
        va = format_args!("{va:#x}"),
        len = format_args!("{len:#x}"),
        "out of mappings: the process has reached vm.max_map_count ({}) or is out of memory; raise it with sysctl",
        limit.trim()
    );
    Errno::NOMEM
}

/// A reserve of mappings that can be given up when the process has reached `vm.max_map_count`: at that point the kernel refuses
/// every mmap, also those that unbind, and the program's own allocator.
#[derive(Default)]
struct Ballast {
    at: Option<u64>,
    loaded: bool,
    /// The limit was hit since the ballast was dropped.
    dropped: bool,
}

impl Ballast {
    /// Takes the reserve, if it is not there; `false` when there is no room for it.
    fn load(&mut self) -> bool {
        if self.loaded {
            return true;
        }
        let len = 2 * BALLAST * PAGE;
        if self.at.is_none() {
            // SAFETY: a new mapping, which nobody else knows.
            let at = unsafe {
                mmap_anonymous(core::ptr::null_mut(), len as usize, ProtFlags::empty(), MapFlags::PRIVATE)
            };
            self.at = at.ok().map(|at| at.addr() as u64);
        }
        let Some(at) = self.at else { return false };
        for page in 0..BALLAST {
            let at = (at + (2 * page + 1) * PAGE) as *mut c_void;
            // SAFETY: pages of our own mapping. Every second one readable makes all of them mappings of their own.
            if unsafe { mprotect(at, PAGE as usize, MprotectFlags::READ) }.is_err() {
                self.clear();
                return false;
            }
        }
        self.loaded = true;
        self.dropped = false;
        true
    }

    /// Loads again what was dropped; `false` when the limit is still too near to map more.
    fn reload(&mut self) -> bool {
        !self.dropped || self.load()
    }

    /// Gives the reserve up; `false` when it was not there.
    fn shed(&mut self) -> bool {
        self.dropped = true;
        if !core::mem::take(&mut self.loaded) {
            return false;
        }
        self.clear();
        true
    }

    fn clear(&self) {
        let Some(at) = self.at else { return };
        let len = (2 * BALLAST * PAGE) as usize;
        // SAFETY: our own mapping; with equal protection its pages are one mapping again.
        let cleared = unsafe { mprotect(at as *mut c_void, len, MprotectFlags::empty()) };
        if let Err(error) = cleared {
            tracing::warn!(%error, "the reserve of mappings cannot be given up");
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            // SAFETY: our own mapping, which nobody else knows. A failure leaves some address space behind.
            let _ = unsafe { munmap(at as *mut c_void, (2 * BALLAST * PAGE) as usize) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        Space::new(Unbound::Zero, true, Arc::new(Stats::default()))
    }

    #[test]
    fn windows_do_not_overlap_and_join() {
        let space = space();
        assert_eq!(space.add_window(0x10000..0x20000), Ok(()));
        assert_eq!(space.add_window(0x20000..0x30000), Ok(()));
        for overlap in [0x1f000..0x21000, 0x0..0x11000, 0x12000..0x13000, 0x0..0x100000] {
            assert_eq!(space.add_window(overlap), Err(Errno::EXIST));
        }
        for bad in [0x1..0x1000, 0x1000..0x1000, 0x1000..0x1001, 0x1000..TASK_SIZE + 0x1000] {
            assert_eq!(space.add_window(bad), Err(Errno::INVAL));
        }
        assert!(space.covers(0x10000, 0x20000) && space.covers(0x1f000, 0x2000));
        assert!(
            !space.covers(0xf000, 0x2000) && !space.covers(0x2f000, 0x2000) && !space.covers(0x40000, 0x1000)
        );
        space.remove_window(0x18000..0x28000);
        assert!(space.covers(0x10000, 0x8000) && space.covers(0x28000, 0x8000));
        assert!(!space.covers(0x17000, 0x2000) && !space.covers(0x20000, 0x1000));
        assert_eq!(pieces(&space.windows.read(), 0x14000, 0x2c000), [0x14000..0x18000, 0x28000..0x2c000]);
    }

    #[test]
    fn outside_of_windows_nothing_is_touched() {
        let space = space();
        assert_eq!(space.map_sparse(0x10000, 0x1000), Err(Errno::INVAL));
        let backing = Backing::own_file(PAGE).unwrap();
        assert_eq!(space.map(0x10000, 0x1000, &backing, 0, false), Err(Errno::INVAL));
        assert_eq!(space.unmap(0x10000, 0x1000), Ok(()));
        assert_eq!(space.stats.map_calls.get(), 0);
    }

    #[test]
    fn without_execution_windows_do_not_matter() {
        let space = Space::new(Unbound::Trap, false, Arc::new(Stats::default()));
        assert!(space.covers(0x10000, 0x1000));
        assert_eq!(space.map_sparse(0x10000, 0x1000), Ok(()));
        assert_eq!(space.stats.map_calls.get(), 0);
    }
}

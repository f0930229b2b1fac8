//! Comparing the mirror with the page table, where that can be seen: on the node that `libtessera_emulator.so` emulates.

use crate::address_space::Verifier;
use core::ffi::c_int;
use gpuvm::{Mapping, Target, VaRange};
use kmd::{GemHandle, RenderNode};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};

/// `TesseraEmulatorMapping`: pages of a VM that continue each other.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRun {
    va: u64,
    len: u64,
    object: u64,
    offset: u64,
    handle: u32,
    pad: u32,
}

type Mappings = unsafe extern "C" fn(fd: c_int, vm: u32, out: *mut PageRun, count: usize) -> isize;

/// The verifier of a device that works on VM `vm` of this file; `None`, with a line in the log, where the page table cannot be seen.
pub fn verifier(node: &RenderNode, vm: u32) -> Option<Verifier> {
    // SAFETY: asks for a name.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"tessera_emulator_mappings".as_ptr()) };
    let file = node.as_fd().try_clone_to_owned().ok();
    let Some(file) = file.filter(|_| !function.is_null()) else {
        tracing::warn!("TESSERA_VERIFY: a real kernel does not show its page table");
        return None;
    };
    // SAFETY: the function of this name in libtessera_emulator.so.
    let mappings = unsafe { core::mem::transmute::<*mut core::ffi::c_void, Mappings>(function) };
    Some(Box::new(move |mirror| compare(mirror, &read(mappings, &file, vm)?)))
}

fn read(mappings: Mappings, file: &OwnedFd, vm: u32) -> Result<Vec<PageRun>, String> {
    let mut runs: Vec<PageRun> = Vec::new();
    loop {
        // SAFETY: the array has so many elements.
        let count = unsafe { mappings(file.as_raw_fd(), vm, runs.as_mut_ptr(), runs.len()) };
        let count = usize::try_from(count).map_err(|_| "the page table cannot be read".to_owned())?;
        if count <= runs.len() {
            runs.truncate(count);
            return Ok(runs);
        }
        runs.resize(count, PageRun::default());
    }
}

/// Looks for each mapping of the mirror in the page table, which has those of the driver's own beside them.
fn compare(mirror: &[Mapping<GemHandle>], table: &[PageRun]) -> Result<(), String> {
    for mapping in mirror {
        let Mapping { range, target } = mapping;
        let mut at = range.start;
        while at < range.end() {
            let n = table.partition_point(|run| run.va + run.len <= at);
            let differs = || {
                format!(
                    "at {at:#x} the mirror has {mapping:x?}, the page table {:x?}",
                    table.get(n).map(shown)
                )
            };
            let run = table.get(n).filter(|run| run.va <= at).ok_or_else(differs)?;
            let end = (run.va + run.len).min(range.end());
            let equal = match *target {
                Target::Null => run.object == 0,
                Target::Object { object, offset } => {
                    // A handle that was closed is not shown any more.
                    let same = run.object != 0 && (run.handle == 0 || run.handle == object.0);
                    same && run.offset + (at - run.va) == offset + (at - range.start)
                }
            };
            if !equal {
                return Err(differs());
            }
            at = end;
        }
    }
    Ok(())
}

fn shown(run: &PageRun) -> (VaRange, u32, u64) {
    (VaRange { start: run.va, len: run.len }, run.handle, run.offset)
}

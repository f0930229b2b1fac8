//! Comparing the mirror with the page table, where that can be seen: on the node that `libtessera_emulator.so` emulates.

use crate::address_space::Verifier;
use client::{Emulator, Mapping as PageRun};
use gpuvm::{Mapping, Target, VaRange};
use kmd::{GemHandle, RenderNode};
use rustix::fd::AsFd;

/// The verifier of a device that works on VM `vm` of this file; `None`, with a line in the log, where the page table cannot be seen.
pub fn verifier(node: &RenderNode, vm: u32) -> Option<Verifier> {
    let file = node.as_fd().try_clone_to_owned().ok();
    let Some((emulator, file)) = Emulator::find().zip(file) else {
        tracing::warn!("TESSERA_VERIFY: a real kernel does not show its page table");
        return None;
    };
    Some(Box::new(move |mirror| {
        let table = emulator.mappings(Some(file.as_fd()), vm);
        compare(mirror, &table.map_err(|error| format!("the page table cannot be read: {error}"))?)
    }))
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

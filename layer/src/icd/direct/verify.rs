//! Comparing the mirror with what is mapped, where that can be seen: in the page table of the node that `libtessera_emulator.so` emulates,
//! and in the account that a real kernel gives in debugfs.

use crate::address_space::Verifier;
use crate::mirror::Difference;
use client::{Emulator, Mapping as PageRun};
use gpuvm::{Mapping, Target, VaRange};
use kmd::{GemHandle, RenderNode, gpuvas};
use rustc_hash::FxHashMap;
use rustix::fd::AsFd;

/// The verifier of a device that works on VM `vm` of this file; `None`, with a line in the log, where nothing can be seen.
pub fn verifier(node: &RenderNode, vm: u32) -> Option<Verifier> {
    let file = node.as_fd().try_clone_to_owned().ok();
    if let Some((emulator, file)) = Emulator::find().zip(file) {
        return Some(Box::new(move |mirror| {
            let table = emulator.mappings(Some(file.as_fd()), vm);
            let table = table.map_err(|error| unseen(format!("the page table cannot be read: {error}")))?;
            compare(mirror, &table, is_shown)
        }));
    }
    if let Err(error) = gpuvas::read() {
        tracing::warn!("TESSERA_VERIFY: the kernel does not show what is mapped: {error}");
        return None;
    }
    Some(Box::new(|mirror| {
        let vms = gpuvas::read().map_err(|error| unseen(error.to_string()))?;
        // It does not tell whose a VM is.
        let mut result = Err(unseen("the kernel has no VM".to_owned()));
        for vm in vms {
            result =
                result.or_else(|_| compare(mirror, &vm.iter().map(page_run).collect::<Vec<_>>(), alike()));
        }
        result
    }))
}

/// A difference that is nowhere in particular.
fn unseen(what: String) -> Difference {
    Difference { at: u64::MAX, what }
}

fn page_run(mapping: &gpuvas::Mapping) -> PageRun {
    let gpuvas::Mapping { va, len, object, offset } = *mapping;
    PageRun { va, len, object, offset, handle: 0, pad: 0 }
}

/// Whether the emulated node shows that this is mapped; it tells handles, but not those that were closed.
fn is_shown(target: &Target<GemHandle>, run: &PageRun) -> bool {
    match target {
        Target::Null => run.object == 0,
        Target::Object { object, .. } => run.object != 0 && (run.handle == 0 || run.handle == object.0),
    }
}

/// Whether what a kernel shows can be this, which tells an object's address and no handle: the same handle has the same address each time,
/// and other handles have others. Null mappings are of one object as well.
fn alike() -> impl FnMut(&Target<GemHandle>, &PageRun) -> bool {
    let (mut addresses, mut handles) = (FxHashMap::default(), FxHashMap::default());
    move |target, run| {
        let handle = match target {
            Target::Null => None,
            Target::Object { object, .. } => Some(object.0),
        };
        *addresses.entry(handle).or_insert(run.object) == run.object
            && *handles.entry(run.object).or_insert(handle) == handle
    }
}

/// Looks for each mapping of the mirror in the page table, which has those of the driver's own beside them.
fn compare(
    mirror: &[Mapping<GemHandle>],
    table: &[PageRun],
    mut same: impl FnMut(&Target<GemHandle>, &PageRun) -> bool,
) -> Result<(), Difference> {
    for mapping in mirror {
        let Mapping { range, target } = mapping;
        let mut at = range.start;
        while at < range.end() {
            let n = table.partition_point(|run| run.va + run.len <= at);
            let differs = || {
                let shown = table.get(n).map(shown);
                Difference {
                    at,
                    what: format!("at {at:#x} the page table has {shown:x?}, the mirror {mapping:x?}"),
                }
            };
            let run = table.get(n).filter(|run| run.va <= at).ok_or_else(differs)?;
            let end = (run.va + run.len).min(range.end());
            let continues = match *target {
                Target::Null => true,
                Target::Object { offset, .. } => run.offset + (at - run.va) == offset + (at - range.start),
            };
            if !continues || !same(target, run) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn bound(page: u64, object: u32, offset: u64) -> Mapping<GemHandle> {
        let target = Target::Object { object: GemHandle(object), offset };
        Mapping { range: VaRange { start: page * PAGE, len: 2 * PAGE }, target }
    }

    fn run(page: u64, object: u64, offset: u64) -> PageRun {
        PageRun { va: page * PAGE, len: PAGE, object, offset, handle: 0, pad: 0 }
    }

    #[test]
    fn a_kernel_that_shows_addresses_is_compared_by_them() {
        let null = Mapping { range: VaRange { start: 16 * PAGE, len: PAGE }, target: Target::Null };
        let mirror = [bound(0, 1, PAGE), bound(4, 2, 0), bound(8, 1, 0), null];
        let mut table =
            [(0, 7, PAGE), (1, 7, 2 * PAGE), (4, 8, 0), (5, 8, PAGE), (8, 7, 0), (9, 7, PAGE), (16, 9, 0)]
                .map(|(page, object, offset)| run(page, object, offset));
        assert_eq!(compare(&mirror, &table, alike()), Ok(()));
        // Another object in one place, one object for two handles, nothing bound, another offset.
        for (n, wrong) in [(5, run(9, 8, PAGE)), (2, run(4, 7, 0)), (6, run(16, 8, 0)), (1, run(1, 7, 0))] {
            let right = std::mem::replace(&mut table[n], wrong);
            assert!(compare(&mirror, &table, alike()).is_err(), "{wrong:x?}");
            table[n] = right;
        }
        assert!(compare(&mirror, &table[..6], alike()).is_err());
    }
}

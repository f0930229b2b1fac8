//! The emulated node under a real driver, as `libtessera_emulator.so` shows it to the process that it is preloaded into.

use crate::sample::Counts;
use anyhow::{Context, Result};
use client::{Counters, Emulator, Mapping};

/// Operations that the kernel's drivers take in one VM_BIND without an allocation that grows with it, which the layer keeps to.
const OPS_PER_IOCTL: u64 = 512;

pub(crate) fn find() -> Result<Emulator> {
    Emulator::find()
        .context("the emulated node is not preloaded into this process: run scripts/bench-drivers")
}

/// The page table of the device's address space: the first one (which msm and panthor number 1) of the file that was opened last.
pub(crate) fn page_table(node: &Emulator) -> Result<Vec<Mapping>> {
    node.mappings(None, 1).context("the node's page table cannot be read")
}

impl Counts {
    /// What calls did that lasted from `before` to `called` and were over by `done`.
    pub(crate) fn between(before: &Counters, called: &Counters, done: &Counters) -> Self {
        Self {
            ioctls: called.ioctls - before.ioctls,
            binds: called.binds - before.binds,
            jobs: called.jobs - before.jobs,
            preallocated_pages: called.preallocated_pages - before.preallocated_pages,
            ops: done.ops - before.ops,
            entries_written: done.entries_written - before.entries_written,
            flushes: done.flushes - before.flushes,
            ..Self::default()
        }
    }

    /// The least that leads from one page table to another, in one call.
    pub(crate) fn fewest(before: &[Mapping], after: &[Mapping]) -> Self {
        let fewest_ops = changed_runs(before, after);
        Self { fewest_ops, fewest_binds: fewest_ops.div_ceil(OPS_PER_IOCTL), ..Self::default() }
    }
}

/// What an address is mapped to: the object, and where in it address 0 would be. Equal for pages that continue each other.
type Place = Option<(u64, u64)>;

/// Runs of addresses that are mapped differently in `after`, each of one continuing content.
fn changed_runs(before: &[Mapping], after: &[Mapping]) -> u64 {
    let mut bounds: Vec<u64> =
        before.iter().chain(after).flat_map(|mapping| [mapping.va, mapping.va + mapping.len]).collect();
    bounds.sort_unstable();
    bounds.dedup();
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    let mut runs = 0;
    // The end of the last piece that changed, and what it is now.
    let mut last: Option<(u64, Place)> = None;
    for piece in bounds.windows(2) {
        let (old, new) = (place(&mut before, piece[0]), place(&mut after, piece[0]));
        if old == new {
            continue;
        }
        runs += u64::from(last != Some((piece[0], new)));
        last = Some((piece[1], new));
    }
    runs
}

/// What `va` is mapped to; `va` may not fall from call to call.
fn place<'a>(mappings: &mut std::iter::Peekable<impl Iterator<Item = &'a Mapping>>, va: u64) -> Place {
    while mappings.next_if(|mapping| mapping.va + mapping.len <= va).is_some() {}
    let mapping = mappings.peek().filter(|mapping| mapping.va <= va)?;
    let origin = if mapping.object == 0 { 0 } else { mapping.offset.wrapping_sub(mapping.va) };
    Some((mapping.object, origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(va: u64, len: u64, object: u64, offset: u64) -> Mapping {
        Mapping { va, len, object, offset, ..Mapping::default() }
    }

    #[test]
    fn runs_are_what_has_to_be_mapped() {
        let empty = [mapping(100, 80, 0, 0)];
        assert_eq!(changed_runs(&empty, &empty), 0);
        // Two halves that continue, though the table had them in two.
        let bound = [mapping(100, 20, 7, 0), mapping(120, 20, 7, 20), mapping(140, 40, 0, 0)];
        assert_eq!(changed_runs(&empty, &bound), 1);
        assert_eq!(changed_runs(&bound, &empty), 1);
        let scattered = [mapping(100, 20, 7, 20), mapping(120, 20, 7, 0), mapping(140, 40, 0, 0)];
        assert_eq!(changed_runs(&bound, &scattered), 2);
        // What is in between stays.
        let ends = [mapping(100, 10, 8, 0), mapping(110, 20, 7, 10), mapping(130, 50, 0, 0)];
        assert_eq!(changed_runs(&bound, &ends), 2);
        assert_eq!(changed_runs(&bound, &[]), 1);
    }

    #[test]
    fn ioctls_hold_a_limited_number() {
        let table: Vec<_> = (0..600).map(|page| mapping(page * 10, 10, page + 1, 0)).collect();
        let counts = Counts::fewest(&[], &table);
        assert_eq!((counts.fewest_ops, counts.fewest_binds), (600, 2));
        assert_eq!(Counts::fewest(&table, &table).fewest_binds, 0);
    }
}

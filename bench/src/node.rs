//! The emulated node under a real driver, as `libtessera_emulator.so` shows it to the process that it is preloaded into.

use crate::sample::Counts;
use anyhow::{Context, Result, ensure};
use std::ffi::{CStr, c_int};

/// Operations that the kernel's drivers take in one VM_BIND without an allocation that grows with it, which the layer keeps to.
const OPS_PER_IOCTL: u64 = 512;

/// `EmulatorCounters` of the library.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Counters {
    ioctls: u64,
    binds: u64,
    ops: u64,
    jobs: u64,
    table_pages: u64,
    preallocated_pages: u64,
    throttled: u64,
    entries_written: u64,
    flushes: u64,
    live_bos: u64,
    submits: u64,
    pub(crate) ioctl_ns: u64,
}

/// `EmulatorMapping` of the library: pages that continue each other.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    va: u64,
    len: u64,
    /// 0 for null mappings.
    object: u64,
    offset: u64,
    handle: u32,
    pad: u32,
}

type CountersFn = unsafe extern "C" fn(*mut Counters, usize) -> c_int;
type MappingsFn = unsafe extern "C" fn(c_int, u32, *mut Mapping, usize) -> isize;

/// The library's functions.
pub(crate) struct Node {
    counters: CountersFn,
    mappings: MappingsFn,
}

fn symbol(name: &CStr) -> Result<*mut libc::c_void> {
    // SAFETY: a look-up by name in what the process has loaded.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    ensure!(
        !found.is_null(),
        "the emulated node is not preloaded into this process: run scripts/bench-drivers"
    );
    Ok(found)
}

impl Node {
    pub(crate) fn find() -> Result<Self> {
        let (counters, mappings) =
            (symbol(c"tessera_emulator_counters")?, symbol(c"tessera_emulator_mappings")?);
        // SAFETY: the library's functions of these names have these signatures.
        unsafe {
            Ok(Self {
                counters: std::mem::transmute::<*mut libc::c_void, CountersFn>(counters),
                mappings: std::mem::transmute::<*mut libc::c_void, MappingsFn>(mappings),
            })
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        let mut counters = Counters::default();
        // SAFETY: as many bytes as are said.
        unsafe { (self.counters)(&mut counters, size_of::<Counters>()) };
        counters
    }

    /// The page table of the device's address space: the first one (which msm and panthor number 1) of the file that was opened last.
    pub(crate) fn page_table(&self) -> Result<Vec<Mapping>> {
        let mut runs = Vec::new();
        loop {
            // SAFETY: room for as many as are said.
            let count = unsafe { (self.mappings)(-1, 1, runs.as_mut_ptr(), runs.len()) };
            let count = usize::try_from(count).context("the node's page table cannot be read")?;
            if count <= runs.len() {
                runs.truncate(count);
                return Ok(runs);
            }
            runs.resize(count, Mapping::default());
        }
    }
}

impl Counters {
    /// What calls did that `called` is from the end of; `self` is from when they were over.
    pub(crate) fn since(&self, before: &Self, called: &Self) -> Counts {
        Counts {
            ioctls: called.ioctls - before.ioctls,
            binds: called.binds - before.binds,
            jobs: called.jobs - before.jobs,
            preallocated_pages: called.preallocated_pages - before.preallocated_pages,
            ops: self.ops - before.ops,
            entries_written: self.entries_written - before.entries_written,
            flushes: self.flushes - before.flushes,
            ..Counts::default()
        }
    }
}

impl Counts {
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

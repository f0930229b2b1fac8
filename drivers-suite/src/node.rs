//! The emulated node under the driver, as `libtessera_emulator.so` shows it.

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::transmute_copy;

/// `EmulatorMapping`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Run {
    va: u64,
    len: u64,
    object: u64,
    offset: u64,
    handle: u32,
    pad: u32,
}

/// `EmulatorCounters`, as far as it is of interest.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Counters {
    ioctls: u64,
    binds: u64,
    ops: u64,
}

/// A part of the page table. Objects are numbered in the order in which they are met, so that two runs can be compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mapping {
    pub va: u64,
    pub len: u64,
    /// Nothing for null mappings.
    pub object: Option<u64>,
    pub offset: u64,
}

/// What VM_BIND was used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Binds {
    pub ioctls: u64,
    pub ops: u64,
}

/// The library's functions.
pub struct Node {
    counters: unsafe extern "C" fn(*mut Counters, usize) -> c_int,
    mappings: unsafe extern "C" fn(c_int, u32, *mut Run, usize) -> isize,
    mark: unsafe extern "C" fn(*const c_char),
    hold: extern "C" fn(c_int) -> c_int,
    single_out: extern "C" fn(u32) -> c_int,
}

fn function<F: Copy>(name: &CStr) -> Result<F> {
    // SAFETY: a look-up by name.
    let found: *mut c_void = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    ensure!(!found.is_null(), "there is no {name:?}: libtessera_emulator.so is not preloaded");
    // SAFETY: callers name the type that the library documents; both are pointers.
    Ok(unsafe { transmute_copy(&found) })
}

impl Node {
    pub fn find() -> Result<Self> {
        Ok(Self {
            counters: function(c"tessera_emulator_counters")?,
            mappings: function(c"tessera_emulator_mappings")?,
            mark: function(c"tessera_emulator_mark")?,
            hold: function(c"tessera_emulator_hold")?,
            single_out: function(c"tessera_emulator_single_out")?,
        })
    }

    pub fn binds(&self) -> Binds {
        let mut counters = Counters::default();
        // SAFETY: as many bytes as are said.
        unsafe { (self.counters)(&mut counters, size_of::<Counters>()) };
        Binds { ioctls: counters.binds, ops: counters.ops }
    }

    /// Writes a line to the node's log.
    pub fn mark(&self, text: &str) {
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: a C string.
        unsafe { (self.mark)(text.as_ptr()) };
    }

    /// Runs `body` while the jobs of one bind queue of the kernel's do not run.
    pub fn without<R>(&self, queue: u32, body: impl FnOnce() -> R) -> R {
        (self.single_out)(queue);
        (self.hold)(1);
        let result = body();
        (self.hold)(0);
        (self.single_out)(0);
        result
    }

    /// The page table of the device's VM: that of the file that was opened last.
    pub fn page_table(&self) -> Result<Vec<Mapping>> {
        let mut runs: Vec<Run> = Vec::new();
        loop {
            // SAFETY: room for as many as are said.
            let count = unsafe { (self.mappings)(-1, 1, runs.as_mut_ptr(), runs.len()) };
            let count = usize::try_from(count).context("the page table cannot be read")?;
            if count <= runs.len() {
                runs.truncate(count);
                break;
            }
            runs.resize(count, Run::default());
        }
        let mut numbers = HashMap::new();
        Ok(runs
            .into_iter()
            .map(|Run { va, len, object, offset, .. }| {
                let next = numbers.len() as u64;
                let object = (object != 0).then(|| *numbers.entry(object).or_insert(next));
                Mapping { va, len, object, offset }
            })
            .collect())
    }
}

//! Counters of a device, for whoever measures (`TESSERA_STATS`).

use crate::address_space::AddressSpace;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// What vkQueueBindSparse did for a device.
pub struct Stats {
    wanted: bool,
    bind_calls: AtomicU64,
    bind_ns: AtomicU64,
}

impl Stats {
    /// Counters that nobody wants cost nothing.
    pub fn new(wanted: bool) -> Self {
        Self { wanted, bind_calls: AtomicU64::new(0), bind_ns: AtomicU64::new(0) }
    }

    /// Makes and sends one plan, and counts it.
    pub fn bind<T>(&self, bind: impl FnOnce() -> T) -> T {
        if !self.wanted {
            return bind();
        }
        let started = Instant::now();
        let result = bind();
        self.bind_calls.fetch_add(1, Relaxed);
        self.bind_ns.fetch_add(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        result
    }

    /// Appends a line of JSON to a file: one object of numbers.
    pub fn append_to(&self, path: &Path, address_space: &AddressSpace, map_calls: u64) {
        let (mappings, mirror_bytes) = address_space.mirror_size();
        let fields = [
            ("binds_asked", address_space.counters.wanted.load(Relaxed)),
            ("ops_sent", address_space.counters.ops.load(Relaxed)),
            ("ioctls", address_space.counters.calls.load(Relaxed)),
            ("bind_calls", self.bind_calls.load(Relaxed)),
            ("bind_ns", self.bind_ns.load(Relaxed)),
            ("mappings", mappings as u64),
            ("mirror_bytes", mirror_bytes as u64),
            ("map_calls", map_calls),
        ];
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let line = format!("{{{}}}\n", fields.join(","));
        let append =
            || std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes());
        if let Err(error) = append() {
            tracing::error!("TESSERA_STATS={}: {error}", path.display());
        }
    }
}

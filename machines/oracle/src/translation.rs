//! What panthor's page tables map, read past the driver: the kernel tells where a VM's table is when it writes to it, and shows
//! the memory that the table is in.

use std::path::Path;
use std::sync::Mutex;
use std::{fs, io};

use mali::page_table::{self, Leaf};
use rustix::thread::gettid;

use crate::kcore::Kcore;

const TRACING: &str = "/sys/kernel/tracing";

/// A probe on the function that writes entries. Its first argument are the operations in `struct arm_lpae_io_pgtable`; behind
/// them are three numbers and the pointer to the root.
const PROBE: &str = "p:tessera/page_table arm_lpae_map_pages va=%x1:x64 root=+56(%x0):x64";

/// The page tables of the running kernel's VMs. It takes root, and a kernel with kprobes.
pub struct PageTables(Kcore);

impl PageTables {
    /// Gets ready to look.
    pub fn open() -> io::Result<Self> {
        Ok(Self(Kcore::open()?))
    }

    /// The memory that the tables are in, and what they map.
    pub fn memory(&self) -> &Kcore {
        &self.0
    }

    /// The root of a VM's table. `map` has to map a page at `va` in that VM, an address that no other VM maps meanwhile.
    pub fn root(&self, va: u64, map: impl FnOnce()) -> io::Result<u64> {
        self.root_where(&format!("va == {va:#x}"), map)
    }

    /// The root of the table that this thread writes to while it runs `map`: that of one VM.
    pub fn root_of_thread(&self, map: impl FnOnce()) -> io::Result<u64> {
        self.root_where(&format!("common_pid == {}", gettid().as_raw_nonzero()), map)
    }

    fn root_where(&self, filter: &str, map: impl FnOnce()) -> io::Result<u64> {
        // There is one probe.
        static PROBING: Mutex<()> = Mutex::new(());
        let _probing = PROBING.lock();
        let event = Path::new(TRACING).join("events/tessera/page_table");
        fs::write(Path::new(TRACING).join("kprobe_events"), PROBE)?;
        fs::write(event.join("filter"), filter)?;
        fs::write(Path::new(TRACING).join("trace"), "")?;
        fs::write(event.join("enable"), "1")?;
        map();
        fs::write(event.join("enable"), "0")?;
        let trace = fs::read_to_string(Path::new(TRACING).join("trace"))?;
        // Opening it for this takes all probes away.
        fs::write(Path::new(TRACING).join("kprobe_events"), "")?;
        let root = root(&trace).ok_or_else(|| io::Error::other(format!("no root in the trace: {trace}")))?;
        self.0.physical(root)
    }

    /// What the table at `root` maps, in order of address.
    pub fn leaves(&self, root: u64) -> io::Result<Vec<Leaf>> {
        page_table::leaves(&mut |address, to: &mut [u8]| self.0.read(address, to), root)
    }
}

fn root(trace: &str) -> Option<u64> {
    let line = trace.lines().find(|line| line.contains("page_table: ("))?;
    let value = line.split_whitespace().find_map(|word| word.strip_prefix("root=0x"))?;
    u64::from_str_radix(value, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_trace() {
        let trace = "# tracer: nop\n#\n   test-92 [000] d..2.  1.50: page_table: (arm_lpae_map_pages+0x0/0x3a8) va=0x7f00 root=0xffff000003c1d000\n";
        assert_eq!(root(trace), Some(0xffff_0000_03c1_d000));
        assert_eq!(root("# tracer: nop\n"), None);
    }
}

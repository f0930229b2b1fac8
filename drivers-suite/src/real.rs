//! A real kernel: the page tables of the device's VM, read past the driver, which takes root. They are held to the kernel's own account of
//! what is mapped, where it gives one, and to the layer's picture.
//!
//! Pages are told by what is in them: memory of the suite's is marked through `vkMapMemory`, so what is compared is what the GPU would find.

mod compare;

use crate::node::{Mapping, join};
use anyhow::{Context as _, Result, ensure};
use compare::Account;
use kmd::{RenderNode, gpuvas};
use oracle::kcore::Kcore;
use oracle::mark::PAGE;
use oracle::smmu::Smmu;
use oracle::translation::PageTables;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// Where the layer shows its mirror at every `vkDeviceWaitIdle`.
const PICTURE: &str = "TESSERA_MIRROR";

/// The object that pages of nobody's have: the driver's own. Their offsets are the first addresses at which they are mapped.
const OWN: u64 = u64::MAX;

/// How long what is queued gets to run before the tables are looked at again.
const SETTLE: Duration = Duration::from_millis(2);

/// A kernel, and the VM of the device once it is known.
pub struct Real {
    /// Descriptors of nodes that were there before the device.
    before: BTreeSet<RawFd>,
    vm: OnceLock<DeviceVm>,
}

struct DeviceVm {
    tables: Tables,
    /// The physical pages that null mappings map.
    null: HashSet<u64>,
}

/// Where the page tables are.
enum Tables {
    Panthor(PageTables, u64),
    Msm(Smmu, u64),
}

/// A page that is mapped, and the physical one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    va: u64,
    physical: u64,
}

/// What is in a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    Null,
    /// Memory of the suite's: its name, and the page's offset in it.
    Memory(u32, u64),
    /// Of nobody's that we know.
    Own,
}

/// A page that is mapped, and what is in it.
#[derive(Clone, Copy, Debug)]
struct Page {
    va: u64,
    physical: u64,
    content: Content,
}

impl Tables {
    /// All pages, in order of address.
    fn entries(&self) -> Result<Vec<Entry>> {
        let leaves: Vec<_> = match self {
            Self::Panthor(tables, root) => {
                tables.leaves(*root)?.into_iter().map(|leaf| (leaf.va, leaf.len, leaf.physical)).collect()
            }
            Self::Msm(smmu, root) => {
                smmu.leaves(*root)?.into_iter().map(|leaf| (leaf.va, leaf.len, leaf.address)).collect()
            }
        };
        let pages = |(va, len, physical)| {
            let entry = move |at| Entry { va: va + at, physical: physical + at };
            (0..len).step_by(PAGE as usize).map(entry)
        };
        Ok(leaves.into_iter().flat_map(pages).collect())
    }

    fn memory(&self) -> &Kcore {
        match self {
            Self::Panthor(tables, _) => tables.memory(),
            Self::Msm(smmu, _) => smmu.memory(),
        }
    }

    /// All pages, when nothing that was queued changes them any more.
    fn settled(&self) -> Result<Vec<Entry>> {
        let mut entries = self.entries()?;
        loop {
            std::thread::sleep(SETTLE);
            let now = self.entries()?;
            if now == entries {
                return Ok(now);
            }
            entries = now;
        }
    }
}

impl Real {
    /// To be called before the device is made.
    pub fn new() -> Self {
        Self { before: drm_descriptors(), vm: OnceLock::new() }
    }

    /// Learns where the page tables of the device's VM are, and what null mappings look like. `make` makes a resource that nobody binds
    /// and which the driver leaves unbound; `destroy` destroys it.
    pub fn learn<R>(&self, make: impl Fn() -> Result<R>, destroy: impl Fn(R)) -> Result<()> {
        let tables = match RenderNode::find(kmd::uapi::panthor::DRIVER_NAME) {
            // The driver binds in the thread that calls it.
            Ok(_) => {
                let tables = PageTables::open()?;
                let mut made = None;
                let root = tables.root_of_thread(|| made = Some(make()))?;
                made.transpose()?.into_iter().for_each(&destroy);
                Tables::Panthor(tables, root)
            }
            Err(_) => {
                let smmu = Smmu::open()?;
                let root = smmu.root(&self.device_file()?)?;
                Tables::Msm(smmu, root)
            }
        };
        let before: HashSet<_> = tables.settled()?.iter().map(|entry| entry.va).collect();
        let made = make()?;
        let after = tables.settled()?;
        destroy(made);
        let new = after.into_iter().filter(|entry| !before.contains(&entry.va));
        let null: HashSet<_> = new.map(|entry| entry.physical).collect();
        ensure!(!null.is_empty(), "the driver maps nothing where a new resource is");
        ensure!(self.vm.set(DeviceVm { tables, null }).is_ok(), "learnt twice");
        Ok(())
    }

    /// The file that the driver has opened for the device: what the layer has of it came later, and is the same.
    fn device_file(&self) -> Result<RenderNode> {
        let fd = drm_descriptors().difference(&self.before).next().copied();
        let fd = fd.context("the driver has opened no file for its device")?;
        // SAFETY: open a moment ago, and the driver's as long as the device is there.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(RenderNode::from_fd(rustix::io::fcntl_dupfd_cloexec(file, 3)?))
    }

    /// The pages of the device's VM.
    fn pages(&self) -> Result<Vec<Page>> {
        let DeviceVm { tables, null } = self.vm.get().context("the device's VM is not known yet")?;
        // Much memory is bound in many places.
        let mut known = HashMap::new();
        let mut page = |Entry { va, physical }| {
            let content = if null.contains(&physical) {
                Content::Null
            } else if let Some(&content) = known.get(&physical) {
                content
            } else {
                let marked = match tables.memory().marked(physical) {
                    // What is no memory of the kernel's is none of ours.
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    marked => marked?,
                };
                let content = marked.map_or(Content::Own, |(name, offset)| Content::Memory(name, offset));
                known.insert(physical, content);
                content
            };
            Ok(Page { va, physical, content })
        };
        tables.settled()?.into_iter().map(&mut page).collect()
    }

    /// What the page tables map, with what continues joined.
    pub fn page_table(&self) -> Result<Vec<Mapping>> {
        Ok(joined(&self.pages()?))
    }

    /// The same, held to the kernel's own account, where it gives one, and with the layer to its mirror.
    pub fn checked_page_table(&self, layered: bool) -> Result<Vec<Mapping>> {
        let pages = self.pages()?;
        match gpuvas::read() {
            Ok(vms) => {
                // The driver makes one for each device, this one last.
                let account = vms.last().context("the kernel has no VM")?;
                compare::with_account(&pages, account).context("the kernel's own account")?;
            }
            // msm gives none.
            Err(gpuvas::Error::Missing) => {}
            Err(error) => return Err(error.into()),
        }
        if layered {
            let path = picture().with_context(|| format!("{PICTURE} is to name a file"))?;
            let shown = std::fs::read_to_string(&path).context("the layer does not show its mirror")?;
            compare::with_mirror(&pages, &Account::parse(&shown)?).context("the mirror")?;
        }
        Ok(joined(&pages))
    }
}

/// Where the layer's mirror is to be found.
pub fn picture() -> Option<PathBuf> {
    std::env::var_os(PICTURE).map(PathBuf::from)
}

fn joined(pages: &[Page]) -> Vec<Mapping> {
    let (mut table, mut first) = (Vec::new(), HashMap::new());
    for &Page { va, physical, content } in pages {
        let (object, offset) = match content {
            Content::Null => (None, 0),
            Content::Memory(name, offset) => (Some(name.into()), offset),
            Content::Own => (Some(OWN), *first.entry(physical).or_insert(va)),
        };
        join(&mut table, Mapping { va, len: PAGE, object, offset });
    }
    table
}

/// Descriptors of the process that are DRM nodes.
fn drm_descriptors() -> BTreeSet<RawFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return BTreeSet::new() };
    let drm = entries
        .flatten()
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| target.starts_with("/dev/dri")));
    drm.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_the_same_wherever_memory_is() {
        let page = |va, physical, content| Page { va: va * PAGE, physical: physical * PAGE, content };
        let table = |[a, b, c]: [u64; 3]| {
            joined(&[
                page(1, a, Content::Own),
                page(2, b, Content::Own),
                page(3, a, Content::Own),
                page(4, c, Content::Memory(7, 0)),
                page(5, b, Content::Memory(7, PAGE)),
                page(6, 9, Content::Null),
                page(7, 9, Content::Null),
            ])
        };
        let mapping = |va, len, object, offset| Mapping {
            va: va * PAGE,
            len: len * PAGE,
            object,
            offset: offset * PAGE,
        };
        let expected = [
            mapping(1, 2, Some(OWN), 1),
            mapping(3, 1, Some(OWN), 1),
            mapping(4, 2, Some(7), 0),
            mapping(6, 2, None, 0),
        ];
        assert_eq!(table([1, 2, 3]), expected);
        assert_eq!(table([50, 7, 12]), expected);
    }
}

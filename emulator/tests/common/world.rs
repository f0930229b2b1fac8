//! Random operations against a model that is an array of pages: what the page table says, and what a CPU reads. The driver is that of
//! the test's own `rig`.

use kmd::{BindOp, BindTarget, BufferObject, SyncPoint, Syncobj, Vm};
use proptest::prelude::*;

use crate::rig::*;

pub(crate) const PAGES: u64 = 3 * 512;
const TAG: u64 = 1 << 32;

/// What a page shows: an object's page, or nothing real.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Object { bo: usize, page: u64 },
    Null,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    start: u64,
    count: u64,
    kind: u8,
    bo: usize,
    page: u64,
    queued: bool,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let start = prop_oneof![0..PAGES, Just(0), Just(512), Just(1024)];
    let count = prop_oneof![1u64..40, 1u64..PAGES, Just(512u64)];
    let page = prop_oneof![0u64..1024, Just(0), Just(512)];
    (start, count, 0u8..6, 0usize..3, page, any::<bool>()).prop_map(
        |(start, count, kind, bo, page, queued)| {
            let count = count.min(PAGES - start);
            Step { start, count, kind, bo, page: page.min(1024 + PAGES - count), queued }
        },
    )
}

pub(crate) struct World {
    pub(crate) rig: Rig,
    bos: Vec<BufferObject>,
    model: Vec<Option<Page>>,
    done: Syncobj,
    point: u64,
}

impl World {
    pub(crate) fn new(rig: Rig) -> Self {
        let size = (1024 + PAGES) * PAGE;
        let (fd, at) = shared_memory(size);
        // SAFETY: the test's own memory, which stays mapped.
        let handle = unsafe { rig.node.import_host(at as *mut u8, size).unwrap() };
        drop(fd);
        let host = BufferObject::from_handle(rig.dyn_node(), handle, size, rig.node.mmap_offset());
        fill(&host, 3 * TAG);
        // SAFETY: the test's own memory; the object keeps it alive.
        unsafe { rustix::mm::munmap(at as *mut core::ffi::c_void, size as usize).unwrap() };
        let bos = vec![rig.bo(size, TAG), rig.shared_bo(size, 2 * TAG), host];
        let done = Syncobj::create(rig.dyn_node(), false).unwrap();
        Self { rig, bos, model: vec![None; PAGES as usize], done, point: 0 }
    }

    /// The operation of a step, which the model has taken.
    pub(crate) fn op(&mut self, step: &Step) -> BindOp {
        let (target, page) = match step.kind {
            0 => (BindTarget::Unmap, None),
            1 => (BindTarget::Null, Some(Page::Null)),
            _ => (
                BindTarget::Map { bo: self.bos[step.bo].handle(), offset: step.page * PAGE },
                Some(Page::Object { bo: step.bo, page: step.page }),
            ),
        };
        for i in 0..step.count {
            self.model[(step.start + i) as usize] = page.map(|page| match page {
                Page::Object { bo, page } => Page::Object { bo, page: page + i },
                Page::Null => Page::Null,
            });
        }
        BindOp { va: self.rig.base + step.start * PAGE, len: step.count * PAGE, target }
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        let op = self.op(step);
        if step.queued {
            self.queue(&[op], &[]);
            self.wait();
        } else {
            self.rig.vm.bind(&[op]).unwrap();
        }
    }

    pub(crate) fn queue(&mut self, ops: &[BindOp], waits: &[SyncPoint]) {
        self.point += 1;
        self.rig.vm.bind_async(ops, waits, &[self.done.point(self.point)]).unwrap();
    }

    pub(crate) fn wait(&self) {
        self.done.wait(Some(self.point), kmd::syncobj::Wait::ALL).unwrap();
    }

    /// The model's runs, joined as the dump joins them.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (i, page) in (0..).zip(&self.model) {
            let Some(page) = page else { continue };
            let bo = match page {
                Page::Object { bo, page } => Some((self.bos[*bo].handle().0, page * PAGE)),
                Page::Null => None,
            };
            match runs.last_mut() {
                Some((va, len, first))
                    if *va + *len == i * PAGE && first.map(|(h, offset)| (h, offset + *len)) == bo =>
                {
                    *len += PAGE;
                }
                _ => runs.push((i * PAGE, PAGE, bo)),
            }
        }
        runs
    }

    pub(crate) fn check_memory(&self, trap: bool, pages: impl Iterator<Item = u64>) {
        for i in pages.filter(|i| *i < PAGES) {
            let seen = peek(self.rig.base + i * PAGE);
            match self.model[i as usize] {
                None => assert_eq!(seen, None, "page {i}"),
                Some(Page::Null) => assert_eq!(seen.is_none(), trap, "page {i}"),
                Some(Page::Object { bo, page }) => {
                    assert_eq!(seen, Some((bo as u64 + 1) * TAG + page), "page {i}");
                }
            }
        }
    }
}

/// Does the steps one after another, and looks after each.
pub(crate) fn follow(rig: Rig, steps: &[Step], trap: bool) -> Result<(), TestCaseError> {
    let mut world = World::new(rig);
    for step in steps {
        world.apply(step);
        prop_assert_eq!(world.rig.dump(), world.runs());
        // The edges, where splits happen.
        let edges =
            [step.start.wrapping_sub(1), step.start, step.start + step.count - 1, step.start + step.count];
        world.check_memory(trap, edges.into_iter());
    }
    world.check_memory(trap, 0..PAGES);
    // Everything goes with its last mapping.
    let World { rig, bos, .. } = world;
    drop(bos);
    rig.unmap(rig.base, PAGES * PAGE).unwrap();
    prop_assert_eq!((rig.node.counters().live_bos, rig.node.counters().table_pages), (0, 1));
    Ok(())
}

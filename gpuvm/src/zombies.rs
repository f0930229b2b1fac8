//! What has died where it could not be freed.

use crate::sync::{AtomicU32, Ordering};

/// The end of a chain; no slot has this index.
const END: u32 = u32::MAX;

/// A list of dead slots that wait for their clean-up: any thread adds, one takes all. Neither waits nor allocates,
/// which makes [`Zombies::push`] fit for the fence-signalling critical path.
///
/// It is the job of the kernel's `llist` in `drm_gpuvm::bo_defer`: `llist_add()` in
/// `drm_gpuvm_bo_defer_zombie_cleanup()`, `llist_del_all()` in `drm_gpuvm_bo_deferred_cleanup()`. As there the list
/// is intrusive, each slot brings its [`ZombieLink`]; as the list names slots by index and not by address, nothing
/// is unsafe about it. Single elements are never taken off, so there is no ABA problem.
///
/// ```
/// use gpuvm::{ZombieLink, Zombies};
///
/// let slab = [ZombieLink::new(), ZombieLink::new(), ZombieLink::new()];
/// let zombies = Zombies::new();
/// assert!(zombies.push(2, &slab[2]), "the first one: somebody has to be told");
/// assert!(!zombies.push(0, &slab[0]));
/// let mut taken = zombies.take();
/// let mut freed = Vec::new();
/// while let Some(index) = taken.next(|index| &slab[index as usize]) {
///     freed.push(index);
/// }
/// assert_eq!(freed, [0, 2], "the last dead comes first");
/// ```
#[derive(Debug)]
pub struct Zombies {
    head: AtomicU32,
}

/// A slot's place in [`Zombies`], part of the slot: what `list.entry.bo_defer` is in `drm_gpuvm_bo`.
#[derive(Debug)]
pub struct ZombieLink {
    next: AtomicU32,
}

/// What [`Zombies::take`] took, newest first. What is left in it when it is dropped is lost to the list.
#[must_use = "nobody else will free these"]
#[derive(Debug)]
pub struct TakenZombies {
    next: u32,
}

impl Default for ZombieLink {
    fn default() -> Self {
        Self::new()
    }
}

impl ZombieLink {
    /// The link of a slot that is in no list.
    pub fn new() -> Self {
        Self { next: AtomicU32::new(END) }
    }
}

impl Default for Zombies {
    fn default() -> Self {
        Self::new()
    }
}

impl Zombies {
    /// An empty list.
    pub fn new() -> Self {
        Self { head: AtomicU32::new(END) }
    }

    /// Adds the slot `index`, whose link `link` is, and says whether the list was empty before, in which case the
    /// clean-up has to be scheduled. All that was written to the slot before is seen by who takes it.
    ///
    /// A slot is in the list once until it was taken out again: its last put pushes it, and there is one last put.
    ///
    /// # Panics
    /// For the index `u32::MAX`.
    pub fn push(&self, index: u32, link: &ZombieLink) -> bool {
        assert!(index != END, "no slot has the index {END}");
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.next.store(head, Ordering::Relaxed);
            // Release publishes the link and the slot. The chain behind it was published by its own pushes, which
            // this exchange continues (release sequence).
            match self.head.compare_exchange_weak(head, index, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return head == END,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all that are in the list now.
    pub fn take(&self) -> TakenZombies {
        // Acquire: see `push`.
        TakenZombies { next: self.head.swap(END, Ordering::Acquire) }
    }

    /// Whether nothing waits for its clean-up at this moment.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == END
    }
}

impl TakenZombies {
    /// The next slot; `link` gives the link of the slot with an index. The slot is free for a new use, and for a new
    /// push, as soon as this returns.
    pub fn next<'slab>(&mut self, link: impl FnOnce(u32) -> &'slab ZombieLink) -> Option<u32> {
        let index = self.next;
        if index == END {
            return None;
        }
        self.next = link(index).next.load(Ordering::Relaxed);
        Some(index)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn drain(taken: &mut TakenZombies, slab: &[ZombieLink]) -> Vec<u32> {
        std::iter::from_fn(|| taken.next(|index| &slab[index as usize])).collect()
    }

    #[test]
    fn takes_all_newest_first_and_leaves_none() {
        let slab: Vec<_> = (0..4).map(|_| ZombieLink::new()).collect();
        let zombies = Zombies::new();
        assert!(zombies.is_empty());
        assert_eq!(drain(&mut zombies.take(), &slab), []);
        for (index, first) in [(3, true), (1, false), (0, false)] {
            assert_eq!(zombies.push(index, &slab[index as usize]), first);
        }
        assert!(!zombies.is_empty());
        assert_eq!(drain(&mut zombies.take(), &slab), [0, 1, 3]);
        assert!(zombies.is_empty());
    }

    /// A slot may be pushed again while the rest of what was taken with it is still being walked.
    #[test]
    fn a_taken_slot_can_die_again_at_once() {
        let slab: Vec<_> = (0..3).map(|_| ZombieLink::new()).collect();
        let zombies = Zombies::new();
        for index in 0..3 {
            zombies.push(index, &slab[index as usize]);
        }
        let mut taken = zombies.take();
        assert_eq!(taken.next(|index| &slab[index as usize]), Some(2));
        assert!(zombies.push(2, &slab[2]));
        assert_eq!(drain(&mut taken, &slab), [1, 0]);
        assert_eq!(drain(&mut zombies.take(), &slab), [2]);
    }

    #[test]
    #[should_panic(expected = "no slot has the index")]
    fn the_end_is_no_slot() {
        Zombies::new().push(END, &ZombieLink::new());
    }
}

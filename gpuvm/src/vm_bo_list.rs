//! The list of an object's mappings, and what a mapping has beside its place in the tree.

use core::hash::Hash;
use core::mem::size_of;

use crate::vm_bo::{Bos, NONE};

/// Links below which no memory is saved.
const LEAST: usize = 1024;

/// A mapping's place in the list of its object: `gem.entry` of the kernel's `drm_gpuva`. The tree moves its entries
/// about, links stay where they are.
#[derive(Debug)]
struct Link<V> {
    /// Start address of the mapping, under which the tree has it.
    start: u64,
    prev: u32,
    next: u32,
    /// The driver's data of the mapping.
    data: V,
}

/// The links of all mappings.
#[derive(Debug)]
pub(crate) struct Links<V> {
    links: Vec<Link<V>>,
    free: u32,
    /// Mappings that have gone, while their data and their reference to the object stay until the clean-up; in
    /// `start` the object.
    gone: u32,
}

impl<V: Default> Links<V> {
    pub(crate) const fn new() -> Self {
        Self { links: Vec::new(), free: NONE, gone: NONE }
    }

    fn at(&mut self, link: u32) -> &mut Link<V> {
        &mut self.links[link as usize]
    }

    pub(crate) fn start(&self, link: u32) -> u64 {
        self.links[link as usize].start
    }

    /// The link behind `link` in the same list.
    pub(crate) fn next(&self, link: u32) -> u32 {
        self.links[link as usize].next
    }

    pub(crate) fn data(&self, link: u32) -> &V {
        &self.links[link as usize].data
    }

    pub(crate) fn data_mut(&mut self, link: u32) -> &mut V {
        &mut self.links[link as usize].data
    }

    /// Sees to it that `count` more mappings need no allocation.
    pub(crate) fn reserve(&mut self, count: usize) {
        // By an eighth at least: job after job, the list must not be copied each time.
        if self.links.capacity() - self.links.len() < count {
            self.links.reserve_exact(count.max(self.links.len() / 8));
        }
    }

    /// Bytes on the heap.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.links.capacity() * size_of::<Link<V>>()
    }

    /// A new mapping at `start` of the object `bo`, if it is one: `drm_gpuva_link()`.
    #[inline]
    pub(crate) fn link<O: Copy + Eq, B>(&mut self, start: u64, bo: u32, data: V, bos: &mut Bos<O, B>) -> u32 {
        let mut new = Link { start, prev: NONE, next: NONE, data };
        let index = if self.free == NONE { self.links.len() as u32 } else { self.free };
        if bo != NONE {
            let slot = bos.slot_mut(bo);
            slot.mappings += 1;
            new.next = core::mem::replace(&mut slot.first, index);
            if new.next != NONE {
                self.at(new.next).prev = index;
            }
        }
        if self.free == NONE {
            if self.links.len() == self.links.capacity() {
                self.grow();
            }
            self.links.push(new);
        } else {
            self.free = self.next(index);
            *self.at(index) = new;
        }
        index
    }

    /// The mapping at a link comes to show another object: [`Links::link`] and then [`Links::unlink`] without a link
    /// more. Its data is new.
    #[inline]
    pub(crate) fn relink<O, B>(&mut self, link: u32, from: u32, to: u32, bos: &mut Bos<O, B>)
    where
        O: Copy + Eq + Hash,
        B: Default,
    {
        self.at(link).data = V::default();
        if from == to {
            return;
        }
        self.take_out(link, from, bos);
        let mut next = NONE;
        if to != NONE {
            let slot = bos.slot_mut(to);
            slot.mappings += 1;
            next = core::mem::replace(&mut slot.first, link);
            if next != NONE {
                self.at(next).prev = link;
            }
        }
        let link = self.at(link);
        (link.prev, link.next) = (NONE, next);
        if from != NONE {
            bos.put(from);
        }
    }

    /// A mapping comes to start elsewhere, with other data.
    #[inline]
    pub(crate) fn move_to(&mut self, link: u32, start: u64, data: V) {
        let link = self.at(link);
        (link.start, link.data) = (start, data);
    }

    /// Takes a link out of the list of `bo`.
    #[inline]
    fn take_out<O: Copy + Eq, B>(&mut self, link: u32, bo: u32, bos: &mut Bos<O, B>) {
        let Link { prev, next, .. } = self.links[link as usize];
        if bo != NONE {
            if next != NONE {
                self.at(next).prev = prev;
            }
            if prev == NONE {
                bos.slot_mut(bo).first = next;
            } else {
                self.at(prev).next = next;
            }
        }
    }

    /// By an eighth, where `Vec` would go on doubling: there is one link a mapping, and the allocator moves pages, not
    /// bytes.
    #[cold]
    fn grow(&mut self) {
        let len = self.links.len();
        self.links.reserve_exact((len / 8).max(len.clamp(16, LEAST)));
    }

    /// A mapping of `bo` goes, and with it its reference to the object: `drm_gpuva_unlink_defer()`. Where `defer` is
    /// set the reference and the driver's data stay until [`Links::clean_up`].
    #[inline]
    pub(crate) fn unlink<O, B>(&mut self, link: u32, bo: u32, defer: bool, bos: &mut Bos<O, B>)
    where
        O: Copy + Eq + Hash,
        B: Default,
    {
        self.take_out(link, bo, bos);
        if defer {
            let next = core::mem::replace(&mut self.gone, link);
            let gone = self.at(link);
            (gone.start, gone.next) = (u64::from(bo), next);
        } else {
            self.release(link, bo, bos);
        }
    }

    fn release<O: Copy + Eq + Hash, B: Default>(&mut self, link: u32, bo: u32, bos: &mut Bos<O, B>) {
        let next = core::mem::replace(&mut self.free, link);
        let free = self.at(link);
        (free.next, free.data) = (next, V::default());
        if bo != NONE {
            bos.put(bo);
        }
    }

    /// Whether a quarter of the memory is for links that are no more; `len` is the number of those that are.
    #[inline]
    pub(crate) fn is_sparse(&self, len: usize) -> bool {
        self.links.len() > LEAST && self.links.len() / 4 * 3 > len && self.gone == NONE
    }

    /// Makes room for `count` links, all of them to be made anew; gives back those there were.
    pub(crate) fn renew(&mut self, count: usize) -> Self {
        core::mem::replace(self, Self { links: Vec::with_capacity(count), ..Self::new() })
    }

    /// Drops what the mappings that have gone have left behind.
    pub(crate) fn clean_up<O: Copy + Eq + Hash, B: Default>(&mut self, bos: &mut Bos<O, B>) {
        let mut link = core::mem::replace(&mut self.gone, NONE);
        while link != NONE {
            let Link { start, next, .. } = self.links[link as usize];
            self.release(link, start as u32, bos);
            link = next;
        }
    }
}

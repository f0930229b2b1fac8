//! Addresses of the layer's own for resources whose real ones the driver keeps to itself: the mirror needs some, and any will do.
//!
//! A resource has a place, and in it an area for each way in which Vulkan names what is bound: a range of bytes, or blocks of an
//! aspect. Between areas are holes, so that nothing is ever joined across them.

use crate::address_space::Want;
use crate::layout::PlaneLayout;
use ash::vk;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use gpuvm::VaRange;
use parking_lot::{RwLock, RwLockReadGuard};
use std::collections::BTreeMap;

/// Where addresses begin: that 0 is none keeps mistakes visible.
const BASE: u64 = 1 << 20;
/// Where they end. More than any GPU has, so that the address space of the driver's device is used up first.
pub const END: u64 = 1 << 62;
/// Bytes between areas.
const HOLE: u64 = 1 << 16;

/// What an area's addresses stand for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// Bytes of a buffer, or opaque bytes of an image.
    Bytes {
        /// The `resourceOffset` of the first.
        offset: u64,
        flags: vk::SparseMemoryBindFlags,
        /// Bytes that one bind must not exceed, from a multiple to the next.
        step: Option<u64>,
    },
    /// Blocks of an image, in the order of the layout.
    Blocks { aspects: vk::ImageAspectFlags, layout: PlaneLayout },
}

/// A driver's resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    Buffer(vk::Buffer),
    Image(vk::Image),
}

/// A part of a resource, and the addresses that it has.
#[derive(Debug)]
pub struct Area {
    pub range: VaRange,
    pub part: Part,
    /// Of which sight of an image this is a piece.
    sight: Sight,
}

/// An image with residency can be bound in two ways that reach the same bytes, in an order that nobody knows: all of it as opaque
/// bytes, or as blocks, mip tail and metadata.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Sight {
    /// The same bytes by either.
    Both,
    Whole,
    Parts,
}

impl Sight {
    fn other(self) -> Self {
        match self {
            Self::Both => Self::Both,
            Self::Whole => Self::Parts,
            Self::Parts => Self::Whole,
        }
    }
}

/// A piece of the opaque range that is a mip tail: the same bytes in either sight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tail {
    pub offset: u64,
    pub size: u64,
    /// Bytes from a layer's tail to the next one's.
    pub stride: u64,
    pub layers: u32,
}

impl Tail {
    /// Bytes from the first layer's tail to the end of the last one's.
    pub fn span(&self) -> u64 {
        self.stride.saturating_mul(u64::from(self.layers) - 1).saturating_add(self.size)
    }

    /// The layers' tails: first byte and end.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let Self { offset, size, stride, layers } = *self;
        (0..u64::from(layers)).map(move |layer| (offset + layer * stride, offset + layer * stride + size))
    }

    /// Whether the range lies in one layer's tail.
    fn holds(&self, offset: u64, len: u64) -> bool {
        let Some(at) = offset.checked_sub(self.offset).filter(|at| *at < self.span()) else { return false };
        let in_layer = if self.layers > 1 { at % self.stride } else { at };
        in_layer + len <= self.size
    }
}

/// The addresses of a resource.
#[derive(Debug)]
pub struct Place {
    pub resource: Resource,
    pub areas: Vec<Area>,
    tails: Vec<Tail>,
    /// The one queue that has bound here, by its number; 0 before the first, [`MANY`] with the second.
    queue: AtomicU32,
    /// The [`Sight`] of which the mirror knows what is bound, as a number.
    sight: AtomicU8,
}

/// More than one queue.
const MANY: u32 = u32::MAX;

impl Place {
    fn end(&self) -> u64 {
        self.areas.last().map_or(0, |area| area.range.end() + HOLE)
    }

    /// Notes that a queue binds here; whether another one did before.
    fn is_shared_by(&self, queue: u32) -> bool {
        let first = self.queue.compare_exchange(0, queue, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_ok() || first == Err(queue) {
            return false;
        }
        self.queue.store(MANY, Ordering::Relaxed);
        true
    }

    /// The sight of which a bind in an area is.
    fn sight_of(&self, area: &Area, range: VaRange) -> Sight {
        let Part::Bytes { offset, .. } = area.part else { return area.sight };
        let offset = offset + (range.start - area.range.start);
        let in_tail =
            area.sight == Sight::Whole && self.tails.iter().any(|tail| tail.holds(offset, range.len));
        if in_tail { Sight::Both } else { area.sight }
    }

    /// Notes a bind in one sight; the one that was in use before, if that is another.
    fn turn_to(&self, sight: Sight) -> Option<Sight> {
        if sight == Sight::Both {
            return None;
        }
        let before = self.sight.swap(sight as u8, Ordering::Relaxed);
        [Sight::Both, Sight::Whole, Sight::Parts]
            .into_iter()
            .find(|&known| known as u8 == before && known != sight)
    }

    /// What is in one sight and not in both.
    fn ranges_of(&self, sight: Sight) -> Vec<VaRange> {
        let areas = self.areas.iter().filter(|area| area.sight == sight);
        if sight != Sight::Whole {
            return areas.map(|area| area.range).collect();
        }
        let mut tails: Vec<_> = self.tails.iter().flat_map(Tail::pieces).collect();
        tails.sort_unstable();
        let mut ranges = Vec::new();
        for area in areas {
            let mut at = 0;
            for (start, end) in tails.iter().copied().chain([(area.range.len, area.range.len)]) {
                if at < start {
                    ranges.push(VaRange { start: area.range.start + at, len: start - at });
                }
                at = at.max(end);
            }
        }
        ranges
    }
}

/// The places of a device's resources, by address.
pub struct Places {
    map: RwLock<Map>,
}

pub struct Map {
    places: BTreeMap<u64, Place>,
    /// Where the search for room begins: addresses come again as late as possible.
    next: u64,
    end: u64,
}

/// The first wants of a list, up to the next segment, and what the mirror has to forget before it plans them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Number of wants up to its end, from the list's start.
    pub end: usize,
    pub forget: Vec<VaRange>,
}

impl Places {
    pub fn new(end: u64) -> Self {
        Self { map: RwLock::new(Map { places: BTreeMap::new(), next: BASE, end }) }
    }

    /// Gives each part of a resource its addresses, for so many bytes (not 0); `None` where there is no room. Where parts reach the
    /// same bytes, the first one is that of all bytes, of which `tails` are mip tails.
    pub fn add(&self, resource: Resource, parts: Vec<(u64, Part)>, tails: Vec<Tail>) -> Option<Vec<VaRange>> {
        let total = parts.iter().try_fold(0u64, |sum, (len, _)| sum.checked_add(*len)?.checked_add(HOLE))?;
        let mut map = self.map.write();
        let start = map.room(total)?;
        let has_sights = parts.len() > 1;
        let mut at = start;
        let areas: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(number, (len, part))| {
                let range = VaRange { start: at, len };
                at += len + HOLE;
                let sight = match (has_sights, number) {
                    (false, _) => Sight::Both,
                    (true, 0) => Sight::Whole,
                    (true, _) => Sight::Parts,
                };
                Area { range, part, sight }
            })
            .collect();
        map.next = at;
        let ranges = areas.iter().map(|area| area.range).collect();
        let (queue, sight) = (AtomicU32::new(0), AtomicU8::new(Sight::Both as u8));
        map.places.insert(start, Place { resource, areas, tails, queue, sight });
        Some(ranges)
    }

    /// Takes back the addresses of the resource whose first area begins there.
    pub fn remove(&self, start: u64) {
        self.map.write().places.remove(&start);
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.map.read()
    }

    /// Cuts what a queue wants where it turns from one sight of an image to the other, which the driver has to hear of in that order;
    /// and finds what the mirror must not be believed about: all of it unless the queue `is_prompt`, and what another queue binds too.
    pub fn segments(&self, queue: u32, is_prompt: bool, wants: &[Want]) -> Vec<Segment> {
        let map = self.map.read();
        let mut segments = Vec::with_capacity(1);
        let mut forget = Vec::new();
        let mut first = 0;
        // With each area: whether the mirror is no help there.
        let mut last: Option<(&Place, &Area, bool)> = None;
        for (number, want) in wants.iter().enumerate() {
            let found = last.filter(|(_, area, _)| area.range.contains(want.range.start)).or_else(|| {
                let (place, area) = map.find(want.range.start)?;
                Some((place, area, place.is_shared_by(queue) || !is_prompt))
            });
            let Some((place, area, is_unknown)) = found else { continue };
            last = found;
            let sight = place.sight_of(area, want.range);
            if let Some(before) = place.turn_to(sight) {
                if before != Sight::Both && number > first {
                    segments.push(Segment { end: number, forget: core::mem::take(&mut forget) });
                    first = number;
                }
                forget.extend(place.ranges_of(sight.other()));
            }
            if is_unknown {
                forget.push(want.range);
            }
        }
        segments.push(Segment { end: wants.len(), forget });
        segments
    }

    /// Notes that a queue binds in a resource in a way that nobody follows; all of its ranges.
    pub fn give_up(&self, queue: u32, address: u64) -> Vec<VaRange> {
        let map = self.map.read();
        let Some((place, _)) = map.find(address) else { return Vec::new() };
        place.is_shared_by(queue);
        place.sight.store(Sight::Both as u8, Ordering::Relaxed);
        place.areas.iter().map(|area| area.range).collect()
    }
}

impl Map {
    /// The area that an address lies in.
    pub fn find(&self, address: u64) -> Option<(&Place, &Area)> {
        let (_, place) = self.places.range(..=address).next_back()?;
        let before = place.areas.partition_point(|area| area.range.start <= address);
        let area = place.areas[..before].last().filter(|area| area.range.contains(address))?;
        Some((place, area))
    }

    fn room(&self, len: u64) -> Option<u64> {
        self.room_from(self.next, len).or_else(|| self.room_from(BASE, len))
    }

    fn room_from(&self, from: u64, len: u64) -> Option<u64> {
        let mut at = self.places.range(..from).next_back().map_or(from, |(_, place)| place.end().max(from));
        for (&start, place) in self.places.range(from..) {
            if start.checked_sub(at).is_some_and(|room| room >= len) {
                return Some(at);
            }
            at = place.end();
        }
        self.end.checked_sub(at).is_some_and(|room| room >= len).then_some(at)
    }
}

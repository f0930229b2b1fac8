//! Which tiles are resident: the texture's tiles, their order, and the pool of memory that they share.
//!
//! Nothing here knows Vulkan; the same frames always lead to the same decisions.

/// Texels a side of the standard sparse block of a 2D RGBA8 image.
pub(crate) const TILE: u32 = 128;
/// Bytes of that block.
pub(crate) const TILE_BYTES: u64 = 65536;
/// Steps a level in the residency map: room for fading a new level in.
pub(crate) const RESIDENCY_UNIT: u8 = 16;
/// How far the residency map moves towards a finer level in a frame: a new tile fades in over three frames.
const FADE: u8 = 6;

/// One tile of one mip level; `x` and `y` in tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tile {
    pub(crate) level: u32,
    pub(crate) x: u32,
    pub(crate) y: u32,
}

/// The texture: a square of `size` texels with all its levels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Texels of level 0 a side; a power of two, at least a tile.
    pub(crate) size: u32,
}

impl Layout {
    pub(crate) fn levels(self) -> u32 {
        self.size.ilog2() + 1
    }

    /// Texels of a level a side.
    pub(crate) fn texels(self, level: u32) -> u32 {
        (self.size >> level).max(1)
    }

    /// Tiles of a level a side.
    pub(crate) fn tiles(self, level: u32) -> u32 {
        self.texels(level).div_ceil(TILE)
    }

    /// Tiles of all levels before this one.
    pub(crate) fn first_index(self, level: u32) -> u32 {
        (0..level).map(|level| self.tiles(level).pow(2)).sum()
    }

    /// Tiles of all levels.
    pub(crate) fn tile_count(self) -> u32 {
        self.first_index(self.levels())
    }

    /// A tile's place in the order level by level, row by row.
    pub(crate) fn index(self, tile: Tile) -> u32 {
        self.first_index(tile.level) + tile.y * self.tiles(tile.level) + tile.x
    }

    /// The tile at a place of that order.
    pub(crate) fn tile(self, mut index: u32) -> Tile {
        let mut level = 0;
        while index >= self.tiles(level).pow(2) {
            index -= self.tiles(level).pow(2);
            level += 1;
        }
        Tile { level, x: index % self.tiles(level), y: index / self.tiles(level) }
    }

    /// The tile of the next coarser level over this one.
    pub(crate) fn parent(self, tile: Tile) -> Option<Tile> {
        let level = tile.level + 1;
        let last = self.tiles(level).checked_sub(1)?;
        (level < self.levels()).then(|| Tile { level, x: (tile.x / 2).min(last), y: (tile.y / 2).min(last) })
    }
}

/// A tile that gets memory, and whose memory it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) tile: Tile,
    /// Tiles of memory from the start of the pool.
    pub(crate) slot: u32,
    pub(crate) evicted: Option<Tile>,
}

/// The pool, least recently used tile first out.
pub(crate) struct Pool {
    layout: Layout,
    /// This level and all coarser ones stay.
    pinned: u32,
    /// By tile index.
    slots: Vec<Option<u32>>,
    /// By tile index: one more than the frame that wanted it last, 0 for never.
    used: Vec<u32>,
    /// By slot.
    holders: Vec<Option<Tile>>,
    free: Vec<u32>,
    /// The finest level that shaders may sample, in sixteenths, by cell of the size of a level 0 tile.
    residency: Vec<u8>,
}

impl Pool {
    /// A pool of `capacity` tiles; the level `pinned` and all coarser ones stay once they are loaded.
    pub(crate) fn new(layout: Layout, capacity: u32, pinned: u32) -> Self {
        let cells = layout.tiles(0) as usize;
        Self {
            layout,
            pinned,
            slots: vec![None; layout.tile_count() as usize],
            used: vec![0; layout.tile_count() as usize],
            holders: vec![None; capacity as usize],
            free: (0..capacity).rev().collect(),
            residency: vec![(pinned as u8) * RESIDENCY_UNIT; cells * cells],
        }
    }

    /// The finest level all of which stays resident.
    pub(crate) fn pinned(&self) -> u32 {
        self.pinned
    }

    /// Loads the levels that stay, up to the mip tail's first level.
    ///
    /// Precondition: the pool is new and larger than they are.
    pub(crate) fn load_pinned(&mut self, tail: u32) -> Vec<Load> {
        let tiles = self.layout.first_index(self.pinned)..self.layout.first_index(tail.max(self.pinned));
        tiles
            .filter_map(|index| {
                let (tile, slot) = (self.layout.tile(index), self.free.pop()?);
                self.take(tile, slot);
                Some(Load { tile, slot, evicted: None })
            })
            .collect()
    }

    /// Makes what a frame wants resident, at most `budget` tiles of it. `wanted` is every tile that the frame would sample,
    /// as often as it would; coarser ones come first, then those wanted most.
    pub(crate) fn step(&mut self, frame: u32, wanted: &[Tile], budget: usize) -> Vec<Load> {
        let mut counts = std::collections::BTreeMap::<u32, u32>::new();
        for tile in wanted {
            // With a tile go all above it: filtering between two levels needs the next, and so does every fall-back.
            let mut next = Some(*tile);
            while let Some(tile) = next.filter(|tile| tile.level < self.pinned) {
                *counts.entry(self.layout.index(tile)).or_default() += 1;
                next = self.layout.parent(tile);
            }
        }
        let mut missing = Vec::new();
        for (&index, &count) in &counts {
            self.used[index as usize] = frame + 1;
            if self.slots[index as usize].is_none() {
                missing.push((self.layout.tile(index), count, index));
            }
        }
        missing.sort_by_key(|(tile, count, index)| {
            (std::cmp::Reverse(tile.level), std::cmp::Reverse(*count), *index)
        });

        let mut idle: Vec<u32> = (self.holders.iter().flatten())
            .filter(|tile| tile.level < self.pinned)
            .map(|tile| self.layout.index(*tile))
            .filter(|index| self.used[*index as usize] <= frame)
            .collect();
        // Popped from the end: the longest unused first, and of those the finest, so that no tile outlives its parent.
        idle.sort_by_key(|index| std::cmp::Reverse((self.used[*index as usize], *index)));

        let mut loads = Vec::new();
        for (tile, ..) in missing.into_iter().take(budget) {
            let (slot, evicted) = match (self.free.pop(), idle.last()) {
                (Some(slot), _) => (slot, None),
                (None, Some(&index)) => {
                    idle.pop();
                    let Some(slot) = self.slots[index as usize].take() else { break };
                    (slot, Some(self.layout.tile(index)))
                }
                (None, None) => break,
            };
            self.take(tile, slot);
            loads.push(Load { tile, slot, evicted });
        }
        self.update_residency();
        loads
    }

    fn take(&mut self, tile: Tile, slot: u32) {
        self.slots[self.layout.index(tile) as usize] = Some(slot);
        self.holders[slot as usize] = Some(tile);
    }

    /// Coarser at once, finer step by step: what is gone must not be sampled, what is new may fade in.
    fn update_residency(&mut self) {
        let side = self.layout.tiles(0);
        let mut target = vec![self.pinned as u8 * RESIDENCY_UNIT; self.residency.len()];
        let mut resident: Vec<Tile> =
            self.holders.iter().flatten().filter(|tile| tile.level < self.pinned).copied().collect();
        resident.sort_by_key(|tile| std::cmp::Reverse(tile.level));
        for tile in resident {
            let width = 1 << tile.level;
            for row in tile.y * width..(tile.y * width + width).min(side) {
                let start = row * side + tile.x * width;
                target[start as usize..][..width.min(side) as usize].fill(tile.level as u8 * RESIDENCY_UNIT);
            }
        }
        for (shown, target) in self.residency.iter_mut().zip(target) {
            *shown = target.max(shown.saturating_sub(FADE));
        }
    }

    /// The residency map: cells of the size of a level 0 tile, row by row, each the finest level that may be sampled there,
    /// in sixteenths of a level.
    pub(crate) fn residency(&self) -> &[u8] {
        &self.residency
    }

    /// The place of a resident tile, in tiles from the start of the pool.
    pub(crate) fn slot(&self, tile: Tile) -> Option<u32> {
        self.slots[self.layout.index(tile) as usize]
    }

    /// Tiles that have memory.
    pub(crate) fn resident(&self) -> impl Iterator<Item = Tile> {
        self.holders.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { size: 2048 };

    #[test]
    fn tiles_and_indices_are_each_others_inverse() {
        assert_eq!(LAYOUT.tile_count(), 256 + 64 + 16 + 4 + 1 + 7);
        for index in 0..LAYOUT.tile_count() {
            assert_eq!(LAYOUT.index(LAYOUT.tile(index)), index);
        }
        assert_eq!(LAYOUT.parent(Tile { level: 0, x: 5, y: 7 }), Some(Tile { level: 1, x: 2, y: 3 }));
        assert_eq!(LAYOUT.parent(Tile { level: 11, x: 0, y: 0 }), None);
    }

    /// Every slot has one holder, every tile its parents, and the map promises no more than is there.
    fn check(pool: &Pool) {
        for (slot, holder) in pool.holders.iter().enumerate() {
            if let Some(tile) = holder {
                assert_eq!(pool.slots[LAYOUT.index(*tile) as usize], Some(slot as u32));
                if let Some(parent) = LAYOUT.parent(*tile) {
                    assert!(
                        pool.slots[LAYOUT.index(parent) as usize].is_some(),
                        "{tile:?} outlives its parent"
                    );
                }
            }
        }
        assert_eq!(pool.slots.iter().flatten().count(), pool.resident().count());
        let side = LAYOUT.tiles(0);
        for (cell, level) in pool.residency().iter().enumerate() {
            let level = u32::from(level / RESIDENCY_UNIT);
            let tile = Tile { level, x: (cell as u32 % side) >> level, y: (cell as u32 / side) >> level };
            assert!(pool.slots[LAYOUT.index(tile) as usize].is_some(), "{tile:?} is promised");
        }
    }

    #[test]
    fn a_moving_view_keeps_to_pool_and_budget() {
        let mut pool = Pool::new(LAYOUT, 40, 3);
        assert_eq!(pool.load_pinned(12).len(), 12);
        let mut evictions = 0;
        for frame in 0..60 {
            let x = frame / 2 % 12;
            let wanted: Vec<Tile> =
                (0..16).map(|i| Tile { level: 0, x: x + i % 4, y: (frame / 9 + i / 4) % 16 }).collect();
            let loads = pool.step(frame, &wanted, 6);
            assert!(loads.len() <= 6);
            assert!(loads.iter().all(|load| load.evicted.is_none_or(|gone| !wanted.contains(&gone))));
            evictions += loads.iter().filter(|load| load.evicted.is_some()).count();
            check(&pool);
        }
        assert!(evictions > 20, "{evictions}");
    }

    #[test]
    fn a_view_larger_than_the_pool_loads_the_coarse_levels_and_stops() {
        let mut pool = Pool::new(LAYOUT, 30, 3);
        pool.load_pinned(12);
        let wanted: Vec<Tile> = (0..256).map(|i| Tile { level: 0, x: i % 16, y: i / 16 }).collect();
        for frame in 0..5 {
            pool.step(frame, &wanted, 100);
            check(&pool);
        }
        assert_eq!(pool.resident().filter(|tile| tile.level == 2).count(), 16);
        assert_eq!(pool.resident().count(), 30);
    }
}

//! How Adreno lays tiled images out that are not compressed (UBWC).
//!
//! A level is rows of macrotiles of 4 KiB, as wide and as high as four tiles of 256 bytes. Macrotiles of a row follow each other; but so
//! that those above each other do not meet in the same bank of memory, some low bits of a row's number are XORed into the address of
//! its macrotiles ("bank swizzling"), where the rows' pitch is a multiple of what the banks span. Which bits, and where, the kernel says
//! (`HIGHEST_BANK_BIT`, `UBWC_SWIZZLE`).
//!
//! Pure arithmetic, as `layout` is.

use crate::format::Plane;
use ash::vk;

/// Bytes of a macrotile: nothing smaller is ever moved, and pages of the kernel are as large.
pub const MACROTILE: u64 = 4096;

/// What the kernel says of the memory's banks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Banks {
    /// The address bit of the highest bank.
    pub highest_bit: u32,
    /// Which levels of swizzling are on: bits 1 for level 1, 2 for level 2, 4 for level 3.
    pub swizzle: u32,
}

/// A tile of a format: 256 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// In texel blocks of the format.
    width: u32,
    height: u32,
    texel_bytes: u32,
}

impl Tile {
    /// `None` for what the hardware does not tile like this.
    pub fn of(plane: &Plane) -> Option<Self> {
        let (width, height) = match plane.texel_bytes {
            1 => (32, 8),
            // Two components of a byte each have a layout of their own.
            2 if is_two_bytes(plane.format) => (16, 8),
            2 => (32, 4),
            4 => (16, 4),
            8 => (8, 4),
            16 => (4, 4),
            _ => return None,
        };
        Some(Self { width, height, texel_bytes: plane.texel_bytes })
    }

    /// A box of texel blocks that is a row of whole macrotiles, however rows are aligned, and one line of another; and the bytes of those
    /// two rows. Laid out linearly it is less.
    pub fn probe(&self) -> ([u32; 2], u64) {
        const ACROSS: u32 = 4;
        let size = [self.width * 4 * ACROSS, self.height * 4 + 1];
        (size, u64::from(ACROSS) * 2 * MACROTILE)
    }

    /// Macrotiles across and down of a box of texel blocks; `None` if it is not whole macrotiles.
    pub fn macrotiles(&self, width: u32, height: u32) -> Option<[u32; 2]> {
        let [across, down] = [self.width * 4, self.height * 4];
        (width % across == 0 && height % down == 0).then_some([width / across, height / down])
    }

    /// Macrotiles that hold any of a box of texel blocks.
    pub fn macrotiles_around(&self, width: u32, height: u32) -> [u32; 2] {
        [width.div_ceil(self.width * 4), height.div_ceil(self.height * 4)]
    }

    /// The rows of macrotiles of a level whose rows of texel blocks are `pitch` bytes apart; `None` if they do not hold whole macrotiles.
    pub fn rows(&self, pitch: u64, banks: Banks) -> Option<Rows> {
        let tile_row = u64::from(self.width) * u64::from(self.texel_bytes);
        if pitch == 0 || pitch % (tile_row * 4) != 0 {
            return None;
        }
        let row_pitch = pitch * u64::from(self.height) * 4;
        // Tiles that are eight high span the banks twice.
        let doubled = u32::from(self.height == 8);
        let level = |on: u32, row_bit: u32, bit: u32| {
            let aligned = row_pitch.trailing_zeros() >= bit + 1 + doubled;
            (banks.swizzle & on != 0 && aligned).then_some((row_bit, bit))
        };
        let highest = banks.highest_bit;
        let swizzle = [level(2, 0, highest.checked_sub(1)?), level(4, 1, highest), level(1, 2, highest + 1)];
        Some(Rows { pitch: row_pitch, swizzle })
    }
}

/// `VK_FORMAT_R8G8_*`, which are numbered in a row.
fn is_two_bytes(format: vk::Format) -> bool {
    (vk::Format::R8G8_UNORM.as_raw()..=vk::Format::R8G8_SRGB.as_raw()).contains(&format.as_raw())
}

/// The macrotiles of a level; by default of none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rows {
    /// Bytes from one row to the next.
    pub pitch: u64,
    /// Which bit of a row's number goes into which bit of its addresses.
    swizzle: [Option<(u32, u32)>; 3],
}

impl Rows {
    /// Bytes from the start of the level to a macrotile.
    #[inline]
    pub fn at(&self, x: u32, y: u32) -> u64 {
        let swizzle =
            self.swizzle.iter().flatten().fold(0, |bits, &(row, bit)| bits | u64::from(y >> row & 1) << bit);
        u64::from(y) * self.pitch + ((u64::from(x) * MACROTILE) ^ swizzle)
    }
}

/// The sparse blocks of a tiled plane: boxes of macrotiles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tiled {
    /// Macrotiles of a block, across and down.
    pub block: [u32; 2],
    pub levels: Vec<TiledLevel>,
}

/// One mip level of a tiled plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TiledLevel {
    pub rows: Rows,
    /// Macrotiles that hold any of the level, across and down: those beyond are no memory of the image.
    pub macrotiles: [u32; 2],
}

impl Tiled {
    /// The pieces of a block in a level, in the order of its memory: calls `piece(offset in the layer's level, offset in the block, bytes)`.
    #[inline]
    pub fn pieces(&self, level: usize, x: u32, y: u32, mut piece: impl FnMut(u64, u64, u64)) {
        let TiledLevel { rows, macrotiles } = &self.levels[level];
        let [width, height] = self.block;
        let columns = x * width..((x + 1) * width).min(macrotiles[0]);
        for (line, row) in (y * height..((y + 1) * height).min(macrotiles[1])).enumerate() {
            let from = line as u64 * u64::from(width) * MACROTILE;
            // Swizzling may part what is next to each other.
            let mut run = (rows.at(columns.start, row), 0);
            let mut done = 0;
            for column in columns.clone() {
                let at = rows.at(column, row);
                if at != run.0 + run.1 {
                    piece(run.0, from + done, run.1);
                    done += run.1;
                    run = (at, 0);
                }
                run.1 += MACROTILE;
            }
            piece(run.0, from + done, run.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::planes;

    const A750: Banks = Banks { highest_bit: 16, swizzle: 6 };

    fn tile(format: vk::Format) -> Tile {
        Tile::of(&planes(format)[0]).unwrap()
    }

    /// A level as wide as the banks: what the stock driver was seen to bind for a 4096x4096 image of four bytes a texel.
    #[test]
    fn rows_are_swizzled() {
        let rows = tile(vk::Format::R8G8B8A8_UNORM).rows(4096 * 4, A750).unwrap();
        assert_eq!(rows.pitch, 0x40000);
        for (row, at) in [(0, 0), (1, 0x48000), (2, 0x90000), (3, 0xd8000), (4, 0x100000)] {
            assert_eq!(rows.at(0, row), at);
            assert_eq!(rows.at(5, row), at + 0x5000);
        }
        assert_eq!(rows.at(9, 1), 0x40000 + (0x9000 ^ 0x8000));
    }

    #[test]
    fn narrow_rows_are_swizzled_less() {
        let swizzled = |format, pitch: u64, banks| {
            let rows = tile(format).rows(pitch, banks).unwrap();
            (0..8).map(|row| rows.at(0, row) - u64::from(row) * rows.pitch).collect::<Vec<_>>()
        };
        let rgba = vk::Format::R8G8B8A8_UNORM;
        assert_eq!(swizzled(rgba, 1024 * 4, A750), [0, 0x8000, 0, 0x8000, 0, 0x8000, 0, 0x8000]);
        assert_eq!(swizzled(rgba, 512 * 4, A750), [0; 8]);
        assert_eq!(swizzled(rgba, 1000 * 4 + 96, A750), swizzled(rgba, 1024 * 4, A750));
        // Bytes need twice the pitch.
        assert_eq!(swizzled(vk::Format::R8_UNORM, 2048, A750), [0; 8]);
        let all = Banks { highest_bit: 13, swizzle: 7 };
        assert_eq!(
            swizzled(rgba, 1024 * 4, all),
            [0, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000]
        );
        assert_eq!(swizzled(rgba, 1024 * 4, Banks { swizzle: 0, ..all }), [0; 8]);
    }

    #[test]
    fn what_is_not_whole_macrotiles_is_refused() {
        let rgba = tile(vk::Format::R8G8B8A8_UNORM);
        assert_eq!(rgba.rows(0, A750), None);
        assert_eq!(rgba.rows(4096 + 64, A750), None);
        assert_eq!(rgba.macrotiles(128, 128), Some([2, 8]));
        assert_eq!(rgba.macrotiles(100, 128), None);
        assert_eq!(rgba.macrotiles_around(100, 17), [2, 2]);
        assert_eq!(tile(vk::Format::R8G8_UNORM).macrotiles(256, 128), Some([4, 4]));
        assert_eq!(tile(vk::Format::R16_UNORM).macrotiles(256, 128), Some([2, 8]));
        assert_eq!(Tile::of(&planes(vk::Format::R32G32B32_SFLOAT)[0]), None);
    }

    /// Pieces of a block come in the order of its memory, parted where swizzling parts them, and end where the level does.
    #[test]
    fn blocks_are_pieces() {
        let rows = |banks| tile(vk::Format::R8G8B8A8_UNORM).rows(1024 * 4, banks).unwrap();
        let pieces = |banks, macrotiles, x, y| {
            let levels = vec![TiledLevel { rows: rows(banks), macrotiles }];
            let mut pieces = Vec::new();
            Tiled { block: [2, 8], levels }.pieces(0, x, y, |at, from, bytes| pieces.push((at, from, bytes)));
            pieces
        };
        let whole = pieces(A750, [16, 64], 1, 0);
        let expected: Vec<_> = (0..8)
            .map(|row| {
                (row * 0x10000 + (0x2000 ^ if row % 2 == 1 { 0x8000 } else { 0 }), row * 0x2000, 0x2000)
            })
            .collect();
        assert_eq!(whole, expected);
        assert_eq!(pieces(A750, [3, 9], 1, 1), [(0x80000 + 0x2000, 0, 0x1000)]);
        // The bit of the highest bank lies inside of the block: odd rows are turned round.
        let turned = pieces(Banks { highest_bit: 13, swizzle: 2 }, [16, 2], 0, 0);
        assert_eq!(turned, [(0, 0, 0x2000), (0x11000, 0x2000, 0x1000), (0x10000, 0x3000, 0x1000)]);
    }
}

//! How Adreno lays tiled images out that are not compressed (UBWC): the modifier `DRM_FORMAT_MOD_QCOM_TILED3` of drm-fourcc.
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

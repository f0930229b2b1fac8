//! Where the sparse blocks of an image are: pure arithmetic, no handles.
//!
//! The layout is lavapipe's: level after level, each aligned to a block; in a level layer after layer; in a layer blocks row by row,
//! then slice by slice of blocks. The adapter in `icd` compares it with the driver's own numbers before it is used, or uses it for
//! addresses of its own, where that order is as good as any.

use crate::tiles::Tiled;
use ash::vk;

/// Bytes of a sparse block of standard shape, of every format.
pub const BLOCK: u64 = 64 << 10;

/// The standard sparse image block shape (Vulkan specification, "Standard Sparse Image Block Shapes"), in texel blocks of the format.
///
/// `None` for what the tables do not name: 1D images, and texel blocks whose size is not a power of two up to 16 bytes.
pub fn standard_block_shape(image_type: vk::ImageType, texel_bytes: u32) -> Option<vk::Extent3D> {
    if !texel_bytes.is_power_of_two() || texel_bytes > 16 {
        return None;
    }
    let row = texel_bytes.trailing_zeros() as usize;
    let (width, height, depth) = match image_type {
        vk::ImageType::TYPE_2D => {
            [(256, 256, 1), (256, 128, 1), (128, 128, 1), (128, 64, 1), (64, 64, 1)][row]
        }
        vk::ImageType::TYPE_3D => [(64, 32, 32), (32, 32, 32), (32, 32, 16), (32, 16, 16), (16, 16, 16)][row],
        _ => return None,
    };
    Some(vk::Extent3D { width, height, depth })
}

/// One mip level of a plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    /// Extent in texels of the plane.
    pub extent: vk::Extent3D,
    /// Number of blocks in each direction.
    pub blocks: vk::Extent3D,
    /// Bytes from the start of the plane to the level's first layer.
    pub offset: u64,
    /// Bytes from one layer to the next.
    pub layer_stride: u64,
    /// Bytes from one row of blocks to the next.
    pub row_stride: u64,
    /// Bytes from one slice of blocks to the next.
    pub slice_stride: u64,
}

/// The blocks of one plane of a sparse residency image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlaneLayout {
    /// Extent of a block in texels of the plane (not in compressed blocks).
    pub granularity: vk::Extent3D,
    pub levels: Vec<Level>,
    pub layers: u32,
    /// Bytes of a block.
    pub block: u64,
    /// Bytes of the whole plane.
    pub size: u64,
    /// Where a block is not one range of bytes: its pieces. A level's strides are then those of its layers alone.
    pub tiled: Option<Tiled>,
    /// Binary logarithms of the granularity, where it has them: a division for each axis of each bind would be seen.
    shifts: Option<[u32; 3]>,
}

/// A box of whole blocks in one level and layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockBox {
    pub level: u32,
    pub layer: u32,
    /// First block in each direction.
    pub first: [u32; 3],
    /// Number of blocks in each direction.
    pub count: [u32; 3],
}

impl BlockBox {
    /// Number of blocks in the box.
    pub fn blocks(&self) -> u64 {
        self.count.iter().map(|&n| u64::from(n)).product()
    }
}

/// Why a box of texels is no box of blocks; the texts are the rules that were broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BoxError {
    #[error(
        "subresource.mipLevel must be less than the image's mipLevels (VUID-VkSparseImageMemoryBindInfo-subresource-01722)"
    )]
    Level,
    #[error(
        "subresource.arrayLayer must be less than the image's arrayLayers (VUID-VkSparseImageMemoryBindInfo-subresource-01723)"
    )]
    Layer,
    #[error(
        "offset must be a multiple of the block extent (VUID-VkSparseImageMemoryBind-offset-01107, -01109, -01111)"
    )]
    Offset,
    #[error("extent must not be zero")]
    Empty,
    #[error(
        "extent must be a multiple of the block extent or reach the edge of the level (VUID-VkSparseImageMemoryBind-extent-01108, -01110, -01112)"
    )]
    Extent,
    #[error(
        "offset + extent must lie in the image subresource (VUID-VkSparseImageMemoryBind-extent-01108, -01110, -01112)"
    )]
    Outside,
}

impl PlaneLayout {
    /// Lays a plane out.
    ///
    /// `extent` in texels of the plane, `granularity` in texels a block, `block` in bytes.
    pub fn new(
        extent: vk::Extent3D,
        granularity: vk::Extent3D,
        levels: u32,
        layers: u32,
        block: u64,
    ) -> Self {
        let mut offset = 0;
        let levels = (0..levels)
            .map(|level| {
                let extent = vk::Extent3D {
                    width: (extent.width >> level).max(1),
                    height: (extent.height >> level).max(1),
                    depth: (extent.depth >> level).max(1),
                };
                let blocks = vk::Extent3D {
                    width: extent.width.div_ceil(granularity.width),
                    height: extent.height.div_ceil(granularity.height),
                    depth: extent.depth.div_ceil(granularity.depth),
                };
                let row_stride = u64::from(blocks.width) * block;
                let slice_stride = u64::from(blocks.height) * row_stride;
                let layer_stride = u64::from(blocks.depth) * slice_stride;
                let level = Level { extent, blocks, offset, layer_stride, row_stride, slice_stride };
                offset += layer_stride * u64::from(layers);
                level
            })
            .collect();
        let [width, height, depth] = [granularity.width, granularity.height, granularity.depth]
            .map(|n| n.is_power_of_two().then(|| n.ilog2()));
        let shifts = width.zip(height).zip(depth).map(|((width, height), depth)| [width, height, depth]);
        Self { granularity, levels, layers, block, size: offset, tiled: None, shifts }
    }

    /// Bytes from the start of the plane to the one whole block that the box is: the bind that games make by the thousand. `None` for
    /// any other box (also where blocks are no powers of two, or in pieces), and any that breaks a rule; [`Self::blocks_of`] tells them apart.
    #[inline]
    pub fn single_block(
        &self,
        level: u32,
        layer: u32,
        offset: vk::Offset3D,
        extent: vk::Extent3D,
    ) -> Option<u64> {
        if extent != self.granularity || layer >= self.layers || self.tiled.is_some() {
            return None;
        }
        let (level, shifts) = (self.levels.get(level as usize)?, self.shifts?);
        // A negative offset becomes a block far outside.
        let texel = [offset.x as u32, offset.y as u32, offset.z as u32];
        let rest = (texel[0] & (extent.width - 1))
            | (texel[1] & (extent.height - 1))
            | (texel[2] & (extent.depth - 1));
        let [x, y, z] = [texel[0] >> shifts[0], texel[1] >> shifts[1], texel[2] >> shifts[2]];
        let blocks = level.blocks;
        let inside = x < blocks.width && y < blocks.height && z < blocks.depth;
        let [x, y, z] = [x, y, z].map(u64::from);
        (inside && rest == 0).then(|| {
            let in_layer = z * level.slice_stride + y * level.row_stride + x * self.block;
            level.offset + u64::from(layer) * level.layer_stride + in_layer
        })
    }

    /// The blocks that a box of texels covers.
    #[inline]
    pub fn blocks_of(
        &self,
        level: u32,
        layer: u32,
        offset: vk::Offset3D,
        extent: vk::Extent3D,
    ) -> Result<BlockBox, BoxError> {
        let in_level = self.levels.get(level as usize).ok_or(BoxError::Level)?;
        if layer >= self.layers {
            return Err(BoxError::Layer);
        }
        let mut first = [0; 3];
        let mut count = [0; 3];
        let axes = [
            (offset.x, extent.width, self.granularity.width, in_level.extent.width, in_level.blocks.width),
            (
                offset.y,
                extent.height,
                self.granularity.height,
                in_level.extent.height,
                in_level.blocks.height,
            ),
            (offset.z, extent.depth, self.granularity.depth, in_level.extent.depth, in_level.blocks.depth),
        ];
        for (axis, (offset, extent, block, size, total)) in axes.into_iter().enumerate() {
            let offset = u32::try_from(offset).map_err(|_| BoxError::Outside)?;
            if extent == 0 {
                return Err(BoxError::Empty);
            }
            if offset % block != 0 {
                return Err(BoxError::Offset);
            }
            let end = offset.checked_add(extent).ok_or(BoxError::Outside)?;
            let (at, blocks) = (offset / block, extent.div_ceil(block));
            // A last block may be named whole although only part of it lies in the level.
            if blocks > total - at.min(total) {
                return Err(BoxError::Outside);
            }
            if extent % block != 0 && end < size {
                return Err(BoxError::Extent);
            }
            first[axis] = at;
            count[axis] = blocks;
        }
        Ok(BlockBox { level, layer, first, count })
    }

    /// The byte ranges of a box, in the order in which its memory is laid out (x, then y, then z); each is a run of blocks in x,
    /// longer where rows or slices continue, or a piece of a block. Calls `run(offset in the plane, offset in the memory, bytes)`.
    #[inline]
    pub fn runs(&self, blocks: &BlockBox, mut run: impl FnMut(u64, u64, u64)) {
        let level = &self.levels[blocks.level as usize];
        let base = level.offset + u64::from(blocks.layer) * level.layer_stride;
        if let Some(tiled) = &self.tiled {
            let mut from = 0;
            for y in blocks.first[1]..blocks.first[1] + blocks.count[1] {
                for x in blocks.first[0]..blocks.first[0] + blocks.count[0] {
                    tiled.pieces(blocks.level as usize, x, y, |at, in_block, bytes| {
                        run(base + at, from + in_block, bytes);
                    });
                    from += self.block;
                }
            }
            return;
        }
        let [x, y, z] = blocks.first.map(u64::from);
        let [width, height, depth] = blocks.count.map(u64::from);
        let at = |y: u64, z: u64| base + z * level.slice_stride + y * level.row_stride + x * self.block;
        let mut from = 0;
        let mut next = |at, blocks| {
            run(at, from, blocks * self.block);
            from += blocks * self.block;
        };
        if width * self.block < level.row_stride {
            for z in z..z + depth {
                for y in y..y + height {
                    next(at(y, z), width);
                }
            }
        } else if width * height * self.block < level.slice_stride {
            for z in z..z + depth {
                next(at(y, z), width * height);
            }
        } else {
            next(at(y, z), width * height * depth);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(width: u32, height: u32, depth: u32) -> vk::Extent3D {
        vk::Extent3D { width, height, depth }
    }

    #[test]
    fn every_standard_shape_is_64_kib() {
        for image_type in [vk::ImageType::TYPE_2D, vk::ImageType::TYPE_3D] {
            for bytes in [1, 2, 4, 8, 16] {
                let shape = standard_block_shape(image_type, bytes).unwrap();
                assert_eq!(u64::from(shape.width * shape.height * shape.depth * bytes), BLOCK);
            }
            for bytes in [0, 3, 6, 12, 32] {
                assert_eq!(standard_block_shape(image_type, bytes), None);
            }
        }
        assert_eq!(standard_block_shape(vk::ImageType::TYPE_1D, 4), None);
    }

    #[test]
    fn levels_follow_one_another() {
        let plane = PlaneLayout::new(extent(300, 200, 1), extent(128, 128, 1), 3, 2, BLOCK);
        let [a, b, c] = plane.levels[..] else { panic!("three levels") };
        assert_eq!((a.offset, a.layer_stride, a.blocks), (0, 6 * BLOCK, extent(3, 2, 1)));
        assert_eq!((b.offset, b.layer_stride, b.blocks), (12 * BLOCK, 2 * BLOCK, extent(2, 1, 1)));
        assert_eq!((c.offset, c.layer_stride, c.blocks), (16 * BLOCK, BLOCK, extent(1, 1, 1)));
        assert_eq!(plane.size, 18 * BLOCK);
    }

    #[test]
    fn broken_rules_are_named() {
        let plane = PlaneLayout::new(extent(300, 200, 1), extent(128, 128, 1), 2, 2, BLOCK);
        let at = |x, y| vk::Offset3D { x, y, z: 0 };
        let ask = |level, layer, offset, extent| plane.blocks_of(level, layer, offset, extent).unwrap_err();
        assert_eq!(ask(2, 0, at(0, 0), extent(128, 128, 1)), BoxError::Level);
        assert_eq!(ask(0, 2, at(0, 0), extent(128, 128, 1)), BoxError::Layer);
        assert_eq!(ask(0, 0, at(64, 0), extent(128, 128, 1)), BoxError::Offset);
        assert_eq!(ask(0, 0, at(-128, 0), extent(128, 128, 1)), BoxError::Outside);
        assert_eq!(ask(0, 0, at(0, 0), extent(100, 128, 1)), BoxError::Extent);
        assert_eq!(ask(0, 0, at(0, 0), extent(0, 128, 1)), BoxError::Empty);
        assert_eq!(ask(0, 0, at(256, 0), extent(256, 128, 1)), BoxError::Outside);
        assert_eq!(ask(0, 0, at(256, 128), extent(44, u32::MAX, 1)), BoxError::Outside);
        assert_eq!(plane.blocks_of(0, 1, at(256, 128), extent(44, 72, 1)).unwrap().count, [1, 1, 1]);
        assert_eq!(plane.blocks_of(0, 1, at(256, 128), extent(128, 128, 1)).unwrap().count, [1, 1, 1]);
    }

    proptest! {
        /// Runs, cut into blocks, are the blocks of the box in memory order, each at its place.
        #[test]
        fn runs_cover_the_box(
            size in (1u32..9, 1u32..9, 1u32..5), layers in 1u32..3, level in 0u32..3, pick in any::<[u32; 7]>(),
        ) {
            let block = extent(32, 32, 16);
            let plane = PlaneLayout::new(extent(size.0 * 32 - 3, size.1 * 32, size.2 * 16 - 5), block, 3, layers, BLOCK);
            let blocks = plane.levels[level as usize].blocks;
            let first = [pick[0] % blocks.width, pick[1] % blocks.height, pick[2] % blocks.depth];
            let count = [
                1 + pick[3] % (blocks.width - first[0]),
                1 + pick[4] % (blocks.height - first[1]),
                1 + pick[5] % (blocks.depth - first[2]),
            ];
            let wanted = BlockBox { level, layer: pick[6] % layers, first, count };
            let mut got = Vec::new();
            plane.runs(&wanted, |offset, from, bytes| {
                assert_eq!(from, got.len() as u64 * BLOCK);
                got.extend((0..bytes / BLOCK).map(|n| offset + n * BLOCK));
            });
            let mut expected = Vec::new();
            let l = plane.levels[level as usize];
            for z in first[2]..first[2] + count[2] {
                for y in first[1]..first[1] + count[1] {
                    for x in first[0]..first[0] + count[0] {
                        let index = (z * blocks.height + y) * blocks.width + x;
                        expected.push(l.offset + u64::from(wanted.layer) * l.layer_stride + u64::from(index) * BLOCK);
                    }
                }
            }
            prop_assert_eq!(got.len() as u64, wanted.blocks());
            prop_assert_eq!(&got, &expected);
            // The short way to one block comes to the same place, and leaves everything else to the long way.
            let at = |axis: usize, size: u32| (first[axis] * size) as i32;
            let offset = vk::Offset3D { x: at(0, 32), y: at(1, 32), z: at(2, 16) };
            let single = |offset, extent| plane.single_block(level, wanted.layer, offset, extent);
            prop_assert_eq!(single(offset, block), Some(got[0]));
            prop_assert_eq!(single(vk::Offset3D { x: offset.x + 1, ..offset }, block), None);
            prop_assert_eq!(single(vk::Offset3D { y: (blocks.height * 32) as i32, ..offset }, block), None);
            prop_assert_eq!(single(vk::Offset3D { z: -16, ..offset }, block), None);
            prop_assert_eq!(single(offset, extent(64, 32, 16)), None);
        }
    }
}

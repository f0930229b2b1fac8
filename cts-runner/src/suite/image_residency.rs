//! Sparse residency of images: every shape, level and block size; tiles bound together, one by one and in boxes.

use super::image_rig::{FLAT_FORMATS, ImageRig, TileBox, granularity};
use super::random::Random;
use super::{Case, Ctx};
use crate::gpu::{Batch, Format, Gpu, ImageSpec, Need, find_format, level_extent};
use crate::outcome::{Outcome, check};
use ash::vk;

/// A kind of image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Flat,
    Array,
    Cube,
    CubeArray,
    Volume,
}

impl Shape {
    const ALL: [Self; 5] = [Self::Flat, Self::Array, Self::Cube, Self::CubeArray, Self::Volume];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Flat => "2d",
            Self::Array => "2d_array",
            Self::Cube => "cube",
            Self::CubeArray => "cube_array",
            Self::Volume => "3d",
        }
    }

    pub(crate) fn layers(self) -> u32 {
        match self {
            Self::Flat | Self::Volume => 1,
            Self::Array => 3,
            Self::Cube => 6,
            Self::CubeArray => 12,
        }
    }

    pub(crate) fn needs(self) -> Vec<Need> {
        match self {
            Self::Volume => vec![Need::ResidencyImage3D],
            Self::CubeArray => vec![Need::ResidencyImage2D, Need::CubeArray],
            _ => vec![Need::ResidencyImage2D],
        }
    }

    /// A specification with this shape; extent and levels are the rig's to fill in.
    pub(crate) fn spec(self, format: &Format, flags: vk::ImageCreateFlags) -> ImageSpec {
        let cube = matches!(self, Self::Cube | Self::CubeArray);
        ImageSpec {
            ty: if self == Self::Volume { vk::ImageType::TYPE_3D } else { vk::ImageType::TYPE_2D },
            format: format.vk,
            extent: [1; 3],
            levels: 0,
            layers: self.layers(),
            flags: flags
                | vk::ImageCreateFlags::SPARSE_BINDING
                | vk::ImageCreateFlags::SPARSE_RESIDENCY
                | if cube { vk::ImageCreateFlags::CUBE_COMPATIBLE } else { vk::ImageCreateFlags::empty() },
            usage: vk::ImageUsageFlags::TRANSFER_SRC
                | vk::ImageUsageFlags::TRANSFER_DST
                | vk::ImageUsageFlags::SAMPLED,
        }
    }

    /// An extent that is no multiple of the granularity on any axis: two and a half tiles and a little, a tile less for
    /// cubes with their many layers.
    pub(crate) fn odd_extent(self, granularity: [u32; 3], format: &Format) -> [u32; 3] {
        let cube = matches!(self, Self::Cube | Self::CubeArray);
        let odd = |axis: usize| {
            let length = granularity[axis] * if cube { 1 } else { 2 } + granularity[axis] / 2;
            let block = if axis < 2 { format.block[axis] } else { 1 };
            length.next_multiple_of(block) + block
        };
        match self {
            Self::Cube | Self::CubeArray => [odd(0).max(odd(1)), odd(0).max(odd(1)), 1],
            Self::Volume => [odd(0), odd(1), odd(2)],
            _ => [odd(0), odd(1) - format.block[1], 1],
        }
    }
}

/// How a whole image is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One bind a subresource.
    Whole,
    /// One bind a tile, in an odd order, to memory in an odd order.
    Tiles,
    /// Boxes of tiles.
    Boxes,
}

pub(crate) fn add(cases: &mut Vec<Case>) {
    const OTHERS: &[&str] = &["r8_uint", "r16_uint", "r32_uint", "rg32_uint", "rgba32_uint", "bc1", "bc3"];
    for shape in Shape::ALL {
        let formats = if shape == Shape::Flat { FLAT_FORMATS } else { OTHERS };
        for (index, name) in formats.iter().enumerate() {
            let format = find_format(name);
            let needs = needs(shape, format);
            // Every mode meets every shape and, over the shapes, every format.
            let mode = [Mode::Whole, Mode::Tiles, Mode::Boxes][(index + shape as usize) % 3];
            let case = format!("image.residency.{}.{name}", shape.name());
            cases.push(
                Case::new(case, &needs, move |ctx| whole(ctx, shape, format, mode)).detects_missing_maps(),
            );
            let case = format!("image.granularity.{}.{name}", shape.name());
            cases.push(Case::new(case, &needs, move |ctx| standard_granularity(ctx, shape, format)));
        }
        let format = find_format("r32_uint");
        for (name, mode) in [("whole", Mode::Whole), ("tiles", Mode::Tiles), ("boxes", Mode::Boxes)] {
            let case = format!("image.bind.{}.{name}", shape.name());
            let needs = needs(shape, format);
            cases.push(
                Case::new(case, &needs, move |ctx| whole(ctx, shape, format, mode)).detects_missing_maps(),
            );
        }
        for name in ["r8_uint", "rgba32_uint"] {
            let format = find_format(name);
            let case = format!("image.partial.{}.{name}", shape.name());
            let needs = needs(shape, format);
            cases
                .push(Case::new(case, &needs, move |ctx| partial(ctx, shape, format)).detects_missing_maps());
        }
        let case = format!("image.store.{}", shape.name());
        cases.push(Case::new(case, &shape.needs(), move |ctx| store(ctx, shape)).detects_missing_maps());
        for name in ["r8_uint", "r32_uint", "bc1"] {
            let format = find_format(name);
            let case = format!("image.alias.{}.{name}", shape.name());
            let mut needs = needs(shape, format);
            needs.push(Need::Aliased);
            cases.push(Case::new(case, &needs, move |ctx| alias(ctx, shape, format)).detects_missing_maps());
        }
    }
    let flat = &[Need::ResidencyImage2D];
    cases.extend([
        Case::new("image.alias.within", &[Need::ResidencyImage2D, Need::Aliased], alias_within)
            .detects_missing_maps(),
        Case::new("image.batch.images_and_buffers", flat, mixed_batch).detects_missing_maps(),
        Case::new("image.walk", flat, walk).detects_missing_maps(),
        Case::new("image.many", flat, many).detects_missing_maps(),
        Case::new("image.huge", flat, huge).detects_missing_maps(),
        Case::new("image.small", flat, small).detects_missing_maps(),
        Case::new("image.unbound.survives", flat, unbound_survives).touches_unbound(),
    ]);
}

fn needs(shape: Shape, format: &Format) -> Vec<Need> {
    let mut needs = shape.needs();
    if format.is_compressed() {
        needs.push(Need::TextureBc);
    }
    needs
}

pub(crate) fn rig<'g>(
    gpu: &'g Gpu,
    shape: Shape,
    format: &'static Format,
    flags: vk::ImageCreateFlags,
) -> Outcome<ImageRig<'g>> {
    ImageRig::new(gpu, format, shape.spec(format, flags), |granularity| shape.odd_extent(granularity, format))
}

/// Boxes that cover an image in a mode, bound to blocks from `slot` on.
fn cover(rig: &ImageRig<'_>, image: usize, mode: Mode, slot: usize, random: &mut Random) -> Vec<TileBox> {
    let tiles = rig.tiles(image);
    let mut boxes = Vec::new();
    if mode == Mode::Tiles {
        let mut slots: Vec<_> = (slot..slot + tiles.len()).collect();
        random.shuffle(&mut slots);
        boxes.extend(tiles.iter().zip(slots).map(|(&tile, slot)| rig.single(image, tile, Some(slot))));
        random.shuffle(&mut boxes);
        return boxes;
    }
    let mut next = slot;
    let mut last = None;
    for tile in tiles {
        let (level, layer, _) = rig.place(image, tile);
        if last.replace((level, layer)) == Some((level, layer)) {
            continue;
        }
        let size = rig.tile_count(level);
        // Either all of the subresource, or it is cut in two along every axis that is long enough.
        let cut = |axis: usize| match (mode, size[axis]) {
            (Mode::Boxes, length) if length > 1 => vec![(0, length / 2), (length / 2, length - length / 2)],
            (_, length) => vec![(0, length)],
        };
        for (z, depth) in cut(2) {
            for (y, height) in cut(1) {
                for (x, width) in cut(0) {
                    let count = [width, height, depth];
                    boxes.push(TileBox { level, layer, first: [x, y, z], count, slot: Some(next) });
                    next += count.iter().product::<u32>() as usize;
                }
            }
        }
    }
    random.shuffle(&mut boxes);
    boxes
}

/// Everything bound, written, read by copies and a shader; then every third tile moves to other memory and back.
fn whole(ctx: &Ctx, shape: Shape, format: &'static Format, mode: Mode) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = rig(&gpu, shape, format, vk::ImageCreateFlags::empty())?;
    let mut random = Random::new(3);
    let tiles = rig.tiles(0);
    let first = rig.memory(tiles.len())?;
    let boxes = cover(&rig, 0, mode, first, &mut random);
    rig.bind(0, &boxes)?;
    rig.upload(0, &rig.bound(0), 1)?;
    rig.verify(0)?;
    rig.verify_by_shader(0)?;

    let moved: Vec<_> = tiles.iter().copied().filter(|tile| tile % 3 != 1).collect();
    let other = rig.memory(moved.len())?;
    let away: Vec<_> =
        moved.iter().zip(other..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect();
    let home: Vec<_> = moved.iter().map(|&tile| rig.single(0, tile, rig.slot(0, tile))).collect();
    rig.bind(0, &away)?;
    rig.upload(0, &moved, 2)?;
    rig.verify(0)?;
    rig.bind(0, &home)?;
    rig.verify(0)?;
    rig.bind(0, &away)?;
    rig.verify(0)?;
    rig.verify_by_shader(0)
}

/// Some tiles bound, others not; then some of each change places.
fn partial(ctx: &Ctx, shape: Shape, format: &'static Format) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = rig(&gpu, shape, format, vk::ImageCreateFlags::empty())?;
    let tiles = rig.tiles(0);
    let first = rig.memory(tiles.len())?;
    let (even, odd): (Vec<_>, Vec<_>) = tiles.iter().copied().partition(|tile| tile % 2 == 0);
    let boxes = |rig: &ImageRig<'_>, tiles: &[usize], shift: usize| -> Vec<_> {
        tiles
            .iter()
            .enumerate()
            .map(|(index, &tile)| rig.single(0, tile, Some(first + index + shift)))
            .collect()
    };
    let evens = boxes(&rig, &even, 0);
    rig.bind(0, &evens)?;
    rig.upload(0, &even, 1)?;
    rig.verify(0)?;
    rig.verify_by_shader(0)?;
    // Half of them get other memory and other data before they go.
    let leaving: Vec<_> = even.iter().copied().step_by(2).collect();
    let other = rig.memory(leaving.len())?;
    let elsewhere: Vec<_> =
        leaving.iter().zip(other..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect();
    rig.bind(0, &elsewhere)?;
    rig.upload(0, &leaving, 3)?;
    rig.verify(0)?;
    let gone: Vec<_> = leaving.iter().map(|&tile| rig.single(0, tile, None)).collect();
    rig.bind(0, &gone)?;
    rig.verify(0)?;
    let odds = boxes(&rig, &odd, even.len());
    rig.bind(0, &odds)?;
    rig.upload(0, &odd, 2)?;
    rig.verify(0)?;
    // The tiles that went come back with the data they had at first.
    rig.bind(0, &evens)?;
    rig.verify(0)?;
    rig.verify_by_shader(0)
}

/// Shaders write through storage views, level by level; what they wrote stays with the memory.
fn store(ctx: &Ctx, shape: Shape) -> Outcome {
    let gpu = ctx.gpu()?;
    let format = find_format("r32_uint");
    let mut base = shape.spec(format, vk::ImageCreateFlags::empty());
    base.usage |= vk::ImageUsageFlags::STORAGE;
    let mut rig = ImageRig::new(&gpu, format, base, |granularity| shape.odd_extent(granularity, format))?;
    let mut random = Random::new(8);
    let tiles = rig.tiles(0);
    let first = rig.memory(2 * tiles.len())?;
    let layouts = [0, tiles.len()].map(|shift| cover(&rig, 0, Mode::Tiles, first + shift, &mut random));
    for round in 0..4 {
        rig.bind(0, &layouts[round % 2])?;
        if round < 2 {
            rig.store(0, round as u32 + 1)?;
        }
        rig.verify(0)?;
        rig.verify_by_shader(0)?;
    }
    Ok(())
}

/// Two images of one kind show the same memory with their full tiles in another order.
fn alias(ctx: &Ctx, shape: Shape, format: &'static Format) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = rig(&gpu, shape, format, vk::ImageCreateFlags::SPARSE_ALIASED)?;
    let second = rig.image()?;
    let mut random = Random::new(4);
    let tiles = rig.tiles(0);
    let first = rig.memory(tiles.len())?;
    let boxes = cover(&rig, 0, Mode::Tiles, first, &mut random);
    rig.bind(0, &boxes)?;
    let full: Vec<_> = tiles.iter().copied().filter(|&tile| rig.is_full(0, tile)).collect();
    check!(full.len() > 1, "an image of {:?} has {} full tiles", rig.spec.extent, full.len());
    let mut slots: Vec<_> = full.iter().map(|&tile| rig.slot(0, tile)).collect();
    slots.rotate_left(1);
    let boxes: Vec<_> = full.iter().zip(slots).map(|(&tile, slot)| rig.single(second, tile, slot)).collect();
    rig.bind(second, &boxes)?;
    rig.upload(0, &full, 1)?;
    rig.verify(second)?;
    rig.verify_by_shader(second)?;
    rig.upload(second, &full, 2)?;
    rig.verify(0)?;
    rig.verify_by_shader(0)
}

/// All full tiles of one image show the same block.
fn alias_within(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let format = find_format("r32_uint");
    let mut rig = rig(&gpu, Shape::Array, format, vk::ImageCreateFlags::SPARSE_ALIASED)?;
    let slot = rig.memory(1)?;
    let full: Vec<_> = rig.tiles(0).into_iter().filter(|&tile| rig.is_full(0, tile)).collect();
    let boxes: Vec<_> = full.iter().map(|&tile| rig.single(0, tile, Some(slot))).collect();
    rig.bind(0, &boxes)?;
    for (seed, tile) in (1..).zip(&full) {
        rig.upload(0, &[*tile], seed)?;
        rig.verify(0)?;
    }
    rig.verify_by_shader(0)
}

/// The granularity is the standard block shape where the implementation says so, and fits into a block.
fn standard_granularity(ctx: &Ctx, shape: Shape, format: &'static Format) -> Outcome {
    let gpu = ctx.gpu()?;
    let spec = shape.spec(format, vk::ImageCreateFlags::empty());
    let granularity = granularity(&gpu, format, &spec)?;
    let standard = if shape == Shape::Volume {
        gpu.properties.sparse_properties.residency_standard3_d_block_shape
    } else {
        gpu.properties.sparse_properties.residency_standard2_d_block_shape
    };
    let blocks: [u32; 3] = match (shape == Shape::Volume, format.bytes) {
        (false, 1) => [256, 256, 1],
        (false, 2) => [256, 128, 1],
        (false, 4) => [128, 128, 1],
        (false, 8) => [128, 64, 1],
        (false, _) => [64, 64, 1],
        (true, 1) => [64, 32, 32],
        (true, 2) => [32, 32, 32],
        (true, 4) => [32, 32, 16],
        (true, 8) => [32, 16, 16],
        (true, _) => [16, 16, 16],
    };
    let texels = [blocks[0] * format.block[0], blocks[1] * format.block[1], blocks[2]];
    check!(
        standard == vk::FALSE || granularity == texels,
        "the granularity is {granularity:?} texels, the standard block shape {texels:?}"
    );
    check!(
        (0..2).all(|axis| granularity[axis] % format.block[axis] == 0),
        "the granularity {granularity:?} cuts through compression blocks of {:?}",
        format.block
    );
    Ok(())
}

/// Buffers, opaque images and tiles in one batch.
fn mixed_batch(ctx: &Ctx) -> Outcome {
    use super::buffer_rig::{Access, BufferRig, blocks};
    let gpu = ctx.gpu()?;
    let mut buffers = BufferRig::new(&gpu, Access::Storage, vk::BufferCreateFlags::empty())?;
    let mut images = rig(&gpu, Shape::Array, find_format("r16_uint"), vk::ImageCreateFlags::empty())?;
    let other = images.image()?;
    let (buffer, memory) = (buffers.buffer(4)?, buffers.memory(4)?);
    let tiles = images.tiles(0);
    let first = images.memory(2 * tiles.len())?;
    let mut random = Random::new(5);
    let one = cover(&images, 0, Mode::Tiles, first, &mut random);
    let two = cover(&images, other, Mode::Boxes, first + tiles.len(), &mut random);
    let binds = [blocks(0, 4, Some((memory, 0)))];
    let batch = images.batch(images.batch(Batch::new(), 0, &one), other, &two);
    gpu.bind(&[buffers.batch(batch, buffer, &binds)])?;
    images.note(0, &one);
    images.note(other, &two);
    buffers.note(buffer, &binds);
    images.upload(0, &images.bound(0), 1)?;
    images.upload(other, &images.bound(other), 2)?;
    buffers.verify(buffer)?;
    for image in [0, other] {
        images.verify(image)?;
        images.verify_by_shader(image)?;
    }
    // The second image now shows what the first one holds.
    let swap: Vec<_> = tiles.iter().map(|&tile| images.single(other, tile, images.slot(0, tile))).collect();
    images.bind(other, &swap)?;
    images.verify(other)
}

/// Random tiles move among random blocks, everything checked after each step.
fn walk(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let format = find_format("rg32_uint");
    let mut rig = rig(&gpu, Shape::Array, format, vk::ImageCreateFlags::empty())?;
    let tiles = rig.tiles(0);
    let count = tiles.len() * 2;
    let first = rig.memory(count)?;
    // A block belongs to one tile at a time and to tiles of one extent, or its texels would be known only in part.
    let mut random = Random::new(6);
    for step in 0..40 {
        let mut boxes = Vec::new();
        let mut fresh = Vec::new();
        for (index, &tile) in tiles.iter().enumerate() {
            let slot = match random.below(4) {
                0 => Some(first + 2 * index),
                1 => Some(first + 2 * index + 1),
                2 => None,
                _ => continue,
            };
            boxes.push(rig.single(0, tile, slot));
            if slot.is_some() && random.below(2) == 0 {
                fresh.push(tile);
            }
        }
        random.shuffle(&mut boxes);
        rig.bind(0, &boxes)?;
        if !fresh.is_empty() {
            rig.upload(0, &fresh, 100 + step)?;
        }
        rig.verify(0)?;
    }
    Ok(())
}

/// A hundred images at once.
fn many(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let format = find_format("rgba8_unorm");
    let base = ImageSpec { levels: 1, ..Shape::Flat.spec(format, vk::ImageCreateFlags::empty()) };
    let mut rig = ImageRig::new(&gpu, format, base, |granularity| [granularity[0] + 8, granularity[1], 1])?;
    while rig.image()? < 99 {}
    let per_image = rig.tiles(0).len();
    let first = rig.memory(100 * per_image)?;
    let mut random = Random::new(7);
    let boxes: Vec<_> = (0..100)
        .map(|image| cover(&rig, image, Mode::Tiles, first + image * per_image, &mut random))
        .collect();
    let batch =
        boxes.iter().enumerate().fold(Batch::new(), |batch, (image, boxes)| rig.batch(batch, image, boxes));
    gpu.bind(&[batch])?;
    for (image, boxes) in boxes.iter().enumerate() {
        rig.note(image, boxes);
        rig.upload(image, &rig.bound(image), image as u32)?;
    }
    // Each image takes over the memory of the one before it.
    let turned: Vec<Vec<_>> = (0..100)
        .map(|image| {
            let from = (image + 99) % 100;
            rig.tiles(image).iter().map(|&tile| rig.single(image, tile, rig.slot(from, tile))).collect()
        })
        .collect();
    for (image, boxes) in turned.iter().enumerate() {
        rig.bind(image, boxes)?;
    }
    (0..100).try_for_each(|image| rig.verify(image))
}

/// The largest image that the limits allow within the address space, a few tiles of it bound.
fn huge(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let format = find_format("rgba8_unorm");
    let space = gpu.properties.limits.sparse_address_space_size / 2;
    let mut side = gpu.properties.limits.max_image_dimension2_d.min(16384);
    while u64::from(side).pow(2) * 4 > space {
        side /= 2;
    }
    let base = ImageSpec { levels: 1, ..Shape::Flat.spec(format, vk::ImageCreateFlags::empty()) };
    let mut rig = ImageRig::new(&gpu, format, base, |_| [side, side, 1])?;
    let tiles = rig.tiles(0);
    let chosen =
        [0, tiles.len() / 3, tiles.len() / 2, tiles.len() - 2, tiles.len() - 1].map(|index| tiles[index]);
    let first = rig.memory(2 * chosen.len())?;
    let boxes = |rig: &ImageRig<'_>, slot: usize| -> Vec<_> {
        chosen.iter().zip(slot..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect()
    };
    let (home, away) = (boxes(&rig, first), boxes(&rig, first + chosen.len()));
    rig.bind(0, &home)?;
    rig.upload(0, &chosen, 1)?;
    rig.verify(0)?;
    rig.bind(0, &away)?;
    rig.upload(0, &chosen, 2)?;
    rig.bind(0, &home)?;
    rig.verify(0)
}

/// Images smaller than a tile, down to one texel.
fn small(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let format = find_format("r32_uint");
    for extent in [[1, 1, 1], [5, 3, 1], [127, 1, 1], [1, 129, 1]] {
        let base = Shape::Flat.spec(format, vk::ImageCreateFlags::empty());
        let mut rig = ImageRig::new(&gpu, format, base, |_| extent)?;
        let tiles = rig.tiles(0);
        let first = rig.memory(2 * tiles.len())?;
        for (level, extent) in (0..rig.spec.levels).map(|level| (level, level_extent(extent, level))) {
            check!(extent.iter().all(|&length| length > 0), "level {level} has extent {extent:?}");
        }
        for round in 0..3 {
            let slot = first + (round % 2) * tiles.len();
            let boxes: Vec<_> =
                tiles.iter().zip(slot..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect();
            rig.bind(0, &boxes)?;
            if round < 2 {
                rig.upload(0, &rig.bound(0), round as u32)?;
            }
            // In the third round the data of the first is back, except where the mip tail holds it.
            rig.verify(0)?;
        }
    }
    Ok(())
}

/// Without strictness unbound texels are undefined, but they end nothing and bound tiles keep their data.
fn unbound_survives(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let format = find_format("r32_uint");
    let mut rig = rig(&gpu, Shape::Array, format, vk::ImageCreateFlags::empty())?;
    let tiles = rig.tiles(0);
    let first = rig.memory(tiles.len())?;
    let boxes: Vec<_> =
        tiles.iter().step_by(2).zip(first..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect();
    rig.bind(0, &boxes)?;
    let all: Vec<_> = (0..rig.spec.levels)
        .flat_map(|level| (0..rig.spec.layers).map(move |layer| (level, layer)))
        .map(|(level, layer)| {
            let extent = level_extent(rig.spec.extent, level);
            crate::gpu::region(0, format.aspect(), level, layer, [0; 3], extent)
        })
        .collect();
    let noise = format.random(8, format.size(rig.spec.extent) as usize);
    gpu.upload(rig.handle(0), &noise, &all)?;
    rig.upload(0, &rig.bound(0), 9)?;
    gpu.download(rig.handle(0), noise.len() as u64, &all)?;
    rig.verify(0)?;
    let gone: Vec<_> = tiles.iter().step_by(4).map(|&tile| rig.single(0, tile, None)).collect();
    rig.bind(0, &gone)?;
    gpu.download(rig.handle(0), noise.len() as u64, &all)?;
    rig.verify(0)
}

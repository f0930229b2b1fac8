//! Sparse residency images with a model beside them: which tile is bound to which block of memory, and what each block holds.

use crate::gpu::{
    Batch, Bound, Dispatch, Format, Gpu, ImageSpec, Kind, Shader, image_bind, level_extent, memory_bind,
    pattern, region, shaders,
};
use crate::outcome::{Outcome, check, fail};
use ash::vk;

/// The formats that 2D images are tried with: one a texel size, block-compressed, depth and stencil.
pub(crate) const FLAT_FORMATS: &[&str] = &[
    "r8_uint",
    "r16_uint",
    "r32_uint",
    "rgba8_unorm",
    "rg32_uint",
    "rgba16_uint",
    "rgba32_uint",
    "bc1",
    "bc3",
    "bc4",
    "bc7",
    "d16_unorm",
    "d32_sfloat",
    "s8_uint",
];

/// One sparse block of an image, or one level of its mip tail.
struct Tile {
    level: u32,
    layer: u32,
    /// In tiles.
    place: [u32; 3],
    /// In texels; cut off at the level's edge.
    offset: [u32; 3],
    extent: [u32; 3],
    slot: Option<usize>,
    /// Bound once and for all with the mip tail.
    tail: bool,
}

/// A block of memory, and the texels in it as far as they are known.
struct Slot {
    memory: vk::DeviceMemory,
    offset: u64,
    /// Texels from its origin on: the extent that `data` holds, tightly packed.
    known: [u32; 3],
    data: Vec<u8>,
}

struct Image {
    handle: vk::Image,
    tiles: Vec<Tile>,
}

/// A box of tiles of one subresource; memory follows tile by tile, row by row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileBox {
    pub(crate) level: u32,
    pub(crate) layer: u32,
    /// In tiles.
    pub(crate) first: [u32; 3],
    pub(crate) count: [u32; 3],
    /// The first block; nothing unbinds.
    pub(crate) slot: Option<usize>,
}

/// Images of one specification, blocks of memory, and the model of both.
pub(crate) struct ImageRig<'g> {
    pub(crate) gpu: &'g Gpu,
    pub(crate) format: &'static Format,
    pub(crate) spec: ImageSpec,
    /// Texels of a tile.
    pub(crate) granularity: [u32; 3],
    /// Bytes of a block.
    block: u64,
    bits: u32,
    images: Vec<Image>,
    slots: Vec<Slot>,
    twin: Option<vk::Image>,
}

impl<'g> ImageRig<'g> {
    /// A rig for images of `format`; `size` makes the extent from the granularity.
    pub(crate) fn new(
        gpu: &'g Gpu,
        format: &'static Format,
        base: ImageSpec,
        size: impl FnOnce([u32; 3]) -> [u32; 3],
    ) -> Outcome<Self> {
        let granularity = granularity(gpu, format, &base)?;
        let extent = size(granularity);
        let longest = extent.into_iter().max().unwrap_or(1);
        let levels = if base.levels == 0 { 32 - longest.leading_zeros() } else { base.levels };
        let spec = ImageSpec { extent, levels, ..base };
        let images = Vec::new();
        let mut rig =
            Self { gpu, format, spec, granularity, block: 0, bits: 0, images, slots: vec![], twin: None };
        rig.image()?;
        Ok(rig)
    }

    /// Creates one more image; the rig begins with one.
    pub(crate) fn image(&mut self) -> Outcome<usize> {
        let handle = self.gpu.image(&self.spec)?;
        let requirements = self.gpu.image_requirements(handle);
        self.block = requirements.alignment;
        self.bits = requirements.memory_type_bits;
        let sparse = self.gpu.image_sparse_requirements(handle);
        let aspect = self.format.aspect();
        let Some(main) = sparse.iter().find(|entry| entry.format_properties.aspect_mask.contains(aspect))
        else {
            let aspects: Vec<_> = sparse.iter().map(|entry| entry.format_properties.aspect_mask).collect();
            fail!("the sparse requirements of {} have aspects {aspects:?}, not {aspect:?}", self.format.name);
        };
        let reported = main.format_properties.image_granularity;
        check!(
            [reported.width, reported.height, reported.depth] == self.granularity,
            "the image's granularity is {reported:?}, the format's {:?}",
            self.granularity
        );
        check!(
            self.format.size(self.granularity) <= self.block,
            "a tile of {:?} texels has {} bytes, a block {}",
            self.granularity,
            self.format.size(self.granularity),
            self.block
        );
        let mut tiles = Vec::new();
        for level in 0..self.spec.levels.min(main.image_mip_tail_first_lod) {
            for layer in 0..self.spec.layers {
                self.add_tiles(&mut tiles, level, layer);
            }
        }
        for entry in &sparse {
            self.bind_tail(handle, entry, &mut tiles)?;
        }
        self.gpu.make_general(handle, aspect)?;
        self.images.push(Image { handle, tiles });
        Ok(self.images.len() - 1)
    }

    fn add_tiles(&self, tiles: &mut Vec<Tile>, level: u32, layer: u32) {
        let size = level_extent(self.spec.extent, level);
        let count = self.tile_count(level);
        for z in 0..count[2] {
            for y in 0..count[1] {
                for x in 0..count[0] {
                    let place = [x, y, z];
                    let offset = std::array::from_fn(|axis| place[axis] * self.granularity[axis]);
                    let extent = std::array::from_fn(|axis: usize| {
                        (size[axis] - offset[axis]).min(self.granularity[axis])
                    });
                    tiles.push(Tile { level, layer, place, offset, extent, slot: None, tail: false });
                }
            }
        }
    }

    /// Binds the mip tail of one aspect; its levels join the model as tiles that never move.
    fn bind_tail(
        &mut self,
        image: vk::Image,
        entry: &vk::SparseImageMemoryRequirements,
        tiles: &mut Vec<Tile>,
    ) -> Outcome {
        let metadata = entry.format_properties.aspect_mask.contains(vk::ImageAspectFlags::METADATA);
        if entry.image_mip_tail_size == 0 || (!metadata && entry.image_mip_tail_first_lod >= self.spec.levels)
        {
            return Ok(());
        }
        let single = entry.format_properties.flags.contains(vk::SparseImageFormatFlags::SINGLE_MIPTAIL);
        let tails = if single { 1 } else { self.spec.layers };
        let mut binds = Vec::new();
        for tail in 0..tails {
            let memory = self.gpu.memory(entry.image_mip_tail_size, self.bits)?;
            let offset = entry.image_mip_tail_offset + u64::from(tail) * entry.image_mip_tail_stride;
            let mut bind = memory_bind(offset, entry.image_mip_tail_size, Some((memory, 0)));
            if metadata {
                bind.flags = vk::SparseMemoryBindFlags::METADATA;
            }
            binds.push(bind);
        }
        self.gpu.bind(&[Batch::new().opaque(image, binds)])?;
        if metadata {
            return Ok(());
        }
        for level in entry.image_mip_tail_first_lod..self.spec.levels {
            for layer in 0..self.spec.layers {
                let extent = level_extent(self.spec.extent, level);
                self.slots.push(Slot {
                    memory: vk::DeviceMemory::null(),
                    offset: 0,
                    known: [0; 3],
                    data: vec![],
                });
                let slot = Some(self.slots.len() - 1);
                tiles.push(Tile { level, layer, place: [0; 3], offset: [0; 3], extent, slot, tail: true });
            }
        }
        Ok(())
    }

    /// Tiles of a level along each axis.
    pub(crate) fn tile_count(&self, level: u32) -> [u32; 3] {
        let size = level_extent(self.spec.extent, level);
        std::array::from_fn(|axis| size[axis].div_ceil(self.granularity[axis]))
    }

    /// Numbers of the tiles that can be bound one by one.
    pub(crate) fn tiles(&self, image: usize) -> Vec<usize> {
        let tiles = &self.images[image].tiles;
        (0..tiles.len()).filter(|&tile| !tiles[tile].tail).collect()
    }

    /// Level, layer and place (in tiles) of a tile.
    pub(crate) fn place(&self, image: usize, tile: usize) -> (u32, u32, [u32; 3]) {
        let tile = &self.images[image].tiles[tile];
        (tile.level, tile.layer, tile.place)
    }

    /// Whether a tile has all of its texels.
    pub(crate) fn is_full(&self, image: usize, tile: usize) -> bool {
        self.images[image].tiles[tile].extent == self.granularity
    }

    pub(crate) fn handle(&self, image: usize) -> vk::Image {
        self.images[image].handle
    }

    /// The memory object that a block is part of.
    pub(crate) fn memory_of(&self, slot: usize) -> vk::DeviceMemory {
        self.slots[slot].memory
    }

    /// The block that a tile is bound to.
    pub(crate) fn slot(&self, image: usize, tile: usize) -> Option<usize> {
        self.images[image].tiles[tile].slot
    }

    /// Allocates `count` blocks of memory in one piece and returns the number of the first.
    pub(crate) fn memory(&mut self, count: usize) -> Outcome<usize> {
        let memory = self.gpu.memory(count as u64 * self.block, self.bits)?;
        let first = self.slots.len();
        self.slots.extend((0..count as u64).map(|index| Slot {
            memory,
            offset: index * self.block,
            known: [0; 3],
            data: vec![],
        }));
        Ok(first)
    }

    /// A box of one tile.
    pub(crate) fn single(&self, image: usize, tile: usize, slot: Option<usize>) -> TileBox {
        let (level, layer, first) = self.place(image, tile);
        TileBox { level, layer, first, count: [1; 3], slot }
    }

    /// Whether a texel of an image with 4-byte texels is resident (`Some`), and its value as far as it is known. The third
    /// coordinate is the layer where the image has layers.
    pub(crate) fn texel(&self, image: usize, level: u32, [x, y, z]: [u32; 3]) -> Option<Option<u32>> {
        let volume = self.spec.ty == vk::ImageType::TYPE_3D;
        let (layer, z) = if volume { (0, z) } else { (z, 0) };
        let at = [x, y, z];
        let tile = self.images[image].tiles.iter().find(|tile| {
            tile.level == level
                && tile.layer == layer
                && (0..3).all(|axis| {
                    (tile.offset[axis]..tile.offset[axis] + tile.extent[axis]).contains(&at[axis])
                })
        })?;
        let slot = &self.slots[tile.slot?];
        let [x, y, z]: [u32; 3] = std::array::from_fn(|axis| at[axis] - tile.offset[axis]);
        let index = ((z * slot.known[1] + y) * slot.known[0] + x) as usize * 4;
        let known = x < slot.known[0] && y < slot.known[1] && z < slot.known[2];
        let bytes = || slot.data[index..index + 4].try_into().map(u32::from_ne_bytes).ok();
        Some(if known { bytes() } else { None })
    }

    /// Adds binds to a batch.
    pub(crate) fn batch(&self, batch: Batch, image: usize, boxes: &[TileBox]) -> Batch {
        let binds = boxes
            .iter()
            .map(|area| {
                let size = level_extent(self.spec.extent, area.level);
                let offset: [u32; 3] = std::array::from_fn(|axis| area.first[axis] * self.granularity[axis]);
                let extent = std::array::from_fn(|axis| {
                    (area.count[axis] * self.granularity[axis]).min(size[axis] - offset[axis])
                });
                let subresource = vk::ImageSubresource {
                    aspect_mask: self.format.aspect(),
                    mip_level: area.level,
                    array_layer: area.layer,
                };
                let to = area.slot.map(|slot| (self.slots[slot].memory, self.slots[slot].offset));
                image_bind(subresource, offset, extent, to)
            })
            .collect();
        batch.image(self.images[image].handle, binds)
    }

    /// Notes binds in the model.
    pub(crate) fn note(&mut self, image: usize, boxes: &[TileBox]) {
        for area in boxes {
            let inside = |tile: &Tile| {
                !tile.tail
                    && tile.level == area.level
                    && tile.layer == area.layer
                    && (0..3).all(|axis| {
                        (area.first[axis]..area.first[axis] + area.count[axis]).contains(&tile.place[axis])
                    })
            };
            // Tiles are listed row by row, as the memory of a box is.
            let tiles = self.images[image].tiles.iter_mut().filter(|tile| inside(tile));
            for (index, tile) in tiles.enumerate() {
                tile.slot = area.slot.map(|slot| slot + index);
            }
        }
    }

    /// Binds, waits, and notes it.
    pub(crate) fn bind(&mut self, image: usize, boxes: &[TileBox]) -> Outcome {
        self.gpu.bind(&[self.batch(Batch::new(), image, boxes)])?;
        self.note(image, boxes);
        Ok(())
    }

    /// Numbers of all tiles that are bound, the mip tail included.
    pub(crate) fn bound(&self, image: usize) -> Vec<usize> {
        let tiles = &self.images[image].tiles;
        (0..tiles.len()).filter(|&tile| tiles[tile].slot.is_some()).collect()
    }

    /// Copies new data to bound tiles.
    pub(crate) fn upload(&mut self, image: usize, tiles: &[usize], seed: u32) -> Outcome {
        let (mut bytes, mut regions) = (Vec::new(), Vec::new());
        for &number in tiles {
            let tile = &self.images[image].tiles[number];
            let Some(slot) = tile.slot else { fail!("the suite uploads to a tile that is not bound") };
            let len = self.format.size(tile.extent) as usize;
            let data = self.format.random(seed.wrapping_mul(7919) ^ number as u32, len);
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            regions.push(self.region(bytes.len() as u64, tile));
            bytes.extend_from_slice(&data);
            let slot = &mut self.slots[slot];
            (slot.known, slot.data) = (tile.extent, data);
        }
        self.gpu.upload(self.images[image].handle, &bytes, &regions)
    }

    fn region(&self, offset: u64, tile: &Tile) -> vk::BufferImageCopy {
        region(offset, self.format.aspect(), tile.level, tile.layer, tile.offset, tile.extent)
    }

    /// Lets a shader write all texels of an R32_UINT image whose tiles are all bound.
    pub(crate) fn store(&mut self, image: usize, seed: u32) -> Outcome {
        let volume = self.spec.ty == vk::ImageType::TYPE_3D;
        let shader = if volume { shaders::STORE_3D } else { shaders::STORE_2D };
        for level in 0..self.spec.levels {
            let [width, height, depth] = level_extent(self.spec.extent, level);
            let depth = depth.max(self.spec.layers);
            let (handle, ty) = (self.images[image].handle, self.spec.view_type());
            let view = self.gpu.image_view(handle, &self.spec, ty, self.format.aspect(), level, 1)?;
            let push = vec![width, height, depth, seed + level];
            let groups = [width.div_ceil(8), height.div_ceil(8), depth];
            self.gpu.dispatch(&[Dispatch::new(shader, vec![Bound::StorageImage(view)], push, groups)])?;
            self.gpu.destroy(crate::gpu::Owned::ImageView(view));
            for tile in self.images[image].tiles.iter().filter(|tile| tile.level == level) {
                let Some(slot) = tile.slot else { fail!("the suite stores to a tile that is not bound") };
                let [x0, y0, z0] = tile.offset;
                let mut data = Vec::with_capacity(self.format.size(tile.extent) as usize);
                for z in z0..z0 + tile.extent[2] {
                    for y in y0..y0 + tile.extent[1] {
                        for x in x0..x0 + tile.extent[0] {
                            let third = if volume { z } else { tile.layer };
                            let index = (third * height + y) * width + x;
                            data.extend(pattern(seed + level, index).to_ne_bytes());
                        }
                    }
                }
                (self.slots[slot].known, self.slots[slot].data) = (tile.extent, data);
            }
        }
        Ok(())
    }

    /// Copies every bound tile back and compares it with the model.
    pub(crate) fn verify(&self, image: usize) -> Outcome {
        let (mut len, mut regions, mut places) = (0_u64, Vec::new(), Vec::new());
        for tile in self.images[image].tiles.iter().filter(|tile| tile.slot.is_some()) {
            len = len.next_multiple_of(16);
            regions.push(self.region(len, tile));
            places.push((tile, len as usize));
            len += self.format.size(tile.extent);
        }
        if places.is_empty() {
            return Ok(());
        }
        let bytes = self.gpu.download(self.images[image].handle, len, &regions)?;
        for (tile, at) in places {
            let Some(slot) = tile.slot else { continue };
            let read = &bytes[at..at + self.format.size(tile.extent) as usize];
            if let Some(block) = self.first_difference(tile, read, &self.slots[slot]) {
                fail!(
                    "image {image}, level {}, layer {}, tile {:?}, texel block {block:?} of the tile is wrong",
                    tile.level,
                    tile.layer,
                    tile.place
                );
            }
        }
        Ok(())
    }

    /// The first compression block (or texel) that differs between a tile's bytes and what its memory holds.
    fn first_difference(&self, tile: &Tile, read: &[u8], slot: &Slot) -> Option<[u32; 3]> {
        let (mine, known) = (self.format.blocks(tile.extent), self.format.blocks(slot.known));
        let bytes = self.format.bytes as usize;
        let at = |size: [u32; 3], [x, y, z]: [u32; 3]| ((z * size[1] + y) * size[0] + x) as usize * bytes;
        for z in 0..mine[2].min(known[2]) {
            for y in 0..mine[1].min(known[1]) {
                let width = mine[0].min(known[0]);
                let (left, right) = (at(mine, [0, y, z]), at(known, [0, y, z]));
                let len = width as usize * bytes;
                if read[left..left + len] != slot.data[right..right + len] {
                    return (0..width).map(|x| [x, y, z]).find(|&place| {
                        let (left, right) = (at(mine, place), at(known, place));
                        read[left..left + bytes] != slot.data[right..right + bytes]
                    });
                }
            }
        }
        None
    }

    /// Lets a shader compare every bound tile whose texels are all known with a plain image that holds them.
    pub(crate) fn verify_by_shader(&mut self, image: usize) -> Outcome {
        let aspect = self.format.aspect();
        let twin = match self.twin {
            Some(twin) => twin,
            None => *self.twin.insert(self.gpu.plain_image(&self.spec, aspect)?),
        };
        let (mut bytes, mut regions, mut boxes, mut texels) = (Vec::new(), Vec::new(), Vec::new(), 0_u32);
        for tile in &self.images[image].tiles {
            let Some(slot) = tile.slot.map(|slot| &self.slots[slot]).filter(|slot| slot.known == tile.extent)
            else {
                continue;
            };
            bytes.resize(bytes.len().next_multiple_of(16), 0);
            regions.push(self.region(bytes.len() as u64, tile));
            bytes.extend_from_slice(&slot.data);
            // Layers of an array are the third coordinate of a shader.
            let mut offset = tile.offset;
            if self.spec.ty != vk::ImageType::TYPE_3D {
                offset[2] = tile.layer;
            }
            boxes.push((tile.level, offset, tile.extent));
            texels += tile.extent.iter().product::<u32>();
        }
        self.gpu.upload(twin, &bytes, &regions)?;
        let tally =
            compare_images(self.gpu, self.format, &self.spec, [self.images[image].handle, twin], &boxes)?;
        check!(tally[1] == texels, "the shader compared {} of {texels} texels", tally[1]);
        check!(tally[0] == 0, "a shader reads {} of {texels} texels other than they were written", tally[0]);
        Ok(())
    }
}

/// The format's granularity for images like `spec`.
pub(crate) fn granularity(gpu: &Gpu, format: &Format, spec: &ImageSpec) -> Outcome<[u32; 3]> {
    gpu.image_supported(&ImageSpec { extent: [1; 3], levels: 1, ..*spec })?;
    // SAFETY: the physical device is the instance's.
    let properties = unsafe {
        gpu.instance.raw.get_physical_device_sparse_image_format_properties(
            gpu.physical,
            spec.format,
            spec.ty,
            vk::SampleCountFlags::TYPE_1,
            spec.usage,
            vk::ImageTiling::OPTIMAL,
        )
    };
    let found = properties
        .iter()
        .find(|entry| entry.aspect_mask.contains(format.aspect()))
        .or(properties.first())
        .map(|entry| entry.image_granularity);
    match found {
        Some(vk::Extent3D { width, height, depth }) => Ok([width, height, depth]),
        None => Err(crate::outcome::Stop::NotSupported(format!("{} has no sparse residency", format.name))),
    }
}

/// Compares boxes `(level, origin, extent)` of two images in a shader: differences, and texels compared.
pub(crate) fn compare_images(
    gpu: &Gpu,
    format: &Format,
    spec: &ImageSpec,
    images: [vk::Image; 2],
    boxes: &[(u32, [u32; 3], [u32; 3])],
) -> Outcome<[u32; 2]> {
    let floats = matches!(format.kind, Kind::Float | Kind::Depth);
    let shader: Shader = match (spec.ty, floats) {
        (vk::ImageType::TYPE_1D, false) => shaders::COMPARE_1D_UINT,
        (vk::ImageType::TYPE_1D, true) => shaders::COMPARE_1D_FLOAT,
        (vk::ImageType::TYPE_3D, false) => shaders::COMPARE_3D_UINT,
        (vk::ImageType::TYPE_3D, true) => shaders::COMPARE_3D_FLOAT,
        (_, false) => shaders::COMPARE_2D_UINT,
        (_, true) => shaders::COMPARE_2D_FLOAT,
    };
    let view = |image| gpu.image_view(image, spec, spec.view_type(), format.aspect(), 0, spec.levels);
    let (left, right) = (view(images[0])?, view(images[1])?);
    let tally = gpu.host_words(&[0, 0], vk::BufferUsageFlags::STORAGE_BUFFER)?;
    let dispatches: Vec<_> = boxes
        .iter()
        .map(|&(level, [x, y, z], [width, height, depth])| {
            let bound = vec![
                Bound::Storage(tally.buffer, 0, vk::WHOLE_SIZE),
                Bound::Sampled(left),
                Bound::Sampled(right),
            ];
            let push = vec![x, y, z, level, width, height, depth, 0];
            Dispatch::new(shader, bound, push, [width.div_ceil(8), height.div_ceil(8), depth])
        })
        .collect();
    gpu.dispatch(&dispatches)?;
    let words = tally.words();
    tally.free();
    for view in [left, right] {
        gpu.destroy(crate::gpu::Owned::ImageView(view));
    }
    Ok([words[0], words[1]])
}

//! The sparse virtual texture: an image of which only the pool's tiles have memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use ash::vk;

use crate::content::Painter;
use crate::gpu::{FORMAT, Gpu, HostBuffer, TEXTURE_USAGE, transition};
use crate::pool::{Layout, Load, TILE, TILE_BYTES, Tile};

/// A sparse residency image, the memory of its pool and of its mip tail.
pub(crate) struct Texture {
    pub(crate) layout: Layout,
    pub(crate) image: vk::Image,
    pub(crate) view: vk::ImageView,
    /// Bytes of address space.
    pub(crate) virtual_bytes: u64,
    /// The first level of the mip tail, or the number of levels where there is none.
    pub(crate) tail: u32,
    tail_bind: Option<vk::SparseMemoryBind>,
    pool_memory: vk::DeviceMemory,
    /// The pool as the CPU sees it, where it does.
    pool_address: Option<*const u8>,
    staging: HostBuffer,
    readback: HostBuffer,
}

/// How many tiles one verification can read back.
pub(crate) const READBACK_TILES: usize = 8;

impl Texture {
    /// Creates the image and a pool of `tiles` tiles; `batch` is the most tiles that are ever uploaded together.
    pub(crate) fn new(gpu: &Gpu, layout: Layout, tiles: u32, batch: usize) -> Result<Self> {
        let families = [gpu.draw_family, gpu.bind_family];
        let mut info = vk::ImageCreateInfo::default()
            .flags(vk::ImageCreateFlags::SPARSE_BINDING | vk::ImageCreateFlags::SPARSE_RESIDENCY)
            .image_type(vk::ImageType::TYPE_2D)
            .format(FORMAT)
            .extent(vk::Extent3D { width: layout.size, height: layout.size, depth: 1 })
            .mip_levels(layout.levels())
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .usage(TEXTURE_USAGE);
        if gpu.draw_family != gpu.bind_family {
            info = info.sharing_mode(vk::SharingMode::CONCURRENT).queue_family_indices(&families);
        }
        // SAFETY: plain creation and queries of objects of this device.
        let (image, needs, sparse) = unsafe {
            let image = gpu.device.create_image(&info, None).map_err(|error| {
                anyhow!(
                    "a sparse image of {0}x{0} cannot be created: {error}; --texture takes a smaller size",
                    layout.size
                )
            })?;
            (
                image,
                gpu.device.get_image_memory_requirements(image),
                gpu.device.get_image_sparse_memory_requirements(image),
            )
        };
        let colour = (sparse.iter())
            .find(|needs| needs.format_properties.aspect_mask.contains(vk::ImageAspectFlags::COLOR))
            .context("the driver reports no sparse layout for the image")?;
        let block = colour.format_properties.image_granularity;
        if (block.width, block.height) != (TILE, TILE) || TILE_BYTES % needs.alignment != 0 {
            bail!("the image has blocks of {}x{} instead of {TILE}x{TILE}", block.width, block.height);
        }
        let tail = colour.image_mip_tail_first_lod.min(layout.levels());
        let tail_bind = if tail < layout.levels() && colour.image_mip_tail_size > 0 {
            Some(
                vk::SparseMemoryBind::default()
                    .resource_offset(colour.image_mip_tail_offset)
                    .size(colour.image_mip_tail_size)
                    .memory(gpu.allocate(colour.image_mip_tail_size, needs.memory_type_bits)?),
            )
        } else {
            None
        };
        let tail_tiles = (layout.levels() - tail) as usize;
        let (pool_memory, pool_address) =
            gpu.allocate_pool(u64::from(tiles) * TILE_BYTES, needs.memory_type_bits)?;
        Ok(Self {
            layout,
            image,
            view: gpu.view(image, FORMAT, layout.levels())?,
            virtual_bytes: needs.size,
            tail,
            tail_bind,
            pool_memory,
            pool_address,
            staging: gpu.host_buffer(
                TILE_BYTES * batch.max(tail_tiles).max(1) as u64,
                vk::BufferUsageFlags::TRANSFER_SRC,
            )?,
            readback: gpu
                .host_buffer(TILE_BYTES * READBACK_TILES as u64, vk::BufferUsageFlags::TRANSFER_DST)?,
        })
    }

    /// Binds what `loads` say, one bind a tile in their order, each after the unbind of the tile that had the memory, and
    /// returns the time from the call to the signal of its semaphore. On the first call the mip tail comes along.
    pub(crate) fn bind(&mut self, gpu: &mut Gpu, loads: &[Load], first: bool) -> Result<Duration> {
        let mut binds = Vec::with_capacity(2 * loads.len());
        for load in loads {
            binds.extend(load.evicted.map(|tile| self.tile_bind(tile)));
            binds.push(
                self.tile_bind(load.tile)
                    .memory(self.pool_memory)
                    .memory_offset(u64::from(load.slot) * TILE_BYTES),
            );
        }
        let opaque: Vec<_> = self.tail_bind.filter(|_| first).into_iter().collect();
        let images = [vk::SparseImageMemoryBindInfo::default().image(self.image).binds(&binds)];
        let opaques = [vk::SparseImageOpaqueMemoryBindInfo::default().image(self.image).binds(&opaque)];
        let mut info = vk::BindSparseInfo::default();
        if !binds.is_empty() {
            info = info.image_binds(&images);
        }
        if !opaque.is_empty() {
            info = info.image_opaque_binds(&opaques);
        }
        let start = Instant::now();
        gpu.bind_sparse(info)?;
        Ok(start.elapsed())
    }

    /// The bind of a tile to nothing.
    fn tile_bind(&self, tile: Tile) -> vk::SparseImageMemoryBind {
        vk::SparseImageMemoryBind::default()
            .subresource(vk::ImageSubresource {
                aspect_mask: vk::ImageAspectFlags::COLOR,
                mip_level: tile.level,
                array_layer: 0,
            })
            .offset(self.offset(tile))
            .extent(self.extent(tile))
    }

    fn offset(&self, tile: Tile) -> vk::Offset3D {
        vk::Offset3D { x: (tile.x * TILE) as i32, y: (tile.y * TILE) as i32, z: 0 }
    }

    /// A whole tile, or all of a level that is smaller.
    fn extent(&self, tile: Tile) -> vk::Extent3D {
        let side = self.layout.texels(tile.level).min(TILE);
        vk::Extent3D { width: side, height: side, depth: 1 }
    }

    /// The tiles of the mip tail: one a level.
    pub(crate) fn tail_tiles(&self) -> Vec<Tile> {
        (self.tail..self.layout.levels()).map(|level| Tile { level, x: 0, y: 0 }).collect()
    }

    /// Paints the tiles into the staging buffer, on as many threads as the machine runs at once.
    pub(crate) fn stage(&mut self, tiles: &[Tile], painters: &mut [Painter]) {
        let share = tiles.len().div_ceil(painters.len()).max(1);
        let staging = &mut self.staging.bytes()[..tiles.len() * TILE_BYTES as usize];
        std::thread::scope(|scope| {
            let parts = tiles.chunks(share).zip(staging.chunks_mut(share * TILE_BYTES as usize));
            for ((tiles, bytes), painter) in parts.zip(painters) {
                scope.spawn(move || {
                    for (tile, bytes) in tiles.iter().zip(bytes.chunks_exact_mut(TILE_BYTES as usize)) {
                        painter.paint(*tile, bytes);
                    }
                });
            }
        });
    }

    /// Records the copies of what `stage` painted. The image goes from `from` to being sampled.
    pub(crate) fn record_upload(
        &self,
        device: &ash::Device,
        commands: vk::CommandBuffer,
        tiles: &[Tile],
        from: vk::ImageLayout,
    ) {
        self.record_transition(device, commands, from, vk::ImageLayout::TRANSFER_DST_OPTIMAL);
        let regions = self.regions(tiles);
        // SAFETY: the command buffer is being recorded; the regions lie in the buffer and in bound tiles of the image.
        unsafe {
            device.cmd_copy_buffer_to_image(
                commands,
                self.staging.buffer,
                self.image,
                vk::ImageLayout::TRANSFER_DST_OPTIMAL,
                &regions,
            );
        }
        let read = vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL;
        self.record_transition(device, commands, vk::ImageLayout::TRANSFER_DST_OPTIMAL, read);
    }

    /// One tile after the other in the buffer, in rows of a tile's width.
    fn regions(&self, tiles: &[Tile]) -> Vec<vk::BufferImageCopy> {
        (tiles.iter().enumerate())
            .map(|(i, tile)| {
                vk::BufferImageCopy::default()
                    .buffer_offset(i as u64 * TILE_BYTES)
                    .buffer_row_length(TILE)
                    .image_subresource(vk::ImageSubresourceLayers {
                        aspect_mask: vk::ImageAspectFlags::COLOR,
                        mip_level: tile.level,
                        base_array_layer: 0,
                        layer_count: 1,
                    })
                    .image_offset(self.offset(*tile))
                    .image_extent(self.extent(*tile))
            })
            .collect()
    }

    fn record_transition(
        &self,
        device: &ash::Device,
        commands: vk::CommandBuffer,
        from: vk::ImageLayout,
        to: vk::ImageLayout,
    ) {
        transition(device, commands, self.image, self.layout.levels(), from, to);
    }

    /// Reads tiles back (at most [`READBACK_TILES`], each with its place in the pool) and returns those that differ from what
    /// was painted. Where the CPU sees the pool, the tile's texels must also lie in its place there: that the image alone
    /// returns them does not prove that anything was bound, because a driver may keep memory under unbound tiles.
    pub(crate) fn verify(
        &mut self,
        gpu: &mut Gpu,
        commands: vk::CommandBuffer,
        places: &[(Tile, u32)],
        painter: &mut Painter,
    ) -> Result<Vec<Tile>> {
        let places = &places[..places.len().min(READBACK_TILES)];
        let regions = self.regions(&places.iter().map(|(tile, _)| *tile).collect::<Vec<_>>());
        self.readback.bytes().fill(0);
        let source = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        let read = vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL;
        gpu.run(commands, |device| {
            self.record_transition(device, commands, read, source);
            // SAFETY: as in `record_upload`.
            unsafe {
                device.cmd_copy_image_to_buffer(commands, self.image, source, self.readback.buffer, &regions);
                record_host_read(device, commands);
            }
            self.record_transition(device, commands, source, read);
        })?;
        let mut expected = vec![0; TILE_BYTES as usize];
        let (layout, row) = (self.layout, TILE as usize * 4);
        let mut wrong = Vec::new();
        for (i, (tile, slot)) in places.iter().enumerate() {
            painter.paint(*tile, &mut expected);
            let seen = &self.readback.bytes()[i * TILE_BYTES as usize..][..TILE_BYTES as usize];
            let side = layout.texels(tile.level).min(TILE) as usize;
            let mut same = (seen.chunks(row).zip(expected.chunks(row)).take(side))
                .all(|(a, b)| a[..side * 4] == b[..side * 4]);
            if side == TILE as usize {
                // In which order a block holds its texels is the driver's business.
                same &=
                    self.pooled(*slot).is_none_or(|bytes| sorted_texels(bytes) == sorted_texels(&expected));
            }
            if !same {
                wrong.push(*tile);
            }
        }
        Ok(wrong)
    }

    /// The memory of a tile of the pool. The device must be idle.
    fn pooled(&self, slot: u32) -> Option<&[u8]> {
        let address = self.pool_address?;
        // SAFETY: the whole pool is mapped until its memory is freed in `destroy`, slots lie in it, and nothing writes to it
        // outside of `Gpu::run`.
        Some(unsafe {
            std::slice::from_raw_parts(address.add(slot as usize * TILE_BYTES as usize), TILE_BYTES as usize)
        })
    }

    pub(crate) fn destroy(&self, gpu: &Gpu) {
        gpu.destroy_buffer(&self.staging);
        gpu.destroy_buffer(&self.readback);
        // SAFETY: all work has been waited for, and the texture is given up. The image goes before its memory.
        unsafe {
            gpu.device.destroy_image_view(self.view, None);
            gpu.device.destroy_image(self.image, None);
            gpu.device.free_memory(self.pool_memory, None);
            if let Some(bind) = self.tail_bind {
                gpu.device.free_memory(bind.memory, None);
            }
        }
    }
}

fn sorted_texels(bytes: &[u8]) -> Vec<[u8; 4]> {
    let mut texels: Vec<[u8; 4]> =
        bytes.chunks_exact(4).map(|texel| [texel[0], texel[1], texel[2], texel[3]]).collect();
    texels.sort_unstable();
    texels
}

/// Makes what the device wrote visible to the CPU.
///
/// # Safety
/// `commands` is being recorded, outside of rendering.
pub(crate) unsafe fn record_host_read(device: &ash::Device, commands: vk::CommandBuffer) {
    let barriers = [vk::MemoryBarrier2::default()
        .src_stage_mask(vk::PipelineStageFlags2::ALL_COMMANDS)
        .src_access_mask(vk::AccessFlags2::MEMORY_WRITE)
        .dst_stage_mask(vk::PipelineStageFlags2::HOST)
        .dst_access_mask(vk::AccessFlags2::HOST_READ)];
    // SAFETY: as this function demands.
    unsafe {
        device.cmd_pipeline_barrier2(commands, &vk::DependencyInfo::default().memory_barriers(&barriers))
    };
}

//! Images, their views, and copies between them and buffers.

use super::{Gpu, Owned};
use crate::outcome::{Called as _, Outcome, Stop};
use ash::vk;

/// How shaders and copies see a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Unsigned integers: shaders see every bit.
    Uint,
    /// Read as floats: normalised and block-compressed formats.
    Float,
    Depth,
    Stencil,
}

/// A single-plane format.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) name: &'static str,
    pub(crate) vk: vk::Format,
    /// Texels of one compression block in width and height; 1 where the format is not compressed.
    pub(crate) block: [u32; 2],
    /// Bytes of one texel, or of one compression block, in a buffer.
    pub(crate) bytes: u32,
    pub(crate) kind: Kind,
}

const fn format(name: &'static str, vk: vk::Format, block: u32, bytes: u32, kind: Kind) -> Format {
    Format { name, vk, block: [block, block], bytes, kind }
}

/// Formats of every block size, of the depth and stencil aspects, and block-compressed ones.
const FORMATS: &[Format] = &[
    format("r8_uint", vk::Format::R8_UINT, 1, 1, Kind::Uint),
    format("r16_uint", vk::Format::R16_UINT, 1, 2, Kind::Uint),
    format("r32_uint", vk::Format::R32_UINT, 1, 4, Kind::Uint),
    format("rgba8_unorm", vk::Format::R8G8B8A8_UNORM, 1, 4, Kind::Float),
    format("rg32_uint", vk::Format::R32G32_UINT, 1, 8, Kind::Uint),
    format("rgba16_uint", vk::Format::R16G16B16A16_UINT, 1, 8, Kind::Uint),
    format("rgba32_uint", vk::Format::R32G32B32A32_UINT, 1, 16, Kind::Uint),
    format("bc1", vk::Format::BC1_RGB_UNORM_BLOCK, 4, 8, Kind::Float),
    format("bc3", vk::Format::BC3_UNORM_BLOCK, 4, 16, Kind::Float),
    format("bc4", vk::Format::BC4_UNORM_BLOCK, 4, 8, Kind::Float),
    format("bc7", vk::Format::BC7_UNORM_BLOCK, 4, 16, Kind::Float),
    format("d16_unorm", vk::Format::D16_UNORM, 1, 2, Kind::Depth),
    format("d32_sfloat", vk::Format::D32_SFLOAT, 1, 4, Kind::Depth),
    format("s8_uint", vk::Format::S8_UINT, 1, 1, Kind::Stencil),
];

/// The format of this name in the suite's table.
///
/// # Panics
/// When the table has no such format: a mistake in the suite itself.
pub(crate) fn find_format(name: &str) -> &'static Format {
    FORMATS
        .iter()
        .find(|format| format.name == name)
        .unwrap_or_else(|| panic!("the suite knows no format {name}"))
}

impl Format {
    pub(crate) fn aspect(&self) -> vk::ImageAspectFlags {
        match self.kind {
            Kind::Uint | Kind::Float => vk::ImageAspectFlags::COLOR,
            Kind::Depth => vk::ImageAspectFlags::DEPTH,
            Kind::Stencil => vk::ImageAspectFlags::STENCIL,
        }
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.block != [1, 1]
    }

    /// Compression blocks that cover an extent in texels.
    pub(crate) fn blocks(&self, extent: [u32; 3]) -> [u32; 3] {
        [extent[0].div_ceil(self.block[0]), extent[1].div_ceil(self.block[1]), extent[2]]
    }

    /// Bytes of an extent in texels, tightly packed in a buffer.
    pub(crate) fn size(&self, extent: [u32; 3]) -> u64 {
        self.blocks(extent).iter().map(|&count| u64::from(count)).product::<u64>() * u64::from(self.bytes)
    }

    /// Random bytes that are valid texels of the format: depth stays within 0 and 1.
    pub(crate) fn random(&self, seed: u32, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(4) as u32).map(|index| super::pattern(seed, index));
        let mut bytes: Vec<u8> = if self.vk == vk::Format::D32_SFLOAT {
            words.flat_map(|word| ((word >> 8) as f32 / 16_777_216.0).to_ne_bytes()).collect()
        } else {
            words.flat_map(u32::to_ne_bytes).collect()
        };
        bytes.truncate(len);
        bytes
    }
}

/// What an image is created with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageSpec {
    pub(crate) ty: vk::ImageType,
    pub(crate) format: vk::Format,
    pub(crate) extent: [u32; 3],
    pub(crate) levels: u32,
    pub(crate) layers: u32,
    pub(crate) flags: vk::ImageCreateFlags,
    pub(crate) usage: vk::ImageUsageFlags,
}

impl ImageSpec {
    pub(crate) fn info(&self) -> vk::ImageCreateInfo<'static> {
        let [width, height, depth] = self.extent;
        vk::ImageCreateInfo::default()
            .flags(self.flags)
            .image_type(self.ty)
            .format(self.format)
            .extent(vk::Extent3D { width, height, depth })
            .mip_levels(self.levels)
            .array_layers(self.layers)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::OPTIMAL)
            .usage(self.usage)
    }

    /// The view type that shows all layers without filtering across them.
    pub(crate) fn view_type(&self) -> vk::ImageViewType {
        match self.ty {
            vk::ImageType::TYPE_1D => vk::ImageViewType::TYPE_1D_ARRAY,
            vk::ImageType::TYPE_3D => vk::ImageViewType::TYPE_3D,
            _ => vk::ImageViewType::TYPE_2D_ARRAY,
        }
    }
}

/// The extent of a mip level.
pub(crate) fn level_extent(extent: [u32; 3], level: u32) -> [u32; 3] {
    extent.map(|length| (length >> level).max(1))
}

impl Gpu {
    /// Creates an image and brings it into layout GENERAL, where the suite leaves every image.
    ///
    /// # Errors
    /// `NotSupported` where the implementation does not offer the format with this type, size, usage and these flags.
    pub(crate) fn image(&self, spec: &ImageSpec) -> Outcome<vk::Image> {
        self.image_supported(spec)?;
        self.create_image(&spec.info())
    }

    /// `vkCreateImage`.
    pub(crate) fn create_image(&self, info: &vk::ImageCreateInfo<'_>) -> Outcome<vk::Image> {
        // SAFETY: the chain lives until the call returns.
        let image = unsafe { self.raw.create_image(info, None) }.called("vkCreateImage")?;
        self.own(Owned::Image(image));
        Ok(image)
    }

    /// Whether an image can be created.
    pub(crate) fn image_supported(&self, spec: &ImageSpec) -> Outcome {
        // SAFETY: the physical device is the instance's.
        let result = unsafe {
            self.instance.raw.get_physical_device_image_format_properties(
                self.physical,
                spec.format,
                spec.ty,
                vk::ImageTiling::OPTIMAL,
                spec.usage,
                spec.flags,
            )
        };
        let limits = match result {
            Ok(limits) => limits,
            Err(vk::Result::ERROR_FORMAT_NOT_SUPPORTED) => {
                return Err(Stop::NotSupported(format!(
                    "{:?} {:?} with {:?}",
                    spec.format, spec.ty, spec.flags
                )));
            }
            Err(error) => return Err(error).called("vkGetPhysicalDeviceImageFormatProperties"),
        };
        let max = limits.max_extent;
        let fits = spec.extent[0] <= max.width
            && spec.extent[1] <= max.height
            && spec.extent[2] <= max.depth
            && spec.levels <= limits.max_mip_levels
            && spec.layers <= limits.max_array_layers;
        if fits { Ok(()) } else { Err(Stop::NotSupported(format!("{spec:?} is larger than the limits"))) }
    }

    pub(crate) fn image_requirements(&self, image: vk::Image) -> vk::MemoryRequirements {
        // SAFETY: the image is this device's.
        unsafe { self.raw.get_image_memory_requirements(image) }
    }

    pub(crate) fn image_sparse_requirements(
        &self,
        image: vk::Image,
    ) -> Vec<vk::SparseImageMemoryRequirements> {
        // SAFETY: the image is this device's and made for sparse residency.
        unsafe { self.raw.get_image_sparse_memory_requirements(image) }
    }

    /// Binds memory to a plain image.
    pub(crate) fn bind_image(&self, image: vk::Image, memory: vk::DeviceMemory) -> Outcome {
        // SAFETY: both are this device's.
        unsafe { self.raw.bind_image_memory(image, memory, 0) }.called("vkBindImageMemory")
    }

    /// Moves all of an image from UNDEFINED to GENERAL.
    pub(crate) fn make_general(&self, image: vk::Image, aspect: vk::ImageAspectFlags) -> Outcome {
        let barrier = vk::ImageMemoryBarrier::default()
            .dst_access_mask(vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE)
            .old_layout(vk::ImageLayout::UNDEFINED)
            .new_layout(vk::ImageLayout::GENERAL)
            .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
            .image(image)
            .subresource_range(vk::ImageSubresourceRange {
                aspect_mask: aspect,
                base_mip_level: 0,
                level_count: vk::REMAINING_MIP_LEVELS,
                base_array_layer: 0,
                layer_count: vk::REMAINING_ARRAY_LAYERS,
            });
        let all = vk::PipelineStageFlags::ALL_COMMANDS;
        self.run(|command| {
            // SAFETY: the command buffer is recording; the image is this device's.
            unsafe {
                let dependency = vk::DependencyFlags::empty();
                self.raw.cmd_pipeline_barrier(command, all, all, dependency, &[], &[], &[barrier]);
            }
        })
    }

    /// A plain image like `spec` with memory of its own, in layout GENERAL.
    pub(crate) fn plain_image(&self, spec: &ImageSpec, aspect: vk::ImageAspectFlags) -> Outcome<vk::Image> {
        let sparse = vk::ImageCreateFlags::SPARSE_BINDING
            | vk::ImageCreateFlags::SPARSE_RESIDENCY
            | vk::ImageCreateFlags::SPARSE_ALIASED;
        let image = self.image(&ImageSpec { flags: spec.flags & !sparse, ..*spec })?;
        let requirements = self.image_requirements(image);
        let memory = self.memory(requirements.size, requirements.memory_type_bits)?;
        self.bind_image(image, memory)?;
        self.make_general(image, aspect)?;
        Ok(image)
    }

    /// A view of `levels` levels from `level` on and of all layers.
    pub(crate) fn image_view(
        &self,
        image: vk::Image,
        spec: &ImageSpec,
        ty: vk::ImageViewType,
        aspect: vk::ImageAspectFlags,
        level: u32,
        levels: u32,
    ) -> Outcome<vk::ImageView> {
        let info = vk::ImageViewCreateInfo::default()
            .image(image)
            .view_type(ty)
            .format(spec.format)
            .subresource_range(vk::ImageSubresourceRange {
                aspect_mask: aspect,
                base_mip_level: level,
                level_count: levels,
                base_array_layer: 0,
                layer_count: spec.layers,
            });
        // SAFETY: the image is this device's.
        let view = unsafe { self.raw.create_image_view(&info, None) }.called("vkCreateImageView")?;
        self.own(Owned::ImageView(view));
        Ok(view)
    }

    /// Copies boxes from a buffer to an image in layout GENERAL and waits.
    pub(crate) fn upload(&self, image: vk::Image, bytes: &[u8], regions: &[vk::BufferImageCopy]) -> Outcome {
        let host = self.host(bytes.len() as u64, vk::BufferUsageFlags::empty())?;
        host.write(bytes);
        self.run(|command| {
            // SAFETY: the command buffer is recording; image and buffer are this device's.
            unsafe {
                let layout = vk::ImageLayout::GENERAL;
                self.raw.cmd_copy_buffer_to_image(command, host.buffer, image, layout, regions);
            }
        })?;
        host.free();
        Ok(())
    }

    /// Copies boxes from an image in layout GENERAL to `len` bytes and waits.
    pub(crate) fn download(
        &self,
        image: vk::Image,
        len: u64,
        regions: &[vk::BufferImageCopy],
    ) -> Outcome<Vec<u8>> {
        let host = self.host(len, vk::BufferUsageFlags::empty())?;
        self.run(|command| {
            // SAFETY: the command buffer is recording; image and buffer are this device's.
            unsafe {
                let layout = vk::ImageLayout::GENERAL;
                self.raw.cmd_copy_image_to_buffer(command, image, layout, host.buffer, regions);
            }
        })?;
        let bytes = host.bytes();
        host.free();
        Ok(bytes)
    }
}

/// A copy region of one layer's box at `buffer_offset`, tightly packed.
pub(crate) fn region(
    buffer_offset: u64,
    aspect: vk::ImageAspectFlags,
    level: u32,
    layer: u32,
    offset: [u32; 3],
    extent: [u32; 3],
) -> vk::BufferImageCopy {
    let [x, y, z] = offset.map(|value| value as i32);
    let [width, height, depth] = extent;
    vk::BufferImageCopy {
        buffer_offset,
        buffer_row_length: 0,
        buffer_image_height: 0,
        image_subresource: vk::ImageSubresourceLayers {
            aspect_mask: aspect,
            mip_level: level,
            base_array_layer: layer,
            layer_count: 1,
        },
        image_offset: vk::Offset3D { x, y, z },
        image_extent: vk::Extent3D { width, height, depth },
    }
}

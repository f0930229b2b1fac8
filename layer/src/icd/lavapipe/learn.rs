//! What lavapipe can be asked, and what it says of its images.
//!
//! Known from Mesa 25.0.7: `src/gallium/drivers/llvmpipe/lp_texture.c` (layout, reservation, bitmap) and
//! `src/gallium/auxiliary/gallivm/lp_bld_jit_types.h` (`lp_jit_texture`, what a sampled image descriptor holds).

use crate::format::{self, Plane};
use crate::layout::PlaneLayout;
use ash::vk;
use core::ffi::{CStr, c_void};
use gpuvm::VaRange;
use thiserror::Error;

/// Device extensions that the layer turns on for itself.
pub const EXTENSIONS: [&CStr; 3] = [
    ash::khr::external_memory::NAME,
    ash::ext::external_memory_host::NAME,
    ash::ext::descriptor_buffer::NAME,
];

/// Why the layer cannot own binding on a lavapipe device.
#[derive(Debug, Error)]
pub enum Unsuitable {
    #[error(
        "it has no sparse binding (Mesa 25.0 or later has; on Debian 12: mesa-vulkan-drivers of bookworm-backports)"
    )]
    NoSparse,
    #[error("it lacks the device extension {0:?}")]
    Extension(&'static CStr),
    #[error("its device extensions cannot be listed: {0}")]
    Query(vk::Result),
}

/// Checks that the driver has what the layer needs of it.
pub fn check(instance: &ash::Instance, device: vk::PhysicalDevice) -> Result<(), Unsuitable> {
    // SAFETY: a physical device of this instance.
    let features = unsafe { instance.get_physical_device_features(device) };
    if features.sparse_binding == vk::FALSE {
        return Err(Unsuitable::NoSparse);
    }
    // SAFETY: as above.
    let extensions =
        unsafe { instance.enumerate_device_extension_properties(device) }.map_err(Unsuitable::Query)?;
    for wanted in EXTENSIONS {
        if !extensions.iter().any(|extension| extension.extension_name_as_c_str() == Ok(wanted)) {
            return Err(Unsuitable::Extension(wanted));
        }
    }
    Ok(())
}

/// Where the driver put one plane of a sparse image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlanePlace {
    pub range: VaRange,
    /// One bit a 64 KiB block, from the start of `range`.
    pub residency: *mut u32,
}

/// Why the place of an image could not be learnt.
#[derive(Debug, Error)]
pub enum LearnError {
    #[error("{call} failed: {result}")]
    Driver { call: &'static str, result: vk::Result },
    #[error("plane {plane}: the driver says {what} {driver:#x}, the layer expected {expected:#x}")]
    Mismatch { plane: usize, what: &'static str, driver: u64, expected: u64 },
    #[error("plane {plane}: {len:#x} bytes at {start:#x} are not reserved")]
    NotReserved { plane: usize, start: u64, len: u64 },
}

/// What `lp_jit_texture` says; offsets in bytes within the descriptor.
struct JitTexture([u8; Self::SIZE]);

impl JitTexture {
    /// The bytes that are read of a descriptor: up to the last mip offset.
    const SIZE: usize = Self::MIP_OFFSETS + 4 * Self::MAX_LEVELS;
    const MAX_LEVELS: usize = 15;
    const RESIDENCY: usize = 16;
    const MIP_OFFSETS: usize = 148;

    fn u64_at(&self, at: usize) -> u64 {
        u64::from_ne_bytes(core::array::from_fn(|n| self.0[at + n]))
    }
    fn base(&self) -> u64 {
        self.u64_at(0)
    }
    fn width(&self) -> u32 {
        self.u64_at(8) as u32
    }
    fn height(&self) -> u32 {
        u32::from((self.u64_at(8) >> 32) as u16)
    }
    fn residency(&self) -> *mut u32 {
        self.u64_at(Self::RESIDENCY) as usize as *mut u32
    }
    fn mip_offset(&self, level: usize) -> u64 {
        let at = Self::MIP_OFFSETS + 4 * level;
        u64::from(u32::from_ne_bytes(core::array::from_fn(|n| self.0[at + n])))
    }
}

/// The driver's functions that the layer needs for learning.
pub struct Functions {
    descriptor_buffer: ash::ext::descriptor_buffer::DeviceFn,
    external_memory_host: ash::ext::external_memory_host::DeviceFn,
    /// Bytes of a sampled image's descriptor.
    descriptor_size: usize,
}

impl Functions {
    /// `load` finds the functions of a device that was created with [`EXTENSIONS`] and the features descriptorBuffer and
    /// bufferDeviceAddress.
    pub fn new(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        load: impl Fn(&CStr) -> *const c_void,
    ) -> Self {
        let mut descriptors = vk::PhysicalDeviceDescriptorBufferPropertiesEXT::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut descriptors);
        // SAFETY: a physical device of this instance.
        unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
        Self {
            descriptor_buffer: ash::ext::descriptor_buffer::DeviceFn::load(&load),
            external_memory_host: ash::ext::external_memory_host::DeviceFn::load(&load),
            descriptor_size: descriptors.sampled_image_descriptor_size,
        }
    }

    /// Imports a range of the process's addresses as memory that plain resources can be bound to.
    ///
    /// # Safety
    /// The range stays reserved until the memory is freed.
    pub unsafe fn import_range(
        &self,
        device: &ash::Device,
        range: VaRange,
        memory_type_bits: u32,
    ) -> Result<vk::DeviceMemory, vk::Result> {
        let pointer = range.start as usize as *mut c_void;
        let handle_type = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let mut properties = vk::MemoryHostPointerPropertiesEXT::default();
        let get = self.external_memory_host.get_memory_host_pointer_properties_ext;
        // SAFETY: the range is reserved.
        unsafe { get(device.handle(), handle_type, pointer, &raw mut properties) }.result()?;
        let types = properties.memory_type_bits & memory_type_bits;
        if types == 0 {
            return Err(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE);
        }
        let mut flags = vk::MemoryAllocateFlagsInfo::default().flags(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
        let mut import =
            vk::ImportMemoryHostPointerInfoEXT::default().handle_type(handle_type).host_pointer(pointer);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(range.len)
            .memory_type_index(types.trailing_zeros())
            .push_next(&mut flags)
            .push_next(&mut import);
        // SAFETY: as above; lavapipe only notes the pointer.
        unsafe { device.allocate_memory(&info, None) }
    }

    /// Finds the planes of a new sparse image, whose usage includes SAMPLED, and compares what the driver says with what the layer
    /// computed: `layouts`, one a plane; none where the layer knows no more of a single plane than that it is the whole image.
    ///
    /// The temporary views take the driver's queue lock, as every view of the application does: the call can wait for a command
    /// buffer that is being executed.
    pub fn learn_image(
        &self,
        device: &ash::Device,
        image: vk::Image,
        info: &vk::ImageCreateInfo,
        planes: &[Plane],
        layouts: &[PlaneLayout],
    ) -> Result<Vec<PlanePlace>, LearnError> {
        // SAFETY: a new image of this device.
        let total = unsafe { device.get_image_memory_requirements(image) }.size;
        let mut places = Vec::with_capacity(planes.len());
        for (index, plane) in planes.iter().enumerate() {
            let texture = self.descriptor(device, image, info, plane)?;
            let expect = |what, driver: u64, expected: u64| {
                if driver == expected {
                    return Ok(());
                }
                Err(LearnError::Mismatch { plane: index, what, driver, expected })
            };
            let extent = plane.extent_of(info.extent);
            expect("width", texture.width().into(), extent.width.into())?;
            expect("height", texture.height().into(), extent.height.into())?;
            expect("base modulo page size", texture.base() % 4096, 0)?;
            expect("residency bitmap modulo word size", texture.residency() as u64 % 4, 0)?;
            expect("that there is a bitmap", u64::from(!texture.residency().is_null()), 1)?;
            let layout = layouts.get(index);
            for (number, level) in layout.iter().flat_map(|layout| layout.levels.iter().enumerate()) {
                if number < JitTexture::MAX_LEVELS {
                    expect("a level at offset", texture.mip_offset(number), level.offset)?;
                }
            }
            let size = layout.map_or(total, |layout| layout.size);
            let range = VaRange::new(texture.base(), size).map_err(|_| LearnError::NotReserved {
                plane: index,
                start: texture.base(),
                len: size,
            })?;
            if !is_reserved(range) {
                return Err(LearnError::NotReserved { plane: index, start: range.start, len: range.len });
            }
            places.push(PlanePlace { range, residency: texture.residency() });
        }
        let sum: u64 = places.iter().map(|place| place.range.len).sum();
        if sum != total {
            return Err(LearnError::Mismatch {
                plane: 0,
                what: "a size of all planes of",
                driver: total,
                expected: sum,
            });
        }
        Ok(places)
    }

    fn descriptor(
        &self,
        device: &ash::Device,
        image: vk::Image,
        info: &vk::ImageCreateInfo,
        plane: &Plane,
    ) -> Result<JitTexture, LearnError> {
        if self.descriptor_size < JitTexture::SIZE {
            return Err(LearnError::Mismatch {
                plane: 0,
                what: "a sampled image descriptor of bytes",
                driver: self.descriptor_size as u64,
                expected: JitTexture::SIZE as u64,
            });
        }
        let conversion = format::is_packed_422(plane.format)
            .then(|| Conversion::new(device, plane.format))
            .transpose()
            .map_err(|result| LearnError::Driver { call: "vkCreateSamplerYcbcrConversion", result })?;
        let mut conversion_info = vk::SamplerYcbcrConversionInfo::default();
        let mut usage = vk::ImageViewUsageCreateInfo::default().usage(vk::ImageUsageFlags::SAMPLED);
        let mut view_info = vk::ImageViewCreateInfo::default()
            .image(image)
            .format(plane.format)
            .view_type(view_type(info))
            .subresource_range(vk::ImageSubresourceRange {
                aspect_mask: plane.view_aspect,
                base_mip_level: 0,
                level_count: info.mip_levels,
                base_array_layer: 0,
                layer_count: info.array_layers,
            })
            .push_next(&mut usage);
        if let Some(conversion) = &conversion {
            conversion_info.conversion = conversion.handle;
            view_info = view_info.push_next(&mut conversion_info);
        }
        // SAFETY: an image of this device, its own format and whole range.
        let view = unsafe { device.create_image_view(&view_info, None) }
            .map_err(|result| LearnError::Driver { call: "vkCreateImageView", result })?;
        let image_info =
            vk::DescriptorImageInfo::default().image_view(view).image_layout(vk::ImageLayout::GENERAL);
        let get = vk::DescriptorGetInfoEXT::default()
            .ty(vk::DescriptorType::SAMPLED_IMAGE)
            .data(vk::DescriptorDataEXT { p_sampled_image: &raw const image_info });
        let mut bytes = vec![0u8; self.descriptor_size];
        // SAFETY: the buffer has the size that the driver asks for.
        unsafe {
            (self.descriptor_buffer.get_descriptor_ext)(
                device.handle(),
                &raw const get,
                bytes.len(),
                bytes.as_mut_ptr().cast(),
            );
            device.destroy_image_view(view, None);
        }
        Ok(JitTexture(core::array::from_fn(|n| bytes[n])))
    }
}

/// A colour conversion, without which a view of some formats is not valid; nobody samples with it.
struct Conversion<'a> {
    device: &'a ash::Device,
    handle: vk::SamplerYcbcrConversion,
}

impl<'a> Conversion<'a> {
    /// The device has the feature samplerYcbcrConversion on.
    fn new(device: &'a ash::Device, format: vk::Format) -> Result<Self, vk::Result> {
        let info = vk::SamplerYcbcrConversionCreateInfo::default()
            .format(format)
            .ycbcr_model(vk::SamplerYcbcrModelConversion::RGB_IDENTITY)
            .x_chroma_offset(vk::ChromaLocation::MIDPOINT)
            .y_chroma_offset(vk::ChromaLocation::MIDPOINT)
            .chroma_filter(vk::Filter::NEAREST);
        // SAFETY: a device of ours.
        let handle = unsafe { device.create_sampler_ycbcr_conversion(&info, None) }?;
        Ok(Self { device, handle })
    }
}

impl Drop for Conversion<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`; the view that was made with it is gone.
        unsafe { self.device.destroy_sampler_ycbcr_conversion(self.handle, None) };
    }
}

fn view_type(info: &vk::ImageCreateInfo) -> vk::ImageViewType {
    match (info.image_type, info.array_layers > 1) {
        (vk::ImageType::TYPE_3D, _) => vk::ImageViewType::TYPE_3D,
        (vk::ImageType::TYPE_1D, false) => vk::ImageViewType::TYPE_1D,
        (vk::ImageType::TYPE_1D, true) => vk::ImageViewType::TYPE_1D_ARRAY,
        (_, false) => vk::ImageViewType::TYPE_2D,
        (_, true) => vk::ImageViewType::TYPE_2D_ARRAY,
    }
}

/// Whether every page of the range belongs to some mapping of the process.
fn is_reserved(range: VaRange) -> bool {
    let start = range.start as usize as *mut c_void;
    // SAFETY: "normal" is the advice in force by default; all that is wanted is ENOMEM for holes.
    unsafe { rustix::mm::madvise(start, range.len as usize, rustix::mm::Advice::Normal) }.is_ok()
}

/// Bytes of a texel block in the driver's own layout, where it differs from the format's definition.
pub fn texel_bytes(format: vk::Format) -> Option<u32> {
    match format {
        // Stored as a float and a padded stencil word.
        vk::Format::D32_SFLOAT_S8_UINT => Some(8),
        // The driver has these, Debian 12's vk.xml has not.
        vk::Format::A8_UNORM_KHR => Some(1),
        vk::Format::A1B5G5R5_UNORM_PACK16_KHR => Some(2),
        _ => format::info(format).map(|info| info.block_bytes),
    }
}

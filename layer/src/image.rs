//! Sparse images: the driver's own, which shaders address block by block; an adapter learns where they are, the layer owns what is
//! bound.

use crate::added::sharing;
use crate::address_space::BoId;
use crate::arrays::write_array;
use crate::device::{Sparse, on_device};
use crate::icd::ImageRequirements;
use crate::layout::PlaneLayout;
use crate::resource::{self, CreateError};
use ash::vk;
use gpuvm::{OpKind, VaRange};

/// The flags that make an image sparse.
const SPARSE: vk::ImageCreateFlags = vk::ImageCreateFlags::from_raw(
    vk::ImageCreateFlags::SPARSE_BINDING.as_raw()
        | vk::ImageCreateFlags::SPARSE_RESIDENCY.as_raw()
        | vk::ImageCreateFlags::SPARSE_ALIASED.as_raw(),
);

/// A sparse image.
pub struct Image {
    /// Bytes that opaque binds may cover.
    pub size: u64,
    /// Bytes that opaque binds are multiples of.
    pub alignment: u64,
    /// Where those bytes are: ranges one after another.
    pub opaque: Vec<VaRange>,
    /// Bytes behind each of them that binds may name, and that are no memory of the image.
    pub padding: u64,
    /// What opaque binds reach by other offsets, or not without a flag.
    pub regions: Vec<Region>,
    pub planes: Vec<ImagePlane>,
    /// Binds of its blocks are not to be planned.
    pub as_is: bool,
    /// Created with SPARSE_RESIDENCY: single blocks can be bound, and unbound ones touched.
    pub residency: bool,
    /// What is where no memory is bound.
    pub unbound: OpKind<BoId>,
    /// What the queries for memory requirements answer, where that is not for the driver to say.
    pub requirements: Option<ImageRequirements>,
}

/// A part of an image that is bound opaquely, apart from [`Image::size`].
pub struct Region {
    /// The `resourceOffset` of its first byte.
    pub offset: u64,
    pub range: VaRange,
    /// Whether VK_SPARSE_MEMORY_BIND_METADATA_BIT leads here.
    pub metadata: bool,
}

/// A plane of a sparse image.
pub struct ImagePlane {
    pub aspects: vk::ImageAspectFlags,
    pub range: VaRange,
    /// `None` for images that are bound opaquely only and have no block shape.
    pub layout: Option<PlaneLayout>,
}

/// The rules of VkImageCreateInfo that concern sparse binding.
fn check(info: &vk::ImageCreateInfo<'_>, enabled: &vk::PhysicalDeviceFeatures) -> Result<(), CreateError> {
    let flags = info.flags;
    let rule = |holds, text| if holds { Ok(()) } else { Err(CreateError::Rule(text)) };
    rule(
        flags.contains(vk::ImageCreateFlags::SPARSE_BINDING),
        "SPARSE_RESIDENCY and SPARSE_ALIASED need SPARSE_BINDING (VUID-VkImageCreateInfo-flags-00987)",
    )?;
    rule(
        !flags.contains(vk::ImageCreateFlags::SPARSE_ALIASED) || enabled.sparse_residency_aliased == vk::TRUE,
        "the feature sparseResidencyAliased is not enabled (VUID-VkImageCreateInfo-flags-01924)",
    )?;
    if !flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY) {
        return Ok(());
    }
    rule(
        info.tiling != vk::ImageTiling::LINEAR,
        "SPARSE_RESIDENCY needs optimal tiling (VUID-VkImageCreateInfo-tiling-04121)",
    )?;
    let sampled = match info.samples {
        vk::SampleCountFlags::TYPE_1 => vk::TRUE,
        vk::SampleCountFlags::TYPE_2 => enabled.sparse_residency2_samples,
        vk::SampleCountFlags::TYPE_4 => enabled.sparse_residency4_samples,
        vk::SampleCountFlags::TYPE_8 => enabled.sparse_residency8_samples,
        vk::SampleCountFlags::TYPE_16 => enabled.sparse_residency16_samples,
        _ => vk::FALSE,
    };
    rule(
        sampled == vk::TRUE,
        "the feature of sparse residency with so many samples is not enabled (VUID-VkImageCreateInfo-imageType-00973 to -00976)",
    )?;
    rule(
        info.image_type != vk::ImageType::TYPE_1D,
        "1D images have no sparse residency (VUID-VkImageCreateInfo-imageType-00970)",
    )?;
    rule(
        info.image_type != vk::ImageType::TYPE_2D || enabled.sparse_residency_image2_d == vk::TRUE,
        "the feature sparseResidencyImage2D is not enabled (VUID-VkImageCreateInfo-imageType-00971)",
    )?;
    rule(
        info.image_type != vk::ImageType::TYPE_3D || enabled.sparse_residency_image3_d == vk::TRUE,
        "the feature sparseResidencyImage3D is not enabled (VUID-VkImageCreateInfo-imageType-00972)",
    )
}

pub(crate) unsafe extern "system" fn create_image(
    device: vk::Device,
    info: *const vk::ImageCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    image: *mut vk::Image,
) -> vk::Result {
    on_device(device, "vkCreateImage", |d, sparse| {
        // SAFETY: the application's valid arguments.
        let create_info = unsafe { &*info };
        // SAFETY: as above.
        let translated = unsafe { sharing::for_driver(d, create_info) };
        let create_info = translated.as_ref().map_or(create_info, |translated| translated.info());
        let Some(sparse) = sparse.filter(|_| create_info.flags.intersects(SPARSE)) else {
            // SAFETY: as above, handed on.
            return unsafe { (d.next.fp_v1_0().create_image)(device, create_info, allocator, image) };
        };
        // SAFETY: as above.
        unsafe {
            let made = check(create_info, &sparse.features)
                .and_then(|()| sparse.icd.create_image(d, sparse, create_info, allocator.as_ref()));
            resource::hand_out("vkCreateImage", made, &sparse.images, image)
        }
    })
}

pub(crate) unsafe extern "system" fn destroy_image(
    device: vk::Device,
    image: vk::Image,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    on_device(device, "vkDestroyImage", |d, sparse| {
        if let Some((sparse, record)) = sparse.and_then(|sparse| Some((sparse, sparse.images.remove(image)?)))
        {
            sparse.icd.release_image(sparse, &record);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().destroy_image)(device, image, allocator) };
    });
}

pub(crate) unsafe extern "system" fn get_image_memory_requirements(
    device: vk::Device,
    image: vk::Image,
    out: *mut vk::MemoryRequirements,
) {
    on_device(device, "vkGetImageMemoryRequirements", |d, sparse| {
        // SAFETY: the application's valid arguments, handed on; then `out` is written.
        unsafe {
            (d.next.fp_v1_0().get_image_memory_requirements)(device, image, out);
            if let Some(requirements) = own_memory_requirements(sparse, image) {
                *out = requirements;
            }
        }
    });
}

pub(crate) unsafe extern "system" fn get_image_memory_requirements2(
    device: vk::Device,
    info: *const vk::ImageMemoryRequirementsInfo2<'_>,
    out: *mut vk::MemoryRequirements2<'_>,
) {
    on_device(device, "vkGetImageMemoryRequirements2", |d, sparse| {
        // SAFETY: the application's valid arguments, handed on; then `out` is written.
        unsafe {
            (d.next.fp_v1_1().get_image_memory_requirements2)(device, info, out);
            if let Some(requirements) = own_memory_requirements(sparse, (*info).image) {
                (*out).memory_requirements = requirements;
            }
        }
    });
}

/// What an image needs, where that is not for the driver to say.
fn own_memory_requirements(sparse: Option<&Sparse>, image: vk::Image) -> Option<vk::MemoryRequirements> {
    sparse?.images.get(image)?.requirements.as_ref()?.memory
}

pub(crate) unsafe extern "system" fn get_device_image_memory_requirements(
    device: vk::Device,
    info: *const vk::DeviceImageMemoryRequirements<'_>,
    out: *mut vk::MemoryRequirements2<'_>,
) {
    on_device(device, "vkGetDeviceImageMemoryRequirements", |d, sparse| {
        // SAFETY: the application's valid arguments.
        let (mut query, mut create_info) = unsafe { (*info, *(*info).p_create_info) };
        let own = sparse
            .filter(|_| create_info.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY))
            // SAFETY: as above.
            .and_then(|sparse| unsafe { sparse.icd.image_requirements(d, &create_info) }?.memory);
        if own.is_some() {
            // The driver still answers for what extends the answer.
            create_info.flags &= !vk::ImageCreateFlags::SPARSE_RESIDENCY;
        }
        // SAFETY: as above, handed on; then `out` is written.
        unsafe {
            let translated = sharing::for_driver(d, &create_info);
            query.p_create_info = translated.as_ref().map_or(&create_info, |translated| translated.info());
            (d.next.fp_v1_3().get_device_image_memory_requirements)(device, &raw const query, out);
            if let Some(requirements) = own {
                (*out).memory_requirements = requirements;
            }
        }
    });
}

pub(crate) unsafe extern "system" fn get_image_sparse_memory_requirements(
    device: vk::Device,
    image: vk::Image,
    count: *mut u32,
    out: *mut vk::SparseImageMemoryRequirements,
) {
    on_device(device, "vkGetImageSparseMemoryRequirements", |d, sparse| {
        let record = sparse.and_then(|sparse| sparse.images.get(image));
        match record.as_ref().and_then(|record| record.requirements.as_ref()) {
            // SAFETY: the application's count and array, as the specification describes them.
            Some(ImageRequirements { sparse: requirements, .. }) => unsafe {
                write_array(requirements, count, out, |slot, value| *slot = value);
            },
            // SAFETY: the application's valid arguments, handed on.
            None => unsafe {
                (d.next.fp_v1_0().get_image_sparse_memory_requirements)(device, image, count, out)
            },
        }
    });
}

pub(crate) unsafe extern "system" fn get_image_sparse_memory_requirements2(
    device: vk::Device,
    info: *const vk::ImageSparseMemoryRequirementsInfo2<'_>,
    count: *mut u32,
    out: *mut vk::SparseImageMemoryRequirements2<'_>,
) {
    on_device(device, "vkGetImageSparseMemoryRequirements2", |d, sparse| {
        // SAFETY: the application's valid arguments.
        let image = unsafe { (*info).image };
        let record = sparse.and_then(|sparse| sparse.images.get(image));
        match record.as_ref().and_then(|record| record.requirements.as_ref()) {
            // SAFETY: the application's count and array, as the specification describes them.
            Some(ImageRequirements { sparse: requirements, .. }) => unsafe {
                write_array(requirements, count, out, |slot, value| slot.memory_requirements = value);
            },
            // SAFETY: the application's valid arguments, handed on.
            None => unsafe {
                (d.next.fp_v1_1().get_image_sparse_memory_requirements2)(device, info, count, out)
            },
        }
    });
}

pub(crate) unsafe extern "system" fn get_device_image_sparse_memory_requirements(
    device: vk::Device,
    info: *const vk::DeviceImageMemoryRequirements<'_>,
    count: *mut u32,
    out: *mut vk::SparseImageMemoryRequirements2<'_>,
) {
    on_device(device, "vkGetDeviceImageSparseMemoryRequirements", |d, sparse| {
        // SAFETY: the application's valid arguments.
        let create_info = unsafe { &*(*info).p_create_info };
        let own = sparse
            .filter(|_| create_info.flags.intersects(SPARSE))
            // SAFETY: as above.
            .and_then(|sparse| unsafe { sparse.icd.image_requirements(d, create_info) });
        let Some(ImageRequirements { sparse: requirements, .. }) = own else {
            let next = d.next.fp_v1_3().get_device_image_sparse_memory_requirements;
            // SAFETY: as above, handed on.
            return unsafe {
                let translated = sharing::for_driver(d, create_info);
                let mut query = *info;
                query.p_create_info = translated.as_ref().map_or(create_info, |translated| translated.info());
                next(device, &raw const query, count, out)
            };
        };
        // SAFETY: the application's count and array, as the specification describes them.
        unsafe {
            write_array(&requirements, count, out, |slot, value| slot.memory_requirements = value);
        }
    });
}

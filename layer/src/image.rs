//! Sparse images: the driver's own, which shaders address block by block; the layer learns where they are and owns what is bound.

use crate::added::sharing;
use crate::arrays::write_array;
use crate::chain::ChainCopy;
use crate::device::{Device, Sparse, on_device};
use crate::format::{self, Plane};
use crate::icd::lavapipe::PlanePlace;
use crate::layout::PlaneLayout;
use crate::report;
use crate::residency::Residency;
use crate::resource::{self, CreateError};
use ash::vk;

/// The flags that make an image sparse.
const SPARSE: vk::ImageCreateFlags = vk::ImageCreateFlags::from_raw(
    vk::ImageCreateFlags::SPARSE_BINDING.as_raw()
        | vk::ImageCreateFlags::SPARSE_RESIDENCY.as_raw()
        | vk::ImageCreateFlags::SPARSE_ALIASED.as_raw(),
);

/// A sparse image.
pub struct Image {
    /// Bytes that opaque binds may cover: the planes one after another.
    pub size: u64,
    pub planes: Vec<ImagePlane>,
    /// Created with SPARSE_RESIDENCY: single blocks can be bound, and unbound ones touched.
    pub residency: bool,
    /// What the queries for sparse memory requirements answer.
    requirements: Vec<vk::SparseImageMemoryRequirements>,
}

/// A plane of a sparse image.
pub struct ImagePlane {
    pub aspects: vk::ImageAspectFlags,
    pub place: PlanePlace,
    /// `None` for images that are bound opaquely only and have no block shape.
    pub layout: Option<PlaneLayout>,
}

// SAFETY: the pointer in `place` is an address that the residency bitmap is made of; it is never read through here.
unsafe impl Send for Image {}
// SAFETY: as above.
unsafe impl Sync for Image {}

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
    rule(
        info.samples == vk::SampleCountFlags::TYPE_1,
        "sparse residency of multisampled images is not offered (VUID-VkImageCreateInfo-imageType-00973)",
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

/// # Safety
/// `info` is valid; `allocator` too.
unsafe fn create(
    d: &Device,
    sparse: &Sparse,
    info: &vk::ImageCreateInfo<'_>,
    allocator: Option<&vk::AllocationCallbacks<'_>>,
) -> Result<(vk::Image, Image), CreateError> {
    check(info, &sparse.features)?;
    let residency = info.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY);
    let planes = format::planes(info.format);
    let requirements = if residency { residency_requirements(d, info)? } else { Vec::new() };
    // SAFETY: the caller's promise.
    let mut chain =
        unsafe { ChainCopy::new_until(info.p_next, &[vk::StructureType::IMAGE_STENCIL_USAGE_CREATE_INFO]) };
    if let Some(stencil) = chain.get_mut::<vk::ImageStencilUsageCreateInfo<'_>>() {
        stencil.stencil_usage |= vk::ImageUsageFlags::SAMPLED;
    }
    // The image's place is learnt from the descriptor of a sampled view, a view a plane.
    let mut learnable = *info;
    learnable.usage |= vk::ImageUsageFlags::SAMPLED;
    if planes.len() > 1 {
        learnable.flags |= vk::ImageCreateFlags::MUTABLE_FORMAT;
    }
    learnable.p_next = chain.as_ptr();
    // SAFETY: the application's valid arguments, edited.
    let handle = unsafe { d.next.create_image(&learnable, allocator) }
        .map_err(|result| CreateError::Driver { call: "vkCreateImage", result })?;
    match place(d, sparse, handle, &learnable, &planes) {
        Ok(planes) => {
            let size = planes.iter().map(|plane| plane.place.range.len).sum();
            Ok((handle, Image { size, planes, residency, requirements }))
        }
        Err(error) => {
            // SAFETY: the image was made here and nobody knows it.
            unsafe { d.next.destroy_image(handle, allocator) };
            Err(error)
        }
    }
}

/// What is offered for the image, with the mip tail that lavapipe does not have: every level takes whole blocks.
fn residency_requirements(
    d: &Device,
    info: &vk::ImageCreateInfo<'_>,
) -> Result<Vec<vk::SparseImageMemoryRequirements>, CreateError> {
    let query = vk::PhysicalDeviceSparseImageFormatInfo2::default()
        .format(info.format)
        .ty(info.image_type)
        .samples(info.samples)
        .usage(info.usage)
        .tiling(info.tiling);
    let offered = report::sparse_properties(&d.instance.next, d.physical, &query);
    if offered.is_empty() {
        return Err(CreateError::Format(info.format));
    }
    let with_tail = offered.into_iter().map(|format_properties| vk::SparseImageMemoryRequirements {
        format_properties,
        image_mip_tail_first_lod: info.mip_levels,
        ..Default::default()
    });
    Ok(with_tail.collect())
}

/// Learns where the image is and opens its windows.
fn place(
    d: &Device,
    sparse: &Sparse,
    handle: vk::Image,
    info: &vk::ImageCreateInfo<'_>,
    planes: &[Plane],
) -> Result<Vec<ImagePlane>, CreateError> {
    // Block layouts do not depend on residency, but only where there is a standard shape are they known.
    let shaped = info.samples == vk::SampleCountFlags::TYPE_1;
    let layouts: Option<Vec<_>> = planes
        .iter()
        .map(|plane| {
            let granularity = plane.granularity(info.image_type).filter(|_| shaped)?;
            Some(PlaneLayout::new(
                plane.extent_of(info.extent),
                granularity,
                info.mip_levels,
                info.array_layers,
            ))
        })
        .collect();
    let known = layouts.as_deref().unwrap_or(&[]);
    let places = sparse.icd.learn_image(&d.next, handle, info, planes, known)?;
    let mut layouts = layouts.into_iter().flatten();
    let placed: Vec<_> = planes
        .iter()
        .zip(places)
        .map(|(plane, place)| ImagePlane { aspects: plane.aspects, place, layout: layouts.next() })
        .collect();
    for (opened, plane) in placed.iter().enumerate() {
        // SAFETY: the driver's bitmap has a bit for every block of the plane and lives as long as the image; the window that holds
        // this is closed before the image is destroyed.
        let residency = unsafe { Residency::new(plane.place.residency, plane.place.range.start) };
        if let Err(error) = sparse.open_window(plane.place.range, Some(residency)) {
            release(&placed[..opened], sparse);
            return Err(error.into());
        }
    }
    Ok(placed)
}

fn release(planes: &[ImagePlane], sparse: &Sparse) {
    for plane in planes {
        sparse.close_window(plane.place.range);
    }
}

impl Image {
    /// Takes the addresses away, before the driver gives them back: they may belong to somebody else the next moment.
    pub fn release(&self, sparse: &Sparse) {
        release(&self.planes, sparse);
    }
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
            let made = create(d, sparse, create_info, allocator.as_ref());
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
            record.release(sparse);
        }
        // SAFETY: the application's valid arguments, handed on.
        unsafe { (d.next.fp_v1_0().destroy_image)(device, image, allocator) };
    });
}

pub(crate) unsafe extern "system" fn get_image_sparse_memory_requirements(
    device: vk::Device,
    image: vk::Image,
    count: *mut u32,
    out: *mut vk::SparseImageMemoryRequirements,
) {
    on_device(device, "vkGetImageSparseMemoryRequirements", |d, sparse| {
        match sparse.and_then(|sparse| sparse.images.get(image)) {
            // SAFETY: the application's count and array, as the specification describes them.
            Some(record) => unsafe {
                write_array(&record.requirements, count, out, |slot, value| *slot = value);
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
        match sparse.and_then(|sparse| sparse.images.get(image)) {
            // SAFETY: the application's count and array, as the specification describes them.
            Some(record) => unsafe {
                write_array(&record.requirements, count, out, |slot, value| slot.memory_requirements = value);
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
        if sparse.is_none() || !create_info.flags.intersects(SPARSE) {
            let next = d.next.fp_v1_3().get_device_image_sparse_memory_requirements;
            // SAFETY: as above, handed on.
            return unsafe {
                let translated = sharing::for_driver(d, create_info);
                let mut query = *info;
                query.p_create_info = translated.as_ref().map_or(create_info, |translated| translated.info());
                next(device, &raw const query, count, out)
            };
        }
        let residency = create_info.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY);
        let requirements =
            residency.then(|| residency_requirements(d, create_info).ok()).flatten().unwrap_or_default();
        // SAFETY: the application's count and array, as the specification describes them.
        unsafe {
            write_array(&requirements, count, out, |slot, value| slot.memory_requirements = value);
        }
    });
}

//! Sparse images on lavapipe: the driver's own, which shaders address block by block; the layer learns where they are.

use super::Lavapipe;
use super::learn::PlanePlace;
use crate::chain::ChainCopy;
use crate::device::{Device, Sparse};
use crate::format::{self, Plane};
use crate::icd::ImageRequirements;
use crate::image::{Image, ImagePlane};
use crate::layout::{BLOCK, PlaneLayout};
use crate::report;
use crate::residency::Residency;
use crate::resource::CreateError;
use ash::vk;
use gpuvm::OpKind;

/// What is offered for the image, with the mip tail that lavapipe does not have: every level takes whole blocks.
pub fn requirements(
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

impl Lavapipe {
    /// # Safety
    /// `info` is valid; `allocator` too.
    pub(super) unsafe fn make_image(
        &self,
        d: &Device,
        sparse: &Sparse,
        info: &vk::ImageCreateInfo<'_>,
        allocator: Option<&vk::AllocationCallbacks<'_>>,
    ) -> Result<(vk::Image, Image), CreateError> {
        let residency = info.flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY);
        let planes = format::planes(info.format);
        let needs = if residency { requirements(d, info)? } else { Vec::new() };
        // SAFETY: the caller's promise.
        let mut chain = unsafe {
            ChainCopy::new_until(info.p_next, &[vk::StructureType::IMAGE_STENCIL_USAGE_CREATE_INFO])
        };
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
        match self.place_image(d, sparse, handle, &learnable, &planes) {
            Ok(planes) => {
                let opaque: Vec<_> = planes.iter().map(|plane| plane.range).collect();
                let image = Image {
                    size: opaque.iter().map(|range| range.len).sum(),
                    alignment: BLOCK,
                    opaque,
                    padding: 0,
                    regions: Vec::new(),
                    planes,
                    as_is: false,
                    residency,
                    unbound: OpKind::Null,
                    requirements: Some(ImageRequirements { memory: None, sparse: needs }),
                };
                Ok((handle, image))
            }
            Err(error) => {
                // SAFETY: the image was made here and nobody knows it.
                unsafe { d.next.destroy_image(handle, allocator) };
                Err(error)
            }
        }
    }

    /// Learns where the image is and opens its windows.
    fn place_image(
        &self,
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
                    BLOCK,
                ))
            })
            .collect();
        let known = layouts.as_deref().unwrap_or(&[]);
        let places = self.functions.learn_image(&d.next, handle, info, planes, known)?;
        let mut layouts = layouts.into_iter().flatten();
        for (opened, PlanePlace { range, residency }) in places.iter().enumerate() {
            // SAFETY: the driver's bitmap has a bit for every block of the plane and lives as long as the image; the window that
            // holds this is closed before the image is destroyed.
            let residency = unsafe { Residency::new(*residency, range.start) };
            if let Err(error) = self.open_window(sparse, *range, Some(residency)) {
                places[..opened].iter().for_each(|place| self.close_window(sparse, place.range));
                return Err(error.into());
            }
        }
        let placed = planes.iter().zip(places).map(|(plane, place)| ImagePlane {
            aspects: plane.aspects,
            range: place.range,
            layout: layouts.next(),
        });
        Ok(placed.collect())
    }
}

//! Formats as sparse images see them: planes, texel blocks, granularity.

pub use crate::vk_registry::{FormatInfo, format_info as info};

use crate::icd::lavapipe;
use crate::layout::standard_block_shape;
use ash::vk;

/// One memory plane of a format, and of any other format the whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plane {
    /// The aspects that a bind names for this plane, and that queries report.
    pub aspects: vk::ImageAspectFlags,
    /// One aspect, for a view of the plane.
    pub view_aspect: vk::ImageAspectFlags,
    /// The format of a view of the plane.
    pub format: vk::Format,
    /// Bytes of a texel block as the driver stores it.
    pub texel_bytes: u32,
    /// Extent of a texel block in texels.
    pub block: vk::Extent3D,
    /// What the image's extent is divided by in this plane.
    pub divisors: [u32; 2],
}

impl Plane {
    /// Extent of the plane in its own texels.
    pub fn extent_of(&self, image: vk::Extent3D) -> vk::Extent3D {
        vk::Extent3D {
            width: image.width / self.divisors[0],
            height: image.height / self.divisors[1],
            depth: image.depth,
        }
    }

    /// Extent of a sparse block in texels of the plane; `None` where there is no standard shape.
    pub fn granularity(&self, image_type: vk::ImageType) -> Option<vk::Extent3D> {
        let shape = standard_block_shape(image_type, self.texel_bytes)?;
        Some(vk::Extent3D {
            width: shape.width * self.block.width,
            height: shape.height * self.block.height,
            depth: shape.depth * self.block.depth,
        })
    }
}

/// Whether two texels share their chroma in one plane: a view for sampling then needs a colour conversion.
pub fn is_packed_422(format: vk::Format) -> bool {
    info(format).is_some_and(|info| !info.compressed && info.planes.is_empty() && info.block_extent != [1; 3])
}

/// The planes of a format. One that the registry does not know is a single plane of colour.
pub fn planes(format: vk::Format) -> Vec<Plane> {
    let Some(whole) = info(format) else {
        let color = vk::ImageAspectFlags::COLOR;
        let block = vk::Extent3D { width: 1, height: 1, depth: 1 };
        let texel_bytes = lavapipe::texel_bytes(format).unwrap_or(0);
        return vec![Plane {
            aspects: color,
            view_aspect: color,
            format,
            texel_bytes,
            block,
            divisors: [1, 1],
        }];
    };
    let plane = |format, aspects, view_aspect, divisors| {
        let info = info(format)?;
        let [width, height, depth] = info.block_extent;
        Some(Plane {
            aspects,
            view_aspect,
            format,
            texel_bytes: lavapipe::texel_bytes(format)?,
            block: vk::Extent3D { width, height, depth },
            divisors,
        })
    };
    if whole.planes.is_empty() {
        let aspects = aspects(whole);
        let view_aspect =
            [vk::ImageAspectFlags::COLOR, vk::ImageAspectFlags::DEPTH, vk::ImageAspectFlags::STENCIL]
                .into_iter()
                .find(|&aspect| aspects.contains(aspect))
                .unwrap_or(vk::ImageAspectFlags::COLOR);
        return plane(format, aspects, view_aspect, [1, 1]).into_iter().collect();
    }
    let names = [vk::ImageAspectFlags::PLANE_0, vk::ImageAspectFlags::PLANE_1, vk::ImageAspectFlags::PLANE_2];
    let planes = whole.planes.iter().zip(names);
    planes
        .filter_map(|(info, aspect)| {
            plane(info.compatible, aspect, aspect, [info.width_divisor, info.height_divisor])
        })
        .collect()
}

fn aspects(info: &FormatInfo) -> vk::ImageAspectFlags {
    let mut aspects = vk::ImageAspectFlags::empty();
    if info.depth_bits > 0 {
        aspects |= vk::ImageAspectFlags::DEPTH;
    }
    if info.stencil_bits > 0 {
        aspects |= vk::ImageAspectFlags::STENCIL;
    }
    if aspects.is_empty() { vk::ImageAspectFlags::COLOR } else { aspects }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granularity(format: vk::Format, image_type: vk::ImageType) -> Vec<Option<(u32, u32, u32)>> {
        let shapes = planes(format).into_iter().map(|plane| plane.granularity(image_type));
        shapes.map(|shape| shape.map(|e| (e.width, e.height, e.depth))).collect()
    }

    #[test]
    fn granularity_is_in_texels() {
        use vk::{Format as F, ImageType as T};
        assert_eq!(granularity(F::R8G8B8A8_UNORM, T::TYPE_2D), [Some((128, 128, 1))]);
        assert_eq!(granularity(F::R8G8B8A8_UNORM, T::TYPE_3D), [Some((32, 32, 16))]);
        assert_eq!(granularity(F::BC1_RGB_UNORM_BLOCK, T::TYPE_2D), [Some((512, 256, 1))]);
        assert_eq!(granularity(F::BC3_UNORM_BLOCK, T::TYPE_2D), [Some((256, 256, 1))]);
        assert_eq!(granularity(F::R32G32B32_SFLOAT, T::TYPE_2D), [None]);
        assert_eq!(granularity(F::A8_UNORM_KHR, T::TYPE_2D), [Some((256, 256, 1))]);
        assert_eq!(granularity(F::UNDEFINED, T::TYPE_2D), [None]);
        assert_eq!(granularity(F::D16_UNORM, T::TYPE_2D), [Some((256, 128, 1))]);
        assert_eq!(granularity(F::G8_B8_R8_3PLANE_420_UNORM, T::TYPE_2D), [Some((256, 256, 1)); 3]);
        assert_eq!(
            granularity(F::G8_B8R8_2PLANE_420_UNORM, T::TYPE_2D),
            [Some((256, 256, 1)), Some((256, 128, 1))]
        );
    }

    #[test]
    fn packed_422_is_told_from_other_blocks() {
        assert!(is_packed_422(vk::Format::G8B8G8R8_422_UNORM));
        assert!(is_packed_422(vk::Format::B10X6G10X6R10X6G10X6_422_UNORM_4PACK16));
        for other in [
            vk::Format::R8G8B8A8_UNORM,
            vk::Format::BC1_RGB_UNORM_BLOCK,
            vk::Format::G8_B8R8_2PLANE_422_UNORM,
            vk::Format::UNDEFINED,
        ] {
            assert!(!is_packed_422(other), "{other:?}");
        }
    }

    #[test]
    fn aspects_name_what_is_bound() {
        use vk::ImageAspectFlags as A;
        let of = |format| planes(format).iter().map(|plane| plane.aspects).collect::<Vec<_>>();
        assert_eq!(of(vk::Format::R8_UNORM), [A::COLOR]);
        assert_eq!(of(vk::Format::D32_SFLOAT), [A::DEPTH]);
        assert_eq!(of(vk::Format::S8_UINT), [A::STENCIL]);
        assert_eq!(of(vk::Format::D24_UNORM_S8_UINT), [A::DEPTH | A::STENCIL]);
        assert_eq!(of(vk::Format::G8_B8R8_2PLANE_420_UNORM), [A::PLANE_0, A::PLANE_1]);
        assert_eq!(of(vk::Format::UNDEFINED), [A::COLOR]);
    }
}

//! What is bound in an image, wherever the image is, and however far its layers are apart.

use crate::gpu::Gpu;
use crate::node::Mapping;
use ash::vk;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// How the layers of a colour image lie.
pub struct Layers {
    count: u64,
    /// Bytes from one to the next.
    stride: u64,
    /// Bytes of them in which there are levels.
    used: u64,
    /// What is said to be needed of the image.
    pub needs: String,
}

/// A part of a layer, and what is bound there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Piece {
    layer: u64,
    /// Bytes from the start of the layer.
    at: u64,
    len: u64,
    object: Option<u64>,
    offset: u64,
}

impl Layers {
    pub fn of(gpu: &Gpu, image: vk::Image, levels: u32, layers: u32, needs: String) -> Self {
        let told = |mip_level| {
            let aspect_mask = vk::ImageAspectFlags::COLOR;
            let subresource = vk::ImageSubresource { aspect_mask, mip_level, array_layer: 0 };
            // The specification keeps the answer for linear images to itself; the drivers here give it for all.
            // SAFETY: an image, and a subresource of it.
            unsafe { gpu.device.get_image_subresource_layout(image, subresource) }
        };
        let ends = (0..levels).map(|level| told(level).offset + told(level).size);
        let used = ends.max().unwrap_or(0).next_multiple_of(PAGE);
        // Where there is one layer its distance from the next may be anything.
        let stride = if layers > 1 { told(0).array_pitch } else { used };
        Self { count: layers.into(), stride, used, needs }
    }

    /// Where the image is when it is new: where nothing is bound that was not there before. `None`: it is not there yet.
    pub fn addresses(&self, before: &[Mapping], now: &[Mapping]) -> Option<Range<u64>> {
        let size = (self.count - 1) * self.stride + self.used;
        let is_new =
            |mapping: &&Mapping| mapping.object.is_none() && mapping.len >= size && !before.contains(mapping);
        now.iter().find(is_new).map(|new| new.va..new.va + new.len)
    }

    /// What is mapped in the image's addresses, layer by layer. Objects are numbered in the order in which they are met.
    pub fn pieces(&self, table: &[Mapping], addresses: Range<u64>) -> Vec<Piece> {
        let mut met = Vec::new();
        let mut pieces = Vec::new();
        for layer in 0..self.count {
            let start = addresses.start + layer * self.stride;
            let end = (start + self.used).min(addresses.end);
            for mapping in table.iter().filter(|mapping| mapping.va < end && mapping.va + mapping.len > start)
            {
                let from = mapping.va.max(start);
                let object = mapping.object.map(|object| {
                    met.iter().position(|&known| known == object).unwrap_or_else(|| {
                        met.push(object);
                        met.len() - 1
                    }) as u64
                });
                pieces.push(Piece {
                    layer,
                    at: from - start,
                    len: (mapping.va + mapping.len).min(end) - from,
                    object,
                    offset: object.map_or(0, |_| mapping.offset + (from - mapping.va)),
                });
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(va: u64, len: u64, object: Option<u64>, offset: u64) -> Mapping {
        Mapping { va, len, object, offset }
    }

    /// The same binds in two images whose layers are as long and differently far apart, at different addresses.
    #[test]
    fn distances_do_not_matter() {
        let near = Layers { count: 2, stride: 0x3000, used: 0x3000, needs: String::new() };
        let far = Layers { count: 2, stride: 0x4000, used: 0x3000, needs: String::new() };
        let table = [mapping(0x10000, 0x4000, Some(7), 0), mapping(0x14000, 0x2000, None, 0)];
        let apart = [
            mapping(0x8000, 0x1000, Some(1), 0),
            mapping(0x20000, 0x3000, Some(9), 0),
            mapping(0x23000, 0x1000, Some(9), 0x9000),
            mapping(0x24000, 0x1000, Some(9), 0x3000),
            mapping(0x25000, 0x3000, None, 0),
        ];
        let pieces = near.pieces(&table, 0x10000..0x16000);
        assert_eq!(pieces, far.pieces(&apart, 0x20000..0x28000));
        let bound = Piece { layer: 1, at: 0, len: 0x1000, object: Some(0), offset: 0x3000 };
        assert_eq!(pieces[1], bound);
        assert_eq!(pieces.len(), 3);
    }

    #[test]
    fn a_new_image_is_where_nothing_is_bound() {
        let layers = Layers { count: 2, stride: 0x1000, used: 0x1000, needs: String::new() };
        let old = mapping(0x1000, 0x2000, None, 0);
        let now = [old, mapping(0x4000, 0x1000, Some(0), 0), mapping(0x8000, 0x2000, None, 0)];
        assert_eq!(layers.addresses(&[old], &now), Some(0x8000..0xa000));
        assert_eq!(layers.addresses(&[old], &now[..2]), None);
        assert_eq!(Layers { count: 3, ..layers }.addresses(&[old], &now), None);
    }
}

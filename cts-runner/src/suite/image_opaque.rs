//! Opaque binding of whole images: every type, formats of every class, in one piece and in many.

use super::image_rig::{FLAT_FORMATS, compare_images};
use super::random::Random;
use super::{Case, Ctx};
use crate::gpu::{Batch, Format, Gpu, ImageSpec, Need, find_format, level_extent, memory_bind, region};
use crate::outcome::{Outcome, check};
use ash::vk;

/// A type of image with its extent: a little more than two blocks in each direction for four-byte texels.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    ty: vk::ImageType,
    extent: [u32; 3],
    layers: u32,
    cube: bool,
}

const SHAPES: &[Shape] = &[
    Shape { name: "1d", ty: vk::ImageType::TYPE_1D, extent: [5000, 1, 1], layers: 1, cube: false },
    Shape { name: "1d_array", ty: vk::ImageType::TYPE_1D, extent: [3000, 1, 1], layers: 7, cube: false },
    Shape { name: "2d", ty: vk::ImageType::TYPE_2D, extent: [300, 260, 1], layers: 1, cube: false },
    Shape { name: "2d_array", ty: vk::ImageType::TYPE_2D, extent: [140, 132, 1], layers: 5, cube: false },
    Shape { name: "cube", ty: vk::ImageType::TYPE_2D, extent: [136, 136, 1], layers: 6, cube: true },
    Shape { name: "3d", ty: vk::ImageType::TYPE_3D, extent: [72, 68, 20], layers: 1, cube: false },
];

/// Formats with several planes or aspects: name, format, and for each aspect the divisors of its extent and its bytes.
type Aspects = &'static [(vk::ImageAspectFlags, [u32; 2], u32)];
const SEVERAL: &[(&str, vk::Format, Aspects)] = &[
    (
        "g8_b8_r8_3plane_420",
        vk::Format::G8_B8_R8_3PLANE_420_UNORM,
        &[
            (vk::ImageAspectFlags::PLANE_0, [1, 1], 1),
            (vk::ImageAspectFlags::PLANE_1, [2, 2], 1),
            (vk::ImageAspectFlags::PLANE_2, [2, 2], 1),
        ],
    ),
    (
        "g8_b8r8_2plane_420",
        vk::Format::G8_B8R8_2PLANE_420_UNORM,
        &[(vk::ImageAspectFlags::PLANE_0, [1, 1], 1), (vk::ImageAspectFlags::PLANE_1, [2, 2], 2)],
    ),
    (
        "g16_b16_r16_3plane_444",
        vk::Format::G16_B16_R16_3PLANE_444_UNORM,
        &[
            (vk::ImageAspectFlags::PLANE_0, [1, 1], 2),
            (vk::ImageAspectFlags::PLANE_1, [1, 1], 2),
            (vk::ImageAspectFlags::PLANE_2, [1, 1], 2),
        ],
    ),
    (
        "d32_sfloat_s8_uint",
        vk::Format::D32_SFLOAT_S8_UINT,
        &[(vk::ImageAspectFlags::DEPTH, [1, 1], 4), (vk::ImageAspectFlags::STENCIL, [1, 1], 1)],
    ),
    ("d32_sfloat_s8_uint-depth", vk::Format::D32_SFLOAT_S8_UINT, &[(vk::ImageAspectFlags::DEPTH, [1, 1], 4)]),
    (
        "d32_sfloat_s8_uint-stencil",
        vk::Format::D32_SFLOAT_S8_UINT,
        &[(vk::ImageAspectFlags::STENCIL, [1, 1], 1)],
    ),
];

pub(crate) fn add(cases: &mut Vec<Case>) {
    const OTHERS: &[&str] = &["r8_uint", "r16_uint", "r32_uint", "rg32_uint", "rgba32_uint"];
    for shape in SHAPES {
        for name in if shape.name == "2d" { FLAT_FORMATS } else { OTHERS } {
            let format = find_format(name);
            let needs: &[Need] = if format.is_compressed() { &[Need::TextureBc] } else { &[] };
            let case = format!("image.opaque.{}.{name}", shape.name);
            cases.push(Case::new(case, needs, |ctx| whole(ctx, shape, format)).detects_missing_maps());
        }
    }
    for (name, format, aspects) in SEVERAL {
        let needs: &[Need] =
            if aspects.len() > 1 && *format != vk::Format::D32_SFLOAT_S8_UINT { &[Need::Ycbcr] } else { &[] };
        for (how, pieces) in [("one_piece", false), ("pieces", true)] {
            let case = format!("image.opaque.planes.{name}.{how}");
            cases.push(
                Case::new(case, needs, move |ctx| planes(ctx, *format, aspects, pieces))
                    .detects_missing_maps(),
            );
        }
    }
    cases.push(
        Case::new("image.opaque.alias", &[Need::Aliased], |ctx| alias(ctx, find_format("r32_uint")))
            .detects_missing_maps(),
    );
}

fn spec(shape: &Shape, format: &Format) -> ImageSpec {
    let mut flags = vk::ImageCreateFlags::SPARSE_BINDING;
    if shape.cube {
        flags |= vk::ImageCreateFlags::CUBE_COMPATIBLE;
    }
    let longest = shape.extent.into_iter().max().unwrap_or(1);
    ImageSpec {
        ty: shape.ty,
        format: format.vk,
        extent: shape.extent,
        levels: 32 - longest.leading_zeros(),
        layers: shape.layers,
        flags,
        usage: vk::ImageUsageFlags::TRANSFER_SRC
            | vk::ImageUsageFlags::TRANSFER_DST
            | vk::ImageUsageFlags::SAMPLED,
    }
}

/// A sparse image that is bound as bytes.
struct Opaque<'g> {
    gpu: &'g Gpu,
    handle: vk::Image,
    size: u64,
    /// What binds are aligned to.
    unit: u64,
    bits: u32,
}

impl<'g> Opaque<'g> {
    fn new(gpu: &'g Gpu, spec: &ImageSpec) -> Outcome<Self> {
        let handle = gpu.image(spec)?;
        let requirements = gpu.image_requirements(handle);
        let (size, unit) = (requirements.size, requirements.alignment);
        check!(size > 0 && size % unit == 0, "a sparse image's requirements are {requirements:?}");
        Ok(Self { gpu, handle, size, unit, bits: requirements.memory_type_bits })
    }

    fn memory(&self) -> Outcome<vk::DeviceMemory> {
        self.gpu.memory(self.size, self.bits)
    }

    /// Binds byte for byte, in one piece.
    fn bind_whole(&self, memory: vk::DeviceMemory) -> Outcome {
        self.bind(vec![memory_bind(0, self.size, Some((memory, 0)))])
    }

    /// Binds unit by unit in an odd order, to places in an odd order that depends on `seed`.
    fn bind_pieces(&self, memory: vk::DeviceMemory, seed: u32) -> Outcome {
        let mut random = Random::new(seed);
        let mut places: Vec<_> = (0..self.size / self.unit).collect();
        random.shuffle(&mut places);
        let mut binds: Vec<_> = places
            .iter()
            .enumerate()
            .map(|(index, place)| {
                memory_bind(index as u64 * self.unit, self.unit, Some((memory, place * self.unit)))
            })
            .collect();
        random.shuffle(&mut binds);
        self.bind(binds)
    }

    fn bind(&self, binds: Vec<vk::SparseMemoryBind>) -> Outcome {
        self.gpu.bind(&[Batch::new().opaque(self.handle, binds)])
    }
}

/// All levels and layers of one aspect as copy regions, and the bytes that they take.
fn regions(spec: &ImageSpec, format: &Format) -> (Vec<vk::BufferImageCopy>, u64) {
    let (mut regions, mut len) = (Vec::new(), 0_u64);
    for level in 0..spec.levels {
        for layer in 0..spec.layers {
            let extent = level_extent(spec.extent, level);
            len = len.next_multiple_of(16);
            regions.push(region(len, format.aspect(), level, layer, [0; 3], extent));
            len += format.size(extent);
        }
    }
    (regions, len)
}

/// Bytes outside of any region are not part of the image.
fn same(format: &Format, regions: &[vk::BufferImageCopy], left: &[u8], right: &[u8]) -> Result<(), String> {
    for region in regions {
        let vk::Extent3D { width, height, depth } = region.image_extent;
        let begin = region.buffer_offset as usize;
        let range = begin..begin + format.size([width, height, depth]) as usize;
        if left[range.clone()] != right[range] {
            let place = region.image_subresource;
            return Err(format!(
                "level {}, layer {} reads other data",
                place.mip_level, place.base_array_layer
            ));
        }
    }
    Ok(())
}

/// Contents belong to memory: two memories hold two pictures, whichever is bound shows.
fn whole(ctx: &Ctx, shape: &Shape, format: &'static Format) -> Outcome {
    let gpu = ctx.gpu()?;
    let spec = spec(shape, format);
    let image = Opaque::new(&gpu, &spec)?;
    let (one, two) = (image.memory()?, image.memory()?);
    let (regions, len) = regions(&spec, format);
    let pictures = [format.random(1, len as usize), format.random(2, len as usize)];
    let shows = |picture: &[u8], when: &str| -> Outcome {
        let read = gpu.download(image.handle, len, &regions)?;
        same(format, &regions, &read, picture).or_else(|what| crate::outcome::fail!("{when}: {what}"))
    };
    image.bind_whole(one)?;
    gpu.make_general(image.handle, format.aspect())?;
    gpu.upload(image.handle, &pictures[0], &regions)?;
    shows(&pictures[0], "bound in one piece")?;

    image.bind_pieces(two, 9)?;
    gpu.upload(image.handle, &pictures[1], &regions)?;
    shows(&pictures[1], "bound in pieces")?;
    let twin = gpu.plain_image(&spec, format.aspect())?;
    gpu.upload(twin, &pictures[1], &regions)?;
    let boxes: Vec<_> = (0..spec.levels)
        .map(|level| {
            let [width, height, depth] = level_extent(spec.extent, level);
            (level, [0; 3], [width, height, depth.max(spec.layers)])
        })
        .collect();
    let tally = compare_images(&gpu, format, &spec, [image.handle, twin], &boxes)?;
    check!(tally[0] == 0 && tally[1] > 0, "a shader reads {} of {} texels wrong", tally[0], tally[1]);

    image.bind_whole(one)?;
    shows(&pictures[0], "bound back in one piece")?;
    image.bind_pieces(two, 9)?;
    shows(&pictures[1], "bound back in pieces")?;
    // A part of the one, in place, and back again.
    let half = (image.size / image.unit).div_ceil(2) * image.unit;
    image.bind(vec![memory_bind(0, half, Some((one, 0)))])?;
    image.bind_pieces(two, 9)?;
    shows(&pictures[1], "after a part was bound elsewhere")
}

/// Several planes or aspects, bound over their boundaries in one piece, or in pieces.
fn planes(ctx: &Ctx, format: vk::Format, aspects: Aspects, pieces: bool) -> Outcome {
    let gpu = ctx.gpu()?;
    let depth = format == vk::Format::D32_SFLOAT_S8_UINT;
    let all = if depth {
        vk::ImageAspectFlags::DEPTH | vk::ImageAspectFlags::STENCIL
    } else {
        vk::ImageAspectFlags::COLOR
    };
    let spec = ImageSpec {
        ty: vk::ImageType::TYPE_2D,
        format,
        extent: [516, 300, 1],
        levels: 1,
        layers: 1,
        flags: vk::ImageCreateFlags::SPARSE_BINDING,
        usage: vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST,
    };
    let image = Opaque::new(&gpu, &spec)?;
    let (one, two) = (image.memory()?, image.memory()?);
    let bind = |memory| if pieces { image.bind_pieces(memory, 10) } else { image.bind_whole(memory) };
    // Depth takes numbers between 0 and 1, everything else any bits.
    let random = find_format(if depth { "d32_sfloat" } else { "r32_uint" });
    let parts: Vec<_> = aspects
        .iter()
        .map(|&(aspect, divide, bytes)| {
            let extent = [spec.extent[0] / divide[0], spec.extent[1] / divide[1], 1];
            (region(0, aspect, 0, 0, [0; 3], extent), extent[0] * extent[1] * bytes)
        })
        .collect();
    let write = |seed: u32| -> Outcome {
        for (number, (region, len)) in parts.iter().enumerate() {
            gpu.upload(image.handle, &random.random(seed + number as u32, *len as usize), &[*region])?;
        }
        Ok(())
    };
    let shows = |seed: u32, when: &str| -> Outcome {
        for (number, (region, len)) in parts.iter().enumerate() {
            let read = gpu.download(image.handle, u64::from(*len), &[*region])?;
            let expected = random.random(seed + number as u32, *len as usize);
            check!(read == expected, "{when}: plane or aspect {number} reads other data");
        }
        Ok(())
    };
    bind(one)?;
    gpu.make_general(image.handle, all)?;
    write(11)?;
    shows(11, "first memory")?;
    bind(two)?;
    write(21)?;
    shows(21, "second memory")?;
    bind(one)?;
    shows(11, "first memory again")?;
    bind(two)?;
    shows(21, "second memory again")
}

/// Two images of one kind over the same memory.
fn alias(ctx: &Ctx, format: &'static Format) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut spec = spec(&SHAPES[3], format);
    spec.flags |= vk::ImageCreateFlags::SPARSE_ALIASED;
    let (one, two) = (Opaque::new(&gpu, &spec)?, Opaque::new(&gpu, &spec)?);
    let memory = one.memory()?;
    let (regions, len) = regions(&spec, format);
    for image in [&one, &two] {
        image.bind_pieces(memory, 12)?;
        gpu.make_general(image.handle, format.aspect())?;
    }
    for (seed, from, to) in [(1, &one, &two), (2, &two, &one)] {
        let picture = format.random(seed, len as usize);
        gpu.upload(from.handle, &picture, &regions)?;
        let read = gpu.download(to.handle, len, &regions)?;
        same(format, &regions, &read, &picture)
            .or_else(|what| crate::outcome::fail!("picture {seed}: {what}"))?;
    }
    Ok(())
}

//! What shaders are told about residency: `OpImageSparse*` and `OpImageSparseTexelsResident`.

use super::image_residency::{Shape, rig};
use super::image_rig::ImageRig;
use super::{Case, Ctx};
use crate::gpu::{
    Batch, Bound, Dispatch, Gpu, ImageSpec, Need, Shader, find_format, level_extent, memory_bind, region,
    shaders,
};
use crate::outcome::{Outcome, check};
use ash::vk;

/// The sparse instruction that a shader uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// `OpImageSparseFetch`.
    Fetch,
    /// `OpImageSparseSampleExplicitLod`.
    Sample,
    /// `OpImageSparseRead`.
    Load,
    /// `OpImageSparseSampleDrefExplicitLod`, of a depth image.
    Compare,
}

impl Op {
    fn format(self) -> &'static str {
        if self == Self::Compare { "d32_sfloat" } else { "r32_uint" }
    }

    /// What the shader makes of a texel.
    fn result(self, texel: u32) -> u32 {
        if self == Self::Compare { u32::from(f32::from_bits(texel) >= 0.5) } else { texel }
    }
}

pub(crate) fn add(cases: &mut Vec<Case>) {
    for (shape, name) in [(Shape::Flat, "2d"), (Shape::Array, "2d_array"), (Shape::Volume, "3d")] {
        for (op, op_name) in [(Op::Fetch, "fetch"), (Op::Sample, "sample"), (Op::Load, "load")] {
            let mut needs = shape.needs();
            needs.push(Need::ShaderResidency);
            let named = |what: &str| format!("residency.{what}.{name}.{op_name}");
            cases.extend([
                Case::new(named("bound"), &needs, move |ctx| bound(ctx, shape, op)),
                Case::new(named("partial"), &needs, move |ctx| partial(ctx, shape, op)).touches_unbound(),
                Case::new(named("opaque"), &needs, move |ctx| opaque(ctx, shape, op)),
            ]);
        }
    }
    let mut needs = Shape::Flat.needs();
    needs.push(Need::ShaderResidency);
    cases.extend([
        Case::new("residency.bound.2d.compare", &needs, |ctx| bound(ctx, Shape::Flat, Op::Compare)),
        Case::new("residency.partial.2d.compare", &needs, |ctx| partial(ctx, Shape::Flat, Op::Compare))
            .touches_unbound(),
    ]);
    let needs = &[Need::ResidencyImage2D, Need::ShaderResidency, Need::Aliased];
    cases.push(Case::new("residency.alias", needs, alias).touches_unbound());
}

fn shader(shape: Shape, op: Op) -> Shader {
    match (shape, op) {
        (Shape::Flat, Op::Fetch) => shaders::RESIDENCY_FETCH_2D,
        (Shape::Flat, Op::Sample) => shaders::RESIDENCY_SAMPLE_2D,
        (Shape::Flat, Op::Load) => shaders::RESIDENCY_LOAD_2D,
        (_, Op::Compare) => shaders::RESIDENCY_COMPARE_2D,
        (Shape::Volume, Op::Fetch) => shaders::RESIDENCY_FETCH_3D,
        (Shape::Volume, Op::Sample) => shaders::RESIDENCY_SAMPLE_3D,
        (Shape::Volume, Op::Load) => shaders::RESIDENCY_LOAD_3D,
        (_, Op::Fetch) => shaders::RESIDENCY_FETCH_ARRAY,
        (_, Op::Sample) => shaders::RESIDENCY_SAMPLE_ARRAY,
        (_, Op::Load) => shaders::RESIDENCY_LOAD_ARRAY,
    }
}

/// Reads all texels of a level with a sparse instruction: for each, whether it is resident, and its value.
fn read_level(
    gpu: &Gpu,
    image: vk::Image,
    spec: &ImageSpec,
    shape: Shape,
    op: Op,
    level: u32,
) -> Outcome<Vec<(bool, u32)>> {
    let [width, height, depth] = level_extent(spec.extent, level);
    let depth = depth.max(spec.layers);
    let view_type = if shape == Shape::Flat { vk::ImageViewType::TYPE_2D } else { spec.view_type() };
    let aspect = find_format(op.format()).aspect();
    // A storage view has one level; in its shader the level is 0.
    let (view, at) = if op == Op::Load {
        (gpu.image_view(image, spec, view_type, aspect, level, 1)?, 0)
    } else {
        (gpu.image_view(image, spec, view_type, aspect, 0, spec.levels)?, level)
    };
    let texels = width * height * depth;
    let unset = vec![2; 2 * texels as usize];
    let host = gpu.host_words(&unset, vk::BufferUsageFlags::STORAGE_BUFFER)?;
    let source = match op {
        Op::Load => Bound::StorageImage(view),
        Op::Compare => Bound::Compared(view),
        _ => Bound::Sampled(view),
    };
    let bound = vec![Bound::Storage(host.buffer, 0, vk::WHOLE_SIZE), source];
    let push = vec![width, height, depth, at];
    let groups = [width.div_ceil(8), height.div_ceil(8), depth];
    gpu.dispatch(&[Dispatch::new(shader(shape, op), bound, push, groups)])?;
    let words = host.words();
    host.free();
    gpu.destroy(crate::gpu::Owned::ImageView(view));
    check!(words.chunks_exact(2).all(|pair| pair[0] < 2), "the shader left texels of level {level} out");
    Ok(words.chunks_exact(2).map(|pair| (pair[0] == 1, pair[1])).collect())
}

/// A rig for images that the instruction can read.
fn code_rig<'g>(gpu: &'g Gpu, shape: Shape, op: Op) -> Outcome<ImageRig<'g>> {
    let format = find_format(op.format());
    let mut base = shape.spec(format, vk::ImageCreateFlags::empty());
    if op == Op::Load {
        base.usage |= vk::ImageUsageFlags::STORAGE;
    }
    ImageRig::new(gpu, format, base, |granularity| shape.odd_extent(granularity, format))
}

/// Compares codes and values of all levels with the model.
fn check_codes(rig: &ImageRig<'_>, image: usize, shape: Shape, op: Op, when: &str) -> Outcome {
    for level in 0..rig.spec.levels {
        let texels = read_level(rig.gpu, rig.handle(image), &rig.spec, shape, op, level)?;
        let [width, height, _] = level_extent(rig.spec.extent, level);
        for (index, &(resident, value)) in (0..).zip(&texels) {
            let (x, y, z) = (index % width, index / width % height, index / (width * height));
            let expected = rig.texel(image, level, [x, y, z]);
            check!(
                resident == expected.is_some(),
                "{when}: texel {x},{y},{z} of level {level} is said to be {}resident",
                if resident { "" } else { "not " }
            );
            if let Some(Some(expected)) = expected.map(|texel| texel.map(|texel| op.result(texel))) {
                check!(
                    value == expected,
                    "{when}: texel {x},{y},{z} of level {level} reads {value:#x}, expected {expected:#x}"
                );
            }
        }
    }
    Ok(())
}

/// Everything bound tile by tile: everything is resident.
fn bound(ctx: &Ctx, shape: Shape, op: Op) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = code_rig(&gpu, shape, op)?;
    let tiles = rig.tiles(0);
    let first = rig.memory(tiles.len())?;
    let boxes: Vec<_> =
        tiles.iter().zip(first..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect();
    rig.bind(0, &boxes)?;
    rig.upload(0, &rig.bound(0), 1)?;
    check_codes(&rig, 0, shape, op, "bound")
}

/// Codes before the first bind, with some tiles bound, with some of these unbound again, and with all gone.
fn partial(ctx: &Ctx, shape: Shape, op: Op) -> Outcome {
    let gpu = ctx.gpu()?;
    let mut rig = code_rig(&gpu, shape, op)?;
    check_codes(&rig, 0, shape, op, "before the first bind")?;
    let tiles = rig.tiles(0);
    let first = rig.memory(tiles.len())?;
    let some: Vec<_> = tiles.iter().copied().filter(|tile| tile % 3 != 2).collect();
    let boxes: Vec<_> =
        some.iter().zip(first..).map(|(&tile, slot)| rig.single(0, tile, Some(slot))).collect();
    rig.bind(0, &boxes)?;
    rig.upload(0, &rig.bound(0), 2)?;
    check_codes(&rig, 0, shape, op, "some tiles bound")?;
    let gone: Vec<_> = some.iter().step_by(2).map(|&tile| rig.single(0, tile, None)).collect();
    rig.bind(0, &gone)?;
    check_codes(&rig, 0, shape, op, "some tiles unbound again")?;
    rig.bind(0, &boxes)?;
    check_codes(&rig, 0, shape, op, "bound again")?;
    let all: Vec<_> = tiles.iter().map(|&tile| rig.single(0, tile, None)).collect();
    rig.bind(0, &all)?;
    check_codes(&rig, 0, shape, op, "all unbound")
}

/// One opaque bind of many blocks to an image without partial residency: all of them are resident.
fn opaque(ctx: &Ctx, shape: Shape, op: Op) -> Outcome {
    let gpu = ctx.gpu()?;
    let format = find_format("r32_uint");
    let extent = if shape == Shape::Volume { [72, 68, 36] } else { [300, 260, 1] };
    let base = shape.spec(format, vk::ImageCreateFlags::empty());
    let spec = ImageSpec {
        extent,
        levels: 4,
        flags: vk::ImageCreateFlags::SPARSE_BINDING,
        usage: base.usage | vk::ImageUsageFlags::STORAGE,
        ..base
    };
    let image = gpu.image(&spec)?;
    let requirements = gpu.image_requirements(image);
    let memory = gpu.memory(requirements.size, requirements.memory_type_bits)?;
    gpu.bind(&[Batch::new().opaque(image, vec![memory_bind(0, requirements.size, Some((memory, 0)))])])?;
    gpu.make_general(image, format.aspect())?;
    for level in 0..spec.levels {
        let extent = level_extent(extent, level);
        let data: Vec<Vec<u8>> = (0..spec.layers)
            .map(|layer| format.random(level * 16 + layer, format.size(extent) as usize))
            .collect();
        for (layer, data) in (0..).zip(&data) {
            gpu.upload(image, data, &[region(0, format.aspect(), level, layer, [0; 3], extent)])?;
        }
        let texels = read_level(&gpu, image, &spec, shape, op, level)?;
        let expected = data.iter().flat_map(|layer| layer.chunks_exact(4));
        for (index, (&(resident, value), bytes)) in texels.iter().zip(expected).enumerate() {
            check!(resident, "texel {index} of level {level} is said to be not resident");
            check!(value.to_ne_bytes() == bytes, "texel {index} of level {level} reads {value:#x}");
        }
    }
    Ok(())
}

/// Residency belongs to the image, not to the memory: unbinding one of two aliases leaves the other resident.
fn alias(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let shape = Shape::Flat;
    let mut rig = rig(&gpu, shape, find_format("r32_uint"), vk::ImageCreateFlags::SPARSE_ALIASED)?;
    let second = rig.image()?;
    let tiles = rig.tiles(0);
    let first = rig.memory(tiles.len())?;
    for image in [0, second] {
        let boxes: Vec<_> =
            tiles.iter().zip(first..).map(|(&tile, slot)| rig.single(image, tile, Some(slot))).collect();
        rig.bind(image, &boxes)?;
    }
    rig.upload(0, &rig.bound(0), 3)?;
    let gone: Vec<_> = tiles.iter().step_by(2).map(|&tile| rig.single(second, tile, None)).collect();
    rig.bind(second, &gone)?;
    check_codes(&rig, 0, shape, Op::Fetch, "the image that stays")?;
    check_codes(&rig, second, shape, Op::Fetch, "the image that lost tiles")
}

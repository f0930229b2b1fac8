//! Entry points that answer the same question agree.

use super::image_residency::Shape;
use super::{Case, Ctx};
use crate::gpu::{Gpu, ImageSpec, Need, find_format};
use crate::outcome::{Outcome, check};
use ash::vk;
use std::fmt::Debug;

/// Formats that are asked about: all of Vulkan 1.0's, and the multi-planar ones.
fn formats() -> impl Iterator<Item = vk::Format> {
    let first = vk::Format::G8B8G8R8_422_UNORM.as_raw();
    (1..=184).chain(first..first + 34).map(vk::Format::from_raw)
}

const SPARSE: vk::ImageCreateFlags = vk::ImageCreateFlags::from_raw(
    vk::ImageCreateFlags::SPARSE_BINDING.as_raw() | vk::ImageCreateFlags::SPARSE_RESIDENCY.as_raw(),
);

pub(crate) fn add(cases: &mut Vec<Case>) {
    let requirements: &[Need] = &[Need::ResidencyImage2D, Need::Maintenance4];
    let aliases: &[Need] = &[Need::ResidencyImage2D, Need::Maintenance4, Need::Aliases];
    cases.extend([
        Case::new("queries.features", &[], features),
        Case::new("queries.properties", &[], properties),
        Case::new("queries.queue_families", &[], queue_families),
        Case::new("queries.format_properties", &[], format_properties),
        Case::new("queries.image_format_properties", &[], image_format_properties),
        Case::new("queries.sparse_format_properties", &[], sparse_format_properties),
        Case::new("queries.consistent_features", &[], consistent_features),
        Case::new("queries.buffer_requirements.core", requirements, |ctx| buffer_requirements(ctx, false)),
        Case::new("queries.buffer_requirements.aliases", aliases, |ctx| buffer_requirements(ctx, true)),
        Case::new("queries.image_requirements.core", requirements, |ctx| image_requirements(ctx, false)),
        Case::new("queries.image_requirements.aliases", aliases, |ctx| image_requirements(ctx, true)),
        Case::new("queries.memory", &[], memory),
        Case::new("queries.short_arrays", &[Need::ResidencyImage2D], short_arrays),
        Case::new("queries.plain_requirements", &[], plain_requirements),
    ]);
}

/// Fails unless all answers are the same as the first.
fn agree<T: Debug>(what: &str, answers: &[(&str, T)]) -> Outcome {
    // Vulkan's structures compare by what they print: their pointers are null here, or left out.
    let printed: Vec<_> = answers.iter().map(|(_, answer)| format!("{answer:?}")).collect();
    for ((name, _), text) in answers.iter().zip(&printed) {
        check!(*text == printed[0], "{what}: {} says {}, {name} says {text}", answers[0].0, printed[0]);
    }
    Ok(())
}

fn aliases2(gpu: &Gpu) -> ash::khr::get_physical_device_properties2::Instance {
    ash::khr::get_physical_device_properties2::Instance::new(&gpu.instance.entry, &gpu.instance.raw)
}

fn features(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut two, mut khr) = (vk::PhysicalDeviceFeatures2::default(), vk::PhysicalDeviceFeatures2::default());
    // SAFETY: the physical device is the instance's; the structures have no chains.
    let one = unsafe {
        gpu.instance.raw.get_physical_device_features2(gpu.physical, &mut two);
        aliases2(&gpu).get_physical_device_features2(gpu.physical, &mut khr);
        gpu.instance.raw.get_physical_device_features(gpu.physical)
    };
    agree(
        "features",
        &[("vkGetPhysicalDeviceFeatures", one), ("..2", two.features), ("..2KHR", khr.features)],
    )
}

fn properties(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut two, mut khr) =
        (vk::PhysicalDeviceProperties2::default(), vk::PhysicalDeviceProperties2::default());
    // SAFETY: the physical device is the instance's; the structures have no chains.
    let one = unsafe {
        gpu.instance.raw.get_physical_device_properties2(gpu.physical, &mut two);
        aliases2(&gpu).get_physical_device_properties2(gpu.physical, &mut khr);
        gpu.instance.raw.get_physical_device_properties(gpu.physical)
    };
    let (two, khr) = (two.properties, khr.properties);
    agree(
        "limits",
        &[("vkGetPhysicalDeviceProperties", one.limits), ("..2", two.limits), ("..2KHR", khr.limits)],
    )?;
    agree(
        "sparse properties",
        &[
            ("vkGetPhysicalDeviceProperties", one.sparse_properties),
            ("..2", two.sparse_properties),
            ("..2KHR", khr.sparse_properties),
        ],
    )?;
    agree(
        "device",
        &[
            (
                "vkGetPhysicalDeviceProperties",
                (one.api_version, one.driver_version, one.vendor_id, one.device_name),
            ),
            ("..2", (two.api_version, two.driver_version, two.vendor_id, two.device_name)),
        ],
    )
}

fn queue_families(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let khr = aliases2(&gpu);
    // SAFETY: the physical device is the instance's; the arrays have the length that was asked for.
    let (one, two, three) = unsafe {
        let one = gpu.instance.raw.get_physical_device_queue_family_properties(gpu.physical);
        let mut two = vec![
            vk::QueueFamilyProperties2::default();
            gpu.instance.raw.get_physical_device_queue_family_properties2_len(gpu.physical)
        ];
        gpu.instance.raw.get_physical_device_queue_family_properties2(gpu.physical, &mut two);
        let mut three = vec![
            vk::QueueFamilyProperties2::default();
            khr.get_physical_device_queue_family_properties2_len(gpu.physical)
        ];
        khr.get_physical_device_queue_family_properties2(gpu.physical, &mut three);
        (one, two, three)
    };
    let inner = |all: &[vk::QueueFamilyProperties2<'_>]| -> Vec<_> {
        all.iter().map(|family| family.queue_family_properties).collect()
    };
    agree(
        "queue families",
        &[("vkGetPhysicalDeviceQueueFamilyProperties", one), ("..2", inner(&two)), ("..2KHR", inner(&three))],
    )
}

fn format_properties(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let khr = aliases2(&gpu);
    for format in formats() {
        let mut three = vk::FormatProperties3::default();
        let mut two = vk::FormatProperties2::default().push_next(&mut three);
        let mut other = vk::FormatProperties2::default();
        // SAFETY: the physical device is the instance's; the chain is alive.
        let one = unsafe {
            gpu.instance.raw.get_physical_device_format_properties2(gpu.physical, format, &mut two);
            khr.get_physical_device_format_properties2(gpu.physical, format, &mut other);
            gpu.instance.raw.get_physical_device_format_properties(gpu.physical, format)
        };
        let (two, other) = (two.format_properties, other.format_properties);
        let answers = [("vkGetPhysicalDeviceFormatProperties", one), ("..2", two), ("..2KHR", other)];
        agree(&format!("{format:?}"), &answers)?;
        let low = |features: vk::FormatFeatureFlags2| features.as_raw() & 0x7fff_ffff;
        let core = |features: vk::FormatFeatureFlags| u64::from(features.as_raw() & 0x7fff_ffff);
        check!(
            low(three.optimal_tiling_features) & core(one.optimal_tiling_features)
                == core(one.optimal_tiling_features),
            "{format:?}: VkFormatProperties3 lacks features that vkGetPhysicalDeviceFormatProperties has"
        );
    }
    Ok(())
}

fn image_format_properties(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let khr = aliases2(&gpu);
    for format in formats() {
        for flags in [vk::ImageCreateFlags::empty(), vk::ImageCreateFlags::SPARSE_BINDING, SPARSE] {
            for ty in [vk::ImageType::TYPE_1D, vk::ImageType::TYPE_2D, vk::ImageType::TYPE_3D] {
                let usage = vk::ImageUsageFlags::SAMPLED | vk::ImageUsageFlags::TRANSFER_DST;
                let tiling = vk::ImageTiling::OPTIMAL;
                let info = vk::PhysicalDeviceImageFormatInfo2::default()
                    .format(format)
                    .ty(ty)
                    .tiling(tiling)
                    .usage(usage)
                    .flags(flags);
                let (mut two, mut other) =
                    (vk::ImageFormatProperties2::default(), vk::ImageFormatProperties2::default());
                let physical = gpu.physical;
                let raw = &gpu.instance.raw;
                // SAFETY: the physical device is the instance's; the structures have no chains.
                let (one, result2, result_khr) = unsafe {
                    (
                        raw.get_physical_device_image_format_properties(
                            physical, format, ty, tiling, usage, flags,
                        ),
                        raw.get_physical_device_image_format_properties2(physical, &info, &mut two),
                        khr.get_physical_device_image_format_properties2(physical, &info, &mut other),
                    )
                };
                agree(
                    &format!("{format:?} {ty:?} {flags:?}"),
                    &[
                        ("vkGetPhysicalDeviceImageFormatProperties", one),
                        ("..2", result2.map(|()| two.image_format_properties)),
                        ("..2KHR", result_khr.map(|()| other.image_format_properties)),
                    ],
                )?;
            }
        }
    }
    Ok(())
}

/// Every format's answers by all names; formats with answers can be made into residency images, others cannot.
fn sparse_format_properties(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let khr = aliases2(&gpu);
    let (raw, physical) = (&gpu.instance.raw, gpu.physical);
    let (samples, tiling) = (vk::SampleCountFlags::TYPE_1, vk::ImageTiling::OPTIMAL);
    let usage = vk::ImageUsageFlags::SAMPLED | vk::ImageUsageFlags::TRANSFER_DST;
    for format in formats() {
        for ty in [vk::ImageType::TYPE_2D, vk::ImageType::TYPE_3D] {
            let info = vk::PhysicalDeviceSparseImageFormatInfo2::default()
                .format(format)
                .ty(ty)
                .samples(samples)
                .usage(usage)
                .tiling(tiling);
            // SAFETY: the physical device is the instance's; the arrays have the length that was asked for.
            let (one, two, other, possible) = unsafe {
                let one = raw.get_physical_device_sparse_image_format_properties(
                    physical, format, ty, samples, usage, tiling,
                );
                let count = raw.get_physical_device_sparse_image_format_properties2_len(physical, &info);
                let mut two = vec![vk::SparseImageFormatProperties2::default(); count];
                raw.get_physical_device_sparse_image_format_properties2(physical, &info, &mut two);
                let count = khr.get_physical_device_sparse_image_format_properties2_len(physical, &info);
                let mut other = vec![vk::SparseImageFormatProperties2::default(); count];
                khr.get_physical_device_sparse_image_format_properties2(physical, &info, &mut other);
                let possible = raw
                    .get_physical_device_image_format_properties(physical, format, ty, tiling, usage, SPARSE)
                    .is_ok();
                (one, two, other, possible)
            };
            let inner = |all: &[vk::SparseImageFormatProperties2<'_>]| -> Vec<_> {
                all.iter().map(|entry| entry.properties).collect()
            };
            let what = format!("{format:?} {ty:?}");
            let answers = [
                ("vkGetPhysicalDeviceSparseImageFormatProperties", one.clone()),
                ("..2", inner(&two)),
                ("..2KHR", inner(&other)),
            ];
            agree(&what, &answers)?;
            check!(
                one.is_empty() != possible,
                "{what}: {} sparse properties, but images with residency are {}offered",
                one.len(),
                if possible { "" } else { "not " }
            );
        }
    }
    Ok(())
}

/// Features imply each other as the specification says.
fn consistent_features(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    // SAFETY: the physical device is the instance's.
    let (features, families) = unsafe {
        (
            gpu.instance.raw.get_physical_device_features(gpu.physical),
            gpu.instance.raw.get_physical_device_queue_family_properties(gpu.physical),
        )
    };
    let binding = features.sparse_binding == vk::TRUE;
    let queue = families.iter().any(|family| family.queue_flags.contains(vk::QueueFlags::SPARSE_BINDING));
    check!(binding == queue, "sparseBinding is {binding}, a queue family with SPARSE_BINDING: {queue}");
    for (name, on) in [
        ("sparseResidencyBuffer", features.sparse_residency_buffer),
        ("sparseResidencyImage2D", features.sparse_residency_image2_d),
        ("sparseResidencyImage3D", features.sparse_residency_image3_d),
        ("sparseResidency2Samples", features.sparse_residency2_samples),
        ("sparseResidency4Samples", features.sparse_residency4_samples),
        ("sparseResidency8Samples", features.sparse_residency8_samples),
        ("sparseResidency16Samples", features.sparse_residency16_samples),
        ("sparseResidencyAliased", features.sparse_residency_aliased),
    ] {
        check!(on == vk::FALSE || binding, "{name} without sparseBinding");
    }
    let space = gpu.properties.limits.sparse_address_space_size;
    check!(!binding || space >= 1 << 31, "sparseAddressSpaceSize is {space}, at least 2 GiB are required");
    let residency = [
        features.sparse_residency_buffer,
        features.sparse_residency_image2_d,
        features.sparse_residency_image3_d,
    ];
    check!(
        features.shader_resource_residency == vk::FALSE || residency.contains(&vk::TRUE),
        "shaderResourceResidency without any kind of residency"
    );
    Ok(())
}

/// The core of memory requirements, comparable.
fn bare(requirements: vk::MemoryRequirements) -> (u64, u64, u32) {
    (requirements.size, requirements.alignment, requirements.memory_type_bits)
}

fn buffer_requirements(ctx: &Ctx, aliases: bool) -> Outcome {
    let gpu = ctx.gpu()?;
    let khr2 = ash::khr::get_memory_requirements2::Device::new(&gpu.instance.raw, &gpu.raw);
    let khr4 = ash::khr::maintenance4::Device::new(&gpu.instance.raw, &gpu.raw);
    let usages = [
        vk::BufferUsageFlags::STORAGE_BUFFER,
        vk::BufferUsageFlags::UNIFORM_BUFFER | vk::BufferUsageFlags::TRANSFER_DST,
        vk::BufferUsageFlags::UNIFORM_TEXEL_BUFFER,
        vk::BufferUsageFlags::INDEX_BUFFER | vk::BufferUsageFlags::INDIRECT_BUFFER,
    ];
    for usage in usages {
        for flags in [vk::BufferCreateFlags::empty(), vk::BufferCreateFlags::SPARSE_BINDING] {
            for size in [1, 4096, 65_536, 65_537, 1 << 24] {
                let info = vk::BufferCreateInfo::default().size(size).usage(usage).flags(flags);
                let buffer = gpu.create_buffer(&info)?;
                let one = gpu.buffer_requirements(buffer);
                let ask = vk::BufferMemoryRequirementsInfo2::default().buffer(buffer);
                let ask_device = vk::DeviceBufferMemoryRequirements::default().create_info(&info);
                let [mut two, mut device, mut two_khr, mut device_khr] =
                    [vk::MemoryRequirements2::default(); 4];
                // SAFETY: the buffer is the device's; the chains are empty; the aliases' extensions are enabled.
                unsafe {
                    gpu.raw.get_buffer_memory_requirements2(&ask, &mut two);
                    gpu.raw.get_device_buffer_memory_requirements(&ask_device, &mut device);
                    if aliases {
                        khr2.get_buffer_memory_requirements2(&ask, &mut two_khr);
                        khr4.get_device_buffer_memory_requirements(&ask_device, &mut device_khr);
                    } else {
                        (two_khr, device_khr) = (two, device);
                    }
                }
                let what = format!("a buffer of {size} bytes with {flags:?} and {usage:?}");
                let answers = [
                    ("vkGetBufferMemoryRequirements", bare(one)),
                    ("..2", bare(two.memory_requirements)),
                    ("..2KHR", bare(two_khr.memory_requirements)),
                    ("vkGetDeviceBufferMemoryRequirements", bare(device.memory_requirements)),
                    ("vkGetDeviceBufferMemoryRequirementsKHR", bare(device_khr.memory_requirements)),
                ];
                agree(&what, &answers)?;
                let sparse = !flags.is_empty();
                check!(
                    one.size >= size && (!sparse || one.size % one.alignment == 0),
                    "{what} has requirements {one:?}"
                );
                gpu.destroy(crate::gpu::Owned::Buffer(buffer));
            }
        }
    }
    Ok(())
}

fn image_requirements(ctx: &Ctx, aliases: bool) -> Outcome {
    let gpu = ctx.gpu()?;
    let khr2 = ash::khr::get_memory_requirements2::Device::new(&gpu.instance.raw, &gpu.raw);
    let khr4 = ash::khr::maintenance4::Device::new(&gpu.instance.raw, &gpu.raw);
    for name in ["r8_uint", "r16_uint", "r32_uint", "rg32_uint", "rgba32_uint", "d16_unorm"] {
        for shape in [Shape::Flat, Shape::Array, Shape::Cube] {
            for flags in [vk::ImageCreateFlags::empty(), vk::ImageCreateFlags::SPARSE_BINDING, SPARSE] {
                let format = find_format(name);
                let base = shape.spec(format, vk::ImageCreateFlags::empty());
                let flags = base.flags & !SPARSE | flags;
                let spec = ImageSpec { extent: [300, 300, 1], levels: 5, flags, ..base };
                gpu.image_supported(&spec)?;
                let info = spec.info();
                let image = gpu.create_image(&info)?;
                let one = gpu.image_requirements(image);
                let ask = vk::ImageMemoryRequirementsInfo2::default().image(image);
                let ask_device = vk::DeviceImageMemoryRequirements::default().create_info(&info);
                let [mut two, mut device, mut two_khr, mut device_khr] =
                    [vk::MemoryRequirements2::default(); 4];
                // SAFETY: the image is the device's; the chains are empty; the aliases' extensions are enabled.
                unsafe {
                    gpu.raw.get_image_memory_requirements2(&ask, &mut two);
                    gpu.raw.get_device_image_memory_requirements(&ask_device, &mut device);
                    if aliases {
                        khr2.get_image_memory_requirements2(&ask, &mut two_khr);
                        khr4.get_device_image_memory_requirements(&ask_device, &mut device_khr);
                    } else {
                        (two_khr, device_khr) = (two, device);
                    }
                }
                let what = format!("{name} {} with {flags:?}", shape.name());
                let answers = [
                    ("vkGetImageMemoryRequirements", bare(one)),
                    ("..2", bare(two.memory_requirements)),
                    ("..2KHR", bare(two_khr.memory_requirements)),
                    ("vkGetDeviceImageMemoryRequirements", bare(device.memory_requirements)),
                    ("vkGetDeviceImageMemoryRequirementsKHR", bare(device_khr.memory_requirements)),
                ];
                agree(&what, &answers)?;
                if flags.contains(vk::ImageCreateFlags::SPARSE_RESIDENCY) {
                    let answers =
                        sparse_requirements(&gpu, image, &ask_device, aliases.then_some((&khr2, &khr4)));
                    agree(&format!("sparse requirements of {what}"), &answers)?;
                }
                gpu.destroy(crate::gpu::Owned::Image(image));
            }
        }
    }
    Ok(())
}

type Aliases<'a> = (&'a ash::khr::get_memory_requirements2::Device, &'a ash::khr::maintenance4::Device);

/// The sparse requirements of an image by every name.
fn sparse_requirements(
    gpu: &Gpu,
    image: vk::Image,
    ask_device: &vk::DeviceImageMemoryRequirements<'_>,
    aliases: Option<Aliases<'_>>,
) -> Vec<(&'static str, Vec<vk::SparseImageMemoryRequirements>)> {
    let ask = vk::ImageSparseMemoryRequirementsInfo2::default().image(image);
    let new = |count| vec![vk::SparseImageMemoryRequirements2::default(); count];
    let inner = |all: Vec<vk::SparseImageMemoryRequirements2<'_>>| -> Vec<_> {
        all.into_iter().map(|entry| entry.memory_requirements).collect()
    };
    let mut answers = vec![("vkGetImageSparseMemoryRequirements", gpu.image_sparse_requirements(image))];
    // SAFETY: the image is the device's; the arrays have the length asked for; the aliases' extensions are enabled.
    unsafe {
        let mut all = new(gpu.raw.get_image_sparse_memory_requirements2_len(&ask));
        gpu.raw.get_image_sparse_memory_requirements2(&ask, &mut all);
        answers.push(("..2", inner(all)));
        let mut all = new(gpu.raw.get_device_image_sparse_memory_requirements_len(ask_device));
        gpu.raw.get_device_image_sparse_memory_requirements(ask_device, &mut all);
        answers.push(("vkGetDeviceImageSparseMemoryRequirements", inner(all)));
        if let Some((khr2, khr4)) = aliases {
            let mut all = new(khr2.get_image_sparse_memory_requirements2_len(&ask));
            khr2.get_image_sparse_memory_requirements2(&ask, &mut all);
            answers.push(("..2KHR", inner(all)));
            let mut all = new(khr4.get_device_image_sparse_memory_requirements_len(ask_device));
            khr4.get_device_image_sparse_memory_requirements(ask_device, &mut all);
            answers.push(("vkGetDeviceImageSparseMemoryRequirementsKHR", inner(all)));
        }
    }
    answers
}

fn memory(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let (mut two, mut khr) =
        (vk::PhysicalDeviceMemoryProperties2::default(), vk::PhysicalDeviceMemoryProperties2::default());
    // SAFETY: the physical device is the instance's; the structures have no chains.
    unsafe {
        gpu.instance.raw.get_physical_device_memory_properties2(gpu.physical, &mut two);
        aliases2(&gpu).get_physical_device_memory_properties2(gpu.physical, &mut khr);
    }
    let types = |all: &vk::PhysicalDeviceMemoryProperties| format!("{:?}", all.memory_types_as_slice());
    agree(
        "memory types",
        &[
            ("vkGetPhysicalDeviceMemoryProperties", types(&gpu.memory_properties)),
            ("..2", types(&two.memory_properties)),
            ("..2KHR", types(&khr.memory_properties)),
        ],
    )
}

/// Arrays shorter than what there is to say are filled as far as they go, and nothing past them is written.
fn short_arrays(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let format = find_format("r32_uint");
    let base = Shape::Flat.spec(format, vk::ImageCreateFlags::empty());
    let image = gpu.image(&ImageSpec { extent: [300, 300, 1], levels: 3, ..base })?;
    let guard = vk::SparseImageMemoryRequirements { image_mip_tail_size: 0x5a5a, ..Default::default() };
    let mut all = [guard; 8];
    let fp = gpu.raw.fp_v1_0();
    for room in [0_u32, 1, 8] {
        let mut count = room;
        // SAFETY: the array has room for eight entries, no fewer than `room`.
        unsafe {
            (fp.get_image_sparse_memory_requirements)(gpu.raw.handle(), image, &mut count, all.as_mut_ptr());
        }
        check!(count <= room, "asked for {room} entries, {count} were written");
        let untouched = all[count as usize..].iter().all(|entry| entry.image_mip_tail_size == 0x5a5a);
        check!(untouched, "entries past the {count} that were written changed");
        all = [guard; 8];
    }
    Ok(())
}

/// Resources without sparse flags can be bound as ever, at the alignment that they ask for.
fn plain_requirements(ctx: &Ctx) -> Outcome {
    let gpu = ctx.gpu()?;
    let usage = vk::BufferUsageFlags::TRANSFER_SRC | vk::BufferUsageFlags::TRANSFER_DST;
    let (one, two) =
        (gpu.buffer(1000, usage, Default::default())?, gpu.buffer(1000, usage, Default::default())?);
    let requirements = gpu.buffer_requirements(one);
    let second = requirements.size.next_multiple_of(requirements.alignment);
    let memory = gpu.memory(second + requirements.size, requirements.memory_type_bits)?;
    gpu.bind_buffer(one, memory, 0)?;
    gpu.bind_buffer(two, memory, second)?;
    gpu.fill_buffer(one, 0, 1000, 0x1111_1111)?;
    gpu.fill_buffer(two, 0, 1000, 0x2222_2222)?;
    for (buffer, word) in [(one, 0x1111_1111), (two, 0x2222_2222)] {
        let host = gpu.host(1000, vk::BufferUsageFlags::empty())?;
        gpu.copy_buffer(buffer, host.buffer, &[(0, 0, 1000)])?;
        check!(host.words().iter().all(|&read| read == word), "a plain buffer reads other data");
    }
    Ok(())
}

//! The generated tables against ash and against the C headers.

use super::*;
use ash::vk::TaggedStructure;
use std::collections::HashMap;
use std::process::Command as Process;

/// A row of vk.xml: one of a structure's names.
struct Structure {
    name: &'static str,
    s_type: vk::StructureType,
    size: usize,
    /// What ash says; `None` where it does not have the structure.
    ash: Option<(vk::StructureType, usize)>,
}

fn ash_of<T: TaggedStructure>() -> Option<(vk::StructureType, usize)> {
    (T::STRUCTURE_TYPE != ABSENT).then_some((T::STRUCTURE_TYPE, size_of::<T>()))
}

/// In place of what ash does not have; no structure type is negative.
const ABSENT: vk::StructureType = vk::StructureType::from_raw(i32::MIN);

macro_rules! structures {
    (
        $version:literal;
        $($short:ident = $name:literal, $s_type:literal, $size:literal;)*
        ;
        $($c_name:literal, $guard:literal, $c_size:literal;)*
    ) => {
        /// VK_HEADER_VERSION of the vk.xml that was read.
        const HEADER_VERSION: u32 = $version;

        /// Every name of vk.xml, for those that ash lacks.
        #[allow(dead_code)]
        mod absent {
            $(
                #[derive(Clone, Copy)]
                pub(super) struct $short;
                // SAFETY: never made, only asked for its type.
                unsafe impl super::TaggedStructure for $short {
                    const STRUCTURE_TYPE: super::vk::StructureType = super::ABSENT;
                }
            )*
        }

        /// Structures and unions: name, the macro that enables a platform's in the C headers (or nothing), size in bytes.
        const C_TYPES: &[(&str, &str, usize)] = &[$(($c_name, $guard, $c_size)),*];

        fn structures() -> Vec<Structure> {
            #[allow(unused_imports)]
            use absent::*;
            // The names of the inner block come before those of the outer one.
            {
                use ash::vk::*;
                vec![$(Structure {
                    name: $name,
                    s_type: StructureType::from_raw($s_type),
                    size: $size,
                    ash: ash_of::<$short>(),
                }),*]
            }
        }
    };
}
include!(concat!(env!("OUT_DIR"), "/struct_names.rs"));

/// The VK_HEADER_VERSION of ash 0.38.
const ASH_VERSION: u32 = 281;

#[test]
fn sizes_are_those_of_ash() {
    let mut compared = 0;
    let mut absent = Vec::new();
    for structure in structures() {
        assert_eq!(struct_size(structure.s_type), Some(structure.size), "{}", structure.name);
        match structure.ash {
            // Grew by a member between the versions of vk.xml.
            Some(_) if structure.name == "VkPhysicalDeviceClusterCullingShaderPropertiesHUAWEI" => {}
            Some(ash) => {
                assert_eq!(ash, (structure.s_type, structure.size), "{}", structure.name);
                compared += 1;
            }
            None => absent.push(structure.name),
        }
    }
    assert!(compared > 700, "only {compared} structures could be compared");
    // What a vk.xml no newer than ash has, ash has.
    assert!(HEADER_VERSION > ASH_VERSION || absent.is_empty(), "ash has no {absent:?}");
}

/// `sizeof` of C types, as the C compiler says.
pub(crate) fn c_sizes<'a>(
    test: &str,
    headers: &str,
    names: impl Iterator<Item = &'a str>,
) -> HashMap<String, usize> {
    let mut code = format!("{headers}\n#include <stdio.h>\nint main(void) {{\n");
    for name in names {
        code += &format!("    printf(\"{name} %zu\\n\", sizeof({name}));\n");
    }
    code += "    return 0;\n}\n";
    let program = std::path::Path::new(env!("OUT_DIR")).join(format!("{test}-{}", std::process::id()));
    let source = program.with_extension("c");
    std::fs::write(&source, code).unwrap();
    let compiled = Process::new("cc").arg(&source).arg("-o").arg(&program).output().expect("cc runs");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Process::new(&program).output().unwrap();
    std::fs::remove_file(&program).unwrap();
    std::fs::remove_file(&source).unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    lines
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(n, size)| (n.into(), size.parse().unwrap()))
        .collect()
}

#[test]
fn sizes_are_those_of_the_c_compiler() {
    const PROVISIONAL: &str = "VK_ENABLE_BETA_EXTENSIONS";
    // Platforms' headers need not be installed; ash stands for them.
    let portable = || C_TYPES.iter().filter(|(_, guard, _)| ["", PROVISIONAL].contains(guard));
    let headers = format!(
        "#define {PROVISIONAL}\n#include <vulkan/vulkan.h>\n#if VK_HEADER_VERSION != {HEADER_VERSION}\n\
         #error \"vulkan/vulkan.h is not of the version of vk.xml, which is {HEADER_VERSION}\"\n#endif"
    );
    let sizes = c_sizes("structs", &headers, portable().map(|(name, ..)| *name));
    assert!(sizes.len() > 900, "only {} structures could be compared", sizes.len());
    for (name, _, size) in portable() {
        assert_eq!(sizes.get(*name), Some(size), "{name}");
    }
}

#[test]
fn unknown_structures_have_no_size() {
    // 47 and 48 are the loader's own.
    for s_type in [-1, 47, 48, i32::MAX] {
        assert_eq!(struct_size(vk::StructureType::from_raw(s_type)), None);
    }
}

/// The address that a name leads to.
fn address(name: &str) -> Option<usize> {
    lookup(name.as_bytes()).and_then(|(_, function)| function).map(|function| function as usize)
}

#[test]
fn commands_are_found_by_every_name() {
    for command in COMMANDS {
        assert_eq!(address(command.name), command.function.map(|f| f as usize), "{}", command.name);
    }
    let create_buffer: vk::PFN_vkCreateBuffer = crate::entry::create_buffer;
    assert_eq!(address("vkCreateBuffer"), Some(create_buffer as usize));
    let requirements: vk::PFN_vkGetBufferMemoryRequirements2 = crate::entry::get_buffer_memory_requirements2;
    for name in ["vkGetBufferMemoryRequirements2", "vkGetBufferMemoryRequirements2KHR"] {
        assert_eq!(address(name), Some(requirements as usize), "{name}");
    }
    // Commands of Vulkan 1.4, by their new and their old name, whichever of them this vk.xml has.
    assert_eq!(address("vkMapMemory2"), address("vkMapMemory2KHR"));
    assert!(address("vkMapMemory2").is_some());
    for name in ["", "vk", "vkCreateBuffe", "vkCreateBuffer\0", "vkCreateBuffers", "vkCmdDraw", "zz"] {
        assert_eq!(address(name), None, "{name:?}");
    }
}

#[test]
fn levels_follow_the_first_parameter() {
    for (name, level) in [
        ("vkCreateInstance", Level::Global),
        ("vkGetInstanceProcAddr", Level::Global),
        ("vkDestroyInstance", Level::Instance),
        ("vkGetPhysicalDeviceProperties2KHR", Level::PhysicalDevice),
        ("vkCreateDevice", Level::PhysicalDevice),
        ("vkGetDeviceProcAddr", Level::Device),
        ("vkMapMemory2KHR", Level::Device),
        ("vkQueueBindSparse", Level::Device),
    ] {
        assert_eq!(lookup(name.as_bytes()).map(|(level, _)| level), Some(level), "{name}");
    }
}

fn info(format: vk::Format) -> &'static FormatInfo {
    format_info(format).unwrap_or_else(|| panic!("{format:?} is unknown"))
}

#[test]
fn formats_have_texel_blocks() {
    use vk::Format as F;
    for (format, bytes, extent, compressed) in [
        (F::R8G8B8A8_UNORM, 4, [1, 1, 1], false),
        (F::R5G6B5_UNORM_PACK16, 2, [1, 1, 1], false),
        (F::R64G64B64A64_SFLOAT, 32, [1, 1, 1], false),
        (F::BC1_RGB_UNORM_BLOCK, 8, [4, 4, 1], true),
        (F::ASTC_12X10_SRGB_BLOCK, 16, [12, 10, 1], true),
        (F::PVRTC1_2BPP_UNORM_BLOCK_IMG, 8, [8, 4, 1], true),
        (F::G8B8G8R8_422_UNORM, 4, [2, 1, 1], false),
        (F::G16B16G16R16_422_UNORM, 8, [2, 1, 1], false),
    ] {
        let info = info(format);
        assert_eq!(
            (info.block_bytes, info.block_extent, info.compressed),
            (bytes, extent, compressed),
            "{format:?}"
        );
        assert_eq!((info.depth_bits, info.stencil_bits, info.planes), (0, 0, [].as_slice()), "{format:?}");
    }
    assert_eq!(format_info(F::UNDEFINED), None);
    assert_eq!(format_info(F::from_raw(i32::MAX)), None);
}

#[test]
fn formats_have_depth_and_stencil() {
    use vk::Format as F;
    for (format, depth, stencil) in [
        (F::D16_UNORM, 16, 0),
        (F::X8_D24_UNORM_PACK32, 24, 0),
        (F::D32_SFLOAT, 32, 0),
        (F::S8_UINT, 0, 8),
        (F::D16_UNORM_S8_UINT, 16, 8),
        (F::D24_UNORM_S8_UINT, 24, 8),
        (F::D32_SFLOAT_S8_UINT, 32, 8),
    ] {
        assert_eq!((info(format).depth_bits, info(format).stencil_bits), (depth, stencil), "{format:?}");
    }
}

#[test]
fn formats_have_planes() {
    use vk::Format as F;
    let planes = |format| {
        let planes = info(format).planes.iter();
        planes.map(|plane| (plane.compatible, plane.width_divisor, plane.height_divisor)).collect::<Vec<_>>()
    };
    assert_eq!(
        planes(F::G8_B8_R8_3PLANE_420_UNORM),
        [(F::R8_UNORM, 1, 1), (F::R8_UNORM, 2, 2), (F::R8_UNORM, 2, 2)]
    );
    assert_eq!(planes(F::G8_B8R8_2PLANE_422_UNORM), [(F::R8_UNORM, 1, 1), (F::R8G8_UNORM, 2, 1)]);
    assert_eq!(
        planes(F::G10X6_B10X6R10X6_2PLANE_444_UNORM_3PACK16),
        [(F::R10X6_UNORM_PACK16, 1, 1), (F::R10X6G10X6_UNORM_2PACK16, 1, 1)]
    );
    for (_, format) in FORMATS {
        for plane in format.planes {
            assert_eq!(info(plane.compatible).planes, [], "{plane:?}");
        }
    }
}

/// Commands that name a queue or a queue family.
static QUEUE_COMMANDS: &[&str] = include!(concat!(env!("OUT_DIR"), "/queue_commands.rs"));

/// Those that may name an added queue or its family to the driver: they belong to extensions and platforms that no driver has whose
/// binding the layer owns.
const ELSEWHERE: &[&str] = &[
    "vkCreateQueryPool", // VkQueryPoolPerformanceCreateInfoKHR
    "vkCreateVideoSessionKHR",
    "vkEnumeratePhysicalDeviceQueueFamilyPerformanceQueryCountersKHR",
    "vkExportMetalObjectsEXT",
    "vkGetPhysicalDeviceDirectFBPresentationSupportEXT",
    "vkGetPhysicalDeviceQueueFamilyPerformanceQueryPassesKHR",
    "vkGetPhysicalDeviceScreenPresentationSupportQNX",
    "vkGetPhysicalDeviceWin32PresentationSupportKHR",
    "vkGetQueueCheckpointData2NV",
    "vkGetQueueCheckpointDataNV",
    "vkQueueSetPerformanceConfigurationINTEL",
    "vkQueueSignalReleaseImageANDROID",
    "vkSetBufferCollectionBufferConstraintsFUCHSIA",
    "vkSetBufferCollectionImageConstraintsFUCHSIA",
];

#[test]
fn every_command_that_names_a_queue_or_a_family_is_the_layers() {
    assert!(QUEUE_COMMANDS.contains(&"vkQueueSubmit2") && QUEUE_COMMANDS.contains(&"vkCmdWaitEvents2"));
    let missing: Vec<_> = QUEUE_COMMANDS
        .iter()
        .filter(|name| lookup(name.as_bytes()).is_none() && !ELSEWHERE.contains(name))
        .collect();
    assert!(missing.is_empty(), "the added queues need {missing:?}");
}

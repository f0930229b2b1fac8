//! What build.rs takes from vk.xml: the commands that the layer intercepts, sizes of chained structures, formats.

use ash::vk;

/// Who a command is asked of, by its first parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    /// Available without an instance.
    Global,
    Instance,
    PhysicalDevice,
    /// A device, its queues and its command buffers.
    Device,
    /// The same, where the device has queues that the layer added.
    AddedQueues,
}

struct Command {
    name: &'static str,
    level: Level,
    function: vk::PFN_vkVoidFunction,
}

macro_rules! command {
    ($name:literal, $level:ident, $pfn:ident, $function:ident) => {
        Command {
            name: $name,
            level: Level::$level,
            function: {
                // A function of another signature than the command's does not compile.
                let function: vk::$pfn = crate::entry::$function;
                // SAFETY: between function pointers; whoever got it by name casts it back to the command's type.
                Some(unsafe { core::mem::transmute::<vk::$pfn, unsafe extern "system" fn()>(function) })
            },
        }
    };
}

/// Sorted by name.
static COMMANDS: &[Command] = include!(concat!(env!("OUT_DIR"), "/commands.rs"));

/// The layer's function for a command, by any of the command's names, and the command's level.
pub(crate) fn lookup(name: &[u8]) -> Option<(Level, vk::PFN_vkVoidFunction)> {
    let at = COMMANDS.binary_search_by(|command| command.name.as_bytes().cmp(name)).ok()?;
    Some((COMMANDS[at].level, COMMANDS[at].function))
}

/// `VkStructureType` and size in bytes, sorted.
static STRUCT_SIZES: &[(i32, u32)] = include!(concat!(env!("OUT_DIR"), "/struct_sizes.rs"));

/// Bytes of the structure that begins with this `sType`; `None` for one that vk.xml does not know, or that holds types of a platform
/// with no layout known here.
pub(crate) fn struct_size(s_type: vk::StructureType) -> Option<usize> {
    let at = STRUCT_SIZES.binary_search_by_key(&s_type.as_raw(), |(known, _)| *known).ok()?;
    Some(STRUCT_SIZES[at].1 as usize)
}

/// How a format stores texels (vk.xml, `<formats>`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormatInfo {
    /// Bytes of a texel block; of a multi-planar format all planes together.
    pub(crate) block_bytes: u32,
    /// Width, height and depth of a texel block in texels.
    pub(crate) block_extent: [u32; 3],
    pub(crate) compressed: bool,
    /// Bits of the depth component; 0 where there is none.
    pub(crate) depth_bits: u8,
    /// Bits of the stencil component; 0 where there is none.
    pub(crate) stencil_bits: u8,
    /// The planes of a multi-planar format in their order; empty otherwise.
    pub(crate) planes: &'static [FormatPlane],
}

/// A plane of a multi-planar format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormatPlane {
    /// The single-plane format with which the plane is compatible.
    pub(crate) compatible: vk::Format,
    /// What the image's width is divided by in this plane.
    pub(crate) width_divisor: u32,
    /// What the image's height is divided by in this plane.
    pub(crate) height_divisor: u32,
}

/// `VkFormat` and what is known of it, sorted.
static FORMATS: &[(i32, FormatInfo)] = include!(concat!(env!("OUT_DIR"), "/formats.rs"));

/// `None` for a format that vk.xml does not describe.
pub fn format_info(format: vk::Format) -> Option<&'static FormatInfo> {
    let at = FORMATS.binary_search_by_key(&format.as_raw(), |(known, _)| *known).ok()?;
    Some(&FORMATS[at].1)
}

#[cfg(test)]
#[path = "vk_registry_tests.rs"]
pub(crate) mod tests;

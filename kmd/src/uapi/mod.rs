//! The kernel's user-space interface (uapi), as structures, constants and ioctl numbers.
//!
//! One module a kernel header. Names follow the header without its prefix (`struct drm_panthor_vm_bind` is
//! [`panthor::VmBind`]), fields keep their names, and the test beside this module holds every size, offset, constant and
//! request number against the header itself.

pub mod drm;
pub mod msm;
pub mod panthor;
pub mod sync_file;

#[cfg(test)]
mod tests;

use rustix::ioctl::opcode;

/// The `_IOC` type of every DRM ioctl.
const DRM_IOCTL_BASE: u8 = b'd';

/// First command number of a driver's own ioctls (`DRM_COMMAND_BASE`).
pub const COMMAND_BASE: u8 = 0x40;

/// `DRM_IOWR(nr, T)`: the kernel reads and writes the argument.
pub const fn iowr<T>(nr: u8) -> u32 {
    opcode::read_write::<T>(DRM_IOCTL_BASE, nr) as u32
}

/// `DRM_IOW(nr, T)`: the kernel reads the argument.
pub const fn iow<T>(nr: u8) -> u32 {
    opcode::write::<T>(DRM_IOCTL_BASE, nr) as u32
}

/// `DRM_IOR(nr, T)`: the kernel writes the argument.
pub const fn ior<T>(nr: u8) -> u32 {
    opcode::read::<T>(DRM_IOCTL_BASE, nr) as u32
}

/// As [`iowr`], of a sync file.
pub const fn sync_iowr<T>(nr: u8) -> u32 {
    opcode::read_write::<T>(sync_file::MAGIC, nr) as u32
}

/// As [`iow`], of a sync file.
pub const fn sync_iow<T>(nr: u8) -> u32 {
    opcode::write::<T>(sync_file::MAGIC, nr) as u32
}

/// The command number in a request: its low byte. Driver commands start at [`COMMAND_BASE`].
pub const fn command(request: u32) -> u8 {
    request as u8
}

/// The `_IOC` type of a request: the subsystem that it is for.
pub const fn magic(request: u32) -> u8 {
    (request >> 8) as u8
}

/// The argument size in a request, in bytes.
///
/// A caller built against an older header sends a smaller size for the same command; DRM matches on the command number
/// alone and zero-extends the argument.
pub const fn argument_size(request: u32) -> usize {
    ((request >> 16) & 0x3fff) as usize
}

/// The address of an array that an ioctl reads, as the uapi wants it.
///
/// The provenance is exposed: an emulator in this process turns the number back into a pointer.
pub fn user_address<T>(objects: &[T]) -> u64 {
    objects.as_ptr().expose_provenance() as u64
}

/// The address of an array that an ioctl writes, as the uapi wants it.
pub fn user_address_mut<T>(objects: &mut [T]) -> u64 {
    objects.as_mut_ptr().expose_provenance() as u64
}

/// A structure as the header test sees it.
#[cfg(test)]
struct Layout {
    c_name: &'static str,
    size: usize,
    align: usize,
    /// Name, offset and size of each field, in bytes.
    fields: &'static [(&'static str, usize, usize)],
}

/// Defines `repr(C)` structures and lists them for the header test, so that no field is written twice or left out.
///
/// Every structure is plain data: each field is an integer or an array of integers, there is no implicit padding, and all
/// zeroes is a valid value. `union { other: type = field }` names what a C union has at the place of `field` besides it.
macro_rules! uapi_structs {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident = $c_name:literal {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        } $(union { $other:ident: $other_type:ty = $place:ident })?
    )*) => {
        $(
            $(#[$meta])*
            #[doc = concat!("\n\n`struct ", $c_name, "`.")]
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct $name {
                $($(#[$field_meta])* pub $field: $type,)*
            }

            // Implicit padding would send uninitialised bytes to the kernel, which checks padding for zero.
            const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*);
        )*

        #[cfg(test)]
        pub(super) const STRUCTS: &[super::Layout] = &[$(super::Layout {
            c_name: $c_name,
            size: size_of::<$name>(),
            align: align_of::<$name>(),
            fields: &[
                $((stringify!($field), core::mem::offset_of!($name, $field), size_of::<$type>()),)*
                $((stringify!($other), core::mem::offset_of!($name, $place), size_of::<$other_type>()),)?
            ],
        },)*];
    };
}
use uapi_structs;

/// Defines constants and lists them for the header test.
macro_rules! uapi_consts {
    ($(
        $(#[$meta:meta])*
        pub const $name:ident: $type:ty = $c_name:literal, $value:expr;
    )*) => {
        $(
            $(#[$meta])*
            #[doc = concat!("\n\n`", $c_name, "`.")]
            pub const $name: $type = $value;
        )*

        /// Name in C, value, size of the type in bytes.
        #[cfg(test)]
        pub(super) const CONSTANTS: &[(&str, u64, usize)] =
            &[$(($c_name, $name as u64, size_of::<$type>()),)*];
    };
}
use uapi_consts;

/// Names the request of each argument structure. `Name(Struct)` makes a transparent newtype, for structures that several
/// requests share.
macro_rules! uapi_requests {
    ($($c_name:literal = $io:ident $nr:expr => $name:ident $(($(#[$meta:meta])* $inner:ty))?;)*) => {
        $(
            $(
                $(#[$meta])*
                #[doc = concat!("\n\nThe argument of `", $c_name, "`.")]
                #[repr(transparent)]
                #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
                pub struct $name(pub $inner);
            )?

            // SAFETY: the number is made of the size of this very structure, and the header test compares it with the
            // kernel's.
            unsafe impl $crate::Request for $name {
                const REQUEST: u32 = super::$io::<Self>($nr);
            }
        )*

        #[cfg(test)]
        pub(super) const REQUESTS: &[(&str, u32)] = &[$(($c_name, <$name as $crate::Request>::REQUEST),)*];
    };
}
use uapi_requests;

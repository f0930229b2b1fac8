//! `drm.h`: what every DRM driver understands — version, capabilities, GEM handles, PRIME, syncobjs.
//!
//! Pointers travel as `u64` user addresses, timeouts as absolute `CLOCK_MONOTONIC` nanoseconds.

use super::{uapi_consts, uapi_requests, uapi_structs};

uapi_structs! {
    /// Driver name and version. The three strings are filled up to the given lengths, without a terminating NUL; the
    /// lengths return as those of the full strings.
    pub struct Version = "drm_version" {
        /// Major version, out.
        pub version_major: i32,
        /// Minor version, out: grows with every compatible addition.
        pub version_minor: i32,
        /// Patch level, out.
        pub version_patchlevel: i32,
        /// The hole that C leaves before the first pointer-sized member.
        pub _hole: [i32; HOLE],
        /// Size of the name buffer in bytes; out: length of the name.
        pub name_len: usize,
        /// Address of the name buffer.
        pub name: usize,
        /// Size of the date buffer in bytes; out: length of the date.
        pub date_len: usize,
        /// Address of the date buffer.
        pub date: usize,
        /// Size of the description buffer in bytes; out: length of the description.
        pub desc_len: usize,
        /// Address of the description buffer.
        pub desc: usize,
    }

    /// Asks for one capability.
    pub struct GetCap = "drm_get_cap" {
        /// One of the `CAP_` constants.
        pub capability: u64,
        /// Out: its value.
        pub value: u64,
    }

    /// Closes a GEM handle. Handles are not reference counted: one close ends the handle for everybody who got the same
    /// number from an import.
    pub struct GemClose = "drm_gem_close" {
        /// The handle.
        pub handle: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// A GEM handle and the dma-buf that carries its object to another file or device.
    pub struct PrimeHandle = "drm_prime_handle" {
        /// GEM handle.
        pub handle: u32,
        /// [`CLOEXEC`] and [`RDWR`]; only for handle to file descriptor.
        pub flags: u32,
        /// dma-buf file descriptor.
        pub fd: i32,
    }

    /// Creates a syncobj.
    pub struct SyncobjCreate = "drm_syncobj_create" {
        /// Out: the new handle.
        pub handle: u32,
        /// [`SYNCOBJ_CREATE_SIGNALED`] or nothing.
        pub flags: u32,
    }

    /// Destroys a syncobj handle; the object lives on while fences, files or other handles refer to it.
    pub struct SyncobjDestroy = "drm_syncobj_destroy" {
        /// The handle.
        pub handle: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// A syncobj handle and a file that carries the syncobj or one of its fences.
    pub struct SyncobjHandle = "drm_syncobj_handle" {
        /// Syncobj handle.
        pub handle: u32,
        /// `SYNCOBJ_HANDLE_TO_FD_` or `SYNCOBJ_FD_TO_HANDLE_` flags.
        pub flags: u32,
        /// A syncobj file, or with the sync-file flags a sync file.
        pub fd: i32,
        /// Must be zero.
        pub pad: u32,
        /// Timeline point, with the timeline flags; zero otherwise.
        pub point: u64,
    }

    /// Takes the fence at one point and puts it at another. Point zero means: the binary syncobj.
    pub struct SyncobjTransfer = "drm_syncobj_transfer" {
        /// Syncobj to take from.
        pub src_handle: u32,
        /// Syncobj to put to.
        pub dst_handle: u32,
        /// Point to take from.
        pub src_point: u64,
        /// Point to put to.
        pub dst_point: u64,
        /// [`SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT`] or nothing.
        pub flags: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// Waits for binary syncobjs.
    pub struct SyncobjWait = "drm_syncobj_wait" {
        /// Address of `count_handles` handles (`u32`).
        pub handles: u64,
        /// Absolute timeout in nanoseconds; zero or less polls.
        pub timeout_nsec: i64,
        /// Number of handles.
        pub count_handles: u32,
        /// `SYNCOBJ_WAIT_FLAGS_`; not `WAIT_AVAILABLE`.
        pub flags: u32,
        /// Out, when not waiting for all: the index of a signalled one.
        pub first_signaled: u32,
        /// Must be zero.
        pub pad: u32,
        /// Deadline hint, absolute nanoseconds, with `WAIT_DEADLINE`.
        pub deadline_nsec: u64,
    }

    /// Waits for timeline points.
    pub struct SyncobjTimelineWait = "drm_syncobj_timeline_wait" {
        /// Address of `count_handles` handles (`u32`).
        pub handles: u64,
        /// Address of `count_handles` points (`u64`).
        pub points: u64,
        /// Absolute timeout in nanoseconds; zero or less polls.
        pub timeout_nsec: i64,
        /// Number of handles.
        pub count_handles: u32,
        /// `SYNCOBJ_WAIT_FLAGS_`.
        pub flags: u32,
        /// Out, when not waiting for all: the index of a signalled one.
        pub first_signaled: u32,
        /// Must be zero.
        pub pad: u32,
        /// Deadline hint, absolute nanoseconds, with `WAIT_DEADLINE`.
        pub deadline_nsec: u64,
    }

    /// Has an eventfd's counter raised by one when a point is signalled.
    pub struct SyncobjEventfd = "drm_syncobj_eventfd" {
        /// Syncobj handle.
        pub handle: u32,
        /// Zero, or [`SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE`] to be told when the point has a fence.
        pub flags: u32,
        /// Timeline point; zero for binary syncobjs.
        pub point: u64,
        /// An eventfd.
        pub fd: i32,
        /// Must be zero.
        pub pad: u32,
    }

    /// A list of syncobjs.
    pub struct SyncobjArray = "drm_syncobj_array" {
        /// Address of `count_handles` handles (`u32`).
        pub handles: u64,
        /// Number of handles, not zero.
        pub count_handles: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// A list of timeline points.
    pub struct SyncobjTimelineArray = "drm_syncobj_timeline_array" {
        /// Address of `count_handles` handles (`u32`).
        pub handles: u64,
        /// Address of `count_handles` points (`u64`).
        pub points: u64,
        /// Number of handles, not zero.
        pub count_handles: u32,
        /// [`SYNCOBJ_QUERY_FLAGS_LAST_SUBMITTED`] for a query, zero otherwise.
        pub flags: u32,
    }
}

/// `i32`s between `version_patchlevel` and the pointer-sized member behind it.
const HOLE: usize = (size_of::<usize>() - 4) / 4;

uapi_consts! {
    /// Capability: PRIME import and export, as [`PRIME_CAP_IMPORT`] and [`PRIME_CAP_EXPORT`].
    pub const CAP_PRIME: u64 = "DRM_CAP_PRIME", 0x5;
    /// Capability: syncobjs.
    pub const CAP_SYNCOBJ: u64 = "DRM_CAP_SYNCOBJ", 0x13;
    /// Capability: timeline syncobjs.
    pub const CAP_SYNCOBJ_TIMELINE: u64 = "DRM_CAP_SYNCOBJ_TIMELINE", 0x14;
    /// Bit of [`CAP_PRIME`]: dma-bufs can be imported.
    pub const PRIME_CAP_IMPORT: u64 = "DRM_PRIME_CAP_IMPORT", 1;
    /// Bit of [`CAP_PRIME`]: objects can be exported.
    pub const PRIME_CAP_EXPORT: u64 = "DRM_PRIME_CAP_EXPORT", 2;

    /// The exported file closes on exec.
    pub const CLOEXEC: u32 = "DRM_CLOEXEC", drm_ffi::DRM_CLOEXEC;
    /// The exported file can be mapped writable.
    pub const RDWR: u32 = "DRM_RDWR", drm_ffi::DRM_RDWR;

    /// Create the syncobj with a signalled fence.
    pub const SYNCOBJ_CREATE_SIGNALED: u32 = "DRM_SYNCOBJ_CREATE_SIGNALED", 1;
    /// The file is a sync file, whose fence goes into an existing syncobj.
    pub const SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE: u32 = "DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_IMPORT_SYNC_FILE", 1;
    /// The fence goes to a timeline point.
    pub const SYNCOBJ_FD_TO_HANDLE_FLAGS_TIMELINE: u32 = "DRM_SYNCOBJ_FD_TO_HANDLE_FLAGS_TIMELINE", 2;
    /// Export the current fence as a sync file.
    pub const SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE: u32 = "DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_EXPORT_SYNC_FILE", 1;
    /// Export the fence of a timeline point.
    pub const SYNCOBJ_HANDLE_TO_FD_FLAGS_TIMELINE: u32 = "DRM_SYNCOBJ_HANDLE_TO_FD_FLAGS_TIMELINE", 2;
    /// Wait for all, not for any.
    pub const SYNCOBJ_WAIT_FLAGS_WAIT_ALL: u32 = "DRM_SYNCOBJ_WAIT_FLAGS_WAIT_ALL", 1 << 0;
    /// A point without a fence is waited for, instead of being an error (EINVAL).
    pub const SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT: u32 = "DRM_SYNCOBJ_WAIT_FLAGS_WAIT_FOR_SUBMIT", 1 << 1;
    /// Wait only until the points have fences.
    pub const SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE: u32 = "DRM_SYNCOBJ_WAIT_FLAGS_WAIT_AVAILABLE", 1 << 2;
    /// The fences get the deadline as a hint.
    pub const SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE: u32 = "DRM_SYNCOBJ_WAIT_FLAGS_WAIT_DEADLINE", 1 << 3;
    /// Query the last point that was submitted, not the last that was signalled.
    pub const SYNCOBJ_QUERY_FLAGS_LAST_SUBMITTED: u32 = "DRM_SYNCOBJ_QUERY_FLAGS_LAST_SUBMITTED", 1;
}

uapi_requests! {
    "DRM_IOCTL_VERSION" = iowr 0x00 => Version;
    "DRM_IOCTL_GEM_CLOSE" = iow 0x09 => GemClose;
    "DRM_IOCTL_GET_CAP" = iowr 0x0c => GetCap;
    "DRM_IOCTL_PRIME_HANDLE_TO_FD" = iowr 0x2d => PrimeHandleToFd(
        /// Exports a GEM object as a dma-buf.
        PrimeHandle);
    "DRM_IOCTL_PRIME_FD_TO_HANDLE" = iowr 0x2e => PrimeFdToHandle(
        /// Imports a dma-buf as a GEM handle: the handle that the object already has in this file, if it has one.
        PrimeHandle);
    "DRM_IOCTL_SYNCOBJ_CREATE" = iowr 0xbf => SyncobjCreate;
    "DRM_IOCTL_SYNCOBJ_DESTROY" = iowr 0xc0 => SyncobjDestroy;
    "DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD" = iowr 0xc1 => SyncobjHandleToFd(
        /// Exports a syncobj, or with a flag its fence.
        SyncobjHandle);
    "DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE" = iowr 0xc2 => SyncobjFdToHandle(
        /// Imports a syncobj, or with a flag a fence. Every import of a syncobj makes a handle of its own.
        SyncobjHandle);
    "DRM_IOCTL_SYNCOBJ_WAIT" = iowr 0xc3 => SyncobjWait;
    "DRM_IOCTL_SYNCOBJ_RESET" = iowr 0xc4 => SyncobjReset(
        /// Takes the fences out of syncobjs.
        SyncobjArray);
    "DRM_IOCTL_SYNCOBJ_SIGNAL" = iowr 0xc5 => SyncobjSignal(
        /// Puts signalled fences into syncobjs.
        SyncobjArray);
    "DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT" = iowr 0xca => SyncobjTimelineWait;
    "DRM_IOCTL_SYNCOBJ_QUERY" = iowr 0xcb => SyncobjQuery(
        /// Asks for the last point of timelines.
        SyncobjTimelineArray);
    "DRM_IOCTL_SYNCOBJ_TRANSFER" = iowr 0xcc => SyncobjTransfer;
    "DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL" = iowr 0xcd => SyncobjTimelineSignal(
        /// Adds signalled points to timelines.
        SyncobjTimelineArray);
    "DRM_IOCTL_SYNCOBJ_EVENTFD" = iowr 0xcf => SyncobjEventfd;
}

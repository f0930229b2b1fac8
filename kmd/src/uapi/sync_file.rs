//! `linux/sync_file.h`: sync files, descriptors that stand for a fence. Their ioctls are made on the sync file itself.

use super::{uapi_consts, uapi_requests, uapi_structs};

uapi_structs! {
    /// Makes a sync file that is signalled when two are.
    pub struct MergeData = "sync_merge_data" {
        /// Name of the new one, for debugging; with a terminating NUL.
        pub name: [u8; 32],
        /// The sync file to merge with the one that is asked.
        pub fd2: i32,
        /// Out: the new one.
        pub fence: i32,
        /// Must be zero.
        pub flags: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// What one fence of a sync file is.
    pub struct FenceInfo = "sync_fence_info" {
        /// Name of its timeline.
        pub obj_name: [u8; 32],
        /// Name of its driver.
        pub driver_name: [u8; 32],
        /// 1: signalled, 0: not yet, negative: an error.
        pub status: i32,
        /// Zero.
        pub flags: u32,
        /// When it was signalled, `CLOCK_MONOTONIC` nanoseconds.
        pub timestamp_ns: u64,
    }

    /// Asks what a sync file is.
    pub struct FileInfo = "sync_file_info" {
        /// Out: its name.
        pub name: [u8; 32],
        /// Out: 1: signalled, 0: not yet, negative: an error.
        pub status: i32,
        /// Must be zero.
        pub flags: u32,
        /// Room for fences at `sync_fence_info`; out: how many there are.
        pub num_fences: u32,
        /// Must be zero.
        pub pad: u32,
        /// User address of an array of [`FenceInfo`], where `num_fences` is not zero.
        pub sync_fence_info: u64,
    }

    /// Says by when a fence should be signalled.
    pub struct SetDeadline = "sync_set_deadline" {
        /// `CLOCK_MONOTONIC` nanoseconds.
        pub deadline_ns: u64,
        /// Must be zero.
        pub pad: u64,
    }
}

uapi_consts! {
    /// The `_IOC` type of the ioctls of sync files.
    pub const MAGIC: u8 = "SYNC_IOC_MAGIC", b'>';
}

uapi_requests! {
    "SYNC_IOC_MERGE" = sync_iowr 3 => MergeData;
    "SYNC_IOC_FILE_INFO" = sync_iowr 4 => FileInfo;
    "SYNC_IOC_SET_DEADLINE" = sync_iow 5 => SetDeadline;
}

//! `panthor_drm.h`, version 1.9: Arm Mali v10 and later ("CSF").
//!
//! Addresses, sizes and offsets are bytes. Every `pad` must be zero.

use super::{COMMAND_BASE, uapi_consts, uapi_requests, uapi_structs, user_address};

/// The driver's name in the answer of the version ioctl.
pub const DRIVER_NAME: &str = "panthor";

uapi_structs! {
    /// An array of structures that may grow: the kernel zero-extends a shorter stride, and takes a longer one when the
    /// bytes it does not know are zero.
    pub struct ObjArray = "drm_panthor_obj_array" {
        /// Size of one element, as the caller knows it.
        pub stride: u32,
        /// Number of elements.
        pub count: u32,
        /// User address of the first element.
        pub array: u64,
    }

    /// A wait for, or a signal of, one syncobj or timeline point.
    pub struct SyncOp = "drm_panthor_sync_op" {
        /// `SYNC_OP_` flags: the handle's type, and wait or signal.
        pub flags: u32,
        /// Syncobj handle.
        pub handle: u32,
        /// Timeline point; zero unless the type is a timeline syncobj.
        pub timeline_value: u64,
    }

    /// What [`DEV_QUERY_GPU_INFO`] returns: the GPU's identification and feature registers.
    pub struct GpuInfo = "drm_panthor_gpu_info" {
        /// GPU id: architecture, product and version.
        pub gpu_id: u32,
        /// GPU revision.
        pub gpu_rev: u32,
        /// Command stream front end id.
        pub csf_id: u32,
        /// L2 cache features.
        pub l2_features: u32,
        /// Tiler features.
        pub tiler_features: u32,
        /// Memory features.
        pub mem_features: u32,
        /// MMU features; the low byte is the number of virtual address bits (see [`mmu_va_bits`]).
        pub mmu_features: u32,
        /// Thread features.
        pub thread_features: u32,
        /// Most threads.
        pub max_threads: u32,
        /// Largest workgroup.
        pub thread_max_workgroup_size: u32,
        /// Most threads that can wait at one barrier.
        pub thread_max_barrier_size: u32,
        /// Coherency protocols that the GPU knows, a mask of `1 << GPU_COHERENCY_*`.
        pub coherency_features: u32,
        /// Texture features.
        pub texture_features: [u32; 4],
        /// Mask of the MMU's address spaces.
        pub as_present: u32,
        /// The coherency in place on this system, a `GPU_COHERENCY_` value.
        pub selected_coherency: u32,
        /// Mask of shader cores.
        pub shader_present: u64,
        /// Mask of L2 caches.
        pub l2_present: u64,
        /// Mask of tilers.
        pub tiler_present: u64,
        /// Tells core variants apart.
        pub core_features: u32,
        /// Zero.
        pub pad: u32,
        /// GPU-wide features.
        pub gpu_features: u64,
    }

    /// What [`DEV_QUERY_CSIF_INFO`] returns: the command stream interface of the firmware.
    pub struct CsifInfo = "drm_panthor_csif_info" {
        /// Group slots of the firmware.
        pub csg_slot_count: u32,
        /// Stream slots a group.
        pub cs_slot_count: u32,
        /// Registers of a command stream.
        pub cs_reg_count: u32,
        /// Scoreboard slots.
        pub scoreboard_slot_count: u32,
        /// Registers at the end that the kernel overwrites when it calls a stream.
        pub unpreserved_cs_reg_count: u32,
        /// Zero.
        pub pad: u32,
    }

    /// What [`DEV_QUERY_TIMESTAMP_INFO`] asks (`flags`) and returns.
    pub struct TimestampInfo = "drm_panthor_timestamp_info" {
        /// Timer frequency in hertz, zero when unknown.
        pub timestamp_frequency: u64,
        /// GPU timestamp.
        pub current_timestamp: u64,
        /// Offset of the GPU's timer.
        pub timestamp_offset: u64,
        /// `TIMESTAMP_` flags; zero stands for GPU time, offset and frequency.
        pub flags: u32,
        /// How long the query took, in nanoseconds.
        pub duration_nsec: u32,
        /// GPU cycle counter.
        pub cycle_count: u64,
        /// Seconds of the CPU timestamp.
        pub cpu_timestamp_sec: u64,
        /// Nanoseconds of the CPU timestamp.
        pub cpu_timestamp_nsec: u64,
    }

    /// What [`DEV_QUERY_MMU_INFO`] returns (1.9).
    pub struct MmuInfo = "drm_panthor_mmu_info" {
        /// Page sizes that VM_BIND can map: bit n stands for 2^n bytes.
        pub page_size_bitmap: u64,
    }

    /// What [`DEV_QUERY_GROUP_PRIORITIES_INFO`] returns.
    pub struct GroupPrioritiesInfo = "drm_panthor_group_priorities_info" {
        /// Mask of `1 << GROUP_PRIORITY_*`.
        pub allowed_mask: u8,
        /// Zero.
        pub pad: [u8; 3],
    }

    /// Asks for one of the information structures.
    pub struct DevQuery = "drm_panthor_dev_query" {
        /// A `DEV_QUERY_` value.
        pub r#type: u32,
        /// Size of the structure at `pointer`; out: how much was written, or the full size when `pointer` is zero.
        pub size: u32,
        /// User address of the structure, or zero.
        pub pointer: u64,
    }

    /// Creates a VM.
    pub struct VmCreate = "drm_panthor_vm_create" {
        /// Must be zero.
        pub flags: u32,
        /// Out: the VM's id, from 1, unique in the open file.
        pub id: u32,
        /// Size of the user part of the address space, which starts at 0; zero lets the kernel choose. Out: what it is.
        pub user_va_range: u64,
    }

    /// Destroys a VM.
    pub struct VmDestroy = "drm_panthor_vm_destroy" {
        /// VM id.
        pub id: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// One operation of a VM_BIND call.
    pub struct VmBindOp = "drm_panthor_vm_bind_op" {
        /// `VM_BIND_OP_` flags: the type, and for a map how.
        pub flags: u32,
        /// GEM handle to map; zero for a sparse map and for everything that is no map.
        pub bo_handle: u32,
        /// Offset in the object; zero as `bo_handle` is.
        pub bo_offset: u64,
        /// GPU virtual address; zero for a sync-only operation.
        pub va: u64,
        /// Length; zero for a sync-only operation.
        pub size: u64,
        /// [`SyncOp`]s; empty unless the call is asynchronous, not empty for a sync-only operation.
        pub syncs: ObjArray,
    }

    /// The VM_BIND call.
    pub struct VmBind = "drm_panthor_vm_bind" {
        /// VM id.
        pub vm_id: u32,
        /// [`VM_BIND_ASYNC`] or nothing.
        pub flags: u32,
        /// [`VmBindOp`]s. When a synchronous call fails in an operation, `count` returns as that operation's index.
        pub ops: ObjArray,
    }

    /// Asks whether a VM still takes operations.
    pub struct VmGetState = "drm_panthor_vm_get_state" {
        /// VM id.
        pub vm_id: u32,
        /// Out: [`VM_STATE_USABLE`] or [`VM_STATE_UNUSABLE`].
        pub state: u32,
    }

    /// Creates a buffer object.
    pub struct BoCreate = "drm_panthor_bo_create" {
        /// Size; out: rounded up to pages.
        pub size: u64,
        /// `BO_` flags.
        pub flags: u32,
        /// When not zero, the only VM the object can be mapped in; such an object cannot be exported.
        pub exclusive_vm_id: u32,
        /// Out: GEM handle.
        pub handle: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// Asks for the offset that mmap takes for a buffer object.
    pub struct BoMmapOffset = "drm_panthor_bo_mmap_offset" {
        /// GEM handle.
        pub handle: u32,
        /// Must be zero.
        pub pad: u32,
        /// Out: the fake file offset.
        pub offset: u64,
    }

    /// One queue of a new group.
    pub struct QueueCreate = "drm_panthor_queue_create" {
        /// Priority within the group, 0 to 15, 15 first.
        pub priority: u8,
        /// Must be zero.
        pub pad: [u8; 3],
        /// Size of the ring buffer.
        pub ringbuf_size: u32,
    }

    /// Creates a scheduling group.
    pub struct GroupCreate = "drm_panthor_group_create" {
        /// [`QueueCreate`]s.
        pub queues: ObjArray,
        /// Most shader cores that compute work may use.
        pub max_compute_cores: u8,
        /// Most shader cores that fragment work may use.
        pub max_fragment_cores: u8,
        /// Most tilers.
        pub max_tiler_cores: u8,
        /// A `GROUP_PRIORITY_` value.
        pub priority: u8,
        /// Must be zero.
        pub pad: u32,
        /// Mask of shader cores for compute work.
        pub compute_core_mask: u64,
        /// Mask of shader cores for fragment work.
        pub fragment_core_mask: u64,
        /// Mask of tilers.
        pub tiler_core_mask: u64,
        /// The VM that the group's work runs in.
        pub vm_id: u32,
        /// Out: group handle.
        pub group_handle: u32,
    }

    /// Destroys a group.
    pub struct GroupDestroy = "drm_panthor_group_destroy" {
        /// Group handle.
        pub group_handle: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// One job: a command stream for one queue of a group.
    pub struct QueueSubmit = "drm_panthor_queue_submit" {
        /// Index of the queue.
        pub queue_index: u32,
        /// Size of the stream, a multiple of 8; zero makes the job a synchronisation point.
        pub stream_size: u32,
        /// GPU address of the stream, a multiple of 64.
        pub stream_addr: u64,
        /// Flush id read when the stream was built; zero flushes in any case.
        pub latest_flush: u32,
        /// Must be zero.
        pub pad: u32,
        /// [`SyncOp`]s.
        pub syncs: ObjArray,
    }

    /// Submits jobs to the queues of a group.
    pub struct GroupSubmit = "drm_panthor_group_submit" {
        /// Group handle.
        pub group_handle: u32,
        /// Must be zero.
        pub pad: u32,
        /// [`QueueSubmit`]s.
        pub queue_submits: ObjArray,
    }

    /// Asks for the state of a group.
    pub struct GroupGetState = "drm_panthor_group_get_state" {
        /// Group handle.
        pub group_handle: u32,
        /// Out: `GROUP_STATE_` flags.
        pub state: u32,
        /// Out: mask of the queues that had a fatal fault.
        pub fatal_queues: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// Creates a tiler heap.
    pub struct TilerHeapCreate = "drm_panthor_tiler_heap_create" {
        /// The VM that the heap is mapped in.
        pub vm_id: u32,
        /// Chunks to start with, at least one.
        pub initial_chunk_count: u32,
        /// Size of a chunk, page aligned, 128 KiB to 8 MiB.
        pub chunk_size: u32,
        /// Most chunks.
        pub max_chunks: u32,
        /// Most render passes in flight.
        pub target_in_flight: u32,
        /// Out: heap handle.
        pub handle: u32,
        /// Out: GPU address of the heap context.
        pub tiler_heap_ctx_gpu_va: u64,
        /// Out: GPU address of the first chunk.
        pub first_heap_chunk_gpu_va: u64,
    }

    /// Destroys a tiler heap.
    pub struct TilerHeapDestroy = "drm_panthor_tiler_heap_destroy" {
        /// Heap handle.
        pub handle: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// Names a buffer object for debugging.
    pub struct BoSetLabel = "drm_panthor_bo_set_label" {
        /// GEM handle.
        pub handle: u32,
        /// Must be zero.
        pub pad: u32,
        /// User address of a NUL-terminated string of at most 4096 bytes.
        pub label: u64,
    }

    /// Chooses the file offset of the user MMIO pages.
    pub struct SetUserMmioOffset = "drm_panthor_set_user_mmio_offset" {
        /// [`USER_MMIO_OFFSET_32BIT`] or [`USER_MMIO_OFFSET_64BIT`].
        pub offset: u64,
    }

    /// One range whose CPU caches are to be maintained.
    pub struct BoSyncOp = "drm_panthor_bo_sync_op" {
        /// GEM handle.
        pub handle: u32,
        /// A `BO_SYNC_` value.
        pub r#type: u32,
        /// Start of the range, rounded down to a cache line.
        pub offset: u64,
        /// Length of the range; its end is rounded up to a cache line.
        pub size: u64,
    }

    /// Maintains CPU caches.
    pub struct BoSync = "drm_panthor_bo_sync" {
        /// [`BoSyncOp`]s.
        pub ops: ObjArray,
    }

    /// Asks about a buffer object.
    pub struct BoQueryInfo = "drm_panthor_bo_query_info" {
        /// GEM handle.
        pub handle: u32,
        /// Out: [`BO_IS_IMPORTED`] or nothing.
        pub extra_flags: u32,
        /// Out: the `BO_` flags it was created with; zero for another driver's object.
        pub create_flags: u32,
        /// Zero.
        pub pad: u32,
    }
}

impl ObjArray {
    /// The array over `objects`. It borrows nothing: the caller keeps `objects` alive and in place until the ioctl.
    pub fn new<T>(objects: &[T]) -> Self {
        // An empty array has no stride either, as the kernel looks at neither.
        if objects.is_empty() {
            return Self::default();
        }
        Self {
            stride: size_of::<T>() as u32,
            count: u32::try_from(objects.len()).expect("an ioctl takes less than 2^32 objects"),
            array: user_address(objects),
        }
    }
}

uapi_consts! {
    /// File offset of the user MMIO pages for 32-bit processes.
    pub const USER_MMIO_OFFSET_32BIT: u64 = "DRM_PANTHOR_USER_MMIO_OFFSET_32BIT", 1 << 43;
    /// File offset of the user MMIO pages for 64-bit processes.
    pub const USER_MMIO_OFFSET_64BIT: u64 = "DRM_PANTHOR_USER_MMIO_OFFSET_64BIT", 1 << 56;
    /// File offset of the user MMIO pages for this process.
    pub const USER_MMIO_OFFSET: u64 = "DRM_PANTHOR_USER_MMIO_OFFSET",
        if size_of::<usize>() < 8 { USER_MMIO_OFFSET_32BIT } else { USER_MMIO_OFFSET_64BIT };
    /// File offset of the page with the LATEST_FLUSH_ID register.
    pub const USER_FLUSH_ID_MMIO_OFFSET: u64 = "DRM_PANTHOR_USER_FLUSH_ID_MMIO_OFFSET", USER_MMIO_OFFSET;

    /// Mask of the handle type in a sync operation's flags.
    pub const SYNC_OP_HANDLE_TYPE_MASK: u32 = "DRM_PANTHOR_SYNC_OP_HANDLE_TYPE_MASK", 0xff;
    /// The handle is a binary syncobj.
    pub const SYNC_OP_HANDLE_TYPE_SYNCOBJ: u32 = "DRM_PANTHOR_SYNC_OP_HANDLE_TYPE_SYNCOBJ", 0;
    /// The handle is a timeline syncobj.
    pub const SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ: u32 = "DRM_PANTHOR_SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ", 1;
    /// Wait.
    pub const SYNC_OP_WAIT: u32 = "DRM_PANTHOR_SYNC_OP_WAIT", 0 << 31;
    /// Signal.
    pub const SYNC_OP_SIGNAL: u32 = "DRM_PANTHOR_SYNC_OP_SIGNAL", 1 << 31;

    /// Query [`GpuInfo`].
    pub const DEV_QUERY_GPU_INFO: u32 = "DRM_PANTHOR_DEV_QUERY_GPU_INFO", 0;
    /// Query [`CsifInfo`].
    pub const DEV_QUERY_CSIF_INFO: u32 = "DRM_PANTHOR_DEV_QUERY_CSIF_INFO", 1;
    /// Query [`TimestampInfo`].
    pub const DEV_QUERY_TIMESTAMP_INFO: u32 = "DRM_PANTHOR_DEV_QUERY_TIMESTAMP_INFO", 2;
    /// Query [`GroupPrioritiesInfo`].
    pub const DEV_QUERY_GROUP_PRIORITIES_INFO: u32 = "DRM_PANTHOR_DEV_QUERY_GROUP_PRIORITIES_INFO", 3;
    /// Query [`MmuInfo`] (1.9).
    pub const DEV_QUERY_MMU_INFO: u32 = "DRM_PANTHOR_DEV_QUERY_MMU_INFO", 4;

    /// ACE-Lite coherency: the GPU snoops the CPU.
    pub const GPU_COHERENCY_ACE_LITE: u32 = "DRM_PANTHOR_GPU_COHERENCY_ACE_LITE", 0;
    /// ACE coherency: both snoop each other.
    pub const GPU_COHERENCY_ACE: u32 = "DRM_PANTHOR_GPU_COHERENCY_ACE", 1;
    /// No coherency.
    pub const GPU_COHERENCY_NONE: u32 = "DRM_PANTHOR_GPU_COHERENCY_NONE", 31;

    /// Query GPU time.
    pub const TIMESTAMP_GPU: u32 = "DRM_PANTHOR_TIMESTAMP_GPU", 1 << 0;
    /// No CPU time.
    pub const TIMESTAMP_CPU_NONE: u32 = "DRM_PANTHOR_TIMESTAMP_CPU_NONE", 0 << 1;
    /// CPU time by `CLOCK_MONOTONIC`.
    pub const TIMESTAMP_CPU_MONOTONIC: u32 = "DRM_PANTHOR_TIMESTAMP_CPU_MONOTONIC", 1 << 1;
    /// CPU time by `CLOCK_MONOTONIC_RAW`.
    pub const TIMESTAMP_CPU_MONOTONIC_RAW: u32 = "DRM_PANTHOR_TIMESTAMP_CPU_MONOTONIC_RAW", 2 << 1;
    /// Mask of the CPU clock.
    pub const TIMESTAMP_CPU_TYPE_MASK: u32 = "DRM_PANTHOR_TIMESTAMP_CPU_TYPE_MASK", 7 << 1;
    /// Query the GPU timer's offset.
    pub const TIMESTAMP_GPU_OFFSET: u32 = "DRM_PANTHOR_TIMESTAMP_GPU_OFFSET", 1 << 4;
    /// Query the GPU cycle counter.
    pub const TIMESTAMP_GPU_CYCLE_COUNT: u32 = "DRM_PANTHOR_TIMESTAMP_GPU_CYCLE_COUNT", 1 << 5;
    /// Query the timer's frequency.
    pub const TIMESTAMP_FREQ: u32 = "DRM_PANTHOR_TIMESTAMP_FREQ", 1 << 6;
    /// Return how long the query took.
    pub const TIMESTAMP_DURATION: u32 = "DRM_PANTHOR_TIMESTAMP_DURATION", 1 << 7;

    /// Map read-only for the GPU.
    pub const VM_BIND_OP_MAP_READONLY: u32 = "DRM_PANTHOR_VM_BIND_OP_MAP_READONLY", 1 << 0;
    /// Map not executable.
    pub const VM_BIND_OP_MAP_NOEXEC: u32 = "DRM_PANTHOR_VM_BIND_OP_MAP_NOEXEC", 1 << 1;
    /// Map uncached for the GPU.
    pub const VM_BIND_OP_MAP_UNCACHED: u32 = "DRM_PANTHOR_VM_BIND_OP_MAP_UNCACHED", 1 << 2;
    /// Map the range over and over onto a dummy object (1.9): reads are undefined, writes have no visible effect. Needs
    /// [`VM_BIND_OP_MAP_NOEXEC`] and neither handle nor offset.
    pub const VM_BIND_OP_MAP_SPARSE: u32 = "DRM_PANTHOR_VM_BIND_OP_MAP_SPARSE", 1 << 3;
    /// Mask of the operation's type.
    pub const VM_BIND_OP_TYPE_MASK: u32 = "DRM_PANTHOR_VM_BIND_OP_TYPE_MASK", 0xf << 28;
    /// Map.
    pub const VM_BIND_OP_TYPE_MAP: u32 = "DRM_PANTHOR_VM_BIND_OP_TYPE_MAP", 0 << 28;
    /// Unmap.
    pub const VM_BIND_OP_TYPE_UNMAP: u32 = "DRM_PANTHOR_VM_BIND_OP_TYPE_UNMAP", 1 << 28;
    /// Only wait and signal; asynchronous calls only.
    pub const VM_BIND_OP_TYPE_SYNC_ONLY: u32 = "DRM_PANTHOR_VM_BIND_OP_TYPE_SYNC_ONLY", 2 << 28;

    /// The operations go to the VM's bind queue instead of being done before the call returns.
    pub const VM_BIND_ASYNC: u32 = "DRM_PANTHOR_VM_BIND_ASYNC", 1 << 0;

    /// The VM takes operations.
    pub const VM_STATE_USABLE: u32 = "DRM_PANTHOR_VM_STATE_USABLE", 0;
    /// An asynchronous operation failed: maps are refused and GPU jobs fail, unmaps still work.
    pub const VM_STATE_UNUSABLE: u32 = "DRM_PANTHOR_VM_STATE_UNUSABLE", 1;

    /// The object is never mapped by a CPU.
    pub const BO_NO_MMAP: u32 = "DRM_PANTHOR_BO_NO_MMAP", 1 << 0;
    /// CPU mappings are write-back cached even where the GPU is not coherent. Excludes [`BO_NO_MMAP`].
    pub const BO_WB_MMAP: u32 = "DRM_PANTHOR_BO_WB_MMAP", 1 << 1;

    /// Low priority.
    pub const GROUP_PRIORITY_LOW: u32 = "PANTHOR_GROUP_PRIORITY_LOW", 0;
    /// Medium priority.
    pub const GROUP_PRIORITY_MEDIUM: u32 = "PANTHOR_GROUP_PRIORITY_MEDIUM", 1;
    /// High priority: needs `CAP_SYS_NICE` or DRM master.
    pub const GROUP_PRIORITY_HIGH: u32 = "PANTHOR_GROUP_PRIORITY_HIGH", 2;
    /// Realtime priority: needs `CAP_SYS_NICE` or DRM master.
    pub const GROUP_PRIORITY_REALTIME: u32 = "PANTHOR_GROUP_PRIORITY_REALTIME", 3;

    /// The group had unfinished jobs: it takes no more.
    pub const GROUP_STATE_TIMEDOUT: u32 = "DRM_PANTHOR_GROUP_STATE_TIMEDOUT", 1 << 0;
    /// The group had a fatal fault: it takes no more jobs.
    pub const GROUP_STATE_FATAL_FAULT: u32 = "DRM_PANTHOR_GROUP_STATE_FATAL_FAULT", 1 << 1;
    /// The group was killed by a reset for which another group is to blame.
    pub const GROUP_STATE_INNOCENT: u32 = "DRM_PANTHOR_GROUP_STATE_INNOCENT", 1 << 2;

    /// Flush CPU caches.
    pub const BO_SYNC_CPU_CACHE_FLUSH: u32 = "DRM_PANTHOR_BO_SYNC_CPU_CACHE_FLUSH", 0;
    /// Flush and invalidate CPU caches.
    pub const BO_SYNC_CPU_CACHE_FLUSH_AND_INVALIDATE: u32 = "DRM_PANTHOR_BO_SYNC_CPU_CACHE_FLUSH_AND_INVALIDATE", 1;

    /// The object was imported from another driver.
    pub const BO_IS_IMPORTED: u32 = "DRM_PANTHOR_BO_IS_IMPORTED", 1 << 0;
}

uapi_requests! {
    "DRM_IOCTL_PANTHOR_DEV_QUERY" = iowr COMMAND_BASE => DevQuery;
    "DRM_IOCTL_PANTHOR_VM_CREATE" = iowr COMMAND_BASE + 0x1 => VmCreate;
    "DRM_IOCTL_PANTHOR_VM_DESTROY" = iowr COMMAND_BASE + 0x2 => VmDestroy;
    "DRM_IOCTL_PANTHOR_VM_BIND" = iowr COMMAND_BASE + 0x3 => VmBind;
    "DRM_IOCTL_PANTHOR_VM_GET_STATE" = iowr COMMAND_BASE + 0x4 => VmGetState;
    "DRM_IOCTL_PANTHOR_BO_CREATE" = iowr COMMAND_BASE + 0x5 => BoCreate;
    "DRM_IOCTL_PANTHOR_BO_MMAP_OFFSET" = iowr COMMAND_BASE + 0x6 => BoMmapOffset;
    "DRM_IOCTL_PANTHOR_GROUP_CREATE" = iowr COMMAND_BASE + 0x7 => GroupCreate;
    "DRM_IOCTL_PANTHOR_GROUP_DESTROY" = iowr COMMAND_BASE + 0x8 => GroupDestroy;
    "DRM_IOCTL_PANTHOR_GROUP_SUBMIT" = iowr COMMAND_BASE + 0x9 => GroupSubmit;
    "DRM_IOCTL_PANTHOR_GROUP_GET_STATE" = iowr COMMAND_BASE + 0xa => GroupGetState;
    "DRM_IOCTL_PANTHOR_TILER_HEAP_CREATE" = iowr COMMAND_BASE + 0xb => TilerHeapCreate;
    "DRM_IOCTL_PANTHOR_TILER_HEAP_DESTROY" = iowr COMMAND_BASE + 0xc => TilerHeapDestroy;
    "DRM_IOCTL_PANTHOR_BO_SET_LABEL" = iowr COMMAND_BASE + 0xd => BoSetLabel;
    "DRM_IOCTL_PANTHOR_SET_USER_MMIO_OFFSET" = iowr COMMAND_BASE + 0xe => SetUserMmioOffset;
    "DRM_IOCTL_PANTHOR_BO_SYNC" = iowr COMMAND_BASE + 0xf => BoSync;
    "DRM_IOCTL_PANTHOR_BO_QUERY_INFO" = iowr COMMAND_BASE + 0x10 => BoQueryInfo;
}

/// Number of GPU virtual address bits in [`GpuInfo::mmu_features`].
pub const fn mmu_va_bits(mmu_features: u32) -> u32 {
    mmu_features & 0xff
}

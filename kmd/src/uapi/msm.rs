//! `msm_drm.h`, version 1.13: Qualcomm Adreno.
//!
//! Addresses, sizes and offsets are bytes. Every `pad` must be zero.

use super::{COMMAND_BASE, uapi_consts, uapi_requests, uapi_structs, user_address};

/// The driver's name in the answer of the version ioctl.
pub const DRIVER_NAME: &str = "msm";

uapi_structs! {
    /// A point in time, by `CLOCK_MONOTONIC`.
    pub struct Timespec = "drm_msm_timespec" {
        /// Seconds.
        pub tv_sec: i64,
        /// Nanoseconds.
        pub tv_nsec: i64,
    }

    /// Reads or writes a parameter of the device or of the open file.
    pub struct Param = "drm_msm_param" {
        /// [`PIPE_3D0`].
        pub pipe: u32,
        /// A `PARAM_` value.
        pub param: u32,
        /// The value, out or in; for a string its user address.
        pub value: u64,
        /// Length of a string; zero for a number.
        pub len: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// Creates a buffer object.
    pub struct GemNew = "drm_msm_gem_new" {
        /// Size; the kernel rounds up to pages, and does not tell.
        pub size: u64,
        /// `BO_` flags, one cache mode among them.
        pub flags: u32,
        /// Out: GEM handle.
        pub handle: u32,
    }

    /// Asks or tells something about a buffer object.
    pub struct GemInfo = "drm_msm_gem_info" {
        /// GEM handle.
        pub handle: u32,
        /// An `INFO_` value.
        pub info: u32,
        /// The value, in or out, or the user address of a longer one.
        pub value: u64,
        /// Length of what `value` points at; zero where `value` is the value itself.
        pub len: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// Waits until the CPU may touch a buffer object.
    pub struct GemCpuPrep = "drm_msm_gem_cpu_prep" {
        /// GEM handle.
        pub handle: u32,
        /// `PREP_` flags.
        pub op: u32,
        /// When to give up.
        pub timeout: Timespec,
    }

    /// Ends what [`GemCpuPrep`] began.
    pub struct GemCpuFini = "drm_msm_gem_cpu_fini" {
        /// GEM handle.
        pub handle: u32,
    }

    /// Says whether an object's content is needed.
    pub struct GemMadvise = "drm_msm_gem_madvise" {
        /// GEM handle.
        pub handle: u32,
        /// A `MADV_` value.
        pub madv: u32,
        /// Out: whether the content is still there.
        pub retained: u32,
    }

    /// A wait for, or a signal of, one syncobj or timeline point.
    pub struct Syncobj = "drm_msm_syncobj" {
        /// Syncobj handle.
        pub handle: u32,
        /// [`SYNCOBJ_RESET`] for a wait, or nothing.
        pub flags: u32,
        /// Timeline point; zero for a binary syncobj.
        pub point: u64,
    }

    /// A place in a command stream that the kernel fills with an object's address.
    pub struct SubmitReloc = "drm_msm_gem_submit_reloc" {
        /// Offset in the object that holds the command stream, not below that of the reloc before.
        pub submit_offset: u32,
        /// Bits that are set in what is written.
        pub or: u32,
        /// Left shift of the address; right, when it is negative.
        pub shift: i32,
        /// Index of the object in the submission's table.
        pub reloc_idx: u32,
        /// Added to the object's address.
        pub reloc_offset: u64,
    }

    /// One command stream of a submission.
    pub struct SubmitCmd = "drm_msm_gem_submit_cmd" {
        /// A `SUBMIT_CMD_` value.
        pub r#type: u32,
        /// Index of its object in the submission's table; zero with VM_BIND.
        pub submit_idx: u32,
        /// Its offset in the object; zero with VM_BIND.
        pub submit_offset: u32,
        /// Its length, a multiple of 4.
        pub size: u32,
        /// Nobody looks at it.
        pub pad: u32,
        /// Number of relocs; zero with VM_BIND.
        pub nr_relocs: u32,
        /// User address of the [`SubmitReloc`]s; with VM_BIND the GPU address of the stream.
        pub relocs: u64,
    } union { iova: u64 = relocs }

    /// One object that a submission uses.
    pub struct SubmitBo = "drm_msm_gem_submit_bo" {
        /// `SUBMIT_BO_` flags, [`SUBMIT_BO_READ`] or [`SUBMIT_BO_WRITE`] among them.
        pub flags: u32,
        /// GEM handle.
        pub handle: u32,
        /// Where user space thinks that it is. The kernel does not look at it any more.
        pub presumed: u64,
    }

    /// Submits command streams to a queue.
    pub struct GemSubmit = "drm_msm_gem_submit" {
        /// [`PIPE_3D0`] and `SUBMIT_` flags.
        pub flags: u32,
        /// Out: the submission's number in its queue; in, with [`SUBMIT_FENCE_SN_IN`].
        pub fence: u32,
        /// Number of objects.
        pub nr_bos: u32,
        /// Number of command streams.
        pub nr_cmds: u32,
        /// User address of the [`SubmitBo`]s.
        pub bos: u64,
        /// User address of the [`SubmitCmd`]s.
        pub cmds: u64,
        /// In: a sync file to wait for, by [`SUBMIT_FENCE_FD_IN`]. Out: one of the submission, by [`SUBMIT_FENCE_FD_OUT`].
        pub fence_fd: i32,
        /// The submit queue.
        pub queueid: u32,
        /// User address of the [`Syncobj`]s to wait for, by [`SUBMIT_SYNCOBJ_IN`].
        pub in_syncobjs: u64,
        /// User address of the [`Syncobj`]s to signal, by [`SUBMIT_SYNCOBJ_OUT`].
        pub out_syncobjs: u64,
        /// Number of syncobjs to wait for.
        pub nr_in_syncobjs: u32,
        /// Number of syncobjs to signal.
        pub nr_out_syncobjs: u32,
        /// Size of one [`Syncobj`], as the caller knows it.
        pub syncobj_stride: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// One operation of a VM_BIND call.
    pub struct VmBindOp = "drm_msm_vm_bind_op" {
        /// A `VM_BIND_OP_` value.
        pub op: u32,
        /// GEM handle to map; zero for everything but a map.
        pub handle: u32,
        /// Offset in the object.
        pub obj_offset: u64,
        /// GPU virtual address.
        pub iova: u64,
        /// Length.
        pub range: u64,
        /// [`VM_BIND_OP_DUMP`] or nothing.
        pub flags: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// The VM_BIND call. Its last member is a union of one operation and the address of an array of them: see
    /// [`VmBind::set_ops`].
    pub struct VmBind = "drm_msm_vm_bind" {
        /// `VM_BIND_FENCE_FD_` flags.
        pub flags: u32,
        /// Number of operations.
        pub nr_ops: u32,
        /// In: a sync file to wait for, by [`VM_BIND_FENCE_FD_IN`]. Out: one that is signalled when the operations are
        /// done, by [`VM_BIND_FENCE_FD_OUT`].
        pub fence_fd: i32,
        /// The bind queue, a submit queue made with [`SUBMITQUEUE_VM_BIND`].
        pub queue_id: u32,
        /// User address of the [`Syncobj`]s to wait for.
        pub in_syncobjs: u64,
        /// User address of the [`Syncobj`]s to signal.
        pub out_syncobjs: u64,
        /// Number of syncobjs to wait for.
        pub nr_in_syncobjs: u32,
        /// Number of syncobjs to signal.
        pub nr_out_syncobjs: u32,
        /// Size of one [`Syncobj`], as the caller knows it.
        pub syncobj_stride: u32,
        /// Size of one [`VmBindOp`]. The kernel does not look at it.
        pub op_stride: u32,
        /// The operation, when there is one; else its first eight bytes are the user address of the [`VmBindOp`]s.
        pub op: VmBindOp,
    } union { ops: u64 = op }

    /// Waits for a submission.
    pub struct WaitFence = "drm_msm_wait_fence" {
        /// The submission's number.
        pub fence: u32,
        /// [`WAIT_FENCE_BOOST`] or nothing.
        pub flags: u32,
        /// When to give up.
        pub timeout: Timespec,
        /// The submit queue.
        pub queueid: u32,
        /// What C adds without a name.
        pub _pad: u32,
    }

    /// Creates a submit queue.
    pub struct SubmitqueueNew = "drm_msm_submitqueue" {
        /// `SUBMITQUEUE_` flags.
        pub flags: u32,
        /// Priority: 0 is the highest, and the only one of a bind queue.
        pub prio: u32,
        /// Out: the queue's id, unique in the open file. The queue with id 0 is always there.
        pub id: u32,
    }

    /// Asks about a submit queue.
    pub struct SubmitqueueQuery = "drm_msm_submitqueue_query" {
        /// User address of the answer.
        pub data: u64,
        /// The queue's id.
        pub id: u32,
        /// [`SUBMITQUEUE_PARAM_FAULTS`].
        pub param: u32,
        /// Size of the answer; zero asks for it.
        pub len: u32,
        /// Must be zero.
        pub pad: u32,
    }

    /// A group of performance counters.
    pub struct PerfcntrGroup = "drm_msm_perfcntr_group" {
        /// Its name.
        pub group_name: [u8; 16],
        /// How many of its counters are wanted.
        pub nr_countables: u32,
        /// Must be zero.
        pub pad: u32,
        /// User address of what each is to count, a `u32` a counter.
        pub countables: u64,
    }

    /// Reserves performance counters, or streams them.
    pub struct PerfcntrConfig = "drm_msm_perfcntr_config" {
        /// `PERFCNTR_` flags.
        pub flags: u32,
        /// Number of groups.
        pub nr_groups: u32,
        /// User address of the [`PerfcntrGroup`]s.
        pub groups: u64,
        /// Nanoseconds from sample to sample.
        pub period: u64,
        /// 2 to the power of this are the bytes of the buffer.
        pub bufsz_shift: u32,
        /// Size of one [`PerfcntrGroup`], as the caller knows it.
        pub group_stride: u32,
    }
}

impl VmBind {
    /// Puts the operations in, or their address: the caller keeps `ops` alive and in place until the ioctl.
    pub fn set_ops(&mut self, ops: &[VmBindOp]) {
        self.nr_ops = u32::try_from(ops.len()).expect("an ioctl takes less than 2^32 operations");
        self.op_stride = size_of::<VmBindOp>() as u32;
        self.op = match ops {
            [] => VmBindOp::default(),
            [only] => *only,
            ops => {
                let address = user_address(ops).to_ne_bytes();
                let half =
                    |at: usize| u32::from_ne_bytes(address[at..at + 4].try_into().expect("four bytes"));
                VmBindOp { op: half(0), handle: half(4), ..Default::default() }
            }
        };
    }

    /// User address of the operations, where there are several.
    pub fn ops_address(&self) -> u64 {
        let mut address = [0; 8];
        address[..4].copy_from_slice(&self.op.op.to_ne_bytes());
        address[4..].copy_from_slice(&self.op.handle.to_ne_bytes());
        u64::from_ne_bytes(address)
    }
}

uapi_consts! {
    /// No engine.
    pub const PIPE_NONE: u32 = "MSM_PIPE_NONE", 0x00;
    /// The first 2D engine, which no GPU has any more.
    pub const PIPE_2D0: u32 = "MSM_PIPE_2D0", 0x01;
    /// The second 2D engine.
    pub const PIPE_2D1: u32 = "MSM_PIPE_2D1", 0x02;
    /// The only engine that there is.
    pub const PIPE_3D0: u32 = "MSM_PIPE_3D0", 0x10;
    /// Mask of the engine in [`GemSubmit::flags`].
    pub const PIPE_ID_MASK: u32 = "MSM_PIPE_ID_MASK", 0xffff;

    /// The GPU's old name, such as 630; zero for GPUs without one.
    pub const PARAM_GPU_ID: u32 = "MSM_PARAM_GPU_ID", 0x01;
    /// Bytes of tile memory.
    pub const PARAM_GMEM_SIZE: u32 = "MSM_PARAM_GMEM_SIZE", 0x02;
    /// Core, major, minor and patch number, a byte each from the top; the speed bin above them.
    pub const PARAM_CHIP_ID: u32 = "MSM_PARAM_CHIP_ID", 0x03;
    /// Highest clock in hertz.
    pub const PARAM_MAX_FREQ: u32 = "MSM_PARAM_MAX_FREQ", 0x04;
    /// The GPU's counter of 19.2 MHz.
    pub const PARAM_TIMESTAMP: u32 = "MSM_PARAM_TIMESTAMP", 0x05;
    /// GPU address of the tile memory.
    pub const PARAM_GMEM_BASE: u32 = "MSM_PARAM_GMEM_BASE", 0x06;
    /// Number of priorities of submit queues.
    pub const PARAM_PRIORITIES: u32 = "MSM_PARAM_PRIORITIES", 0x07;
    /// The name of [`PARAM_PRIORITIES`] from when a priority was a ring.
    pub const PARAM_NR_RINGS: u32 = "MSM_PARAM_NR_RINGS", PARAM_PRIORITIES;
    /// Zero.
    pub const PARAM_PP_PGTABLE: u32 = "MSM_PARAM_PP_PGTABLE", 0x08;
    /// Number of GPU faults so far.
    pub const PARAM_FAULTS: u32 = "MSM_PARAM_FAULTS", 0x09;
    /// Number of times that the GPU was powered off.
    pub const PARAM_SUSPENDS: u32 = "MSM_PARAM_SUSPENDS", 0x0a;
    /// Keeps performance counters (write only, privileged).
    pub const PARAM_SYSPROF: u32 = "MSM_PARAM_SYSPROF", 0x0b;
    /// The process's name in reports (a string, write only).
    pub const PARAM_COMM: u32 = "MSM_PARAM_COMM", 0x0c;
    /// The process's command line in reports (a string, write only).
    pub const PARAM_CMDLINE: u32 = "MSM_PARAM_CMDLINE", 0x0d;
    /// First GPU address of the process.
    pub const PARAM_VA_START: u32 = "MSM_PARAM_VA_START", 0x0e;
    /// Size of the process's GPU addresses.
    pub const PARAM_VA_SIZE: u32 = "MSM_PARAM_VA_SIZE", 0x0f;
    /// Highest address bit that chooses a bank of the memory: the tiled layouts depend on it.
    pub const PARAM_HIGHEST_BANK_BIT: u32 = "MSM_PARAM_HIGHEST_BANK_BIT", 0x10;
    /// Whether the GPU traces rays.
    pub const PARAM_RAYTRACING: u32 = "MSM_PARAM_RAYTRACING", 0x11;
    /// Mask of the levels at which addresses are swizzled.
    pub const PARAM_UBWC_SWIZZLE: u32 = "MSM_PARAM_UBWC_SWIZZLE", 0x12;
    /// Channels of the macrotile layout: 0 for four, 1 for eight.
    pub const PARAM_MACROTILE_MODE: u32 = "MSM_PARAM_MACROTILE_MODE", 0x13;
    /// The address that the GPU's caches trap.
    pub const PARAM_UCHE_TRAP_BASE: u32 = "MSM_PARAM_UCHE_TRAP_BASE", 0x14;
    /// Whether there is a partially resident region: null mappings that read zero and drop writes.
    pub const PARAM_HAS_PRR: u32 = "MSM_PARAM_HAS_PRR", 0x15;
    /// Opts in to VM_BIND, before the open file has a VM (write only).
    pub const PARAM_EN_VM_BIND: u32 = "MSM_PARAM_EN_VM_BIND", 0x16;
    /// Whether the GPU has a second command processor for ray tracing.
    pub const PARAM_AQE: u32 = "MSM_PARAM_AQE", 0x17;

    /// Can be scanned out.
    pub const BO_SCANOUT: u32 = "MSM_BO_SCANOUT", 1;
    /// The GPU only reads it.
    pub const BO_GPU_READONLY: u32 = "MSM_BO_GPU_READONLY", 2;
    /// Belongs to this open file's VM alone: cheaper to bind, cannot be exported.
    pub const BO_NO_SHARE: u32 = "MSM_BO_NO_SHARE", 4;
    /// Mask of the cache mode.
    pub const BO_CACHE_MASK: u32 = "MSM_BO_CACHE_MASK", 0x000f_0000;
    /// CPU mappings are cached, and the GPU does not look into the caches.
    pub const BO_CACHED: u32 = "MSM_BO_CACHED", 0x0001_0000;
    /// CPU mappings combine writes.
    pub const BO_WC: u32 = "MSM_BO_WC", 0x0002_0000;
    /// Deprecated: as [`BO_WC`].
    pub const BO_UNCACHED: u32 = "MSM_BO_UNCACHED", 0x0004_0000;
    /// CPU mappings are cached, and the GPU looks into the caches.
    pub const BO_CACHED_COHERENT: u32 = "MSM_BO_CACHED_COHERENT", 0x0008_0000;
    /// All flags.
    pub const BO_FLAGS: u32 = "MSM_BO_FLAGS", BO_SCANOUT | BO_GPU_READONLY | BO_NO_SHARE | BO_CACHE_MASK;

    /// The file offset that mmap takes.
    pub const INFO_GET_OFFSET: u32 = "MSM_INFO_GET_OFFSET", 0;
    /// The address that the kernel gave it; refused with VM_BIND.
    pub const INFO_GET_IOVA: u32 = "MSM_INFO_GET_IOVA", 1;
    /// Sets a name for debugging.
    pub const INFO_SET_NAME: u32 = "MSM_INFO_SET_NAME", 2;
    /// The name.
    pub const INFO_GET_NAME: u32 = "MSM_INFO_GET_NAME", 3;
    /// Sets the address; refused with VM_BIND.
    pub const INFO_SET_IOVA: u32 = "MSM_INFO_SET_IOVA", 4;
    /// The `BO_` flags.
    pub const INFO_GET_FLAGS: u32 = "MSM_INFO_GET_FLAGS", 5;
    /// Sets up to 128 bytes for those who import the object.
    pub const INFO_SET_METADATA: u32 = "MSM_INFO_SET_METADATA", 6;
    /// Those bytes.
    pub const INFO_GET_METADATA: u32 = "MSM_INFO_GET_METADATA", 7;

    /// The CPU will read.
    pub const PREP_READ: u32 = "MSM_PREP_READ", 1;
    /// The CPU will write.
    pub const PREP_WRITE: u32 = "MSM_PREP_WRITE", 2;
    /// Fail with EBUSY instead of waiting.
    pub const PREP_NOSYNC: u32 = "MSM_PREP_NOSYNC", 4;
    /// Wait as if somebody looked at the clock.
    pub const PREP_BOOST: u32 = "MSM_PREP_BOOST", 8;
    /// All flags.
    pub const PREP_FLAGS: u32 = "MSM_PREP_FLAGS", PREP_READ | PREP_WRITE | PREP_NOSYNC | PREP_BOOST;

    /// The content is needed.
    pub const MADV_WILLNEED: u32 = "MSM_MADV_WILLNEED", 0;
    /// The content may go.
    pub const MADV_DONTNEED: u32 = "MSM_MADV_DONTNEED", 1;

    /// The kernel's own: the content is gone.
    pub const MADV_PURGED: u32 = "__MSM_MADV_PURGED", 2;

    /// Take the fence out of the syncobj after the wait.
    pub const SYNCOBJ_RESET: u32 = "MSM_SYNCOBJ_RESET", 1;
    /// All flags.
    pub const SYNCOBJ_FLAGS: u32 = "MSM_SYNCOBJ_FLAGS", SYNCOBJ_RESET;

    /// A command stream that is executed.
    pub const SUBMIT_CMD_BUF: u32 = "MSM_SUBMIT_CMD_BUF", 1;
    /// A command stream that another one calls.
    pub const SUBMIT_CMD_IB_TARGET_BUF: u32 = "MSM_SUBMIT_CMD_IB_TARGET_BUF", 2;
    /// A command stream that is executed when another context was there in between.
    pub const SUBMIT_CMD_CTX_RESTORE_BUF: u32 = "MSM_SUBMIT_CMD_CTX_RESTORE_BUF", 3;
    /// The GPU reads the object.
    pub const SUBMIT_BO_READ: u32 = "MSM_SUBMIT_BO_READ", 1;
    /// The GPU writes the object.
    pub const SUBMIT_BO_WRITE: u32 = "MSM_SUBMIT_BO_WRITE", 2;
    /// Put the content into crash dumps.
    pub const SUBMIT_BO_DUMP: u32 = "MSM_SUBMIT_BO_DUMP", 4;
    /// Do not wait for what others do with the object.
    pub const SUBMIT_BO_NO_IMPLICIT: u32 = "MSM_SUBMIT_BO_NO_IMPLICIT", 8;
    /// All flags.
    pub const SUBMIT_BO_FLAGS: u32 = "MSM_SUBMIT_BO_FLAGS",
        SUBMIT_BO_READ | SUBMIT_BO_WRITE | SUBMIT_BO_DUMP | SUBMIT_BO_NO_IMPLICIT;
    /// Do not wait for what others do with the objects.
    pub const SUBMIT_NO_IMPLICIT: u32 = "MSM_SUBMIT_NO_IMPLICIT", 0x8000_0000;
    /// Wait for the sync file in `fence_fd`.
    pub const SUBMIT_FENCE_FD_IN: u32 = "MSM_SUBMIT_FENCE_FD_IN", 0x4000_0000;
    /// Return a sync file in `fence_fd`.
    pub const SUBMIT_FENCE_FD_OUT: u32 = "MSM_SUBMIT_FENCE_FD_OUT", 0x2000_0000;
    /// Copy the streams into the ring buffer (privileged, and not in every kernel).
    pub const SUBMIT_SUDO: u32 = "MSM_SUBMIT_SUDO", 0x1000_0000;
    /// There are syncobjs to wait for.
    pub const SUBMIT_SYNCOBJ_IN: u32 = "MSM_SUBMIT_SYNCOBJ_IN", 0x0800_0000;
    /// There are syncobjs to signal.
    pub const SUBMIT_SYNCOBJ_OUT: u32 = "MSM_SUBMIT_SYNCOBJ_OUT", 0x0400_0000;
    /// User space chooses the submission's number.
    pub const SUBMIT_FENCE_SN_IN: u32 = "MSM_SUBMIT_FENCE_SN_IN", 0x0200_0000;
    /// All flags.
    pub const SUBMIT_FLAGS: u32 = "MSM_SUBMIT_FLAGS",
        SUBMIT_NO_IMPLICIT | SUBMIT_FENCE_FD_IN | SUBMIT_FENCE_FD_OUT | SUBMIT_SUDO | SUBMIT_SYNCOBJ_IN
            | SUBMIT_SYNCOBJ_OUT | SUBMIT_FENCE_SN_IN;

    /// Unmap.
    pub const VM_BIND_OP_UNMAP: u32 = "MSM_VM_BIND_OP_UNMAP", 0;
    /// Map an object.
    pub const VM_BIND_OP_MAP: u32 = "MSM_VM_BIND_OP_MAP", 1;
    /// Map nothing real: reads are zero, writes are dropped. Needs [`PARAM_HAS_PRR`].
    pub const VM_BIND_OP_MAP_NULL: u32 = "MSM_VM_BIND_OP_MAP_NULL", 2;
    /// Put the content into crash dumps.
    pub const VM_BIND_OP_DUMP: u32 = "MSM_VM_BIND_OP_DUMP", 1;
    /// All flags of an operation.
    pub const VM_BIND_OP_FLAGS: u32 = "MSM_VM_BIND_OP_FLAGS", VM_BIND_OP_DUMP;
    /// Wait for the sync file in `fence_fd`.
    pub const VM_BIND_FENCE_FD_IN: u32 = "MSM_VM_BIND_FENCE_FD_IN", 1;
    /// Return a sync file in `fence_fd`.
    pub const VM_BIND_FENCE_FD_OUT: u32 = "MSM_VM_BIND_FENCE_FD_OUT", 2;
    /// All flags of a call.
    pub const VM_BIND_FLAGS: u32 = "MSM_VM_BIND_FLAGS", VM_BIND_FENCE_FD_IN | VM_BIND_FENCE_FD_OUT;

    /// Wait as if somebody looked at the clock.
    pub const WAIT_FENCE_BOOST: u32 = "MSM_WAIT_FENCE_BOOST", 1;
    /// All flags.
    pub const WAIT_FENCE_FLAGS: u32 = "MSM_WAIT_FENCE_FLAGS", WAIT_FENCE_BOOST;

    /// Other queues may preempt this one.
    pub const SUBMITQUEUE_ALLOW_PREEMPT: u32 = "MSM_SUBMITQUEUE_ALLOW_PREEMPT", 1;
    /// The queue takes VM_BIND calls, not submissions.
    pub const SUBMITQUEUE_VM_BIND: u32 = "MSM_SUBMITQUEUE_VM_BIND", 2;
    /// All flags.
    pub const SUBMITQUEUE_FLAGS: u32 = "MSM_SUBMITQUEUE_FLAGS", SUBMITQUEUE_ALLOW_PREEMPT | SUBMITQUEUE_VM_BIND;
    /// Number of faults of a queue, 32 bits.
    pub const SUBMITQUEUE_PARAM_FAULTS: u32 = "MSM_SUBMITQUEUE_PARAM_FAULTS", 0;

    /// Sample the counters; the ioctl returns a descriptor to read them from.
    pub const PERFCNTR_STREAM: u32 = "MSM_PERFCNTR_STREAM", 1;
    /// Return the number of counters that are free where there are too few.
    pub const PERFCNTR_UPDATE: u32 = "MSM_PERFCNTR_UPDATE", 2;
    /// All flags.
    pub const PERFCNTR_FLAGS: u32 = "MSM_PERFCNTR_FLAGS", PERFCNTR_STREAM | PERFCNTR_UPDATE;
}

uapi_requests! {
    "DRM_IOCTL_MSM_GET_PARAM" = iowr COMMAND_BASE => GetParam(/// Reads a parameter.
        Param);
    "DRM_IOCTL_MSM_SET_PARAM" = iow COMMAND_BASE + 0x1 => SetParam(/// Writes a parameter.
        Param);
    "DRM_IOCTL_MSM_GEM_NEW" = iowr COMMAND_BASE + 0x2 => GemNew;
    "DRM_IOCTL_MSM_GEM_INFO" = iowr COMMAND_BASE + 0x3 => GemInfo;
    "DRM_IOCTL_MSM_GEM_CPU_PREP" = iow COMMAND_BASE + 0x4 => GemCpuPrep;
    "DRM_IOCTL_MSM_GEM_CPU_FINI" = iow COMMAND_BASE + 0x5 => GemCpuFini;
    "DRM_IOCTL_MSM_GEM_SUBMIT" = iowr COMMAND_BASE + 0x6 => GemSubmit;
    "DRM_IOCTL_MSM_WAIT_FENCE" = iow COMMAND_BASE + 0x7 => WaitFence;
    "DRM_IOCTL_MSM_GEM_MADVISE" = iowr COMMAND_BASE + 0x8 => GemMadvise;
    "DRM_IOCTL_MSM_SUBMITQUEUE_NEW" = iowr COMMAND_BASE + 0xa => SubmitqueueNew;
    "DRM_IOCTL_MSM_SUBMITQUEUE_CLOSE" = iow COMMAND_BASE + 0xb => SubmitqueueClose(/// Closes the submit queue with this id.
        u32);
    "DRM_IOCTL_MSM_SUBMITQUEUE_QUERY" = iow COMMAND_BASE + 0xc => SubmitqueueQuery;
    "DRM_IOCTL_MSM_VM_BIND" = iowr COMMAND_BASE + 0xd => VmBind;
    "DRM_IOCTL_MSM_PERFCNTR_CONFIG" = iow COMMAND_BASE + 0xe => PerfcntrConfig;
}

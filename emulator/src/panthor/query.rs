//! DEV_QUERY of panthor.

use kmd::uapi::panthor::*;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::{Mali, Panthor};
use crate::drm::user::{Plain, User};

/// Virtual address bits, also in `mmu_features`.
pub(super) const VA_BITS: u32 = 48;

/// The only tiler.
pub(super) const TILER_PRESENT: u64 = 1;

/// The registers of a Mali-G610.
const GPU_INFO: GpuInfo = GpuInfo {
    gpu_id: 0,
    gpu_rev: 0,
    csf_id: 0x040a_0412,
    l2_features: 0x0712_0306,
    tiler_features: 0x809,
    mem_features: 0x301,
    // 40 physical bits.
    mmu_features: 40 << 8 | VA_BITS,
    thread_features: 0x0408_0000,
    max_threads: 2048,
    thread_max_workgroup_size: 1024,
    thread_max_barrier_size: 1024,
    coherency_features: 0,
    texture_features: [0xc1ff_ffff, 0x1fff_ffff, 0xffff_ffff, 0],
    as_present: 0xff,
    selected_coherency: GPU_COHERENCY_NONE,
    shader_present: 0,
    l2_present: 1,
    tiler_present: TILER_PRESENT,
    core_features: 0,
    pad: 0,
    gpu_features: 0,
};

pub(super) const CSIF_INFO: CsifInfo = CsifInfo {
    csg_slot_count: 8,
    cs_slot_count: 8,
    cs_reg_count: 96,
    scoreboard_slot_count: 8,
    unpreserved_cs_reg_count: 4,
    pad: 0,
};

/// Nobody here has `CAP_SYS_NICE` as far as the device knows.
pub(super) const PRIORITIES: GroupPrioritiesInfo =
    GroupPrioritiesInfo { allowed_mask: 1 << GROUP_PRIORITY_LOW | 1 << GROUP_PRIORITY_MEDIUM, pad: [0; 3] };

const MMU_INFO: MmuInfo = MmuInfo { page_size_bitmap: crate::mem::PAGE | crate::mem::HUGE_PAGE };

/// The timer of the emulated device counts nanoseconds.
const TIMER_HZ: u64 = 1_000_000_000;

/// Smallest size that user space may know of a structure: up to the last member it was born with.
macro_rules! min_size {
    ($type:ident, $last:ident) => {{
        let last = core::mem::offset_of!($type, $last);
        const fn size<T, F>(_: fn(&T) -> &F) -> usize {
            size_of::<F>()
        }
        last + size::<$type, _>(|value| &value.$last)
    }};
}

fn answer<T: Plain>(args: &mut DevQuery, user: &User, min: usize, value: &T) -> Result<(), Errno> {
    if args.pointer == 0 {
        args.size = size_of::<T>() as u32;
        return Ok(());
    }
    user.write_struct(args.pointer, args.size, min, value)
}

impl Panthor {
    pub(super) fn dev_query(&self, args: &mut DevQuery, user: &User) -> Result<(), Errno> {
        match args.r#type {
            DEV_QUERY_GPU_INFO => {
                let Mali { gpu_id, shader_present, .. } = self.mali;
                let info = GpuInfo { gpu_id, shader_present, ..GPU_INFO };
                answer(args, user, min_size!(GpuInfo, tiler_present), &info)
            }
            DEV_QUERY_CSIF_INFO => answer(args, user, min_size!(CsifInfo, pad), &CSIF_INFO),
            DEV_QUERY_TIMESTAMP_INFO => {
                let info = match args.pointer {
                    0 => TimestampInfo::default(),
                    at => timestamps(user.read_struct(at, args.size as usize)?)?,
                };
                answer(args, user, min_size!(TimestampInfo, current_timestamp), &info)
            }
            DEV_QUERY_GROUP_PRIORITIES_INFO => {
                answer(args, user, min_size!(GroupPrioritiesInfo, pad), &PRIORITIES)
            }
            DEV_QUERY_MMU_INFO if self.mali.has_sparse() => {
                answer(args, user, min_size!(MmuInfo, page_size_bitmap), &MMU_INFO)
            }
            _ => Err(Errno::INVAL),
        }
    }
}

fn timestamps(mut info: TimestampInfo) -> Result<TimestampInfo, Errno> {
    const KNOWN: u32 = TIMESTAMP_GPU
        | TIMESTAMP_CPU_TYPE_MASK
        | TIMESTAMP_GPU_OFFSET
        | TIMESTAMP_GPU_CYCLE_COUNT
        | TIMESTAMP_FREQ
        | TIMESTAMP_DURATION;
    let flags =
        if info.flags != 0 { info.flags } else { TIMESTAMP_GPU | TIMESTAMP_GPU_OFFSET | TIMESTAMP_FREQ };
    let clock = match flags & TIMESTAMP_CPU_TYPE_MASK {
        TIMESTAMP_CPU_NONE => None,
        TIMESTAMP_CPU_MONOTONIC => Some(ClockId::Monotonic),
        TIMESTAMP_CPU_MONOTONIC_RAW => Some(ClockId::MonotonicRaw),
        _ => return Err(Errno::INVAL),
    };
    if flags & !KNOWN != 0 {
        return Err(Errno::INVAL);
    }
    let nanoseconds = || {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    };
    let when = |flag, value: u64| if flags & flag != 0 { value } else { 0 };
    let start = nanoseconds();
    let cpu = clock.map(clock_gettime);
    info.timestamp_frequency = when(TIMESTAMP_FREQ, TIMER_HZ);
    info.timestamp_offset = 0;
    info.current_timestamp = when(TIMESTAMP_GPU, start);
    info.cycle_count = when(TIMESTAMP_GPU_CYCLE_COUNT, start);
    info.cpu_timestamp_sec = cpu.map_or(0, |cpu| cpu.tv_sec as u64);
    info.cpu_timestamp_nsec = cpu.map_or(0, |cpu| cpu.tv_nsec as u64);
    info.duration_nsec = when(TIMESTAMP_DURATION, nanoseconds() - start) as u32;
    Ok(info)
}

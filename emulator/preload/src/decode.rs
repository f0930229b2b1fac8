//! Ioctl arguments in words, for the log.

use core::ffi::c_void;
use core::fmt::Write as _;

use kmd::uapi::{drm, msm, panthor};

/// An argument in words: what fits on the ioctl's line, and what goes below.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) text: String,
    pub(crate) below: Vec<String>,
}

impl From<String> for Words {
    fn from(text: String) -> Self {
        Self { text, below: Vec::new() }
    }
}

/// The argument of one ioctl, after the call.
pub(crate) struct Argument {
    request: u32,
    at: *const c_void,
    /// Whether the call succeeded: only then arrays are known to be readable.
    ok: bool,
}

impl Argument {
    /// # Safety
    /// The ioctl `request` was made with `at`, which is still valid, with all that it points to.
    pub(crate) unsafe fn new(request: u32, at: *const c_void, ok: bool) -> Self {
        Self { request, at, ok }
    }

    /// The argument as T, a uapi structure: what the caller's lacks is zero.
    fn get<T: Copy + Default>(&self) -> T {
        let size = kmd::uapi::argument_size(self.request).min(size_of::<T>());
        let mut value = T::default();
        if !self.at.is_null() {
            // SAFETY: `size` bytes are readable (promise made to `new`); T consists of integers.
            unsafe {
                core::ptr::copy_nonoverlapping(self.at.cast::<u8>(), (&raw mut value).cast::<u8>(), size)
            };
        }
        value
    }

    /// An array that the argument points at.
    fn array<T: Copy + Default>(&self, at: u64, count: u32, stride: usize) -> Vec<T> {
        if !self.ok || at == 0 {
            return Vec::new();
        }
        let size = stride.min(size_of::<T>());
        (0..u64::from(count))
            .map(|i| {
                let mut value = T::default();
                let from = (at + i * stride as u64) as *const u8;
                // SAFETY: the ioctl succeeded, so it has read the array (promise made to `new`); T consists of integers.
                unsafe { core::ptr::copy_nonoverlapping(from, (&raw mut value).cast::<u8>(), size) };
                value
            })
            .collect()
    }

    /// Says in words what the argument of `driver`'s ioctl is.
    pub(crate) fn words(&self, driver: &str) -> Words {
        let nr = self.request & 0xff;
        match nr.checked_sub(kmd::uapi::COMMAND_BASE.into()) {
            Some(index) if nr < 0xa0 && driver == msm::DRIVER_NAME => self.msm(index),
            Some(index) if nr < 0xa0 && driver == panthor::DRIVER_NAME => self.panthor(index),
            _ => self.core(nr).into(),
        }
    }

    fn core(&self, nr: u32) -> String {
        match nr {
            0x09 => format!("handle={}", self.get::<drm::GemClose>().handle),
            0x0c => {
                let args: drm::GetCap = self.get();
                format!("capability={:#x} value={:#x}", args.capability, args.value)
            }
            0x2d | 0x2e => {
                let args: drm::PrimeHandle = self.get();
                format!("handle={} fd={}", args.handle, args.fd)
            }
            0xbf => {
                let args: drm::SyncobjCreate = self.get();
                format!("handle={} flags={:#x}", args.handle, args.flags)
            }
            0xc0 => format!("handle={}", self.get::<drm::SyncobjDestroy>().handle),
            0xc1 | 0xc2 => {
                let args: drm::SyncobjHandle = self.get();
                format!("handle={} fd={} flags={:#x} point={}", args.handle, args.fd, args.flags, args.point)
            }
            0xc3 => {
                let args: drm::SyncobjWait = self.get();
                let handles = self.array::<u32>(args.handles, args.count_handles, 4);
                format!("handles={handles:?} timeout={} flags={:#x}", args.timeout_nsec, args.flags)
            }
            0xca => {
                let args: drm::SyncobjTimelineWait = self.get();
                let points = self.points(args.handles, args.points, args.count_handles);
                format!("points=[{points}] timeout={} flags={:#x}", args.timeout_nsec, args.flags)
            }
            0xc4 | 0xc5 => {
                let args: drm::SyncobjArray = self.get();
                format!("handles={:?}", self.array::<u32>(args.handles, args.count_handles, 4))
            }
            0xcb | 0xcd => {
                let args: drm::SyncobjTimelineArray = self.get();
                format!("points=[{}]", self.points(args.handles, args.points, args.count_handles))
            }
            0xcc => {
                let args: drm::SyncobjTransfer = self.get();
                format!(
                    "from={}@{} to={}@{} flags={:#x}",
                    args.src_handle, args.src_point, args.dst_handle, args.dst_point, args.flags
                )
            }
            _ => String::new(),
        }
    }

    /// Syncobjs with their points, from two arrays.
    fn points(&self, handles: u64, points: u64, count: u32) -> String {
        let points: Vec<u64> = self.array(points, count, 8);
        let points = points.into_iter().chain(core::iter::repeat(0));
        list(self.array::<u32>(handles, count, 4).into_iter().zip(points))
    }

    fn msm(&self, index: u32) -> Words {
        match index {
            0x0 | 0x1 => {
                let args: msm::Param = self.get();
                let name = PARAMS.get(args.param as usize).copied().unwrap_or("?");
                format!("{name}({:#x}) = {:#x}", args.param, args.value).into()
            }
            0x2 => {
                let args: msm::GemNew = self.get();
                format!("size={:#x} flags={:#x} handle={}", args.size, args.flags, args.handle).into()
            }
            0x3 => {
                let args: msm::GemInfo = self.get();
                let name = INFOS.get(args.info as usize).copied().unwrap_or("?");
                format!("handle={} {name} value={:#x} len={}", args.handle, args.value, args.len).into()
            }
            0x6 => self.msm_submit(),
            0x7 => {
                let args: msm::WaitFence = self.get();
                format!("queue={} fence={}", args.queueid, args.fence).into()
            }
            0xa => {
                let args: msm::SubmitqueueNew = self.get();
                format!("flags={:#x} prio={} id={}", args.flags, args.prio, args.id).into()
            }
            0xd => self.msm_bind(),
            _ => Words::default(),
        }
    }

    /// What a call waits for, and what it signals: address and number of syncobjs.
    fn msm_syncs(&self, arrays: [(u64, u32); 2], stride: u32) -> String {
        let mut text = String::new();
        for (name, (at, count)) in ["waits", "signals"].iter().zip(arrays) {
            let syncs: Vec<msm::Syncobj> = self.array(at, count, stride as usize);
            if !syncs.is_empty() {
                // Strings do not fail.
                let _ =
                    write!(text, " {name}=[{}]", list(syncs.iter().map(|sync| (sync.handle, sync.point))));
            }
        }
        text
    }

    fn msm_submit(&self) -> Words {
        let args: msm::GemSubmit = self.get();
        let mut text = format!("queue={} fence={} bos={}", args.queueid, args.fence, args.nr_bos);
        if args.flags & (msm::SUBMIT_FENCE_FD_IN | msm::SUBMIT_FENCE_FD_OUT) != 0 {
            let _ = write!(text, " flags={:#x} fence-fd={}", args.flags, args.fence_fd);
        }
        let of = |flag, at, count| if args.flags & flag != 0 { (at, count) } else { (0, 0) };
        let syncs = [
            of(msm::SUBMIT_SYNCOBJ_IN, args.in_syncobjs, args.nr_in_syncobjs),
            of(msm::SUBMIT_SYNCOBJ_OUT, args.out_syncobjs, args.nr_out_syncobjs),
        ];
        text += &self.msm_syncs(syncs, args.syncobj_stride);
        let cmds: Vec<msm::SubmitCmd> = self.array(args.cmds, args.nr_cmds, size_of::<msm::SubmitCmd>());
        // With VM_BIND a stream is named by its address, else by its object.
        let stream = |cmd: &msm::SubmitCmd| match args.nr_bos {
            0 => format!("CMD        va={:#x} len={:#x}", cmd.relocs, cmd.size),
            _ => {
                let (index, offset) = (cmd.submit_idx, cmd.submit_offset);
                format!("CMD        index={index} offset={offset:#x} len={:#x}", cmd.size)
            }
        };
        Words { below: cmds.iter().map(stream).collect(), text }
    }

    fn msm_bind(&self) -> Words {
        let args: msm::VmBind = self.get();
        let mut text = format!("queue={} ops={}", args.queue_id, args.nr_ops);
        let fence = match args.flags {
            0 => String::new(),
            msm::VM_BIND_FENCE_FD_IN => format!(" fence-in={}", args.fence_fd),
            msm::VM_BIND_FENCE_FD_OUT => format!(" fence-out={}", args.fence_fd),
            flags => format!(" flags={flags:#x} fence={}", args.fence_fd),
        };
        text += &fence;
        let syncs = [(args.in_syncobjs, args.nr_in_syncobjs), (args.out_syncobjs, args.nr_out_syncobjs)];
        text += &self.msm_syncs(syncs, args.syncobj_stride);
        let ops = match args.nr_ops {
            1 => vec![args.op],
            count => self.array(args.ops_address(), count, size_of::<msm::VmBindOp>()),
        };
        let below = ops.iter().map(|op| {
            let name = ["UNMAP", "MAP", "MAP_NULL"].get(op.op as usize).copied().unwrap_or("?");
            let flags = if op.flags & msm::VM_BIND_OP_DUMP != 0 { " dump" } else { "" };
            bind_op(name, op.iova, op.range, (op.handle, op.obj_offset)) + flags
        });
        Words { below: below.collect(), text }
    }

    fn panthor(&self, index: u32) -> Words {
        match index {
            0x0 => {
                let args: panthor::DevQuery = self.get();
                format!("type={} size={}", args.r#type, args.size).into()
            }
            0x1 => {
                let args: panthor::VmCreate = self.get();
                format!("id={} user_va_range={:#x}", args.id, args.user_va_range).into()
            }
            0x2 => format!("id={}", self.get::<panthor::VmDestroy>().id).into(),
            0x3 => self.panthor_bind(),
            0x5 => {
                let args: panthor::BoCreate = self.get();
                format!(
                    "size={:#x} flags={:#x} vm={} handle={}",
                    args.size, args.flags, args.exclusive_vm_id, args.handle
                )
                .into()
            }
            0x6 => {
                let args: panthor::BoMmapOffset = self.get();
                format!("handle={} offset={:#x}", args.handle, args.offset).into()
            }
            0x7 => {
                let args: panthor::GroupCreate = self.get();
                format!("vm={} queues={} group={}", args.vm_id, args.queues.count, args.group_handle).into()
            }
            0x8 => format!("group={}", self.get::<panthor::GroupDestroy>().group_handle).into(),
            0x9 => self.panthor_submit(),
            0xa => {
                let args: panthor::GroupGetState = self.get();
                format!("state={:#x} fatal-queues={:#x}", args.state, args.fatal_queues).into()
            }
            0xb => {
                let args: panthor::TilerHeapCreate = self.get();
                let (count, size) = (args.initial_chunk_count, args.chunk_size);
                format!("vm={} chunks={count} of {size:#x} heap={:#x}", args.vm_id, args.handle).into()
            }
            0xc => format!("heap={:#x}", self.get::<panthor::TilerHeapDestroy>().handle).into(),
            _ => Words::default(),
        }
    }

    fn panthor_bind(&self) -> Words {
        let args: panthor::VmBind = self.get();
        let mode = if args.flags & panthor::VM_BIND_ASYNC != 0 { "async" } else { "sync" };
        let text = format!("vm={} ops={} {mode}", args.vm_id, args.ops.count);
        let ops: Vec<panthor::VmBindOp> =
            self.array(args.ops.array, args.ops.count, args.ops.stride as usize);
        let below = ops.iter().map(|op| {
            let name = match op.flags & panthor::VM_BIND_OP_TYPE_MASK {
                panthor::VM_BIND_OP_TYPE_MAP if op.flags & panthor::VM_BIND_OP_MAP_SPARSE != 0 => {
                    "MAP_SPARSE"
                }
                panthor::VM_BIND_OP_TYPE_MAP => "MAP",
                panthor::VM_BIND_OP_TYPE_UNMAP => "UNMAP",
                panthor::VM_BIND_OP_TYPE_SYNC_ONLY => "SYNC_ONLY",
                _ => "?",
            };
            bind_op(name, op.va, op.size, (op.bo_handle, op.bo_offset)) + &self.panthor_syncs(&op.syncs)
        });
        Words { below: below.collect(), text }
    }

    fn panthor_submit(&self) -> Words {
        let args: panthor::GroupSubmit = self.get();
        let array = args.queue_submits;
        let submits: Vec<panthor::QueueSubmit> = self.array(array.array, array.count, array.stride as usize);
        let below = submits.iter().map(|submit| {
            let (va, len) = (submit.stream_addr, submit.stream_size);
            let syncs = self.panthor_syncs(&submit.syncs);
            format!("QUEUE {:<4} va={va:#x} len={len:#x}{syncs}", submit.queue_index)
        });
        let text = format!("group={} jobs={}", args.group_handle, array.count);
        Words { below: below.collect(), text }
    }

    /// What a job waits for, and what it signals.
    fn panthor_syncs(&self, array: &panthor::ObjArray) -> String {
        let syncs: Vec<panthor::SyncOp> = self.array(array.array, array.count, array.stride as usize);
        let of = |signal: bool| {
            let syncs = syncs.iter().filter(|sync| (sync.flags & panthor::SYNC_OP_SIGNAL != 0) == signal);
            let syncs = list(syncs.map(|sync| (sync.handle, sync.timeline_value)));
            match (syncs.is_empty(), signal) {
                (true, _) => String::new(),
                (false, true) => format!(" signals=[{syncs}]"),
                (false, false) => format!(" waits=[{syncs}]"),
            }
        };
        of(false) + &of(true)
    }
}

/// A bind operation: what, where, how long, and the object with the offset in it.
fn bind_op(name: &str, va: u64, len: u64, (handle, offset): (u32, u64)) -> String {
    let target = if handle != 0 { format!(" bo={handle} offset={offset:#x}") } else { String::new() };
    format!("{name:<10} va={va:#x} len={len:#x}{target}")
}

/// Syncobjs as `handle` or `handle@point`.
fn list(syncs: impl Iterator<Item = (u32, u64)>) -> String {
    let word = |(handle, point)| if point == 0 { format!("{handle}") } else { format!("{handle}@{point}") };
    syncs.map(word).collect::<Vec<_>>().join(" ")
}

/// Parameters of msm by number.
const PARAMS: [&str; 24] = [
    "?",
    "GPU_ID",
    "GMEM_SIZE",
    "CHIP_ID",
    "MAX_FREQ",
    "TIMESTAMP",
    "GMEM_BASE",
    "PRIORITIES",
    "PP_PGTABLE",
    "FAULTS",
    "SUSPENDS",
    "SYSPROF",
    "COMM",
    "CMDLINE",
    "VA_START",
    "VA_SIZE",
    "HIGHEST_BANK_BIT",
    "RAYTRACING",
    "UBWC_SWIZZLE",
    "MACROTILE_MODE",
    "UCHE_TRAP_BASE",
    "HAS_PRR",
    "EN_VM_BIND",
    "AQE",
];

/// What `GEM_INFO` of msm asks for, by number.
const INFOS: [&str; 8] = [
    "GET_OFFSET",
    "GET_IOVA",
    "SET_NAME",
    "GET_NAME",
    "SET_IOVA",
    "GET_FLAGS",
    "SET_METADATA",
    "GET_METADATA",
];

#[cfg(test)]
mod tests {
    use super::*;
    use kmd::Request;
    use kmd::uapi::user_address;

    fn words<R: Request>(driver: &str, args: &R, ok: bool) -> Words {
        // SAFETY: a structure of the test's, whose arrays are the test's too.
        unsafe { Argument::new(R::REQUEST, (&raw const *args).cast(), ok) }.words(driver)
    }

    #[test]
    fn binds_of_msm() {
        let map = msm::VmBindOp {
            op: msm::VM_BIND_OP_MAP,
            handle: 3,
            obj_offset: 0x1000,
            iova: 0x10000,
            range: 0x2000,
            ..Default::default()
        };
        let null = msm::VmBindOp {
            op: msm::VM_BIND_OP_MAP_NULL,
            iova: 0x20000,
            range: 0x1000,
            ..Default::default()
        };
        let one = msm::VmBind { nr_ops: 1, queue_id: 2, op: map, ..Default::default() };
        let one = words("msm", &one, true);
        assert_eq!(one.text, "queue=2 ops=1");
        assert_eq!(one.below, ["MAP        va=0x10000 len=0x2000 bo=3 offset=0x1000"]);

        let (ops, sync) = ([map, null], [msm::Syncobj { handle: 5, flags: 0, point: 7 }]);
        let mut two = msm::VmBind {
            nr_ops: 2,
            out_syncobjs: user_address(&sync),
            nr_out_syncobjs: 1,
            syncobj_stride: size_of_val(&sync) as u32,
            flags: msm::VM_BIND_FENCE_FD_OUT,
            fence_fd: 9,
            ..Default::default()
        };
        two.set_ops(&ops);
        let two = words("msm", &two, true);
        assert_eq!(two.text, "queue=0 ops=2 fence-out=9 signals=[5@7]");
        assert_eq!(two.below[1], "MAP_NULL   va=0x20000 len=0x1000");
    }

    #[test]
    fn binds_of_panthor() {
        let sync = [
            panthor::SyncOp { flags: 0, handle: 1, timeline_value: 0 },
            panthor::SyncOp { flags: panthor::SYNC_OP_SIGNAL | 1, handle: 2, timeline_value: 4 },
        ];
        let syncs = panthor::ObjArray { stride: 16, count: 2, array: user_address(&sync) };
        let ops = [panthor::VmBindOp {
            flags: panthor::VM_BIND_OP_TYPE_UNMAP,
            va: 0x1000,
            size: 0x1000,
            syncs,
            ..Default::default()
        }];
        let stride = size_of::<panthor::VmBindOp>() as u32;
        let args = panthor::VmBind {
            vm_id: 1,
            flags: panthor::VM_BIND_ASYNC,
            ops: panthor::ObjArray { stride, count: 1, array: user_address(&ops) },
        };
        let said = words("panthor", &args, true);
        assert_eq!(said.text, "vm=1 ops=1 async");
        assert_eq!(said.below, ["UNMAP      va=0x1000 len=0x1000 waits=[1] signals=[2@4]"]);
        // What the kernel refused may point anywhere.
        assert_eq!(words("panthor", &args, false).below, [""; 0]);
    }

    #[test]
    fn submissions() {
        let (cmds, sync) = (
            [msm::SubmitCmd { size: 64, relocs: 1 << 32, ..Default::default() }],
            [msm::Syncobj { handle: 5, flags: 0, point: 7 }],
        );
        let args = msm::GemSubmit {
            flags: msm::SUBMIT_SYNCOBJ_OUT,
            cmds: user_address(&cmds),
            nr_cmds: 1,
            fence: 3,
            in_syncobjs: user_address(&sync),
            nr_in_syncobjs: 1,
            out_syncobjs: user_address(&sync),
            nr_out_syncobjs: 1,
            syncobj_stride: 16,
            ..Default::default()
        };
        let said = words("msm", &args, true);
        assert_eq!(
            said.text, "queue=0 fence=3 bos=0 signals=[5@7]",
            "the flag says that nothing is waited for"
        );
        assert_eq!(said.below, ["CMD        va=0x100000000 len=0x40"]);

        let sync = [panthor::SyncOp { flags: panthor::SYNC_OP_SIGNAL, handle: 2, timeline_value: 0 }];
        let syncs = panthor::ObjArray::new(&sync);
        let queues = [panthor::QueueSubmit {
            queue_index: 1,
            stream_size: 8,
            stream_addr: 64,
            syncs,
            ..Default::default()
        }];
        let queue_submits = panthor::ObjArray::new(&queues);
        let said = words("panthor", &panthor::GroupSubmit { group_handle: 4, pad: 0, queue_submits }, true);
        assert_eq!(said.text, "group=4 jobs=1");
        assert_eq!(said.below, ["QUEUE 1    va=0x40 len=0x8 signals=[2]"]);
    }

    #[test]
    fn parameters_have_names() {
        let args = msm::GetParam(msm::Param { param: msm::PARAM_HAS_PRR, value: 1, ..Default::default() });
        assert_eq!(words("msm", &args, true).text, "HAS_PRR(0x15) = 0x1");
    }
}

//! A VM with memory and a group of queues.

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use kmd::bo::CpuMapping;
use kmd::uapi::panthor::*;
use kmd::{BufferObject, Errno, Node, SyncPoint};

use crate::rig::{self, BASE, Rig, ioctl};
use crate::stream::Stream;

/// Where the memory for streams and data is mapped, from [`BASE`] on.
pub const AT: u64 = 0x1000_0000;
const LEN: u64 = 1 << 20;
/// Streams are in the first half, each in a piece of this size; data in the second.
const STREAM_LEN: u64 = 0x1000;
const STREAMS: u64 = LEN / 2 / STREAM_LEN;
/// The last of the numbers, in [`Group::works`].
const LAST: u64 = LEN / 2 / 64 - 1;

/// Memory that a VM has mapped.
struct Memory {
    rig: Rig,
    mapping: CpuMapping,
    /// Streams so far.
    next: AtomicU64,
    _bo: BufferObject,
}

/// A group of a VM, whose streams find memory mapped.
pub struct Group {
    memory: Arc<Memory>,
    handle: u32,
}

impl Group {
    /// A group with so many queues, in a new VM.
    pub fn new(queues: usize) -> Self {
        let rig = Rig::new();
        let bo = rig.bo(LEN);
        rig.map(&bo, 0, AT, LEN).unwrap();
        let mapping = bo.map().unwrap();
        Self::of(Arc::new(Memory { rig, mapping, next: AtomicU64::new(0), _bo: bo }), queues)
    }

    /// Another group, in the same VM.
    pub fn another(&self, queues: usize) -> Self {
        Self::of(self.memory.clone(), queues)
    }

    /// The VM.
    pub fn rig(&self) -> &Rig {
        &self.memory.rig
    }

    fn of(memory: Arc<Memory>, queues: usize) -> Self {
        let handle = create_group(&*memory.rig.node, memory.rig.vm.id(), queues).unwrap();
        Self { memory, handle }
    }

    /// The GPU address of the `n`th number of 64 bits.
    pub fn address(&self, n: u64) -> u64 {
        BASE + AT + LEN / 2 + n * 64
    }

    /// What that number is now.
    pub fn value(&self, n: u64) -> u64 {
        self.number((LEN / 2 + n * 64) / 8).load(Ordering::Acquire)
    }

    fn number(&self, index: u64) -> &AtomicU64 {
        assert!(index < LEN / 8);
        // SAFETY: within the mapping, as long as it; the GPU changes it too, atomically.
        unsafe { &*self.memory.mapping.as_ptr().cast::<AtomicU64>().add(index as usize) }
    }

    /// Puts a stream into memory: its GPU address and length.
    pub fn load(&self, stream: &Stream) -> (u64, u32) {
        let at = self.memory.next.fetch_add(1, Ordering::Relaxed) % STREAMS * STREAM_LEN;
        assert!(stream.words().len() as u64 * 8 <= STREAM_LEN);
        for (index, word) in (at / 8..).zip(stream.words()) {
            self.number(index).store(*word, Ordering::Release);
        }
        (BASE + AT + at, stream.words().len() as u32 * 8)
    }

    /// Queues a stream, which signals when it is done.
    pub fn submit(&self, queue: u32, stream: &Stream, signal: SyncPoint) -> Result<(), Errno> {
        let (stream_addr, stream_size) = self.load(stream);
        self.submit_at(queue, stream_addr, stream_size, signal)
    }

    /// Queues what is at an address.
    pub fn submit_at(
        &self,
        queue_index: u32,
        stream_addr: u64,
        stream_size: u32,
        signal: SyncPoint,
    ) -> Result<(), Errno> {
        let kind = match signal.point {
            Some(_) => SYNC_OP_HANDLE_TYPE_TIMELINE_SYNCOBJ,
            None => SYNC_OP_HANDLE_TYPE_SYNCOBJ,
        };
        let (flags, timeline_value) = (SYNC_OP_SIGNAL | kind, signal.point.unwrap_or(0));
        let syncs = [SyncOp { flags, handle: signal.syncobj.0, timeline_value }];
        let syncs = ObjArray::new(&syncs);
        let submits = [QueueSubmit { queue_index, stream_size, stream_addr, latest_flush: 0, pad: 0, syncs }];
        let mut submit =
            GroupSubmit { group_handle: self.handle, pad: 0, queue_submits: ObjArray::new(&submits) };
        ioctl(&*self.rig().node, &mut submit)
    }

    /// Runs a stream to its end.
    pub fn run(&self, queue: u32, stream: &Stream) {
        let done = self.rig().syncobj();
        self.submit(queue, stream, done.binary()).unwrap();
        rig::wait(&done, None);
    }

    /// It works, as if nothing had happened.
    pub fn works(&self) {
        let before = self.value(LAST);
        self.run(0, &Stream::new().add(self.address(LAST), 1));
        assert_eq!((self.value(LAST), self.state()), (before + 1, 0));
    }

    /// The `GROUP_STATE_` bits of the group.
    pub fn state(&self) -> u32 {
        let mut state = GroupGetState { group_handle: self.handle, ..Default::default() };
        ioctl(&*self.rig().node, &mut state).unwrap();
        state.state
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        ioctl(&*self.rig().node, &mut GroupDestroy { group_handle: self.handle, pad: 0 }).unwrap();
    }
}

/// Creates a group with so many queues: its handle.
pub fn create_group(node: &dyn Node, vm_id: u32, queues: usize) -> Result<u32, Errno> {
    let queues = vec![QueueCreate { priority: 1, ringbuf_size: 0x1_0000, ..Default::default() }; queues];
    let mut create = GroupCreate {
        queues: ObjArray::new(&queues),
        max_compute_cores: 1,
        max_fragment_cores: 1,
        max_tiler_cores: 1,
        priority: GROUP_PRIORITY_MEDIUM as u8,
        compute_core_mask: 1,
        fragment_core_mask: 1,
        tiler_core_mask: 1,
        vm_id,
        ..Default::default()
    };
    ioctl(node, &mut create)?;
    Ok(create.group_handle)
}

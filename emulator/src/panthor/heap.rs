//! Tiler heaps: places in the kernel's part of a VM that nobody writes, as no tiler runs.

use kmd::uapi::panthor::{TilerHeapCreate, TilerHeapDestroy};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::Panthor;
use super::query::VA_BITS;
use crate::drm::ids::Ids;
use crate::mem::ranges::Ranges;
use crate::mem::{HUGE_PAGE, PAGE};

/// Heaps per VM.
const MAX_HEAPS: u32 = 128;
/// Bytes of a heap's context: a cache line of the GPU.
const CONTEXT_SIZE: u64 = 64;
/// Sizes of a chunk.
const CHUNK_SIZES: core::ops::RangeInclusive<u64> = 128 << 10..=8 << 20;
/// The kernel gives chunks memory at once: more than this no board with such a GPU has.
const MOST_MEMORY: u64 = 32 << 30;

/// The heaps of a VM, and the addresses that they are taken from: the kernel's part.
pub(super) struct Heaps {
    addresses: Ranges,
    pool: Option<Pool>,
    destroyed: bool,
}

struct Pool {
    /// Where the contexts are.
    contexts: u64,
    /// Each with the addresses of its chunks.
    heaps: Ids<Vec<(u64, u64)>>,
}

impl Heaps {
    /// `kernel_va`: start of the kernel's part of the VM.
    pub(super) fn new(kernel_va: u64) -> Mutex<Self> {
        let addresses = Ranges::new(kernel_va, 1 << VA_BITS);
        Mutex::new(Self { addresses, pool: None, destroyed: false })
    }

    /// Takes all heaps away, for ever.
    pub(super) fn destroy(&mut self) {
        (self.pool, self.destroyed) = (None, true);
    }

    /// The pool, made now if it is not there.
    fn pool(&mut self) -> Result<(&mut Pool, &mut Ranges), Errno> {
        if self.pool.is_none() {
            if self.destroyed {
                return Err(Errno::INVAL);
            }
            let size = u64::from(MAX_HEAPS) * CONTEXT_SIZE;
            let contexts = alloc(&mut self.addresses, size)?;
            self.pool = Some(Pool { contexts, heaps: Ids::new(MAX_HEAPS) });
        }
        let pool = self.pool.as_mut().expect("made above");
        Ok((pool, &mut self.addresses))
    }
}

fn alloc(addresses: &mut Ranges, size: u64) -> Result<u64, Errno> {
    let align = if size >= HUGE_PAGE { HUGE_PAGE } else { PAGE };
    addresses.alloc(size, align).ok_or(Errno::NOSPC)
}

fn free(addresses: &mut Ranges, chunks: &[(u64, u64)]) {
    chunks.iter().for_each(|(va, size)| addresses.free(*va, *size));
}

impl Panthor {
    pub(super) fn tiler_heap_create(&self, args: &mut TilerHeapCreate) -> Result<(), Errno> {
        let vm = self.vm(args.vm_id).ok_or(Errno::INVAL)?;
        let mut heaps = vm.heaps.lock();
        let (pool, addresses) = heaps.pool()?;
        let (count, size) = (args.initial_chunk_count, u64::from(args.chunk_size));
        let sized = size % PAGE == 0 && CHUNK_SIZES.contains(&size);
        if count == 0 || count > args.max_chunks || !sized {
            return Err(Errno::INVAL);
        }
        if self.file.device.faults.alloc.strikes() || u64::from(count) * size > MOST_MEMORY {
            return Err(Errno::NOMEM);
        }
        let mut chunks = Vec::with_capacity(count as usize);
        for _ in 0..count {
            match alloc(addresses, size) {
                Ok(va) => chunks.push((va, size)),
                Err(errno) => {
                    free(addresses, &chunks);
                    return Err(errno);
                }
            }
        }
        // The kernel puts each new chunk in front of the others.
        let first = chunks[chunks.len() - 1].0;
        let Some(id) = pool.heaps.insert(chunks.clone()) else {
            free(addresses, &chunks);
            return Err(Errno::BUSY);
        };
        let index = id - 1;
        args.handle = args.vm_id << 16 | index;
        args.tiler_heap_ctx_gpu_va = pool.contexts + u64::from(index) * CONTEXT_SIZE;
        args.first_heap_chunk_gpu_va = first;
        Ok(())
    }

    pub(super) fn tiler_heap_destroy(&self, args: &mut TilerHeapDestroy) -> Result<(), Errno> {
        if args.pad != 0 {
            return Err(Errno::INVAL);
        }
        let vm = self.vm(args.handle >> 16).ok_or(Errno::INVAL)?;
        let mut heaps = vm.heaps.lock();
        let Heaps { addresses, pool, .. } = &mut *heaps;
        let pool = pool.as_mut().ok_or(Errno::NOENT)?;
        let chunks = pool.heaps.remove((args.handle & 0xffff) + 1).ok_or(Errno::INVAL)?;
        free(addresses, &chunks);
        Ok(())
    }
}

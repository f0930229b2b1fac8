//! Sparse buffers with a model beside them: what is bound where, and what the memory holds.

use crate::gpu::{Batch, Bound, Dispatch, Draw, Gpu, Shader, VertexInput, memory_bind, pattern, shaders};
use crate::outcome::{Outcome, check};
use ash::vk;

/// A way to reach a buffer's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Copy,
    Storage,
    Uniform,
    UniformTexel,
    StorageTexel,
    Address,
    Vertex,
    Index,
    Indirect,
}

impl Access {
    pub(crate) const ALL: [Self; 9] = [
        Self::Copy,
        Self::Storage,
        Self::Uniform,
        Self::UniformTexel,
        Self::StorageTexel,
        Self::Address,
        Self::Vertex,
        Self::Index,
        Self::Indirect,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Storage => "storage",
            Self::Uniform => "uniform",
            Self::UniformTexel => "uniform_texel",
            Self::StorageTexel => "storage_texel",
            Self::Address => "address",
            Self::Vertex => "vertex",
            Self::Index => "index",
            Self::Indirect => "indirect",
        }
    }

    pub(crate) fn usage(self) -> vk::BufferUsageFlags {
        type Usage = vk::BufferUsageFlags;
        let own = match self {
            Self::Copy => Usage::empty(),
            Self::Storage => Usage::STORAGE_BUFFER,
            Self::Uniform => Usage::UNIFORM_BUFFER,
            Self::UniformTexel => Usage::UNIFORM_TEXEL_BUFFER,
            Self::StorageTexel => Usage::STORAGE_TEXEL_BUFFER,
            Self::Address => Usage::SHADER_DEVICE_ADDRESS,
            Self::Vertex => Usage::VERTEX_BUFFER,
            Self::Index => Usage::INDEX_BUFFER,
            Self::Indirect => Usage::INDIRECT_BUFFER,
        };
        own | Usage::TRANSFER_SRC | Usage::TRANSFER_DST
    }

    /// The data that suits this access: an indirect dispatch takes every fourth word as a small number of workgroups.
    fn data(self, seed: u32, index: u32) -> u32 {
        match (self, index % 4) {
            (Self::Indirect, 0) => 1 + pattern(seed, index) % 15,
            (Self::Indirect, _) => 1,
            _ => pattern(seed, index),
        }
    }
}

/// A memory object and what it holds.
struct Memory {
    handle: vk::DeviceMemory,
    words: Vec<u32>,
}

/// A sparse buffer and where each of its blocks is bound: memory object and block in it.
struct Buffer {
    handle: vk::Buffer,
    blocks: Vec<Option<(usize, u64)>>,
}

/// One bind of a buffer in blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockBind {
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// Memory object and its first block; nothing unbinds.
    pub(crate) to: Option<(usize, u64)>,
}

/// Binds `count` blocks from `first` on.
pub(crate) fn blocks(first: u64, count: u64, to: Option<(usize, u64)>) -> BlockBind {
    BlockBind { first, count, to }
}

/// Sparse buffers, memory objects and the model of both.
pub(crate) struct BufferRig<'g> {
    pub(crate) gpu: &'g Gpu,
    access: Access,
    flags: vk::BufferCreateFlags,
    /// Bytes of a block: the alignment that the implementation asks for.
    pub(crate) block: u64,
    bits: u32,
    buffers: Vec<Buffer>,
    memories: Vec<Memory>,
}

impl<'g> BufferRig<'g> {
    /// A rig whose buffers are made for `access` with `flags` (besides SPARSE_BINDING).
    pub(crate) fn new(gpu: &'g Gpu, access: Access, flags: vk::BufferCreateFlags) -> Outcome<Self> {
        let flags = flags | vk::BufferCreateFlags::SPARSE_BINDING;
        let sample = gpu.buffer(1 << 20, access.usage(), flags)?;
        let requirements = gpu.buffer_requirements(sample);
        gpu.destroy(crate::gpu::Owned::Buffer(sample));
        check!(
            requirements.alignment.is_power_of_two(),
            "alignment {} is no power of two",
            requirements.alignment
        );
        // Blocks of a few bytes would say nothing about pages.
        let block = requirements.alignment.max(4096);
        let bits = requirements.memory_type_bits;
        Ok(Self { gpu, access, flags, block, bits, buffers: Vec::new(), memories: Vec::new() })
    }

    fn block_words(&self) -> usize {
        (self.block / 4) as usize
    }

    /// Creates a buffer of `count` blocks, nothing bound.
    pub(crate) fn buffer(&mut self, count: u64) -> Outcome<usize> {
        let handle = self.gpu.buffer(count * self.block, self.access.usage(), self.flags)?;
        let requirements = self.gpu.buffer_requirements(handle);
        check!(
            requirements.size == count * self.block && self.block % requirements.alignment == 0,
            "a buffer of {count} blocks of {} bytes has requirements {requirements:?}",
            self.block
        );
        self.buffers.push(Buffer { handle, blocks: vec![None; count as usize] });
        Ok(self.buffers.len() - 1)
    }

    /// Allocates memory of `count` blocks and fills it, so that a block which is not mapped shows at the first read.
    pub(crate) fn memory(&mut self, count: u64) -> Outcome<usize> {
        let handle = self.gpu.memory(count * self.block, self.bits)?;
        self.adopt_memory(handle, count)
    }

    /// Takes memory that was made elsewhere, and fills it.
    pub(crate) fn adopt_memory(&mut self, handle: vk::DeviceMemory, count: u64) -> Outcome<usize> {
        let seed = 1000 + self.memories.len() as u32;
        let words: Vec<u32> =
            (0..(count * self.block / 4) as u32).map(|index| self.access.data(seed, index)).collect();
        self.gpu.write_memory(handle, &words)?;
        self.memories.push(Memory { handle, words });
        Ok(self.memories.len() - 1)
    }

    pub(crate) fn memory_bits(&self) -> u32 {
        self.bits
    }

    pub(crate) fn memory_handle(&self, memory: usize) -> vk::DeviceMemory {
        self.memories[memory].handle
    }

    /// Forgets memory that was freed, and with it what was bound to it.
    pub(crate) fn forget_memory(&mut self, memory: usize) {
        self.memories[memory].words.clear();
        for bound in self.buffers.iter_mut().flat_map(|buffer| &mut buffer.blocks) {
            bound.take_if(|(other, _)| *other == memory);
        }
    }

    /// What a block of memory holds.
    pub(crate) fn memory_words(&self, memory: usize, block: u64) -> &[u32] {
        let first = block as usize * self.block_words();
        &self.memories[memory].words[first..first + self.block_words()]
    }

    pub(crate) fn buffer_handle(&self, buffer: usize) -> vk::Buffer {
        self.buffers[buffer].handle
    }

    /// Whether a block of a buffer is bound.
    pub(crate) fn is_bound(&self, buffer: usize, block: u64) -> bool {
        self.buffers[buffer].blocks[block as usize].is_some()
    }

    /// The number of blocks of a buffer.
    pub(crate) fn len(&self, buffer: usize) -> u64 {
        self.buffers[buffer].blocks.len() as u64
    }

    /// Adds binds to a batch.
    pub(crate) fn batch(&self, batch: Batch, buffer: usize, binds: &[BlockBind]) -> Batch {
        let binds = binds
            .iter()
            .map(|bind| {
                let to = bind.to.map(|(memory, block)| (self.memories[memory].handle, block * self.block));
                memory_bind(bind.first * self.block, bind.count * self.block, to)
            })
            .collect();
        batch.buffer(self.buffers[buffer].handle, binds)
    }

    /// Notes binds in the model.
    pub(crate) fn note(&mut self, buffer: usize, binds: &[BlockBind]) {
        for bind in binds {
            for block in 0..bind.count {
                self.buffers[buffer].blocks[(bind.first + block) as usize] =
                    bind.to.map(|(memory, first)| (memory, first + block));
            }
        }
    }

    /// Binds, waits, and notes it.
    pub(crate) fn bind(&mut self, buffer: usize, binds: &[BlockBind]) -> Outcome {
        self.gpu.bind(&[self.batch(Batch::new(), buffer, binds)])?;
        self.note(buffer, binds);
        Ok(())
    }

    /// Writes new data to bound blocks, through a shader where the access can write, else by copies.
    pub(crate) fn write(&mut self, buffer: usize, first: u64, count: u64, seed: u32) -> Outcome {
        let per_block = self.block_words() as u64;
        let (begin, words) = ((first * per_block) as u32, (count * per_block) as u32);
        let handle = self.buffers[buffer].handle;
        let size = self.len(buffer) * self.block;
        let fill = |shader: Shader, bound: Vec<Bound>, address: u64| {
            let push = vec![begin, words, seed, 0, address as u32, (address >> 32) as u32];
            self.gpu.dispatch(&[Dispatch::new(shader, bound, push, [words.div_ceil(64), 1, 1])])
        };
        match self.access {
            Access::Storage => fill(shaders::FILL_STORAGE, vec![Bound::Storage(handle, 0, size)], 0)?,
            Access::StorageTexel => {
                let view = self.gpu.buffer_view(handle, 0, size)?;
                fill(shaders::FILL_TEXEL, vec![Bound::StorageTexel(view)], 0)?;
                self.gpu.destroy(crate::gpu::Owned::BufferView(view));
            }
            Access::Address => fill(shaders::FILL_ADDRESS, vec![], self.gpu.buffer_address(handle))?,
            access => {
                let data: Vec<u32> = (begin..begin + words).map(|index| access.data(seed, index)).collect();
                let host = self.gpu.host_words(&data, vk::BufferUsageFlags::empty())?;
                self.gpu.copy_buffer(host.buffer, handle, &[(0, first * self.block, count * self.block)])?;
                host.free();
            }
        }
        self.note_write(buffer, first, count, seed);
        Ok(())
    }

    /// A dispatch that writes new data to bound blocks of a storage buffer, to be submitted by the case.
    pub(crate) fn fill(&self, buffer: usize, first: u64, count: u64, seed: u32) -> Dispatch {
        let per_block = self.block_words() as u64;
        let (begin, words) = ((first * per_block) as u32, (count * per_block) as u32);
        let bound = vec![Bound::Storage(self.buffers[buffer].handle, 0, vk::WHOLE_SIZE)];
        Dispatch::new(shaders::FILL_STORAGE, bound, vec![begin, words, seed], [words.div_ceil(64), 1, 1])
    }

    /// Notes in the model what [`Self::write`] or a [`Self::fill`] writes.
    pub(crate) fn note_write(&mut self, buffer: usize, first: u64, count: u64, seed: u32) {
        let per_block = self.block_words() as u64;
        for block in first..first + count {
            if let Some((memory, at)) = self.buffers[buffer].blocks[block as usize] {
                for word in 0..per_block {
                    let value = self.access.data(seed, (block * per_block + word) as u32);
                    self.memories[memory].words[(at * per_block + word) as usize] = value;
                }
            }
        }
    }

    /// Reads every bound block through the access and compares with the model.
    pub(crate) fn verify(&self, buffer: usize) -> Outcome {
        self.verify_through(buffer, self.access)
    }

    /// Reads every bound block through another access, one that the buffer's usage allows.
    pub(crate) fn verify_through(&self, buffer: usize, access: Access) -> Outcome {
        let runs = self.bound_runs(buffer);
        if runs.is_empty() {
            return Ok(());
        }
        let words = self.block_words() as u32 * self.len(buffer) as u32;
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER;
        let result = self.gpu.host_words(&vec![0; words as usize], usage)?;
        self.read(buffer, access, &runs, Bound::Storage(result.buffer, 0, vk::WHOLE_SIZE), result.buffer)?;
        let read = result.words();
        result.free();
        for &(first, count) in &runs {
            for index in self.samples(access, first, count) {
                let (block, word) =
                    (index as usize / self.block_words(), index as usize % self.block_words());
                let Some((memory, at)) = self.buffers[buffer].blocks[block] else { continue };
                let expected = self.memories[memory].words[at as usize * self.block_words() + word];
                check!(
                    read[index as usize] == expected,
                    "buffer {buffer}, block {block} (memory {memory}, block {at}), word {word} through {}: read \
                     {:#010x}, expected {expected:#010x}",
                    access.name(),
                    read[index as usize]
                );
            }
        }
        Ok(())
    }

    /// Reads the memory objects themselves and compares with the model.
    pub(crate) fn verify_memory(&self) -> Outcome {
        for (number, memory) in
            self.memories.iter().enumerate().filter(|(_, memory)| !memory.words.is_empty())
        {
            let read = self.gpu.read_memory(memory.handle, memory.words.len())?;
            if let Some(word) = (0..read.len()).find(|&word| read[word] != memory.words[word]) {
                let (block, within) = (word / self.block_words(), word % self.block_words());
                crate::outcome::fail!(
                    "memory {number}, block {block}, word {within}: holds {:#010x}, expected {:#010x}",
                    read[word],
                    memory.words[word]
                );
            }
        }
        Ok(())
    }

    /// Maximal runs of bound blocks: first and count.
    fn bound_runs(&self, buffer: usize) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (block, bound) in self.buffers[buffer].blocks.iter().enumerate() {
            let block = block as u64;
            match runs.last_mut() {
                _ if bound.is_none() => {}
                Some((first, count)) if *first + *count == block => *count += 1,
                _ => runs.push((block, 1)),
            }
        }
        runs
    }

    /// The words of a run that an access reads: all, or some of each block where every word costs a command.
    fn samples(&self, access: Access, first: u64, count: u64) -> Vec<u32> {
        let words = self.block_words() as u32;
        let (begin, end) = (first as u32 * words, (first + count) as u32 * words);
        match access {
            Access::Index | Access::Indirect => (begin..end)
                .step_by(words as usize)
                .flat_map(|block| [0, words / 4, words / 2, words - 4].map(|word| block + (word & !3)))
                .collect(),
            _ => (begin..end).collect(),
        }
    }

    fn read(
        &self,
        buffer: usize,
        access: Access,
        runs: &[(u64, u64)],
        result: Bound,
        result_buffer: vk::Buffer,
    ) -> Outcome {
        /// Bytes of the uniform block that the shader declares.
        const WINDOW: u64 = 16384;
        let handle = self.buffers[buffer].handle;
        let size = self.len(buffer) * self.block;
        let per_block = self.block_words() as u32;
        let whole = |shader: Shader, source: Option<Bound>, address: u64| {
            let dispatches: Vec<_> = runs
                .iter()
                .map(|&(first, count)| {
                    let (begin, words) = (first as u32 * per_block, count as u32 * per_block);
                    let push = vec![begin, words, begin, 0, address as u32, (address >> 32) as u32];
                    let bound = [result].into_iter().chain(source).collect();
                    Dispatch::new(shader, bound, push, [words.div_ceil(64), 1, 1])
                })
                .collect();
            self.gpu.dispatch(&dispatches)
        };
        match access {
            Access::Copy => {
                let ranges: Vec<_> = runs
                    .iter()
                    .map(|&(first, count)| (first * self.block, first * self.block, count * self.block))
                    .collect();
                self.gpu.copy_buffer(handle, result_buffer, &ranges)
            }
            Access::Storage => whole(shaders::COPY_STORAGE, Some(Bound::Storage(handle, 0, size)), 0),
            Access::Address => whole(shaders::COPY_ADDRESS, None, self.gpu.buffer_address(handle)),
            Access::UniformTexel | Access::StorageTexel => {
                let view = self.gpu.buffer_view(handle, 0, size)?;
                if access == Access::UniformTexel {
                    whole(shaders::COPY_UNIFORM_TEXEL, Some(Bound::UniformTexel(view)), 0)?;
                } else {
                    whole(shaders::COPY_STORAGE_TEXEL, Some(Bound::StorageTexel(view)), 0)?;
                }
                self.gpu.destroy(crate::gpu::Owned::BufferView(view));
                Ok(())
            }
            Access::Uniform => {
                let window = WINDOW.min(self.block);
                let dispatches: Vec<_> = runs
                    .iter()
                    .flat_map(|&(first, count)| {
                        (first * self.block..(first + count) * self.block).step_by(window as usize)
                    })
                    .map(|offset| {
                        let bound = vec![result, Bound::Uniform(handle, offset, window)];
                        let words = (window / 4) as u32;
                        let push = vec![0, words, (offset / 4) as u32];
                        Dispatch::new(shaders::COPY_UNIFORM, bound, push, [words.div_ceil(64), 1, 1])
                    })
                    .collect();
                self.gpu.dispatch(&dispatches)
            }
            Access::Vertex => {
                let draws: Vec<_> = runs
                    .iter()
                    .map(|&(first, count)| Draw::Vertices {
                        first: first as u32 * per_block,
                        count: count as u32 * per_block,
                    })
                    .collect();
                self.gpu.draw(shaders::VERTEX_PULL, VertexInput::Attribute(handle), result, &draws)
            }
            Access::Index => {
                let draws: Vec<_> = runs
                    .iter()
                    .flat_map(|&(first, count)| self.samples(access, first, count))
                    .map(|index| Draw::OneIndex { index, instance: index })
                    .collect();
                self.gpu.draw(shaders::VERTEX_INDEX, VertexInput::Index(handle), result, &draws)
            }
            Access::Indirect => {
                let dispatches: Vec<_> = runs
                    .iter()
                    .flat_map(|&(first, count)| self.samples(access, first, count))
                    .map(|word| {
                        let at = u64::from(word) * 4;
                        Dispatch::indirect(shaders::COUNT_GROUPS, vec![result], vec![word], handle, at)
                    })
                    .collect();
                self.gpu.dispatch(&dispatches)
            }
        }
    }
}

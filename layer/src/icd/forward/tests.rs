//! Rewritten binds against those of the application: what they leave in a driver has to be the same, and they have to be few.

use super::image::Shape;
use super::places::{END, Part, Places, Resource};
use super::rewrite::{Binds, Rewrite};
use super::{BLOCK, LIMITS};
use crate::address_space::{AddressSpace, BoId, Object, Want};
use crate::carrier::{Backing, Follow};
use crate::image::Image;
use crate::layout::BlockBox;
use crate::mirror::Mirror;
use ash::vk::{self, Handle};
use gpuvm::{OpKind, VaRange};
use proptest::prelude::*;
use std::collections::HashMap;

/// Bytes of memory and of the buffer.
const SIZE: u64 = 1 << 32;
const BUFFER: vk::Buffer = vk::Buffer::null();
const IMAGE: vk::Image = vk::Image::null();

/// An address space, a buffer and an image in it, and memory by number.
struct Rig {
    space: AddressSpace,
    places: Places,
    objects: Vec<Object>,
    buffer: VaRange,
    image: Image,
    binds: Binds,
}

/// What is bound: memory by handle, and the first byte.
type Bound = Option<(usize, u64)>;

/// What an application binds.
#[derive(Clone, Debug)]
enum Bind {
    Buffer { offset: u64, len: u64, to: Bound },
    Opaque { offset: u64, len: u64, to: Bound },
    Blocks { at: BlockBox, to: Bound },
}

fn image_info(extent: [u32; 3], levels: u32, layers: u32) -> vk::ImageCreateInfo<'static> {
    let [width, height, depth] = extent;
    vk::ImageCreateInfo::default()
        .flags(vk::ImageCreateFlags::SPARSE_BINDING | vk::ImageCreateFlags::SPARSE_RESIDENCY)
        .image_type(if depth > 1 { vk::ImageType::TYPE_3D } else { vk::ImageType::TYPE_2D })
        .format(vk::Format::R8G8B8A8_UNORM)
        .extent(vk::Extent3D { width, height, depth })
        .mip_levels(levels)
        .array_layers(layers)
}

fn needs(extent: [u32; 3], first_tail_level: u32, tail: (u64, u64)) -> vk::SparseImageMemoryRequirements {
    let (width, height, depth) = if extent[2] > 1 { (32, 32, 16) } else { (128, 128, 1) };
    vk::SparseImageMemoryRequirements {
        format_properties: vk::SparseImageFormatProperties {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            image_granularity: vk::Extent3D { width, height, depth },
            flags: vk::SparseImageFormatFlags::SINGLE_MIPTAIL,
        },
        image_mip_tail_first_lod: first_tail_level,
        image_mip_tail_size: tail.1,
        image_mip_tail_offset: tail.0,
        image_mip_tail_stride: 0,
    }
}

impl Rig {
    /// Of the image's levels the last is the mip tail, of two blocks, behind the others.
    fn new(extent: [u32; 3], levels: u32, layers: u32, opaque_step: Option<u64>) -> Self {
        let space =
            AddressSpace::new(&LIMITS, Mirror::staged, Box::new(Follow), None, None).unwrap().forgetting();
        let places = Places::new(END);
        let open = |resource, parts, tails| {
            let ranges = places.add(resource, parts, tails).unwrap();
            ranges.iter().for_each(|&range| space.adopt_window(range, true).unwrap());
            ranges
        };
        let part = Part::Bytes { offset: 0, flags: vk::SparseMemoryBindFlags::empty(), step: None };
        let buffer = open(Resource::Buffer(BUFFER), vec![(SIZE, part)], Vec::new())[0];
        let info = image_info(extent, levels, layers);
        let of_size = |size| vk::MemoryRequirements { size, alignment: BLOCK, memory_type_bits: 1 };
        let blocks = Shape::new(&info, of_size(0), &[needs(extent, levels - 1, (0, 0))]).parts(None).0[1].0;
        let tail = needs(extent, levels - 1, (blocks, 2 * BLOCK));
        let shape = Shape::new(&info, of_size(blocks + 2 * BLOCK), &[tail]);
        let (parts, tails) = shape.parts(opaque_step);
        let ranges = open(Resource::Image(IMAGE), parts, tails);
        let mut rig = Self {
            space,
            places,
            objects: Vec::new(),
            buffer,
            image: shape.at(&ranges),
            binds: Binds::default(),
        };
        (0..4).for_each(|number| {
            let object = rig.allocate(number);
            rig.objects.push(object);
        });
        rig
    }

    /// Number `n` of memory has handle `n + 1`.
    fn allocate(&self, number: usize) -> Object {
        let memory = vk::DeviceMemory::from_raw(number as u64 + 1);
        self.space.add_object(Backing::Memory(memory), false).unwrap()
    }

    fn reallocate(&mut self, number: usize) {
        let new = self.allocate(number);
        self.space.evict(core::mem::replace(&mut self.objects[number], new)).unwrap();
    }

    fn kind(&self, to: Bound, bytes: u64) -> OpKind<BoId> {
        match to {
            None => OpKind::Null,
            Some((memory, offset)) => {
                OpKind::Map { object: self.objects[memory].object(), offset: offset + bytes }
            }
        }
    }

    fn wants(&self, binds: &[Bind]) -> Vec<Want> {
        let mut wants = Vec::new();
        for bind in binds {
            match bind {
                Bind::Buffer { offset, len, to } => {
                    let range = VaRange { start: self.buffer.start + offset, len: *len };
                    wants.push(Want { range, kind: self.kind(*to, 0) });
                }
                Bind::Opaque { offset, len, to } => {
                    let range = VaRange { start: self.image.opaque[0].start + offset, len: *len };
                    wants.push(Want { range, kind: self.kind(*to, 0) });
                }
                Bind::Blocks { at, to } => {
                    let plane = &self.image.planes[0];
                    let mut done = 0;
                    plane.layout.as_ref().unwrap().runs(at, |offset, _, len| {
                        let range = VaRange { start: plane.range.start + offset, len };
                        wants.push(Want { range, kind: self.kind(*to, done) });
                        done += len;
                    });
                }
            }
        }
        wants
    }

    /// What the driver is given for these wants of a queue's: a list of binds for each call.
    fn submit(&mut self, queue: u32, is_prompt: bool, binds: &[Bind]) -> Vec<Vec<Bind>> {
        let wants = self.wants(binds);
        let mut calls = Vec::new();
        let mut start = 0;
        for segment in self.places.segments(queue, is_prompt, &wants) {
            self.space.forget(&segment.forget).unwrap();
            self.binds.clear();
            let mut rewrite = Rewrite { places: &self.places, binds: &mut self.binds };
            self.space.bind_through(queue, &wants[start..segment.end], &mut rewrite).unwrap();
            start = segment.end;
            calls.push(self.read_back());
        }
        calls
    }

    /// The binds as a driver reads them: in texels, and those of blocks first.
    fn read_back(&self) -> Vec<Bind> {
        let infos = self.binds.infos();
        let mut read = Vec::new();
        let to = |memory: vk::DeviceMemory, offset| {
            (memory != vk::DeviceMemory::null()).then(|| (memory.as_raw() as usize - 1, offset))
        };
        let layout = self.image.planes[0].layout.as_ref().unwrap();
        for info in &infos.images {
            // SAFETY: made by `infos`.
            for bind in unsafe { core::slice::from_raw_parts(info.p_binds, info.bind_count as usize) } {
                let vk::ImageSubresource { mip_level, array_layer, .. } = bind.subresource;
                let at = layout.blocks_of(mip_level, array_layer, bind.offset, bind.extent).unwrap();
                read.push(Bind::Blocks { at, to: to(bind.memory, bind.memory_offset) });
            }
        }
        let mut bytes = |binds: &[vk::SparseMemoryBind], is_buffer: bool| {
            for bind in binds {
                let (offset, len) = (bind.resource_offset, bind.size);
                let to = to(bind.memory, bind.memory_offset);
                read.push(if is_buffer {
                    Bind::Buffer { offset, len, to }
                } else {
                    Bind::Opaque { offset, len, to }
                });
            }
        };
        for info in &infos.opaque {
            // SAFETY: as above.
            bytes(unsafe { core::slice::from_raw_parts(info.p_binds, info.bind_count as usize) }, false);
        }
        for info in &infos.buffers {
            // SAFETY: as above.
            bytes(unsafe { core::slice::from_raw_parts(info.p_binds, info.bind_count as usize) }, true);
        }
        read
    }

    /// Number of binds that become of one batch.
    fn count(&mut self, binds: &[Bind]) -> usize {
        self.submit(1, true, binds).iter().map(Vec::len).sum()
    }

    fn level(&self, level: usize) -> [u32; 3] {
        let blocks = self.image.planes[0].layout.as_ref().unwrap().levels[level].blocks;
        [blocks.width, blocks.height, blocks.depth]
    }
}

fn pages(order: impl Iterator<Item = u64>, memory: impl Fn(u64) -> u64) -> Vec<Bind> {
    order
        .map(|page| Bind::Buffer { offset: page * BLOCK, len: BLOCK, to: Some((0, memory(page) * BLOCK)) })
        .collect()
}

/// Single tiles of a rectangle of a level, each with the block of memory that `memory` gives for its place in the rectangle.
fn tiles(first: [u32; 2], count: [u32; 2], memory: impl Fn(u64, u64) -> u64) -> Vec<Bind> {
    let places = (0..count[1]).flat_map(|y| (0..count[0]).map(move |x| (x, y)));
    let tile = |(x, y): (u32, u32)| Bind::Blocks {
        at: BlockBox { level: 0, layer: 0, first: [first[0] + x, first[1] + y, 0], count: [1; 3] },
        to: Some((1, memory(x.into(), y.into()) * BLOCK)),
    };
    places.map(tile).collect()
}

fn large() -> Rig {
    Rig::new([4096, 4096, 1], 3, 1, None)
}

#[test]
fn buffers_take_the_fewest_binds() {
    let mut rig = large();
    let unbind = [Bind::Buffer { offset: 0, len: SIZE, to: None }];
    assert_eq!(rig.count(&unbind), 0, "nothing was bound");
    let contiguous = pages(0..1024, |page| page);
    assert_eq!(rig.count(&contiguous), 1);
    assert_eq!(rig.count(&contiguous), 0, "the same again");
    assert_eq!(rig.count(&unbind), 1);
    let shuffled = pages((0..1024).map(|n| n * 389 % 1024), |page| page);
    assert_eq!(rig.count(&shuffled), 1);
    let scattered = pages(0..1024, |page| page * 389 % 1024);
    assert_eq!(rig.count(&unbind), 1);
    assert_eq!(rig.count(&scattered), 1024);
    let small: Vec<_> = (0..65536u64)
        .map(|n| {
            let page = n * 30011 % 65536;
            Bind::Buffer { offset: page << 12, len: 1 << 12, to: Some(((page >> 14) as usize, page << 12)) }
        })
        .collect();
    assert_eq!(rig.count(&small), 4, "a bind for each of four memories");
}

#[test]
fn images_take_the_fewest_binds() {
    let mut rig = large();
    assert_eq!(rig.level(0), [32, 32, 1]);
    let rectangle = tiles([5, 7], [16, 16], |x, y| 100 + y * 16 + x);
    assert_eq!(rig.count(&rectangle), 1);
    assert_eq!(rig.count(&rectangle), 0, "the same again");
    let mut backwards = tiles([5, 7], [16, 16], |x, y| 600 + y * 16 + x);
    backwards.reverse();
    assert_eq!(rig.count(&backwards), 1);
    let columns = tiles([0, 0], [16, 16], |x, y| 2000 + x * 16 + y);
    assert_eq!(rig.count(&columns), 16, "memory runs on downwards");
    let level = tiles([0, 0], [32, 32], |x, y| y * 32 + x);
    assert_eq!(rig.count(&level), 1);
    let rest = tiles([3, 0], [29, 32], |x, y| 5000 + y * 29 + x);
    assert_eq!(rig.count(&rest), 1);
    let unbind = BlockBox { level: 0, layer: 0, first: [0; 3], count: [32, 32, 1] };
    assert_eq!(rig.count(&[Bind::Blocks { at: unbind, to: None }]), 1);
    assert_eq!(rig.count(&[Bind::Blocks { at: unbind, to: None }]), 0);
    // A run over the ends of rows: what is left of the first, whole ones, what there is of the last.
    let mut bent = tiles([20, 0], [12, 1], |x, _| x);
    bent.extend(tiles([0, 1], [32, 3], |x, y| 12 + y * 32 + x));
    bent.extend(tiles([0, 4], [9, 1], |x, _| 12 + 3 * 32 + x));
    assert_eq!(rig.count(&bent), 3);
}

#[test]
fn slices_join_to_boxes() {
    let mut rig = Rig::new([256, 256, 256], 2, 1, None);
    assert_eq!(rig.level(0), [8, 8, 16]);
    let block = |x: u32, y: u32, z: u32| {
        let number = u64::from((z * 3 + y) * 2 + x);
        Bind::Blocks {
            at: BlockBox { level: 0, layer: 0, first: [1 + x, 2 + y, 3 + z], count: [1; 3] },
            to: Some((0, number * BLOCK)),
        }
    };
    let blocks = (0..4).flat_map(|z| (0..3).flat_map(move |y| (0..2).map(move |x| block(x, y, z))));
    assert_eq!(rig.count(&blocks.collect::<Vec<_>>()), 1);
}

#[test]
fn opaque_binds_are_cut_where_the_driver_wants_it() {
    let whole = [Bind::Opaque { offset: 0, len: 6 * BLOCK, to: Some((0, 0)) }];
    assert_eq!(large().count(&whole), 1);
    assert_eq!(Rig::new([4096, 4096, 1], 3, 1, Some(BLOCK)).count(&whole), 6);
}

#[test]
fn freed_memory_is_not_unbound_and_not_taken_for_its_successor() {
    let mut rig = large();
    let bind = pages(0..4, |page| page);
    let unbind = [Bind::Buffer { offset: 0, len: 4 * BLOCK, to: None }];
    assert_eq!(rig.count(&bind), 1);
    rig.reallocate(0);
    assert_eq!(rig.count(&bind), 1, "another memory with the same handle");
    rig.reallocate(0);
    assert_eq!(rig.count(&unbind), 1, "the driver still has it bound");
    assert_eq!(rig.count(&unbind), 0);
}

#[test]
fn what_two_queues_bind_is_always_bound_again() {
    let mut rig = large();
    let bind = pages(0..4, |page| page);
    assert_eq!(rig.submit(1, true, &bind)[0].len(), 1);
    assert_eq!(rig.submit(1, true, &bind)[0].len(), 0);
    assert_eq!(rig.submit(1, false, &bind)[0].len(), 1, "its wait may be for somebody who comes later");
    assert_eq!(rig.submit(2, true, &bind)[0].len(), 1);
    assert_eq!(rig.submit(1, true, &bind)[0].len(), 1);
    // The image is another resource.
    let tile = tiles([0, 0], [1, 1], |_, _| 0);
    assert_eq!(rig.submit(2, true, &tile)[0].len(), 1);
    assert_eq!(rig.submit(2, true, &tile)[0].len(), 0);
}

#[test]
fn blocks_and_opaque_bytes_go_in_their_order() {
    let mut rig = large();
    let tail = Bind::Opaque { offset: rig.image.size - BLOCK, len: BLOCK, to: Some((0, 0)) };
    let tile = tiles([0, 0], [1, 1], |_, _| 3).remove(0);
    let opaque = Bind::Opaque { offset: 0, len: 4 * BLOCK, to: None };
    let calls = rig.submit(1, true, &[tile.clone(), tail.clone(), opaque.clone(), tile.clone()]);
    assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1]);
    assert_eq!(rig.count(&[tile, tail]), 0, "both are known still");
    assert_eq!(rig.count(&[opaque]), 1, "what a tile's bytes are in the opaque range is not");
}

#[test]
fn addresses_come_again_only_when_they_have_to() {
    let places = Places::new((1 << 20) + 10 * (1 << 20));
    let add = |mib: u64| {
        let part = Part::Bytes { offset: 0, flags: vk::SparseMemoryBindFlags::empty(), step: None };
        let ranges = places.add(Resource::Buffer(BUFFER), vec![((mib << 20) - (1 << 16), part)], Vec::new());
        ranges.map(|ranges| ranges[0].start >> 20)
    };
    assert_eq!([add(2), add(3), add(4)], [Some(1), Some(3), Some(6)]);
    places.remove(3 << 20);
    assert_eq!([add(1), add(1)], [Some(10), Some(3)], "at the end first, then where room is");
    assert_eq!([add(3), add(2), add(1)], [None, Some(4), None]);
}

/// A driver: what is bound in the pages of the buffer and of the image, by memory and its generation.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Driver {
    buffer: HashMap<u64, (usize, u32, u64)>,
    image: HashMap<u64, (usize, u32, u64)>,
}

impl Driver {
    /// Binds as the specification says, the image's opaque bytes being its blocks in an order of the driver's own.
    fn bind(&mut self, rig: &Rig, binds: &[Bind], generations: &[u32]) {
        let layout = rig.image.planes[0].layout.as_ref().unwrap();
        let in_order = |page: u64| {
            let blocks = layout.size / BLOCK;
            if page < blocks { blocks - 1 - page } else { page }
        };
        for bind in binds {
            let (first, to) = match bind {
                Bind::Buffer { to, .. } | Bind::Opaque { to, .. } | Bind::Blocks { to, .. } => (0u64, *to),
            };
            let mut number = first;
            let mut set = |pages: &mut HashMap<u64, _>, page| {
                match to {
                    None => pages.remove(&page),
                    Some((memory, offset)) => {
                        pages.insert(page, (memory, generations[memory], offset / BLOCK + number))
                    }
                };
                number += 1;
            };
            match bind {
                Bind::Buffer { offset, len, .. } => {
                    (offset / BLOCK..(offset + len) / BLOCK).for_each(|page| set(&mut self.buffer, page));
                }
                Bind::Opaque { offset, len, .. } => {
                    (offset / BLOCK..(offset + len) / BLOCK)
                        .for_each(|page| set(&mut self.image, in_order(page)));
                }
                Bind::Blocks { at, .. } => {
                    let level = &layout.levels[at.level as usize];
                    let base = level.offset + u64::from(at.layer) * level.layer_stride;
                    for z in at.first[2]..at.first[2] + at.count[2] {
                        for y in at.first[1]..at.first[1] + at.count[1] {
                            for x in at.first[0]..at.first[0] + at.count[0] {
                                let [x, y, z] = [x, y, z].map(u64::from);
                                let at = base + z * level.slice_stride + y * level.row_stride + x * BLOCK;
                                set(&mut self.image, at / BLOCK);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What a test of many steps does next.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of a queue's, which waits for what comes later or not.
    Submit {
        queue: usize,
        waits: bool,
        binds: Vec<[u32; 8]>,
    },
    /// The first wait of a queue is over.
    Release {
        queue: usize,
    },
    Reallocate {
        memory: usize,
    },
}

/// A bind of the rig's resources out of random numbers.
fn bind_from(rig: &Rig, pick: [u32; 8]) -> Bind {
    let to = (pick[1] % 4 > 0).then(|| ((pick[1] % 3) as usize, u64::from(pick[2] % 8) * BLOCK));
    let run = |pages: u64| {
        let first = u64::from(pick[3]) % pages;
        (first * BLOCK, (1 + u64::from(pick[4]) % (pages - first).min(6)) * BLOCK)
    };
    match pick[0] % 4 {
        0 => {
            let (offset, len) = run(24);
            Bind::Buffer { offset, len, to }
        }
        1 if pick[7] % 3 == 0 => {
            let (offset, len) = run(rig.image.size / BLOCK);
            Bind::Opaque { offset, len, to }
        }
        1 => Bind::Opaque { offset: rig.image.size - 2 * BLOCK, len: BLOCK, to },
        _ => {
            let layout = rig.image.planes[0].layout.as_ref().unwrap();
            let level = pick[7] % layout.levels.len() as u32;
            let blocks = rig.level(level as usize);
            let first = [pick[3] % blocks[0], pick[4] % blocks[1], pick[5] % blocks[2]];
            let count = [5, 7, 11]
                .map(|divisor| pick[6] / divisor)
                .into_iter()
                .zip(blocks.iter().zip(first))
                .map(|(number, (blocks, first))| 1 + number % (blocks - first));
            let count = count.collect::<Vec<_>>().try_into().unwrap();
            Bind::Blocks { at: BlockBox { level, layer: pick[6] % layout.layers, first, count }, to }
        }
    }
}

fn steps(queues: usize) -> impl Strategy<Value = Vec<Step>> {
    let binds = prop::collection::vec(any::<[u32; 8]>(), 0..6);
    let submit = (0..queues, any::<bool>(), binds);
    let step = prop_oneof![
        6 => submit.prop_map(|(queue, waits, binds)| Step::Submit { queue, waits, binds }),
        3 => (0..queues).prop_map(|queue| Step::Release { queue }),
        1 => (0usize..3).prop_map(|memory| Step::Reallocate { memory }),
    ];
    prop::collection::vec(step, 1..30)
}

/// One batch in a queue: whether it waits, what the application bound, what the driver was given, the memories' generations.
type Queued = (bool, Vec<Bind>, Vec<Vec<Bind>>, Vec<u32>);

/// Runs steps on two drivers, one with the application's binds and one with those that became of them, the same way through all queues.
fn run(rig: &mut Rig, queues: usize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let empty = Driver { buffer: HashMap::new(), image: HashMap::new() };
    let (mut native, mut forwarded) = (empty.clone(), empty);
    let mut pending: Vec<std::collections::VecDeque<Queued>> = vec![Default::default(); queues];
    let mut is_late = vec![false; queues];
    let mut generations = vec![0; 4];
    let release_all = (0..200).map(|n| Step::Release { queue: n % queues });
    for step in steps.into_iter().chain(release_all) {
        match step {
            Step::Submit { queue, waits, binds } => {
                let binds: Vec<_> = binds.into_iter().map(|pick| bind_from(rig, pick)).collect();
                is_late[queue] |= waits;
                let is_prompt = queues == 1 || !is_late[queue];
                let calls = rig.submit(queue as u32 + 1, is_prompt, &binds);
                pending[queue].push_back((waits, binds, calls, generations.clone()));
            }
            Step::Release { queue } => {
                if let Some(first) = pending[queue].front_mut() {
                    first.0 = false;
                }
            }
            Step::Reallocate { memory } => {
                rig.reallocate(memory);
                generations[memory] += 1;
            }
        }
        for queue in &mut pending {
            while queue.front().is_some_and(|queued| !queued.0)
                && let Some((_, binds, calls, generations)) = queue.pop_front()
            {
                native.bind(rig, &binds, &generations);
                calls.iter().for_each(|call| forwarded.bind(rig, call, &generations));
            }
        }
        prop_assert_eq!(&native, &forwarded);
    }
    prop_assert!(pending.iter().all(|queue| queue.is_empty()));
    Ok(())
}

proptest! {
    #[test]
    fn one_queue_leaves_the_same(steps in steps(1)) {
        run(&mut Rig::new([400, 300, 1], 3, 2, None), 1, steps)?;
    }

    #[test]
    fn one_queue_leaves_the_same_in_volumes(steps in steps(1)) {
        run(&mut Rig::new([100, 70, 40], 3, 1, Some(BLOCK)), 1, steps)?;
    }

    #[test]
    fn several_queues_leave_the_same(steps in steps(3)) {
        run(&mut Rig::new([400, 300, 1], 3, 2, None), 3, steps)?;
    }
}

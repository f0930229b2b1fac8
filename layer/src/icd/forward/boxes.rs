//! From runs of blocks, in the order of a layout, to the boxes that a bind can name.
//!
//! A bind of several blocks takes its memory in the order x, then y, then z. The specification does not say so, but it is what the
//! drivers do (lavapipe, ANV, NVK and PanVK were read), and what D3D12 on Vulkan relies on when it binds a whole subresource.
//! So rows join to a rectangle where one lies on the other and memory runs on, and rectangles to a box.

use crate::layout::{BlockBox, PlaneLayout};
use ash::vk;
use rustc_hash::FxHashMap;

/// Where memory is, and from which byte on; `None` is none.
pub type Memory = Option<(vk::DeviceMemory, u64)>;

/// A box of blocks, and the memory of its first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BoundBox {
    pub at: BlockBox,
    pub memory: Memory,
}

/// What is behind `bytes` more.
pub fn behind(memory: Memory, bytes: u64) -> Memory {
    memory.map(|(memory, offset)| (memory, offset + bytes))
}

impl BoundBox {
    /// Takes another box in that lies against this one along `axis`, and is the same in the axes before.
    fn try_extend(&mut self, next: &Self, axis: usize, block: u64) -> bool {
        let (mine, theirs) = (&self.at, &next.at);
        let touches = mine.level == theirs.level
            && mine.layer == theirs.layer
            && mine.first[axis] + mine.count[axis] == theirs.first[axis]
            && (axis..2).all(|behind| mine.first[behind + 1] == theirs.first[behind + 1]);
        if !touches || behind(self.memory, mine.blocks() * block) != next.memory {
            return false;
        }
        self.at.count[axis] += theirs.count[axis];
        true
    }
}

/// Joins runs of blocks to boxes; its memory is used again.
#[derive(Default)]
pub struct Joiner {
    boxes: Vec<BoundBox>,
    /// The last box with these first blocks and counts in the axes that have to be the same.
    open: FxHashMap<[u32; 4], usize>,
}

impl Joiner {
    /// Adds a run of whole blocks: `offset` and `len` in bytes, in the layout of the plane, behind all runs before it.
    pub fn run(&mut self, layout: &PlaneLayout, offset: u64, len: u64, memory: Memory) {
        let (mut offset, mut len, mut memory) = (offset, len, memory);
        while len > 0 {
            let part = first_rectangle(layout, offset, len);
            let bytes = part.blocks() * layout.block;
            self.rectangle(layout, BoundBox { at: part, memory });
            offset += bytes;
            len -= bytes;
            memory = behind(memory, bytes);
        }
    }

    /// Adds a rectangle, to one that ends above it if there is such.
    fn rectangle(&mut self, layout: &PlaneLayout, rectangle: BoundBox) {
        let BlockBox { first, count, .. } = rectangle.at;
        let new = self.boxes.len();
        let open = self.open.entry([first[0], count[0], 0, 0]).or_insert(new);
        let extended =
            self.boxes.get_mut(*open).is_some_and(|above| above.try_extend(&rectangle, 1, layout.block));
        if !extended {
            *open = new;
            self.boxes.push(rectangle);
        }
    }

    /// Calls `each` for every box of the plane, and is ready for the next plane.
    pub fn finish(&mut self, layout: &PlaneLayout, mut each: impl FnMut(BoundBox)) {
        self.open.clear();
        if layout.levels.iter().any(|level| level.blocks.depth > 1) {
            let mut kept = 0;
            for number in 0..self.boxes.len() {
                let slice = self.boxes[number];
                let BlockBox { first, count, .. } = slice.at;
                let open = self.open.entry([first[0], count[0], first[1], count[1]]).or_insert(kept);
                let extended = *open < kept && self.boxes[*open].try_extend(&slice, 2, layout.block);
                if !extended {
                    *open = kept;
                    self.boxes[kept] = slice;
                    kept += 1;
                }
            }
            self.boxes.truncate(kept);
            self.open.clear();
        }
        self.boxes.drain(..).for_each(&mut each);
    }
}

/// The longest beginning of a run that is a rectangle: rows of a slice if it begins with a whole one, else what it has of its row.
fn first_rectangle(layout: &PlaneLayout, offset: u64, len: u64) -> BlockBox {
    let number = layout.levels.partition_point(|level| level.offset <= offset) - 1;
    let level = &layout.levels[number];
    let in_level = offset - level.offset;
    let in_layer = in_level % level.layer_stride;
    let in_slice = in_layer % level.slice_stride;
    let in_row = in_slice % level.row_stride;
    let first = [in_row / layout.block, in_slice / level.row_stride, in_layer / level.slice_stride];
    let (width, height) = if in_row == 0 && len >= level.row_stride {
        (level.blocks.width, (len / level.row_stride).min(u64::from(level.blocks.height) - first[1]))
    } else {
        let blocks = (level.row_stride - in_row).min(len) / layout.block;
        (blocks as u32, 1)
    };
    BlockBox {
        level: number as u32,
        layer: (in_level / level.layer_stride) as u32,
        first: first.map(|at| at as u32),
        count: [width, height as u32, 1],
    }
}

//! SPIR-V edited on its way to the driver: sparse reads of texel buffers, which lavapipe's compiled code dies of.

use std::collections::{HashMap, HashSet};

// SPIR-V specification, "Binary Form": the numbers that are read or written here.
const MAGIC: u32 = 0x0723_0203;
/// Words before the first instruction; the fourth is a number greater than every id.
const HEADER: usize = 5;
const BOUND: usize = 3;
const CAPABILITY_SPARSE_RESIDENCY: u32 = 41;
const DIM_BUFFER: u32 = 5;

const OP_UNDEF: u16 = 1;
const OP_CAPABILITY: u16 = 17;
const OP_TYPE_INT: u16 = 21;
const OP_TYPE_IMAGE: u16 = 25;
const OP_TYPE_STRUCT: u16 = 30;
const OP_CONSTANT: u16 = 43;
const OP_FUNCTION: u16 = 54;
const OP_FUNCTION_PARAMETER: u16 = 55;
const OP_FUNCTION_CALL: u16 = 57;
const OP_LOAD: u16 = 61;
const OP_COMPOSITE_CONSTRUCT: u16 = 80;
const OP_COPY_OBJECT: u16 = 83;
const OP_IMAGE_FETCH: u16 = 95;
const OP_IMAGE_READ: u16 = 98;
const OP_IMAGE: u16 = 100;
const OP_SELECT: u16 = 169;
const OP_PHI: u16 = 245;
const OP_IMAGE_SPARSE_FETCH: u16 = 313;
const OP_IMAGE_SPARSE_READ: u16 = 320;

/// The instructions that can yield an image; each has its result type first, then its result.
const IMAGE_SOURCES: [u16; 8] =
    [OP_UNDEF, OP_FUNCTION_PARAMETER, OP_FUNCTION_CALL, OP_LOAD, OP_COPY_OBJECT, OP_IMAGE, OP_SELECT, OP_PHI];

/// The residency code of a texel that is there. The driver's own code has every bit set, or none.
const RESIDENT: u32 = u32::MAX;

/// One instruction with its operands.
#[derive(Clone, Copy)]
struct Instruction<'a> {
    words: &'a [u32],
}

impl<'a> Instruction<'a> {
    fn opcode(self) -> u16 {
        self.words[0] as u16
    }

    fn operands(self) -> &'a [u32] {
        &self.words[1..]
    }
}

/// The instructions of a module, as far as they are whole.
fn instructions(code: &[u32]) -> impl Iterator<Item = Instruction<'_>> {
    let mut rest = code.get(HEADER..).unwrap_or_default();
    core::iter::from_fn(move || {
        let length = (rest.first()? >> 16) as usize;
        let words = rest.get(..length).filter(|words| !words.is_empty())?;
        rest = &rest[length..];
        Some(Instruction { words })
    })
}

fn instruction(opcode: u16, operands: &[u32]) -> impl Iterator<Item = u32> {
    let first = (operands.len() as u32 + 1) << 16 | u32::from(opcode);
    core::iter::once(first).chain(operands.iter().copied())
}

/// Whether the module asks for sparse instructions at all: capabilities come before everything else.
fn is_sparse(code: &[u32]) -> bool {
    instructions(code)
        .take_while(|instruction| instruction.opcode() == OP_CAPABILITY)
        .any(|instruction| instruction.operands() == [CAPABILITY_SPARSE_RESIDENCY])
}

/// What a module says of the ids that matter here.
#[derive(Default)]
struct Ids {
    /// Integer types of 32 bits.
    integers: HashSet<u32>,
    /// Structures of two members.
    pairs: HashMap<u32, [u32; 2]>,
    /// Types of texel buffers, and values of these types.
    texel_buffers: HashSet<u32>,
}

impl Ids {
    fn of(code: &[u32]) -> Self {
        let mut ids = Self::default();
        for instruction in instructions(code) {
            match (instruction.opcode(), instruction.operands()) {
                (OP_TYPE_INT, &[id, 32, _]) => _ = ids.integers.insert(id),
                (OP_TYPE_STRUCT, &[id, first, second]) => _ = ids.pairs.insert(id, [first, second]),
                (OP_TYPE_IMAGE, &[id, _, DIM_BUFFER, ..]) => _ = ids.texel_buffers.insert(id),
                (opcode, &[of, id, ..]) if IMAGE_SOURCES.contains(&opcode) => {
                    if ids.texel_buffers.contains(&of) {
                        ids.texel_buffers.insert(id);
                    }
                }
                _ => {}
            }
        }
        ids
    }

    /// The read, if the instruction is a sparse one of a texel buffer.
    fn sparse_read<'a>(&self, instruction: Instruction<'a>) -> Option<SparseRead<'a>> {
        let plain = match instruction.opcode() {
            OP_IMAGE_SPARSE_FETCH => OP_IMAGE_FETCH,
            OP_IMAGE_SPARSE_READ => OP_IMAGE_READ,
            _ => return None,
        };
        let &[pair, result, image, ..] = instruction.operands() else { return None };
        let &[code, texel] = self.pairs.get(&pair)?;
        (self.texel_buffers.contains(&image) && self.integers.contains(&code)).then(|| SparseRead {
            plain,
            pair,
            code,
            texel,
            result,
            operands: &instruction.operands()[2..],
        })
    }
}

struct SparseRead<'a> {
    /// The opcode of the same read without a residency code.
    plain: u16,
    /// The result's type, and the types of its members: residency code and texel.
    pair: u32,
    code: u32,
    texel: u32,
    result: u32,
    /// Image, coordinate, image operands.
    operands: &'a [u32],
}

/// Replaces each sparse read of a texel buffer by the plain read and a code that says "resident"; `None` for a module without any.
///
/// Texels that are not bound read as they do without a code. A module that is not whole is the driver's to refuse: it stays as it is.
pub fn without_sparse_texel_reads(code: &[u32]) -> Option<Vec<u32>> {
    if code.first() != Some(&MAGIC) || !is_sparse(code) {
        return None;
    }
    let ids = Ids::of(code);
    let mut bound = *code.get(BOUND)?;
    let mut new_id = || {
        bound += 1;
        bound - 1
    };
    let reads = instructions(code).filter_map(|instruction| ids.sparse_read(instruction));
    let mut resident: HashMap<u32, u32> = HashMap::new();
    for read in reads {
        resident.entry(read.code).or_insert_with(&mut new_id);
    }
    if resident.is_empty() {
        return None;
    }
    let mut edited = Vec::with_capacity(code.len() + 64);
    edited.extend_from_slice(&code[..HEADER]);
    let mut constants = resident.iter();
    let mut consumed = HEADER;
    for current in instructions(code) {
        consumed += current.words.len();
        if current.opcode() == OP_FUNCTION {
            // The last place for constants; nothing is left of them at the next function.
            for (&integer, &id) in constants.by_ref() {
                edited.extend(instruction(OP_CONSTANT, &[integer, id, RESIDENT]));
            }
        }
        let Some(read) = ids.sparse_read(current) else {
            edited.extend_from_slice(current.words);
            continue;
        };
        let texel = new_id();
        let plain: Vec<u32> = [read.texel, texel].iter().chain(read.operands).copied().collect();
        edited.extend(instruction(read.plain, &plain));
        let pair = [read.pair, read.result, resident[&read.code], texel];
        edited.extend(instruction(OP_COMPOSITE_CONSTRUCT, &pair));
    }
    edited[BOUND] = bound;
    (consumed == code.len()).then_some(edited)
}

#[cfg(test)]
#[path = "spirv_tests.rs"]
mod tests;

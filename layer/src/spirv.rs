//! SPIR-V edited on its way to the driver, where lavapipe's compiler does the wrong thing with residency codes.
//!
//! * Sparse reads of texel buffers look for a residency bitmap that buffers do not have, and end the process.
//! * Sparse sampling with a depth comparison takes the second channel of the texel for the code.

use std::collections::{BTreeMap, HashMap, HashSet};

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
const OP_TYPE_VECTOR: u16 = 23;
const OP_TYPE_IMAGE: u16 = 25;
const OP_TYPE_STRUCT: u16 = 30;
const OP_CONSTANT: u16 = 43;
const OP_FUNCTION: u16 = 54;
const OP_FUNCTION_PARAMETER: u16 = 55;
const OP_FUNCTION_CALL: u16 = 57;
const OP_LOAD: u16 = 61;
const OP_COMPOSITE_CONSTRUCT: u16 = 80;
const OP_COMPOSITE_EXTRACT: u16 = 81;
const OP_COPY_OBJECT: u16 = 83;
const OP_IMAGE_FETCH: u16 = 95;
const OP_IMAGE_READ: u16 = 98;
const OP_IMAGE: u16 = 100;
const OP_SELECT: u16 = 169;
const OP_PHI: u16 = 245;
const OP_IMAGE_SPARSE_SAMPLE_DREF_IMPLICIT_LOD: u16 = 307;
const OP_IMAGE_SPARSE_SAMPLE_DREF_EXPLICIT_LOD: u16 = 308;
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

/// Appends an instruction.
fn emit(out: &mut Vec<u32>, opcode: u16, operands: &[&[u32]]) {
    let length: usize = operands.iter().map(|part| part.len()).sum();
    out.push((length as u32 + 1) << 16 | u32::from(opcode));
    operands.iter().for_each(|part| out.extend_from_slice(part));
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
    /// Vectors of four, by their component type.
    vectors: HashMap<u32, u32>,
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
                (OP_TYPE_VECTOR, &[id, component, 4]) => _ = ids.vectors.insert(component, id),
                (OP_TYPE_STRUCT, &[id, first, second]) => _ = ids.pairs.insert(id, [first, second]),
                (OP_TYPE_IMAGE, &[id, _, DIM_BUFFER, ..]) => _ = ids.texel_buffers.insert(id),
                (opcode, &[of, id, ..])
                    if IMAGE_SOURCES.contains(&opcode) && ids.texel_buffers.contains(&of) =>
                {
                    ids.texel_buffers.insert(id);
                }
                _ => {}
            }
        }
        ids
    }

    /// The read, if the instruction is one that the driver gets wrong.
    fn read<'a>(&self, instruction: Instruction<'a>) -> Option<Read<'a>> {
        let &[pair, result, image, ..] = instruction.operands() else { return None };
        let kind =
            match instruction.opcode() {
                OP_IMAGE_SPARSE_FETCH if self.texel_buffers.contains(&image) => Kind::Buffer(OP_IMAGE_FETCH),
                OP_IMAGE_SPARSE_READ if self.texel_buffers.contains(&image) => Kind::Buffer(OP_IMAGE_READ),
                opcode @ (OP_IMAGE_SPARSE_SAMPLE_DREF_IMPLICIT_LOD
                | OP_IMAGE_SPARSE_SAMPLE_DREF_EXPLICIT_LOD) => Kind::Comparison(opcode),
                _ => return None,
            };
        let &[code, texel] = self.pairs.get(&pair)?;
        let operands = &instruction.operands()[2..];
        self.integers.contains(&code).then_some(Read { kind, pair, code, texel, result, operands })
    }
}

enum Kind {
    /// Of a texel buffer, with the opcode of the same read without a residency code.
    Buffer(u16),
    /// A depth comparison, with its opcode.
    Comparison(u16),
}

/// A read with a residency code.
struct Read<'a> {
    kind: Kind,
    /// The result's type, and the types of its members: residency code and texel.
    pair: u32,
    code: u32,
    texel: u32,
    result: u32,
    /// Image, coordinate, image operands.
    operands: &'a [u32],
}

/// Ids that the edited module has beyond those of the original.
struct Additions {
    bound: u32,
    /// By their types: constants that say "resident".
    resident: BTreeMap<u32, u32>,
    /// By component type: vectors of four that the module lacked.
    vectors: BTreeMap<u32, u32>,
    /// By the types of its members, code and component: a structure of a code and four components.
    wide: BTreeMap<(u32, u32), u32>,
}

impl Additions {
    fn new_id(&mut self) -> u32 {
        self.bound += 1;
        self.bound - 1
    }

    /// Makes sure that what the read's replacement refers to exists.
    fn prepare(&mut self, read: &Read<'_>, ids: &Ids) {
        match read.kind {
            Kind::Buffer(_) => {
                if !self.resident.contains_key(&read.code) {
                    let id = self.new_id();
                    self.resident.insert(read.code, id);
                }
            }
            Kind::Comparison(_) => {
                if !ids.vectors.contains_key(&read.texel) && !self.vectors.contains_key(&read.texel) {
                    let id = self.new_id();
                    self.vectors.insert(read.texel, id);
                }
                if !self.wide.contains_key(&(read.code, read.texel)) {
                    let id = self.new_id();
                    self.wide.insert((read.code, read.texel), id);
                }
            }
        }
    }

    /// Types and constants, in the order in which they need each other.
    fn declare(&self, ids: &Ids, out: &mut Vec<u32>) {
        for (&integer, &id) in &self.resident {
            emit(out, OP_CONSTANT, &[&[integer, id, RESIDENT]]);
        }
        for (&component, &id) in &self.vectors {
            emit(out, OP_TYPE_VECTOR, &[&[id, component, 4]]);
        }
        for (&(code, component), &id) in &self.wide {
            let vector = ids.vectors.get(&component).unwrap_or_else(|| &self.vectors[&component]);
            emit(out, OP_TYPE_STRUCT, &[&[id, code, *vector]]);
        }
    }

    fn replace(&mut self, read: &Read<'_>, out: &mut Vec<u32>) {
        let (code, texel) = match read.kind {
            Kind::Buffer(plain) => {
                let texel = self.new_id();
                emit(out, plain, &[&[read.texel, texel], read.operands]);
                (self.resident[&read.code], texel)
            }
            // With four channels the driver's compiler finds the code behind the texel. Only for this driver: the specification wants
            // a scalar here.
            Kind::Comparison(opcode) => {
                let [whole, code, texel] = core::array::from_fn(|_| self.new_id());
                emit(out, opcode, &[&[self.wide[&(read.code, read.texel)], whole], read.operands]);
                emit(out, OP_COMPOSITE_EXTRACT, &[&[read.code, code, whole, 0]]);
                emit(out, OP_COMPOSITE_EXTRACT, &[&[read.texel, texel, whole, 1, 0]]);
                (code, texel)
            }
        };
        emit(out, OP_COMPOSITE_CONSTRUCT, &[&[read.pair, read.result, code, texel]]);
    }
}

/// An edited module.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    pub code: Vec<u32>,
    /// Reads of texel buffers were replaced: their codes now always say "resident".
    pub texel_buffers: bool,
}

/// Replaces the reads that the driver gets wrong; `None` for a module without any.
///
/// Texels of buffers that are not bound read as they do without a code. A module that is not whole is the driver's to refuse: it stays
/// as it is.
pub fn edit(code: &[u32]) -> Option<Edited> {
    if code.first() != Some(&MAGIC) || !is_sparse(code) {
        return None;
    }
    let ids = Ids::of(code);
    let mut added = Additions {
        bound: *code.get(BOUND)?,
        resident: BTreeMap::new(),
        vectors: BTreeMap::new(),
        wide: BTreeMap::new(),
    };
    let mut wrong = 0;
    for read in instructions(code).filter_map(|instruction| ids.read(instruction)) {
        added.prepare(&read, &ids);
        wrong += 1;
    }
    if wrong == 0 {
        return None;
    }
    let mut edited = Vec::with_capacity(code.len() + 32 + 16 * wrong);
    edited.extend_from_slice(&code[..HEADER]);
    let mut declared = false;
    let mut consumed = HEADER;
    for instruction in instructions(code) {
        consumed += instruction.words.len();
        // The last place for types and constants.
        if instruction.opcode() == OP_FUNCTION && !core::mem::replace(&mut declared, true) {
            added.declare(&ids, &mut edited);
        }
        match ids.read(instruction) {
            Some(read) => added.replace(&read, &mut edited),
            None => edited.extend_from_slice(instruction.words),
        }
    }
    edited[BOUND] = added.bound;
    (consumed == code.len()).then_some(Edited { code: edited, texel_buffers: !added.resident.is_empty() })
}

#[cfg(test)]
#[path = "spirv_tests.rs"]
pub(crate) mod tests;

use super::*;
use proptest::prelude::*;

const OP_TYPE_VOID: u16 = 19;
const OP_TYPE_FLOAT: u16 = 22;
const OP_VARIABLE: u16 = 59;
const OP_LABEL: u16 = 248;
const OP_RETURN: u16 = 253;
const OP_FUNCTION_END: u16 = 56;
const OP_NAME: u16 = 5;
const DIM_2D: u32 = 1;
const CAPABILITY_SHADER: u32 = 1;

// Ids of the test's module.
const INT: u32 = 1;
const TEXEL: u32 = 2;
const PAIR: u32 = 3;
const IMAGE: u32 = 4;
const VARIABLE: u32 = 5;
const LOADED: u32 = 6;
const COORDINATE: u32 = 7;
const RESULT: u32 = 8;
const SECOND_LOAD: u32 = 9;
const SECOND_RESULT: u32 = 10;
const FIRST_FREE: u32 = 20;

fn module(instructions: &[(u16, &[u32])]) -> Vec<u32> {
    let mut code = vec![MAGIC, 0x1_0000, 0, FIRST_FREE, 0];
    instructions.iter().for_each(|(opcode, operands)| emit(&mut code, *opcode, &[operands]));
    code
}

/// A module that reads an image of this dimension sparsely, in two functions.
fn reader(capability: u32, dimension: u32, read: u16) -> Vec<u32> {
    module(&[
        (OP_CAPABILITY, &[CAPABILITY_SHADER]),
        (OP_CAPABILITY, &[capability]),
        // A name whose characters look like ids of the module.
        (OP_NAME, &[IMAGE, COORDINATE, 0]),
        (OP_TYPE_VOID, &[19]),
        (OP_TYPE_INT, &[INT, 32, 0]),
        (OP_TYPE_VECTOR, &[TEXEL, INT, 4]),
        (OP_TYPE_STRUCT, &[PAIR, INT, TEXEL]),
        (OP_TYPE_IMAGE, &[IMAGE, INT, dimension, 0, 0, 0, 1, 0]),
        (OP_VARIABLE, &[18, VARIABLE, 0]),
        (OP_FUNCTION, &[19, 17, 0, 16]),
        (OP_LABEL, &[15]),
        (OP_LOAD, &[IMAGE, LOADED, VARIABLE]),
        (read, &[PAIR, RESULT, LOADED, COORDINATE]),
        (OP_RETURN, &[]),
        (OP_FUNCTION_END, &[]),
        (OP_FUNCTION, &[19, 14, 0, 16]),
        (OP_LABEL, &[13]),
        (OP_LOAD, &[IMAGE, SECOND_LOAD, VARIABLE]),
        (read, &[PAIR, SECOND_RESULT, SECOND_LOAD, COORDINATE, 0x2, COORDINATE]),
        (OP_RETURN, &[]),
        (OP_FUNCTION_END, &[]),
    ])
}

/// A module that [`edit`] replaces.
pub(crate) fn wrong_module() -> Vec<u32> {
    reader(CAPABILITY_SPARSE_RESIDENCY, DIM_BUFFER, OP_IMAGE_SPARSE_FETCH)
}

/// A module that it leaves alone.
pub(crate) fn right_module() -> Vec<u32> {
    reader(CAPABILITY_SPARSE_RESIDENCY, DIM_2D, OP_IMAGE_SPARSE_FETCH)
}

fn all(code: &[u32], opcode: u16) -> Vec<&[u32]> {
    instructions(code).filter(|found| found.opcode() == opcode).map(Instruction::operands).collect()
}

#[test]
fn sparse_reads_of_texel_buffers_become_plain_ones() {
    for (sparse, plain) in [(OP_IMAGE_SPARSE_FETCH, OP_IMAGE_FETCH), (OP_IMAGE_SPARSE_READ, OP_IMAGE_READ)] {
        let code = reader(CAPABILITY_SPARSE_RESIDENCY, DIM_BUFFER, sparse);
        let edited = edit(&code).unwrap();
        assert!(edited.texel_buffers);
        let edited = edited.code;
        assert!(all(&edited, sparse).is_empty());
        let constants = all(&edited, OP_CONSTANT);
        let &[&[integer, resident, value]] = constants.as_slice() else { panic!("{constants:?}") };
        assert_eq!((integer, value), (INT, RESIDENT));
        let reads = all(&edited, plain);
        let &[first, second] = reads.as_slice() else { panic!("{reads:?}") };
        assert_eq!((first[0], &first[2..]), (TEXEL, [LOADED, COORDINATE].as_slice()));
        assert_eq!((second[0], &second[2..]), (TEXEL, [SECOND_LOAD, COORDINATE, 0x2, COORDINATE].as_slice()));
        let pairs = all(&edited, OP_COMPOSITE_CONSTRUCT);
        assert_eq!(
            pairs,
            [[PAIR, RESULT, resident, first[1]].as_slice(), &[PAIR, SECOND_RESULT, resident, second[1]]]
        );
        let mut fresh = vec![resident, first[1], second[1]];
        fresh.sort_unstable();
        assert_eq!(fresh, [FIRST_FREE, FIRST_FREE + 1, FIRST_FREE + 2]);
        assert_eq!(edited[BOUND], FIRST_FREE + 3);
        // The constant comes before the first function, and everything else stays.
        let opcodes: Vec<_> = instructions(&edited).map(Instruction::opcode).collect();
        let constant = opcodes.iter().position(|&opcode| opcode == OP_CONSTANT);
        assert_eq!(opcodes.iter().position(|&opcode| opcode == OP_FUNCTION), constant.map(|at| at + 1));
        assert_eq!(opcodes.len(), instructions(&code).count() + 3);
    }
}

/// A module that samples with a comparison; a vector of four floats is there already, or not.
fn comparer(vector: bool) -> Vec<u32> {
    const FLOAT: u32 = 11;
    let vector: (u16, &[u32]) =
        if vector { (OP_TYPE_VECTOR, &[TEXEL, FLOAT, 4]) } else { (OP_TYPE_VECTOR, &[TEXEL, FLOAT, 3]) };
    module(&[
        (OP_CAPABILITY, &[CAPABILITY_SPARSE_RESIDENCY]),
        (OP_TYPE_INT, &[INT, 32, 1]),
        (OP_TYPE_FLOAT, &[FLOAT, 32]),
        vector,
        (OP_TYPE_STRUCT, &[PAIR, INT, FLOAT]),
        (OP_FUNCTION, &[19, 17, 0, 16]),
        (OP_IMAGE_SPARSE_SAMPLE_DREF_EXPLICIT_LOD, &[PAIR, RESULT, LOADED, COORDINATE, 12, 0x2, 13]),
        (OP_IMAGE_SPARSE_SAMPLE_DREF_IMPLICIT_LOD, &[PAIR, SECOND_RESULT, LOADED, COORDINATE, 12]),
        (OP_FUNCTION_END, &[]),
    ])
}

#[test]
fn comparisons_get_four_channels() {
    for has_vector in [true, false] {
        let Edited { code, texel_buffers } = edit(&comparer(has_vector)).unwrap();
        assert!(!texel_buffers);
        let vectors = all(&code, OP_TYPE_VECTOR);
        let four: Vec<_> = vectors.iter().filter(|vector| vector[2] == 4).collect();
        let &[&[vector, 11, 4]] = four.as_slice() else { panic!("{vectors:?}") };
        let structures = all(&code, OP_TYPE_STRUCT);
        let &[_, &[wide, INT, member]] = structures.as_slice() else { panic!("{structures:?}") };
        assert_eq!(member, *vector);
        let explicit = all(&code, OP_IMAGE_SPARSE_SAMPLE_DREF_EXPLICIT_LOD);
        let &[&[type_of_it, whole, ref operands @ ..]] = explicit.as_slice() else { panic!("{explicit:?}") };
        assert_eq!((type_of_it, operands), (wide, [LOADED, COORDINATE, 12, 0x2, 13].as_slice()));
        let extracts = all(&code, OP_COMPOSITE_EXTRACT);
        let &[&[INT, code_of_it, first, 0], &[11, texel, second, 1, 0], ..] = extracts.as_slice() else {
            panic!("{extracts:?}")
        };
        assert_eq!([first, second], [whole, whole]);
        let pairs = all(&code, OP_COMPOSITE_CONSTRUCT);
        assert_eq!(pairs[0], [PAIR, RESULT, code_of_it, texel]);
        assert_eq!((pairs.len(), extracts.len()), (2, 4));
        assert_eq!(code[BOUND], FIRST_FREE + u32::from(!has_vector) + 1 + 2 * 3);
    }
}

#[test]
fn other_modules_stay_as_they_are() {
    let unchanged = |code: &[u32]| assert_eq!(edit(code), None);
    // Images have residency of their own.
    unchanged(&reader(CAPABILITY_SPARSE_RESIDENCY, DIM_2D, OP_IMAGE_SPARSE_FETCH));
    unchanged(&reader(CAPABILITY_SPARSE_RESIDENCY, DIM_BUFFER, OP_IMAGE_FETCH));
    unchanged(&reader(CAPABILITY_SHADER, DIM_BUFFER, OP_IMAGE_SPARSE_FETCH));
    unchanged(&[]);
    let mut swapped = reader(CAPABILITY_SPARSE_RESIDENCY, DIM_BUFFER, OP_IMAGE_SPARSE_FETCH);
    swapped[0] = MAGIC.swap_bytes();
    unchanged(&swapped);
}

proptest! {
    #[test]
    fn broken_modules_do_no_harm(at in 1usize..100, word: u32, cut in 0usize..100) {
        let mut code = reader(CAPABILITY_SPARSE_RESIDENCY, DIM_BUFFER, OP_IMAGE_SPARSE_READ);
        if let Some(slot) = code.get_mut(at) {
            *slot = word;
        }
        code.truncate(code.len() - cut.min(code.len()));
        if let Some(Edited { code, .. }) = edit(&code) {
            // What is edited is whole.
            let words: usize = instructions(&code).map(|instruction| instruction.words.len()).sum();
            prop_assert_eq!(words + HEADER, code.len());
        }
    }
}

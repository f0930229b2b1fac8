//! The fifteen cases of split and merge that the comment at the head of drm_gpuvm.c (Linux 7.3) draws, with the steps
//! that `drm_gpuvm_sm_map()` gives for each, and what unmapping adds to them.

use gpuvm::{Mapping, Step, Target, Unmapped, VaRange, Vm};

const PAGE: u64 = 0x1000;
/// Objects a and b, and the pages n and m of them, as in the drawings.
const A: char = 'a';
const B: char = 'b';
const N: u64 = 10;
const M: u64 = 90;

/// Pages `start..end` with page `offset` of an object.
fn mapping(start: u64, end: u64, object: char, offset: u64) -> Mapping<char> {
    let range = VaRange::between(start * PAGE, end * PAGE).unwrap();
    Mapping { range, target: Target::Object { object, offset: offset * PAGE } }
}

fn null(start: u64, end: u64) -> Mapping<char> {
    Mapping { range: VaRange::between(start * PAGE, end * PAGE).unwrap(), target: Target::Null }
}

fn unmap(mapping: Mapping<char>, keep: bool) -> Step<char> {
    Step::Unmap(Unmapped { mapping, keep })
}

fn remap(
    mapping: Mapping<char>,
    keep: bool,
    prev: Option<Mapping<char>>,
    next: Option<Mapping<char>>,
) -> Step<char> {
    Step::Remap { prev, next, unmap: Unmapped { mapping, keep } }
}

fn vm(old: &[Mapping<char>]) -> Vm<char> {
    let mut vm = Vm::new(VaRange::new(0, 64 * PAGE).unwrap(), None).unwrap();
    for mapping in old {
        vm.sm_map(mapping.range, mapping.target, &mut |_| {}).unwrap();
    }
    assert_eq!(vm.iter().collect::<Vec<_>>(), old);
    vm
}

/// Maps `request` over `old` and expects `steps`, then the map step, and `new` afterwards.
#[track_caller]
fn map(old: &[Mapping<char>], request: Mapping<char>, steps: &[Step<char>], new: &[Mapping<char>]) {
    let mut vm = vm(old);
    let mut seen = Vec::new();
    vm.sm_map(request.range, request.target, &mut |step| seen.push(step)).unwrap();
    assert_eq!(seen.split_last(), Some((&Step::Map(request), steps)));
    assert_eq!(vm.iter().collect::<Vec<_>>(), new);
}

#[track_caller]
fn unmap_range(old: &[Mapping<char>], start: u64, end: u64, steps: &[Step<char>], new: &[Mapping<char>]) {
    let mut vm = vm(old);
    let mut seen = Vec::new();
    let range = VaRange::between(start * PAGE, end * PAGE).unwrap();
    vm.sm_unmap(range, &mut |step| seen.push(step)).unwrap();
    assert_eq!(seen, steps);
    assert_eq!(vm.iter().collect::<Vec<_>>(), new);
}

#[test]
fn case_01_identical() {
    let (old, req) = (mapping(0, 1, A, N), mapping(0, 1, A, N));
    map(&[old], req, &[unmap(old, true)], &[req]);
}

#[test]
fn case_02_other_offset() {
    let (old, req) = (mapping(0, 1, A, N), mapping(0, 1, A, M));
    map(&[old], req, &[unmap(old, false)], &[req]);
}

#[test]
fn case_03_other_object() {
    let (old, req) = (mapping(0, 1, A, N), mapping(0, 1, B, N));
    map(&[old], req, &[unmap(old, false)], &[req]);
}

#[test]
fn case_04_old_is_left_part_of_request() {
    let old = mapping(0, 1, A, N);
    for (req, keep) in
        [(mapping(0, 2, A, N), true), (mapping(0, 2, A, M), false), (mapping(0, 2, B, N), false)]
    {
        map(&[old], req, &[unmap(old, keep)], &[req]);
    }
}

#[test]
fn case_05_request_is_left_part_of_old_other_object() {
    let (old, rest) = (mapping(0, 2, A, N), mapping(1, 2, A, N + 1));
    for req in [mapping(0, 1, B, N), mapping(0, 1, A, M)] {
        map(&[old], req, &[remap(old, false, None, Some(rest))], &[req, rest]);
    }
}

#[test]
fn case_06_request_is_left_part_of_old() {
    let (old, req, rest) = (mapping(0, 2, A, N), mapping(0, 1, A, N), mapping(1, 2, A, N + 1));
    map(&[old], req, &[remap(old, true, None, Some(rest))], &[req, rest]);
}

#[test]
fn case_07_request_is_right_part_of_old_other_object() {
    let (old, req, rest) = (mapping(0, 2, A, N), mapping(1, 2, B, M), mapping(0, 1, A, N));
    map(&[old], req, &[remap(old, false, Some(rest), None)], &[rest, req]);
}

#[test]
fn case_08_request_is_right_part_of_old() {
    let (old, req, rest) = (mapping(0, 2, A, N), mapping(1, 2, A, N + 1), mapping(0, 1, A, N));
    map(&[old], req, &[remap(old, true, Some(rest), None)], &[rest, req]);
}

#[test]
fn case_09_request_overlaps_end_other_object() {
    let (old, req, rest) = (mapping(0, 2, A, N), mapping(1, 3, B, M), mapping(0, 1, A, N));
    map(&[old], req, &[remap(old, false, Some(rest), None)], &[rest, req]);
}

#[test]
fn case_10_request_continues_old() {
    let (old, req, rest) = (mapping(0, 2, A, N), mapping(1, 3, A, N + 1), mapping(0, 1, A, N));
    map(&[old], req, &[remap(old, true, Some(rest), None)], &[rest, req]);
}

#[test]
fn case_11_request_is_middle_of_old_other_object() {
    let (old, req) = (mapping(0, 3, A, N), mapping(1, 2, B, M));
    let (prev, next) = (mapping(0, 1, A, N), mapping(2, 3, A, N + 2));
    map(&[old], req, &[remap(old, false, Some(prev), Some(next))], &[prev, req, next]);
}

#[test]
fn case_12_request_is_middle_of_old() {
    let (old, req) = (mapping(0, 3, A, N), mapping(1, 2, A, N + 1));
    let (prev, next) = (mapping(0, 1, A, N), mapping(2, 3, A, N + 2));
    map(&[old], req, &[remap(old, true, Some(prev), Some(next))], &[prev, req, next]);
}

#[test]
fn case_13_old_is_right_part_of_request() {
    let old = mapping(1, 2, A, N + 1);
    for (req, keep) in
        [(mapping(0, 2, A, N), true), (mapping(0, 2, A, M), false), (mapping(0, 2, B, N), false)]
    {
        map(&[old], req, &[unmap(old, keep)], &[req]);
    }
}

#[test]
fn case_14_old_is_middle_of_request() {
    let old = mapping(1, 2, A, N + 1);
    for (req, keep) in
        [(mapping(0, 3, A, N), true), (mapping(0, 3, A, M), false), (mapping(0, 3, B, N), false)]
    {
        map(&[old], req, &[unmap(old, keep)], &[req]);
    }
}

#[test]
fn case_15_request_overlaps_start_other_object() {
    let (old, req, rest) = (mapping(1, 3, A, N), mapping(0, 2, B, M), mapping(2, 3, A, N + 1));
    map(&[old], req, &[remap(old, false, None, Some(rest))], &[req, rest]);
}

/// The mirror image of case 10, which the comment does not draw.
#[test]
fn request_continues_into_old() {
    let (old, req, rest) = (mapping(1, 3, A, N + 1), mapping(0, 2, A, N), mapping(2, 3, A, N + 2));
    map(&[old], req, &[remap(old, true, None, Some(rest))], &[req, rest]);
}

#[test]
fn many_mappings_give_at_most_two_remaps() {
    let old = [mapping(0, 2, A, N), mapping(2, 3, B, M), null(3, 4), mapping(5, 8, A, N + 5)];
    let req = mapping(1, 6, A, N + 1);
    let (prev, next) = (mapping(0, 1, A, N), mapping(6, 8, A, N + 6));
    let steps = [
        remap(old[0], true, Some(prev), None),
        unmap(old[1], false),
        unmap(old[2], false),
        remap(old[3], true, None, Some(next)),
    ];
    map(&old, req, &steps, &[prev, req, next]);
}

/// `keep` needs an object: a null mapping over a null mapping does not have it.
#[test]
fn null_mappings_are_split_but_never_kept() {
    let old = null(0, 3);
    let steps = [remap(old, false, Some(null(0, 1)), Some(null(2, 3)))];
    map(&[old], null(1, 2), &steps, &[null(0, 1), null(1, 2), null(2, 3)]);
    map(&[old], mapping(1, 2, A, N), &steps, &[null(0, 1), mapping(1, 2, A, N), null(2, 3)]);
    map(&[old], old, &[unmap(old, false)], &[old]);
}

#[test]
fn neighbours_are_neither_touched_nor_merged() {
    let (old, req) = ([mapping(0, 1, A, N), mapping(2, 3, A, N + 2)], mapping(1, 2, A, N + 1));
    map(&old, req, &[], &[old[0], req, old[1]]);
}

#[test]
fn offsets_wrap() {
    let (old, last) = (mapping(0, 2, A, 0), u64::MAX - PAGE + 1);
    let first = Mapping { range: old.range, target: Target::Object { object: A, offset: last } };
    let (req, rest) = (mapping(0, 1, B, M), mapping(1, 2, A, 0));
    map(&[first], req, &[remap(first, false, None, Some(rest))], &[req, rest]);
}

#[test]
fn unmap_splits_and_never_keeps() {
    let old = [mapping(0, 2, A, N), mapping(2, 3, B, M), null(4, 7)];
    let (prev, next) = (mapping(0, 1, A, N), null(5, 7));
    let steps = [
        remap(old[0], false, Some(prev), None),
        unmap(old[1], false),
        remap(old[2], false, None, Some(next)),
    ];
    unmap_range(&old, 1, 5, &steps, &[prev, next]);

    let whole = mapping(0, 4, A, N);
    let pieces = [mapping(0, 1, A, N), mapping(3, 4, A, N + 3)];
    unmap_range(&[whole], 1, 3, &[remap(whole, false, Some(pieces[0]), Some(pieces[1]))], &pieces);
    unmap_range(&[whole], 0, 4, &[unmap(whole, false)], &[]);
    unmap_range(&[whole], 4, 9, &[], &[whole]);
}

//! What is refused, and that a refusal comes before any step and leaves everything as it was.

use gpuvm::{Op, OpKind, Planner, Policy, Target, VaRange, Vm, VmError};

const PAGE: u64 = 0x1000;

/// A range that [`VaRange::new`] might refuse.
const fn raw(start: u64, len: u64) -> VaRange {
    VaRange { start, len }
}

#[test]
fn the_vm_refuses_before_any_step() {
    let (all, reserved) = (raw(0x10 * PAGE, 0x100 * PAGE), raw(0x80 * PAGE, 0x10 * PAGE));
    let mut vm = Vm::<u32>::new(all, Some(reserved)).unwrap();
    let object = Target::Object { object: 1, offset: 0 };
    vm.sm_map(raw(0x10 * PAGE, 0x70 * PAGE), object, &mut |_| {}).unwrap();
    vm.sm_map(raw(0x90 * PAGE, 0x80 * PAGE), Target::Null, &mut |_| {}).unwrap();
    let before: Vec<_> = vm.iter().collect();

    let out = |range| (range, VmError::OutOfRange { range, vm: all });
    let taken = |range| (range, VmError::Reserved { range, reserved });
    let refused = [
        (raw(0x20 * PAGE, 0), VmError::Empty { start: 0x20 * PAGE }),
        (raw(0, 0), VmError::Empty { start: 0 }),
        (raw(u64::MAX, 1), VmError::Overflow { start: u64::MAX, len: 1 }),
        (raw(0x20 * PAGE, u64::MAX), VmError::Overflow { start: 0x20 * PAGE, len: u64::MAX }),
        out(raw(0xf * PAGE, PAGE)),
        out(raw(0xf * PAGE, 2 * PAGE)),
        out(raw(0x10f * PAGE, 2 * PAGE)),
        out(raw(0x110 * PAGE, PAGE)),
        out(raw(0, u64::MAX)),
        taken(reserved),
        taken(raw(0x7f * PAGE, 2 * PAGE)),
        taken(raw(0x8f * PAGE, 2 * PAGE)),
        taken(raw(0x84 * PAGE, PAGE)),
        taken(all),
    ];
    for (range, error) in refused {
        assert_eq!(vm.check(range), Err(error.clone()));
        assert_eq!(vm.sm_map(range, object, &mut |step| panic!("{step:?}")), Err(error.clone()));
        assert_eq!(vm.sm_unmap(range, &mut |step| panic!("{step:?}")), Err(error.clone()));
        for kind in [OpKind::Map { object: 1, offset: 0 }, OpKind::Null, OpKind::Unmap] {
            assert_eq!(vm.apply(&Op { range, kind }), Err(error.clone()));
        }
    }
    assert_eq!(vm.iter().collect::<Vec<_>>(), before);
    assert_eq!(vm.check(raw(0x7f * PAGE, PAGE)), Ok(()));
    assert_eq!(vm.check(raw(0x90 * PAGE, PAGE)), Ok(()));
    assert_eq!(vm.check(raw(0x10f * PAGE, PAGE)), Ok(()));
}

#[test]
fn a_vm_needs_valid_ranges() {
    assert_eq!(Vm::<u32>::new(raw(1, 0), None).unwrap_err(), VmError::Empty { start: 1 });
    let over = VmError::Overflow { start: 2, len: u64::MAX };
    assert_eq!(Vm::<u32>::new(raw(2, u64::MAX), None).unwrap_err(), over);
    assert_eq!(Vm::<u32>::new(raw(0, 4), Some(raw(2, u64::MAX))).unwrap_err(), over);
}

#[test]
fn the_largest_vm_works_to_its_ends() {
    let mut vm = Vm::<u32>::new(raw(0, u64::MAX), None).unwrap();
    for range in [raw(0, 1), raw(u64::MAX - 1, 1)] {
        vm.sm_map(range, Target::Null, &mut |_| {}).unwrap();
    }
    assert_eq!(vm.find(0).unwrap().range, raw(0, 1));
    assert_eq!(vm.find(u64::MAX - 1).unwrap().range, raw(u64::MAX - 1, 1));
    assert_eq!((vm.find(u64::MAX), vm.find(1)), (None, None));
    assert_eq!(vm.iter_range(raw(1, u64::MAX - 1)).count(), 1);
    vm.sm_unmap(raw(0, u64::MAX), &mut |_| {}).unwrap();
    assert!(vm.is_empty());
}

#[test]
fn the_planner_refuses_wants_one_by_one() {
    let vm = Vm::<u32>::new(raw(0, 1 << 40), None).unwrap();
    let mut planner = Planner::new(Policy::default());
    let map = |offset| OpKind::Map { object: 1, offset };
    let misaligned = |value| VmError::Misaligned { value, page_size: PAGE };
    let top = u64::MAX - PAGE + 1;
    planner.want(raw(PAGE, PAGE), map(0)).unwrap();
    let refused = [
        (raw(PAGE, 0), map(0), VmError::Empty { start: PAGE }),
        (raw(top, PAGE), OpKind::Unmap, VmError::Overflow { start: top, len: PAGE }),
        (raw(1, PAGE), map(0), misaligned(1)),
        (raw(PAGE, PAGE + 2), OpKind::Null, misaligned(PAGE + 2)),
        (raw(PAGE, PAGE), map(0x800), misaligned(0x800)),
    ];
    for (range, kind, error) in refused {
        assert_eq!(planner.want(range, kind), Err(error), "{range} {kind:?}");
    }
    planner.want(raw(2 * PAGE, PAGE), map(PAGE)).unwrap();
    let plan = planner.plan(&vm);
    assert_eq!((plan.ops(), plan.wanted), (&[Op { range: raw(PAGE, 2 * PAGE), kind: map(0) }][..], 2));

    planner.want(raw(PAGE, PAGE), map(0)).unwrap();
    planner.clear();
    let plan = planner.plan(&vm);
    assert!(plan.is_empty() && plan.wanted == 0 && plan.chunks().next().is_none());
}

#[test]
fn errors_say_what_and_where() {
    let error = VmError::Reserved { range: raw(0x1000, 0x1000), reserved: raw(0, 0x2000) };
    assert_eq!(error.to_string(), "[0x1000, 0x2000) touches the reserved [0x0, 0x2000)");
}

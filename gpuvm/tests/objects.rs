//! The life of a `vm_bo`: references, zombies, the driver's data; external and evicted objects; the two modes.

use std::cell::RefCell;
use std::rc::Rc;

use gpuvm::{
    Contended, Driver, Exec, Fence, Immediate, Mapping, Op, OpKind, Reservation, Staged, Step, Target, Usage,
    VaRange, Vm, VmError,
};

const PAGE: u64 = 0x1000;

fn pages(start: u64, end: u64) -> VaRange {
    VaRange::between(start * PAGE, end * PAGE).unwrap()
}

fn object(object: u32) -> Target<u32> {
    Target::Object { object, offset: 0 }
}

fn map(start: u64, end: u64, object: u32) -> Op<u32> {
    Op { range: pages(start, end), kind: OpKind::Map { object, offset: 0 } }
}

fn unmap(start: u64, end: u64) -> Op<u32> {
    Op { range: pages(start, end), kind: OpKind::Unmap }
}

thread_local! {
    static FREED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Says when it is dropped, once it has a name.
#[derive(Debug, Default)]
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            FREED.with_borrow_mut(|freed| freed.push(self.0));
        }
    }
}

fn freed() -> Vec<&'static str> {
    FREED.take()
}

struct Tracked;

impl Driver for Tracked {
    type Mode = Immediate;
    type BoData = Named;
    type VaData = ();
}

fn tracked() -> Vm<u32, Tracked> {
    Vm::with_driver(pages(0, 1000), None).unwrap()
}

#[test]
fn the_last_put_makes_a_zombie_that_a_rebind_does_not_wake() {
    let mut vm = tracked();
    vm.apply(&map(0, 4, 1)).unwrap();
    vm.bo_data_mut(1).unwrap().0 = "first";
    vm.apply(&map(1, 2, 2)).unwrap();
    assert_eq!(vm.bo(1).unwrap().references(), 2);
    vm.apply(&unmap(0, 1)).unwrap();
    assert_eq!(vm.bo(1).unwrap().data().0, "first");

    vm.apply(&unmap(2, 4)).unwrap();
    assert!(vm.bo(1).is_none() && vm.find_bo(1).is_none());
    assert!(freed().is_empty(), "not in the critical path");
    vm.apply(&map(2, 4, 1)).unwrap();
    assert_eq!(vm.bo(1).unwrap().data().0, "", "a new one");
    vm.deferred_cleanup();
    assert_eq!(freed(), ["first"]);
    assert_eq!(vm.bo(1).unwrap().mappings().count(), 1);
}

#[test]
fn a_handle_keeps_its_object_and_dies_anywhere() {
    let mut vm = tracked();
    let handle = vm.obtain(7);
    vm.bo_data_mut(7).unwrap().0 = "seven";
    vm.apply(&map(0, 1, 7)).unwrap();
    vm.apply(&unmap(0, 1)).unwrap();
    vm.deferred_cleanup();
    assert_eq!((vm.bo(7).unwrap().references(), handle.object()), (1, 7));
    let again = vm.find_bo(7).unwrap();
    assert_eq!(vm.bo(7).unwrap().references(), 2);
    std::thread::scope(|scope| {
        scope.spawn(move || drop((handle, again)));
    });
    assert!(vm.bo(7).is_none(), "a zombie, though the VM has not heard of it");
    let new = vm.obtain(7);
    vm.deferred_cleanup();
    assert_eq!(freed(), ["seven"]);
    assert_eq!(vm.bo(7).unwrap().references(), 1);
    drop(new);
    vm.deferred_cleanup();
    assert!(vm.bo(7).is_none());
}

#[test]
fn threads_drop_handles_while_the_vm_maps() {
    let mut vm = Vm::<u32>::new(pages(0, 1000), None).unwrap();
    let rounds = if cfg!(miri) { 20 } else { 2000 };
    std::thread::scope(|scope| {
        let (send, receive) = std::sync::mpsc::channel();
        scope.spawn(move || receive.into_iter().for_each(drop));
        for round in 0..rounds {
            send.send(vm.obtain(round % 3)).unwrap();
            vm.apply(&map(u64::from(round % 5), 6, round % 3)).unwrap();
            if round % 4 == 0 {
                vm.apply(&unmap(0, 6)).unwrap();
            }
            if round % 16 == 0 {
                vm.deferred_cleanup();
            }
        }
        drop(send);
    });
    vm.apply(&unmap(0, 6)).unwrap();
    vm.deferred_cleanup();
    assert!((0..3).all(|object| vm.bo(object).is_none()));
}

#[test]
fn what_was_allocated_before_is_used_or_dropped() {
    let mut vm = tracked();
    let (one, two) = (vm.prealloc(1, Named("one")), vm.prealloc(1, Named("two")));
    let first = vm.obtain_prealloc(one).unwrap();
    assert!(freed().is_empty());
    let second = vm.obtain_prealloc(two).unwrap();
    assert_eq!(freed(), ["two"], "there was one already");
    assert_eq!((vm.bo(1).unwrap().references(), vm.bo(1).unwrap().data().0), (2, "one"));
    drop((first, second));
    vm.deferred_cleanup();
    assert_eq!(freed(), ["one"]);

    // One that has mappings and no handle yet.
    vm.apply(&map(0, 1, 3)).unwrap();
    let three = vm.prealloc(3, Named("three"));
    let handle = vm.obtain_prealloc(three).unwrap();
    assert_eq!(freed(), ["three"]);
    assert_eq!(vm.bo(3).unwrap().references(), 2);
    drop(handle);
    assert_eq!(vm.bo(3).unwrap().references(), 1);

    let mut other = tracked();
    let foreign = other.prealloc(1, Named::default());
    assert_eq!(vm.obtain_prealloc(foreign).unwrap_err(), VmError::OtherVm);
}

/// The variant that defers the mapping's own resources.
struct Deferring;

impl Driver for Deferring {
    type Mode = Immediate;
    type BoData = Named;
    type VaData = Named;
    const DEFER_MAPPINGS: bool = true;
}

#[test]
fn the_data_of_mappings_can_outlive_them() {
    let mut vm = Vm::<u32, Deferring>::with_driver(pages(0, 1000), None).unwrap();
    for (page, name) in [(0, "a"), (2, "b"), (4, "c")] {
        vm.apply(&map(page, page + 2, 1)).unwrap();
        vm.va_data_mut(page * PAGE).unwrap().0 = name;
    }
    vm.bo_data_mut(1).unwrap().0 = "object";
    // b goes, a and c are cut short, which replaces them as the kernel's remap does.
    vm.apply(&unmap(1, 5)).unwrap();
    assert_eq!(vm.iter().map(|mapping| mapping.range).collect::<Vec<_>>(), [pages(0, 1), pages(5, 6)]);
    assert_eq!((vm.bo(1).unwrap().mappings().count(), vm.bo(1).unwrap().references()), (2, 5));
    assert_eq!(vm.va_data(0).unwrap().0, "");
    vm.va_data_mut(5 * PAGE).unwrap().0 = "d";
    // Replaced in place: the object keeps a reference of what has gone.
    vm.apply(&map(5, 6, 2)).unwrap();
    vm.apply(&unmap(0, 1)).unwrap();
    assert_eq!(vm.bo(1).unwrap().mappings().count(), 0);
    assert_eq!(freed(), Vec::<&str>::new());
    vm.deferred_cleanup();
    let mut all = freed();
    all.sort_unstable();
    assert_eq!(all, ["a", "b", "c", "d", "object"]);
    assert!(vm.bo(1).is_none());
    assert_eq!(vm.bo(2).unwrap().references(), 1);
}

#[test]
fn what_is_left_of_a_mapping_has_data_of_it() {
    struct Counting<const DEFER: bool>;
    impl<const DEFER: bool> Driver for Counting<DEFER> {
        type Mode = Immediate;
        type BoData = ();
        type VaData = u32;
        const DEFER_MAPPINGS: bool = DEFER;
        fn remapped(data: &u32) -> u32 {
            data + 1
        }
    }
    fn check<const DEFER: bool>(left: u32) {
        let mut vm = Vm::<u32, Counting<DEFER>>::with_driver(pages(0, 1000), None).unwrap();
        for (page, data) in [(0, 10), (4, 20)] {
            vm.apply(&map(page, page + 4, 1)).unwrap();
            *vm.va_data_mut(page * PAGE).unwrap() = data;
        }
        // Out of the middle of one mapping, from its start, and what is left of two.
        vm.apply(&map(1, 2, 2)).unwrap();
        vm.apply(&unmap(4, 5)).unwrap();
        let data = |vm: &Vm<u32, Counting<DEFER>>, page: u64| *vm.va_data(page * PAGE).unwrap();
        assert_eq!([0, 1, 2, 5].map(|page| data(&vm, page)), [10 + left, 0, 11, 21]);
        vm.apply(&map(3, 6, 2)).unwrap();
        assert_eq!([2, 3, 6].map(|page| data(&vm, page)), [11 + left, 0, 22]);
    }
    check::<false>(0);
    check::<true>(1);
}

#[test]
fn data_stays_with_its_mapping_when_memory_is_given_back() {
    struct Numbered;
    impl Driver for Numbered {
        type Mode = Immediate;
        type BoData = ();
        type VaData = u64;
    }
    let mut vm = Vm::<u32, Numbered>::with_driver(pages(0, 10_000), None).unwrap();
    for page in 0..4000 {
        let kind = if page % 3 == 0 { OpKind::Null } else { map(0, 1, page as u32 % 3).kind };
        vm.apply(&Op { range: pages(page, page + 1), kind }).unwrap();
        *vm.va_data_mut(page * PAGE).unwrap() = page;
    }
    for page in (0..4000).filter(|page| page % 7 != 0) {
        vm.apply(&unmap(page, page + 1)).unwrap();
    }
    let before = vm.memory_bytes();
    vm.deferred_cleanup();
    assert!(vm.memory_bytes() < before);
    assert!((0..4000).step_by(7).all(|page| vm.va_data(page * PAGE) == Some(&page)));
    for object in 1..3 {
        let of_object = |page: &u64| page % 7 == 0 && page % 3 == u64::from(object);
        assert_eq!(vm.bo(object).unwrap().mappings().count(), (0..4000).filter(of_object).count());
    }
}

#[test]
fn single_mappings_and_lists() {
    let mut vm = Vm::<u32>::new(pages(0, 1000), None).unwrap();
    let first = Mapping { range: pages(2, 4), target: object(1) };
    vm.insert(first).unwrap();
    let over = Mapping { range: pages(3, 6), target: Target::Null };
    let occupied = VmError::Occupied { range: over.range, mapped: first.range };
    assert_eq!(vm.insert(over), Err(occupied));
    let out = Mapping { range: pages(999, 1001), target: Target::Null };
    assert!(matches!(vm.insert(out), Err(VmError::OutOfRange { .. })));
    assert_eq!((vm.remove(3 * PAGE), vm.len()), (None, 1));
    vm.insert(Mapping { range: pages(8, 9), target: object(1) }).unwrap();
    vm.insert(Mapping { range: pages(9, 10), target: object(2) }).unwrap();
    assert_eq!(vm.prefetch_ops(pages(3, 9)).unwrap().len(), 2);

    let list = vm.map_ops(pages(3, 5), object(3)).unwrap();
    assert!(matches!(list.steps(), [Step::Remap { .. }, Step::Map(_)]));
    drop(list);
    assert_eq!(vm.find(3 * PAGE), Some(first), "an abandoned list does nothing");

    let list = vm.object_unmap_ops(1);
    assert_eq!((list.steps().len(), list.vm().len()), (2, 3));
    list.commit();
    assert!(vm.bo(1).is_none());
    assert_eq!(vm.remove(9 * PAGE).unwrap().target, object(2));
    assert!(vm.is_empty() && vm.object_unmap_ops(2).steps().is_empty());
}

#[test]
fn an_unusable_vm_unmaps_and_says_why() {
    let mut vm = Vm::<u32>::new(pages(0, 1000), None).unwrap();
    let job = vm.prepare([map(0, 2, 1), map(2, 4, 1), unmap(0, 1)]).unwrap();
    let later = vm.prepare([map(8, 9, 1)]).unwrap();
    let mut running = vm.begin(job).unwrap();
    running.next().unwrap().complete(|_| {}).unwrap();
    running.next().unwrap().fail("the page tables are broken");
    assert_eq!(running.done(), 1);
    running.finish();
    let reason = VmError::Unusable { reason: "the page tables are broken".into() };
    assert_eq!(reason.to_string(), "the VM is unusable: the page tables are broken");
    vm.mark_unusable("a consequence");
    assert_eq!(vm.unusable(), Some("the page tables are broken"));
    assert_eq!(vm.apply(&map(4, 5, 1)), Err(reason.clone()));
    assert_eq!(vm.insert(Mapping { range: pages(4, 5), target: Target::Null }), Err(reason.clone()));
    assert_eq!(vm.prepare([map(4, 5, 1)]).unwrap_err(), reason);
    assert_eq!(vm.commit(later).unwrap_err(), reason);
    vm.apply(&unmap(0, 1)).unwrap();
    let job = vm.prepare([unmap(0, 4)]).unwrap();
    vm.commit(job).unwrap();
    assert!(vm.is_empty());
}

#[test]
fn a_job_is_done_by_the_vm_that_prepared_it() {
    let (mut one, mut two) =
        (Vm::<u32>::new(pages(0, 1000), None).unwrap(), Vm::<u32>::new(pages(0, 1000), None).unwrap());
    let job = one.prepare([map(0, 1, 1)]).unwrap();
    assert_eq!(two.commit(job).unwrap_err(), VmError::OtherVm);
    assert!(one.is_empty() && two.is_empty() && one.bo(1).is_none());
}

#[test]
fn the_log_has_every_update() {
    let mut vm = Vm::<u32>::new(pages(0, 1000), None).unwrap();
    let log = vm.log(2);
    vm.apply(&map(0, 8, 1)).unwrap();
    vm.set_queue(3);
    vm.apply(&Op { range: pages(1, 2), kind: OpKind::Null }).unwrap();
    let job = vm.prepare([unmap(0, 1), unmap(5, 6), map(0, 1, 2)]).unwrap();
    vm.commit_first(job, 2).unwrap();
    let entries = log.read();
    let seen: Vec<_> = entries.iter().map(|entry| (entry.queue, entry.op, entry.range)).collect();
    use gpuvm::LogOp::{Map, MapNull, Unmap};
    let expected =
        [(0, Map, pages(0, 8)), (3, MapNull, pages(1, 2)), (3, Unmap, pages(0, 1)), (3, Unmap, pages(5, 6))];
    assert_eq!(seen, expected);
}

fn lock<O: Copy + Eq, D: Driver>(vm: &Vm<O, D>) -> Exec {
    Exec::until_all_locked::<_, Contended>(|locking| vm.lock_all(locking)).unwrap().0
}

#[test]
fn a_staged_vm_changes_under_the_locks_of_what_it_touches() {
    let mut vm = Vm::<u32, Staged>::staged(pages(0, 1000), None).unwrap();
    let shared = Reservation::new();
    let handle = vm.obtain(1);
    vm.set_reservation(1, &shared).unwrap();
    assert_eq!(vm.set_reservation(9, &shared), Err(VmError::UnknownObject));
    assert_eq!(vm.external().map(|bo| bo.object()).collect::<Vec<_>>(), [1]);
    assert!(vm.bo(1).unwrap().is_external() && *vm.bo(1).unwrap().reservation() == shared);

    let (nothing, ()) = Exec::until_all_locked(|_| Ok::<_, Contended>(())).unwrap();
    assert_eq!(vm.update(&nothing).err(), Some(VmError::NotLocked));
    drop(nothing);

    let ops = [map(0, 2, 2), map(4, 6, 1), unmap(5, 6)];
    let only_vm =
        Exec::until_all_locked::<_, Contended>(|locking| locking.lock(&vm.reservation().clone())).unwrap().0;
    let mut update = vm.update(&only_vm).unwrap();
    update.sm_map(pages(8, 9), object(2), &mut |_| {}).unwrap();
    assert_eq!(update.prepare(&ops).err(), Some(VmError::NotLocked));
    assert_eq!(vm.len(), 1);
    drop(only_vm);

    let (exec, ()) = Exec::until_all_locked::<_, Contended>(|locking| vm.lock_ops(locking, &ops)).unwrap();
    assert_eq!(exec.iter().len(), 2);
    let mut steps = 0;
    vm.update(&exec).unwrap().prepare(&ops).unwrap().commit_steps(ops.len(), &mut |_| steps += 1);
    assert_eq!((steps, vm.len()), (3, 3));
    drop(exec);

    // The objects of a range.
    let locked = |vm: &Vm<u32, Staged>, range| {
        Exec::until_all_locked::<_, Contended>(|locking| vm.lock_range(locking, range)).unwrap().0
    };
    assert_eq!(locked(&vm, pages(0, 4)).iter().len(), 1);
    let exec = locked(&vm, pages(0, 5));
    assert_eq!(exec.iter().len(), 2);
    let (signal, fence) = Fence::new();
    vm.attach(&exec, &fence, Usage::Bookkeep, Usage::Write);
    assert_eq!((shared.fences(Usage::Write).len(), vm.reservation().fences(Usage::Write).len()), (1, 0));
    assert_eq!(vm.reservation().fences(Usage::Bookkeep).len(), 1);
    signal.signal();

    // Without a reference nothing waits for a clean-up.
    let mut update = vm.update(&exec).unwrap();
    assert_eq!(update.map_ops(pages(0, 1), object(3)).unwrap().steps().len(), 2);
    update.object_unmap_ops(1).unwrap().commit();
    assert_eq!(update.vm().bo(1).unwrap().references(), 1);
    drop(handle);
    update.insert(Mapping { range: pages(20, 21), target: Target::Null }).unwrap();
    assert!(update.vm().bo(1).is_none() && update.vm().external().next().is_none());
    assert_eq!(update.remove(20 * PAGE).unwrap().unwrap().range, pages(20, 21));
    assert_eq!(update.unmap_ops(pages(0, 1000)).unwrap().commit().len(), 2);
    assert!(vm.is_empty() && vm.bo(2).is_none());
}

#[test]
fn staged_mode_frees_at_once() {
    #[derive(Debug, Default)]
    struct Counted(Option<Rc<()>>);
    struct Counting;
    impl Driver for Counting {
        type Mode = Staged;
        type BoData = Counted;
        type VaData = ();
    }
    let mut vm = Vm::<u32, Counting>::with_driver(pages(0, 1000), None).unwrap();
    let exec = lock(&vm);
    let alive = Rc::new(());
    let mut update = vm.update(&exec).unwrap();
    update.sm_map(pages(0, 4), object(1), &mut |_| {}).unwrap();
    vm.bo_data_mut(1).unwrap().0 = Some(Rc::clone(&alive));
    vm.update(&exec).unwrap().sm_unmap(pages(0, 3), &mut |_| {}).unwrap();
    assert_eq!((Rc::strong_count(&alive), vm.bo(1).unwrap().data().0.is_some()), (2, true));
    vm.update(&exec).unwrap().sm_unmap(pages(3, 4), &mut |_| {}).unwrap();
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn the_evicted_are_validated_under_their_locks() {
    let mut vm = Vm::<u32>::new(pages(0, 1000), None).unwrap();
    let shared = Reservation::new();
    let _handle = vm.obtain(1);
    vm.set_reservation(1, &shared).unwrap();
    for number in 1..4u32 {
        vm.apply(&map(u64::from(number), u64::from(number) + 1, number)).unwrap();
    }
    let exec = lock(&vm);
    for number in 1..4 {
        vm.evict(&exec, number, true).unwrap();
    }
    vm.evict(&exec, 3, false).unwrap();
    assert_eq!(vm.evict(&exec, 4, true), Err(VmError::UnknownObject));
    drop(exec);
    let (other, ()) = Exec::until_all_locked(|_| Ok::<_, Contended>(())).unwrap();
    assert_eq!(vm.evict(&other, 1, false), Err(VmError::NotLocked));
    assert_eq!(vm.validate(&other, |_| Ok(true)), Err(VmError::NotLocked));
    drop(other);

    let exec = lock(&vm);
    let mut gone = Vec::new();
    vm.validate(&exec, |bo| {
        gone.extend(bo.mappings().map(|mapping| Op { range: mapping.range, kind: OpKind::Null }));
        // The memory of one is back.
        Ok::<_, VmError>(bo.object() == 1)
    })
    .unwrap();
    assert_eq!(gone.len(), 2);
    assert!(vm.evicted().map(|bo| bo.object()).eq([2]), "its mappings are still there");
    let job = vm.prepare(gone).unwrap();
    vm.commit(job).unwrap();
    vm.deferred_cleanup();
    assert!(vm.bo(2).is_none() && vm.evicted().next().is_none());
    assert_eq!(vm.bo(1).unwrap().references(), 1, "the handle");
}

#[test]
fn a_list_replaces_the_last_mapping_of_an_object_without_losing_it() {
    let mut vm = tracked();
    vm.apply(&map(0, 2, 1)).unwrap();
    vm.bo_data_mut(1).unwrap().0 = "kept";
    vm.map_ops(pages(0, 2), object(1)).unwrap().commit();
    vm.apply(&map(0, 2, 1)).unwrap();
    vm.apply(&map(0, 4, 1)).unwrap();
    vm.deferred_cleanup();
    assert!(freed().is_empty());
    assert_eq!((vm.bo(1).unwrap().data().0, vm.bo(1).unwrap().references()), ("kept", 1));
}

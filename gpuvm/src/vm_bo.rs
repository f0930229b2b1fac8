//! One object in one VM: the `drm_gpuvm_bo` of the kernel.

use core::fmt;
use core::hash::{BuildHasher, Hash};
use core::mem::size_of;
use std::sync::Arc;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::Reservation;
use crate::sync::{AtomicU32, Ordering};
use crate::vm_job::Claim;
use crate::zombies::{ZombieLink, Zombies};

/// No index of this kind: no object behind a mapping, no more entries in a list.
pub(crate) const NONE: u32 = u32::MAX;

/// A reference to a `vm_bo`, the combination of a [`Vm`](crate::Vm) and an object: while one is held, look-ups from
/// the object find the same `vm_bo` with the same [data](crate::Driver::BoData), whether anything of the object is
/// mapped or not. Each mapping holds such a reference too.
///
/// It is had from [`Vm::obtain`](crate::Vm::obtain) and may be dropped on any thread, without the VM's lock. Where it
/// was the last one the `vm_bo` becomes a zombie: `drm_gpuvm_bo_put_deferred()`.
pub struct VmBo<O> {
    shared: Arc<Shared<O>>,
}

/// The part of a `vm_bo` that is reached without the VM; made when the first [`VmBo`] is.
struct Shared<O> {
    object: O,
    index: u32,
    /// Number of [`VmBo`]s, and one more while there are mappings. What has come to 0 stays there.
    references: AtomicU32,
    link: ZombieLink,
    zombies: Arc<Zombies>,
}

impl<O> Shared<O> {
    /// `kref_get_unless_zero()`.
    fn try_get(&self) -> bool {
        let more = |count| (count > 0).then_some(count + 1);
        self.references.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// `kref_put()`: whether that was the last one.
    fn put(&self) -> bool {
        self.references.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

impl<O: Copy> VmBo<O> {
    /// The object.
    pub fn object(&self) -> O {
        self.shared.object
    }
}

impl<O> Clone for VmBo<O> {
    /// `drm_gpuvm_bo_get()`.
    fn clone(&self) -> Self {
        self.shared.references.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<O> Drop for VmBo<O> {
    fn drop(&mut self) {
        if self.shared.put() {
            self.shared.zombies.push(self.shared.index, &self.shared.link);
        }
    }
}

impl<O: fmt::Debug> fmt::Debug for VmBo<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VmBo").field(&self.shared.object).finish()
    }
}

/// Memory for a `vm_bo`, for [`Vm::obtain_prealloc`](crate::Vm::obtain_prealloc).
pub struct VmBoAlloc<O, B> {
    shared: Arc<Shared<O>>,
    data: B,
    /// Keeps the room in the VM's tables.
    _claim: Claim,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Has references, or is a zombie by now.
    Used,
    /// Is what the object's next `vm_bo` will be, unless another object takes it before.
    Free,
}

/// A place of the slab.
#[derive(Debug)]
pub(crate) struct Slot<O, B> {
    /// The first of the object's mappings.
    pub(crate) first: u32,
    /// Number of mappings that hold a reference.
    pub(crate) mappings: u32,
    state: State,
    /// The next in the list of the dead.
    next_dead: u32,
    /// The next in the list of the free. One that came back to life for its old object stays in the list until it
    /// is taken from there.
    next_free: u32,
    in_free: bool,
    /// Places in the lists of external and of evicted objects.
    external: u32,
    evicted: u32,
    shared: Option<Arc<Shared<O>>>,
    /// That of an external object; private ones share the VM's.
    pub(crate) reservation: Option<Reservation>,
    pub(crate) data: B,
}

impl<O> fmt::Debug for Shared<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("references", &self.references).finish_non_exhaustive()
    }
}

impl<O, B> Slot<O, B> {
    /// Takes a reference if there is a handle that has one.
    fn try_get(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.try_get())
    }

    /// Whether the last reference is gone: `drm_gpuvm_bo_is_zombie()`.
    fn is_zombie(&self) -> bool {
        self.mappings == 0
            && self.shared.as_ref().is_none_or(|shared| shared.references.load(Ordering::Acquire) == 0)
    }
}

/// All objects of a VM.
#[derive(Debug)]
pub(crate) struct Bos<O, B> {
    /// The objects, apart from what else a place has: the tree's walks want no more.
    objects: Vec<O>,
    slots: Vec<Slot<O, B>>,
    /// From the object to its slot.
    table: HashTable<u32>,
    /// The slot that was wanted last.
    last: u32,
    free: u32,
    /// What died under the VM's lock; what dies elsewhere is on `zombies`.
    dead: u32,
    zombies: Arc<Zombies>,
    external: Vec<u32>,
    evicted: Vec<u32>,
}

fn hash<O: Hash>(object: O) -> u64 {
    FxBuildHasher.hash_one(object)
}

impl<O: Copy + Eq, B> Bos<O, B> {
    pub(crate) fn new() -> Self {
        Self {
            objects: Vec::new(),
            slots: Vec::new(),
            table: HashTable::new(),
            last: NONE,
            free: NONE,
            dead: NONE,
            zombies: Arc::new(Zombies::new()),
            external: Vec::new(),
            evicted: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn slot(&self, index: u32) -> &Slot<O, B> {
        &self.slots[index as usize]
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self, index: u32) -> &mut Slot<O, B> {
        &mut self.slots[index as usize]
    }

    /// The objects by index.
    #[inline]
    pub(crate) fn objects(&self) -> &[O] {
        &self.objects
    }

    #[inline]
    pub(crate) fn object(&self, index: u32) -> O {
        self.objects[index as usize]
    }

    /// References held by mappings and by [`VmBo`]s.
    pub(crate) fn references(&self, index: u32) -> usize {
        let slot = self.slot(index);
        let shared = slot.shared.as_ref().map_or(0, |shared| shared.references.load(Ordering::Relaxed));
        // All mappings share one of those.
        (slot.mappings + shared) as usize - usize::from(slot.mappings > 0 && slot.shared.is_some())
    }

    pub(crate) fn evicted(&self) -> impl Iterator<Item = u32> + '_ {
        self.evicted.iter().copied().filter(|&index| !self.slot(index).is_zombie())
    }

    pub(crate) fn external(&self) -> impl Iterator<Item = u32> + '_ {
        self.external.iter().copied().filter(|&index| !self.slot(index).is_zombie())
    }

    /// Whether any object may be external.
    pub(crate) fn has_external(&self) -> bool {
        !self.external.is_empty()
    }

    /// The reservation of an external object; none for `NONE` and for private ones.
    pub(crate) fn external_reservation(&self, index: u32) -> Option<&Reservation> {
        self.slots.get(index as usize)?.reservation.as_ref()
    }

    pub(crate) fn is_evicted(&self, index: u32) -> bool {
        self.slot(index).evicted != NONE
    }

    /// `drm_gpuvm_bo_evict()`: `drm_gpuvm_bo_list_add()` and `drm_gpuvm_bo_list_del_init()`.
    pub(crate) fn set_evicted(&mut self, index: u32, evicted: bool) {
        set_listed(&mut self.slots, &mut self.evicted, index, evicted, |slot| &mut slot.evicted);
    }

    /// `drm_gpuvm_bo_extobj_add()`, and taking it off again.
    pub(crate) fn set_external(&mut self, index: u32, external: bool) {
        set_listed(&mut self.slots, &mut self.external, index, external, |slot| &mut slot.external);
    }

    /// Bytes on the heap.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.objects.capacity() * size_of::<O>()
            + self.slots.capacity() * size_of::<Slot<O, B>>()
            + self.table.allocation_size()
            + (self.external.capacity() + self.evicted.capacity()) * size_of::<u32>()
            + size_of::<Zombies>()
            + 2 * size_of::<usize>()
    }
}

/// Puts a slot on a list or takes it off; `place` is where the slot notes its place in the list. Taking off never
/// allocates, and putting on does not for what is off again by then.
#[inline]
fn set_listed<O, B>(
    slots: &mut [Slot<O, B>],
    list: &mut Vec<u32>,
    index: u32,
    listed: bool,
    place: impl Fn(&mut Slot<O, B>) -> &mut u32,
) {
    let at = *place(&mut slots[index as usize]);
    if listed == (at != NONE) {
        return;
    }
    if listed {
        *place(&mut slots[index as usize]) = list.len() as u32;
        list.push(index);
        return;
    }
    list.swap_remove(at as usize);
    if let Some(&moved) = list.get(at as usize) {
        *place(&mut slots[moved as usize]) = at;
    }
    *place(&mut slots[index as usize]) = NONE;
}

impl<O: Copy + Eq + Hash, B: Default> Bos<O, B> {
    /// The place of an object: its `vm_bo`, its latest zombie, or a free slot that it had.
    #[inline]
    fn place(&self, object: O) -> Option<u32> {
        self.table.find(hash(object), |&index| self.object(index) == object).copied()
    }

    /// The live `vm_bo` of an object: `drm_gpuvm_bo_find()`, without taking a reference.
    pub(crate) fn find(&self, object: O) -> Option<u32> {
        self.place(object).filter(|&index| !self.slot(index).is_zombie())
    }

    /// The `vm_bo` of an object, made where there is none, for a mapping that comes to it at once.
    #[inline]
    pub(crate) fn obtain(&mut self, object: O) -> u32 {
        let last = self.last as usize;
        if self.objects.get(last) == Some(&object) && self.slots[last].mappings > 0 {
            return self.last;
        }
        let place = self.place(object);
        if let Some(index) = place {
            let slot = self.slot_mut(index);
            // The first mapping takes the reference that all mappings share. What is free has new data.
            if slot.mappings > 0 || slot.state == State::Free || slot.try_get() {
                slot.state = State::Used;
                self.last = index;
                return index;
            }
        }
        self.last = self.create(place, object, B::default());
        self.last
    }

    /// A handle to the `vm_bo` of an object: `drm_gpuvm_bo_obtain_locked()`.
    pub(crate) fn obtain_handle(&mut self, object: O) -> VmBo<O> {
        if let Some(handle) = self.find_handle(object) {
            return handle;
        }
        let shared = self.new_shared(object);
        self.adopt(shared, B::default())
    }

    /// A handle to the `vm_bo` of an object, if there is one: `drm_gpuvm_bo_find()`.
    pub(crate) fn find_handle(&mut self, object: O) -> Option<VmBo<O>> {
        let index = self.find(object)?;
        if let Some(shared) = &self.slot(index).shared {
            return shared.try_get().then(|| VmBo { shared: Arc::clone(shared) });
        }
        // Without handles so far, so there are mappings, which hold their one reference from now on.
        let mut shared = self.new_shared(object);
        let new = Arc::get_mut(&mut shared).expect("nobody else has it yet");
        (new.index, new.references) = (index, AtomicU32::new(2));
        self.slot_mut(index).shared = Some(Arc::clone(&shared));
        Some(VmBo { shared })
    }

    /// What a `vm_bo` needs to be made without an allocation: `drm_gpuvm_bo_create()`.
    pub(crate) fn prealloc(&mut self, object: O, data: B, claim: Claim) -> VmBoAlloc<O, B> {
        VmBoAlloc { shared: self.new_shared(object), data, _claim: claim }
    }

    /// `drm_gpuvm_bo_obtain_prealloc()`; gives back what was not needed.
    pub(crate) fn obtain_prealloc(&mut self, alloc: VmBoAlloc<O, B>) -> VmBo<O> {
        let object = alloc.shared.object;
        if let Some(index) = self.find(object) {
            // Without handles so far: the mappings' reference and ours.
            if self.slot(index).shared.is_none() {
                let mut shared = alloc.shared;
                let new = Arc::get_mut(&mut shared).expect("nobody else has it yet");
                (new.index, new.references) = (index, AtomicU32::new(2));
                self.slot_mut(index).shared = Some(Arc::clone(&shared));
                return VmBo { shared };
            }
            if let Some(shared) = self.slot(index).shared.as_ref().filter(|shared| shared.try_get()) {
                return VmBo { shared: Arc::clone(shared) };
            }
        }
        self.adopt(alloc.shared, alloc.data)
    }

    fn new_shared(&self, object: O) -> Arc<Shared<O>> {
        Arc::new(Shared {
            object,
            index: NONE,
            references: AtomicU32::new(1),
            link: ZombieLink::new(),
            zombies: Arc::clone(&self.zombies),
        })
    }

    /// A new `vm_bo` with one reference, the returned one.
    fn adopt(&mut self, shared: Arc<Shared<O>>, data: B) -> VmBo<O> {
        let object = shared.object;
        let index = self.create(self.place(object), object, data);
        let mut shared = shared;
        Arc::get_mut(&mut shared).expect("nobody else has it yet").index = index;
        self.slot_mut(index).shared = Some(Arc::clone(&shared));
        VmBo { shared }
    }

    /// A new `vm_bo` of an object; `place` is what the object has so far.
    fn create(&mut self, place: Option<u32>, object: O, data: B) -> u32 {
        let index = match place {
            Some(index) if self.slot(index).state == State::Free => index,
            zombie => {
                let index = self.take_free();
                self.enter(zombie, object, index);
                index
            }
        };
        let slot = self.slot_mut(index);
        slot.state = State::Used;
        slot.data = data;
        index
    }

    /// A slot without an object.
    fn take_free(&mut self) -> u32 {
        while self.free != NONE {
            let index = self.free;
            let slot = self.slot_mut(index);
            slot.in_free = false;
            let (next, state) = (slot.next_free, slot.state);
            self.free = next;
            if state == State::Free {
                if let Ok(entry) = self.table.find_entry(hash(self.object(index)), |&other| other == index) {
                    entry.remove();
                }
                return index;
            }
        }
        self.slots.push(Slot {
            first: NONE,
            mappings: 0,
            state: State::Free,
            next_dead: NONE,
            next_free: NONE,
            in_free: false,
            external: NONE,
            evicted: NONE,
            shared: None,
            reservation: None,
            data: B::default(),
        });
        (self.slots.len() - 1) as u32
    }

    /// Makes `index` the place of an object, in that of its zombie if it has one.
    fn enter(&mut self, zombie: Option<u32>, object: O, index: u32) {
        match self.objects.get_mut(index as usize) {
            Some(old) => *old = object,
            None => self.objects.push(object),
        }
        let hash = hash(object);
        let objects = &self.objects;
        match zombie.and_then(|zombie| self.table.find_mut(hash, |&other| other == zombie)) {
            Some(entry) => *entry = index,
            None => drop(self.table.insert_unique(hash, index, |&i| self::hash(objects[i as usize]))),
        }
    }

    /// A mapping has gone: drops its reference. `drm_gpuvm_bo_put_deferred()`.
    #[inline]
    pub(crate) fn put(&mut self, index: u32) {
        let slot = self.slot_mut(index);
        slot.mappings -= 1;
        if slot.mappings == 0 && slot.shared.as_ref().is_none_or(|shared| shared.put()) {
            self.slot_mut(index).next_dead = self.dead;
            self.dead = index;
            self.unlist(index);
        }
    }

    /// Takes a zombie off the lists: `drm_gpuvm_bo_into_zombie()`.
    #[inline]
    fn unlist(&mut self, index: u32) {
        self.set_external(index, false);
        self.set_evicted(index, false);
    }

    /// Whether [`Bos::clean_up`] has something to do.
    #[inline]
    pub(crate) fn has_zombies(&self) -> bool {
        self.dead != NONE || !self.zombies.is_empty()
    }

    /// Frees the zombies: `drm_gpuvm_bo_deferred_cleanup()`.
    #[inline]
    pub(crate) fn clean_up(&mut self) {
        let mut index = core::mem::replace(&mut self.dead, NONE);
        while index != NONE {
            let next = self.slot(index).next_dead;
            self.free(index);
            index = next;
        }
        if self.zombies.is_empty() {
            return;
        }
        let mut taken = self.zombies.take();
        loop {
            let slots = &self.slots;
            let link = |index: u32| &slots[index as usize].shared.as_ref().expect("it died in a handle").link;
            let Some(index) = taken.next(link) else { break };
            self.unlist(index);
            self.free(index);
        }
    }

    /// `drm_gpuvm_bo_destroy_not_in_lists()`.
    fn free(&mut self, index: u32) {
        let free = self.free;
        let slot = self.slot_mut(index);
        slot.state = State::Free;
        slot.data = B::default();
        slot.shared = None;
        slot.reservation = None;
        if !slot.in_free {
            (slot.in_free, slot.next_free) = (true, free);
            self.free = index;
        }
    }

    /// Empties all lists of mappings, for them to be made anew.
    pub(crate) fn unlink_all(&mut self) {
        for slot in &mut self.slots {
            (slot.first, slot.mappings) = (NONE, 0);
        }
    }

    /// Sees to it that `count` more objects need no allocation.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.objects.reserve(count);
        self.slots.reserve(count);
        let objects = &self.objects;
        self.table.reserve(count, |&index| hash(objects[index as usize]));
    }

    /// Whether memory is for a `vm_bo` of this VM.
    pub(crate) fn owns(&self, alloc: &VmBoAlloc<O, B>) -> bool {
        Arc::ptr_eq(&self.zombies, &alloc.shared.zombies)
    }
}

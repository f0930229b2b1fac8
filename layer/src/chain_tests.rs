//! Chains of known, unknown and the loader's structures, read and edited.

use super::*;
use crate::vk_registry::tests::c_sizes;
use vk::StructureType as Type;

/// A structure that no vk.xml has.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Unknown {
    s_type: Type,
    p_next: *const c_void,
    payload: [u64; 3],
}

const UNKNOWN: Type = Type::from_raw(i32::MAX - 1);

fn unknown(p_next: *const c_void) -> Unknown {
    Unknown { s_type: UNKNOWN, p_next, payload: [0x1122_3344_5566_7788, 2, u64::MAX] }
}

fn address<T>(structure: &T) -> *const c_void {
    (&raw const *structure).cast()
}

fn types(p_next: *const c_void) -> Vec<Type> {
    // SAFETY: the tests' chains are valid.
    unsafe { iter(p_next).map(|node| (*node).s_type).collect() }
}

fn nodes(p_next: *const c_void) -> Vec<*const c_void> {
    // SAFETY: as above.
    unsafe { iter(p_next) }.map(|node| node.cast()).collect()
}

fn seek<'a, T: TaggedStructure>(p_next: *const c_void) -> Option<&'a T> {
    // SAFETY: as above; no test keeps the answer beyond the chain.
    unsafe { find(p_next) }
}

fn copy(p_next: *const c_void, edited: &[Type]) -> ChainCopy {
    // SAFETY: as above.
    unsafe { ChainCopy::new_until(p_next, edited) }
}

type Twelve = vk::PhysicalDeviceVulkan12Features<'static>;
type Address = vk::PhysicalDeviceBufferDeviceAddressFeatures<'static>;
type Timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures<'static>;
type Robust = vk::PhysicalDeviceRobustness2FeaturesEXT<'static>;

/// `Twelve -> Unknown -> Address -> Timeline`, with something to recognise in each.
struct Chain {
    twelve: Twelve,
    unknown: Unknown,
    address: Address,
    timeline: Timeline,
}

impl Chain {
    fn new() -> Box<Self> {
        let mut chain = Box::new(Self {
            twelve: Twelve::default().draw_indirect_count(true).subgroup_broadcast_dynamic_id(true),
            unknown: unknown(core::ptr::null()),
            address: Address::default().buffer_device_address_multi_device(true),
            timeline: Timeline::default().timeline_semaphore(true),
        });
        chain.twelve.p_next = (&raw mut chain.unknown).cast();
        chain.unknown.p_next = (&raw const chain.address).cast();
        chain.address.p_next = (&raw mut chain.timeline).cast();
        chain
    }

    fn start(&self) -> *const c_void {
        address(&self.twelve)
    }

    const TYPES: [Type; 4] =
        [Twelve::STRUCTURE_TYPE, UNKNOWN, Address::STRUCTURE_TYPE, Timeline::STRUCTURE_TYPE];
}

#[test]
fn structures_are_found_by_type() {
    let chain = Chain::new();
    assert_eq!(types(chain.start()), Chain::TYPES);
    assert_eq!(seek::<Twelve>(chain.start()).map(|t| t.subgroup_broadcast_dynamic_id), Some(vk::TRUE));
    assert_eq!(seek::<Timeline>(chain.start()).map(address), Some(address(&chain.timeline)));
    assert!(seek::<Robust>(chain.start()).is_none());
    assert!(seek::<Twelve>(core::ptr::null()).is_none());
}

#[test]
fn an_empty_chain_takes_structures() {
    let mut chain = copy(core::ptr::null(), &[Twelve::STRUCTURE_TYPE]);
    assert!(chain.as_ptr().is_null());
    chain.remove(Twelve::STRUCTURE_TYPE);
    assert!(chain.get_mut::<Twelve>().is_none());
    chain.push_front(Timeline::default().timeline_semaphore(true));
    chain.push_front(Address::default());
    assert_eq!(types(chain.as_ptr()), [Address::STRUCTURE_TYPE, Timeline::STRUCTURE_TYPE]);
    assert_eq!(seek::<Timeline>(chain.as_ptr()).map(|t| t.timeline_semaphore), Some(vk::TRUE));
    chain.remove(Address::STRUCTURE_TYPE);
    chain.remove(Timeline::STRUCTURE_TYPE);
    assert!(chain.as_ptr().is_null());
}

#[test]
fn only_what_leads_to_an_edit_is_copied() {
    let original = Chain::new();
    let theirs = nodes(original.start());
    for edited in 0..1u32 << Chain::TYPES.len() {
        let wanted: Vec<Type> = (0..4).filter(|n| edited & (1 << n) != 0).map(|n| Chain::TYPES[n]).collect();
        let copied = (u32::BITS - edited.leading_zeros()) as usize;
        let chain = copy(original.start(), &wanted);
        assert_eq!(types(chain.as_ptr()), Chain::TYPES);
        let ours = nodes(chain.as_ptr());
        for n in 0..4 {
            assert_eq!(ours[n] == theirs[n], n >= copied, "{wanted:?}: structure {n}");
        }
    }
    assert_eq!(copy(original.start(), &[Robust::STRUCTURE_TYPE]).as_ptr(), original.start());
}

#[test]
fn copies_are_complete_and_apart() {
    let original = Chain::new();
    let mut chain = copy(original.start(), &[Address::STRUCTURE_TYPE]);
    let twelve = chain.get_mut::<Twelve>().unwrap();
    assert_eq!((twelve.draw_indirect_count, twelve.subgroup_broadcast_dynamic_id), (vk::TRUE, vk::TRUE));
    twelve.draw_indirect_count = vk::FALSE;
    chain.get_mut::<Address>().unwrap().buffer_device_address = vk::TRUE;
    // The last one is the application's.
    assert!(chain.get_mut::<Timeline>().is_none());

    let address = seek::<Address>(chain.as_ptr()).unwrap();
    assert_eq!(
        (address.buffer_device_address, address.buffer_device_address_multi_device),
        (vk::TRUE, vk::TRUE)
    );
    assert_eq!(
        (original.twelve.draw_indirect_count, original.address.buffer_device_address),
        (vk::TRUE, vk::FALSE)
    );
    // SAFETY: the second structure is an `Unknown`, whose payload was copied with it.
    let copied = unsafe { *nodes(chain.as_ptr())[1].cast::<Unknown>() };
    assert_eq!(copied.payload, original.unknown.payload);
    assert_ne!(copied.p_next, original.unknown.p_next);
}

#[test]
fn structures_are_removed_anywhere() {
    let original = Chain::new();
    for removed in 0..4 {
        let mut chain = copy(original.start(), &Chain::TYPES);
        chain.remove(Chain::TYPES[removed]);
        let rest: Vec<Type> = Chain::TYPES.into_iter().filter(|t| *t != Chain::TYPES[removed]).collect();
        assert_eq!(types(chain.as_ptr()), rest);
    }
    // The last of the copies goes, and what is the application's stays.
    let mut chain = copy(original.start(), &[UNKNOWN]);
    chain.remove(UNKNOWN);
    assert_eq!(nodes(chain.as_ptr())[1..], [address(&original.address), address(&original.timeline)]);
    // All copies go.
    chain.remove(Twelve::STRUCTURE_TYPE);
    assert_eq!(chain.as_ptr(), address(&original.address));
    assert_eq!(types(original.start()), Chain::TYPES);
}

#[test]
fn every_structure_of_a_type_is_removed() {
    let last = unknown(core::ptr::null());
    let middle = Timeline { p_next: address(&last).cast_mut(), ..Default::default() };
    let first = unknown(address(&middle));
    let mut chain = copy(address(&first), &[UNKNOWN]);
    chain.remove(UNKNOWN);
    assert_eq!(types(chain.as_ptr()), [Timeline::STRUCTURE_TYPE]);
}

#[test]
fn a_copy_may_move() {
    let original = Chain::new();
    let mut chain = copy(original.start(), &Chain::TYPES);
    chain.push_front(Robust::default());
    let start = chain.as_ptr();
    let chain = Box::new((0u8, chain));
    assert_eq!(chain.1.as_ptr(), start);
    assert_eq!(types(start)[1..], Chain::TYPES);
}

/// `VkLayerDeviceCreateInfo`, which the loader chains twice.
#[repr(C)]
struct LoaderInfo {
    s_type: Type,
    p_next: *const c_void,
    function: i32,
    link: usize,
}

#[test]
fn the_loaders_structures_are_copied() {
    let timeline = Timeline::default();
    let info = |p_next, function, link| LoaderInfo {
        s_type: Type::LOADER_DEVICE_CREATE_INFO,
        p_next,
        function,
        link,
    };
    let second = info(address(&timeline), 1, 0xabcd);
    let first = info(address(&second), 0, 0x1234);
    let chain = copy(address(&first), &[Timeline::STRUCTURE_TYPE]);
    let ours = nodes(chain.as_ptr());
    for (copied, original) in ours.iter().zip([&first, &second]) {
        // SAFETY: the copies of two `LoaderInfo`.
        let copied = unsafe { &*copied.cast::<LoaderInfo>() };
        assert_ne!(address(copied), address(original));
        assert_eq!((copied.function, copied.link), (original.function, original.link));
    }
}

#[test]
fn the_loaders_structures_are_as_long_as_in_c() {
    let names = ["VkLayerInstanceCreateInfo", "VkLayerDeviceCreateInfo"];
    let sizes = c_sizes("loader", "#include <vulkan/vk_layer.h>", names.into_iter());
    let types = [Type::LOADER_INSTANCE_CREATE_INFO, Type::LOADER_DEVICE_CREATE_INFO];
    for (name, s_type) in names.into_iter().zip(types) {
        assert_eq!(size_of_node(s_type), sizes.get(name).copied(), "{name}");
    }
}

/// Two pages, of which the second may be missing.
struct Pages {
    start: *mut c_void,
}

impl Pages {
    const SIZE: usize = 4096;

    fn new(second: bool) -> Self {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
        // SAFETY: a new mapping, the second half of which nobody uses yet.
        let start = unsafe {
            let start = mmap_anonymous(
                core::ptr::null_mut(),
                2 * Self::SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
            .unwrap();
            if !second {
                mprotect(start.byte_add(Self::SIZE), Self::SIZE, MprotectFlags::empty()).unwrap();
            }
            start
        };
        Self { start }
    }

    /// Puts an unknown structure `before` bytes before the second page, in front of `p_next`.
    fn place(&self, before: usize, p_next: *const c_void) -> *const c_void {
        // SAFETY: inside the mapping; a structure that reaches into the second page is placed only where there is one.
        unsafe {
            let at = self.start.byte_add(Self::SIZE - before);
            at.cast::<Unknown>().write(unknown(p_next));
            at
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and no longer used.
        unsafe { rustix::mm::munmap(self.start, 2 * Self::SIZE) }.unwrap();
    }
}

#[test]
fn unknown_structures_may_lie_at_the_end_of_memory() {
    let timeline = Timeline::default();
    for (before, second) in
        [(size_of::<Unknown>(), false), (size_of::<Unknown>(), true), (16, true), (1024, false)]
    {
        let pages = Pages::new(second);
        let chain = copy(pages.place(before, address(&timeline)), &[Timeline::STRUCTURE_TYPE]);
        assert_eq!(types(chain.as_ptr()), [UNKNOWN, Timeline::STRUCTURE_TYPE]);
        // SAFETY: the copy of an `Unknown`.
        let copied = unsafe { *chain.as_ptr().cast::<Unknown>() };
        assert_eq!(copied.payload, unknown(core::ptr::null()).payload, "{before} bytes before the end");
    }
}

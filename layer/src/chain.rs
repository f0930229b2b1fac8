//! `pNext` chains: looking into them, and editing a copy without knowing every structure in them.

use crate::vk_registry::struct_size;
use ash::vk::{self, TaggedStructure};
use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

/// The structures of a chain; see [`iter`].
struct Iter<'a> {
    next: *const vk::BaseInStructure<'a>,
    chain: PhantomData<&'a ()>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = *const vk::BaseInStructure<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.next;
        if node.is_null() {
            return None;
        }
        // SAFETY: `iter`'s caller promised a valid chain for 'a; every structure in one begins with sType and pNext.
        self.next = unsafe { (*node).p_next };
        Some(node)
    }
}

/// # Safety
/// `p_next` is null or a chain that is valid for `'a`.
unsafe fn iter<'a>(p_next: *const c_void) -> Iter<'a> {
    Iter { next: p_next.cast(), chain: PhantomData }
}

/// The first structure of type `T` in a chain.
///
/// # Safety
/// `p_next` is null or a chain that is valid, and not written, for `'a`.
pub(crate) unsafe fn find<'a, T: TaggedStructure>(p_next: *const c_void) -> Option<&'a T> {
    // SAFETY: the caller's promise, here and below.
    let found = unsafe { iter(p_next) }.find(|&node| unsafe { (*node).s_type } == T::STRUCTURE_TYPE)?;
    // SAFETY: sType says that it is a `T`.
    Some(unsafe { &*found.cast() })
}

/// Whether all structures of a chain are of these types.
///
/// # Safety
/// `p_next` is null or a valid chain.
pub(crate) unsafe fn has_only(p_next: *const c_void, known: &[vk::StructureType]) -> bool {
    // SAFETY: the caller's promise, here and below.
    unsafe { iter(p_next) }.all(|node| known.contains(unsafe { &(*node).s_type }))
}

/// The first structure of type `T` in a chain that is to be written.
///
/// # Safety
/// `p_next` is null or a chain that is valid, and the caller's to write, for `'a`.
pub(crate) unsafe fn find_mut<'a, T: TaggedStructure>(p_next: *mut c_void) -> Option<&'a mut T> {
    // SAFETY: the caller's promise, here and below.
    let found = unsafe { iter(p_next) }.find(|&node| unsafe { (*node).s_type } == T::STRUCTURE_TYPE)?;
    // SAFETY: sType says that it is a `T`, and the caller may write it.
    Some(unsafe { &mut *found.cast_mut().cast() })
}

/// `VkLayerInstanceCreateInfo` and `VkLayerDeviceCreateInfo` (vulkan/vk_layer.h), which the loader chains and vk.xml does not have:
/// sType, pNext, function, and a union whose longest member is two pointers for an instance, one for a device.
fn size_of_node(s_type: vk::StructureType) -> Option<usize> {
    match s_type {
        vk::StructureType::LOADER_INSTANCE_CREATE_INFO => Some(40),
        vk::StructureType::LOADER_DEVICE_CREATE_INFO => Some(32),
        other => struct_size(other),
    }
}

/// Bytes that are copied of a structure that nobody here knows: more than any has that an application chains to be read.
const GENEROUS: usize = 1024;

/// Storage for one structure; none in a chain is aligned to more than 8 bytes.
type Word = MaybeUninit<u64>;

/// A structure of a [`ChainCopy`]. It stays where it is when the copy moves.
struct Node {
    words: Vec<Word>,
}

impl Node {
    /// # Safety
    /// `from` points to `size` bytes that begin with sType and pNext.
    unsafe fn copy(from: *const c_void, size: usize) -> Self {
        debug_assert!(size >= size_of::<vk::BaseInStructure<'_>>());
        let mut words = vec![Word::zeroed(); size.div_ceil(size_of::<Word>())];
        // SAFETY: the caller's promise; the storage is new and no shorter.
        unsafe { core::ptr::copy_nonoverlapping(from.cast::<u8>(), words.as_mut_ptr().cast(), size) };
        Self { words }
    }

    /// Copies [`GENEROUS`] bytes from a structure of unknown size on, or as many as there are.
    ///
    /// The kernel copies: what follows the structure may be no memory, or another thread's to write.
    ///
    /// # Safety
    /// `from` points to sType and pNext.
    unsafe fn copy_unknown(from: *const c_void) -> Self {
        // No page is smaller, and memory begins and ends with pages.
        const PAGE: usize = 4096;
        let mut words = vec![Word::zeroed(); GENEROUS / size_of::<Word>()];
        let near = (PAGE - from.addr() % PAGE).min(GENEROUS);
        let part =
            |start, len| libc::iovec { iov_base: from.wrapping_byte_add(start).cast_mut(), iov_len: len };
        let remote = [part(0, near), part(near, GENEROUS - near)];
        let local = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: GENEROUS };
        // SAFETY: writes the new storage only; what cannot be read of our own process is left out.
        let read =
            unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, remote.as_ptr(), 2, 0) };
        if usize::try_from(read).is_ok_and(|read| read >= near) {
            return Self { words };
        }
        // A sandbox that forbids the call. SAFETY: the page is there, because the structure begins in it.
        unsafe { core::ptr::copy_nonoverlapping(from.cast::<u8>(), words.as_mut_ptr().cast(), near) };
        Self { words }
    }

    fn base(&self) -> *const vk::BaseInStructure<'static> {
        self.words.as_ptr().cast()
    }

    fn s_type(&self) -> vk::StructureType {
        // SAFETY: begins with sType (`copy`).
        unsafe { (*self.base()).s_type }
    }

    fn link(&mut self, next: *const c_void) {
        let base: *mut vk::BaseInStructure<'static> = self.words.as_mut_ptr().cast();
        // SAFETY: begins with sType and pNext (`copy`).
        unsafe { (*base).p_next = next.cast() };
    }
}

/// A chain of which the beginning is a copy that can be edited, and the rest is the application's own.
pub(crate) struct ChainCopy {
    nodes: Vec<Node>,
    tail: *const c_void,
}

impl ChainCopy {
    /// Copies the chain up to its last structure of one of the types `edited`; of a chain without any, nothing.
    ///
    /// A structure newer than the vk.xml of the build is copied generously: what comes along from behind its end does no harm,
    /// because whoever knows the structure reads no more than it has.
    ///
    /// # Safety
    /// `p_next` is null or a valid chain; what it leads to outlives every use of [`as_ptr`](Self::as_ptr)'s answer.
    pub(crate) unsafe fn new_until(p_next: *const c_void, edited: &[vk::StructureType]) -> Self {
        // SAFETY: the caller's promise, here and below.
        let types = unsafe { iter(p_next) }.map(|node| unsafe { (*node).s_type });
        let count =
            types.enumerate().filter(|(_, s_type)| edited.contains(s_type)).last().map_or(0, |(n, _)| n + 1);
        let mut copy = Self { nodes: Vec::with_capacity(count + 1), tail: p_next };
        // SAFETY: as above.
        for node in unsafe { iter(p_next) }.take(count) {
            // SAFETY: as above; a structure is as long as its type says.
            unsafe {
                copy.nodes.push(match size_of_node((*node).s_type) {
                    Some(size) => Node::copy(node.cast(), size),
                    None => Node::copy_unknown(node.cast()),
                });
                copy.tail = (*node).p_next.cast();
            }
        }
        copy.relink();
        copy
    }

    fn relink(&mut self) {
        let mut next = self.tail;
        for node in self.nodes.iter_mut().rev() {
            node.link(next);
            next = node.base().cast();
        }
    }

    /// What to put into a `pNext`; changes with every edit.
    pub(crate) fn as_ptr(&self) -> *const c_void {
        self.nodes.first().map_or(self.tail, |node| node.base().cast())
    }

    /// Takes every structure of this type, which was among the edited ones, out of the chain.
    pub(crate) fn remove(&mut self, s_type: vk::StructureType) {
        self.nodes.retain(|node| node.s_type() != s_type);
        self.relink();
    }

    /// Puts a structure in front; its own `pNext` is of no interest.
    pub(crate) fn push_front<T: TaggedStructure + Copy + 'static>(&mut self, structure: T) {
        const { assert!(align_of::<T>() <= align_of::<Word>()) };
        // SAFETY: a tagged structure begins with sType and pNext.
        let node = unsafe { Node::copy((&raw const structure).cast(), size_of::<T>()) };
        self.nodes.insert(0, node);
        self.relink();
    }

    /// The first structure of this type that was copied or pushed. Its `pNext` must be left alone.
    pub(crate) fn get_mut<T: TaggedStructure>(&mut self) -> Option<&mut T> {
        const { assert!(align_of::<T>() <= align_of::<Word>()) };
        let node = self.nodes.iter_mut().find(|node| node.s_type() == T::STRUCTURE_TYPE)?;
        // A `T` that vk.xml makes shorter than ash does is none.
        if node.words.len() * size_of::<Word>() < size_of::<T>() {
            return None;
        }
        // SAFETY: sType says that it is a `T`, long enough and aligned; it is this copy's own.
        Some(unsafe { &mut *node.words.as_mut_ptr().cast() })
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;

//! What is mapped where.

use crate::tree::Tree;
use crate::{OpKind, VaRange};

/// What a mapping points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target<O> {
    /// Bytes of an object.
    Object {
        /// The object.
        object: O,
        /// Byte of the object that the first byte of the mapping shows.
        offset: u64,
    },
    /// No object: a null (sparse) mapping, which the GPU may access without a fault.
    Null,
}

impl<O: Copy + Eq> Target<O> {
    /// The target of a mapping that starts `by` bytes later. Offsets wrap at 2^64, as the kernel's do.
    #[must_use]
    pub fn advance(self, by: u64) -> Self {
        match self {
            Self::Object { object, offset } => Self::Object { object, offset: offset.wrapping_add(by) },
            Self::Null => Self::Null,
        }
    }

    /// The object behind it, if there is one.
    pub fn object(self) -> Option<O> {
        match self {
            Self::Object { object, .. } => Some(object),
            Self::Null => None,
        }
    }

    /// Whether there is no object behind it.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// A range and what it shows: the `drm_gpuva` of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapping<O> {
    /// Where it is mapped.
    pub range: VaRange,
    /// What it shows.
    pub target: Target<O>,
}

/// What the tree has of a mapping beside its start, which is the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) end: u64,
    /// Byte of the object that the first byte of the mapping shows; without meaning in a null mapping.
    pub(crate) offset: u64,
    /// The object's index in [`Bos`](crate::vm_bo::Bos), or `NONE` for a null mapping.
    pub(crate) bo: u32,
    /// Its index in [`Links`](crate::vm_bo_list::Links).
    pub(crate) link: u32,
}

impl Body {
    /// What the mapping shows; `objects` are those of the VM.
    #[inline]
    pub(crate) fn target<O: Copy>(&self, objects: &[O]) -> Target<O> {
        match objects.get(self.bo as usize) {
            Some(&object) => Target::Object { object, offset: self.offset },
            None => Target::Null,
        }
    }

    /// The whole mapping.
    #[inline]
    pub(crate) fn at<O: Copy>(&self, start: u64, objects: &[O]) -> Mapping<O> {
        Mapping { range: VaRange::span(start, self.end), target: self.target(objects) }
    }
}

/// What is mapped, to be read by the crate's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a, O> {
    pub(crate) tree: &'a Tree<Body>,
    pub(crate) objects: &'a [O],
}

impl<O: Copy + Eq> Mapping<O> {
    /// The part of the mapping from `start` up to `end`, both inside it.
    pub(crate) fn part(self, start: u64, end: u64) -> Self {
        Self { range: VaRange::span(start, end), target: self.target.advance(start - self.range.start) }
    }

    /// The operation that makes this mapping.
    pub fn kind(&self) -> OpKind<O> {
        self.target.into()
    }
}

//! What is mapped where.

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

/// A mapping without its start, which is the key under which the tree has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body<O> {
    pub(crate) end: u64,
    pub(crate) target: Target<O>,
}

impl<O: Copy + Eq> Body<O> {
    pub(crate) fn at(self, start: u64) -> Mapping<O> {
        Mapping { range: VaRange::span(start, self.end), target: self.target }
    }
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

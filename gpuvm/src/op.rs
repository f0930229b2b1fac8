//! VM_BIND operations.

use crate::{Target, VaRange};

/// What a VM_BIND operation does with its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind<O> {
    /// Maps an object.
    Map {
        /// The object.
        object: O,
        /// Byte of the object that the first byte of the range shows.
        offset: u64,
    },
    /// Makes a null (sparse) mapping.
    Null,
    /// Leaves the range without any mapping.
    Unmap,
}

impl<O: Copy + Eq> OpKind<O> {
    /// The same for a range that starts `by` bytes later. Offsets wrap at 2^64.
    #[must_use]
    pub fn advance(self, by: u64) -> Self {
        match self {
            Self::Map { object, offset } => Self::Map { object, offset: offset.wrapping_add(by) },
            other => other,
        }
    }

    /// The object that it maps, if it maps one.
    pub fn object(self) -> Option<O> {
        match self {
            Self::Map { object, .. } => Some(object),
            Self::Null | Self::Unmap => None,
        }
    }

    /// What it maps; nothing for an unmap.
    pub fn target(self) -> Option<Target<O>> {
        match self {
            Self::Map { object, offset } => Some(Target::Object { object, offset }),
            Self::Null => Some(Target::Null),
            Self::Unmap => None,
        }
    }
}

impl<O> From<Target<O>> for OpKind<O> {
    fn from(target: Target<O>) -> Self {
        match target {
            Target::Object { object, offset } => Self::Map { object, offset },
            Target::Null => Self::Null,
        }
    }
}

/// One VM_BIND operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Op<O> {
    /// The addresses that change.
    pub range: VaRange,
    /// What they become.
    pub kind: OpKind<O>,
}

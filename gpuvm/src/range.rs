//! A range of GPU virtual addresses.

use core::fmt;

use crate::VmError;

/// `len` bytes of address space from `start` on.
///
/// [`VaRange::new`] refuses what no VM can hold. The fields are public so that literals and patterns stay easy;
/// everything that takes a range from a caller checks it again with [`VaRange::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VaRange {
    /// First byte.
    pub start: u64,
    /// Length in bytes; not zero in a valid range.
    pub len: u64,
}

impl VaRange {
    /// A range of `len` bytes from `start` on.
    ///
    /// # Errors
    /// [`VmError::Empty`] for `len` 0 and [`VmError::Overflow`] where the end does not fit in 64 bits.
    pub const fn new(start: u64, len: u64) -> Result<Self, VmError> {
        Self { start, len }.check()
    }

    /// The range from `start` up to, but not including, `end`.
    ///
    /// # Errors
    /// [`VmError::Empty`] where `end` is not above `start`.
    pub const fn between(start: u64, end: u64) -> Result<Self, VmError> {
        if end > start { Ok(Self::span(start, end)) } else { Err(VmError::Empty { start }) }
    }

    /// Both ends known to be in order.
    pub(crate) const fn span(start: u64, end: u64) -> Self {
        debug_assert!(start < end);
        Self { start, len: end - start }
    }

    /// The range itself if it is valid.
    ///
    /// # Errors
    /// As [`VaRange::new`].
    pub const fn check(self) -> Result<Self, VmError> {
        if self.len == 0 {
            Err(VmError::Empty { start: self.start })
        } else if self.start.checked_add(self.len).is_none() {
            Err(VmError::Overflow { start: self.start, len: self.len })
        } else {
            Ok(self)
        }
    }

    /// The first byte behind the range. Saturates in an invalid range.
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Whether the byte at `va` is in the range.
    pub const fn contains(self, va: u64) -> bool {
        self.start <= va && va < self.end()
    }

    /// Whether all of `other` is in the range.
    pub(crate) const fn contains_range(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// Whether the two have a byte in common.
    pub const fn intersects(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// What the two have in common.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end().min(other.end()));
        (start < end).then(|| Self::span(start, end))
    }
}

impl fmt::Display for VaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start, self.end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_no_vm_can_hold() {
        assert_eq!(VaRange::new(4, 0), Err(VmError::Empty { start: 4 }));
        assert_eq!(VaRange::new(u64::MAX, 1), Err(VmError::Overflow { start: u64::MAX, len: 1 }));
        assert_eq!(VaRange::new(u64::MAX - 1, 1).map(VaRange::end), Ok(u64::MAX));
        assert_eq!(VaRange::between(7, 7), Err(VmError::Empty { start: 7 }));
    }

    #[test]
    fn neighbours_do_not_intersect() {
        let (a, b) = (VaRange::span(0, 4), VaRange::span(4, 8));
        assert!(!a.intersects(b) && !b.intersects(a));
        assert_eq!(a.intersection(b), None);
        assert_eq!(VaRange::span(2, 6).intersection(b), Some(VaRange::span(4, 6)));
        assert!(a.contains(3) && !a.contains(4) && a.contains_range(a) && !a.contains_range(b));
    }
}

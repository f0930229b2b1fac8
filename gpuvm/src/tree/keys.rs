//! The sorted keys of a node.

/// Entries in a node: values in a leaf, children in an inner node.
pub(crate) const FAN: usize = 64;
/// Keys in a cache line.
const LINE: usize = 8;

/// Sorted keys, padded with `u64::MAX`: the fixed length makes the search free of branches.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Keys(pub(crate) [u64; FAN]);

impl Keys {
    pub(crate) const fn new() -> Self {
        Self([u64::MAX; FAN])
    }

    /// Number of keys for which `below` holds; it has to hold for a prefix of the keys and not for the padding.
    /// One key of every cache line is looked at first, so that a node that is not in the cache costs the latency of
    /// one miss and not of one for each step of a binary search.
    #[inline]
    fn count(&self, below: impl Fn(u64) -> bool) -> usize {
        let full: usize = (1..FAN / LINE).map(|line| usize::from(below(self.0[line * LINE - 1]))).sum();
        let line = &self.0[full * LINE..][..LINE];
        full * LINE + line.iter().map(|&key| usize::from(below(key))).sum::<usize>()
    }

    /// Number of keys below `key`.
    #[inline]
    pub(crate) fn below(&self, key: u64) -> usize {
        self.count(|k| k < key)
    }

    /// Number of keys up to `key`, which is below `u64::MAX`.
    #[inline]
    pub(crate) fn up_to(&self, key: u64) -> usize {
        self.count(|k| k <= key)
    }

    /// Puts `key` at `index` among the first `len`, of which there is one less than fit.
    #[inline]
    pub(crate) fn insert(&mut self, index: usize, len: usize, key: u64) {
        // Sequential binds append: nothing to move then, and nothing to call.
        if index < len {
            self.0.copy_within(index..len, index + 1);
        }
        self.0[index] = key;
    }

    /// Takes `gone` of the first `len` out, from `index` on.
    #[inline]
    pub(crate) fn remove(&mut self, index: usize, gone: usize, len: usize) {
        self.0.copy_within(index + gone..len, index);
        self.0[len - gone..len].fill(u64::MAX);
    }
}

//! A leaf: where the entries are.

use super::NONE;
use super::keys::{FAN, Keys};

/// Up to [`FAN`] entries.
///
/// A value stays in its slot while the keys, and the bytes that say in which slot each key's value is, move to keep
/// their order. So an insert in the middle of a cold leaf touches the lines of the keys, which the search wants
/// anyway, one line of slot numbers and one of values.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Leaf<V> {
    pub(super) keys: Keys,
    /// For each key the slot of its value.
    slots: [u8; FAN],
    /// Bit by bit the slots that are taken.
    used: u64,
    len: u32,
    pub(super) prev: u32,
    pub(super) next: u32,
    values: [V; FAN],
}

impl<V: Copy + Default> Leaf<V> {
    pub(super) fn new() -> Self {
        Self {
            keys: Keys::new(),
            slots: [0; FAN],
            used: 0,
            len: 0,
            prev: NONE,
            next: NONE,
            values: [V::default(); FAN],
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() == FAN
    }

    /// The key at `index`, or `u64::MAX` behind the last.
    #[inline]
    pub(crate) fn key(&self, index: usize) -> u64 {
        self.keys.0.get(index).copied().unwrap_or(u64::MAX)
    }

    #[inline]
    fn slot(&self, index: usize) -> usize {
        usize::from(self.slots[index]) % FAN
    }

    /// The value at `index`, which has to be below the length.
    #[inline]
    pub(crate) fn value(&self, index: usize) -> &V {
        &self.values[self.slot(index)]
    }

    /// The entries from `index` on.
    #[inline]
    pub(crate) fn entries(&self, index: usize) -> impl Iterator<Item = (u64, &V)> {
        let keys = self.keys.0.get(index..self.len()).unwrap_or_default();
        let slots = self.slots.get(index..self.len()).unwrap_or_default();
        keys.iter().zip(slots).map(|(&key, &slot)| (key, &self.values[usize::from(slot) % FAN]))
    }

    /// The value at `index`, which has to be below the length.
    #[inline]
    pub(crate) fn value_mut(&mut self, index: usize) -> &mut V {
        &mut self.values[self.slot(index)]
    }

    /// Adds an entry at `index`; there has to be room.
    #[inline]
    pub(super) fn insert(&mut self, index: usize, key: u64, value: V) {
        let (len, slot) = (self.len(), (!self.used).trailing_zeros() as usize % FAN);
        self.used |= 1 << slot;
        self.keys.insert(index, len, key);
        if index < len {
            self.slots.copy_within(index..len, index + 1);
        }
        self.slots[index] = slot as u8;
        self.values[slot] = value;
        self.len += 1;
    }

    /// Takes `gone` entries out from `begin` on.
    pub(super) fn remove(&mut self, begin: usize, gone: usize) {
        let len = self.len();
        for index in begin..begin + gone {
            self.used &= !(1 << self.slot(index));
        }
        self.keys.remove(begin, gone, len);
        self.slots.copy_within(begin + gone..len, begin);
        self.len -= gone as u32;
    }

    /// Puts `new` in place of the `gone` entries from `begin` on; the caller knows that they fit.
    #[inline]
    pub(super) fn splice(&mut self, begin: usize, gone: usize, new: &[(u64, V)]) {
        let (over, more) = new.split_at(gone.min(new.len()));
        for (index, &(key, value)) in (begin..).zip(over) {
            self.keys.0[index] = key;
            *self.value_mut(index) = value;
        }
        if gone > over.len() {
            self.remove(begin + over.len(), gone - over.len());
        }
        for (index, &(key, value)) in (begin + over.len()..).zip(more) {
            self.insert(index, key, value);
        }
    }

    /// Moves the entries from `at` on behind those of `to`, where they belong and fit.
    pub(super) fn move_tail(&mut self, at: usize, to: &mut Self) {
        for index in at..self.len() {
            to.insert(to.len(), self.keys.0[index], *self.value(index));
        }
        self.remove(at, self.len() - at);
    }
}

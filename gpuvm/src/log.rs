//! The last updates of a VM, to be read while it runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::VaRange;
use crate::sync::{AtomicU64, Ordering, fence};

/// The largest ring has `2^MAX_SHIFT` entries (2.5 MiB); msm stops at 2^8.
const MAX_SHIFT: u32 = 16;

/// What an update did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogOp {
    /// Mapped an object.
    Map,
    /// Mapped nothing, on purpose: a null mapping.
    MapNull,
    /// Unmapped.
    Unmap,
}

impl LogOp {
    const ALL: [Self; 3] = [Self::Map, Self::MapNull, Self::Unmap];
}

/// One update of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogEntry {
    /// When, since the ring was made; kept in nanoseconds, for 584 years.
    pub time: Duration,
    /// On which bind queue; 0 where there was none, as in the kernel's log.
    pub queue: u32,
    /// What was done.
    pub op: LogOp,
    /// Where.
    pub range: VaRange,
}

/// The writing end of a log of a VM's last 2^n updates; it belongs to the VM and is written under the VM's lock.
/// [`LogRing::reader`] gives ends to read from, on any thread and without any lock.
///
/// The kernel's counterpart is the `vm_log` of msm (`vm_log_shift`), which a crash dump reads under the MMU lock.
/// Here a device that hangs with the VM's lock held can still be asked what it did.
///
/// Each slot is a sequence lock whose number says which entry is in it, and not only that it is stable: a reader that
/// is overtaken notices, whatever the writer has put there since.
#[derive(Debug)]
pub struct LogRing {
    ring: Arc<Ring>,
    /// How many entries were written.
    written: u64,
}

/// A reading end of a [`LogRing`].
#[derive(Clone, Debug)]
pub struct LogReader {
    ring: Arc<Ring>,
}

#[derive(Debug)]
struct Ring {
    epoch: Instant,
    /// How many entries are complete.
    written: AtomicU64,
    slots: Box<[Slot]>,
}

/// An entry as words. With a plain struct a torn read would be undefined behaviour, not just wrong.
#[derive(Debug)]
struct Slot {
    /// [`complete`] of the entry that is in the words, or [`WRITING`].
    sequence: AtomicU64,
    words: [AtomicU64; 4],
}

/// The sequence number of a slot whose words are changing.
const WRITING: u64 = 0;

/// The sequence number of a slot that holds the entry `number`.
fn complete(number: u64) -> u64 {
    number + 1
}

impl LogEntry {
    fn to_words(self) -> [u64; 4] {
        let time = u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX);
        [time, u64::from(self.queue) << 32 | self.op as u64, self.range.start, self.range.len]
    }

    fn from_words([time, queue_op, start, len]: [u64; 4]) -> Self {
        Self {
            time: Duration::from_nanos(time),
            queue: (queue_op >> 32) as u32,
            op: LogOp::ALL[queue_op as u32 as usize],
            range: VaRange { start, len },
        }
    }
}

impl LogRing {
    /// A ring of the last `2^shift` updates. A `shift` beyond 16 is taken as 16.
    pub fn new(shift: u32) -> Self {
        let slots = 1 << shift.min(MAX_SHIFT);
        let ring = Ring {
            epoch: Instant::now(),
            written: AtomicU64::new(0),
            slots: (0..slots).map(|_| Slot::new()).collect(),
        };
        Self { ring: Arc::new(ring), written: 0 }
    }

    /// The time since the ring was made, for [`LogEntry::time`]. Asked for once an update, not once a step.
    pub fn now(&self) -> Duration {
        self.ring.epoch.elapsed()
    }

    /// Notes `entry` in the place of the oldest one. Never waits, whoever reads, and never allocates.
    pub fn push(&mut self, entry: LogEntry) {
        let number = self.written;
        self.written += 1;
        self.ring.slot(number).write(complete(number), entry.to_words());
        self.ring.written.store(self.written, Ordering::Release);
    }

    /// An end to read from.
    pub fn reader(&self) -> LogReader {
        LogReader { ring: Arc::clone(&self.ring) }
    }
}

impl LogReader {
    /// How many updates were noted since the ring was made.
    pub fn written(&self) -> u64 {
        self.ring.written.load(Ordering::Acquire)
    }

    /// The last entries, oldest first, without a gap. Where the writer is faster than this reader the oldest ones
    /// are missing: an entry that was overwritten before it was read in full is not returned, nor are those before.
    pub fn read(&self) -> Vec<LogEntry> {
        let end = self.written();
        let start = end.saturating_sub(self.ring.slots.len() as u64);
        // From the newest to the oldest: the writer comes from the other side, so that the first entry that is lost
        // is the last one that is there.
        let mut entries: Vec<_> = (start..end)
            .rev()
            .map_while(|number| self.ring.slot(number).read(complete(number)))
            .map(LogEntry::from_words)
            .collect();
        entries.reverse();
        entries
    }
}

impl Ring {
    fn slot(&self, number: u64) -> &Slot {
        // The number of slots is a power of two.
        &self.slots[number as usize & (self.slots.len() - 1)]
    }
}

impl Slot {
    fn new() -> Self {
        Self { sequence: AtomicU64::new(WRITING), words: core::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// To be published by [`Ring::written`]: who reads that number sees these words, or later ones.
    fn write(&self, sequence: u64, words: [u64; 4]) {
        self.sequence.store(WRITING, Ordering::Relaxed);
        // Who sees one of the new words sees the old sequence number gone: pairs with the fence in `read`.
        fence(Ordering::Release);
        for (slot, word) in self.words.iter().zip(words) {
            slot.store(word, Ordering::Relaxed);
        }
        self.sequence.store(sequence, Ordering::Relaxed);
    }

    /// The words of `sequence`, which was published; nothing if one of them was a later one's.
    fn read(&self, sequence: u64) -> Option<[u64; 4]> {
        let words = core::array::from_fn(|word| self.words[word].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        (self.sequence.load(Ordering::Relaxed) == sequence).then_some(words)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn entry(number: u64) -> LogEntry {
        LogEntry {
            time: Duration::from_nanos(number * 7),
            queue: number as u32,
            op: LogOp::ALL[number as usize % 3],
            range: VaRange { start: number << 12, len: 1 << 12 },
        }
    }

    #[test]
    fn keeps_the_last_ones_in_order() {
        let mut log = LogRing::new(2);
        let reader = log.reader();
        assert_eq!((reader.written(), reader.read()), (0, vec![]));
        for number in 0..11 {
            log.push(entry(number));
            let kept: Vec<_> = (number.saturating_sub(3)..=number).map(entry).collect();
            assert_eq!(reader.read(), kept);
            assert_eq!(reader.written(), number + 1);
        }
    }

    #[test]
    fn every_field_survives() {
        let mut log = LogRing::new(0);
        for op in LogOp::ALL {
            let range = VaRange { start: u64::MAX - 1, len: 1 };
            let entry = LogEntry { time: Duration::from_nanos(u64::MAX), queue: u32::MAX, op, range };
            log.push(entry);
            assert_eq!(log.reader().read(), [entry]);
        }
    }

    /// What a reader meets when the writer overtakes it: a slot that is being written, or holds a later entry.
    #[test]
    fn an_overtaken_entry_and_those_before_are_not_returned() {
        let mut log = LogRing::new(2);
        let reader = log.reader();
        (0..4).for_each(|number| log.push(entry(number)));
        log.ring.slot(1).sequence.store(WRITING, Ordering::Relaxed);
        assert_eq!(reader.read(), [entry(2), entry(3)]);
        log.ring.slot(2).write(complete(6), entry(6).to_words());
        assert_eq!(reader.read(), [entry(3)]);
    }

    #[test]
    fn time_runs() {
        let log = LogRing::new(0);
        let before = log.now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(log.now() >= before + Duration::from_millis(2));
    }

    #[test]
    #[cfg_attr(miri, ignore = "minutes, for a number")]
    fn a_ring_is_not_larger_than_promised() {
        assert_eq!(LogRing::new(64).ring.slots.len(), 1 << MAX_SHIFT);
    }
}

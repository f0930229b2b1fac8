//! The firmware image: what the driver loads for the MCU, with the interfaces that both talk through.
//!
//! The format is that of `mali_csffw.bin` as `panthor_fw.c` reads it: a header, entries that describe sections, then their
//! data. There is no code in ours. What matters is the section at [`SHARED_VA`], whose initial data says where the request
//! and acknowledge words of the global interface, of each group slot and of each stream slot are. In the passive image both
//! are at the same place, so that a request, once written, reads as acknowledged. In the active image they are apart, and the
//! MCU that [`Gpu`](crate::Gpu) plays acknowledges.

/// Where the section that MCU and driver share starts, in the MCU's address space.
pub const SHARED_VA: u32 = 0x0400_0000;

pub(crate) const SHARED_LEN: u32 = 0x1_0000;
const CODE_LEN: u32 = 0x1000;

const MAGIC: u32 = 0xc3f1_3a6e;
const HEADER_LEN: u32 = 20;

/// Any number: the driver prints it.
const VERSION_HASH: u32 = 0xfa4e_0001;

/// Version 1.4.0 of the interfaces.
const INTERFACE_VERSION: u32 = 1 << 24 | 4 << 16;

/// Slots for groups.
pub(crate) const GROUPS: u32 = 8;
/// Slots for streams, in each group.
pub(crate) const STREAMS: u32 = 8;

/// Offsets in the shared section. The first three are the driver's choice, the last three ours.
const GROUP_CONTROL: u32 = 0x1000;
const GROUP_CONTROL_STRIDE: u32 = 0x100;
const STREAM_CONTROL: u32 = 0x40;
const STREAM_CONTROL_STRIDE: u32 = 0x10;
const GLOBAL_WORDS: u32 = 0x2000;
const GROUP_WORDS: u32 = 0x3000;
const STREAM_WORDS: u32 = 0x4000;
const WORDS_STRIDE: u32 = 0x200;
/// From the words of requests to those of acknowledgements, where they are apart.
const ACTIVE_OUTPUT: u32 = 0x100;

/// Registers of a stream.
pub(crate) const STREAM_REGISTERS: u32 = 96;
/// [`STREAM_REGISTERS`], 8 scoreboard slots, compute, fragment and tiler work.
const STREAM_FEATURES: u32 = 0b111 << 16 | 8 << 8 | (STREAM_REGISTERS - 1);
/// What the MCU writes of a stream when its group is suspended, in bytes.
pub(crate) const STREAM_SUSPEND_LEN: u32 = 0x400;
const SUSPEND_LEN: u32 = STREAMS * STREAM_SUSPEND_LEN;
const PERFCNT_LEN: u32 = 0x100;

const READ: u32 = 1 << 0;
const WRITE: u32 = 1 << 1;
const EXECUTE: u32 = 1 << 2;
const CACHED: u32 = 1 << 3;
const UNCACHED_COHERENT: u32 = 2 << 3;
const SHARED: u32 = 1 << 30;

/// A section of the image.
struct Section {
    name: &'static str,
    flags: u32,
    va: u32,
    len: u32,
    data: Vec<u8>,
}

/// The image whose requests acknowledge themselves.
pub fn passive() -> Vec<u8> {
    firmware(0)
}

/// The image for an MCU that acknowledges.
pub fn active() -> Vec<u8> {
    firmware(ACTIVE_OUTPUT)
}

/// Where the words of an interface are, as offsets in the shared section of the active image.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    /// What the driver writes.
    pub input: u32,
    /// What the MCU writes.
    pub output: u32,
}

impl Words {
    pub(crate) const GLOBAL: Self = Self::at(GLOBAL_WORDS);

    pub(crate) const fn group(group: u32) -> Self {
        Self::at(GROUP_WORDS + group * WORDS_STRIDE)
    }

    pub(crate) const fn stream(group: u32, stream: u32) -> Self {
        Self::at(STREAM_WORDS + (group * STREAMS + stream) * WORDS_STRIDE)
    }

    const fn at(offset: u32) -> Self {
        Self { input: offset, output: offset + ACTIVE_OUTPUT }
    }
}

fn firmware(output: u32) -> Vec<u8> {
    let code = Section {
        name: "code",
        flags: READ | EXECUTE | CACHED,
        va: 0,
        len: CODE_LEN,
        // A section cannot be empty. `udf`: never executed.
        data: 0xe7ff_defeu32.to_le_bytes().to_vec(),
    };
    let shared = Section {
        name: "shared",
        flags: READ | WRITE | UNCACHED_COHERENT | SHARED,
        va: SHARED_VA,
        len: SHARED_LEN,
        data: interfaces(output),
    };
    image(&[code, shared])
}

/// Initial data of the shared section: the control blocks of all interfaces. Acknowledgements are `output` bytes behind
/// requests.
fn interfaces(output: u32) -> Vec<u8> {
    let mut data = vec![0; SHARED_LEN as usize];
    let mut put = |offset: u32, words: &[u32]| {
        let at = offset as usize;
        for (word, bytes) in words.iter().zip(data[at..].chunks_exact_mut(4)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    };
    // Where requests go and acknowledgements come from.
    let words = |words: Words| [SHARED_VA + words.input, SHARED_VA + words.input + output];

    let [input, output] = words(Words::GLOBAL);
    put(0, &[INTERFACE_VERSION, 0, input, output, GROUPS, GROUP_CONTROL_STRIDE, PERFCNT_LEN, 0]);
    for group in 0..GROUPS {
        let control = GROUP_CONTROL + group * GROUP_CONTROL_STRIDE;
        let [input, output] = words(Words::group(group));
        put(control, &[0, input, output, SUSPEND_LEN, SUSPEND_LEN, STREAMS, STREAM_CONTROL_STRIDE]);
        for stream in 0..STREAMS {
            let control = control + STREAM_CONTROL + stream * STREAM_CONTROL_STRIDE;
            let [input, output] = words(Words::stream(group, stream));
            put(control, &[STREAM_FEATURES, input, output]);
        }
    }
    data
}

fn image(sections: &[Section]) -> Vec<u8> {
    let padded = |name: &str| (name.len() + 1).next_multiple_of(4);
    let entry_len = |section: &Section| 6 * 4 + padded(section.name) as u32;
    let entries: u32 = sections.iter().map(entry_len).sum();
    let data_start = HEADER_LEN + entries;

    // The version of the format is 0.0.
    let mut words = vec![MAGIC, 0, VERSION_HASH, 0, data_start];
    let mut start = data_start;
    for section in sections {
        let end = start + section.data.len() as u32;
        // Type 0, an interface section, and the entry's length.
        words.push(entry_len(section) << 8);
        words.extend([section.flags, section.va, section.va + section.len, start, end]);
        let mut name = section.name.as_bytes().to_vec();
        name.resize(padded(section.name), 0);
        words.extend(
            name.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))),
        );
        start = end;
    }
    let mut image: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    image.extend(sections.iter().flat_map(|section| &section.data));
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(image: &[u8], at: u32) -> u32 {
        let at = at as usize;
        u32::from_le_bytes(image[at..at + 4].try_into().unwrap())
    }

    /// Walks the entries as the driver does, and finds what it looks for in the shared section.
    #[test]
    fn entries_lead_to_the_interfaces() {
        lead_to_the_interfaces(&passive(), 0);
        lead_to_the_interfaces(&active(), ACTIVE_OUTPUT);
    }

    fn lead_to_the_interfaces(image: &[u8], apart: u32) {
        assert_eq!((word(image, 0), word(image, 4) & 0xffff), (MAGIC, 0));
        let end = word(image, 16);
        let (mut at, mut shared) = (HEADER_LEN, None);
        while at < end {
            let header = word(image, at);
            let [flags, va, va_end, start, stop] = [1, 2, 3, 4, 5].map(|n| word(image, at + n * 4));
            assert_eq!((header & 0xff, va % 4096, va_end % 4096), (0, 0, 0));
            assert!(start < stop && stop - start <= va_end - va && stop as usize <= image.len());
            if flags & SHARED != 0 {
                assert_eq!(va, SHARED_VA);
                assert_eq!(shared.replace(start), None, "one shared section");
            }
            at += header >> 8 & 0xff;
        }
        assert_eq!(at, end);

        let shared = shared.expect("a shared section");
        assert_eq!(word(image, shared) >> 24, 1);
        let groups = word(image, shared + 16);
        let stride = word(image, shared + 20);
        assert!(groups >= 3, "the driver wants at least three groups");
        let mut seen = std::collections::HashSet::new();
        let mut check = |input: u32, output: u32| {
            assert_eq!(input + apart, output, "where the request is acknowledged");
            assert!(
                seen.insert(input) && input >= SHARED_VA && input + WORDS_STRIDE <= SHARED_VA + SHARED_LEN
            );
        };
        check(word(image, shared + 8), word(image, shared + 12));
        for group in 0..groups {
            let control = shared + 0x1000 + group * stride;
            check(word(image, control + 4), word(image, control + 8));
            for stream in 0..word(image, control + 20) {
                let control = control + 0x40 + stream * word(image, control + 24);
                check(word(image, control + 4), word(image, control + 8));
            }
        }
    }
}

//! The host's end of the [channel](wire::channel): reads the file that is the guest's memory.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Result;
use wire::channel::{DATA, Kind, decode};
use wire::map;

/// What the guest reports.
pub enum Event {
    /// The program wrote.
    Output {
        /// To standard error.
        error: bool,
        /// What.
        data: Vec<u8>,
    },
    /// The guest's first process has something to say.
    Log(String),
    /// A file, complete.
    File {
        /// Relative path.
        name: String,
        /// Contents.
        data: Vec<u8>,
    },
    /// The program has ended.
    Status(i32),
}

/// Reads frames as they come.
pub struct Reader {
    memory: File,
    seen: u64,
    file: Option<(String, Vec<u8>)>,
}

impl Reader {
    /// Reads from `memory`, the guest's RAM.
    pub fn new(memory: File) -> Self {
        Self { memory, seen: 0, file: None }
    }

    /// What has come since the last call.
    pub fn read(&mut self) -> Result<Vec<Event>> {
        let start = map::CHANNEL.start - map::RAM.start;
        let mut end = [0; 4];
        self.memory.read_exact_at(&mut end, start)?;
        let end = u64::from(u32::from_le_bytes(end)).min(map::CHANNEL.end - map::CHANNEL.start - DATA);
        let mut data = vec![0; end.saturating_sub(self.seen) as usize];
        self.memory.read_exact_at(&mut data, start + DATA + self.seen)?;
        self.seen += data.len() as u64;

        let mut events = Vec::new();
        let mut stream = &data[..];
        while let Some((kind, payload)) = decode(&mut stream)? {
            self.take(kind, payload, &mut events);
        }
        Ok(events)
    }

    fn take(&mut self, kind: Kind, payload: &[u8], events: &mut Vec<Event>) {
        let text = || String::from_utf8_lossy(payload).into_owned();
        if kind != Kind::FileData
            && let Some((name, data)) = self.file.take()
        {
            events.push(Event::File { name, data });
        }
        match kind {
            Kind::Stdout | Kind::Stderr => {
                events.push(Event::Output { error: kind == Kind::Stderr, data: payload.to_vec() });
            }
            Kind::Log => events.push(Event::Log(text())),
            Kind::FileName => self.file = Some((text(), Vec::new())),
            Kind::FileData => {
                if let Some((_, data)) = &mut self.file {
                    data.extend_from_slice(payload);
                }
            }
            Kind::Status => {
                let status = payload.try_into().map_or(i32::MAX, i32::from_le_bytes);
                events.push(Event::Status(status));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::channel::encode;

    /// The guest's side: appends frames, then says how far they go.
    fn send(memory: &File, end: &mut u64, frames: &[(Kind, &[u8])]) {
        let start = map::CHANNEL.start - map::RAM.start;
        for word in frames.iter().flat_map(|(kind, payload)| encode(*kind, payload)) {
            memory.write_all_at(&word.to_le_bytes(), start + DATA + *end).unwrap();
            *end += 4;
        }
        memory.write_all_at(&(*end as u32).to_le_bytes(), start).unwrap();
    }

    #[test]
    fn frames_become_events() {
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(map::RAM.end - map::RAM.start).unwrap();
        let (mut reader, mut end) = (Reader::new(memory.try_clone().unwrap()), 0);
        assert!(reader.read().unwrap().is_empty());

        send(&memory, &mut end, &[(Kind::Stdout, b"hello"), (Kind::FileName, b"a"), (Kind::FileData, b"12")]);
        let events = reader.read().unwrap();
        assert!(matches!(&events[..], [Event::Output { error: false, data }] if data == b"hello"));
        // A file is complete when something else follows.
        send(
            &memory,
            &mut end,
            &[(Kind::FileData, b"345"), (Kind::FileName, b"b"), (Kind::Status, &[3, 0, 0, 0])],
        );
        let events = reader.read().unwrap();
        let [Event::File { name: a, data }, Event::File { name: b, data: none }, Event::Status(3)] =
            &events[..]
        else {
            panic!("{} events", events.len());
        };
        assert_eq!((&**a, &data[..], &**b, &none[..]), ("a", &b"12345"[..], "b", &b""[..]));
        assert!(reader.read().unwrap().is_empty(), "nothing comes twice");
    }
}

//! The guest's end of the [channel](wire::channel).

use anyhow::Result;
use parking_lot::Mutex;
use wire::channel::{DATA, Kind, encode};
use wire::map;

use crate::physical::Physical;

/// Kept free for the status and for what init has to say, however much the program writes.
const RESERVE: u32 = 0x1_0000;

/// Payload of a frame of bulk data.
const CHUNK: usize = 0x1_0000;

/// Where frames go.
pub struct Channel {
    memory: Physical,
    end: Mutex<u32>,
}

impl Channel {
    /// Maps it.
    pub fn open() -> Result<Self> {
        Ok(Self { memory: Physical::map(map::CHANNEL)?, end: Mutex::new(0) })
    }

    /// Sends `payload` in as many frames as it takes. Without room for it, nothing is sent: false.
    pub fn send(&self, kind: Kind, payload: &[u8]) -> bool {
        let mut end = self.end.lock();
        let reserve = if matches!(kind, Kind::Log | Kind::Status) { 0 } else { RESERVE };
        let room = (map::CHANNEL.end - map::CHANNEL.start - DATA) as u32 - *end;
        let frames = payload.len().div_ceil(CHUNK).max(1);
        if payload.len() + frames * 8 + reserve as usize > room as usize {
            return false;
        }
        let chunks = (0..frames).map(|n| &payload[n * CHUNK..payload.len().min((n + 1) * CHUNK)]);
        for word in chunks.flat_map(|chunk| encode(kind, chunk)) {
            self.memory.write(DATA as u32 + *end, word);
            *end += 4;
        }
        // The host may read up to here from now on.
        self.memory.write(0, *end);
        true
    }

    /// Tells the host something.
    pub fn log(&self, text: &str) {
        self.send(Kind::Log, format!("{text}\n").as_bytes());
    }

    /// Ends the stream with the program's exit status.
    pub fn status(&self, status: i32) {
        self.send(Kind::Status, &status.to_le_bytes());
    }
}

//! What the host and the guest of an emulated machine agree on: where things are in memory, which files the guest finds, and
//! the [`channel`] through which it reports.

pub mod channel;
pub mod map;
pub mod paths;

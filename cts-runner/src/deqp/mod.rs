//! The Vulkan CTS: runs deqp-vk, compares results, looks closely at a case.
//!
//! Not built on the deqp-runner crate. It reads standard output, without the reasons of results; it takes a failure that does not come again
//! for harmless, where with a layer under test it is the trace of an earlier case; it has neither shards nor a seed; its parsers and its
//! timeouts are private; and its hundred dependencies have some that nobody maintains.

mod cases;
mod compare;
mod qpa;
mod run;
mod target;
mod triage;

pub(crate) use compare::{CompareArguments, compare};
pub(crate) use run::{RunArguments, run};
pub(crate) use triage::{TriageArguments, triage};

//! The emulated panthor from outside: through the node, with raw ioctls and with `kmd`, down to the bytes that a CPU reads.

extern crate tessera_emulator as emulator;

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod group;
mod host;
mod limits;
mod memory;
mod queue;
mod random;
mod rig;
mod share;
mod syncobjs;

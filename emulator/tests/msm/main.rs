//! The emulated msm from outside: through the node, with raw ioctls and with `kmd`, down to the bytes that a CPU reads.

extern crate tessera_emulator as emulator;

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod memory;
mod queue;
mod random;
mod rig;
mod submit;

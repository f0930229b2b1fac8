//! kmd on the kernel's panthor: on a real machine with a Mali, or on the emulated one of `scripts/machines test`.

mod limits;
mod memory;
mod oops;
mod queue;
mod refusals;
mod rig;
mod share;
mod syncobjs;
mod tables;

//! kmd on the kernel's msm, in an emulated machine: `scripts/machines test msm`. What is mapped is read from the page tables.

mod limits;
mod memory;
mod oops;
mod queue;
mod refusals;
mod rig;
mod share;
mod submit;
mod unusable;

//! kmd on the kernel's msm: on a real machine with an Adreno, or on the emulated one of `scripts/machines test`.

mod limits;
mod rig;

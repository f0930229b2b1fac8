//! Jobs on the kernel's panthor: what runs, what waits, and what becomes of a VM when something goes wrong. They need the
//! active profile of the emulated GPU, whose streams and faults are all that is tested here: `scripts/machines test jobs`.

mod faults;
mod group;
mod hangs;
#[path = "../panthor/rig.rs"]
#[allow(dead_code, reason = "it has what the other tests need too")]
mod rig;
mod running;
mod stream;

//! What kernel drivers are held to: fences that a test holds back, a GPU that breaks when a test says so, and scripts of ioctls
//! that two kernels play side by side, the real one and the emulated one.

pub mod bind;
pub mod compare;
pub mod gate;
pub mod generated;
pub mod injection;
pub mod kernel;
pub mod script;

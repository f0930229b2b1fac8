//! What the tests on real kernels share: fences that a test holds back, and a look at what a VM maps.

pub mod gate;
pub mod gpuvas;

//! `VK_LAYER_TESSERA_sparse_binding`: a Vulkan layer that owns sparse binding.
//!
//! It takes `vkQueueBindSparse` away from the driver, keeps its own picture of the GPU's virtual address space (`gpuvm`), and tells the
//! kernel (`kmd`) the fewest VM_BIND operations that make the picture true. `docs/how-it-works.md` follows a bind through the rooms.

// The library file is named as the loader's world names layers: libVkLayer_tessera.so.
#![allow(non_snake_case)]

mod added;
mod address_space;
mod arrays;
mod buffer;
mod carrier;
mod chain;
mod config;
mod decode;
mod device;
mod entry;
mod format;
mod handles;
mod icd;
mod image;
mod instance;
mod layout;
mod loader;
mod log;
mod memory;
mod mirror;
mod payload;
mod picture;
mod queue;
mod report;
mod reservation;
mod residency;
mod resource;
mod semaphore;
mod shader;
mod spirv;
mod stats;
mod tiles;
mod vk_registry;

pub use entry::vkNegotiateLoaderLayerInterfaceVersion;

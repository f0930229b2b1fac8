//! What a program does with sparse binding, in steps: the page table after each one is compared.

mod buffers;
mod crowd;
mod images;
mod lost;
mod processes;
mod sync;

use crate::gpu::Gpu;
use crate::image::Layers;
use anyhow::Result;
use ash::vk;
use client::Emulator;
pub use processes::{End, other};
use std::process::{Command, Stdio};

/// The fewest operations that a step takes, where one is known. Each bind of the driver's own for resources and memory counts too.
pub type Fewest = Option<u64>;

/// What a step takes that not every driver has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// Both queues of [`Gpu`] bind.
    TwoBindQueues,
    /// The driver binds on a queue of the kernel's that can be held back alone.
    OwnQueue,
    /// The kernel fails when it is asked to, and two queues bind.
    Faults,
    /// That, and the kernel is msm, in which more failures make the VM unusable.
    FaultsOfMsm,
    /// As [`Self::Faults`], and the layer.
    LayerAndFaults,
    /// The kernel's queues can be held back, and a process can start this program again.
    Processes,
}

impl Needs {
    pub fn are_met(self, gpu: &Gpu) -> bool {
        match self {
            Self::Nothing => true,
            Self::TwoBindQueues => gpu.other_binds,
            Self::OwnQueue => {
                gpu.other_binds && gpu.node.holds_queues() && gpu.driver == vk::DriverId::MESA_TURNIP
            }
            Self::Faults => gpu.other_binds && Emulator::find().is_some(),
            Self::FaultsOfMsm => gpu.driver == vk::DriverId::MESA_TURNIP && Self::Faults.are_met(gpu),
            Self::LayerAndFaults => is_layered() && Self::Faults.are_met(gpu),
            Self::Processes => Emulator::find().is_some() && starts_again(),
        }
    }
}

/// Whether the layer is there, as `scripts/drivers` and `compare` ask for it.
pub fn is_layered() -> bool {
    std::env::var("VK_INSTANCE_LAYERS").is_ok_and(|layers| layers.contains(manifest::LAYER))
}

/// Whether this program can be run as it is: not where an emulator of another processor runs it.
fn starts_again() -> bool {
    let again = std::env::current_exe()
        .and_then(|this| Command::new(this).arg("--version").stdout(Stdio::null()).status());
    again.is_ok_and(|status| status.success())
}

/// A step: does something, and leaves what it made in place, so that the page table shows it.
pub struct Step {
    pub name: &'static str,
    pub needs: Needs,
    /// Done before counting.
    pub prepare: fn(&Gpu) -> Result<Resources>,
    pub run: fn(&Gpu, &Resources) -> Result<()>,
    pub fewest: Fewest,
    /// Whether the layer makes it possible where the driver does not say that it can do it.
    pub extra: bool,
}

/// What a step works on; destroyed after it was looked at.
#[derive(Default)]
pub struct Resources {
    pub buffers: Vec<vk::Buffer>,
    pub images: Vec<vk::Image>,
    /// How the first image is laid out.
    pub layers: Option<Layers>,
    pub semaphores: Vec<vk::Semaphore>,
}

impl Resources {
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty() && self.images.is_empty()
    }

    pub fn destroy(self, gpu: &Gpu) {
        // SAFETY: the step is over, with everything that it submitted.
        unsafe {
            self.buffers.iter().for_each(|&buffer| gpu.device.destroy_buffer(buffer, None));
            self.images.iter().for_each(|&image| gpu.device.destroy_image(image, None));
            self.semaphores.iter().for_each(|&semaphore| gpu.device.destroy_semaphore(semaphore, None));
        }
    }
}

/// All steps, in their order.
pub fn all() -> impl Iterator<Item = Step> {
    buffers::steps()
        .into_iter()
        .chain(images::steps())
        .chain(sync::steps())
        .chain(crowd::steps())
        .chain(lost::steps())
        .chain(processes::steps())
}

/// A fixed shuffle of `0..count`.
fn shuffled(count: u64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for i in (1..order.len()).rev() {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        order.swap(i, ((z ^ (z >> 31)) % (i as u64 + 1)) as usize);
    }
    order
}

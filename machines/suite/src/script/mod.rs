//! Scripts: ioctls in order, as data.
//!
//! Everything is named by the numbers that the kernel gives, which both kernels must give alike: handles and ids count up, and
//! handles are the lowest free ones. Nothing keeps a script from naming what does not exist.

pub mod drm;
pub mod msm;
pub mod panthor;
mod session;

pub use session::Session;

use core::fmt::Debug;
use core::ops::Range;

use kmd::Errno;

use crate::kernel::{Kernel, Mapping};

/// Smallest page, in bytes.
pub const PAGE: u64 = 4096;

/// What one block entry maps, in bytes.
pub const BLOCK: u64 = 2 << 20;

/// The addresses that scripts bind.
pub const WINDOW: Range<u64> = 0x10_0000_0000..0x10_0400_0000;

/// One ioctl, or what takes its place where an ioctl needs a partner: of every driver, or of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Step<S> {
    /// What all drivers have in common.
    Drm(drm::Step),
    /// What this one has.
    Driver(S),
}

/// A driver: its steps, and what a player knows besides handles.
pub trait Driver: Default {
    /// An ioctl of this driver.
    type Step: Clone + Debug + PartialEq;

    /// Plays one step. Work that it queues may go on.
    fn play<K: Kernel>(&mut self, session: &mut Session<K>, step: &Self::Step) -> Outcome;

    /// Whether the step may change what a VM is or maps.
    fn changes(step: &Self::Step) -> bool;

    /// Every VM as it is now.
    fn view<K: Kernel>(&mut self, session: &mut Session<K>) -> Vec<VmView>;
}

/// A VM: its state, and what it maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmView {
    /// The VM's id.
    pub id: u32,
    /// Whether it is unusable, as the driver says it.
    pub state: Result<u32, Errno>,
    /// Mappings in order of address, continuing ones joined.
    pub mappings: Vec<Mapping>,
}

/// Plays the steps of one script on a kernel, and looks at what they do.
pub struct Player<K, D> {
    session: Session<K>,
    driver: D,
}

impl<K: Kernel, D: Driver> Player<K, D> {
    /// Starts with an open file in which nothing exists.
    pub fn new(kernel: K) -> Self {
        Self { session: Session::new(kernel), driver: D::default() }
    }

    /// Plays one step. Work that it queues may go on.
    pub fn play(&mut self, step: &Step<D::Step>) -> Outcome {
        match step {
            Step::Drm(step) => self.session.play(step),
            Step::Driver(step) => self.driver.play(&mut self.session, step),
        }
    }

    /// Every VM as it is now.
    pub fn view(&mut self) -> Vec<VmView> {
        let mut views = self.driver.view(&mut self.session);
        for view in &mut views {
            view.mappings = join(core::mem::take(&mut view.mappings));
        }
        views
    }
}

/// Joins what continues: how many pieces a kernel keeps is its own affair.
fn join(mappings: Vec<Mapping>) -> Vec<Mapping> {
    let mut joined: Vec<Mapping> = Vec::new();
    for mapping in mappings {
        match joined.last_mut() {
            Some(last) if last.continues_as(&mapping) => last.len += mapping.len,
            _ => joined.push(mapping),
        }
    }
    joined
}

/// What a step answered: the numbers that came back, or the error. With an error, a bind also says how far it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Success, or the error.
    pub result: Result<(), Errno>,
    /// What came back.
    pub values: Vec<u64>,
}

/// Instead of a step that must not be played.
const LEFT_OUT: Outcome = Outcome { result: Err(Errno::CANCELED), values: vec![] };

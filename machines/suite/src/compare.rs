//! Two kernels play a script side by side.

use core::time::Duration;
use std::collections::HashMap;
use std::thread;

use crate::kernel::{Kernel, Mapping};
use crate::script::{Driver, Outcome, Player, Step, VmView, drm};

/// How long queued work gets to come to rest before it is looked at. Where that is not enough, it gets the same again.
const SETTLE: Duration = Duration::from_millis(2);

/// How often it is looked at before a difference is one: plenty for what one step can queue.
const LOOKS: usize = 10;

/// Where the emulated kernel differs from the real one.
#[derive(Debug, thiserror::Error)]
pub enum Difference {
    /// In what a step answered.
    #[error("step {step}: the kernel answers {real:?}, the emulator {emulated:?}")]
    Outcome {
        /// Index of the step.
        step: usize,
        /// What the real kernel answered.
        real: Outcome,
        /// What the emulated kernel answered.
        emulated: Outcome,
    },
    /// In what a VM is or maps afterwards.
    #[error("after step {step}: the kernel has\n  {real:x?}\nthe emulator\n  {emulated:x?}")]
    View {
        /// Index of the step.
        step: usize,
        /// The real kernel's VMs.
        real: Vec<VmView>,
        /// The emulated kernel's VMs.
        emulated: Vec<VmView>,
    },
}

/// What a script came to, on both kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps that were done.
    pub done: usize,
    /// Steps that were refused.
    pub refused: usize,
}

/// Plays `script` on the running kernel and on an emulated one, and compares after every step.
pub fn compare<D: Driver>(
    script: &[Step<D::Step>],
    real: impl Kernel,
    emulated: impl Kernel,
) -> Result<Tally, Difference> {
    let (mut real, mut emulated) = (Player::<_, D>::new(real), Player::<_, D>::new(emulated));
    let (mut names, mut tally) = (Names::default(), Tally::default());
    for (n, step) in script.iter().enumerate() {
        let (theirs, ours) = (real.play(step), emulated.play(step));
        if theirs != ours {
            return Err(Difference::Outcome { step: n, real: theirs, emulated: ours });
        }
        match theirs.result {
            Ok(()) => tally.done += 1,
            Err(_) => tally.refused += 1,
        }
        if let (Step::Drm(drm::Step::BoClose { handle }), Ok(())) = (step, theirs.result) {
            names.forget((*handle).into());
        }
        let changes = match step {
            Step::Drm(step) => *step == drm::Step::Release,
            Step::Driver(step) => D::changes(step),
        };
        if changes {
            settle(&mut names, &mut real, &mut emulated).map_err(|(real, emulated)| Difference::View {
                step: n,
                real,
                emulated,
            })?;
        }
    }
    Ok(tally)
}

/// Waits until both have the same VMs. If they never have, what they have in the end.
fn settle<D: Driver>(
    names: &mut Names,
    real: &mut Player<impl Kernel, D>,
    emulated: &mut Player<impl Kernel, D>,
) -> Result<(), (Vec<VmView>, Vec<VmView>)> {
    let mut looks = 0;
    loop {
        thread::sleep(SETTLE);
        let (theirs, ours) = (real.view(), emulated.view());
        // What is half done names objects wrongly.
        let mut learnt = names.clone();
        if learnt.agree(&theirs, &ours) {
            *names = learnt;
            return Ok(());
        }
        looks += 1;
        if looks == LOOKS {
            return Err((theirs, ours));
        }
    }
}

/// Which of the real kernel's objects is which of the emulated one's: learnt from where they show up.
#[derive(Clone, Default)]
struct Names(HashMap<u64, u64>);

impl Names {
    /// `handle` names nothing any more, or soon something else.
    fn forget(&mut self, handle: u64) {
        self.0.retain(|name, _| *name != handle);
    }

    fn agree(&mut self, real: &[VmView], emulated: &[VmView]) -> bool {
        real.len() == emulated.len()
            && real.iter().zip(emulated).all(|(real, emulated)| {
                (real.id, real.state) == (emulated.id, emulated.state)
                    && real.mappings.len() == emulated.mappings.len()
                    && real.mappings.iter().zip(&emulated.mappings).all(|(r, e)| self.same(r, e))
            })
    }

    fn same(&mut self, real: &Mapping, emulated: &Mapping) -> bool {
        let range = (real.va, real.len) == (emulated.va, emulated.len);
        range
            && match (real.object, emulated.object) {
                (None, None) => true,
                // The emulator does not tell closed objects apart.
                (Some((_, at)), Some((0, offset))) => at == offset,
                (Some((object, at)), Some((handle, offset))) => {
                    at == offset && *self.0.entry(handle).or_insert(object) == object
                }
                _ => false,
            }
    }
}

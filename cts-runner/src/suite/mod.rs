//! The project's own suite: every case checks data through shaders or copies, and is written from the Vulkan specification.
//!
//! A case's name is `area.what.how`. It runs in a process of its own and owns everything it creates.

mod added_queues;
mod bad_input;
mod buffer_rig;
mod buffers;
mod faults;
mod image_opaque;
mod image_residency;
mod image_rig;
mod lifetime;
mod memory;
mod queries;
mod queue;
mod random;
mod residency_code;
mod threads;

use crate::gpu::{Gpu, Need};
use crate::outcome::Outcome;
use crate::settings::{Listening, Settings};

/// What a case accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Touches {
    /// Bound memory alone.
    Bound,
    /// Also unbound parts of resources, on purpose.
    Unbound,
}

type Run = Box<dyn Fn(&Ctx) -> Outcome + Send + Sync>;

/// One case of the suite.
pub(crate) struct Case {
    pub(crate) name: String,
    /// Answers NotSupported unless all of these are there.
    needs: Vec<Need>,
    touches: Touches,
    /// Fails when the layer maps nothing.
    pub(crate) detects_missing_maps: bool,
    /// Why the case says nothing about a driver without the layer.
    layer_only: Option<&'static str>,
    /// Breaks valid usage on purpose, which a validation layer above would report.
    breaks_rules: bool,
    /// What the validation layer above gets wrong about the case.
    mistaken_above: Option<&'static str>,
    /// `TESSERA_FAULT` for this case.
    pub(crate) fault: Option<String>,
    pub(crate) run: Run,
}

impl Case {
    /// A case that touches bound memory alone.
    pub(crate) fn new(
        name: impl Into<String>,
        needs: &[Need],
        run: impl Fn(&Ctx) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            needs: needs.to_vec(),
            touches: Touches::Bound,
            detects_missing_maps: false,
            layer_only: None,
            breaks_rules: false,
            mistaken_above: None,
            fault: None,
            run: Box::new(run),
        }
    }

    /// Marks a case that fails when the layer maps nothing.
    pub(crate) fn detects_missing_maps(mut self) -> Self {
        self.detects_missing_maps = true;
        self
    }

    /// Marks a case that touches unbound pages on purpose: the trap mode skips it.
    pub(crate) fn touches_unbound(mut self) -> Self {
        self.touches = Touches::Unbound;
        self
    }

    /// Marks a case that asks for more than the specification does, of whoever executes the binds: it is for the emulated kernels.
    pub(crate) fn layer_only(mut self, reason: &'static str) -> Self {
        self.layer_only = Some(reason);
        self
    }

    /// Marks a case that breaks valid usage: undefined without the layer, reported by a validation layer above.
    pub(crate) fn breaks_rules(mut self) -> Self {
        self.breaks_rules = true;
        self.layer_only("invalid usage is undefined without the layer")
    }

    /// Marks a valid case that the validation layer 1.3.239 complains about when it is above.
    pub(crate) fn mistaken_above(mut self, mistake: &'static str) -> Self {
        self.mistaken_above = Some(mistake);
        self
    }

    /// Runs the case under a fault of its own.
    pub(crate) fn fault(mut self, spec: impl Into<String>) -> Self {
        self.fault = Some(spec.into());
        self
    }

    /// `TESSERA_SPARSE_QUEUES` for this case: queues that a driver with a single one lacks.
    pub(crate) fn added_queues(&self) -> Option<&'static str> {
        self.needs.contains(&Need::TwoSparseQueues).then_some("2")
    }

    /// Why the case cannot say anything under `settings`; `faulty`: every case runs under a fault already.
    pub(crate) fn skip_reason(&self, settings: &Settings, faulty: bool) -> Option<&'static str> {
        if settings.trap() && self.touches == Touches::Unbound {
            return Some("touches unbound pages on purpose");
        }
        // That rules are broken, the layer notices whoever executes.
        let is_served = if self.breaks_rules { settings.layer() } else { settings.emulated() };
        if !is_served && self.layer_only.is_some() {
            return self.layer_only;
        }
        if self.breaks_rules && settings.listening == Listening::Above {
            return Some("breaks valid usage on purpose");
        }
        if self.mistaken_above.is_some() && settings.listening == Listening::Above {
            return self.mistaken_above;
        }
        if self.fault.is_some() && !settings.emulated() {
            return Some("only the emulated kernels fail on demand");
        }
        if self.fault.is_some() && faulty {
            return Some("has a fault of its own");
        }
        None
    }
}

/// What a case is run with.
pub(crate) struct Ctx {
    pub(crate) settings: Settings,
    needs: Vec<Need>,
}

impl Ctx {
    pub(crate) fn new(settings: &Settings, case: &Case) -> Self {
        Self { settings: settings.clone(), needs: case.needs.clone() }
    }

    /// A device with everything that the case needs.
    pub(crate) fn gpu(&self) -> Outcome<Gpu> {
        Gpu::new(&self.needs, self.settings.listening != Listening::None)
    }
}

/// Every case, sorted by name.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    added_queues::add(&mut cases);
    bad_input::add(&mut cases);
    buffers::add(&mut cases);
    faults::add(&mut cases);
    image_opaque::add(&mut cases);
    image_residency::add(&mut cases);
    lifetime::add(&mut cases);
    memory::add(&mut cases);
    queries::add(&mut cases);
    queue::add(&mut cases);
    residency_code::add(&mut cases);
    threads::add(&mut cases);
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_baseline() {
        let cases = cases();
        for pair in cases.windows(2) {
            assert_ne!(pair[0].name, pair[1].name);
        }
        for case in &cases {
            let name = &case.name;
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{name}");
            assert!(name.contains('.'), "{name} has no area");
        }
    }

    #[test]
    fn the_negative_control_has_cases_in_every_area_that_maps() {
        let cases = cases();
        for area in ["buffer", "memory", "image", "queue", "lifetime"] {
            let prefix = format!("{area}.");
            let count = cases
                .iter()
                .filter(|case| case.detects_missing_maps && case.name.starts_with(&prefix))
                .count();
            assert!(count > 0, "no case of {area} notices missing maps");
        }
    }
}

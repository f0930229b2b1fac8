//! What a case is run against.

use clap::{Args, ValueEnum};
use std::fmt;

/// Name of the layer under test.
pub(crate) const LAYER: &str = "VK_LAYER_TESSERA_sparse_binding";
/// Name of the Khronos validation layer.
pub(crate) const VALIDATION_LAYER: &str = "VK_LAYER_KHRONOS_validation";

/// Who executes the binds: `TESSERA_KERNEL`, or no layer at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    Auto,
    Panthor,
    Msm,
    EmulatedPanthor,
    EmulatedMsm,
    Forward,
    Off,
    /// The driver alone, without the layer.
    Native,
}

/// What the emulated kernel makes of unbound pages: `TESSERA_UNBOUND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Unbound {
    /// Reads give zero.
    Zero,
    /// Any access ends the process.
    Trap,
}

/// Where the Khronos validation layer listens in one run of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listening {
    None,
    /// Between the application and our layer.
    Above,
    /// Between our layer and the driver.
    Below,
}

/// One run's settings.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Who executes the binds.
    #[arg(long, value_enum, default_value_t = Kernel::Auto)]
    pub(crate) kernel: Kernel,
    /// What unbound pages do under an emulated kernel.
    #[arg(long, value_enum, default_value_t = Unbound::Zero)]
    pub(crate) unbound: Unbound,
    /// Where the validation layer is.
    #[arg(long, value_enum, default_value_t = Listening::None)]
    pub(crate) listening: Listening,
}

impl Settings {
    /// Whether our layer is loaded.
    pub(crate) fn layer(&self) -> bool {
        self.kernel != Kernel::Native
    }

    /// Whether an emulated kernel executes the binds. `auto` picks it on CPU drivers.
    pub(crate) fn emulated(&self) -> bool {
        matches!(self.kernel, Kernel::Auto | Kernel::EmulatedPanthor | Kernel::EmulatedMsm)
    }

    /// Whether a touch of an unbound page ends the process.
    pub(crate) fn trap(&self) -> bool {
        self.layer() && self.unbound == Unbound::Trap
    }

    /// Value of `VK_INSTANCE_LAYERS`: the first is nearest to the application.
    pub(crate) fn instance_layers(&self) -> String {
        let ours = self.layer().then_some(LAYER);
        let (above, below) = match self.listening {
            Listening::None => (None, None),
            Listening::Above => (Some(VALIDATION_LAYER), None),
            Listening::Below => (None, Some(VALIDATION_LAYER)),
        };
        [above, ours, below].into_iter().flatten().collect::<Vec<_>>().join(":")
    }

    /// The settings as arguments of this program.
    pub(crate) fn arguments(&self) -> [String; 3] {
        [
            format!("--kernel={}", Spelled(self.kernel)),
            format!("--unbound={}", Spelled(self.unbound)),
            format!("--listening={}", Spelled(self.listening)),
        ]
    }
}

/// A value as it is spelled on the command line.
pub(crate) struct Spelled<T>(pub(crate) T);

impl<T: ValueEnum> fmt::Display for Spelled<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.to_possible_value() {
            Some(value) => out.write_str(value.get_name()),
            None => Ok(()),
        }
    }
}

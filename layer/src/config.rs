//! What the environment asks of the layer.

use emulator::{Faults, Unbound};
use std::path::PathBuf;
use std::sync::OnceLock;
use thiserror::Error;

/// Which kernel executes the layer's binds (`TESSERA_KERNEL`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kernel {
    /// By driver: the emulated panthor under CPU drivers, the kernel's own msm or panthor under Turnip and PanVK, the driver itself
    /// elsewhere.
    Auto,
    EmulatedPanthor,
    EmulatedMsm,
    /// The kernel's msm, for Turnip.
    Msm,
    /// The kernel's panthor, for PanVK.
    Panthor,
    /// The driver itself, with its own sparse binding.
    Forward,
    /// The layer stands aside for every device.
    Off,
}

/// More than any application asks for.
const MAX_SPARSE_QUEUES: u32 = 16;
/// 2 to the power of this are a million updates, 40 MiB.
const MAX_VM_LOG: u32 = 20;

/// Everything that is read from the environment, once a process.
#[derive(Clone, Debug)]
pub struct Config {
    pub kernel: Kernel,
    /// What a CPU driver sees in unbound pages (`TESSERA_UNBOUND`).
    pub unbound: Unbound,
    /// Faults of the emulated kernel (`TESSERA_FAULT`).
    pub faults: Faults,
    /// The negative control: binds reach the page table but not the CPU's address space (`TESSERA_FAULT=map-nothing`).
    pub map_nothing: bool,
    /// Offer residency that a driver can be brought to and does not offer (`TESSERA_EXTRA`).
    pub extra: bool,
    /// Compare mirror and page table after every bind (`TESSERA_VERIFY`).
    pub verify: bool,
    /// Where the mirror is shown whenever a device is idle (`TESSERA_MIRROR`).
    pub mirror: Option<PathBuf>,
    /// Binds go through the kernel's bind queue even where they have nothing to wait for (`TESSERA_QUEUED`).
    pub queued: bool,
    /// How many queues the family has that the layer adds to devices whose binding it owns (`TESSERA_SPARSE_QUEUES`); 0: no family.
    pub sparse_queues: u32,
    /// How many updates of an address space are kept for the log: 2 to the power of this (`TESSERA_VM_LOG`).
    pub vm_log: Option<u32>,
    /// Where counters go when a device is destroyed (`TESSERA_STATS`).
    pub stats: Option<PathBuf>,
}

/// An environment variable that cannot be obeyed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    #[error("{variable}={value:?} is not one of {allowed}")]
    Value { variable: &'static str, value: String, allowed: &'static str },
}

impl Config {
    /// The process's configuration. Read once: a layer that changes its mind between two instances would be hard to reason about.
    pub fn get() -> Result<&'static Self, &'static ConfigError> {
        static CONFIG: OnceLock<Result<Config, ConfigError>> = OnceLock::new();
        CONFIG
            .get_or_init(|| Self::from_variables(|name| std::env::var_os(name)?.into_string().ok()))
            .as_ref()
    }

    /// Reads the configuration through `variable`, which answers for a name as the environment would.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text = |name: &str| variable(name).filter(|value| !value.is_empty());
        let kernel = match text("TESSERA_KERNEL").as_deref() {
            None | Some("auto") => Kernel::Auto,
            Some("emulated-panthor") => Kernel::EmulatedPanthor,
            Some("off") => Kernel::Off,
            Some("panthor") => Kernel::Panthor,
            Some("msm") => Kernel::Msm,
            Some("emulated-msm") => Kernel::EmulatedMsm,
            Some("forward") => Kernel::Forward,
            Some(other) => {
                return Err(ConfigError::Value {
                    variable: "TESSERA_KERNEL",
                    value: other.into(),
                    allowed: "auto, panthor, msm, emulated-panthor, emulated-msm, forward, off",
                });
            }
        };
        let unbound = match text("TESSERA_UNBOUND").as_deref() {
            None | Some("zero") => Unbound::Zero,
            Some("trap") => Unbound::Trap,
            Some(other) => {
                return Err(ConfigError::Value {
                    variable: "TESSERA_UNBOUND",
                    value: other.into(),
                    allowed: "zero, trap",
                });
            }
        };
        let extra = match text("TESSERA_EXTRA").as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(other) => {
                return Err(ConfigError::Value {
                    variable: "TESSERA_EXTRA",
                    value: other.into(),
                    allowed: "on, off",
                });
            }
        };
        let switch = |variable| match text(variable).as_deref() {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(ConfigError::Value { variable, value: other.into(), allowed: "0, 1" }),
        };
        let (verify, queued) = (switch("TESSERA_VERIFY")?, switch("TESSERA_QUEUED")?);
        let (faults, map_nothing) = parse_faults(text("TESSERA_FAULT").as_deref().unwrap_or(""))?;
        let number = |variable, most: u32, allowed| {
            let parse = |value: String| match value.parse() {
                Ok(number) if number <= most => Ok(number),
                _ => Err(ConfigError::Value { variable, value, allowed }),
            };
            text(variable).map(parse).transpose()
        };
        let sparse_queues = number("TESSERA_SPARSE_QUEUES", MAX_SPARSE_QUEUES, "0 to 16")?.unwrap_or(0);
        let vm_log = number("TESSERA_VM_LOG", MAX_VM_LOG, "0 to 20")?;
        let file = |name| text(name).map(PathBuf::from);
        let (mirror, stats) = (file("TESSERA_MIRROR"), file("TESSERA_STATS"));
        Ok(Self {
            kernel,
            unbound,
            faults,
            map_nothing,
            extra,
            verify,
            mirror,
            queued,
            sparse_queues,
            vm_log,
            stats,
        })
    }
}

fn parse_faults(text: &str) -> Result<(Faults, bool), ConfigError> {
    let wrong = || ConfigError::Value {
        variable: "TESSERA_FAULT",
        value: text.into(),
        allowed: "alloc:N, op:N, ioctl:N (N from 1), map-nothing; several with commas",
    };
    let (nothing, kinds): (Vec<_>, Vec<_>) = text.split(',').partition(|item| *item == "map-nothing");
    let faults: Faults = kinds.join(",").parse().map_err(|_| wrong())?;
    // Jobs of the GPU do not come to this kernel.
    if faults.job.is_some() { Err(wrong()) } else { Ok((faults, !nothing.is_empty())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_variables(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        })
    }

    #[test]
    fn defaults_are_quiet_and_automatic() {
        let config = with(&[]).unwrap();
        assert_eq!(config.kernel, Kernel::Auto);
        assert!(!config.map_nothing && !config.verify && config.stats.is_none());
        assert!(config.extra && !with(&[("TESSERA_EXTRA", "off")]).unwrap().extra);
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_allowed() {
        for (variable, value) in [
            ("TESSERA_KERNEL", "panthr"),
            ("TESSERA_UNBOUND", "one"),
            ("TESSERA_VERIFY", "yes"),
            ("TESSERA_EXTRA", "0"),
            ("TESSERA_QUEUED", "2"),
            ("TESSERA_FAULT", "op:0"),
            ("TESSERA_FAULT", "op"),
            ("TESSERA_FAULT", "job:1"),
            ("TESSERA_SPARSE_QUEUES", "17"),
            ("TESSERA_SPARSE_QUEUES", "two"),
        ] {
            let message = with(&[(variable, value)]).unwrap_err().to_string();
            assert!(message.contains(variable) && message.contains(value), "{message}");
        }
        assert_eq!(with(&[("TESSERA_KERNEL", "panthor")]).unwrap().kernel, Kernel::Panthor);
    }

    #[test]
    fn faults_are_read() {
        let config = with(&[("TESSERA_FAULT", "op:3,map-nothing,ioctl:7")]).unwrap();
        assert!(config.map_nothing);
        assert_eq!(config.faults.op, Some(3));
        assert_eq!(config.faults.ioctl, Some(7));
    }
}

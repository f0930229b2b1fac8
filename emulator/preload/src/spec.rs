//! What `TESSERA_EMULATE` asks for.

use core::fmt;
use std::sync::Arc;

use emulator::{Config, Gpu, Mali, Node};
use rustix::io::Errno;

/// The device to emulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    Msm(Gpu),
    Panthor(Mali),
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Msm(gpu) => write!(
                f,
                "msm:{},hbb={},swizzle={},macrotile={},prr={}",
                gpu.name,
                gpu.highest_bank_bit,
                gpu.ubwc_swizzle,
                gpu.macrotile_mode,
                u8::from(gpu.prr)
            ),
            Self::Panthor(mali) => write!(f, "panthor:{},minor={}", mali.name, mali.minor),
        }
    }
}

/// Why a text names no device.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("\"{0}\" is no device: msm:{adrenos} or panthor:{malis}", adrenos = adrenos(), malis = malis())]
    Device(String),
    #[error(
        "\"{0}\" is no option of msm: hbb=BIT, swizzle=MASK, macrotile=0|1, prr=0|1; or of panthor: minor=8|9"
    )]
    Option(String),
}

/// The names of all Adrenos that there are.
fn adrenos() -> String {
    Gpu::ALL.map(|gpu| gpu.name).join("|")
}

/// The names of all Malis that there are.
fn malis() -> String {
    Mali::ALL.map(|mali| mali.name).join("|")
}

impl Model {
    /// Reads `msm:GPU` or `panthor:GPU`. After `msm:GPU` may follow, with commas, what the board decides: `hbb` (highest bank bit),
    /// `swizzle` (mask of UBWC levels), `macrotile` (mode) and `prr` (whether there is `MAP_NULL`); after `panthor:GPU` the
    /// driver's `minor` version.
    pub(crate) fn parse(text: &str) -> Result<Self, SpecError> {
        let unknown = || SpecError::Device(text.to_owned());
        let (driver, words) = text.split_once(':').ok_or_else(unknown)?;
        let mut words = words.split(',');
        let name = words.next().ok_or_else(unknown)?;
        let mut model = match driver {
            "msm" => Gpu::find(name).map(Self::Msm),
            "panthor" => Mali::find(name).map(Self::Panthor),
            _ => None,
        }
        .ok_or_else(unknown)?;
        for word in words {
            let wrong = || SpecError::Option(word.to_owned());
            let (key, value) = word.split_once('=').ok_or_else(wrong)?;
            let value: u64 = value.parse().map_err(|_| wrong())?;
            match (&mut model, key, value) {
                (Self::Msm(gpu), "hbb", 13..=20) => gpu.highest_bank_bit = value,
                (Self::Msm(gpu), "swizzle", 0..=7) => gpu.ubwc_swizzle = value,
                (Self::Msm(gpu), "macrotile", 0..=1) => gpu.macrotile_mode = value,
                (Self::Msm(gpu), "prr", 0..=1) => gpu.prr = value == 1,
                (Self::Panthor(mali), "minor", 8..=9) => mali.minor = value as i32,
                _ => return Err(wrong()),
            }
        }
        Ok(model)
    }

    /// The driver's name.
    pub(crate) fn driver(&self) -> &'static str {
        match self {
            Self::Msm(_) => "msm",
            Self::Panthor(_) => "panthor",
        }
    }

    /// A new device of this model.
    pub(crate) fn create(&self, config: Config) -> Result<Arc<Node>, Errno> {
        match self {
            Self::Msm(gpu) => Node::msm(*gpu, config),
            Self::Panthor(mali) => Node::mali(*mali, config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_options() {
        for mali in Mali::ALL {
            assert_eq!(Model::parse(&format!("panthor:{}", mali.name)), Ok(Model::Panthor(mali)));
        }
        let wanted = Mali { minor: 8, ..Mali::G610 };
        assert_eq!(Model::parse("panthor:g610,minor=8"), Ok(Model::Panthor(wanted)));
        assert_eq!(Model::Panthor(wanted).to_string(), "panthor:g610,minor=8");
        for gpu in Gpu::ALL {
            assert_eq!(Model::parse(&format!("msm:{}", gpu.name)), Ok(Model::Msm(gpu)));
        }
        let wanted =
            Gpu { highest_bank_bit: 14, ubwc_swizzle: 7, macrotile_mode: 0, prr: false, ..Gpu::A750 };
        let text = "msm:a750,hbb=14,swizzle=7,macrotile=0,prr=0";
        assert_eq!(Model::parse(text), Ok(Model::Msm(wanted)));
        assert_eq!(Model::Msm(wanted).to_string(), text);
    }

    #[test]
    fn errors_name_what_is_allowed() {
        for text in ["", "msm", "msm:", "msm:a999", "panthor:a750", "panthor", "msm:a750,"] {
            let error = Model::parse(text).unwrap_err().to_string();
            assert!(error.contains("a740") || error.contains("hbb"), "{error}");
        }
        for option in ["hbb", "hbb=", "hbb=99", "prr=2", "colour=1", "minor=8"] {
            assert_eq!(
                Model::parse(&format!("msm:a750,{option}")),
                Err(SpecError::Option(option.to_owned()))
            );
        }
    }
}

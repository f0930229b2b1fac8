//! Layouts by their DRM format modifiers: what images are called that drivers share.

use core::fmt;
use drm_fourcc::{DrmModifier, DrmVendor};

/// Where a modifier has its vendor (`fourcc_mod_code` of drm_fourcc.h).
const VENDOR_SHIFT: u32 = 56;

/// A layout that drm-fourcc has no name for: its vendor's with this number.
pub const fn modifier(vendor: DrmVendor, number: u64) -> DrmModifier {
    DrmModifier::Unrecognized((vendor as u64) << VENDOR_SHIFT | number)
}

/// A modifier for the log.
pub struct Named(pub DrmModifier);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.0.vendor()) {
            (DrmModifier::Unrecognized(code), Ok(Some(vendor))) => {
                write!(f, "{vendor:?} {:#x}", code & ((1 << VENDOR_SHIFT) - 1))
            }
            (modifier, _) => write!(f, "{modifier:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_are_composed_and_named() {
        let tiled = modifier(DrmVendor::Qcom, 3);
        assert_eq!(u64::from(tiled), 0x0500_0000_0000_0003);
        assert_eq!(u64::from(modifier(DrmVendor::Qcom, 1)), u64::from(DrmModifier::Qcom_compressed));
        assert_eq!(Named(tiled).to_string(), "Qcom 0x3");
        assert_eq!(Named(DrmModifier::Qcom_compressed).to_string(), "Qcom_compressed");
    }
}

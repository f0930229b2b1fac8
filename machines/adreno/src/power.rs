//! The power domains: on and off at once, as they are asked.

use crate::Registers;
use crate::registers::{GDSC_COLLAPSE, GDSC_ON, POWER_DOMAINS};

/// Everything off, as after a reset.
pub(crate) fn reset(registers: &impl Registers) {
    for domain in &POWER_DOMAINS {
        registers.write(domain.control, GDSC_COLLAPSE);
    }
    step(registers);
}

/// Shows what the driver has asked for. Whether that was news.
pub(crate) fn step(registers: &impl Registers) -> bool {
    let mut busy = false;
    for domain in &POWER_DOMAINS {
        let wanted = registers.read(domain.control) & GDSC_COLLAPSE == 0;
        if wanted != (registers.read(domain.status) & GDSC_ON != 0) {
            // The status may be in the register that the driver writes.
            registers.update(domain.status, GDSC_ON, if wanted { GDSC_ON } else { 0 });
            busy = true;
        }
    }
    busy
}

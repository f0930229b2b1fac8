//! Parameters of the device and of an open file.

use kmd::uapi::msm::*;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::{Msm, gpu};
use crate::drm::user::User;
use crate::mem::PAGE;

/// Priorities of a ring buffer.
pub(super) const PRIORITIES_PER_RING: u64 = 3;

/// Where the caches of every GPU from a6xx on trap.
const UCHE_TRAP_BASE: u64 = 0x1_ffff_ffff_f000;

fn check(args: &Param) -> Result<(), Errno> {
    if args.pipe != PIPE_3D0 || args.pad != 0 { Err(Errno::INVAL) } else { Ok(()) }
}

impl Msm {
    pub(super) fn get_param(&self, args: &mut GetParam) -> Result<(), Errno> {
        let args = &mut args.0;
        check(args)?;
        // The kernel makes the VM here, whatever is asked; if it cannot, only the questions about the VM are refused.
        let vm = self.vm();
        if args.len != 0 {
            return Err(Errno::INVAL);
        }
        let gpu = &self.gpu;
        args.value = match args.param {
            PARAM_GPU_ID => gpu.gpu_id,
            PARAM_GMEM_SIZE => gpu.gmem_size,
            PARAM_GMEM_BASE => gpu.gmem_base,
            PARAM_CHIP_ID => gpu.chip_id,
            PARAM_MAX_FREQ => gpu.max_freq,
            PARAM_TIMESTAMP => timestamp(),
            PARAM_PRIORITIES => gpu.rings * PRIORITIES_PER_RING,
            PARAM_PP_PGTABLE | PARAM_SUSPENDS | PARAM_AQE => 0,
            PARAM_FAULTS => vm.map_or(0, |vm| vm.faults.get()),
            PARAM_VA_START => vm.map(|_| gpu::VA_START).map_err(|_| Errno::INVAL)?,
            PARAM_VA_SIZE => vm.map(|_| gpu.va_size).map_err(|_| Errno::INVAL)?,
            PARAM_HIGHEST_BANK_BIT => gpu.highest_bank_bit,
            PARAM_RAYTRACING => gpu.raytracing.into(),
            PARAM_UBWC_SWIZZLE => gpu.ubwc_swizzle,
            PARAM_MACROTILE_MODE => gpu.macrotile_mode,
            PARAM_UCHE_TRAP_BASE => UCHE_TRAP_BASE,
            PARAM_HAS_PRR => gpu.prr.into(),
            _ => return Err(Errno::INVAL),
        };
        Ok(())
    }

    pub(super) fn set_param(&self, args: &mut SetParam, user: &User) -> Result<(), Errno> {
        let args = &args.0;
        check(args)?;
        let longest = if matches!(args.param, PARAM_COMM | PARAM_CMDLINE) { PAGE } else { 0 };
        if u64::from(args.len) > longest {
            return Err(Errno::INVAL);
        }
        match args.param {
            // Names for reports that nobody writes here.
            PARAM_COMM | PARAM_CMDLINE => user.read::<u8>(args.value, args.len as usize).map(drop),
            PARAM_SYSPROF => Err(Errno::PERM),
            PARAM_EN_VM_BIND => {
                let mut context = self.context.lock();
                if context.vm.is_some() {
                    return Err(Errno::BUSY);
                }
                context.user_managed = args.value != 0;
                Ok(())
            }
            _ => Err(Errno::INVAL),
        }
    }
}

/// The GPU's counter, which runs at 19.2 MHz.
fn timestamp() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 19_200_000 + now.tv_nsec as u64 * 12 / 625
}

//! The emulated GPU, played by a thread: its registers are reserved memory, polled; its interrupts are made pending in the
//! interrupt controller by hand.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mali::{Counters, Gpu, Identity, Interrupts, Line, Registers};
use parking_lot::Mutex;
use rustix::mm::MlockAllFlags;

use crate::physical::Physical;
use wire::map;

/// Above panthor's interrupt threads, which run at 50 and wait for answers of the device.
const PRIORITY: i32 = 90;

/// How long the device sleeps between steps, by the number of steps in which nothing happened.
const fn nap(idle: u32) -> Option<Duration> {
    match idle {
        0..=16 => None,
        17..=2000 => Some(Duration::from_micros(50)),
        _ => Some(Duration::from_micros(500)),
    }
}

/// The device, alive.
pub struct Device(Arc<Mutex<Counters>>);

impl Device {
    /// What the driver has asked of it so far.
    pub fn counters(&self) -> Counters {
        *self.0.lock()
    }
}

/// Starts the device. Its registers are valid when this returns.
pub fn start() -> Result<Device> {
    let registers = Window(Physical::map(map::GPU_REGISTERS)?);
    let interrupts = Distributor(Physical::map(map::GIC_DISTRIBUTOR)?);
    let gpu = Gpu::new(Identity::G610, registers, interrupts);
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;

    let counters = Arc::default();
    let device = Device(Arc::clone(&counters));
    let (ready, started) = std::sync::mpsc::channel();
    thread::Builder::new().name("gpu".into()).spawn(move || {
        // Nobody is left to tell when the receiver is gone: the machine is being switched off.
        _ = ready.send(raise_priority());
        play(gpu, &counters)
    })?;
    started.recv()??;
    Ok(device)
}

fn play(mut gpu: Gpu<Window, Distributor>, counters: &Mutex<Counters>) -> ! {
    let start = Instant::now();
    let mut idle = 0;
    loop {
        if gpu.step(start.elapsed()) {
            idle = 0;
            *counters.lock() = gpu.counters();
        } else {
            idle = u32::saturating_add(idle, 1);
        }
        if let Some(nap) = nap(idle) {
            thread::sleep(nap);
        }
    }
}

fn raise_priority() -> Result<()> {
    // SAFETY: plain integers; musl's structure has fields of other policies too.
    let mut param: libc::sched_param = unsafe { core::mem::zeroed() };
    param.sched_priority = PRIORITY;
    // SAFETY: this thread, and a parameter that lives through the call.
    let error = unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_FIFO, &param) };
    if error != 0 {
        bail!("cannot make the device a real-time thread: {}", std::io::Error::from_raw_os_error(error));
    }
    Ok(())
}

/// The register file in reserved memory.
struct Window(Physical);

impl Registers for Window {
    fn read(&self, offset: u32) -> u32 {
        self.0.read(offset)
    }

    fn write(&self, offset: u32, value: u32) {
        self.0.write(offset, value);
    }

    fn take(&self, offset: u32) -> u32 {
        self.0.take(offset)
    }
}

/// The GIC's distributor: writing an interrupt's bit to GICD_ISPENDR makes it pending.
struct Distributor(Physical);

const GICD_ISPENDR: u32 = 0x200;
/// Shared peripheral interrupts come after the 32 that each CPU has for itself.
const FIRST_SPI: u32 = 32;

impl Interrupts for Distributor {
    fn raise(&self, line: Line) {
        let id = FIRST_SPI + map::GPU_SPI + line as u32;
        self.0.write(GICD_ISPENDR + id / 32 * 4, 1 << (id % 32));
    }
}

//! The emulated GPU, played by a thread: its registers are reserved memory, polled; its interrupts are made pending in the
//! interrupt controller by hand.

mod adreno;
mod mali;

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use rustix::mm::MlockAllFlags;

use crate::physical::Physical;
use wire::{map, paths};

/// Above the drivers' interrupt threads, which run at 50 and wait for answers of the device.
const PRIORITY: i32 = 90;

/// How long the device sleeps between steps, by the number of steps in which nothing happened.
const fn nap(idle: u32) -> Option<Duration> {
    match idle {
        0..=16 => None,
        17..=2000 => Some(Duration::from_micros(50)),
        _ => Some(Duration::from_micros(500)),
    }
}

/// A GPU.
trait Model: Send {
    /// Takes what the driver has written since the last step, and answers. Whether there was anything.
    fn step(&mut self, now: Duration) -> bool;

    /// What it has been asked to do so far, for people.
    fn counters(&self) -> String;
}

/// The device, alive.
pub struct Device(Arc<Mutex<Box<dyn Model>>>);

impl Device {
    /// What the driver has asked of it so far, for people.
    pub fn counters(&self) -> String {
        self.0.lock().counters()
    }
}

/// Starts the device that [`paths::GPU`] names. Its registers are valid when this returns.
pub fn start() -> Result<Device> {
    let name = fs::read_to_string(paths::GPU).context("no GPU to play")?;
    let model = match name.as_str() {
        "panthor" => mali::new()?,
        "msm" => adreno::new()?,
        _ => bail!("there is no GPU for {name}"),
    };
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?;

    let device = Device(Arc::new(Mutex::new(model)));
    let model = Arc::clone(&device.0);
    let (ready, started) = std::sync::mpsc::channel();
    thread::Builder::new().name("gpu".into()).spawn(move || {
        // Nobody is left to tell when the receiver is gone: the machine is being switched off.
        _ = ready.send(raise_priority());
        play(&model)
    })?;
    started.recv()??;
    Ok(device)
}

fn play(model: &Mutex<Box<dyn Model>>) -> ! {
    let start = Instant::now();
    let mut idle = 0;
    loop {
        let busy = model.lock().step(start.elapsed());
        idle = if busy { 0 } else { u32::saturating_add(idle, 1) };
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

/// The GIC's distributor: writing an interrupt's bit to GICD_ISPENDR makes it pending.
struct Distributor(Physical);

const GICD_ISPENDR: u32 = 0x200;
/// Shared peripheral interrupts come after the 32 that each CPU has for itself.
const FIRST_SPI: u32 = 32;

impl Distributor {
    fn map() -> Result<Self> {
        Ok(Self(Physical::map(map::GIC_DISTRIBUTOR)?))
    }

    /// Makes the GPU's interrupt number `line` pending.
    fn raise(&self, line: u32) {
        let id = FIRST_SPI + map::GPU_SPI + line;
        self.0.write(GICD_ISPENDR + id / 32 * 4, 1 << (id % 32));
    }
}

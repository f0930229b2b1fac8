//! The far side of the process boundary: one case, or the probe, in this process.

use crate::gpu::{Gpu, messages};
use crate::outcome::Stop;
use crate::settings::{Listening, Settings};
use crate::suite::{self, Ctx};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::process::ExitCode;

/// Marks the line of a child's output that holds its [`Report`].
pub(crate) const MARK: &str = "@tessera-suite ";

/// How a case ended, as the child sees it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) status: Ended,
    pub(crate) message: String,
}

/// The ends that a child lives to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ended {
    Pass,
    Fail,
    NotSupported,
    Skip,
}

/// Runs a case and prints its report.
pub(crate) fn run_case(name: &str, settings: &Settings) -> ExitCode {
    no_core_files();
    let cases = suite::cases();
    let Some(case) = cases.iter().find(|case| case.name == name) else {
        eprintln!("the suite has no case {name}");
        return ExitCode::from(2);
    };
    let outcome = (case.run)(&Ctx::new(settings, case));
    let said = messages::take();
    let (mut status, mut message) = match &outcome {
        Ok(()) => (Ended::Pass, String::new()),
        Err(stop @ (Stop::Fail(_) | Stop::Vulkan { .. })) => (Ended::Fail, stop.to_string()),
        Err(stop @ Stop::NotSupported(_)) => (Ended::NotSupported, stop.to_string()),
        Err(stop @ Stop::Skip(_)) => (Ended::Skip, stop.to_string()),
    };
    if !said.is_empty() {
        status = Ended::Fail;
        let before = if message.is_empty() { "" } else { "; " };
        message = format!("{message}{before}{} validation messages: {}", said.len(), said.join("\n"));
    }
    match serde_json::to_string(&Report { status, message }) {
        Ok(line) => println!("\n{MARK}{line}"),
        Err(error) => eprintln!("cannot write the report: {error}"),
    }
    ExitCode::SUCCESS
}

/// Turns core files off for this process and those that it starts: a crash is a result here, and nobody reads its core file.
pub(crate) fn no_core_files() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(errno) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        eprintln!("core files stay on: {errno}");
    }
}

/// Prints what an instance in this environment consists of.
///
/// # Errors
/// Names what is missing: the loader, a driver, the layer under test, the validation layer.
pub(crate) fn probe(settings: &Settings) -> Result<()> {
    let instance = crate::gpu::Instance::new(false)?;
    let physical = instance.physical_device()?;
    // SAFETY: the physical device is the instance's.
    let properties = unsafe { instance.raw.get_physical_device_properties(physical) };
    // The loader says nothing when a layer named in the environment does not load: what is mapped tells.
    let maps = std::fs::read_to_string("/proc/self/maps").context("/proc/self/maps")?;
    if settings.layer() != maps.contains("libVkLayer_tessera") {
        if settings.layer() {
            bail!(
                "the loader did not load {}: install it, or give the folder of its manifest with --layer-path \
                 (VK_LOADER_DEBUG=all shows what the loader tried)",
                crate::settings::LAYER
            );
        }
        bail!("the layer is loaded although the driver was to run alone: is it enabled in the environment?");
    }
    if settings.listening != Listening::None && !maps.contains("libVkLayer_khronos_validation") {
        bail!(
            "the loader did not load {}: install the package vulkan-validationlayers",
            crate::settings::VALIDATION_LAYER
        );
    }
    if settings.listening != Listening::None {
        hear_validation()?;
    }
    let name = properties.device_name_as_c_str().unwrap_or(c"a device without a name").to_string_lossy();
    println!("{name}, layers: {}", std::env::var("VK_INSTANCE_LAYERS").unwrap_or_default());
    Ok(())
}

/// Breaks a harmless rule: silence of a layer that nobody hears would mean nothing.
fn hear_validation() -> Result<()> {
    let gpu = Gpu::new(&[], true)?;
    // SAFETY: the device is alive. The fence outlives it on purpose, which a validation layer reports.
    unsafe { gpu.raw.create_fence(&Default::default(), None) }.context("vkCreateFence")?;
    drop(gpu);
    if !messages::take().iter().any(|message| message.contains("VUID-vkDestroyDevice")) {
        bail!("the validation layer is loaded, but its messages do not arrive");
    }
    Ok(())
}

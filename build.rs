//! Generates what the layer knows of Vulkan's registry (vk.xml): which function answers to which name, how long a structure of a
//! `pNext` chain is, how formats store their texels. `layer/src/vk_registry.rs` includes the results.

#[path = "build/commands.rs"]
mod commands;
#[path = "build/formats.rs"]
mod formats;
#[path = "build/queues.rs"]
mod queues;
#[path = "build/registry.rs"]
mod registry;
#[path = "build/structs.rs"]
mod structs;

use registry::Registry;
use std::path::{Path, PathBuf};

/// Names the registry to read, where it is not the system's.
const VARIABLE: &str = "TESSERA_VK_XML";
const SYSTEM: &str = "/usr/share/vulkan/registry/vk.xml";
const COMMANDS: &str = "layer/src/commands.txt";

fn main() {
    if let Err(message) = generate() {
        println!("cargo::error={message}");
    }
}

fn generate() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed={COMMANDS}");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    if variable("CARGO_CFG_TARGET_POINTER_WIDTH")? != "64" {
        return Err("tessera computes the layout of Vulkan's structures for 64-bit targets only".into());
    }

    let path = std::env::var_os(VARIABLE).map_or_else(|| PathBuf::from(SYSTEM), PathBuf::from);
    println!("cargo::rerun-if-changed={}", path.display());
    if !path.is_file() {
        return Err(format!(
            "{} is missing: the Vulkan registry comes with the Debian package libvulkan-dev; {VARIABLE} names another vk.xml",
            path.display()
        ));
    }
    let registry = Registry::read(&path)?;

    // The layouts of codec headers have a registry of their own beside vk.xml.
    let video = path.with_file_name("video.xml");
    println!("cargo::rerun-if-changed={}", video.display());
    let video = video.is_file().then(|| Registry::read(&video)).transpose()?;

    let list = std::fs::read_to_string(COMMANDS).map_err(|error| format!("{COMMANDS}: {error}"))?;
    let out = PathBuf::from(variable("OUT_DIR")?);
    write(
        &out,
        "commands.rs",
        &commands::generate(&registry, &list).map_err(|error| format!("{COMMANDS}: {error}"))?,
    )?;
    write(&out, "queue_commands.rs", &queues::generate(&registry))?;
    let structs = structs::Structs::new(&registry, video.as_ref());
    write(&out, "struct_sizes.rs", &structs.sizes()?)?;
    write(&out, "struct_names.rs", &structs.names())?;
    write(&out, "formats.rs", &formats::generate(&registry)?)
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}"))
}

fn write(folder: &Path, name: &str, code: &str) -> Result<(), String> {
    let path = folder.join(name);
    std::fs::write(&path, code).map_err(|error| format!("{}: {error}", path.display()))
}

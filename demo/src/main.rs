//! A camera flight over a sparse virtual texture, natively and through the layer, side by side.

mod camera;
mod canvas;
mod content;
mod flight;
mod gpu;
mod noise;
mod pictures;
mod pool;
mod render;
mod report;
mod texture;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};

use crate::flight::{LAYER, Plan, Record};
use crate::pool::{Layout, TILE, TILE_BYTES};

/// Flies a camera over a sparse virtual texture with a small pool of memory, draws what it sees, and reports how the memory
/// was bound: by the driver itself and by the tessera layer.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Frames of each flight
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=9999))]
    frames: u32,
    /// Width and height of the pictures, pixels
    #[arg(long, default_value = "960x540", value_parser = size)]
    size: (u32, u32),
    /// Folder for everything that is written
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// Fly once, without the layer
    #[arg(long, group = "which")]
    native: bool,
    /// Fly once, with the layer
    #[arg(long, group = "which")]
    layer: bool,
    /// Fly without and with the layer and compare (the default)
    #[arg(long, group = "which")]
    both: bool,
    /// Folder of the layer's manifest, where it is not installed
    #[arg(long, value_name = "DIR")]
    layer_path: Option<PathBuf>,
    /// Memory for tiles of 64 KiB, MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=4096))]
    tile_pool: u32,
    /// Texels of the texture a side, a power of two
    #[arg(long, value_name = "TEXELS", default_value_t = 16384, value_parser = texture_size)]
    texture: u32,
    /// Tiles that a frame may load at most
    #[arg(long, value_name = "TILES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    uploads: u32,
    /// Read tiles back during the flight and compare them with what was written
    #[arg(long)]
    verify: bool,
    /// Be the process that flies
    #[arg(long, hide = true)]
    fly: Option<Way>,
    /// With --fly: only find out whether it could
    #[arg(long, hide = true, requires = "fly")]
    probe: bool,
}

/// Who binds the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    Native,
    Layer,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Layer => "layer",
        }
    }
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    (parts.filter(|(w, h)| (64..=7680).contains(w) && (64..=4320).contains(h)))
        .ok_or_else(|| "expected WIDTHxHEIGHT, 64x64 to 7680x4320".to_owned())
}

fn texture_size(text: &str) -> Result<u32, String> {
    (text.parse().ok().filter(|size: &u32| size.is_power_of_two() && (2048..=131072).contains(size)))
        .ok_or_else(|| "expected a power of two, 2048 to 131072".to_owned())
}

fn main() -> ExitCode {
    match start(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tessera-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: &Options) -> Result<()> {
    let plan = Plan {
        frames: options.frames,
        width: options.size.0,
        height: options.size.1,
        texture: options.texture,
        pool: options.tile_pool * ((1 << 20) / TILE_BYTES as u32),
        uploads: options.uploads,
        verify: options.verify,
    };
    match options.fly {
        Some(way) if options.probe => flight::probe(&plan, way == Way::Layer),
        Some(way) => flight::run(&plan, way.name(), &options.out.join(way.name())),
        None => fly_all(options, &plan),
    }
}

fn fly_all(options: &Options, plan: &Plan) -> Result<()> {
    let ways: &[Way] = match (options.native, options.layer) {
        (true, _) => &[Way::Native],
        (_, true) => &[Way::Layer],
        _ => &[Way::Native, Way::Layer],
    };
    let layout = Layout { size: plan.texture };
    eprintln!(
        "A sparse texture of {0}x{0} RGBA8 with {1} levels ({2} tiles of {3}x{3}, {4} MiB) over a pool of {5} MiB.",
        plan.texture,
        layout.levels(),
        layout.tile_count(),
        TILE,
        (u64::from(layout.tile_count()) * TILE_BYTES) >> 20,
        options.tile_pool,
    );
    // Before the first flight: nobody should wait for it only to learn that the second cannot start.
    for way in ways {
        child(options, *way, true)?;
    }
    let mut flights = Vec::new();
    for way in ways {
        let folder = options.out.join(way.name());
        clear(&folder)?;
        child(options, *way, false)?;
        flights.push(report::Flight {
            name: way.name(),
            record: Record::load(&folder)?,
            stats: report::LayerStats::load(&stats_path(&folder)),
            folder,
        });
    }
    report::finish(&options.out, plan, &flights)
}

/// Removes what an earlier flight left in its folder, and nothing else.
fn clear(folder: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if (name.starts_with("frame_") && name.ends_with(".png")) || name == "flight.json" || name == STATS {
            std::fs::remove_file(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

const STATS: &str = "stats.jsonl";

fn stats_path(folder: &Path) -> PathBuf {
    folder.join(STATS)
}

/// Runs this program again as one flight, with or without the layer in its environment. Other layers, such as the
/// validation layer, stay as they were asked for.
fn child(options: &Options, way: Way, probe: bool) -> Result<()> {
    let program = std::env::current_exe().context("this program cannot find its own file")?;
    let mut command = Command::new(program);
    command
        .args(["--fly", way.name()])
        .args(["--frames", &options.frames.to_string()])
        .args(["--size", &format!("{}x{}", options.size.0, options.size.1)])
        .args(["--tile-pool", &options.tile_pool.to_string()])
        .args(["--texture", &options.texture.to_string()])
        .args(["--uploads", &options.uploads.to_string()])
        .arg("--out")
        .arg(&options.out);
    if probe {
        command.arg("--probe");
    }
    if options.verify {
        command.arg("--verify");
    }
    let ours = LAYER.to_string_lossy();
    let asked = std::env::var("VK_INSTANCE_LAYERS").unwrap_or_default();
    let mut layers: Vec<&str> = asked.split(':').filter(|layer| !layer.is_empty()).collect();
    match way {
        Way::Native => {
            layers.retain(|layer| *layer != ours);
            command.env_remove("ENABLE_TESSERA").env("DISABLE_TESSERA", "1").env_remove("TESSERA_STATS");
        }
        Way::Layer => {
            if !layers.contains(&ours.as_ref()) {
                layers.push(&ours);
            }
            if let Some(folder) = &options.layer_path {
                add_layer_path(&mut command, folder)?;
            }
            command.env_remove("DISABLE_TESSERA").env_remove("TESSERA_STATS");
            if !probe {
                command.env("TESSERA_STATS", absolute(&stats_path(&options.out.join(way.name())))?);
            }
        }
    }
    if layers.is_empty() {
        command.env_remove("VK_INSTANCE_LAYERS");
    } else {
        command.env("VK_INSTANCE_LAYERS", layers.join(":"));
    }
    let status = command.status().context("this program cannot start itself")?;
    if !status.success() {
        bail!("the {} flight ended with {status}", way.name());
    }
    Ok(())
}

/// Makes the loader look into one more folder for layers. VK_LAYER_PATH alone would hide all others.
fn add_layer_path(command: &mut Command, folder: &Path) -> Result<()> {
    let folder = absolute(folder)?;
    if !folder.is_dir() {
        bail!("--layer-path: {} is no folder", folder.display());
    }
    let variable =
        if std::env::var_os("VK_LAYER_PATH").is_some() { "VK_LAYER_PATH" } else { "VK_ADD_LAYER_PATH" };
    let mut paths = folder.into_os_string();
    if let Some(before) = std::env::var_os(variable).filter(|before| !before.is_empty()) {
        paths.push(":");
        paths.push(before);
    }
    command.env(variable, paths);
    Ok(())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} has no absolute form", path.display()))
}

//! Puts the layer and its manifests where the Vulkan loader looks, and takes them away again.
#![forbid(unsafe_code)]

mod places;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use manifest::{Kind, LAYER};
use places::Places;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Installs the Vulkan layer VK_LAYER_TESSERA_sparse_binding.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs the layer, for this user or below a prefix
    Install {
        /// Also install the implicit manifest: ENABLE_TESSERA=1 then switches the layer on in any program
        #[arg(long)]
        implicit: bool,
        /// Install into PREFIX/lib and PREFIX/share/vulkan, such as /usr/local, instead of this user's data folder
        #[arg(long)]
        prefix: Option<PathBuf>,
        /// The layer to install [default: the one built beside this program]
        #[arg(long, value_name = "FILE")]
        library: Option<PathBuf>,
    },
    /// Removes what install has put there
    Uninstall {
        /// The prefix that was given to install
        #[arg(long)]
        prefix: Option<PathBuf>,
    },
    /// Installs nothing: writes manifests of the built layer into a folder, for VK_ADD_LAYER_PATH
    Manifest {
        /// The folder; made if it is not there
        folder: PathBuf,
        /// The layer [default: the one built beside this program]
        #[arg(long, value_name = "FILE")]
        library: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Install { implicit, prefix, library } => {
            install(&Places::find(prefix.as_deref())?, implicit, &built(library)?)
        }
        Command::Uninstall { prefix } => uninstall(&Places::find(prefix.as_deref())?),
        Command::Manifest { folder, library } => {
            make_folder(&folder)?;
            println!("{}", Kind::Explicit.write(&folder, &built(library)?)?.display());
            Ok(())
        }
    }
}

/// The library to install, as an absolute path.
fn built(given: Option<PathBuf>) -> Result<PathBuf> {
    let Some(library) = given.or_else(manifest::built_library) else {
        bail!(
            "{} is not beside this program: build it with `cargo build --release`, or name it with --library FILE",
            manifest::LIBRARY
        );
    };
    library.canonicalize().with_context(|| library.display().to_string())
}

fn install(places: &Places, implicit: bool, library: &Path) -> Result<()> {
    // A manifest must never point at a library that is not there: the library goes first.
    make_folder(places.library_folder())?;
    let target = places.library();
    let copy = |file: &mut fs::File| io::copy(&mut fs::File::open(library)?, file).map(drop);
    manifest::write_atomically(&target, 0o755, copy).with_context(|| denied(&target))?;
    println!("wrote {}", target.display());
    for kind in [Kind::Explicit, Kind::Implicit] {
        // An implicit manifest of an earlier installation is kept as new as the rest.
        if kind == Kind::Explicit || implicit || places.manifest(kind).exists() {
            let folder = places.manifest_folder(kind);
            make_folder(&folder)?;
            println!("wrote {}", kind.write(&folder, &target).with_context(|| denied(&folder))?.display());
        }
    }
    println!("\nUse it:  VK_INSTANCE_LAYERS={LAYER} PROGRAM");
    if places.manifest(Kind::Implicit).exists() {
        println!("    or:  ENABLE_TESSERA=1 PROGRAM      (DISABLE_TESSERA=1 overrules it)");
    }
    if let Some(hint) = places.hint() {
        println!("\n{hint}");
    }
    Ok(())
}

fn uninstall(places: &Places) -> Result<()> {
    let mut removed = 0;
    // The manifests first, for the same reason as above.
    let files = [places.manifest(Kind::Implicit), places.manifest(Kind::Explicit), places.library()];
    for file in files {
        match fs::remove_file(&file) {
            Ok(()) => {
                println!("removed {}", file.display());
                removed += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| denied(&file)),
        }
    }
    if let Some(own) = places.own_folder() {
        // Somebody else's files in it are a reason to leave it, not to fail.
        let _ = fs::remove_dir(own);
    }
    if removed == 0 {
        println!("nothing to remove: the layer is not installed in {}", places.data().display());
    }
    Ok(())
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| denied(folder))
}

fn denied(path: &Path) -> String {
    format!("{} (installing for all users needs their rights: sudo)", path.display())
}

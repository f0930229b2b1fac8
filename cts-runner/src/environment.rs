//! What a program under test finds in its environment: which layers, whose kernel, and where the layer is.

use crate::settings::{Listening, Settings, Spelled};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use manifest::Kind;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Where distributions put the manifests of explicit layers, the validation layer's among them.
const EXPLICIT_LAYERS: &str = "/usr/share/vulkan/explicit_layer.d";

/// Has the validation layer say everything, each time: by itself it says each kind of message ten times a process. All but one kind: that a
/// structure is newer than the layer, in 10 KB for each of dozens a device, tells nothing about the program.
const VALIDATION: [(&str, &str); 2] = [
    ("VK_LAYER_DUPLICATE_MESSAGE_LIMIT", "1000000000"),
    (
        "VK_LAYER_MESSAGE_ID_FILTER",
        "VUID-VkPhysicalDeviceProperties2-pNext-pNext,VUID-VkDeviceCreateInfo-pNext-pNext",
    ),
];

/// Where the layer under test is.
#[derive(Args)]
pub(crate) struct Place {
    /// The layer's library [default: the one built beside this program; without one, what the loader finds by itself]
    #[arg(long, value_name = "FILE")]
    layer: Option<PathBuf>,
    /// Folder with the layer's manifest, searched before the folders that the loader searches by itself
    #[arg(long, value_name = "DIR", conflicts_with = "layer")]
    layer_path: Option<PathBuf>,
}

/// The environment of every program that a run starts. Holds the folder with the layer's manifest while it lives.
pub(crate) struct Environment {
    /// The folder to tell the loader; nothing when it finds the layer by itself.
    folder: Option<PathBuf>,
    /// The layer's library, where it was this program that wrote the manifest.
    library: Option<PathBuf>,
    _scratch: Option<TempDir>,
}

impl Environment {
    /// Finds the layer and writes a manifest for it where one is needed: into the folder `keep`, or one that goes with this.
    pub(crate) fn new(place: &Place, keep: Option<&Path>) -> Result<Self> {
        if let Some(folder) = &place.layer_path {
            return Ok(Self { folder: Some(absolute(folder)?), library: None, _scratch: None });
        }
        let Some(library) = place.layer.clone().or_else(manifest::built_library) else {
            return Ok(Self { folder: None, library: None, _scratch: None });
        };
        if !library.is_file() {
            bail!("there is no {}", library.display());
        }
        let library = absolute(&library)?;
        let (folder, scratch) = match keep {
            Some(folder) => (folder.to_owned(), None),
            None => {
                let scratch = tempfile::tempdir().context("a folder for the layer's manifest")?;
                (scratch.path().to_owned(), Some(scratch))
            }
        };
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Kind::Explicit.write(&folder, &library)?;
        Ok(Self { folder: Some(folder), library: Some(library), _scratch: scratch })
    }

    /// The layer's library, where it is known.
    pub(crate) fn library(&self) -> Option<&Path> {
        self.library.as_deref()
    }

    /// What `settings` mean, as variables; without a value: to be removed. Every variable of ours that changes what the layer does is
    /// among them, so that the shell's have no say.
    pub(crate) fn variables(&self, settings: &Settings) -> Vec<(&'static str, Option<OsString>)> {
        let ours = settings.layer();
        let value = |text: String| ours.then(|| OsString::from(text));
        let mut variables = vec![
            ("ENABLE_TESSERA", None),
            ("DISABLE_TESSERA", (!ours).then(|| "1".into())),
            ("TESSERA_KERNEL", value(Spelled(settings.kernel).to_string())),
            ("TESSERA_UNBOUND", value(Spelled(settings.unbound).to_string())),
            ("TESSERA_VERIFY", value("1".into())),
            ("TESSERA_FAULT", None),
            ("VK_INSTANCE_LAYERS", Some(settings.instance_layers().into())),
        ];
        if let Some(folder) = self.folder.as_ref().filter(|_| ours) {
            variables.push(layer_path(folder.as_os_str(), settings.listening == Listening::Above));
        }
        if settings.listening != Listening::None {
            variables.extend(VALIDATION.map(|(name, value)| (name, Some(value.into()))));
        }
        variables
    }

    /// Gives `command` the environment for `settings`.
    pub(crate) fn apply(&self, settings: &Settings, command: &mut Command) {
        for (name, value) in self.variables(settings) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    /// Asks a child, which `prepare` may give more, which device and layers programs will see under `settings`.
    ///
    /// # Errors
    /// What the child says: no driver, or the layers that were asked for are not loaded.
    pub(crate) fn probe(&self, settings: &Settings, prepare: impl FnOnce(&mut Command)) -> Result<String> {
        let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
        self.apply(settings, &mut command);
        prepare(&mut command);
        let output =
            command.arg("probe").args(settings.arguments()).output().context("cannot start the probe")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("cts-runner: "));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

/// Where the layer in `folder` is found, as a variable.
///
/// The loader of Debian 12 (1.3.239) puts layers that the environment asks for in the order in which it finds them, whatever
/// `VK_INSTANCE_LAYERS` says: the first is nearest to the application. So what shall be above is found before.
fn layer_path(folder: &OsStr, last: bool) -> (&'static str, Option<OsString>) {
    let path = std::env::var_os("VK_LAYER_PATH");
    // VK_LAYER_PATH replaces the folders where the validation layer is; the other variable comes before all folders.
    let (name, before) = match path {
        Some(path) => ("VK_LAYER_PATH", Some(path)),
        None if last => ("VK_LAYER_PATH", Some(EXPLICIT_LAYERS.into())),
        None => ("VK_ADD_LAYER_PATH", std::env::var_os("VK_ADD_LAYER_PATH")),
    };
    let Some(before) = before else { return (name, Some(folder.into())) };
    let mut value = OsString::new();
    let (first, second) = if last { (before.as_os_str(), folder) } else { (folder, before.as_os_str()) };
    value.push(first);
    value.push(":");
    value.push(second);
    (name, Some(value))
}

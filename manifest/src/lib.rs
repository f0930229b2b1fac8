//! The manifests by which the Vulkan loader finds the layer: two templates, filled with the path of the library.
//!
//! Both carry the same layer name on purpose. The loader keeps the first of equal names in its list of enabled layers (rule LLP_LOADER_3 of
//! its layer interface), so the layer is never above itself in one chain, however it was asked for. Two names would allow just that.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// The layer's name, as in `VK_INSTANCE_LAYERS`.
pub const LAYER: &str = "VK_LAYER_TESSERA_sparse_binding";
/// The layer's library, as cargo names it.
pub const LIBRARY: &str = "libVkLayer_tessera.so";

/// How the loader comes to enable the layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Asked for by name: by the application or in `VK_INSTANCE_LAYERS`.
    Explicit,
    /// In every application while `ENABLE_TESSERA=1` and not `DISABLE_TESSERA=1`.
    Implicit,
}

/// Why there is no manifest.
#[derive(Debug, Error)]
pub enum ManifestError {
    #[error("{}: a manifest cannot hold a path that is not UTF-8", .0.display())]
    Path(PathBuf),
    #[error("{}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Kind {
    /// Name of the manifest.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Explicit => "VkLayer_tessera.json",
            Self::Implicit => "VkLayer_tessera_implicit.json",
        }
    }

    /// The folder, below `share/vulkan`, in which the loader looks for manifests of this kind.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Explicit => "explicit_layer.d",
            Self::Implicit => "implicit_layer.d",
        }
    }

    /// The manifest for the layer in the file `library`.
    pub fn text(self, library: &Path) -> Result<String, ManifestError> {
        let template = match self {
            Self::Explicit => include_str!("../VkLayer_tessera.json"),
            Self::Implicit => include_str!("../VkLayer_tessera_implicit.json"),
        };
        let path = library.to_str().ok_or_else(|| ManifestError::Path(library.into()))?;
        Ok(template.replace("\"@LIBRARY@\"", &serde_json::Value::from(path).to_string()))
    }

    /// Writes the manifest for `library` into `folder`, which must exist. Returns the file's path.
    pub fn write(self, folder: &Path, library: &Path) -> Result<PathBuf, ManifestError> {
        let path = folder.join(self.file_name());
        let text = self.text(library)?;
        match write_atomically(&path, 0o644, |file| file.write_all(text.as_bytes())) {
            Ok(()) => Ok(path),
            Err(source) => Err(ManifestError::Write { path, source }),
        }
    }
}

/// Puts a file with permissions `mode` at `path` in one step: whoever reads there meanwhile, a loader or a program that has the old library
/// mapped, sees the old file or the new one, never half of one.
pub fn write_atomically(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&mut std::fs::File) -> io::Result<()>,
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    fill(file.as_file_mut())?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The layer that was built together with the running program: beside it, or in `deps`, where cargo puts the libraries of tests. Of two,
/// the newer one: cargo refreshes the copy beside programs only when it is told to build the layer itself.
#[must_use]
pub fn built_library() -> Option<PathBuf> {
    let folder = std::env::current_exe().ok()?.parent()?.to_owned();
    let age = |library: &PathBuf| library.metadata().and_then(|metadata| metadata.modified()).ok();
    let found = [folder.join(LIBRARY), folder.join("deps").join(LIBRARY)];
    found.into_iter().filter(|library| library.is_file()).max_by_key(age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn layer(kind: Kind, library: &str) -> Value {
        let manifest: Value = serde_json::from_str(&kind.text(Path::new(library)).unwrap()).unwrap();
        assert_eq!(manifest["file_format_version"], "1.2.0");
        manifest["layer"].clone()
    }

    #[test]
    fn both_name_the_layer_and_the_library() {
        for kind in [Kind::Explicit, Kind::Implicit] {
            let layer = layer(kind, "/opt/it \"is\" here\\lib.so");
            assert_eq!(layer["name"], LAYER);
            assert_eq!(layer["library_path"], "/opt/it \"is\" here\\lib.so");
        }
    }

    #[test]
    fn only_the_implicit_one_has_switches() {
        let explicit = layer(Kind::Explicit, "l.so");
        assert!(explicit["enable_environment"].is_null() && explicit["disable_environment"].is_null());
        let implicit = layer(Kind::Implicit, "l.so");
        assert_eq!(implicit["enable_environment"]["ENABLE_TESSERA"], "1");
        assert_eq!(implicit["disable_environment"]["DISABLE_TESSERA"], "1");
    }

    #[test]
    fn a_write_replaces_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        Kind::Explicit.write(folder.path(), Path::new("/old.so")).unwrap();
        let path = Kind::Explicit.write(folder.path(), Path::new("/new.so")).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("/new.so"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

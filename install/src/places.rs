//! Where the files go.

use anyhow::{Context, Result, bail};
use manifest::{Kind, LIBRARY};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Folders that the loader searches when XDG_DATA_DIRS says nothing.
const DATA_DIRS: &str = "/usr/local/share:/usr/share";

/// The places of one installation.
pub(crate) struct Places {
    /// `share`, in the prefix or the user's own: manifests go into `vulkan/` below it.
    data: PathBuf,
    library_folder: PathBuf,
    prefix: bool,
}

impl Places {
    /// The places below `prefix`, or without one those of the user, as the XDG base directory specification has them.
    pub(crate) fn find(prefix: Option<&Path>) -> Result<Self> {
        match prefix {
            Some(prefix) => {
                let prefix = std::path::absolute(prefix).with_context(|| prefix.display().to_string())?;
                Ok(Self { data: prefix.join("share"), library_folder: prefix.join("lib"), prefix: true })
            }
            None => {
                let data = user_data(|name| env::var_os(name))?;
                Ok(Self { library_folder: data.join("tessera"), data, prefix: false })
            }
        }
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn library_folder(&self) -> &Path {
        &self.library_folder
    }

    pub(crate) fn library(&self) -> PathBuf {
        self.library_folder.join(LIBRARY)
    }

    pub(crate) fn manifest_folder(&self, kind: Kind) -> PathBuf {
        self.data.join("vulkan").join(kind.folder())
    }

    pub(crate) fn manifest(&self, kind: Kind) -> PathBuf {
        self.manifest_folder(kind).join(kind.file_name())
    }

    /// The folder that only install makes, and uninstall may remove.
    pub(crate) fn own_folder(&self) -> Option<&Path> {
        (!self.prefix).then_some(&self.library_folder)
    }

    /// What else the user has to do for the loader to look here.
    pub(crate) fn hint(&self) -> Option<String> {
        let dirs = env::var("XDG_DATA_DIRS").ok().filter(|dirs| !dirs.is_empty());
        let searched = dirs.as_deref().unwrap_or(DATA_DIRS).split(':').any(|dir| Path::new(dir) == self.data);
        (self.prefix && !searched).then(|| {
            format!(
                "The loader does not look into {0} by itself: set XDG_DATA_DIRS={0}:{1}, or VK_ADD_LAYER_PATH={2}.",
                self.data.display(),
                dirs.as_deref().unwrap_or(DATA_DIRS),
                self.manifest_folder(Kind::Explicit).display()
            )
        })
    }
}

/// `$XDG_DATA_HOME`, which the specification wants ignored when it is relative, or `~/.local/share`.
fn user_data(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    if let Some(data) = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        return Ok(data);
    }
    match variable("HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(home) => Ok(home.join(".local/share")),
        None => bail!("HOME is not set: give --prefix, such as --prefix /usr/local"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &str)]) -> Result<PathBuf> {
        user_data(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_users_folder_follows_xdg() {
        assert_eq!(data(&[("HOME", "/h")]).unwrap(), Path::new("/h/.local/share"));
        assert_eq!(data(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]).unwrap(), Path::new("/d"));
        assert_eq!(data(&[("HOME", "/h"), ("XDG_DATA_HOME", "d")]).unwrap(), Path::new("/h/.local/share"));
        assert!(data(&[]).unwrap_err().to_string().contains("--prefix"));
    }
}

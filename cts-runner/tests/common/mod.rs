//! Where the layer under test and the driver are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const LIBRARY_NAME: &str = "libVkLayer_tessera.so";

/// The folder that holds the artefacts of the profile that this test was built with.
fn profile_folder() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this test");
    this.ancestors().nth(2).expect("a test lies in the deps folder of its profile").to_owned()
}

/// The layer's library: named in the environment, or built now, once (an old one would test something else).
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(find_library)
}

fn find_library() -> PathBuf {
    if let Some(path) = std::env::var_os("TESSERA_LAYER_LIB") {
        return path.into();
    }
    let folder = profile_folder();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "--package", "tessera", "--lib"]);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            cargo.args(["--profile", profile]);
        }
    }
    cargo.arg("--target-dir").arg(folder.parent().expect("a profile folder lies in the target folder"));
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the layer does not build");
    let library = folder.join(LIBRARY_NAME);
    assert!(library.is_file(), "there is no {}", library.display());
    library
}

/// lavapipe's manifest, so that no other driver of the machine is started for every case.
fn lavapipe() -> Option<PathBuf> {
    let folder = Path::new("/usr/share/vulkan/icd.d");
    let files = std::fs::read_dir(folder).ok()?;
    files
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd")))
}

/// Has `command` see no other driver than lavapipe, unless the environment names one.
pub fn on_lavapipe(command: &mut Command) {
    if std::env::var_os("VK_DRIVER_FILES").is_none() && std::env::var_os("VK_ICD_FILENAMES").is_none() {
        let driver = lavapipe().expect("lavapipe is installed (package mesa-vulkan-drivers, 25.0 or later)");
        command.env("VK_ICD_FILENAMES", driver);
    }
}

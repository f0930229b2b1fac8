//! Runs the suite against the layer that this workspace builds, on lavapipe: as it is, in trap mode, under the Khronos
//! validation layer, and against a layer that maps nothing.
//!
//! `TESSERA_LAYER_LIB` names another library; `VK_DRIVER_FILES` or `VK_ICD_FILENAMES` another driver.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use tempfile::TempDir;

const LIBRARY_NAME: &str = "libVkLayer_tessera.so";

/// The folder that holds the artefacts of the profile that this test was built with.
fn profile_folder() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this test");
    this.ancestors().nth(2).expect("a test lies in the deps folder of its profile").to_owned()
}

/// The layer's library: named in the environment, or built now, once (an old one would test something else).
fn library() -> &'static Path {
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
    folder.join(LIBRARY_NAME)
}

/// A folder with a manifest for the library.
fn manifest() -> TempDir {
    let library = library();
    assert!(library.is_file(), "there is no {}", library.display());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = serde_json::json!({
        "file_format_version": "1.2.0",
        "layer": {
            "name": "VK_LAYER_TESSERA_sparse_binding",
            "type": "GLOBAL",
            "library_path": library,
            "api_version": "1.3.239",
            "implementation_version": "1",
            "description": "tessera, for its test suite",
        }
    });
    std::fs::write(folder.path().join("tessera.json"), text.to_string())
        .expect("the manifest can be written");
    folder
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

/// Runs `cts-runner suite` with the layer and `arguments`.
fn suite(arguments: &[&str]) -> Output {
    let folder = manifest();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cts-runner"));
    command.arg("suite").arg("--layer-path").arg(folder.path()).args(arguments);
    if !arguments.contains(&"--negative-control") {
        let known = concat!(env!("CARGO_MANIFEST_DIR"), "/expectations/emulated-lavapipe-fails.txt");
        command.args(["--baseline", known]);
    }
    if std::env::var_os("VK_DRIVER_FILES").is_none() && std::env::var_os("VK_ICD_FILENAMES").is_none() {
        let driver = lavapipe().expect("lavapipe is installed (package mesa-vulkan-drivers, 25.0 or later)");
        command.env("VK_ICD_FILENAMES", driver);
    }
    command.output().expect("cts-runner runs")
}

/// Runs the suite and demands that nothing failed and that enough ran to mean something.
fn all_pass(arguments: &[&str], at_least: usize) {
    let output = suite(arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let failures: Vec<_> = text
        .lines()
        .filter(|line| !line.ends_with("(expected)"))
        .filter(|line| {
            ["Fail ", "Crash ", "Timeout ", "    | ", " known"].iter().any(|mark| line.contains(mark))
        })
        .collect();
    let last = text.lines().last().unwrap_or_default();
    assert!(
        output.status.success(),
        "{}\n{last}\n{}",
        failures.join("\n"),
        String::from_utf8_lossy(&output.stderr)
    );
    let passed: usize = last.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0);
    assert!(passed >= at_least, "{passed} cases passed, at least {at_least} are expected to run: {last}");
}

#[test]
fn plain() {
    all_pass(&[], 380);
}

#[test]
fn unbound_pages_trap() {
    all_pass(&["--unbound", "trap"], 370);
}

#[test]
fn a_layer_that_maps_nothing_is_noticed() {
    all_pass(&["--negative-control"], 240);
}

#[test]
fn validation_is_silent_above_and_below() {
    all_pass(&["--validation", "both"], 720);
}

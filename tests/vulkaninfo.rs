//! vulkaninfo, a program that knows nothing of the layer, with the layer in each of the ways in which it can be loaded.

use manifest::{Kind, LAYER};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A user's data folder with manifests of the layer that was built with this test.
struct Home {
    data: TempDir,
}

impl Home {
    fn new(kinds: &[Kind]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let library = manifest::built_library().expect("cargo builds the layer beside this test");
        for kind in kinds {
            let folder = data.path().join("vulkan").join(kind.folder());
            fs::create_dir_all(&folder).unwrap();
            kind.write(&folder, &library).unwrap();
        }
        Self { data }
    }

    /// Runs vulkaninfo on lavapipe alone, with nothing in the environment but `variables` that concerns layers.
    fn run(&self, variables: &[(&str, &str)]) -> Output {
        let mut command = Command::new("vulkaninfo");
        for (name, _) in std::env::vars() {
            if name.starts_with("VK_") || name.starts_with("TESSERA_") || name.ends_with("ABLE_TESSERA") {
                command.env_remove(name);
            }
        }
        command.env("XDG_DATA_HOME", self.data.path()).env("VK_ICD_FILENAMES", lavapipe());
        command.envs(variables.iter().copied());
        command.output().expect("vulkaninfo runs (Debian: vulkan-tools)")
    }

    fn succeed(&self, variables: &[(&str, &str)]) -> String {
        let output = self.run(variables);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        assert!(!errors.contains("ERROR"), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The size of the address space for sparse resources, bytes: the layer's own differs from the driver's.
    fn address_space(&self, variables: &[(&str, &str)]) -> u64 {
        let told = self.succeed(variables);
        let value = value(&told, "sparseAddressSpaceSize").trim_start_matches("0x");
        u64::from_str_radix(value, 16).unwrap()
    }
}

/// The manifest of lavapipe, whose name has the architecture in it on some systems.
fn lavapipe() -> PathBuf {
    let folder = fs::read_dir("/usr/share/vulkan/icd.d").expect("a Vulkan driver is installed");
    let is_lavapipe = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("lvp_icd");
    folder
        .map(|entry| entry.unwrap().path())
        .find(is_lavapipe)
        .expect("lavapipe is installed (Debian: mesa-vulkan-drivers)")
}

/// The value of the first line `NAME = VALUE`.
fn value<'a>(told: &'a str, name: &str) -> &'a str {
    told.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(left, _)| left.trim() == name)
        .map(|(_, right)| right.trim())
        .unwrap_or_else(|| panic!("vulkaninfo does not tell {name}"))
}

const BY_NAME: (&str, &str) = ("VK_INSTANCE_LAYERS", LAYER);

#[test]
fn lists_lavapipe_with_sparse_features() {
    let home = Home::new(&[Kind::Explicit]);
    let told = home.succeed(&[BY_NAME]);
    assert!(told.contains(LAYER));
    assert!(value(&told, "deviceName").starts_with("llvmpipe"));
    for feature in [
        "sparseBinding",
        "sparseResidencyBuffer",
        "sparseResidencyImage2D",
        "sparseResidencyImage3D",
        "sparseResidencyAliased",
        "shaderResourceResidency",
    ] {
        assert_eq!(value(&told, feature), "true", "{feature}");
    }
    assert_ne!(home.address_space(&[BY_NAME]), home.address_space(&[]), "the layer answers");
    assert_eq!(home.address_space(&[BY_NAME, ("TESSERA_KERNEL", "off")]), home.address_space(&[]));
}

#[test]
fn everything_but_sparse_binding_is_the_drivers() {
    let home = Home::new(&[Kind::Explicit]);
    let lines = |variables: &[(&str, &str)]| -> Vec<String> {
        let told = home.succeed(variables);
        // The address space is what the layer is for; how much of the heap is in use changes by itself.
        let ours = |line: &&str| !line.contains("sparseAddressSpaceSize");
        let still =
            |line: &&str| !["usage ", "budget "].iter().any(|word| line.trim_start().starts_with(word));
        told.lines().filter(ours).filter(still).map(str::to_owned).collect()
    };
    let native = lines(&[]);
    let layer = lines(&[BY_NAME]);
    let differ: Vec<_> = native.iter().zip(&layer).filter(|(native, layer)| native != layer).collect();
    assert_eq!(native.len(), layer.len());
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn a_wrong_kernel_is_refused_with_the_allowed_ones() {
    let home = Home::new(&[Kind::Explicit]);
    let output = home.run(&[BY_NAME, ("TESSERA_KERNEL", "panthr")]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{errors}");
    let line =
        errors.lines().find(|line| line.contains("TESSERA_KERNEL")).expect("an error names the variable");
    for kernel in ["panthr", "auto", "panthor", "msm", "emulated-panthor", "emulated-msm", "forward", "off"] {
        assert!(line.contains(kernel), "{kernel}: {line}");
    }
}

#[test]
fn the_implicit_manifest_has_its_switches() {
    let home = Home::new(&[Kind::Implicit]);
    let native = home.address_space(&[]);
    let on = ("ENABLE_TESSERA", "1");
    assert_ne!(home.address_space(&[on]), native);
    assert_eq!(home.address_space(&[on, ("DISABLE_TESSERA", "1")]), native);
    assert_eq!(home.address_space(&[("ENABLE_TESSERA", "0")]), native);
}

#[test]
fn both_manifests_load_the_layer_once() {
    let home = Home::new(&[Kind::Explicit, Kind::Implicit]);
    let times = |variables: &[(&str, &str)]| {
        let variables = [variables, &[("VK_LOADER_DEBUG", "layer")]].concat();
        let output = home.run(&variables);
        assert!(output.status.success());
        let wanted = format!("Insert instance layer \"{LAYER}\"");
        String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains(&wanted)).count()
    };
    assert_eq!(times(&[]), 0);
    assert_eq!(times(&[BY_NAME]), 1);
    assert_eq!(times(&[("ENABLE_TESSERA", "1")]), 1);
    assert_eq!(times(&[BY_NAME, ("ENABLE_TESSERA", "1")]), 1);
}

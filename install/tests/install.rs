//! The command itself, in a home and a prefix of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

struct World {
    home: TempDir,
    library: PathBuf,
}

impl World {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let library = home.path().join("built.so");
        fs::write(&library, b"first").unwrap();
        Self { home, library }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tessera-install"))
            .args(arguments)
            .env("HOME", self.home.path())
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_DATA_DIRS")
            .output()
            .unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn install(&self, more: &[&str]) -> String {
        self.succeed(&[&["install", "--library", self.library.to_str().unwrap()], more].concat())
    }

    fn files(&self, below: &Path) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(below, &mut found);
        let mut names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(below).unwrap().to_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }
}

#[test]
fn for_the_user_and_away_again() {
    let world = World::new();
    let data = world.home.path().join(".local/share");
    let said = world.install(&["--implicit"]);
    let files = world.files(&data);
    assert_eq!(
        files,
        [
            "tessera/libVkLayer_tessera.so",
            "vulkan/explicit_layer.d/VkLayer_tessera.json",
            "vulkan/implicit_layer.d/VkLayer_tessera_implicit.json"
        ]
    );
    for file in &files {
        assert!(said.contains(&format!("wrote {}", data.join(file).display())), "{said}");
    }
    let library = data.join("tessera/libVkLayer_tessera.so");
    let manifest = fs::read_to_string(data.join(&files[1])).unwrap();
    assert!(manifest.contains(library.to_str().unwrap()), "{manifest}");

    // A second installation replaces, and keeps the implicit manifest.
    fs::write(&world.library, b"second").unwrap();
    world.install(&[]);
    assert_eq!(fs::read(&library).unwrap(), b"second");
    assert_eq!(world.files(&data), files);

    let other = data.join("vulkan/explicit_layer.d/other.json");
    fs::write(&other, "{}").unwrap();
    world.succeed(&["uninstall"]);
    assert_eq!(world.files(&data), ["vulkan/explicit_layer.d/other.json"]);
    assert!(!data.join("tessera").exists());
    assert!(world.succeed(&["uninstall"]).contains("nothing to remove"));
}

#[test]
fn below_a_prefix() {
    let world = World::new();
    let prefix = world.home.path().join("prefix");
    let said = world.install(&["--prefix", prefix.to_str().unwrap()]);
    assert_eq!(
        world.files(&prefix),
        ["lib/libVkLayer_tessera.so", "share/vulkan/explicit_layer.d/VkLayer_tessera.json"]
    );
    assert!(said.contains("XDG_DATA_DIRS"), "a prefix that the loader does not search: {said}");
    assert!(!world.home.path().join(".local").exists());
    world.succeed(&["uninstall", "--prefix", prefix.to_str().unwrap()]);
    assert!(world.files(&prefix).is_empty());
}

#[test]
fn what_is_missing_is_named() {
    let world = World::new();
    let output = world.run(&["install", "--library", "/nowhere.so"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere.so"));
    // The folder of the prefix is a file: nothing can be written there.
    let prefix = world.library.to_str().unwrap();
    let output = world.run(&["install", "--library", prefix, "--prefix", prefix]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("built.so/lib"));
}

//! The modules that a driver needs, out of a kernel package.

use std::collections::HashMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::{Object, ObjectSection};
use wire::paths;

use crate::initramfs::Initramfs;
use crate::kernel::Kernel;

/// Adds the modules `wanted`, each with its parameters, and all that they depend on, and the list that tells in which order to
/// load them.
pub fn add(initramfs: &mut Initramfs, kernel: &Kernel, wanted: &[(&str, &str)]) -> Result<()> {
    let mut closure = Closure { files: HashMap::new(), loaded: Vec::new() };
    find(&kernel.modules(), &mut closure.files)?;
    for (name, _) in wanted {
        closure.add(initramfs, name)?;
    }
    let parameters =
        |name: &str| wanted.iter().find(|(wanted, _)| normal(wanted) == name).map_or("", |(_, p)| p);
    let line = |name: &String| format!("{} {}\n", guest_path(name), parameters(name));
    let order: String = closure.loaded.iter().map(line).collect();
    initramfs.file(paths::MODULES, order.into_bytes());
    Ok(())
}

struct Closure {
    /// Every module of the package, by its name.
    files: HashMap<String, PathBuf>,
    /// Names in the order of loading.
    loaded: Vec<String>,
}

impl Closure {
    fn add(&mut self, initramfs: &mut Initramfs, name: &str) -> Result<()> {
        let name = normal(name);
        if self.loaded.contains(&name) {
            return Ok(());
        }
        let path = self.files.get(&name).with_context(|| format!("the kernel has no module {name}"))?;
        let module = decompress(path).with_context(|| format!("cannot read {}", path.display()))?;
        for dependency in depends(&module).with_context(|| format!("cannot read {}", path.display()))? {
            self.add(initramfs, &dependency)?;
        }
        initramfs.file(&guest_path(&name), module);
        self.loaded.push(name);
        Ok(())
    }
}

fn guest_path(name: &str) -> String {
    format!("/lib/modules/{name}.ko")
}

/// Modules are named with underscores, their files also with hyphens.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn find(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".ko.xz")) {
            files.insert(normal(name), entry.path());
        }
    }
    Ok(())
}

fn decompress(path: &Path) -> Result<Vec<u8>> {
    let mut module = Vec::new();
    lzma_rs::xz_decompress(&mut BufReader::new(fs::File::open(path)?), &mut module)?;
    Ok(module)
}

/// What a module says it depends on: `depends=a,b` among the strings of its section `.modinfo`.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let elf = object::File::parse(module)?;
    let modinfo = elf.section_by_name(".modinfo").context("no section .modinfo")?.data()?;
    let line = modinfo.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"depends="));
    let names = String::from_utf8(line.unwrap_or_default().to_vec())?;
    Ok(names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

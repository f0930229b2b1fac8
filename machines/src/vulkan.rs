//! The guest's Vulkan, out of an arm64 root of Debian: its C library and loader, the GPU's driver, our layer, and the shared
//! libraries that these and the program need. Files keep the paths that they have in the root.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use manifest::Kind;
use object::LittleEndian;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use serde::Deserialize;

use crate::gpu::Gpu;
use crate::initramfs::Initramfs;

/// Where Debian keeps shared libraries for arm64.
const LIBRARIES: &str = "/usr/lib/aarch64-linux-gnu";

/// What programs load by themselves.
const LOADER: &str = "libvulkan.so.1";

/// Options for programs that are not static.
#[derive(Args)]
pub struct Stack {
    /// An arm64 root with a Vulkan loader and drivers; the program is linked to its C library. What is needed of it comes along.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The folder, in the root, of the drivers' manifests.
    #[arg(long, value_name = "DIR", default_value = "/usr/share/vulkan/icd.d", requires = "root")]
    drivers: String,
    /// The layer's library for arm64: it is in the machine, and enabled for the program.
    #[arg(long, value_name = "FILE", requires = "root")]
    layer: Option<PathBuf>,
}

/// A driver's manifest, as far as it is of interest.
#[derive(Deserialize)]
struct Icd {
    #[serde(rename = "ICD")]
    icd: Library,
}

#[derive(Deserialize)]
struct Library {
    library_path: String,
}

/// Adds what `program` needs, and returns the variables with which it finds that.
pub fn add(
    initramfs: &mut Initramfs,
    stack: &Stack,
    gpu: Gpu,
    program: &Path,
) -> Result<Vec<(&'static str, String)>> {
    let shown = || program.display().to_string();
    let executable = fs::read(program).with_context(shown)?;
    let interpreter = interpreter(&executable).with_context(shown)?;
    let (Some(root), Some(interpreter)) = (&stack.root, &interpreter) else {
        return match interpreter {
            None => Ok(vec![]),
            Some(_) => bail!("{} is not static: --root says whose libraries it gets", shown()),
        };
    };
    let icd = format!("{}/{}_icd.json", stack.drivers, driver(gpu));
    let text = fs::read(inside(root, &icd)).with_context(|| format!("the root has no {icd}"))?;
    let Icd { icd: Library { library_path: driver } } = serde_json::from_slice(&text)?;
    let (folder, _) = driver.rsplit_once('/').with_context(|| format!("{icd} names no path"))?;
    initramfs.file(&icd, text);

    let mut closure = Closure { root, folders: [folder, LIBRARIES], taken: BTreeSet::new() };
    closure.add(initramfs, interpreter)?;
    closure.add_needed(initramfs, &executable).with_context(shown)?;
    closure.add_by_name(initramfs, LOADER)?;
    closure.add(initramfs, &driver)?;
    let mut variables = vec![
        ("VK_DRIVER_FILES", icd.clone()),
        ("LD_LIBRARY_PATH", folder.to_owned()),
        // It would be in memory that ends with the machine.
        ("MESA_SHADER_CACHE_DISABLE", "1".to_owned()),
    ];
    if gpu == Gpu::Msm {
        // An A702 has no multiview, without which Turnip calls itself a Vulkan 1.0 driver unless it may be one that does not conform.
        variables.push(("TU_DEBUG", "noconform".to_owned()));
    }
    if let Some(layer) = &stack.layer {
        let library = fs::read(layer).with_context(|| layer.display().to_string())?;
        closure.add_needed(initramfs, &library).with_context(|| layer.display().to_string())?;
        let path = format!("{LIBRARIES}/{}", manifest::LIBRARY);
        let text = Kind::Explicit.text(Path::new(&path))?;
        let folder = format!("/usr/share/vulkan/{}", Kind::Explicit.folder());
        initramfs.file(&format!("{folder}/{}", Kind::Explicit.file_name()), text.into_bytes());
        initramfs.file(&path, library);
        variables.push(("VK_INSTANCE_LAYERS", manifest::LAYER.to_owned()));
    }
    Ok(variables)
}

/// How Mesa calls the Vulkan driver for a GPU.
const fn driver(gpu: Gpu) -> &'static str {
    match gpu {
        Gpu::Panthor => "panfrost",
        Gpu::Msm => "freedreno",
    }
}

fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Shared libraries and what they need.
struct Closure<'a> {
    root: &'a Path,
    /// Where libraries are looked for.
    folders: [&'a str; 2],
    /// Names that are there already.
    taken: BTreeSet<String>,
}

impl Closure<'_> {
    /// Adds the file at this path of the root, and what it needs.
    fn add(&mut self, initramfs: &mut Initramfs, path: &str) -> Result<()> {
        let name = path.rsplit('/').next().unwrap_or(path);
        if !self.taken.insert(name.to_owned()) {
            return Ok(());
        }
        let library = fs::read(inside(self.root, path)).with_context(|| format!("the root has no {path}"))?;
        self.add_needed(initramfs, &library).with_context(|| path.to_owned())?;
        initramfs.file(path, library);
        Ok(())
    }

    fn add_by_name(&mut self, initramfs: &mut Initramfs, name: &str) -> Result<()> {
        if self.taken.contains(name) {
            return Ok(());
        }
        let paths = self.folders.map(|folder| format!("{folder}/{name}"));
        let path = paths.iter().find(|path| inside(self.root, path).exists());
        self.add(initramfs, path.with_context(|| format!("the root has no {name}"))?)
    }

    fn add_needed(&mut self, initramfs: &mut Initramfs, file: &[u8]) -> Result<()> {
        needed(file)?.iter().try_for_each(|name| self.add_by_name(initramfs, name))
    }
}

fn header(file: &[u8]) -> Result<&FileHeader64<LittleEndian>> {
    let header = FileHeader64::<LittleEndian>::parse(file)?;
    ensure!(header.e_machine.get(LittleEndian) == object::elf::EM_AARCH64, "it is not for arm64");
    Ok(header)
}

/// The program that runs this one, if it is linked dynamically.
fn interpreter(file: &[u8]) -> Result<Option<String>> {
    for segment in header(file)?.program_headers(LittleEndian, file)? {
        if let Some(path) = segment.interpreter(LittleEndian, file)? {
            return Ok(Some(String::from_utf8(path.to_vec())?));
        }
    }
    Ok(None)
}

/// Names of the shared libraries that a program or library is linked to.
fn needed(file: &[u8]) -> Result<Vec<String>> {
    let sections = header(file)?.sections(LittleEndian, file)?;
    let Some((dynamic, strings)) = sections.dynamic(LittleEndian, file)? else { return Ok(vec![]) };
    let strings = sections.strings(LittleEndian, file, strings)?;
    let mut names = Vec::new();
    for entry in dynamic.iter().filter(|entry| entry.tag32(LittleEndian) == Some(DT_NEEDED)) {
        names.push(String::from_utf8(entry.string(LittleEndian, strings)?.to_vec())?);
    }
    Ok(names)
}

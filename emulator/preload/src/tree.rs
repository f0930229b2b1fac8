//! The files around the node: `/dev/dri`, and what libdrm reads of the device in `/sys`.
//!
//! They are real files in a folder of the user's, and paths that name them are redirected there: so whatever a program does
//! with them (list, read, follow links) is done by the C library and the kernel. Only the node itself is a placeholder, by
//! whose inode it is recognised.

use core::ffi::{CStr, c_char, c_int};
use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::real;
use crate::spec::Model;

/// Device number of the node: the first render node of the DRM subsystem.
pub(crate) const MAJOR: u32 = 226;
/// See [`MAJOR`].
pub(crate) const MINOR: u32 = 128;
/// Where programs look for the node.
pub(crate) const NODE: &str = "/dev/dri/renderD128";
/// Its name in any folder.
const NODE_NAME: &[u8] = b"renderD128";

/// Folders that are redirected, with all that is in them. The device's own follows, as its place depends on the driver.
const REDIRECTED: [&str; 3] = ["/dev/dri", "/sys/dev/char/226:128", "/sys/class/drm"];

/// What the kernel tells of the device behind the node.
struct Platform {
    /// Its folder in `/sys`.
    folder: &'static str,
    /// Its path in the device tree.
    node: &'static str,
    compatible: &'static str,
}

impl Platform {
    fn of(model: &Model) -> Self {
        match model {
            Model::Msm(_) => Self {
                folder: "/sys/devices/platform/soc@0/3d00000.gpu",
                node: "/soc@0/gpu@3d00000",
                compatible: "qcom,adreno",
            },
            Model::Panthor(_) => Self {
                folder: "/sys/devices/platform/fb000000.gpu",
                node: "/gpu@fb000000",
                compatible: "arm,mali-valhall-csf",
            },
        }
    }
}

/// The folder that holds the files.
pub(crate) struct Tree {
    root: PathBuf,
    /// Device and inode of the placeholder.
    node: (u64, u64),
}

impl Tree {
    /// Makes the files for `model`, or takes those of an earlier process of the same user.
    pub(crate) fn create(model: &Model) -> io::Result<Self> {
        let platform = Platform::of(model);
        let uid = rustix::process::geteuid().as_raw();
        let root = std::env::temp_dir().join(format!("tessera-emulator-{uid}-{}", model.driver()));
        private_folder(&root, uid)?;
        let device = platform.folder;
        let depth = device.split('/').count() - 2;
        let up = |levels: usize| "../".repeat(levels);
        // Targets of links are relative, as in /sys, so that they hold wherever the folder is.
        let inside = device.trim_start_matches("/sys/");
        let minor = format!("{inside}/drm/renderD128");
        let file = |path: &str, text: &str| write(&root, path, text);
        let link = |path: &str, to: &str| link(&root, path, to);

        let placeholder = touch(&root, NODE)?;
        file(
            &format!("{device}/uevent"),
            &format!(
                "DRIVER={}\nOF_NAME=gpu\nOF_FULLNAME={}\nOF_COMPATIBLE_0={}\nOF_COMPATIBLE_N=1\n\
                 MODALIAS=of:NgpuT(null)C{2}\n",
                model.driver(),
                platform.node,
                platform.compatible
            ),
        )?;
        file(&format!("{device}/drm/renderD128/dev"), &format!("{MAJOR}:{MINOR}\n"))?;
        file(
            &format!("{device}/drm/renderD128/uevent"),
            &format!("MAJOR={MAJOR}\nMINOR={MINOR}\nDEVNAME=dri/renderD128\nDEVTYPE=drm_minor\n"),
        )?;
        let driver = format!("/sys/bus/platform/drivers/{}", model.driver());
        folder(&root, &driver)?;
        link(&format!("{device}/subsystem"), &format!("{}bus/platform", up(depth)))?;
        link(&format!("{device}/driver"), &format!("{}{}", up(depth), driver.trim_start_matches("/sys/")))?;
        link(&format!("{device}/drm/renderD128/device"), "../..")?;
        link(&format!("{device}/drm/renderD128/subsystem"), &format!("{}class/drm", up(depth + 2)))?;
        link("/sys/class/drm/renderD128", &format!("../../{minor}"))?;
        link("/sys/dev/char/226:128", &format!("../../{minor}"))?;

        Ok(Self { root, node: (placeholder.dev(), placeholder.ino()) })
    }

    /// Whether a path names one of the files that there are for `model`. A cheap question: every path of the program is asked about.
    pub(crate) fn covers(model: &Model, path: &CStr) -> bool {
        let path = path.to_bytes();
        (path.starts_with(b"/dev/") || path.starts_with(b"/sys/"))
            && REDIRECTED.into_iter().chain([Platform::of(model).folder]).any(|folder| is_in(path, folder))
    }

    /// Where a path leads that names one of the files.
    pub(crate) fn redirect(&self, path: &CStr) -> Option<CString> {
        let path = OsStr::from_bytes(path.to_bytes().strip_prefix(b"/")?);
        CString::new(self.root.join(path).into_os_string().into_vec()).ok()
    }

    /// The path as programs know it of a file in the tree; `None` for all others.
    pub(crate) fn outside<'a>(&self, path: &'a Path) -> Option<PathBuf> {
        let inside: &'a Path = path.strip_prefix(&self.root).ok()?;
        Some(Path::new("/").join(inside))
    }

    /// Whether a file with this device and inode is the node.
    pub(crate) fn is_node(&self, file: (u64, u64)) -> bool {
        file == self.node
    }

    /// Whether an already redirected path names the node.
    ///
    /// # Safety
    /// `path` is a C string.
    pub(crate) unsafe fn names_node(&self, dir: c_int, path: *const c_char) -> bool {
        // SAFETY: our caller's promise.
        let text = unsafe { CStr::from_ptr(path) }.to_bytes();
        if text.rsplit(|byte| *byte == b'/').next() != Some(NODE_NAME) {
            return false;
        }
        // SAFETY: all zeroes is a stat.
        let mut stat: libc::stat64 = unsafe { core::mem::zeroed() };
        // SAFETY: a C string and a place for the result.
        let result = unsafe { real::fstatat64(dir, path, &mut stat, 0) };
        result == 0 && self.is_node((stat.st_dev, stat.st_ino))
    }

    /// Path of the placeholder.
    pub(crate) fn placeholder(&self) -> PathBuf {
        self.root.join(NODE.trim_start_matches('/'))
    }
}

/// Whether `path` is `folder` or in it.
fn is_in(path: &[u8], folder: &str) -> bool {
    path.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A folder that only this user can change: others could put links into one that is open to them.
fn private_folder(path: &Path, uid: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != uid || found.permissions().mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("{} is not a private folder of this user", path.display())));
    }
    Ok(())
}

fn folder(root: &Path, path: &str) -> io::Result<PathBuf> {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// Path in the tree, whose folder is made.
fn place(root: &Path, path: &str) -> io::Result<PathBuf> {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    Ok(folder(root, parent)?.join(name))
}

/// An empty file, which stays the same file whoever else makes it.
fn touch(root: &Path, path: &str) -> io::Result<fs::Metadata> {
    fs::OpenOptions::new().append(true).create(true).open(place(root, path)?)?.metadata()
}

/// A file with this text. Another process may be making it at the same time, or reading it.
fn write(root: &Path, path: &str, text: &str) -> io::Result<()> {
    let path = place(root, path)?;
    if fs::read(&path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    let new = path.with_extension(std::process::id().to_string());
    fs::write(&new, text)?;
    fs::rename(new, path)
}

fn link(root: &Path, path: &str, to: &str) -> io::Result<()> {
    let path = place(root, path)?;
    if fs::read_link(&path).is_ok_and(|there| there == Path::new(to)) {
        return Ok(());
    }
    let new = path.with_extension(std::process::id().to_string());
    symlink(to, &new)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_in_folders_or_not() {
        assert!(is_in(b"/dev/dri", "/dev/dri"));
        assert!(is_in(b"/dev/dri/renderD128", "/dev/dri"));
        assert!(is_in(b"/dev/dri/", "/dev/dri"));
        assert!(!is_in(b"/dev/drivers", "/dev/dri"));
        assert!(!is_in(b"/dev", "/dev/dri"));
        assert!(!is_in(b"dev/dri", "/dev/dri"));
    }

    #[test]
    fn links_lead_to_what_they_say() {
        for text in ["msm:a750", "panthor:g610"] {
            let model = Model::parse(text).unwrap();
            let tree = Tree::create(&model).unwrap();
            // A second process finds it all there.
            let again = Tree::create(&model).unwrap();
            assert_eq!(tree.node, again.node);

            let find = |path: &str| {
                let path = CString::new(path).unwrap();
                assert!(Tree::covers(&model, &path));
                let inside = tree.redirect(&path).unwrap();
                let real = fs::canonicalize(OsStr::from_bytes(inside.as_bytes())).unwrap();
                tree.outside(&real).unwrap()
            };
            let device = Path::new(Platform::of(&model).folder);
            assert_eq!(find("/sys/dev/char/226:128/device"), device);
            assert_eq!(find("/sys/class/drm/renderD128/device"), device);
            assert_eq!(find("/sys/dev/char/226:128/device/drm/renderD128"), device.join("drm/renderD128"));
            assert_eq!(find("/sys/dev/char/226:128/device/subsystem"), Path::new("/sys/bus/platform"));
            assert_eq!(find("/sys/dev/char/226:128/subsystem"), Path::new("/sys/class/drm"));
            assert_eq!(find("/dev/dri/renderD128"), Path::new(NODE));
            assert!(!Tree::covers(&model, c"/dev/null") && !Tree::covers(&model, c"/sys/dev/char/226:0"));
        }
    }
}

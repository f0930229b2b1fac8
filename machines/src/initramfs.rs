//! The guest's files: a cpio archive.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

/// An archive in the making.
pub struct Initramfs {
    archive: Vec<u8>,
    folders: BTreeSet<String>,
    inode: u32,
}

impl Initramfs {
    /// An empty archive.
    pub fn new() -> Self {
        Self { archive: Vec::new(), folders: BTreeSet::new(), inode: 1 }
    }

    /// Adds a file at an absolute path, and the folders that lead there.
    pub fn file(&mut self, path: &str, data: Vec<u8>) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            let folder = &path[..at];
            if self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, &[]);
            }
        }
        self.entry(path, FILE, &data);
    }

    /// Adds a file of the host.
    pub fn program(&mut self, guest: &str, host: &Path) -> Result<()> {
        let data = fs::read(host).with_context(|| format!("cannot read {}", host.display()))?;
        self.file(guest, data);
        Ok(())
    }

    /// The archive.
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(newc::trailer(self.archive)?)
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.inode += 1;
        let entry = newc::Builder::new(name).ino(self.inode).mode(mode).nlink(1);
        let mut writer = entry.write(&mut self.archive, data.len() as u32);
        writer.write_all(data).and_then(|()| writer.finish().map(drop)).expect("a vector takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut initramfs = Initramfs::new();
        initramfs.file("/init", b"first".to_vec());
        initramfs.file("/lib/modules/a.ko", b"module".to_vec());
        initramfs.file("/lib/modules/b.ko", vec![]);
        let archive = initramfs.finish().unwrap();
        let (mut rest, mut seen) = (&archive[..], Vec::new());
        loop {
            let reader = newc::Reader::new(rest).unwrap();
            let entry = reader.entry();
            if entry.is_trailer() {
                break;
            }
            seen.push((entry.name().to_owned(), entry.mode(), entry.file_size()));
            rest = reader.finish().unwrap();
        }
        let expected = [
            ("init", FILE, 5),
            ("lib", FOLDER, 0),
            ("lib/modules", FOLDER, 0),
            ("lib/modules/a.ko", FILE, 6),
            ("lib/modules/b.ko", FILE, 0),
        ];
        assert_eq!(seen, expected.map(|(name, mode, len)| (name.to_owned(), mode, len)));
    }
}

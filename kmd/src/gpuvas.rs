//! What the kernel's VMs map, by its own account: the file `gpuvas` of debugfs (`drm_debugfs_gpuva_info`).

use std::path::PathBuf;
use std::{fs, io};

/// A mapping of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub va: u64,
    /// Length in bytes.
    pub len: u64,
    /// Whatever tells objects apart: the address of the object in the kernel.
    pub object: u64,
    /// Offset in the object, in bytes.
    pub offset: u64,
}

/// Why there is no account.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// debugfs is not mounted, or not for us to read.
    #[error("cannot read debugfs: {0}")]
    Io(#[from] io::Error),
    /// No device has such a file.
    #[error("no device in debugfs has a file gpuvas")]
    Missing,
    /// Another kernel than we know.
    #[error("a line of gpuvas that makes no sense: {0}")]
    Line(String),
}

/// The mappings of all VMs of the device, in the order in which the VMs were made; the driver's own come first.
pub fn read() -> Result<Vec<Vec<Mapping>>, Error> {
    parse(&fs::read_to_string(file()?)?)
}

/// Where the account is. Folders are named by the minors of the devices; those of clients come and go.
fn file() -> Result<PathBuf, Error> {
    for entry in fs::read_dir("/sys/kernel/debug/dri")? {
        let entry = entry?;
        let path = entry.path().join("gpuvas");
        if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) && path.exists() {
            return Ok(path);
        }
    }
    Err(Error::Missing)
}

fn parse(text: &str) -> Result<Vec<Vec<Mapping>>, Error> {
    let mut vms = Vec::new();
    for line in text.lines() {
        if line.starts_with("DRM GPU VA space") {
            vms.push(Vec::new());
        } else if let Some(columns) = line.strip_prefix("     | ") {
            let bad = || Error::Line(line.to_owned());
            let number = |text: &str| u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok();
            let numbers: Option<Vec<u64>> = columns.split('|').map(number).collect();
            let Some([va, len, _end, object, offset]) = numbers.as_deref() else { return Err(bad()) };
            let mapping = Mapping { va: *va, len: *len, object: *object, offset: *offset };
            vms.last_mut().ok_or_else(bad)?.push(mapping);
        }
    }
    Ok(vms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_vms() {
        let text = "\
DRM GPU VA space (panthor-mcu) [0x0000000000000000;0x0000000100000000]
Kernel reserved node [0x0000000000000000;0x0000000000000000]

 VAs | start              | range              | end                | object             | object offset
-------------------------------------------------------------------------------------------------------------

DRM GPU VA space (panthor-gpu) [0x0000000000000000;0x0001000000000000]
 VAs | start              | range              | end                | object             | object offset
-------------------------------------------------------------------------------------------------------------
     | 0x0000000010000000 | 0x0000000000001000 | 0x0000000010001000 | 0xffff000003a1c000 | 0x0000000000002000
";
        let mapping = Mapping { va: 0x1000_0000, len: 0x1000, object: 0xffff_0000_03a1_c000, offset: 0x2000 };
        assert_eq!(parse(text).unwrap(), [vec![], vec![mapping]]);
        assert!(matches!(parse("     | 0x1 | 0x2"), Err(Error::Line(_))));
    }
}

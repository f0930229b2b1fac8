//! What the kernel knows about this process's mappings: the file and offset behind an address.

use std::fs::File;
use std::io::{BufRead, BufReader};

use rustix::io::Errno;
use rustix::ioctl;

/// A mapping of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vma {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// Offset in the file of `start`, in bytes.
    pub(crate) offset: u64,
    /// Device and inode of the file; `(0, 0)` for anonymous private memory.
    pub(crate) file: (u64, u64),
    pub(crate) shared: bool,
    pub(crate) writable: bool,
}

/// `struct procmap_query` of `linux/fs.h` (Linux 6.11).
#[repr(C)]
#[derive(Default)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const PROCMAP_QUERY: ioctl::Opcode = ioctl::opcode::read_write::<ProcmapQuery>(b'f', 17);
const VMA_WRITABLE: u64 = 0x02;
const VMA_SHARED: u64 = 0x08;

/// The mapping that covers `addr`; `None` when there is none (or it cannot be found out).
pub(crate) fn find(addr: u64) -> Option<Vma> {
    match by_ioctl(addr) {
        Ok(vma) => vma,
        Err(_) => by_text(addr),
    }
}

/// Asks by ioctl. Errors mean that this kernel cannot answer.
fn by_ioctl(addr: u64) -> Result<Option<Vma>, Errno> {
    // Not kept open: a library that is unloaded and loaded again would leave a descriptor behind each time.
    let maps = File::open("/proc/self/maps").map_err(|_| Errno::NOENT)?;
    let mut query =
        ProcmapQuery { size: size_of::<ProcmapQuery>() as u64, query_addr: addr, ..ProcmapQuery::default() };
    // SAFETY: the opcode and the structure are those of linux/fs.h; no name or build id buffer is asked for.
    let update = unsafe { ioctl::Updater::<PROCMAP_QUERY, _>::new(&mut query) };
    // SAFETY: as above; PROCMAP_QUERY only writes the structure.
    match unsafe { ioctl::ioctl(&maps, update) } {
        Ok(()) => Ok(Some(Vma {
            start: query.vma_start,
            end: query.vma_end,
            offset: query.vma_offset,
            file: (rustix::fs::makedev(query.dev_major, query.dev_minor), query.inode),
            shared: query.vma_flags & VMA_SHARED != 0,
            writable: query.vma_flags & VMA_WRITABLE != 0,
        })),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Looks through the text form: slow with many mappings, but every kernel has it.
fn by_text(addr: u64) -> Option<Vma> {
    let maps = File::open("/proc/self/maps").ok()?;
    BufReader::new(maps)
        .lines()
        .map_while(Result::ok)
        .find_map(|line| parse(&line).filter(|v| v.start <= addr && addr < v.end))
}

/// One line, `start-end perms offset major:minor inode path`.
fn parse(line: &str) -> Option<Vma> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let perms = fields.next()?.as_bytes();
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let hex = |s| u64::from_str_radix(s, 16).ok();
    let dev = |s| u32::from_str_radix(s, 16).ok();
    Some(Vma {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        file: (rustix::fs::makedev(dev(major)?, dev(minor)?), inode),
        shared: perms.get(3) == Some(&b's'),
        writable: perms.get(1) == Some(&b'w'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    #[test]
    fn both_ways_agree() {
        let fd = rustix::fs::memfd_create("procmap-test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, 0x6000).unwrap();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            mmap(core::ptr::null_mut(), 0x3000, ProtFlags::READ, MapFlags::SHARED, &fd, 0x2000).unwrap()
        };
        let stat = rustix::fs::fstat(&fd).unwrap();
        let addr = at.addr() as u64 + 0x1234;
        let text = by_text(addr).unwrap();
        assert_eq!((text.offset, text.file, text.shared), (0x2000, (stat.st_dev, stat.st_ino), true));
        assert!(!text.writable && text.start == at.addr() as u64 && text.end - text.start == 0x3000);
        // Kernels before 6.11 refuse the ioctl; then there is nothing to compare.
        if let Ok(asked) = by_ioctl(addr) {
            assert_eq!(asked, Some(text));
        }
        assert_eq!(find(addr), Some(text));
        // SAFETY: the mapping made above, not used any more.
        unsafe { munmap(at, 0x3000).unwrap() };
        assert_eq!(find(0x1000), None);
    }
}

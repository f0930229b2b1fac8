//! A fence that is signalled when the test says so, for queues that are to be blocked. The kernel makes fences for work
//! only; the driver `vgem` makes them for tests.

use std::sync::Arc;
use std::{fs, io};

use drm::Device as _;
use drm::buffer::{Buffer, DrmFourcc};
use drm::control::Device as _;
use kmd::uapi::{COMMAND_BASE, iow, iowr};
use kmd::{Errno, RenderNode, Request, Syncobj, call};
use rustix::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::ioctl::opcode;

/// `drm_vgem_fence_attach`.
#[repr(C)]
struct FenceAttach {
    handle: u32,
    flags: u32,
    out_fence: u32,
    pad: u32,
}

/// `drm_vgem_fence_signal`.
#[repr(C)]
struct FenceSignal {
    fence: u32,
    flags: u32,
}

/// `dma_buf_export_sync_file`.
#[repr(C)]
struct ExportSyncFile {
    flags: u32,
    fd: i32,
}

// SAFETY: DRM_IOCTL_VGEM_FENCE_ATTACH.
unsafe impl Request for FenceAttach {
    const REQUEST: u32 = iowr::<Self>(COMMAND_BASE + 1);
}

// SAFETY: DRM_IOCTL_VGEM_FENCE_SIGNAL.
unsafe impl Request for FenceSignal {
    const REQUEST: u32 = iow::<Self>(COMMAND_BASE + 2);
}

// SAFETY: DMA_BUF_IOCTL_EXPORT_SYNC_FILE.
unsafe impl Request for ExportSyncFile {
    const REQUEST: u32 = opcode::read_write::<Self>(b'b', 2) as u32;
}

const VGEM_FENCE_WRITE: u32 = 1;
const DMA_BUF_SYNC_READ: u32 = 1;

/// A fence that is not signalled. vgem signals it by itself after ten seconds.
pub struct Gate {
    card: Card,
    fence: u32,
    sync_file: OwnedFd,
}

/// The primary node of vgem: making dumb buffers is not for render nodes.
struct Card(RenderNode);

impl AsFd for Card {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl drm::Device for Card {}
impl drm::control::Device for Card {}

impl Card {
    fn vgem() -> io::Result<Self> {
        for entry in fs::read_dir("/dev/dri")? {
            let entry = entry?;
            if !entry.file_name().as_encoded_bytes().starts_with(b"card") {
                continue;
            }
            let node = RenderNode::open(entry.path())?;
            if node.get_driver()?.name() == "vgem" {
                return Ok(Self(node));
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no vgem: is its module loaded?"))
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> io::Result<Self> {
        let card = Card::vgem()?;
        let buffer = card.create_dumb_buffer((64, 64), DrmFourcc::Xrgb8888, 32)?;
        let handle = Buffer::handle(&buffer);
        let dma_buf = RenderNode::from_fd(card.buffer_to_prime_fd(handle, 0)?);
        let mut attach = FenceAttach { handle: handle.into(), flags: VGEM_FENCE_WRITE, out_fence: 0, pad: 0 };
        // SAFETY: the argument holds no pointer.
        unsafe { call(&card.0, &mut attach)? };
        let mut export = ExportSyncFile { flags: DMA_BUF_SYNC_READ, fd: -1 };
        // SAFETY: as above.
        unsafe { call(&dma_buf, &mut export)? };
        // SAFETY: the kernel has just made this descriptor for us.
        let sync_file = unsafe { OwnedFd::from_raw_fd(export.fd) };
        Ok(Self { card, fence: attach.out_fence, sync_file })
    }

    /// A new syncobj of `node` that holds the fence.
    pub fn syncobj(&self, node: Arc<dyn kmd::Node>) -> Result<Syncobj, Errno> {
        let syncobj = Syncobj::create(node, false)?;
        syncobj.import_sync_file(self.sync_file.as_fd(), None)?;
        Ok(syncobj)
    }

    /// The fence as a sync file.
    pub fn sync_file(&self) -> BorrowedFd<'_> {
        self.sync_file.as_fd()
    }

    /// Signals the fence.
    pub fn open(self) -> Result<(), Errno> {
        let mut signal = FenceSignal { fence: self.fence, flags: 0 };
        // SAFETY: the argument holds no pointer.
        unsafe { call(&self.card.0, &mut signal) }
    }
}

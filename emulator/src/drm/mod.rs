//! The DRM core: devices, open files, and the ioctls that every driver shares. Knows no driver.

pub(crate) mod fd;
pub(crate) mod fence;
pub(crate) mod gem;
pub(crate) mod ids;
pub(crate) mod ioctl;
pub(crate) mod resv;
pub(crate) mod sync_file;
pub(crate) mod syncobj;
pub(crate) mod user;

use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::config::{Config, Injectors, Stats};
use crate::mem::backing::Arena;
use crate::mem::host::Importer;
use crate::mem::space::Space;
use crate::queue::Pace;
use gem::{Handles, Object, Objects};
use ids::Ids;
use syncobj::Syncobj;

/// What a driver says about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DriverInfo {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// Major, minor, patch level.
    pub(crate) version: (i32, i32, i32),
    /// The answer to exporting an object that belongs to one VM.
    pub(crate) export_private: Errno,
}

/// An emulated device: what all its open files share.
pub(crate) struct Device {
    pub(crate) driver: DriverInfo,
    pub(crate) stats: Arc<Stats>,
    pub(crate) faults: Injectors,
    pub(crate) space: Space,
    pub(crate) importer: Importer,
    pub(crate) objects: Mutex<Objects>,
    pub(crate) pace: Arc<Pace>,
    arena: Mutex<Option<Arc<Arena>>>,
}

impl Device {
    pub(crate) fn new(driver: DriverInfo, config: &Config) -> Arc<Self> {
        let stats = Arc::<Stats>::default();
        Arc::new(Self {
            driver,
            faults: Injectors::new(&config.faults),
            space: Space::new(config.unbound, config.execute, stats.clone()),
            importer: Importer::default(),
            objects: Mutex::new(Objects::new()),
            pace: Arc::default(),
            arena: Mutex::new(None),
            stats,
        })
    }

    /// The arena, made at its first use.
    fn arena(&self) -> Result<Arc<Arena>, Errno> {
        let mut arena = self.arena.lock();
        if let Some(arena) = &*arena {
            return Ok(arena.clone());
        }
        Ok(arena.insert(Arc::new(Arena::new()?)).clone())
    }

    /// Device and inode of the arena's file, once there is one.
    pub(crate) fn arena_file(&self) -> Option<(u64, u64)> {
        self.arena.lock().as_ref().map(|arena| arena.file())
    }
}

/// An open file of a device: GEM and syncobj handles. A driver keeps its own state beside it.
pub(crate) struct File {
    pub(crate) device: Arc<Device>,
    pub(crate) handles: Mutex<Handles>,
    pub(crate) syncobjs: Mutex<Ids<Arc<Syncobj>>>,
}

impl File {
    pub(crate) fn open(device: Arc<Device>) -> Self {
        Self {
            device,
            handles: Mutex::new(Handles::new()),
            // xa_limit_32b
            syncobjs: Mutex::new(Ids::new(u32::MAX)),
        }
    }

    /// Looks a syncobj up.
    pub(crate) fn syncobj(&self, handle: u32) -> Option<Arc<Syncobj>> {
        self.syncobjs.lock().get(handle).cloned()
    }

    /// Closes all handles.
    pub(crate) fn release(&self) {
        let objects: Vec<Arc<Object>> = self.handles.lock().drain();
        let syncobjs = self.syncobjs.lock().drain();
        drop((objects, syncobjs));
    }
}

//! A Vulkan driver's sparse binding on the emulated node: creates a device and a sparse buffer, binds tiles in an odd order,
//! unbinds some, and holds the node's page table against what it asked for. Ends with an error when they differ.
//!
//!     TESSERA_EMULATE=msm:a750 scripts/chroot run -- target/debug/examples/sparse_bind

use std::collections::BTreeMap;
use std::error::Error;

use ash::vk;
use client::Emulator;

const TILE: u64 = 64 << 10;
const TILES: u64 = 32;
/// Tiles that are unbound again.
const HOLES: [u64; 3] = [0, 7, 8];

/// Object and offset of each tile; nothing for null mappings.
type Tiles = BTreeMap<u64, Option<(u64, u64)>>;

/// What the node maps in `va..va + len`, by tile.
fn tiles(va: u64, len: u64) -> Result<Tiles, Box<dyn Error>> {
    let emulator = Emulator::find().ok_or("libtessera_emulator.so is not preloaded")?;
    let mut tiles = BTreeMap::new();
    for mapping in emulator.mappings(None, 1)? {
        for at in (mapping.va..mapping.va + mapping.len).step_by(TILE as usize) {
            if (va..va + len).contains(&at) {
                let target = (mapping.object, mapping.offset + (at - mapping.va));
                tiles.insert((at - va) / TILE, (mapping.object != 0).then_some(target));
            }
        }
    }
    Ok(tiles)
}

fn check(what: &str, ok: bool) -> Result<(), Box<dyn Error>> {
    println!("{what}: {}", if ok { "ok" } else { "WRONG" });
    if ok { Ok(()) } else { Err(what.into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    // SAFETY: Vulkan as its specification has it; every object is used by this thread alone and destroyed after its last use.
    unsafe {
        let entry = ash::Entry::load()?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let instance =
            entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&application), None)?;
        let gpu = *instance.enumerate_physical_devices()?.first().ok_or("no Vulkan device")?;
        let properties = instance.get_physical_device_properties(gpu);
        println!("{}", properties.device_name_as_c_str()?.to_string_lossy());

        let family = instance
            .get_physical_device_queue_family_properties(gpu)
            .iter()
            .position(|family| family.queue_flags.contains(vk::QueueFlags::SPARSE_BINDING))
            .ok_or("no queue binds sparse resources")? as u32;
        let queues =
            [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let features =
            vk::PhysicalDeviceFeatures::default().sparse_binding(true).sparse_residency_buffer(true);
        let mut features_12 = vk::PhysicalDeviceVulkan12Features::default().buffer_device_address(true);
        let info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_features(&features)
            .push_next(&mut features_12);
        let device = instance.create_device(gpu, &info, None)?;
        let queue = device.get_device_queue(family, 0);
        let fence = device.create_fence(&vk::FenceCreateInfo::default(), None)?;

        let usage = vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::SHADER_DEVICE_ADDRESS;
        let flags = vk::BufferCreateFlags::SPARSE_BINDING | vk::BufferCreateFlags::SPARSE_RESIDENCY;
        let info = vk::BufferCreateInfo::default().flags(flags).size(TILES * TILE).usage(usage);
        let buffer = device.create_buffer(&info, None)?;
        let address =
            device.get_buffer_device_address(&vk::BufferDeviceAddressInfo::default().buffer(buffer));
        let requirements = device.get_buffer_memory_requirements(buffer);
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(TILES * TILE)
            .memory_type_index(requirements.memory_type_bits.trailing_zeros());
        let memory = device.allocate_memory(&info, None)?;

        let bind = |binds: &[vk::SparseMemoryBind]| {
            let buffers = [vk::SparseBufferMemoryBindInfo::default().buffer(buffer).binds(binds)];
            let info = vk::BindSparseInfo::default().buffer_binds(&buffers);
            device.queue_bind_sparse(queue, &[info], fence)?;
            device.wait_for_fences(&[fence], true, u64::MAX)?;
            device.reset_fences(&[fence])
        };

        // Tile i shows the memory's tile 5 * i.
        let place = |tile: u64| tile * 5 % TILES;
        let binds: Vec<_> = (0..TILES)
            .map(|i| i * 11 % TILES)
            .map(|tile| {
                vk::SparseMemoryBind::default()
                    .resource_offset(tile * TILE)
                    .size(TILE)
                    .memory(memory)
                    .memory_offset(place(tile) * TILE)
            })
            .collect();
        bind(&binds)?;
        let mapped = tiles(address, TILES * TILE)?;
        let object = mapped.get(&0).copied().flatten().map_or(0, |(object, _)| object);
        let wanted: Tiles = (0..TILES).map(|tile| (tile, Some((object, place(tile) * TILE)))).collect();
        check("bound tiles show their memory", object != 0 && mapped == wanted)?;

        let binds = HOLES.map(|tile| vk::SparseMemoryBind::default().resource_offset(tile * TILE).size(TILE));
        bind(&binds)?;
        let mapped = tiles(address, TILES * TILE)?;
        let wanted: Tiles = wanted
            .into_iter()
            .map(|(tile, target)| (tile, target.filter(|_| !HOLES.contains(&tile))))
            .collect();
        check("unbound tiles are null mappings", mapped == wanted)?;

        // Jobs of the GPU are accepted and signalled, and fences come back.
        device.queue_submit(queue, &[vk::SubmitInfo::default()], fence)?;
        device.wait_for_fences(&[fence], true, u64::MAX)?;
        device.device_wait_idle()?;

        device.destroy_buffer(buffer, None);
        device.free_memory(memory, None);
        check("a destroyed buffer leaves nothing mapped", tiles(address, TILES * TILE)?.is_empty())?;
        device.destroy_fence(fence, None);
        device.destroy_device(None);
        instance.destroy_instance(None);
    }
    Ok(())
}

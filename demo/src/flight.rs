//! One flight: the child process that opens the device, streams tiles and draws the frames.

use std::collections::HashSet;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use ash::vk;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::camera::Camera;
use crate::canvas::{Align, Canvas, FONT_6X10};
use crate::content::{Painter, level_colour};
use crate::gpu::{self, Gpu};
use crate::pool::{Layout, Load, Pool, RESIDENCY_UNIT, TILE_BYTES, Tile};
use crate::render::Renderer;
use crate::texture::{READBACK_TILES, Texture};

/// The layer, as the loader knows it.
pub(crate) const LAYER: &CStr = c"VK_LAYER_TESSERA_sparse_binding";
/// The pinned levels may take this many tiles.
const PINNED_TILES: u32 = 128;
/// A verification comes after every so many frames.
const VERIFY_EVERY: u32 = 10;

/// What to fly, the same for both flights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) frames: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) texture: u32,
    /// Tiles of memory.
    pub(crate) pool: u32,
    /// Most tiles that a frame may load.
    pub(crate) uploads: u32,
    pub(crate) verify: bool,
}

/// What a flight leaves behind beside its pictures: `flight.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) device: String,
    /// The layer's library was mapped while it ran.
    pub(crate) layer_loaded: bool,
    pub(crate) texture: u32,
    pub(crate) virtual_bytes: u64,
    pub(crate) pool_tiles: u32,
    pub(crate) pinned_level: u32,
    pub(crate) mip_tail_level: u32,
    /// The bind of the levels that stay.
    pub(crate) first: Bind,
    pub(crate) frames: Vec<Bind>,
    pub(crate) seconds: f64,
    pub(crate) tiles_verified: usize,
}

/// One call of vkQueueBindSparse. Tiles by their index.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) bound: Vec<u32>,
    pub(crate) unbound: Vec<u32>,
    /// From the call to the signal; `None` when there was nothing to bind and so no call.
    pub(crate) nanoseconds: Option<u64>,
}

impl Record {
    pub(crate) fn path(folder: &Path) -> PathBuf {
        folder.join("flight.json")
    }

    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = Self::path(folder);
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
    }
}

/// The file of a frame.
pub(crate) fn frame_path(folder: &Path, frame: u32) -> PathBuf {
    folder.join(format!("frame_{frame:04}.png"))
}

/// Says early whether a flight could start: the device and, if it is to be there, the layer.
pub(crate) fn probe(plan: &Plan, with_layer: bool) -> Result<()> {
    if with_layer && !gpu::layer_listed(LAYER) {
        bail!(
            "the Vulkan loader does not know the layer {}. Install it as the README says, or name the folder with its \
             manifest: --layer-path DIR",
            LAYER.to_string_lossy()
        );
    }
    let gpu = Gpu::open(Layout { size: plan.texture })?;
    if with_layer && !layer_loaded() {
        bail!(
            "the loader knows the layer {} but did not load it; VK_LOADER_DEBUG=error,layer tells why",
            LAYER.to_string_lossy()
        );
    }
    drop(gpu);
    Ok(())
}

/// Whether the layer's library is mapped in this process.
fn layer_loaded() -> bool {
    std::fs::read_to_string("/proc/self/maps").is_ok_and(|maps| maps.contains("libVkLayer_tessera"))
}

/// Flies, and leaves frames and record in `folder`.
pub(crate) fn run(plan: &Plan, name: &str, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let layout = Layout { size: plan.texture };
    let mut gpu = Gpu::open(layout)?;
    let (writer, files) = picture_writer();
    let bar = ProgressBar::new(u64::from(plan.frames));
    let style = "{prefix:>7}  {bar:40.cyan/blue}  {pos:>3}/{len} frames  {elapsed_precise}  {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.set_prefix(name.to_owned());

    let pinned = (0..layout.levels())
        .find(|level| layout.tile_count() - layout.first_index(*level) <= PINNED_TILES)
        .unwrap_or(layout.levels() - 1);
    let batch = PINNED_TILES.max(plan.uploads) as usize;
    let texture = Texture::new(&gpu, layout, plan.pool, batch)?;
    let renderer = Renderer::new(&gpu, &texture, plan.width, plan.height)?;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut flight = Flight {
        commands: gpu.command_buffer()?,
        pool: Pool::new(layout, plan.pool, pinned.min(texture.tail)),
        painters: (0..threads).map(|_| Painter::new(layout)).collect(),
        plan: *plan,
        layout,
        texture,
        renderer,
    };
    let start = Instant::now();
    let mut record = Record {
        device: gpu.name.clone(),
        layer_loaded: layer_loaded(),
        texture: plan.texture,
        virtual_bytes: flight.texture.virtual_bytes,
        pool_tiles: plan.pool,
        pinned_level: flight.pool.pinned(),
        mip_tail_level: flight.texture.tail,
        first: flight.start(&mut gpu)?,
        frames: Vec::new(),
        seconds: 0.0,
        tiles_verified: 0,
    };
    for frame in 0..plan.frames {
        let (picture, bind) = flight.frame(&mut gpu, frame)?;
        if plan.verify && (frame % VERIFY_EVERY == VERIFY_EVERY - 1 || frame + 1 == plan.frames) {
            record.tiles_verified += flight.verify(&mut gpu, frame, &bind)?;
        }
        bar.set_message(format!("+{} -{} tiles", bind.bound.len(), bind.unbound.len()));
        bar.inc(1);
        record.frames.push(bind);
        // Fails only after the writer has: its own error is reported below.
        if files.send((frame_path(folder, frame), picture)).is_err() {
            break;
        }
    }
    record.seconds = start.elapsed().as_secs_f64();
    bar.finish_with_message(format!("{:.1} s", record.seconds));
    drop(files);
    writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    flight.renderer.destroy(&gpu);
    flight.texture.destroy(&gpu);
    std::fs::write(Record::path(folder), serde_json::to_vec(&record)?)
        .with_context(|| format!("cannot write into {}", folder.display()))
}

/// A thread that packs and writes pictures while the next one is drawn.
fn picture_writer() -> (JoinHandle<Result<()>>, SyncSender<(PathBuf, Canvas)>) {
    let (sender, receiver) = sync_channel::<(PathBuf, Canvas)>(4);
    let thread = std::thread::spawn(move || {
        receiver.iter().try_for_each(|(path, picture)| picture.save(&path, false))
    });
    (thread, sender)
}

struct Flight {
    plan: Plan,
    layout: Layout,
    texture: Texture,
    pool: Pool,
    renderer: Renderer,
    painters: Vec<Painter>,
    commands: vk::CommandBuffer,
}

impl Flight {
    /// Binds and uploads the levels that stay.
    fn start(&mut self, gpu: &mut Gpu) -> Result<Bind> {
        let loads = self.pool.load_pinned(self.texture.tail);
        let time = self.texture.bind(gpu, &loads, true)?;
        let tail = self.texture.tail_tiles();
        let all: Vec<Tile> = loads.iter().map(|load| load.tile).chain(tail).collect();
        self.texture.stage(&all, &mut self.painters);
        let (texture, commands) = (&self.texture, self.commands);
        self.renderer.prepare(gpu, commands, self.pool.residency(), |device| {
            texture.record_upload(device, commands, &all, vk::ImageLayout::UNDEFINED);
        })?;
        Ok(self.bind_record(&loads, Some(time.as_nanos() as u64)))
    }

    fn bind_record(&self, loads: &[Load], nanoseconds: Option<u64>) -> Bind {
        Bind {
            bound: loads.iter().map(|load| self.layout.index(load.tile)).collect(),
            unbound: loads
                .iter()
                .filter_map(|load| load.evicted)
                .map(|tile| self.layout.index(tile))
                .collect(),
            nanoseconds,
        }
    }

    /// Finds out what the frame wants, loads it, and draws. All that a frame loads is there before it is drawn, so that
    /// every run of the same flight has the same frames.
    fn frame(&mut self, gpu: &mut Gpu, frame: u32) -> Result<(Canvas, Bind)> {
        let Plan { frames, width, height, uploads, .. } = self.plan;
        let time = frame as f32 / (frames.max(2) - 1) as f32;
        let camera = Camera::at(time, width as f32 / height as f32);
        let wanted = self.renderer.wanted(gpu, self.commands, &camera, frame)?;
        let loads = self.pool.step(frame, &wanted, uploads as usize);
        let mut nanoseconds = None;
        let tiles: Vec<Tile> = loads.iter().map(|load| load.tile).collect();
        if !loads.is_empty() {
            nanoseconds = Some(self.texture.bind(gpu, &loads, false)?.as_nanos() as u64);
            self.texture.stage(&tiles, &mut self.painters);
        }
        let (texture, commands) = (&self.texture, self.commands);
        let rgba = self.renderer.draw(gpu, commands, (&camera, time), self.pool.residency(), |device| {
            if !tiles.is_empty() {
                texture.record_upload(device, commands, &tiles, vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL);
            }
        })?;
        let mut picture = Canvas::from_rgba(width, height, rgba);
        let bind = self.bind_record(&loads, nanoseconds);
        self.instruments(&mut picture, frame, &camera, &bind);
        Ok((picture, bind))
    }

    /// Compares a few tiles with what they should hold, half of them new in this frame; returns how many.
    fn verify(&mut self, gpu: &mut Gpu, frame: u32, bind: &Bind) -> Result<usize> {
        let resident: Vec<Tile> = self.pool.resident().collect();
        let stride = (resident.len() / READBACK_TILES).max(1);
        let new = bind.bound.iter().map(|index| self.layout.tile(*index)).take(READBACK_TILES / 2);
        let others = resident.into_iter().skip(frame as usize % stride).step_by(stride);
        let places: Vec<(Tile, u32)> = new
            .chain(others)
            .take(READBACK_TILES)
            .filter_map(|tile| Some((tile, self.pool.slot(tile)?)))
            .collect();
        let wrong = self.texture.verify(gpu, self.commands, &places, &mut self.painters[0])?;
        if !wrong.is_empty() {
            bail!("after frame {} these tiles do not hold what was written into them: {wrong:?}", frame + 1);
        }
        Ok(places.len())
    }

    /// Writes the frame's numbers along the bottom and draws the residency map in a corner. Small pictures go without.
    fn instruments(&self, picture: &mut Canvas, frame: u32, camera: &Camera, bind: &Bind) {
        let (width, height) = (picture.width as i32, picture.height as i32);
        if width < 640 || height < 300 {
            return;
        }
        let resident = self.pool.resident().count();
        let mib = |tiles: u64| (tiles * TILE_BYTES) as f64 / f64::from(1 << 20);
        let line = format!(
            "frame {:>3}/{}   resident {resident:>4} of {} tiles = {:>4.1} of {:.0} MiB   bound {:>2}  unbound {:>2}   altitude {:.0}",
            frame + 1,
            self.plan.frames,
            self.layout.tile_count(),
            mib(resident as u64),
            mib(u64::from(self.layout.tile_count())),
            bind.bound.len(),
            bind.unbound.len(),
            camera.eye.z,
        );
        picture.fill((0, height - 18), (width, 18), [10, 14, 20], 0.62);
        picture.text((10, height - 14), &line, &FONT_6X10, [236, 238, 232], Align::Left);

        let cells = self.layout.tiles(0) as i32;
        let side = 128;
        let (left, top) = (width - side - 12, 12);
        picture.fill((left - 2, top - 2), (side + 4, side + 16), [10, 14, 20], 0.62);
        for y in 0..side {
            for x in 0..side {
                let cell = (y * cells / side) * cells + x * cells / side;
                let level = u32::from(self.pool.residency()[cell as usize].div_ceil(RESIDENCY_UNIT));
                let alpha = if level >= self.pool.pinned() { 0.0 } else { 0.85 };
                picture.blend(left + x, top + y, level_colour(level), alpha);
            }
        }
        let scale = side as f32 / self.layout.size as f32;
        let place = |v: glam::Vec3| {
            let turn = |value: f32| value.rem_euclid(self.layout.size as f32) * scale;
            (left as f32 + turn(v.x), top as f32 + turn(-v.y))
        };
        let (x, y) = place(camera.eye);
        for edge in [camera.forward - camera.right, camera.forward + camera.right] {
            let edge = edge.with_z(0.0).normalize() * 22.0;
            let to = (x + edge.x, y - edge.y);
            let inside = |(x, y): (f32, f32)| {
                x >= left as f32 && x < (left + side) as f32 && y >= top as f32 && y < (top + side) as f32
            };
            if inside(to) {
                picture.line((x, y), to, [255, 255, 255], 0.9);
            }
        }
        picture.fill((x as i32 - 1, y as i32 - 1), (3, 3), [255, 64, 48], 1.0);
        for level in 0..self.pool.pinned().min(6) {
            let at = left + 2 + level as i32 * 30;
            picture.fill((at, top + side + 4), (6, 6), level_colour(level), 1.0);
            picture.text(
                (at + 9, top + side + 2),
                &format!("L{level}"),
                &FONT_6X10,
                [236, 238, 232],
                Align::Left,
            );
        }
    }
}

/// The tiles that have memory after each of a record's binds, the pinned ones included.
pub(crate) fn residency_over_time(record: &Record) -> impl Iterator<Item = (HashSet<u32>, &Bind)> {
    let mut resident: HashSet<u32> = record.first.bound.iter().copied().collect();
    record.frames.iter().map(move |bind| {
        bind.unbound.iter().for_each(|tile| {
            resident.remove(tile);
        });
        resident.extend(&bind.bound);
        (resident.clone(), bind)
    })
}

//! The contact sheet and the picture of the VM map over time.

use anyhow::Result;

use crate::canvas::{Align, Canvas, FONT_6X10, FONT_7X14, FONT_9X18_BOLD, Rgb};
use crate::content::level_colour;
use crate::flight::{Plan, Record, frame_path, residency_over_time};
use crate::pool::{Layout, TILE_BYTES};
use crate::report::Flight;

const PAPER: Rgb = [15, 18, 24];
const PANEL: Rgb = [24, 29, 38];
const LINE: Rgb = [70, 80, 96];
const INK: Rgb = [232, 235, 240];
const FAINT: Rgb = [150, 160, 174];
const RESIDENT: Rgb = [42, 157, 150];
const BOUND: Rgb = [255, 214, 92];
const UNBOUND: Rgb = [226, 74, 128];
/// By flight.
const CURVES: [Rgb; 2] = [[240, 146, 70], [120, 210, 110]];

/// Twelve frames of the last flight on one sheet.
pub(crate) fn contact_sheet(plan: &Plan, flights: &[Flight], verdict: Option<&str>) -> Result<Canvas> {
    const COLUMNS: u32 = 3;
    const GAP: u32 = 12;
    const HEAD: u32 = 58;
    let step = plan.width.div_ceil(480).max(1);
    let (width, height) = (plan.width / step, plan.height / step);
    let shown = plan.frames.min(12);
    let rows = shown.div_ceil(COLUMNS);
    let caption = 18;
    let mut sheet =
        Canvas::new(COLUMNS * (width + GAP) + GAP, HEAD + rows * (height + caption + GAP) + GAP, PAPER);
    let Some(flight) = flights.last() else { return Ok(sheet) };
    let record = &flight.record;
    let left = GAP as i32;
    sheet.text(
        (left, 10),
        "tessera: a flight over a sparse virtual texture",
        &FONT_9X18_BOLD,
        INK,
        Align::Left,
    );
    let facts = format!(
        "{0}x{0} RGBA8, {1} MiB of address space, {2} MiB of memory - {3}",
        record.texture,
        record.virtual_bytes >> 20,
        (u64::from(record.pool_tiles) * TILE_BYTES) >> 20,
        verdict.map_or_else(|| format!("{} flight", flight.name), str::to_owned),
    );
    sheet.text((left, 34), &facts, &FONT_7X14, FAINT, Align::Left);
    for i in 0..shown {
        let frame = if shown > 1 { i * (plan.frames - 1) / (shown - 1) } else { 0 };
        let x = (GAP + i % COLUMNS * (width + GAP)) as i32;
        let y = (HEAD + i / COLUMNS * (height + caption + GAP)) as i32;
        sheet.paste((x, y), &Canvas::load(&frame_path(&flight.folder, frame))?, step);
        let bind = &record.frames[frame as usize];
        let text =
            format!("frame {}   {} tiles bound, {} unbound", frame + 1, bind.bound.len(), bind.unbound.len());
        sheet.text((x, y + height as i32 + 3), &text, &FONT_7X14, FAINT, Align::Left);
    }
    Ok(sheet)
}

/// A part of the address range that is drawn to one scale: a level, or all the levels that stay.
struct Section {
    label: String,
    /// Tile indices.
    first: u32,
    count: u32,
    x: i32,
    width: i32,
    colour: Rgb,
}

impl Section {
    /// The columns that a tile of this section covers.
    fn columns(&self, tile: u32) -> std::ops::Range<i32> {
        let at = |n: u32| (u64::from(n) * self.width as u64 / u64::from(self.count)) as i32;
        let from = at(tile - self.first).min(self.width - 1);
        self.x + from..self.x + at(tile - self.first + 1).max(from + 1)
    }
}

const MAP_LEFT: i32 = 64;
const MAP_TOP: i32 = 96;
const MAP_WIDTH: i32 = 1200;
const CHART_WIDTH: i32 = 260;

/// One row a frame, top to bottom: across, the address range of the texture; beside it the time of every bind.
pub(crate) fn vm_map(flights: &[Flight]) -> Canvas {
    let Some(record) = flights.last().map(|flight| &flight.record) else { return Canvas::new(1, 1, PAPER) };
    let frames = record.frames.len().max(1) as i32;
    let height = if frames <= 720 { frames * (720 / frames).min(7) } else { 720 };
    let chart_left = MAP_LEFT + MAP_WIDTH + 36;
    let mut canvas =
        Canvas::new((chart_left + CHART_WIDTH + 24) as u32, (MAP_TOP + height + 96) as u32, PAPER);
    canvas.text((16, 10), "The texture's address range over time", &FONT_9X18_BOLD, INK, Align::Left);
    let facts = format!(
        "{0} MiB of addresses in {1} tiles of 64 KiB, {2} of which have memory at a time. One row a frame, downwards.",
        record.virtual_bytes >> 20,
        record.virtual_bytes / TILE_BYTES,
        record.pool_tiles
    );
    canvas.text((16, 34), &facts, &FONT_7X14, FAINT, Align::Left);

    let sections = sections(record);
    canvas.fill((MAP_LEFT, MAP_TOP), (MAP_WIDTH, height), PANEL, 1.0);
    draw_rows(&mut canvas, record, &sections, height);
    for (i, section) in sections.iter().enumerate() {
        let middle = section.x + section.width / 2;
        canvas.fill((section.x + 1, MAP_TOP - 6), (section.width - 2, 4), section.colour, 1.0);
        canvas.text((middle, MAP_TOP - 22), &section.label, &FONT_7X14, INK, Align::Middle);
        canvas.fill((section.x, MAP_TOP - 6), (1, height + 12), LINE, if i == 0 { 1.0 } else { 0.8 });
        // Addresses are written where there is room: the coarse levels lie close together.
        let room = i == 0 || section.width > 40 || i + 1 == sections.len();
        if room {
            let offset = (u64::from(section.first) * TILE_BYTES) >> 20;
            canvas.text(
                (section.x, MAP_TOP + height + 8),
                &offset.to_string(),
                &FONT_6X10,
                FAINT,
                Align::Middle,
            );
        }
    }
    canvas.fill((MAP_LEFT + MAP_WIDTH, MAP_TOP - 6), (1, height + 12), LINE, 1.0);
    let caption =
        "offset in the texture, MiB; each level is drawn to a scale of its own, its tiles row by row";
    canvas.text((MAP_LEFT, MAP_TOP + height + 24), caption, &FONT_6X10, FAINT, Align::Left);
    frame_marks(&mut canvas, frames, height);

    let mut x = MAP_LEFT;
    let y = MAP_TOP + height + 52;
    for (colour, text) in [
        (RESIDENT, "has memory (the brighter, the more tiles of a column)"),
        (BOUND, "bound for this frame"),
        (UNBOUND, "unbound for this frame"),
        (PANEL, "no memory"),
    ] {
        canvas.fill((x, y), (14, 14), LINE, 1.0);
        canvas.fill((x + 1, y + 1), (12, 12), colour, 1.0);
        canvas.text((x + 20, y), text, &FONT_7X14, INK, Align::Left);
        x += 20 + text.len() as i32 * 7 + 34;
    }
    bind_times(&mut canvas, flights, (chart_left, MAP_TOP), height);
    canvas
}

/// The levels that come and go side by side, as wide as the square root of their tiles, and one section for the rest.
fn sections(record: &Record) -> Vec<Section> {
    let layout = Layout { size: record.texture };
    let moving = 0..record.pinned_level;
    let mut sections: Vec<Section> = moving
        .clone()
        .map(|level| Section {
            label: format!("level {level}"),
            first: layout.first_index(level),
            count: layout.tiles(level).pow(2),
            x: 0,
            width: 0,
            colour: level_colour(level),
        })
        .collect();
    let first = layout.first_index(record.pinned_level);
    sections.push(Section {
        label: format!("{}-{}", record.pinned_level, layout.levels() - 1),
        first,
        count: layout.tile_count() - first,
        x: 0,
        width: 0,
        colour: FAINT,
    });
    // The rest stays resident, so that a narrow band says all about it.
    let weight = |section: &Section| f64::from(section.count).sqrt();
    let last = sections.len() - 1;
    let total: f64 = sections[..last].iter().map(weight).sum();
    let room = MAP_WIDTH - 44;
    let mut x = MAP_LEFT;
    for (i, section) in sections.iter_mut().enumerate() {
        section.x = x;
        section.width = if i == last {
            MAP_LEFT + MAP_WIDTH - x
        } else {
            (weight(section) / total * f64::from(room)) as i32
        };
        x += section.width;
    }
    sections
}

fn draw_rows(canvas: &mut Canvas, record: &Record, sections: &[Section], height: i32) {
    let frames = record.frames.len() as i32;
    let section_of =
        |tile: u32| sections.iter().rfind(|section| section.first <= tile).unwrap_or(&sections[0]);
    let count = |tiles: &mut dyn Iterator<Item = u32>| {
        let mut columns = vec![0u32; MAP_WIDTH as usize];
        for tile in tiles {
            for x in section_of(tile).columns(tile) {
                columns[(x - MAP_LEFT) as usize] += 1;
            }
        }
        columns
    };
    let layout = Layout { size: record.texture };
    let room = count(&mut (0..layout.tile_count()));
    for (frame, (resident, bind)) in (0..).zip(residency_over_time(record)) {
        let from = MAP_TOP + frame * height / frames;
        let to = (MAP_TOP + (frame + 1) * height / frames).max(from + 1);
        // Levels of the mip tail are not in the records, though they stay as well.
        let tail = layout.first_index(record.mip_tail_level)..layout.tile_count();
        let resident = count(&mut resident.iter().copied().chain(tail));
        let bound = count(&mut bind.bound.iter().copied());
        let unbound = count(&mut bind.unbound.iter().copied());
        for column in 0..MAP_WIDTH as usize {
            let share = |tiles: &[u32]| (tiles[column] as f32 / room[column].max(1) as f32).powf(0.4);
            let x = MAP_LEFT + column as i32;
            for y in from..to {
                canvas.blend(x, y, RESIDENT, share(&resident));
                for (tiles, colour) in [(&unbound, UNBOUND), (&bound, BOUND)] {
                    if tiles[column] > 0 {
                        canvas.blend(x, y, colour, 0.45 + 0.55 * share(tiles));
                    }
                }
            }
        }
    }
}

/// Frame numbers down the left side.
fn frame_marks(canvas: &mut Canvas, frames: i32, height: i32) {
    canvas.text((MAP_LEFT - 10, MAP_TOP - 22), "frame", &FONT_7X14, FAINT, Align::Right);
    let every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
        .into_iter()
        .find(|n| n * height / frames >= 36)
        .unwrap_or(2000);
    for frame in (1..=frames).filter(|frame| *frame == 1 || frame % every == 0) {
        let y = MAP_TOP + (2 * frame - 1) * height / (2 * frames);
        canvas.fill((MAP_LEFT - 6, y), (6, 1), LINE, 1.0);
        canvas.text((MAP_LEFT - 10, y - 5), &frame.to_string(), &FONT_6X10, FAINT, Align::Right);
    }
}

/// The time of each frame's bind, all flights in one chart.
fn bind_times(canvas: &mut Canvas, flights: &[Flight], (left, top): (i32, i32), height: i32) {
    canvas.fill((left, top), (CHART_WIDTH, height), PANEL, 1.0);
    canvas.text((left, top - 40), "time of the frame's bind", &FONT_7X14, INK, Align::Left);
    let micro = |ns: u64| ns as f32 / 1e3;
    let mut times: Vec<u64> =
        flights.iter().flat_map(|flight| &flight.record.frames).filter_map(|bind| bind.nanoseconds).collect();
    times.sort_unstable();
    let Some(longest) = times.last() else { return };
    // A single slow bind (the machine had other work) must not flatten all others.
    let usual = times[(times.len() * 95 / 100).min(times.len() - 1)];
    let full = nice(micro((*longest).min(usual * 3 / 2)));
    let place = |ns: u64| left as f32 + (micro(ns) / full).min(1.0) * (CHART_WIDTH - 1) as f32;
    for tick in 0..=4 {
        let x = left + tick * (CHART_WIDTH - 1) / 4;
        canvas.fill((x, top), (1, height), LINE, 0.6);
        let label = format!("{}", full * tick as f32 / 4.0);
        canvas.text((x, top + height + 8), &label, &FONT_6X10, FAINT, Align::Middle);
    }
    canvas.text((left, top + height + 24), "microseconds", &FONT_6X10, FAINT, Align::Left);
    let mut x = left;
    for (flight, colour) in flights.iter().zip(CURVES) {
        let frames = flight.record.frames.len() as i32;
        let mut before = None;
        for (frame, bind) in (0..).zip(&flight.record.frames) {
            let y = (top + (2 * frame + 1) * height / (2 * frames)) as f32;
            let here = bind.nanoseconds.map(|ns| (place(ns), y));
            if let (Some(from), Some(to)) = (before, here) {
                canvas.line(from, to, colour, 0.8);
            }
            if let Some((x, y)) = here {
                canvas.fill((x as i32 - 1, y as i32 - 1), (3, 3), colour, 1.0);
            }
            before = here;
        }
        canvas.fill((x, top - 18), (12, 12), colour, 1.0);
        canvas.text((x + 18, top - 19), flight.name, &FONT_7X14, INK, Align::Left);
        x += 90;
    }
}

/// The next of a few steps times a power of ten, so that quarters of it are short numbers.
fn nice(value: f32) -> f32 {
    let power = 10f32.powf(value.max(1.0).log10().floor());
    [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|n| n * power)
        .find(|n| *n >= value)
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flight::Bind;

    fn record() -> Record {
        let bind = |bound: Vec<u32>, unbound: Vec<u32>| Bind { bound, unbound, nanoseconds: Some(1000) };
        Record {
            device: String::new(),
            layer_loaded: false,
            texture: 2048,
            virtual_bytes: 348 * TILE_BYTES,
            pool_tiles: 64,
            pinned_level: 3,
            mip_tail_level: 12,
            first: bind((336..348).collect(), vec![]),
            frames: vec![bind(vec![0, 17], vec![]), bind(vec![100], vec![17])],
            seconds: 0.0,
            tiles_verified: 0,
        }
    }

    #[test]
    fn sections_cover_the_map_and_every_tile_has_a_column() {
        let sections = sections(&record());
        assert_eq!(sections.len(), 4);
        assert_eq!(sections.iter().map(|section| section.width).sum::<i32>(), MAP_WIDTH);
        for section in &sections {
            let tiles = section.first..section.first + section.count;
            let columns: Vec<_> = tiles.map(|tile| section.columns(tile)).collect();
            assert!(columns.iter().all(|columns| !columns.is_empty()));
            assert_eq!(columns[0].start, section.x);
            assert_eq!(columns[columns.len() - 1].end, section.x + section.width);
        }
    }

    #[test]
    fn a_bind_shows_in_its_row_and_the_tile_stays_in_the_next() {
        let flights = [Flight { name: "native", folder: Default::default(), record: record(), stats: None }];
        let map = vm_map(&flights);
        let at = |tile: u32, row: i32| {
            let sections = sections(&flights[0].record);
            let section =
                sections.iter().rfind(|section| section.first <= tile).expect("tile 0 is in the first");
            let i = ((MAP_TOP + row) * map.width as i32 + section.columns(tile).start + 1) as usize * 3;
            <Rgb>::try_from(&map.pixels[i..i + 3]).expect("three bytes")
        };
        // Two frames make a map of fourteen rows.
        assert_eq!((at(17, 3), at(17, 10), at(40, 3)), (BOUND, UNBOUND, PANEL));
        assert_eq!((at(0, 3), at(0, 10), at(100, 10)), (BOUND, RESIDENT, BOUND));
    }
}

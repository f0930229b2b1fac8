//! What the texture shows: a relief map of an invented country, with the border and the name of every tile drawn into it.
//!
//! Every texel follows from its level and position alone, so any tile can be made at any time, in any order, and compared
//! with what is read back. Levels agree because each leaves out the octaves that are finer than its texels.

use std::convert::Infallible;

use embedded_graphics::mono_font::{MonoTextStyle, ascii::FONT_6X10};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};

use crate::noise::{Octave, Patch, lerp, smoothstep};
use crate::pool::{Layout, TILE, TILE_BYTES, Tile};

/// The light that each mip level is tinted with, and by which the pictures tell levels apart.
pub(crate) const LEVEL_COLOURS: [[u8; 3]; 8] = [
    [255, 252, 240],
    [255, 196, 84],
    [122, 201, 91],
    [64, 170, 214],
    [138, 118, 222],
    [206, 96, 180],
    [226, 92, 92],
    [150, 150, 150],
];

/// The colour of a level: levels past the table share its last entry.
pub(crate) fn level_colour(level: u32) -> [u8; 3] {
    LEVEL_COLOURS[(level as usize).min(LEVEL_COLOURS.len() - 1)]
}

/// How much of the level's colour is mixed into its texels.
const TINT: f32 = 0.09;
/// Texels of level 0 that one unit of height rises.
const RELIEF: f32 = 620.0;
/// Light from the north-west, as on paper maps; x east, y south, z up; of unit length.
const LIGHT: [f32; 3] = [-0.545, -0.545, 0.637];
/// Height between contour lines on the finest levels.
const CONTOUR: f32 = 0.05;
/// One more texel on each side, for slopes.
const SIDE: usize = TILE as usize + 2;

/// Makes tiles; keeps its working memory between them.
pub(crate) struct Painter {
    layout: Layout,
    height: Vec<f32>,
    octave: Vec<f32>,
    mountains: Vec<f32>,
    weight: Vec<f32>,
    moisture: Vec<f32>,
}

impl Painter {
    pub(crate) fn new(layout: Layout) -> Self {
        let zeros = || vec![0.0; SIDE * SIDE];
        Self {
            layout,
            height: zeros(),
            octave: zeros(),
            mountains: zeros(),
            weight: zeros(),
            moisture: zeros(),
        }
    }

    /// Writes the tile's texels as RGBA8, rows of 128, into `out` of 64 KiB. Levels smaller than a tile fill its corner;
    /// what lies beyond continues the map, so that the result is the same whoever reads it.
    pub(crate) fn paint(&mut self, tile: Tile, out: &mut [u8]) {
        debug_assert_eq!(out.len(), TILE_BYTES as usize);
        self.terrain(tile);
        let texel = (1u32 << tile.level) as f32;
        let to_slope = RELIEF / (2.0 * texel);
        let contour = CONTOUR * (1u32 << tile.level.saturating_sub(1).min(4)) as f32;
        let tint = level_colour(tile.level).map(f32::from);
        for y in 0..TILE as usize {
            for x in 0..TILE as usize {
                let at = (y + 1) * SIDE + x + 1;
                let height = self.height[at];
                let east = self.height[at + 1] - self.height[at - 1];
                let south = self.height[at + SIDE] - self.height[at - SIDE];
                let (rgb, land) = shade(height, east * to_slope, south * to_slope, self.moisture[at]);
                let rgb = contours(rgb, height, 0.5 * (east * east + south * south).sqrt(), contour);
                let pixel = &mut out[(y * TILE as usize + x) * 4..][..4];
                for channel in 0..3 {
                    pixel[channel] = (lerp(rgb[channel], tint[channel], TINT) + 0.5) as u8;
                }
                pixel[3] = (land * 255.0 + 0.5) as u8;
            }
        }
        let side = self.layout.texels(tile.level).min(TILE) as usize;
        if side == TILE as usize {
            name(tile, out);
        }
        border(out, side);
    }

    /// Fills `height` (0 is the sea's surface) and `moisture`.
    fn terrain(&mut self, tile: Tile) {
        let patch = Patch { x: (tile.x * TILE) as i32 - 1, y: (tile.y * TILE) as i32 - 1, side: SIDE };

        self.height.fill(0.10);
        for k in 0..10 {
            let amplitude = 1.05 * 0.48f32.powi(k);
            if self.fill_octave(patch, tile.level, 4096 >> k, 10 + k as u32) {
                self.height.iter_mut().zip(&self.octave).for_each(|(sum, n)| *sum += amplitude * n);
            }
        }

        self.mountains.fill(0.0);
        self.weight.fill(1.0);
        let mut amplitude = 0.5;
        for k in 0..9 {
            let present = self.fill_octave(patch, tile.level, 2048 >> k, 40 + k as u32);
            let sums = self.mountains.iter_mut().zip(&mut self.weight);
            if present {
                sums.zip(&self.octave).for_each(|((sum, weight), n)| {
                    let ridge = 1.0 - (1.5 * n).abs().min(1.0);
                    let ridge = ridge * ridge;
                    *sum += amplitude * ridge * *weight;
                    *weight = (ridge * *weight * 1.9).min(1.0);
                });
            } else {
                // The mean of what is left out, so that coarser levels are no lower.
                sums.for_each(|(sum, weight)| {
                    *sum += amplitude * 0.45 * *weight;
                    *weight *= 0.7;
                });
            }
            amplitude *= 0.52;
        }
        for (height, mountains) in self.height.iter_mut().zip(&self.mountains) {
            let inland = smoothstep(0.02, 0.55, *height);
            *height = *height * 0.75 + inland * (mountains - 0.28) * 0.95;
        }

        // Valleys with rivers and lakes lie where a slow noise passes through zero; mountains stop them.
        if self.fill_octave(patch, tile.level, 1024, 80) {
            std::mem::swap(&mut self.octave, &mut self.weight);
            if self.fill_octave(patch, tile.level, 256, 81) {
                self.weight.iter_mut().zip(&self.octave).for_each(|(sum, n)| *sum += 0.22 * n);
            }
            for (height, n) in self.height.iter_mut().zip(&self.weight) {
                let (bank, bed) =
                    (1.0 - smoothstep(0.0, 0.16, n.abs()), 1.0 - smoothstep(0.004, 0.022, n.abs()));
                let low = 1.0 - smoothstep(0.20, 0.42, *height);
                let low = if *height > 0.0 { low } else { 0.0 };
                *height -= low * (bank * *height * 0.7 + bed * (*height * 0.3 + 0.02));
            }
        }

        self.moisture.fill(0.0);
        for (k, amplitude) in [(0, 0.8), (2, 0.4), (4, 0.3), (6, 0.3), (8, 0.25)] {
            if self.fill_octave(patch, tile.level, 2048 >> k, 60 + k) {
                self.moisture.iter_mut().zip(&self.octave).for_each(|(sum, n)| *sum += amplitude * n);
            }
        }
    }

    /// Puts one octave into `octave`, unless it is finer than the level can show.
    fn fill_octave(&mut self, patch: Patch, level: u32, wavelength: u32, seed: u32) -> bool {
        let cell = wavelength >> level;
        let cells = self.layout.size / wavelength;
        if cell < 4 || cells < 2 {
            return false;
        }
        Octave { cell: cell as i32, cells: cells as i32, seed }.fill(patch, &mut self.octave);
        true
    }
}

/// Colour (0 to 255) and land share of a point.
fn shade(height: f32, east: f32, south: f32, moisture: f32) -> ([f32; 3], f32) {
    let inverse = 1.0 / (east * east + south * south + 1.0).sqrt();
    let lit = ((LIGHT[2] - LIGHT[0] * east - LIGHT[1] * south) * inverse).max(0.0) / LIGHT[2];
    let land = smoothstep(-0.012, 0.002, height);
    let mut rgb = if height < 0.0 {
        let depth = -height;
        let shallow = mix([128.0, 190.0, 184.0], [52.0, 128.0, 162.0], smoothstep(0.0, 0.09, depth));
        mix(shallow, [20.0, 62.0, 108.0], smoothstep(0.06, 0.50, depth))
    } else {
        let wet = smoothstep(-0.25, 0.25, moisture);
        let low = mix([196.0, 182.0, 124.0], [112.0, 150.0, 82.0], wet);
        let middle = mix([182.0, 156.0, 104.0], [72.0, 112.0, 66.0], wet);
        let mut c = mix([226.0, 212.0, 168.0], low, smoothstep(0.004, 0.022, height));
        c = mix(c, middle, smoothstep(0.06, 0.26, height));
        c = mix(c, [142.0, 124.0, 104.0], smoothstep(0.26, 0.42, height + 0.10 * moisture));
        c = mix(c, [118.0, 112.0, 110.0], smoothstep(0.45, 0.60, height));
        // Snow does not hold on steep faces.
        let snow = smoothstep(0.50, 0.62, height + 0.08 * moisture) * smoothstep(0.30, 0.62, inverse);
        mix(c, [246.0, 249.0, 252.0], snow)
    };
    // Water is flat; its bed shows through as a trace of the relief.
    let relief = lerp(1.0, lit, lerp(0.18, 1.0, land));
    let warm = [1.04, 1.0, 0.94];
    for (channel, value) in rgb.iter_mut().enumerate() {
        let cool = lerp(1.0 / warm[channel], warm[channel], (relief * 0.6).min(1.0));
        *value = (*value * (0.36 + 0.64 * relief) * cool).clamp(0.0, 255.0);
    }
    (rgb, land)
}

/// Draws lines of equal height, about a texel wide, unless they would crowd. `gradient` is height a texel.
fn contours(rgb: [f32; 3], height: f32, gradient: f32, interval: f32) -> [f32; 3] {
    let place = height / interval;
    let distance = (place - place.round()).abs() * interval / gradient.max(1e-6);
    let crowd = gradient / interval;
    let strength = (1.0 - distance).clamp(0.0, 1.0) * (1.0 - smoothstep(0.07, 0.20, crowd));
    let ink = if height < 0.0 { [14.0, 50.0, 92.0] } else { [84.0, 58.0, 34.0] };
    mix(rgb, ink, 0.42 * strength)
}

fn mix(a: [f32; 3], b: [f32; 3], t: f32) -> [f32; 3] {
    std::array::from_fn(|i| lerp(a[i], b[i], t))
}

fn blend(pixel: &mut [u8], ink: [u8; 3], alpha: u32) {
    for (value, ink) in pixel.iter_mut().zip(ink) {
        *value = ((u32::from(*value) * (256 - alpha) + u32::from(ink) * alpha) >> 8) as u8;
    }
}

/// A line along all four sides: with the neighbour's it is two texels wide.
fn border(out: &mut [u8], side: usize) {
    for i in 0..side {
        for (x, y) in [(i, 0), (i, side - 1), (0, i), (side - 1, i)] {
            blend(&mut out[(y * TILE as usize + x) * 4..][..3], [250, 250, 244], 84);
        }
    }
}

/// Writes "level column,row" near the north-west corner.
fn name(tile: Tile, out: &mut [u8]) {
    let mut label = Label { ink: [false; LABEL.0 * LABEL.1] };
    let text = format!("L{} {},{}", tile.level, tile.x, tile.y);
    let style = MonoTextStyle::new(&FONT_6X10, BinaryColor::On);
    let Ok(_) = Text::with_baseline(&text, Point::new(1, 1), style, Baseline::Top).draw(&mut label);
    for y in 0..LABEL.1 {
        for x in 0..LABEL.0 {
            let inked = |x: usize, y: usize| label.ink[y.min(LABEL.1 - 1) * LABEL.0 + x.min(LABEL.0 - 1)];
            let pixel = &mut out[((y + 6) * TILE as usize + x + 6) * 4..][..3];
            if inked(x, y) {
                blend(pixel, [255, 255, 250], 235);
            } else if (0..9).any(|i| inked((x + i % 3).saturating_sub(1), (y + i / 3).saturating_sub(1))) {
                blend(pixel, [20, 26, 34], 130);
            }
        }
    }
}

const LABEL: (usize, usize) = (86, 13);

/// Where the letters of a tile's name go.
struct Label {
    ink: [bool; LABEL.0 * LABEL.1],
}

impl OriginDimensions for Label {
    fn size(&self) -> Size {
        Size::new(LABEL.0 as u32, LABEL.1 as u32)
    }
}

impl DrawTarget for Label {
    type Color = BinaryColor;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<BinaryColor>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            if let (Ok(x), Ok(y)) = (usize::try_from(at.x), usize::try_from(at.y))
                && x < LABEL.0
                && y < LABEL.1
            {
                self.ink[y * LABEL.0 + x] = colour.is_on();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { size: 16384 };

    fn paint(painter: &mut Painter, level: u32, x: u32, y: u32) -> Vec<u8> {
        let mut out = vec![0; TILE_BYTES as usize];
        painter.paint(Tile { level, x, y }, &mut out);
        out
    }

    #[test]
    fn a_tile_depends_on_nothing_painted_before_it() {
        let mut painter = Painter::new(LAYOUT);
        let fresh = paint(&mut painter, 0, 70, 65);
        let other = paint(&mut painter, 9, 0, 0);
        assert_ne!(fresh, other);
        assert_eq!(paint(&mut painter, 0, 70, 65), fresh);
        assert_eq!(paint(&mut Painter::new(LAYOUT), 0, 70, 65), fresh);
    }

    #[test]
    fn tiles_of_the_same_place_differ_by_level_and_neighbours_by_name() {
        let mut painter = Painter::new(LAYOUT);
        let tiles: Vec<Vec<u8>> = [(0, 3, 3), (0, 3, 4), (0, 4, 3), (1, 3, 3), (2, 3, 3)]
            .map(|(l, x, y)| paint(&mut painter, l, x, y))
            .into();
        for (i, a) in tiles.iter().enumerate() {
            assert!(tiles[i + 1..].iter().all(|b| a != b));
        }
    }

    /// A coarser level shows the same country: averaged, its colours are near those of the level below.
    #[test]
    fn levels_agree() {
        let mut painter = Painter::new(LAYOUT);
        let mean = |tiles: &[Vec<u8>]| -> f32 {
            let greens = tiles.iter().flat_map(|tile| tile.chunks_exact(4).map(|pixel| f32::from(pixel[1])));
            greens.sum::<f32>() / (tiles.len() * (TILE * TILE) as usize) as f32
        };
        for (x, y) in [(3, 2), (10, 20), (21, 9)] {
            let coarse = mean(&[paint(&mut painter, 2, x, y)]);
            let fine: Vec<_> = (0..4).map(|i| paint(&mut painter, 1, 2 * x + i % 2, 2 * y + i / 2)).collect();
            assert!((mean(&fine) - coarse).abs() < 12.0, "{} {coarse}", mean(&fine));
        }
    }
}

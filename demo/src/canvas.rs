//! A picture in memory: shapes and text on RGB pixels, and PNG files.

use std::convert::Infallible;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};

pub(crate) use embedded_graphics::mono_font::ascii::{FONT_6X10, FONT_7X14, FONT_9X18_BOLD};

/// Red, green, blue.
pub(crate) type Rgb = [u8; 3];

/// RGB pixels, row by row.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Canvas {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) pixels: Vec<u8>,
}

impl Canvas {
    pub(crate) fn new(width: u32, height: u32, colour: Rgb) -> Self {
        Self { width, height, pixels: colour.repeat((width * height) as usize) }
    }

    /// Takes over RGBA8 rows without their alpha.
    pub(crate) fn from_rgba(width: u32, height: u32, rgba: &[u8]) -> Self {
        let pixels = rgba.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        Self { width, height, pixels }
    }

    /// The pixel at a place, if it is on the canvas.
    fn pixel(&mut self, x: i32, y: i32) -> Option<&mut [u8]> {
        let (x, y) = (u32::try_from(x).ok()?, u32::try_from(y).ok()?);
        (x < self.width && y < self.height)
            .then(|| &mut self.pixels[((y * self.width + x) * 3) as usize..][..3])
    }

    /// Mixes `colour` into a pixel; `alpha` from 0 (nothing) to 1 (all).
    pub(crate) fn blend(&mut self, x: i32, y: i32, colour: Rgb, alpha: f32) {
        if let Some(pixel) = self.pixel(x, y) {
            for (value, colour) in pixel.iter_mut().zip(colour) {
                *value = (f32::from(*value) + (f32::from(colour) - f32::from(*value)) * alpha + 0.5) as u8;
            }
        }
    }

    /// Fills a rectangle.
    pub(crate) fn fill(&mut self, (x, y): (i32, i32), (width, height): (i32, i32), colour: Rgb, alpha: f32) {
        for row in y..y + height {
            for column in x..x + width {
                self.blend(column, row, colour, alpha);
            }
        }
    }

    /// A line one pixel wide.
    pub(crate) fn line(&mut self, from: (f32, f32), to: (f32, f32), colour: Rgb, alpha: f32) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let steps = dx.abs().max(dy.abs()).ceil().max(1.0) as i32;
        for i in 0..=steps {
            let t = i as f32 / steps as f32;
            self.blend((from.0 + dx * t).round() as i32, (from.1 + dy * t).round() as i32, colour, alpha);
        }
    }

    /// Writes text; the place is its upper left corner, upper middle or upper right corner.
    pub(crate) fn text(
        &mut self,
        (x, y): (i32, i32),
        text: &str,
        font: &MonoFont<'_>,
        colour: Rgb,
        align: Align,
    ) {
        let alignment = match align {
            Align::Left => Alignment::Left,
            Align::Middle => Alignment::Center,
            Align::Right => Alignment::Right,
        };
        let style = TextStyleBuilder::new().alignment(alignment).baseline(Baseline::Top).build();
        let ink = MonoTextStyle::new(font, Rgb888::new(colour[0], colour[1], colour[2]));
        let Ok(_) = Text::with_text_style(text, Point::new(x, y), ink, style).draw(self);
    }

    /// Copies another picture to a place, `step` by `step` of its pixels averaged into one.
    pub(crate) fn paste(&mut self, (x, y): (i32, i32), from: &Canvas, step: u32) {
        let (width, height) = (from.width / step, from.height / step);
        for row in 0..height {
            for column in 0..width {
                let mut sum = [0; 3];
                for i in 0..step * step {
                    let at = ((row * step + i / step) * from.width + column * step + i % step) * 3;
                    sum.iter_mut()
                        .zip(&from.pixels[at as usize..])
                        .for_each(|(sum, value)| *sum += u32::from(*value));
                }
                if let Some(pixel) = self.pixel(x + column as i32, y + row as i32) {
                    pixel.iter_mut().zip(sum).for_each(|(value, sum)| *value = (sum / (step * step)) as u8);
                }
            }
        }
    }

    /// Writes a PNG file. `small` takes more time for a smaller file.
    pub(crate) fn save(&self, path: &Path, small: bool) -> Result<()> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut encoder = png::Encoder::new(BufWriter::new(file), self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(if small { png::Compression::Balanced } else { png::Compression::Fast });
        (encoder.write_header())
            .and_then(|mut writer| writer.write_image_data(&self.pixels).and_then(|()| writer.finish()))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads a PNG file as [`Canvas::save`] writes them.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let read = || format!("cannot read {}", path.display());
        let mut reader = png::Decoder::new(BufReader::new(file)).read_info().with_context(read)?;
        let info = reader.info();
        let (width, height) = (info.width, info.height);
        if (info.color_type, info.bit_depth) != (png::ColorType::Rgb, png::BitDepth::Eight) {
            bail!("{} is not an RGB picture of 8 bits", path.display());
        }
        let mut pixels = vec![0; (width * height * 3) as usize];
        reader.next_frame(&mut pixels).with_context(read)?;
        Ok(Self { width, height, pixels })
    }
}

/// Which side of a text its place names.
#[derive(Clone, Copy)]
pub(crate) enum Align {
    Left,
    Middle,
    Right,
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, colour) in pixels {
            if let Some(pixel) = self.pixel(at.x, at.y) {
                pixel.copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

//! Gradient noise on a periodic lattice, evaluated for whole square patches at once.
//!
//! A patch of a mip level is small beside most lattice cells, so everything but a polynomial in x is worked out once for
//! each row of a cell; the compiler vectorises what is left.

/// A square of texels of one mip level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patch {
    /// Column of the first texel, in texels of the level. May lie outside of the map, which repeats.
    pub(crate) x: i32,
    /// Row of the first texel.
    pub(crate) y: i32,
    /// Texels a side.
    pub(crate) side: usize,
}

/// One octave of noise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Octave {
    /// Texels of the level a lattice cell.
    pub(crate) cell: i32,
    /// Lattice cells across the map; a power of two.
    pub(crate) cells: i32,
    /// Tells octaves apart.
    pub(crate) seed: u32,
}

impl Octave {
    /// Writes the octave's values, about -0.7 to 0.7 with a mean of 0, row by row into `out`.
    pub(crate) fn fill(&self, patch: Patch, out: &mut [f32]) {
        let inverse = 1.0 / self.cell as f32;
        for (row, line) in out.chunks_exact_mut(patch.side).enumerate() {
            let y = patch.y + row as i32;
            let cy = y.div_euclid(self.cell);
            let fy = (y.rem_euclid(self.cell) as f32 + 0.5) * inverse;
            let v = fade(fy);
            let mut x = patch.x;
            let mut rest = line;
            while !rest.is_empty() {
                let cx = x.div_euclid(self.cell);
                let start = x.rem_euclid(self.cell);
                let count = rest.len().min((self.cell - start) as usize);
                let (segment, tail) = rest.split_at_mut(count);
                // On this row the noise to the left is a + b*fx and to the right c + d*(fx - 1).
                let (lower_left, lower_right) = (self.gradient(cx, cy), self.gradient(cx + 1, cy));
                let (upper_left, upper_right) = (self.gradient(cx, cy + 1), self.gradient(cx + 1, cy + 1));
                let a = lerp(lower_left.1 * fy, upper_left.1 * (fy - 1.0), v);
                let b = lerp(lower_left.0, upper_left.0, v);
                let c = lerp(lower_right.1 * fy, upper_right.1 * (fy - 1.0), v);
                let d = lerp(lower_right.0, upper_right.0, v);
                for (i, value) in segment.iter_mut().enumerate() {
                    let fx = ((start + i as i32) as f32 + 0.5) * inverse;
                    *value = lerp(a + b * fx, c + d * (fx - 1.0), fade(fx));
                }
                x += count as i32;
                rest = tail;
            }
        }
    }

    fn gradient(&self, x: i32, y: i32) -> (f32, f32) {
        let (x, y) = ((x & (self.cells - 1)) as u32, (y & (self.cells - 1)) as u32);
        let mut h =
            x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca77) ^ self.seed.wrapping_mul(0xc2b2_ae3d);
        h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
        h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
        h ^= h >> 15;
        let part = |bits: u32| bits as f32 * (2.6 / 65535.0) - 1.3;
        (part(h & 0xffff), part(h >> 16))
    }
}

fn fade(t: f32) -> f32 {
    t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
}

/// `a` at 0, `b` at 1.
pub(crate) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// 0 below `from`, 1 above `to`, smooth between.
pub(crate) fn smoothstep(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(octave: Octave, x: i32, y: i32, side: usize) -> Vec<f32> {
        let mut out = vec![0.0; side * side];
        octave.fill(Patch { x, y, side }, &mut out);
        out
    }

    #[test]
    fn patches_agree_where_they_overlap_and_the_map_repeats() {
        let octave = Octave { cell: 16, cells: 8, seed: 3 };
        let (whole, part) = (patch(octave, 0, 0, 128), patch(octave, 30, 50, 40));
        for row in 0..40 {
            assert_eq!(whole[(row + 50) * 128 + 30..][..40], part[row * 40..][..40]);
        }
        assert_eq!(whole, patch(octave, 128, -128, 128));
    }

    #[test]
    fn neighbours_continue_and_the_mean_is_near_zero() {
        let octave = Octave { cell: 64, cells: 16, seed: 1 };
        let values = patch(octave, 0, 0, 1024);
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let step =
            values.chunks_exact(1024).flat_map(|row| row.windows(2)).map(|pair| (pair[0] - pair[1]).abs());
        assert!(mean.abs() < 0.05, "{mean}");
        assert!(step.fold(0.0, f32::max) < 0.1);
        assert!(values.iter().any(|value| *value > 0.4) && values.iter().any(|value| *value < -0.4));
    }
}

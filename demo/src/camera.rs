//! The scripted flight: a spline over the map, and where the camera looks on its way.

use glam::{Mat3, Vec3};

/// A point of the flight. One unit is a texel of level 0; x is east, y north, z up.
struct Key {
    position: Vec3,
    /// Degrees below the horizon.
    pitch: f32,
    /// Degrees to the left of the way ahead.
    look: f32,
}

const fn key(x: f32, y: f32, z: f32, pitch: f32, look: f32) -> Key {
    Key { position: Vec3::new(x, y, z), pitch, look }
}

/// Evenly spaced in time; a Catmull-Rom spline passes through all of them.
const FLIGHT: &[Key] = &[
    key(7000.0, 900.0, 3000.0, 40.0, 0.0),
    key(7200.0, 2400.0, 1900.0, 33.0, 0.0),
    key(8000.0, 3980.0, 900.0, 24.0, 6.0),
    key(8960.0, 5180.0, 450.0, 17.0, 8.0),
    key(10150.0, 6000.0, 320.0, 15.0, 12.0),
    key(10950.0, 6850.0, 290.0, 16.0, 6.0),
    key(11000.0, 8000.0, 420.0, 20.0, -4.0),
    key(10450.0, 9250.0, 330.0, 15.0, -6.0),
    key(10900.0, 10450.0, 300.0, 13.0, 8.0),
    key(12000.0, 11600.0, 640.0, 20.0, 10.0),
    key(13200.0, 12850.0, 1500.0, 28.0, 4.0),
    key(14000.0, 14150.0, 2900.0, 24.0, 0.0),
];

/// Height of the picture, degrees.
const FIELD_OF_VIEW: f32 = 54.0;

/// Towards the sun, not of unit length.
const SUN: Vec3 = Vec3::new(-0.38, 0.90, 0.21);

/// Where the camera is and what it sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Camera {
    pub(crate) eye: Vec3,
    /// Half the picture's width and height at distance 1 along `forward`, which has unit length.
    pub(crate) right: Vec3,
    pub(crate) up: Vec3,
    pub(crate) forward: Vec3,
}

impl Camera {
    /// The view at `time`, 0 (start) to 1 (end), for a picture of the given width by height.
    pub(crate) fn at(time: f32, aspect: f32) -> Self {
        let place = time.clamp(0.0, 1.0) * (FLIGHT.len() - 1) as f32;
        let (eye, pitch, look) = spline(place);
        // The way ahead is taken from a stretch rather than from the tangent: a camera operator looks further ahead.
        let ahead = (spline((place + 0.9).min(FLIGHT.len() as f32 - 1.0)).0
            - spline((place - 0.3).max(0.0)).0)
            .with_z(0.0)
            .normalize_or(Vec3::Y);
        let before = (eye - spline((place - 0.6).max(0.0)).0).with_z(0.0).normalize_or(ahead);
        let roll = -0.42 * before.cross(ahead).z;
        let heading = Mat3::from_rotation_z(look.to_radians()) * ahead;
        let forward = heading * pitch.to_radians().cos() - Vec3::Z * pitch.to_radians().sin();
        let side = forward.cross(Vec3::Z).normalize();
        let bank = Mat3::from_axis_angle(forward, roll);
        let tangent = (FIELD_OF_VIEW.to_radians() / 2.0).tan();
        Self { eye, right: bank * side * tangent * aspect, up: bank * side.cross(forward) * tangent, forward }
    }

    /// Unit vector towards the sun.
    pub(crate) fn sun() -> Vec3 {
        SUN.normalize()
    }
}

/// Position, pitch and look at `place` keys from the start.
fn spline(place: f32) -> (Vec3, f32, f32) {
    let last = FLIGHT.len() - 1;
    let from = (place as usize).min(last - 1);
    let t = place - from as f32;
    let near = |offset: usize| &FLIGHT[(from + offset).saturating_sub(1).min(last)];
    let weights = [
        ((-t + 2.0) * t - 1.0) * t / 2.0,
        ((3.0 * t - 5.0) * t * t + 2.0) / 2.0,
        ((-3.0 * t + 4.0) * t + 1.0) * t / 2.0,
        (t - 1.0) * t * t / 2.0,
    ];
    let sum =
        |value: fn(&Key) -> f32| weights.iter().enumerate().map(|(i, w)| w * value(near(i))).sum::<f32>();
    (
        Vec3::new(sum(|k| k.position.x), sum(|k| k.position.y), sum(|k| k.position.z)),
        sum(|k| k.pitch),
        sum(|k| k.look),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flight_is_smooth_and_stays_above_ground() {
        let views: Vec<Camera> = (0..=600).map(|i| Camera::at(i as f32 / 600.0, 16.0 / 9.0)).collect();
        for pair in views.windows(2) {
            assert!(pair[0].eye.z > 200.0);
            assert!(pair[0].eye.distance(pair[1].eye) < 60.0);
            assert!(pair[0].forward.dot(pair[1].forward) > 0.9995, "{pair:?}");
            assert!(pair[0].right.normalize().dot(pair[1].right.normalize()) > 0.999, "{pair:?}");
        }
        for view in views {
            assert!(view.right.dot(view.up).abs() < 1e-4 && view.right.dot(view.forward).abs() < 1e-4);
            assert!(view.up.z > 0.0 && view.forward.z < 0.0);
        }
    }
}

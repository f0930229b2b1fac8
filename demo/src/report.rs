//! What is left when the flights are over: the comparison, the table and the pictures.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::canvas::Canvas;
use crate::flight::{Plan, Record, frame_path};
use crate::pictures;
use crate::pool::TILE_BYTES;

/// A flight that has ended.
pub(crate) struct Flight {
    pub(crate) name: &'static str,
    pub(crate) folder: PathBuf,
    pub(crate) record: Record,
    pub(crate) stats: Option<LayerStats>,
}

/// The counters that the layer writes when a device is destroyed (TESSERA_STATS); whatever of them it knows.
#[derive(Debug, Default)]
pub(crate) struct LayerStats {
    binds_asked: Option<u64>,
    ops_sent: Option<u64>,
    ioctls: Option<u64>,
    map_calls: Option<u64>,
}

impl LayerStats {
    /// Adds up the file's lines, one a device. `None` without a single line that can be read.
    pub(crate) fn load(path: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path).ok()?;
        let lines: Vec<serde_json::Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let sum = |key: &str| lines.iter().filter_map(|line| line.get(key)?.as_u64()).reduce(|a, b| a + b);
        (!lines.is_empty()).then(|| Self {
            binds_asked: sum("binds_asked"),
            ops_sent: sum("ops_sent"),
            ioctls: sum("ioctls"),
            map_calls: sum("map_calls"),
        })
    }
}

/// Compares the flights' frames, draws the pictures, prints the table.
///
/// # Errors
/// Also when the frames are not identical.
pub(crate) fn finish(out: &Path, plan: &Plan, flights: &[Flight]) -> Result<()> {
    let verdict = match flights {
        [a, b] => compare(out, plan, a, b)?,
        _ => Verdict { text: None, identical: true },
    };
    let text = table(flights, verdict.text.as_deref());
    println!("\n{text}");
    let path = out.join("report.txt");
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    let (sheet, map) = (out.join("contact_sheet.png"), out.join("vm_map.png"));
    pictures::contact_sheet(plan, flights, verdict.text.as_deref())?.save(&sheet, true)?;
    pictures::vm_map(flights).save(&map, true)?;
    println!("Look at {} and {}; the frames are beside them.", sheet.display(), map.display());
    if !verdict.identical {
        bail!("the flights do not show the same pictures");
    }
    Ok(())
}

struct Verdict {
    text: Option<String>,
    identical: bool,
}

/// Compares frame by frame, pixel by pixel; of the first that differs, a picture of where.
fn compare(out: &Path, plan: &Plan, a: &Flight, b: &Flight) -> Result<Verdict> {
    let difference = out.join("difference.png");
    match std::fs::remove_file(&difference) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", difference.display()));
        }
        _ => {}
    }
    let mut differing = Vec::new();
    for frame in 0..plan.frames {
        let (left, right) =
            (Canvas::load(&frame_path(&a.folder, frame))?, Canvas::load(&frame_path(&b.folder, frame))?);
        if left != right {
            let pixels = left.pixels.chunks_exact(3).zip(right.pixels.chunks_exact(3));
            if differing.is_empty() {
                let marked = pixels.clone().flat_map(|(l, r)| if l == r { dark(l) } else { [255, 0, 255] });
                Canvas { width: left.width, height: left.height, pixels: marked.collect() }
                    .save(&difference, true)?;
            }
            differing.push((frame, pixels.filter(|(l, r)| l != r).count()));
        }
    }
    let pixels = u64::from(plan.width) * u64::from(plan.height) * u64::from(plan.frames);
    Ok(match differing.first() {
        None => Verdict {
            text: Some(format!(
                "all {} frames of {} and {} are identical, pixel by pixel ({} million pixels compared)",
                plan.frames,
                a.name,
                b.name,
                pixels / 1_000_000
            )),
            identical: true,
        },
        Some((frame, count)) => Verdict {
            text: Some(format!(
                "{} of {} frames of {} and {} DIFFER, the first is frame {} in {} pixels, see {}",
                differing.len(),
                plan.frames,
                a.name,
                b.name,
                frame + 1,
                count,
                difference.display()
            )),
            identical: false,
        },
    })
}

/// Darkened, as background.
fn dark(pixel: &[u8]) -> [u8; 3] {
    [pixel[0] / 3, pixel[1] / 3, pixel[2] / 3]
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn table(flights: &[Flight], verdict: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(flight) = flights.first() {
        let _ = writeln!(text, "device: {}", flight.record.device);
    }
    let mut row = |label: &str, value: &dyn Fn(&Flight) -> String| {
        let _ = write!(text, "{label:<44}");
        for flight in flights {
            let _ = write!(text, " {:>14}", value(flight));
        }
        let _ = writeln!(text);
    };
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let micro = |value: Option<u64>| value.map_or("n/a".to_owned(), |ns| format!("{:.1}", ns as f64 / 1e3));
    let count = |value: Option<u64>| value.map_or("n/a".to_owned(), |value| value.to_string());
    let all = |flight: &Flight| {
        let binds = std::iter::once(&flight.record.first).chain(&flight.record.frames);
        binds.map(|bind| (bind.bound.len() + bind.unbound.len()) as u64).sum::<u64>()
    };
    let times = |flight: &Flight| -> Vec<u64> {
        flight.record.frames.iter().filter_map(|bind| bind.nanoseconds).collect()
    };
    let from_layer =
        |flight: &Flight, value: fn(&LayerStats) -> Option<u64>| flight.stats.as_ref().and_then(value);
    let native = |flight: &Flight| flight.name == "native";

    row("", &|flight| flight.name.to_owned());
    row("virtual, MiB", &|flight| mib(flight.record.virtual_bytes));
    row("resident at the end, MiB", &|flight| {
        let unbound: usize = flight.record.frames.iter().map(|bind| bind.unbound.len()).sum();
        let bound: usize = flight.record.frames.iter().map(|bind| bind.bound.len()).sum();
        mib((flight.record.first.bound.len() + bound - unbound) as u64 * TILE_BYTES)
    });
    row("calls of vkQueueBindSparse", &|flight| (times(flight).len() + 1).to_string());
    row("binds and unbinds asked for, tiles", &|flight| all(flight).to_string());
    row("  of these seen by the layer", &|flight| count(from_layer(flight, |stats| stats.binds_asked)));
    row("operations sent (1)", &|flight| {
        if native(flight) {
            all(flight).to_string()
        } else {
            count(from_layer(flight, |stats| stats.ops_sent))
        }
    });
    row("VM_BIND ioctls", &|flight| count(from_layer(flight, |stats| stats.ioctls)));
    row("mapping calls of the emulated kernel", &|flight| count(from_layer(flight, |stats| stats.map_calls)));
    row("bind time a frame, median, us (2)", &|flight| micro(median(times(flight))));
    row("bind time a frame, longest, us", &|flight| micro(times(flight).into_iter().max()));
    row("bind time of the whole flight, us", &|flight| micro(Some(times(flight).iter().sum())));
    row("duration of the flight, s", &|flight| format!("{:.1}", flight.record.seconds));
    if flights.iter().any(|flight| flight.record.tiles_verified > 0) {
        row("tiles read back and right", &|flight| flight.record.tiles_verified.to_string());
    }
    text += "(1) VM_BIND operations by the layer; natively one mmap a tile, as lavapipe does.\n";
    text += "(2) From the call of vkQueueBindSparse to the signal of its semaphore; frames that bind nothing left out.\n";
    for flight in flights.iter().filter(|flight| !native(flight)) {
        if !flight.record.layer_loaded {
            text += "NOTE: the layer's library was not loaded in the layer's flight: its column is native.\n";
        }
        if flight.stats.is_none() {
            let _ = writeln!(
                text,
                "NOTE: the layer wrote no statistics to {} (TESSERA_STATS), so its counters are n/a.",
                flight.folder.join("stats.jsonl").display()
            );
        }
    }
    if let Some(verdict) = verdict {
        let _ = writeln!(text, "\n{verdict}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_add_up_and_tolerate_what_is_missing() {
        let path = std::env::temp_dir().join(format!("tessera-demo-stats-{}.jsonl", std::process::id()));
        std::fs::write(&path, "{\"ops_sent\": 3, \"ioctls\": 1}\nnot json\n{\"ops_sent\": 4}\n")
            .expect("writable");
        let stats = LayerStats::load(&path).expect("two lines are good");
        std::fs::remove_file(&path).expect("removable");
        assert_eq!((stats.ops_sent, stats.ioctls, stats.map_calls), (Some(7), Some(1), None));
        assert!(LayerStats::load(&path).is_none());
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![5, 1, 3]), Some(3));
        assert_eq!(median(vec![]), None);
    }
}

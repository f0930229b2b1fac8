//! The table of instructions on a real kernel.

use super::{table, times, title, wanted};
use crate::machine::Recorded;
use crate::rows::Row;

const HEADINGS: [&str; 8] =
    ["thousands of instructions", "binds", "driver", "layer", "cheaper", "wanted", "call: driver", "layer"];

/// A line of the table: a row, and what came of it with the driver alone and with the layer.
pub(crate) type Line<'a> = (&'a Row, &'a Recorded, &'a Recorded);

/// The table, for a terminal or as Markdown.
pub(crate) fn text(lines: &[Line<'_>], markdown: bool) -> String {
    table(&HEADINGS, lines.iter().map(cells), markdown)
}

/// The section of docs/performance.md.
pub(crate) fn markdown(lines: &[Line<'_>]) -> String {
    let under = lines.first().map_or_else(String::new, |(_, alone, _)| alone.under());
    format!("{}\n\n{under}.\n\n{}\n", title("###"), text(lines, true))
}

fn cells((row, alone, layered): &Line<'_>) -> [String; 8] {
    let (native, layer) = (alone.sample.done as f64, layered.sample.done as f64);
    [
        row.name.into(),
        super::short(alone.asked),
        thousands(alone.sample.done),
        thousands(layered.sample.done),
        times(native / layer),
        wanted(row, native, Some(layer)),
        thousands(alone.sample.calls),
        thousands(layered.sample.calls),
    ]
}

/// Thousands to three digits, or to all that are before the point.
fn thousands(instructions: u64) -> String {
    match instructions {
        100_000.. => format!("{}", (instructions + 500) / 1000),
        _ => format!("{:.1}", instructions as f64 / 1e3),
    }
}

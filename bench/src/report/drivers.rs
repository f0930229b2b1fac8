//! The tables of a real driver on the emulated node: one of times, one of what reached the node.

use super::{Line, or_dash, short, table, time, times, wanted};
use crate::measure::{Kernel, Times};
use crate::sample::Counts;

const TIMES: [&str; 12] = [
    "",
    "own time: driver",
    "layer",
    "faster",
    "wanted",
    "call: driver",
    "layer",
    "faster",
    "wanted",
    "to fence: driver",
    "layer",
    "faster",
];

const WORK: [&str; 9] = [
    "driver / layer",
    "binds asked",
    "VM_BINDs / fewest",
    "ops / fewest",
    "ioctls",
    "jobs",
    "pages preallocated",
    "entries written",
    "flushes",
];

pub(super) fn tables(lines: &[Line<'_>], markdown: bool) -> String {
    let times = table(&TIMES, lines.iter().map(time_cells), markdown);
    let work = lines.iter().filter_map(work_cells);
    format!("{times}\n\n{}", table(&WORK, work, markdown))
}

fn time_cells(Line { row, measured }: &Line<'_>) -> [String; 12] {
    let (native, layer) = (&measured.native, measured.layer.as_ref());
    let wanted = |of: fn(&Times) -> f64| wanted(row, of(native), layer.map(of));
    let faster = |of: fn(&Times) -> f64| or_dash(layer.map(|layer| times(of(native) / of(layer))));
    [
        row.name.into(),
        time(native.own),
        or_dash(layer.map(|layer| time(layer.own))),
        faster(|times| times.own),
        wanted(|times| times.own),
        time(native.calls),
        or_dash(layer.map(|layer| time(layer.calls))),
        faster(|times| times.calls),
        wanted(|times| times.calls),
        time(native.done),
        or_dash(layer.map(|layer| time(layer.done))),
        faster(|times| times.done),
    ]
}

/// Nothing for rows that bind nothing.
fn work_cells(Line { row, measured }: &Line<'_>) -> Option<[String; 9]> {
    let Kernel::Node { asked, per, native, layer } = &measured.kernel else { return None };
    let of = |count: fn(&Counts) -> u64| {
        let side = |counts: &Counts| short(count(counts) as f64 / per);
        format!("{} / {}", side(native), or_dash(layer.as_ref().map(side)))
    };
    let fewest = |count: fn(&Counts) -> u64| short(count(native) as f64 / per);
    Some([
        row.name.into(),
        short(*asked),
        format!("{} / {}", of(|counts| counts.binds), fewest(|counts| counts.fewest_binds)),
        format!("{} / {}", of(|counts| counts.ops), fewest(|counts| counts.fewest_ops)),
        of(|counts| counts.ioctls),
        of(|counts| counts.jobs),
        of(|counts| counts.preallocated_pages),
        of(|counts| counts.entries_written),
        of(|counts| counts.flushes),
    ])
}

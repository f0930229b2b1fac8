//! The table, for a terminal and for the documentation.

use crate::measure::Measured;
use crate::rows::Row;
use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use comfy_table::{CellAlignment, Table};
use std::fs;
use std::process::Command;

/// A line of the table.
pub(crate) struct Line<'a> {
    pub(crate) row: &'a Row,
    pub(crate) measured: Measured,
}

const HEADINGS: [&str; 8] =
    ["", "native", "layer", "faster", "wanted", "binds asked", "ops sent", "fewest changes"];

/// The table, as Markdown or for a terminal.
pub(crate) fn table(lines: &[Line<'_>], markdown: bool) -> String {
    let mut table = Table::new();
    table.load_preset(if markdown { ASCII_MARKDOWN } else { NOTHING }).set_header(HEADINGS);
    for line in lines {
        table.add_row(cells(line));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn cells(Line { row, measured }: &Line<'_>) -> [String; 8] {
    let faster = measured.layer.map(|layer| measured.native / layer);
    let wanted = row.target.map(|target| {
        let met = match faster {
            Some(faster) if faster >= target => " yes",
            Some(_) => " NO",
            None => "",
        };
        format!("{}x{met}", short(target))
    });
    let operations = measured.operations.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        row.name.into(),
        time(measured.native),
        or_dash(measured.layer.map(time)),
        or_dash(faster.map(|faster| format!("{}x", short(faster)))),
        or_dash(wanted),
        or_dash(operations.map(|operations| short(operations.asked))),
        or_dash(operations.and_then(|operations| operations.sent).map(short)),
        or_dash(operations.map(|operations| short(operations.minimum))),
    ]
}

/// Nanoseconds, in the unit that suits.
fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        1e6.. => format!("{:.2} ms", nanoseconds / 1e6),
        1e3.. => format!("{:.1} us", nanoseconds / 1e3),
        _ => format!("{nanoseconds:.0} ns"),
    }
}

/// Three digits are what these measurements are good for; counts stay whole.
fn short(number: f64) -> String {
    if number.fract() == 0.0 || number >= 100.0 {
        format!("{number:.0}")
    } else if number >= 10.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.2}")
    }
}

/// The section of docs/performance.md.
pub(crate) fn markdown(lines: &[Line<'_>]) -> String {
    let driver = lines.first().map(|line| line.measured.driver.as_str()).unwrap_or("unknown driver");
    format!("{}\n\nMedians; {}\n{}.\n\n{}\n", title(), machine(), driver, table(lines, true))
}

fn title() -> String {
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().ok();
    let date = date.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    format!("## Measured {} with tessera {}", date.trim(), env!("CARGO_PKG_VERSION"))
}

/// What the numbers were taken on.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str, separator: char| {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| Some(line.split_once(separator)?.1.trim().trim_matches('"').to_owned()))
    };
    let processor =
        field(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_else(|| "unknown processor".into());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal", ':')
        .and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok())
        .map_or_else(String::new, |kib| format!("{:.0} GiB, ", kib / f64::from(1 << 20)));
    let system = field(&read("/etc/os-release"), "PRETTY_NAME", '=').unwrap_or_else(|| "Linux".into());
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{processors} processors of {processor}, {memory}{system}, Linux {},", kernel.trim())
}

/// Puts `section` where the generated part of `document` is: between the marks, or at the end.
pub(crate) fn replace(document: &str, section: &str) -> String {
    const BEGIN: &str = "<!-- tessera-bench: generated from here -->\n";
    const END: &str = "<!-- tessera-bench: generated to here -->\n";
    let generated = format!("{BEGIN}{section}{END}");
    let before = document.find(BEGIN);
    let after = document.find(END).map(|at| at + END.len());
    match (before, after) {
        (Some(before), Some(after)) if before < after => {
            format!("{}{generated}{}", &document[..before], &document[after..])
        }
        _ if document.is_empty() => generated,
        _ => format!("{}\n\n{generated}", document.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(time(26_600_000.0), "26.60 ms");
        assert_eq!(time(35_040.0), "35.0 us");
        assert_eq!(time(480.0), "480 ns");
        assert_eq!(
            ["8192", "1", "177", "12.3", "0.91"],
            [8192.0, 1.0, 177.4, 12.34, 1.0 / 1.1].map(short).as_slice()
        );
    }

    #[test]
    fn only_the_generated_part_changes() {
        let first = replace("# Performance\n", "one\n");
        assert!(first.starts_with("# Performance\n\n<!--") && first.contains("one"));
        let second = replace(&format!("{first}\nmore\n"), "two\n");
        assert!(second.starts_with("# Performance\n") && second.ends_with("more\n"));
        assert!(second.contains("two") && !second.contains("one"));
    }
}

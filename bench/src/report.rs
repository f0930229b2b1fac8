//! The tables, for a terminal and for the documentation.

mod drivers;
pub(crate) mod machine;

use crate::measure::{Kernel, Measured};
use crate::rows::{Row, Suite};
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

/// The suite's tables, as Markdown or for a terminal.
pub(crate) fn tables(suite: Suite, lines: &[Line<'_>], markdown: bool) -> String {
    match suite {
        Suite::Lavapipe => table(&HEADINGS, lines.iter().map(cells), markdown),
        Suite::Drivers => drivers::tables(lines, markdown),
    }
}

fn table<const N: usize>(
    headings: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
    markdown: bool,
) -> String {
    let mut table = Table::new();
    table.load_preset(if markdown { ASCII_MARKDOWN } else { NOTHING }).set_header(headings);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn cells(Line { row, measured }: &Line<'_>) -> [String; 8] {
    let native = measured.native.done;
    let layer = measured.layer.as_ref().map(|times| times.done);
    let (asked, sent, minimum) = match measured.kernel {
        Kernel::Operations { asked, sent, minimum } => (Some(asked), sent, Some(minimum)),
        Kernel::Nothing | Kernel::Node { .. } => (None, None, None),
    };
    [
        row.name.into(),
        time(native),
        or_dash(layer.map(time)),
        or_dash(layer.map(|layer| times(native / layer))),
        wanted(row, native, layer),
        or_dash(asked.map(short)),
        or_dash(sent.map(short)),
        or_dash(minimum.map(short)),
    ]
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}

fn times(factor: f64) -> String {
    format!("{}x", short(factor))
}

/// The aims, and whether a time of the layer's meets them.
fn wanted(row: &Row, native: f64, layer: Option<f64>) -> String {
    let met = |is: &dyn Fn(f64) -> bool| match layer {
        Some(layer) if is(layer) => " yes",
        Some(_) => " NO",
        None => "",
    };
    let faster = row.target.map(|target| times(target) + met(&|layer| native / layer >= target));
    let limit = row.limit.map(|limit| time(limit) + met(&|layer| layer <= limit));
    or_dash([faster, limit].into_iter().flatten().reduce(|all, next| format!("{all}, {next}")))
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

/// The suite's section of docs/performance.md.
pub(crate) fn markdown(suite: Suite, lines: &[Line<'_>]) -> String {
    let driver = lines.first().map(|line| line.measured.driver.as_str()).unwrap_or("unknown driver");
    let level = match suite {
        Suite::Lavapipe => "##",
        Suite::Drivers => "###",
    };
    format!("{}\n\nMedians; {}\n{}.\n\n{}\n", title(level), machine(), driver, tables(suite, lines, true))
}

/// The program whose output a suite's section is.
pub(crate) const fn program(suite: Suite) -> &'static str {
    match suite {
        Suite::Lavapipe => "tessera-bench",
        Suite::Drivers => "tessera-bench drivers",
    }
}

fn title(level: &str) -> String {
    let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output().ok();
    let date = date.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    format!("{level} Measured {} with tessera {}", date.trim(), env!("CARGO_PKG_VERSION"))
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

/// Puts `section` where the part of `document` is that `program` has generated: between its marks, or at the end.
pub(crate) fn replace(program: &str, document: &str, section: &str) -> String {
    let begin = format!("<!-- {program}: generated from here -->\n");
    let end = format!("<!-- {program}: generated to here -->\n");
    let generated = format!("{begin}{section}{end}");
    let before = document.find(&begin);
    let after = document.find(&end).map(|at| at + end.len());
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
        let first = replace(program(Suite::Lavapipe), "# Performance\n", "one\n");
        assert!(first.starts_with("# Performance\n\n<!--") && first.contains("one"));
        let second = replace(program(Suite::Lavapipe), &format!("{first}\nmore\n"), "two\n");
        assert!(second.starts_with("# Performance\n") && second.ends_with("more\n"));
        assert!(second.contains("two") && !second.contains("one"));
        let third = replace(program(Suite::Drivers), &second, "three\n");
        assert!(third.starts_with(&second) && third.contains("three"));
        let fourth = replace(program(Suite::Drivers), &third, "four\n");
        assert!(fourth.contains("two") && fourth.contains("four") && !fourth.contains("three"));
    }
}

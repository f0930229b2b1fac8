//! Page tables as text, to compare what different programs have made.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use emulator::{Node, PageRun};

/// Runs of pages as lines: address, length, object and offset. Objects are numbered in the order in which they are met, so that two
/// page tables which differ in nothing but the handles and the history of their objects read the same.
fn lines(runs: &[PageRun]) -> String {
    let mut objects: Vec<u64> = Vec::new();
    let mut out = String::new();
    for run in runs {
        let target = match run.bo {
            None => "null".into(),
            Some((_, offset)) => {
                let known = objects.iter().position(|object| *object == run.object);
                let number = known.unwrap_or_else(|| {
                    objects.push(run.object);
                    objects.len() - 1
                });
                format!("object {} +{offset:#x}", number + 1)
            }
        };
        // Strings do not fail.
        let _ = writeln!(out, "  {:#014x} {:#x} {target}", run.va, run.len);
    }
    out
}

/// All page tables of an open file.
fn text(title: &str, node: &Node) -> String {
    let mut out = format!("{title}\n");
    for vm in node.vms() {
        let _ = writeln!(out, " vm {vm}");
        out += &lines(&node.mappings(vm));
    }
    out
}

/// Appends all page tables of an open file to a file.
pub(crate) fn append(path: &Path, title: &str, node: &Node) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).open(path)?.write_all(text(title, node).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kmd::GemHandle;

    #[test]
    fn objects_are_numbered_as_they_are_met() {
        let run = |va, object, offset| PageRun {
            va,
            len: 0x1000,
            bo: (object != 0).then_some((GemHandle(1), offset)),
            object,
        };
        let text =
            lines(&[run(0x1000, 9, 0), run(0x2000, 0, 0), run(0x3000, 4, 0x2000), run(0x5000, 9, 0x1000)]);
        assert_eq!(
            text,
            "  0x000000001000 0x1000 object 1 +0x0\n  0x000000002000 0x1000 null\n  \
             0x000000003000 0x1000 object 2 +0x2000\n  0x000000005000 0x1000 object 1 +0x1000\n"
        );
    }
}

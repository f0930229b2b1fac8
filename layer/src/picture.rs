//! The mirror in a file, for whoever holds it to page tables that the layer cannot see (`TESSERA_MIRROR`).

use gpuvm::{Mapping, Target};
use kmd::GemHandle;
use std::fmt::Write;
use std::path::Path;

/// Writes a line for each mapping: address, length, GEM handle (0 for a null mapping) and offset in the object, in hexadecimal.
pub fn write(mirror: &[Mapping<GemHandle>], path: &Path) {
    if let Err(error) = std::fs::write(path, text(mirror)) {
        tracing::error!("TESSERA_MIRROR={}: {error}", path.display());
    }
}

fn text(mirror: &[Mapping<GemHandle>]) -> String {
    let mut text = String::new();
    for Mapping { range, target } in mirror {
        let (handle, offset) = match *target {
            Target::Null => (0, 0),
            Target::Object { object, offset } => (object.0, offset),
        };
        // A string takes whatever is written.
        let _ = writeln!(text, "{:x} {:x} {handle:x} {offset:x}", range.start, range.len);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpuvm::VaRange;

    #[test]
    fn a_line_for_each_mapping() {
        let bound = Target::Object { object: GemHandle(17), offset: 0x3000 };
        let mirror = [(0x1_0000, bound), (0x8_0000, Target::Null)];
        let mirror = mirror.map(|(start, target)| Mapping { range: VaRange { start, len: 0x2000 }, target });
        assert_eq!(text(&mirror), "10000 2000 11 3000\n80000 2000 0 0\n");
    }
}

//! How formats store their texels, from vk.xml's `<formats>`.

use crate::registry::Registry;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use vk_parse::{Format, FormatChild};

/// Pairs of a VkFormat's number and its `FormatInfo`, sorted by number.
pub(crate) fn generate(registry: &Registry) -> Result<String, String> {
    let number = |name: &str| registry.value(name).ok_or_else(|| format!("vk.xml gives {name} no number"));
    let mut rows = BTreeMap::new();
    for format in &registry.formats {
        rows.insert(number(&format.name)?, row(format, &number)?);
    }
    let mut code = String::from("&[\n");
    for (value, row) in rows {
        let _ = writeln!(code, "    ({value}, {row}),");
    }
    code.push_str("]\n");
    Ok(code)
}

fn row(format: &Format, number: &impl Fn(&str) -> Result<i64, String>) -> Result<String, String> {
    let extent = match &format.blockExtent {
        Some(text) => {
            let numbers: Result<Vec<u32>, _> = text.split(',').map(|part| part.trim().parse()).collect();
            numbers
                .ok()
                .filter(|n| n.len() == 3)
                .ok_or_else(|| format!("{}: blockExtent {text:?}", format.name))?
        }
        // Formats of two texels a block without an extent are 4:2:2 (a pair of neighbours shares its chroma).
        None => vec![format.texelsPerBlock.into(), 1, 1],
    };
    let (mut depth, mut stencil, mut planes) = (0u8, 0u8, BTreeMap::new());
    for child in &format.children {
        match child {
            FormatChild::Component { name, bits, .. } if name == "D" => depth = bits.parse().unwrap_or(0),
            FormatChild::Component { name, bits, .. } if name == "S" => stencil = bits.parse().unwrap_or(0),
            FormatChild::Plane { index, widthDivisor, heightDivisor, compatible, .. } => {
                planes.insert(
                    *index,
                    format!(
                        "FormatPlane {{ compatible: vk::Format::from_raw({}), width_divisor: {widthDivisor}, height_divisor: {heightDivisor} }}",
                        number(compatible)?
                    ),
                );
            }
            _ => {}
        }
    }
    let planes: Vec<String> = planes.into_values().collect();
    Ok(format!(
        "FormatInfo {{ block_bytes: {}, block_extent: {extent:?}, compressed: {}, depth_bits: {depth}, stencil_bits: {stencil}, planes: &[{}] }}",
        format.blockSize,
        format.compressed.is_some(),
        planes.join(", ")
    ))
}

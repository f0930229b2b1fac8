//! The interception table: the listed commands under every name that vk.xml gives them.

use crate::registry::Registry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const LEVELS: [(&str, &str); 4] = [
    ("global", "Global"),
    ("instance", "Instance"),
    ("physical-device", "PhysicalDevice"),
    ("device", "Device"),
];

/// One `command!(...)` row a name, sorted by name.
pub(crate) fn generate(registry: &Registry, list: &str) -> Result<String, String> {
    let mut rows: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for (number, line) in list.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (line, added) = line.strip_prefix('+').map_or((line, false), |rest| (rest.trim(), true));
        let (name, newer) = read_line(line).map_err(|error| format!("line {}: {error}", number + 1))?;
        let (names, level) = match canonical(registry, name) {
            Some(canonical) => (names_of(registry, canonical), level_of(registry, canonical)?),
            None => match newer {
                Some(newer) => (newer.aliases.into_iter().chain([name]).collect(), newer.level),
                None => {
                    return Err(format!(
                        "line {}: this vk.xml (version {}) has no command {name}; a newer command is written `{name}? LEVEL`",
                        number + 1,
                        registry.header_version
                    ));
                }
            },
        };
        let level = match (level, added) {
            (level, false) => level,
            ("Device", true) => "AddedQueues",
            (_, true) => return Err(format!("line {}: {name} is no device command", number + 1)),
        };
        for alias in names {
            if rows.insert(alias, (name, level)).is_some() {
                return Err(format!("line {}: {name} is listed already (as {alias})", number + 1));
            }
        }
    }

    let mut code = String::from("&[\n");
    for (alias, (name, level)) in rows {
        let _ = writeln!(code, "    command!({alias:?}, {level}, PFN_{name}, {}),", snake_case(name));
    }
    code.push_str("]\n");
    Ok(code)
}

/// What a line says of a command that vk.xml may not have yet.
struct Newer<'a> {
    level: &'static str,
    aliases: Vec<&'a str>,
}

/// `vkName` or `vkName? level alias...`.
fn read_line(line: &str) -> Result<(&str, Option<Newer<'_>>), String> {
    let mut words = line.split_whitespace();
    let first = words.next().unwrap_or_default();
    let level = words.next();
    let Some(name) = first.strip_suffix('?') else {
        let plain = (first, None);
        return if level.is_none() { Ok(plain) } else { Err(format!("{first} takes its level from vk.xml")) };
    };
    let level = LEVELS.iter().find(|(known, _)| Some(*known) == level);
    let (_, level) =
        level.ok_or_else(|| format!("{first} needs a level (global, instance, physical-device, device)"))?;
    Ok((name, Some(Newer { level, aliases: words.collect() })))
}

/// The name under which vk.xml defines a command.
fn canonical<'a>(registry: &'a Registry, name: &str) -> Option<&'a str> {
    let mut name = name;
    // Chains of aliases are short; the bound keeps a circular one from hanging the build.
    for _ in 0..8 {
        if let Some((name, _)) = registry.commands.get_key_value(name) {
            return Some(name);
        }
        name = registry.command_aliases.get(name)?;
    }
    None
}

fn names_of<'a>(registry: &'a Registry, command: &'a str) -> BTreeSet<&'a str> {
    let aliases = registry.command_aliases.keys().map(String::as_str);
    aliases.filter(|alias| canonical(registry, alias) == Some(command)).chain([command]).collect()
}

/// A command belongs to the level of its first parameter's handle; children of a device are at device level.
fn level_of(registry: &Registry, command: &str) -> Result<&'static str, String> {
    // May be asked for before there is an instance, although it takes one.
    if command == "vkGetInstanceProcAddr" {
        return Ok("Global");
    }
    let definition = &registry.commands[command];
    let parameter = definition.params.first().map(|first| &first.definition);
    Ok(match parameter.and_then(|first| first.type_name.as_deref()) {
        Some("VkInstance") => "Instance",
        Some("VkPhysicalDevice") => "PhysicalDevice",
        Some("VkDevice" | "VkQueue" | "VkCommandBuffer") => "Device",
        Some(other)
            if registry
                .types
                .iter()
                .any(|t| t.name.as_deref() == Some(other) && t.category.as_deref() == Some("handle")) =>
        {
            return Err(format!("{command} starts with a {other}, whose level is unknown"));
        }
        _ => "Global",
    })
}

/// `vkGetBufferMemoryRequirements2KHR` -> `get_buffer_memory_requirements2_khr`.
fn snake_case(command: &str) -> String {
    let letters: Vec<char> = command.strip_prefix("vk").unwrap_or(command).chars().collect();
    let mut snake = String::new();
    for (n, letter) in letters.iter().enumerate() {
        let starts_word = letter.is_ascii_uppercase()
            && n > 0
            && (!letters[n - 1].is_ascii_uppercase()
                || letters.get(n + 1).is_some_and(char::is_ascii_lowercase));
        if starts_word {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

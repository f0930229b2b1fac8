//! vk.xml with what the generators look up by name; what belongs to another API than Vulkan (Vulkan SC) is left out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use vk_parse::{
    CommandDefinition, Enum, EnumSpec, EnumsChild, ExtensionChild, Format, InterfaceItem, RegistryChild,
    Type, TypesChild,
};

#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) types: Vec<Type>,
    pub(crate) commands: HashMap<String, CommandDefinition>,
    /// Alias -> the name that it stands for (which may be an alias again).
    pub(crate) command_aliases: BTreeMap<String, String>,
    pub(crate) formats: Vec<Format>,
    /// Enumerants and API constants that are numbers.
    values: HashMap<String, i64>,
    value_aliases: HashMap<String, String>,
    /// Enumerations and flag bits of 64 bits.
    wide: HashSet<String>,
    /// The types that the API has, and the macro that guards one in the C headers, where it belongs to a platform or is provisional.
    pub(crate) required: HashMap<String, Option<String>>,
    /// VK_HEADER_VERSION.
    pub(crate) header_version: u32,
}

/// Whether an `api` attribute (or `supported`, which reads alike) includes Vulkan.
pub(crate) fn is_vulkan(api: Option<&str>) -> bool {
    api.is_none_or(|list| list.split(',').any(|name| name == "vulkan"))
}

impl Registry {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let (parsed, _) = vk_parse::parse_file(path)
            .map_err(|error| format!("{} cannot be read: {error:?}", path.display()))?;
        let mut registry = Self::default();
        let mut platforms = HashMap::new();
        for child in parsed.0 {
            match child {
                RegistryChild::Platforms(list) => {
                    platforms
                        .extend(list.children.into_iter().map(|platform| (platform.name, platform.protect)));
                }
                RegistryChild::Types(list) => registry.add_types(list.children),
                RegistryChild::Enums(list) => {
                    if let (Some(64), Some(name)) = (list.bitwidth, list.name) {
                        registry.wide.insert(name);
                    }
                    for item in list.children {
                        if let EnumsChild::Enum(item) = item {
                            registry.add_value(item, None);
                        }
                    }
                }
                RegistryChild::Commands(list) => {
                    list.children.into_iter().for_each(|command| registry.add_command(command))
                }
                RegistryChild::Feature(feature) if is_vulkan(Some(&feature.api)) => {
                    registry.add_interface(feature.children, None, None);
                }
                RegistryChild::Extensions(list) => {
                    for extension in list.children {
                        // video.xml has no such attribute, and its constants are wanted too.
                        if is_vulkan(extension.supported.as_deref()) {
                            let guard =
                                extension.platform.as_ref().and_then(|name| platforms.get(name)).cloned();
                            registry.add_interface(extension.children, extension.number, guard.as_deref());
                        }
                    }
                }
                RegistryChild::Formats(list) => registry.formats = list.children,
                _ => {}
            }
        }
        Ok(registry)
    }

    fn add_types(&mut self, children: Vec<TypesChild>) {
        for child in children {
            let TypesChild::Type(item) = child else { continue };
            if !is_vulkan(item.api.as_deref()) {
                continue;
            }
            if let vk_parse::TypeSpec::Code(code) = &item.spec
                && let Some((_, version)) = code.code.rsplit_once("VK_HEADER_VERSION ")
            {
                self.header_version = version.trim().parse().unwrap_or(self.header_version);
            }
            self.types.push(item);
        }
    }

    fn add_command(&mut self, command: vk_parse::Command) {
        match command {
            vk_parse::Command::Alias { name, alias } => {
                self.command_aliases.insert(name, alias);
            }
            vk_parse::Command::Definition(definition) if is_vulkan(definition.api.as_deref()) => {
                self.commands.insert(definition.proto.name.clone(), definition);
            }
            _ => {}
        }
    }

    fn add_interface(&mut self, children: Vec<ExtensionChild>, number: Option<i64>, guard: Option<&str>) {
        for child in children {
            let ExtensionChild::Require { api, items, .. } = child else { continue };
            if !is_vulkan(api.as_deref()) {
                continue;
            }
            for item in items {
                match item {
                    InterfaceItem::Enum(item) => self.add_value(item, number),
                    InterfaceItem::Type { name, .. } => {
                        self.required.insert(name, guard.map(String::from));
                    }
                    _ => {}
                }
            }
        }
    }

    fn add_value(&mut self, item: Enum, number: Option<i64>) {
        if !is_vulkan(item.api.as_deref()) {
            return;
        }
        let value = match item.spec {
            EnumSpec::Alias { alias, .. } => {
                self.value_aliases.insert(item.name, alias);
                return;
            }
            EnumSpec::Value { value, .. } => parse_integer(&value),
            EnumSpec::Bitpos { bitpos, .. } => 1i64.checked_shl(bitpos as u32),
            // The numbering of extension enumerants: a block of a thousand for each extension, from 10^9 on.
            EnumSpec::Offset { offset, extnumber, dir, .. } => extnumber.or(number).map(|number| {
                let value = 1_000_000_000 + (number - 1) * 1000 + offset;
                if dir { value } else { -value }
            }),
            _ => None,
        };
        if let Some(value) = value {
            self.values.insert(item.name, value);
        }
    }

    /// The number of an enumerant or API constant.
    pub(crate) fn value(&self, name: &str) -> Option<i64> {
        let mut name = name;
        // Chains of aliases are short; the bound keeps a circular one from hanging the build.
        for _ in 0..8 {
            match self.value_aliases.get(name) {
                Some(next) => name = next,
                None => break,
            }
        }
        self.values.get(name).copied()
    }

    pub(crate) fn is_wide(&self, enumeration: &str) -> bool {
        self.wide.contains(enumeration)
    }
}

/// An integer as C writes it, where it is one.
fn parse_integer(text: &str) -> Option<i64> {
    let digits = text.trim().trim_end_matches(['U', 'L', 'u', 'l']);
    match digits.strip_prefix("0x") {
        Some(hexadecimal) => i64::from_str_radix(hexadecimal, 16).ok(),
        None => digits.parse().ok(),
    }
}

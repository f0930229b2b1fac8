//! The commands that name a queue or a queue family, also deep in their structures.

use crate::registry::Registry;
use crate::structs::members;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use vk_parse::{Type, TypeMemberMarkup};

struct Search<'a> {
    types: HashMap<&'a str, &'a Type>,
    /// Structure -> those that may be in its pNext.
    extensions: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> Search<'a> {
    fn new(registry: &'a Registry) -> Self {
        let mut search = Self { types: HashMap::new(), extensions: HashMap::new() };
        for item in &registry.types {
            let Some(name) = item.name.as_deref() else { continue };
            search.types.insert(name, item);
            for extended in item.structextends.iter().flat_map(|list| list.split(',')) {
                search.extensions.entry(extended).or_default().push(name);
            }
        }
        search
    }

    fn names(&self, type_name: &'a str, name: &str, seen: &mut HashSet<&'a str>) -> bool {
        if type_name == "VkQueue" || name.to_lowercase().contains("queuefamilyind") {
            return true;
        }
        if !seen.insert(type_name) {
            return false;
        }
        let inside = self.types.get(type_name).into_iter().flat_map(|item| members(item)).any(|member| {
            let of = |part: &'a TypeMemberMarkup| match part {
                TypeMemberMarkup::Type(name) => (Some(name.as_str()), None),
                TypeMemberMarkup::Name(name) => (None, Some(name.as_str())),
                _ => (None, None),
            };
            let member_type = member.markup.iter().find_map(|part| of(part).0).unwrap_or_default();
            let member_name = member.markup.iter().find_map(|part| of(part).1).unwrap_or_default();
            self.names(member_type, member_name, seen)
        });
        inside
            || self
                .extensions
                .get(type_name)
                .into_iter()
                .flatten()
                .any(|extension| self.names(extension, "", seen))
    }
}

/// Their names, sorted.
pub(crate) fn generate(registry: &Registry) -> String {
    let search = Search::new(registry);
    let named: BTreeSet<_> = registry
        .commands
        .iter()
        .filter(|(_, command)| {
            command.params.iter().any(|parameter| {
                let definition = &parameter.definition;
                let type_name = definition.type_name.as_deref().unwrap_or_default();
                search.names(type_name, &definition.name, &mut HashSet::new())
            })
        })
        .map(|(name, _)| name)
        .collect();
    let mut code = String::from("&[\n");
    for name in named {
        let _ = writeln!(code, "    {name:?},");
    }
    code.push_str("]\n");
    code
}

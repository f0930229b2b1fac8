//! The sizes of the structures that begin with `sType`, by the C ABI of 64-bit Unix targets.

use crate::registry::Registry;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use vk_parse::{Type, TypeMember, TypeMemberDefinition, TypeMemberMarkup, TypeSpec};

/// Types that vk.xml takes from C and from platform headers, with their size in bytes; each is aligned to its size.
/// What is only ever pointed to needs no entry, and a structure that holds anything else has no known layout.
const FOREIGN: &[(&str, u64)] = &[
    ("char", 1),
    ("int8_t", 1),
    ("uint8_t", 1),
    ("int16_t", 2),
    ("uint16_t", 2),
    ("int", 4),
    ("int32_t", 4),
    ("uint32_t", 4),
    ("float", 4),
    ("int64_t", 8),
    ("uint64_t", 8),
    ("size_t", 8),
    ("double", 8),
    // Xlib's and XRandR's identifiers are `unsigned long`, XCB's 32 bits.
    ("VisualID", 8),
    ("Window", 8),
    ("RROutput", 8),
    ("xcb_visualid_t", 4),
    ("xcb_window_t", 4),
    ("DWORD", 4),
    ("HANDLE", 8),
    ("HINSTANCE", 8),
    ("HMONITOR", 8),
    ("HWND", 8),
    ("LPCWSTR", 8),
    ("zx_handle_t", 4),
    ("GgpStreamDescriptor", 4),
    ("GgpFrameToken", 8),
];

/// What guards provisional extensions in the C headers.
const PROVISIONAL: &str = "VK_ENABLE_BETA_EXTENSIONS";

/// Size and alignment in bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Layout {
    size: u64,
    align: u64,
}

impl Layout {
    const fn scalar(size: u64) -> Self {
        Self { size, align: size }
    }
}

/// A structure with an sType.
struct Tagged<'a> {
    s_type: i64,
    size: u64,
    /// Its name and its aliases.
    names: Vec<&'a str>,
}

pub(crate) struct Structs<'a> {
    registry: &'a Registry,
    video: Option<&'a Registry>,
    types: HashMap<&'a str, &'a Type>,
    known: RefCell<HashMap<&'a str, Option<Layout>>>,
    tagged: Vec<Tagged<'a>>,
}

impl<'a> Structs<'a> {
    pub(crate) fn new(registry: &'a Registry, video: Option<&'a Registry>) -> Self {
        let mut types: HashMap<&str, &Type> = HashMap::new();
        // vk.xml names the types of video.xml without saying what they are.
        for item in registry.types.iter().chain(video.into_iter().flat_map(|video| &video.types)) {
            if let Some(name) = name_of(item)
                && (item.category.is_some() || !types.contains_key(name))
            {
                types.insert(name, item);
            }
        }
        let mut structs = Self { registry, video, types, known: RefCell::default(), tagged: Vec::new() };
        structs.tagged = structs.tag();
        structs
    }

    fn tag(&self) -> Vec<Tagged<'a>> {
        let mut aliases: HashMap<&str, Vec<&str>> = HashMap::new();
        for item in &self.registry.types {
            if let (Some(name), Some(alias)) = (name_of(item), item.alias.as_deref()) {
                aliases.entry(alias).or_default().push(name);
            }
        }
        let mut tagged = Vec::new();
        for item in &self.registry.types {
            let Some(name) = name_of(item) else { continue };
            let Some(s_type) = s_type_of(item).and_then(|value| self.registry.value(value)) else { continue };
            let Some(layout) = self.layout(name) else { continue };
            let mut names = vec![name];
            names.extend(aliases.remove(name).unwrap_or_default());
            // Provisional structures change while their sType stays: the application's may be another than this vk.xml's.
            let mut guards = names.iter().filter_map(|name| self.registry.required.get(*name)?.as_deref());
            if guards.any(|guard| guard == PROVISIONAL) {
                continue;
            }
            tagged.push(Tagged { s_type, size: layout.size, names });
        }
        tagged
    }

    fn layout(&self, name: &'a str) -> Option<Layout> {
        if let Some(known) = self.known.borrow().get(name) {
            return *known;
        }
        // A type that contains itself by value would be an error of vk.xml; it then has no known layout.
        self.known.borrow_mut().insert(name, None);
        let layout = self.compute(name);
        self.known.borrow_mut().insert(name, layout);
        layout
    }

    fn compute(&self, name: &'a str) -> Option<Layout> {
        if let Some((_, size)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
            return Some(Layout::scalar(*size));
        }
        let item = *self.types.get(name)?;
        if let Some(alias) = &item.alias {
            return self.layout(alias);
        }
        match item.category.as_deref()? {
            "handle" | "funcpointer" => Some(Layout::scalar(8)),
            "enum" => Some(Layout::scalar(if self.registry.is_wide(name) { 8 } else { 4 })),
            "bitmask" | "basetype" => self.typedef(item),
            "struct" => self.aggregate(item, false),
            "union" => self.aggregate(item, true),
            _ => None,
        }
    }

    /// `typedef TYPE NAME;` or `typedef TYPE* NAME;`.
    fn typedef(&self, item: &'a Type) -> Option<Layout> {
        let TypeSpec::Code(code) = &item.spec else { return None };
        let (_, definition) = code.code.rsplit_once("typedef")?;
        if definition.contains('*') {
            return Some(Layout::scalar(8));
        }
        let base = code.markup.iter().find_map(|part| match part {
            vk_parse::TypeCodeMarkup::Type(base) => Some(base.as_str()),
            _ => None,
        });
        self.layout(base?)
    }

    fn aggregate(&self, item: &'a Type, is_union: bool) -> Option<Layout> {
        // Bits so far, for bit-fields.
        let (mut end, mut largest, mut align) = (0u64, 0u64, 1u64);
        for member in members(item) {
            let (layout, width) = self.member(member)?;
            align = align.max(layout.align);
            let (unit, size) = (layout.align * 8, layout.size * 8);
            let start = match width {
                // A bit-field shares its neighbour's storage unless it would cross a unit of its own type (System V and AAPCS64).
                Some(width) if end / size == (end + width - 1) / size => end,
                _ => end.next_multiple_of(unit),
            };
            end = start + width.unwrap_or(size);
            largest = largest.max(end);
            if is_union {
                end = 0;
            }
        }
        Some(Layout { size: largest.div_ceil(8).next_multiple_of(align), align })
    }

    /// The layout of a member, and its width in bits if it is a bit-field.
    fn member(&self, member: &'a TypeMemberDefinition) -> Option<(Layout, Option<u64>)> {
        // `TYPE name`, `TYPE* name`, `TYPE name[LENGTH]...`, `TYPE name:WIDTH`
        let at = member.code.find(['[', ':']).unwrap_or(member.code.len());
        let (declaration, rest) = member.code.split_at(at);
        let base = if declaration.contains('*') {
            Layout::scalar(8)
        } else {
            let name = member.markup.iter().find_map(|part| match part {
                TypeMemberMarkup::Type(name) => Some(name.as_str()),
                _ => None,
            });
            self.layout(name?)?
        };
        if let Some(width) = rest.strip_prefix(':') {
            return Some((base, Some(width.trim().parse().ok().filter(|width| *width > 0)?)));
        }
        let mut size = base.size;
        for length in rest.split('[').skip(1) {
            size *= self.length(length.trim().strip_suffix(']')?.trim())?;
        }
        Some((Layout { size, ..base }, None))
    }

    fn length(&self, text: &str) -> Option<u64> {
        let constant = || self.registry.value(text).or_else(|| self.video?.value(text));
        text.parse().ok().or_else(|| constant()?.try_into().ok())
    }

    /// Pairs of sType and size in bytes, sorted by sType.
    pub(crate) fn sizes(&self) -> Result<String, String> {
        let mut rows: BTreeMap<i64, &Tagged<'_>> = BTreeMap::new();
        for item in &self.tagged {
            if let Some(other) = rows.insert(item.s_type, item)
                && other.size != item.size
            {
                return Err(format!("vk.xml gives {} and {} the same sType", other.names[0], item.names[0]));
            }
        }
        let mut code = String::from("&[\n");
        for (s_type, item) in rows {
            let _ = writeln!(code, "    ({s_type}, {}), // {}", item.size, item.names[0]);
        }
        code.push_str("]\n");
        Ok(code)
    }

    /// For the tests: `structures!` with the registry's version, a row for every name of a structure with an sType, and after a `;` a
    /// row for every structure and union that the C headers have.
    pub(crate) fn names(&self) -> String {
        let mut code = format!("structures! {{ {};\n", self.registry.header_version);
        for item in &self.tagged {
            for name in &item.names {
                let short = name.strip_prefix("Vk").unwrap_or(name);
                let _ = writeln!(code, "    {short} = {name:?}, {}, {};", item.s_type, item.size);
            }
        }
        code.push_str("    ;\n");
        for registry in [Some(self.registry), self.video].into_iter().flatten() {
            for item in &registry.types {
                let (Some(name), Some("struct" | "union")) = (name_of(item), item.category.as_deref()) else {
                    continue;
                };
                if let (Some(guard), Some(layout)) = (registry.required.get(name), self.layout(name)) {
                    let _ = writeln!(
                        code,
                        "    {name:?}, {:?}, {};",
                        guard.as_deref().unwrap_or_default(),
                        layout.size
                    );
                }
            }
        }
        code.push_str("}\n");
        code
    }
}

fn name_of(item: &Type) -> Option<&str> {
    if item.name.is_some() {
        return item.name.as_deref();
    }
    // Where C needs the name in the middle of a declaration, it is marked there.
    match &item.spec {
        TypeSpec::Code(code) => code.markup.iter().find_map(|part| match part {
            vk_parse::TypeCodeMarkup::Name(name) => Some(name.as_str()),
            _ => None,
        }),
        TypeSpec::Funcpointer(code) => Some(&code.proto.name),
        _ => None,
    }
}

pub(crate) fn members(item: &Type) -> impl Iterator<Item = &TypeMemberDefinition> {
    let members = match &item.spec {
        TypeSpec::Members(members) => members.as_slice(),
        _ => &[],
    };
    members.iter().filter_map(|member| match member {
        TypeMember::Definition(member) if crate::registry::is_vulkan(member.api.as_deref()) => Some(member),
        _ => None,
    })
}

/// The name of the sType value with which a structure begins.
fn s_type_of(item: &Type) -> Option<&str> {
    let first = members(item).next()?;
    first.markup.contains(&TypeMemberMarkup::Name("sType".into())).then_some(first.values.as_deref()?)
}

//! Holds every structure, constant and request number against the kernel's headers: a C program, made from the lists that
//! the macros keep, prints what the compiler makes of the headers; and the headers are read for what the lists lack.

use super::{COMMAND_BASE, Layout, command, drm, msm, panthor, sync_file};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One header and our description of it.
struct Header {
    path: &'static str,
    structs: &'static [Layout],
    constants: &'static [(&'static str, u64, usize)],
    requests: &'static [(&'static str, u32)],
    /// Whether everything in the header is described, not just part of it.
    whole: bool,
}

const HEADERS: &[Header] = &[
    Header {
        path: "drm/drm.h",
        structs: drm::STRUCTS,
        constants: drm::CONSTANTS,
        requests: drm::REQUESTS,
        whole: false,
    },
    Header {
        path: "drm/msm_drm.h",
        structs: msm::STRUCTS,
        constants: msm::CONSTANTS,
        requests: msm::REQUESTS,
        whole: true,
    },
    Header {
        path: "drm/panthor_drm.h",
        structs: panthor::STRUCTS,
        constants: panthor::CONSTANTS,
        requests: panthor::REQUESTS,
        whole: true,
    },
    Header {
        path: "linux/sync_file.h",
        structs: sync_file::STRUCTS,
        constants: sync_file::CONSTANTS,
        requests: sync_file::REQUESTS,
        // It is, but its requests are no driver's, by whose names and numbers that is checked.
        whole: false,
    },
];

/// Where the headers are: `TESSERA_UAPI_INCLUDE`, or what the set-up script has fetched.
fn include() -> PathBuf {
    let dir = std::env::var_os("TESSERA_UAPI_INCLUDE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/uapi/usr/include"),
        PathBuf::from,
    );
    assert!(
        dir.join("drm/panthor_drm.h").exists(),
        "no kernel headers in {}: run scripts/fetch-uapi.sh, or set TESSERA_UAPI_INCLUDE to a directory with drm/panthor_drm.h",
        dir.display()
    );
    dir
}

/// What we say of a header, as the lines that the C program prints about it. A line is `kind name value...`.
fn described(header: &Header) -> Vec<String> {
    let mut lines = Vec::new();
    for layout in header.structs {
        let name = layout.c_name;
        lines.push(format!("struct {name} {} {}", layout.size, layout.align));
        for (field, offset, size) in fields(layout) {
            lines.push(format!("field {name} {field} {offset} {size}"));
        }
    }
    for (name, value, _) in header.constants {
        lines.push(format!("constant {name} {value}"));
    }
    for (name, request) in header.requests {
        lines.push(format!("request {name} {request}"));
    }
    lines
}

/// The fields of a structure that C knows too.
fn fields(layout: &Layout) -> impl Iterator<Item = (&'static str, usize, usize)> {
    let known = layout.fields.iter().filter(|(name, ..)| !name.starts_with('_'));
    known.map(|&(name, offset, size)| (name.trim_start_matches("r#"), offset, size))
}

/// The C program.
fn program() -> String {
    let mut c =
        String::from("#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <fcntl.h>\n");
    for header in HEADERS {
        writeln!(c, "#include <{}>", header.path).unwrap();
    }
    c += "int main(void) {\n";
    for header in HEADERS {
        for layout in header.structs {
            let name = layout.c_name;
            writeln!(
                c,
                r#"printf("struct {name} %zu %zu\n", sizeof(struct {name}), _Alignof(struct {name}));"#
            )
            .unwrap();
            for (field, ..) in fields(layout) {
                writeln!(
                    c,
                    r#"printf("field {name} {field} %zu %zu\n", offsetof(struct {name}, {field}), sizeof(((struct {name} *)0)->{field}));"#
                )
                .unwrap();
            }
        }
        for (name, _, size) in header.constants {
            // Enumerators are signed: cut them to the width that they have in the structures.
            let bits = size * 8;
            writeln!(c, r#"printf("constant {name} %llu\n", (unsigned long long)(uint{bits}_t)({name}));"#)
                .unwrap();
        }
        for (name, _) in header.requests {
            writeln!(c, r#"printf("request {name} %u\n", (uint32_t)({name}));"#).unwrap();
        }
    }
    c += "return 0; }\n";
    c
}

fn run_program(include: &Path) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let (source, binary) = (dir.path().join("uapi.c"), dir.path().join("uapi"));
    std::fs::write(&source, program()).unwrap();
    let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(cc).arg("-I").arg(include).arg("-o").arg(&binary).arg(&source).output();
    let compiled = compiled.expect("a C compiler is needed to read the headers");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let ran = Command::new(&binary).output().unwrap();
    assert!(ran.status.success());
    String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn agrees_with_the_kernel_headers() {
    let kernel = run_program(&include());
    let ours: Vec<String> = HEADERS.iter().flat_map(described).collect();
    assert!(ours.len() > 300, "the lists have shrunk to {}", ours.len());
    let differences: Vec<_> = kernel.iter().zip(&ours).filter(|(kernel, ours)| kernel != ours).collect();
    assert!(differences.is_empty(), "(header, ours): {differences:#?}");
    assert_eq!(kernel.len(), ours.len());
}

#[test]
fn leaves_nothing_of_the_headers_out() {
    let include = include();
    for header in HEADERS {
        let text = std::fs::read_to_string(include.join(header.path)).unwrap();
        let missing = missing(header, &text);
        assert!(missing.is_empty(), "{} has, and we lack: {missing:#?}", header.path);
    }
}

/// What the text of a header has that our description of it lacks.
fn missing(header: &Header, text: &str) -> Vec<String> {
    let text = without_comments(text);
    let mut missing = Vec::new();
    for (name, body) in bodies(&text, "struct") {
        let Some(layout) = header.structs.iter().find(|layout| layout.c_name == name) else {
            if header.whole {
                missing.push(format!("struct {name}"));
            }
            continue;
        };
        let ours: BTreeSet<_> = fields(layout).map(|(field, ..)| field).collect();
        // What starts with an underline is a second name, for C++.
        let declared = body.split(';').filter_map(declared_name).filter(|name| !name.starts_with('_'));
        missing.extend(
            declared.filter(|field| !ours.contains(field)).map(|field| format!("field {name}.{field}")),
        );
    }
    if header.whole {
        let mut ours: BTreeSet<String> =
            header.constants.iter().map(|(name, ..)| (*name).to_owned()).collect();
        for (name, request) in header.requests {
            ours.insert((*name).to_owned());
            // The command ids are the requests' low bytes; the test of the requests covers them.
            assert!(command(*request) >= COMMAND_BASE);
            ours.insert(name.replacen("DRM_IOCTL_", "DRM_", 1));
        }
        let enumerators = bodies(&text, "enum");
        let enumerators = enumerators.iter().flat_map(|(_, body)| enumerators_of(body));
        missing.extend(
            enumerators.chain(defines(&text)).filter(|n| !ours.contains(*n)).map(|n| format!("constant {n}")),
        );
    }
    missing
}

/// The text without comments.
fn without_comments(text: &str) -> String {
    let mut pieces = text.split("/*");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        plain += piece.split_once("*/").expect("a comment ends").1;
    }
    plain
}

/// Names and bodies of the `keyword name { ... }` definitions, preprocessor lines left out.
fn bodies(text: &str, keyword: &str) -> Vec<(String, String)> {
    let mut code = String::new();
    let mut continued = false;
    for line in text.lines() {
        let directive = continued || line.trim_start().starts_with('#');
        continued = directive && line.ends_with('\\');
        if !directive {
            code.push_str(line);
            code.push('\n');
        }
    }
    let mut found = Vec::new();
    for (head, rest) in code.match_indices('{').map(|(at, _)| code.split_at(at)) {
        let head = head.rsplit([';', '}', '{']).next().unwrap_or_default();
        let mut words = head.split_whitespace();
        if words.next() == Some(keyword) {
            let body = rest[1..].split('}').next().unwrap_or_default();
            found.push((words.next().unwrap_or_default().to_owned(), body.to_owned()));
        }
    }
    found
}

/// The name that a member declaration declares: the last word before an array's bounds.
fn declared_name(declaration: &str) -> Option<&str> {
    let declaration = declaration.split('[').next()?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    declaration.split(|c| !is_part(c)).rfind(|word| !word.is_empty())
}

/// The names in an enum's body.
fn enumerators_of(body: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    // Commas inside a value, as those of a macro's arguments, separate nothing.
    let enumerators = body.split(move |c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    let names = enumerators.map(|one| one.split('=').next().unwrap_or_default().trim());
    names.filter(|name| !name.is_empty())
}

/// The names of object-like macros with a value.
fn defines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("#define")?.split_whitespace();
        let name = words.next().filter(|name| !name.contains('('))?;
        words.next().map(|_| name)
    })
}

#[test]
fn notices_what_is_left_out() {
    let header = Header {
        path: "x.h",
        structs: &[Layout { c_name: "a", size: 8, align: 4, fields: &[("r#type", 0, 4), ("pad", 4, 4)] }],
        constants: &[("KNOWN", 1, 4)],
        requests: &[],
        whole: true,
    };
    let text = "#ifndef X_H\n#define X_H\n/* struct no { int z; }; */\nstruct a {\n\t/** @b: x */\n\t__u32 type;\n\
                #define KNOWN 1\n#define F(x) x\n#define NEW \\\n 2\n\t__u8 *late[3];\n\t__u32 pad;\n};\n\
                enum e { ONE = F(1, 2), KNOWN = 1, };\nstruct b {\n\tint x;\n};\n";
    assert_eq!(
        missing(&header, text),
        ["field a.late", "struct b", "constant ONE", "constant NEW"].map(str::to_owned)
    );
    assert_eq!(missing(&Header { whole: false, ..header }, text), ["field a.late"].map(str::to_owned));
}

#[test]
fn takes_requests_apart() {
    use crate::Request as _;
    assert_eq!(command(panthor::VmBind::REQUEST), 0x43);
    assert_eq!(super::argument_size(panthor::VmBind::REQUEST), 24);
    assert_eq!(super::argument_size(drm::GemClose::REQUEST), 8);
    assert_eq!(super::argument_size(msm::VmBind::REQUEST), 88);
}

#[test]
fn one_operation_is_inline_and_several_are_pointed_at() {
    let op = |iova| msm::VmBindOp { op: msm::VM_BIND_OP_MAP, handle: 5, iova, ..Default::default() };
    let mut call = msm::VmBind::default();
    call.set_ops(&[op(1)]);
    assert_eq!((call.nr_ops, call.op), (1, op(1)));
    let two = [op(1), op(2)];
    call.set_ops(&two);
    assert_eq!((call.nr_ops, call.ops_address()), (2, two.as_ptr().addr() as u64));
    call.set_ops(&[]);
    assert_eq!((call.nr_ops, call.op), (0, msm::VmBindOp::default()));
}

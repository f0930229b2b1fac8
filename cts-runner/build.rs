//! Compiles the suite's GLSL to SPIR-V, one module a variant, and writes the table of modules that `gpu::shader` includes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// (module name, source file, definitions). A variant is the same source with other definitions.
const MODULES: &[(&str, &str, &[&str])] = &[
    ("FILL_STORAGE", "fill.comp", &["DST_STORAGE"]),
    ("FILL_TEXEL", "fill.comp", &["DST_TEXEL"]),
    ("FILL_ADDRESS", "fill.comp", &["DST_ADDRESS"]),
    ("COPY_STORAGE", "copy.comp", &["SRC_STORAGE"]),
    ("COPY_UNIFORM", "copy.comp", &["SRC_UNIFORM"]),
    ("COPY_UNIFORM_TEXEL", "copy.comp", &["SRC_UNIFORM_TEXEL"]),
    ("COPY_STORAGE_TEXEL", "copy.comp", &["SRC_STORAGE_TEXEL"]),
    ("COPY_ADDRESS", "copy.comp", &["SRC_ADDRESS"]),
    ("COUNT_GROUPS", "count_groups.comp", &[]),
    ("VERTEX_PULL", "draw.vert", &["FROM_ATTRIBUTE"]),
    ("VERTEX_INDEX", "draw.vert", &["FROM_INDEX"]),
    ("COMPARE_1D_UINT", "compare.comp", &["DIM_1D", "AS_UINT"]),
    ("COMPARE_2D_UINT", "compare.comp", &["DIM_2D", "AS_UINT"]),
    ("COMPARE_3D_UINT", "compare.comp", &["DIM_3D", "AS_UINT"]),
    ("COMPARE_1D_FLOAT", "compare.comp", &["DIM_1D", "AS_FLOAT"]),
    ("COMPARE_2D_FLOAT", "compare.comp", &["DIM_2D", "AS_FLOAT"]),
    ("COMPARE_3D_FLOAT", "compare.comp", &["DIM_3D", "AS_FLOAT"]),
    ("STORE_2D", "store.comp", &["DIM_2D"]),
    ("STORE_3D", "store.comp", &["DIM_3D"]),
    ("RESIDENCY_FETCH_2D", "residency.comp", &["DIM_2D", "OP_FETCH"]),
    ("RESIDENCY_FETCH_ARRAY", "residency.comp", &["DIM_ARRAY", "OP_FETCH"]),
    ("RESIDENCY_FETCH_3D", "residency.comp", &["DIM_3D", "OP_FETCH"]),
    ("RESIDENCY_SAMPLE_2D", "residency.comp", &["DIM_2D", "OP_SAMPLE"]),
    ("RESIDENCY_SAMPLE_ARRAY", "residency.comp", &["DIM_ARRAY", "OP_SAMPLE"]),
    ("RESIDENCY_SAMPLE_3D", "residency.comp", &["DIM_3D", "OP_SAMPLE"]),
    ("RESIDENCY_LOAD_2D", "residency.comp", &["DIM_2D", "OP_LOAD"]),
    ("RESIDENCY_LOAD_ARRAY", "residency.comp", &["DIM_ARRAY", "OP_LOAD"]),
    ("RESIDENCY_LOAD_3D", "residency.comp", &["DIM_3D", "OP_LOAD"]),
    ("RESIDENCY_COMPARE_2D", "residency.comp", &["DIM_2D", "OP_COMPARE"]),
];

fn main() {
    let sources = Path::new("../shaders/suite");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-env-changed=GLSLANG_VALIDATOR");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let compiler = std::env::var_os("GLSLANG_VALIDATOR").unwrap_or_else(|| "glslangValidator".into());
    let mut table = String::new();
    for (name, file, defines) in MODULES {
        let spirv = out.join(format!("{name}.spv"));
        let mut command = Command::new(&compiler);
        command.args(["-V", "--target-env", "vulkan1.2", "--quiet"]);
        command.args(defines.iter().map(|define| format!("-D{define}")));
        command.arg("-o").arg(&spirv).arg(sources.join(file));
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => refuse(&format!(
                "{file} ({name}) does not compile:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
            Err(error) => refuse(&format!(
                "cannot run {} ({error}): it compiles the test suite's shaders. Install the Debian package \
                 glslang-tools, or set GLSLANG_VALIDATOR to its path",
                Path::new(&compiler).display()
            )),
        }
        writeln!(
            table,
            "pub(crate) const {name}: Shader = Shader {{ name: {name:?}, code: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.spv\")) }};"
        )
        .expect("writing to a string does not fail");
    }
    if let Err(error) = std::fs::write(out.join("shaders.rs"), table) {
        refuse(&format!("cannot write {}: {error}", out.join("shaders.rs").display()));
    }
}

/// Ends the build with `message` alone: a panic would bury it under a backtrace.
fn refuse(message: &str) -> ! {
    for line in message.lines() {
        println!("cargo::error={line}");
    }
    exit(1)
}

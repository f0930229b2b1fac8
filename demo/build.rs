//! Compiles the demo's GLSL to SPIR-V.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};

const SHADERS: &[&str] = &["sky_and_ground.vert", "sky_and_ground.frag", "feedback.comp"];

fn main() {
    let sources = Path::new("../shaders/demo");
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-env-changed=GLSLANG_VALIDATOR");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let compiler = std::env::var_os("GLSLANG_VALIDATOR").unwrap_or_else(|| "glslangValidator".into());
    for shader in SHADERS {
        let mut command = Command::new(&compiler);
        command.args(["-V", "--target-env", "vulkan1.2", "--quiet"]);
        command.arg(format!("-I{}", sources.display()));
        command.arg("-o").arg(out.join(format!("{shader}.spv"))).arg(sources.join(shader));
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => refuse(&format!(
                "shaders/demo/{shader} does not compile:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
            Err(error) => refuse(&format!(
                "cannot run {} ({error}): it compiles the demo's shaders. Install the Debian package glslang-tools, \
                 or set GLSLANG_VALIDATOR to its path",
                Path::new(&compiler).display()
            )),
        }
    }
}

/// Ends the build with `message` alone: a panic would bury it under a backtrace.
fn refuse(message: &str) -> ! {
    for line in message.lines() {
        println!("cargo::error={line}");
    }
    exit(1)
}

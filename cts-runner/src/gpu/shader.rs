//! The suite's SPIR-V modules, compiled by `build.rs`.

/// A SPIR-V module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shader {
    pub(crate) name: &'static str,
    pub(crate) code: &'static [u8],
}

/// Every module of the suite.
pub(crate) mod shaders {
    use super::Shader;
    include!(concat!(env!("OUT_DIR"), "/shaders.rs"));
}

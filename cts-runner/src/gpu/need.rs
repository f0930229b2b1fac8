//! What a case needs from the implementation beyond `sparseBinding`, and how a device is asked for it.

use crate::outcome::{Called as _, Outcome, Stop};
use ash::vk;
use std::ffi::CStr;

/// A feature, property or extension; a case that names one answers NotSupported where it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    ResidencyBuffer,
    ResidencyImage2D,
    ResidencyImage3D,
    Aliased,
    /// `shaderResourceResidency`: shaders may ask whether a texel is resident.
    ShaderResidency,
    /// `residencyNonResidentStrict`: unbound reads are zero, unbound writes are dropped.
    Strict,
    /// `bufferDeviceAddress`.
    Address,
    Timeline,
    /// `vertexPipelineStoresAndAtomics`.
    VertexStores,
    /// BC formats.
    TextureBc,
    CubeArray,
    Ycbcr,
    Maintenance4,
    /// `synchronization2`.
    Synchronization2,
    ExternalMemoryFd,
    ExternalMemoryHost,
    ExternalSemaphoreFd,
    /// The device extensions whose entry points Vulkan 1.1 and 1.3 took over: their names are asked as well.
    Aliases,
    /// Two queues that take binds.
    TwoSparseQueues,
}

/// Features and extensions to enable, all of them supported.
#[derive(Default)]
pub(crate) struct Enable {
    pub(crate) core: vk::PhysicalDeviceFeatures,
    pub(crate) v11: vk::PhysicalDeviceVulkan11Features<'static>,
    pub(crate) v12: vk::PhysicalDeviceVulkan12Features<'static>,
    pub(crate) v13: vk::PhysicalDeviceVulkan13Features<'static>,
    pub(crate) extensions: Vec<&'static CStr>,
}

impl Enable {
    /// Finds out whether `physical` offers `sparseBinding` and all of `needs`.
    ///
    /// # Errors
    /// `NotSupported` names the first need that is not met.
    pub(crate) fn new(
        instance: &ash::Instance,
        physical: vk::PhysicalDevice,
        needs: &[Need],
    ) -> Outcome<Self> {
        let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
        let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
        let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
        let mut all = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut v11)
            .push_next(&mut v12)
            .push_next(&mut v13);
        // SAFETY: `physical` is the instance's; the chain consists of live structures that Vulkan 1.3 knows.
        unsafe { instance.get_physical_device_features2(physical, &mut all) };
        let core = all.features;
        // SAFETY: `physical` is the instance's.
        let properties = unsafe { instance.get_physical_device_properties(physical) };
        // SAFETY: as above.
        let extensions = unsafe { instance.enumerate_device_extension_properties(physical) }
            .called("vkEnumerateDeviceExtensionProperties")?;

        let mut enable = Self::default();
        require(core.sparse_binding, "sparseBinding")?;
        enable.core.sparse_binding = vk::TRUE;
        for need in needs {
            let on = &mut enable;
            match need {
                Need::ResidencyBuffer => {
                    require(core.sparse_residency_buffer, "sparseResidencyBuffer")?;
                    on.core.sparse_residency_buffer = vk::TRUE;
                }
                Need::ResidencyImage2D => {
                    require(core.sparse_residency_image2_d, "sparseResidencyImage2D")?;
                    on.core.sparse_residency_image2_d = vk::TRUE;
                }
                Need::ResidencyImage3D => {
                    require(core.sparse_residency_image3_d, "sparseResidencyImage3D")?;
                    on.core.sparse_residency_image3_d = vk::TRUE;
                }
                Need::Aliased => {
                    require(core.sparse_residency_aliased, "sparseResidencyAliased")?;
                    on.core.sparse_residency_aliased = vk::TRUE;
                }
                Need::ShaderResidency => {
                    require(core.shader_resource_residency, "shaderResourceResidency")?;
                    on.core.shader_resource_residency = vk::TRUE;
                }
                Need::Strict => {
                    require(
                        properties.sparse_properties.residency_non_resident_strict,
                        "residencyNonResidentStrict",
                    )?;
                }
                Need::Address => {
                    require(v12.buffer_device_address, "bufferDeviceAddress")?;
                    on.v12.buffer_device_address = vk::TRUE;
                }
                Need::Timeline => {
                    require(v12.timeline_semaphore, "timelineSemaphore")?;
                    on.v12.timeline_semaphore = vk::TRUE;
                }
                Need::VertexStores => {
                    require(core.vertex_pipeline_stores_and_atomics, "vertexPipelineStoresAndAtomics")?;
                    on.core.vertex_pipeline_stores_and_atomics = vk::TRUE;
                    require(core.draw_indirect_first_instance, "drawIndirectFirstInstance")?;
                    on.core.draw_indirect_first_instance = vk::TRUE;
                }
                Need::TextureBc => {
                    require(core.texture_compression_bc, "textureCompressionBC")?;
                    on.core.texture_compression_bc = vk::TRUE;
                }
                Need::CubeArray => {
                    require(core.image_cube_array, "imageCubeArray")?;
                    on.core.image_cube_array = vk::TRUE;
                }
                Need::Ycbcr => {
                    require(v11.sampler_ycbcr_conversion, "samplerYcbcrConversion")?;
                    on.v11.sampler_ycbcr_conversion = vk::TRUE;
                }
                Need::Synchronization2 => {
                    require(v13.synchronization2, "synchronization2")?;
                    on.v13.synchronization2 = vk::TRUE;
                }
                Need::Maintenance4 => {
                    require(v13.maintenance4, "maintenance4")?;
                    on.v13.maintenance4 = vk::TRUE;
                }
                Need::ExternalMemoryFd => on.extension(&extensions, ash::khr::external_memory_fd::NAME)?,
                Need::ExternalMemoryHost => {
                    on.extension(&extensions, ash::ext::external_memory_host::NAME)?
                }
                Need::ExternalSemaphoreFd => {
                    on.extension(&extensions, ash::khr::external_semaphore_fd::NAME)?
                }
                Need::Aliases => {
                    on.extension(&extensions, ash::khr::get_memory_requirements2::NAME)?;
                    on.extension(&extensions, ash::khr::maintenance4::NAME)?;
                }
                Need::TwoSparseQueues => {}
            }
        }
        Ok(enable)
    }

    fn extension(&mut self, offered: &[vk::ExtensionProperties], name: &'static CStr) -> Outcome {
        let found = offered.iter().any(|extension| extension.extension_name_as_c_str() == Ok(name));
        require(u32::from(found), &name.to_string_lossy())?;
        self.extensions.push(name);
        Ok(())
    }
}

fn require(offered: vk::Bool32, name: &str) -> Outcome {
    if offered == vk::TRUE { Ok(()) } else { Err(Stop::NotSupported(format!("{name} is not offered"))) }
}

//! Shaders on their way to the driver: where the application uses residency codes, every module is looked at, wherever it is handed in.

use crate::arrays::slice;
use crate::chain::{self, ChainCopy};
use crate::device::{self, Sparse, on_device};
use crate::spirv;
use ash::vk;
use core::ffi::CStr;
use std::sync::Once;

/// What the driver gets instead of a module that it would get wrong; `None` for all others.
///
/// # Safety
/// `code` is a module of `size` bytes.
unsafe fn replacement(call: &str, code: *const u32, size: usize) -> Option<Vec<u32>> {
    // SAFETY: the caller's promise; the specification wants whole, aligned words.
    let code = unsafe { slice(code, u32::try_from(size / 4).ok()?) };
    let edited = spirv::edit(code)?;
    static SAID: Once = Once::new();
    if edited.texel_buffers {
        SAID.call_once(|| {
            tracing::warn!(
                "{call}: the driver keeps no residency of texel buffers: sparse reads of them always say \"resident\""
            );
        });
    }
    Some(edited.code)
}

/// Where the driver's residency codes are right, or not asked for, there is no shader to look at.
fn has_codes(sparse: Option<&Sparse>) -> bool {
    sparse.is_some_and(|sparse| {
        sparse.icd.rewrites_shaders() && sparse.features.shader_resource_residency == vk::TRUE
    })
}

pub(crate) unsafe extern "system" fn create_shader_module(
    device: vk::Device,
    info: *const vk::ShaderModuleCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    module: *mut vk::ShaderModule,
) -> vk::Result {
    const CALL: &str = "vkCreateShaderModule";
    on_device(device, CALL, |d, sparse| {
        // SAFETY: the application's valid arguments.
        let mut edited = unsafe { *info };
        let code = has_codes(sparse)
            // SAFETY: as above.
            .then(|| unsafe { replacement(CALL, edited.p_code, edited.code_size) })
            .flatten();
        if let Some(code) = &code {
            edited = edited.code(code);
        }
        // SAFETY: as above, edited; `code` lives until the call has returned.
        unsafe { (d.next.fp_v1_0().create_shader_module)(device, &raw const edited, allocator, module) }
    })
}

/// A pipeline's create info with its shader stages.
trait Pipeline<'a>: Copy {
    /// # Safety
    /// The create info is valid with everything it points to.
    unsafe fn stages(&self) -> &[vk::PipelineShaderStageCreateInfo<'a>];

    /// Points at other stages, as many as there were.
    fn set_stages(&mut self, stages: &[vk::PipelineShaderStageCreateInfo<'a>]);
}

impl<'a> Pipeline<'a> for vk::ComputePipelineCreateInfo<'a> {
    unsafe fn stages(&self) -> &[vk::PipelineShaderStageCreateInfo<'a>] {
        core::slice::from_ref(&self.stage)
    }
    fn set_stages(&mut self, stages: &[vk::PipelineShaderStageCreateInfo<'a>]) {
        self.stage = stages[0];
    }
}

impl<'a> Pipeline<'a> for vk::GraphicsPipelineCreateInfo<'a> {
    unsafe fn stages(&self) -> &[vk::PipelineShaderStageCreateInfo<'a>] {
        // SAFETY: the caller's promise.
        unsafe { slice(self.p_stages, self.stage_count) }
    }
    fn set_stages(&mut self, stages: &[vk::PipelineShaderStageCreateInfo<'a>]) {
        self.p_stages = stages.as_ptr();
    }
}

impl<'a> Pipeline<'a> for vk::RayTracingPipelineCreateInfoKHR<'a> {
    unsafe fn stages(&self) -> &[vk::PipelineShaderStageCreateInfo<'a>] {
        // SAFETY: the caller's promise.
        unsafe { slice(self.p_stages, self.stage_count) }
    }
    fn set_stages(&mut self, stages: &[vk::PipelineShaderStageCreateInfo<'a>]) {
        self.p_stages = stages.as_ptr();
    }
}

/// Create infos of pipelines whose stages bring modules along, with everything that was replaced in them.
struct Edited<'a, P> {
    infos: Vec<P>,
    _stages: Vec<Vec<vk::PipelineShaderStageCreateInfo<'a>>>,
    _modules: Vec<(ChainCopy, Vec<u32>)>,
}

impl<'a, P: Pipeline<'a>> Edited<'a, P> {
    /// `None` when no stage brings a module that must be replaced.
    ///
    /// # Safety
    /// The create infos are valid with everything they point to.
    unsafe fn new(call: &str, infos: &[P]) -> Option<Self> {
        let mut edited = Self { infos: infos.to_vec(), _stages: Vec::new(), _modules: Vec::new() };
        for (info, copy) in infos.iter().zip(&mut edited.infos) {
            // SAFETY: the caller's promise.
            let stages = unsafe { info.stages() };
            let mut replaced: Option<Vec<_>> = None;
            for (number, stage) in stages.iter().enumerate() {
                // SAFETY: as above.
                let Some((mut chain, code)) = (unsafe { inline_module(call, stage) }) else { continue };
                if let Some(module) = chain.get_mut::<vk::ShaderModuleCreateInfo<'_>>() {
                    module.p_code = code.as_ptr();
                    module.code_size = size_of_val(code.as_slice());
                }
                replaced.get_or_insert_with(|| stages.to_vec())[number].p_next = chain.as_ptr();
                edited._modules.push((chain, code));
            }
            if let Some(stages) = replaced {
                copy.set_stages(&stages);
                edited._stages.push(stages);
            }
        }
        (!edited._modules.is_empty()).then_some(edited)
    }
}

/// The replacement of a module that a stage brings along in its chain, and a copy of the chain to put it into.
///
/// # Safety
/// The stage is valid with everything it points to.
unsafe fn inline_module(
    call: &str,
    stage: &vk::PipelineShaderStageCreateInfo<'_>,
) -> Option<(ChainCopy, Vec<u32>)> {
    if stage.module != vk::ShaderModule::null() {
        return None;
    }
    // SAFETY: the caller's promise, here and below.
    unsafe {
        let module = chain::find::<vk::ShaderModuleCreateInfo<'_>>(stage.p_next)?;
        let code = replacement(call, module.p_code, module.code_size)?;
        Some((ChainCopy::new_until(stage.p_next, &[vk::StructureType::SHADER_MODULE_CREATE_INFO]), code))
    }
}

/// Makes pipelines through `create`, which is handed the create infos to use.
///
/// # Safety
/// `infos` is an array of `count` create infos, valid with everything they point to.
unsafe fn create_pipelines<'a, P: Pipeline<'a>>(
    call: &str,
    sparse: Option<&Sparse>,
    infos: *const P,
    count: u32,
    create: impl FnOnce(*const P) -> vk::Result,
) -> vk::Result {
    // SAFETY: the caller's promise.
    let edited = has_codes(sparse).then(|| unsafe { Edited::new(call, slice(infos, count)) }).flatten();
    create(edited.as_ref().map_or(infos, |edited| edited.infos.as_ptr()))
}

pub(crate) unsafe extern "system" fn create_compute_pipelines(
    device: vk::Device,
    cache: vk::PipelineCache,
    count: u32,
    infos: *const vk::ComputePipelineCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    pipelines: *mut vk::Pipeline,
) -> vk::Result {
    const CALL: &str = "vkCreateComputePipelines";
    on_device(device, CALL, |d, sparse| {
        let next = d.next.fp_v1_0().create_compute_pipelines;
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            create_pipelines(CALL, sparse, infos, count, |infos| {
                next(device, cache, count, infos, allocator, pipelines)
            })
        }
    })
}

pub(crate) unsafe extern "system" fn create_graphics_pipelines(
    device: vk::Device,
    cache: vk::PipelineCache,
    count: u32,
    infos: *const vk::GraphicsPipelineCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    pipelines: *mut vk::Pipeline,
) -> vk::Result {
    const CALL: &str = "vkCreateGraphicsPipelines";
    on_device(device, CALL, |d, sparse| {
        let next = d.next.fp_v1_0().create_graphics_pipelines;
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            create_pipelines(CALL, sparse, infos, count, |infos| {
                next(device, cache, count, infos, allocator, pipelines)
            })
        }
    })
}

pub(crate) unsafe extern "system" fn create_ray_tracing_pipelines_khr(
    device: vk::Device,
    operation: vk::DeferredOperationKHR,
    cache: vk::PipelineCache,
    count: u32,
    infos: *const vk::RayTracingPipelineCreateInfoKHR<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    pipelines: *mut vk::Pipeline,
) -> vk::Result {
    const CALL: &CStr = c"vkCreateRayTracingPipelinesKHR";
    let call = "vkCreateRayTracingPipelinesKHR";
    on_device(device, call, |_, sparse| {
        let (Some(next), _) = device::next_proc_addr(device, CALL.as_ptr()) else {
            return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
        };
        // SAFETY: the driver's function of this name.
        let next = unsafe {
            core::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkCreateRayTracingPipelinesKHR>(next)
        };
        // The driver does not put compilation off: what is handed to it need not outlive the call.
        // SAFETY: the application's valid arguments, handed on.
        unsafe {
            create_pipelines(call, sparse, infos, count, |infos| {
                next(device, operation, cache, count, infos, allocator, pipelines)
            })
        }
    })
}

pub(crate) unsafe extern "system" fn create_shaders_ext(
    device: vk::Device,
    count: u32,
    infos: *const vk::ShaderCreateInfoEXT<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    shaders: *mut vk::ShaderEXT,
) -> vk::Result {
    const CALL: &CStr = c"vkCreateShadersEXT";
    let call = "vkCreateShadersEXT";
    on_device(device, call, |_, sparse| {
        let (Some(next), _) = device::next_proc_addr(device, CALL.as_ptr()) else {
            return vk::Result::ERROR_EXTENSION_NOT_PRESENT;
        };
        // SAFETY: the driver's function of this name.
        let next =
            unsafe { core::mem::transmute::<unsafe extern "system" fn(), vk::PFN_vkCreateShadersEXT>(next) };
        // SAFETY: the application's valid arguments.
        let given = unsafe { slice(infos, count) };
        let codes: Vec<Option<Vec<u32>>> = given
            .iter()
            .map(|info| {
                let readable = has_codes(sparse) && info.code_type == vk::ShaderCodeTypeEXT::SPIRV;
                // SAFETY: as above.
                readable.then(|| unsafe { replacement(call, info.p_code.cast(), info.code_size) })?
            })
            .collect();
        let edited: Vec<_> = given
            .iter()
            .zip(&codes)
            .map(|(info, code)| match code {
                Some(code) => vk::ShaderCreateInfoEXT {
                    p_code: code.as_ptr().cast(),
                    code_size: size_of_val(code.as_slice()),
                    ..*info
                },
                None => *info,
            })
            .collect();
        // SAFETY: as above, edited; `codes` lives until the call has returned.
        unsafe { next(device, count, edited.as_ptr(), allocator, shaders) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spirv::tests::{right_module, wrong_module};

    /// The code that a stage brings along, and the subgroup size that is chained behind it.
    fn inline(stage: &vk::PipelineShaderStageCreateInfo<'_>) -> (Vec<u32>, Option<u32>) {
        // SAFETY: the chains of these tests are alive.
        unsafe {
            let module = chain::find::<vk::ShaderModuleCreateInfo<'_>>(stage.p_next).unwrap();
            let size = chain::find::<vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo<'_>>(stage.p_next);
            let code = slice(module.p_code, (module.code_size / 4) as u32).to_vec();
            (code, size.map(|size| size.required_subgroup_size))
        }
    }

    #[test]
    fn modules_in_stages_are_replaced_in_a_copy() {
        let (wrong, right) = (wrong_module(), right_module());
        let mut size = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo {
            required_subgroup_size: 8,
            ..Default::default()
        };
        let mut wrong_info = vk::ShaderModuleCreateInfo::default().code(&wrong);
        let mut right_info = vk::ShaderModuleCreateInfo::default().code(&right);
        let stages = [
            vk::PipelineShaderStageCreateInfo::default().push_next(&mut right_info),
            vk::PipelineShaderStageCreateInfo::default().push_next(&mut size).push_next(&mut wrong_info),
        ];
        let graphics = [
            vk::GraphicsPipelineCreateInfo::default().stages(&stages[..1]),
            vk::GraphicsPipelineCreateInfo::default().stages(&stages),
        ];
        // SAFETY: everything is alive.
        let edited = unsafe { Edited::new("test", &graphics) }.unwrap();
        assert_eq!(edited.infos[0].p_stages, graphics[0].p_stages);
        // SAFETY: as above.
        let replaced = unsafe { Pipeline::stages(&edited.infos[1]) };
        assert_eq!(inline(&replaced[0]), (right.clone(), None));
        assert_eq!(inline(&replaced[1]), (spirv::edit(&wrong).unwrap().code, Some(8)));
        assert_eq!(inline(&stages[1]), (wrong.clone(), Some(8)));

        let compute = [vk::ComputePipelineCreateInfo::default().stage(stages[1])];
        // SAFETY: as above.
        let edited = unsafe { Edited::new("test", &compute) }.unwrap();
        assert_eq!(inline(&edited.infos[0].stage).0, spirv::edit(&wrong).unwrap().code);
    }

    #[test]
    fn pipelines_that_need_no_edit_are_not_copied() {
        let right = right_module();
        let mut info = vk::ShaderModuleCreateInfo::default().code(&right);
        let stage = vk::PipelineShaderStageCreateInfo::default().push_next(&mut info);
        let pipelines = [vk::ComputePipelineCreateInfo::default().stage(stage)];
        // SAFETY: everything is alive.
        assert!(unsafe { Edited::new("test", &pipelines) }.is_none());
    }
}

//! Compute dispatches.

use super::{Gpu, Owned, Shader};
use crate::outcome::{Called as _, Outcome};
use ash::vk;
use std::sync::PoisonError;

/// What a binding of descriptor set 0 holds; the binding's number is the place in the list.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// Buffer, offset, range in bytes.
    Storage(vk::Buffer, u64, u64),
    Uniform(vk::Buffer, u64, u64),
    UniformTexel(vk::BufferView),
    StorageTexel(vk::BufferView),
    /// With a nearest sampler, in layout GENERAL.
    Sampled(vk::ImageView),
    /// As [`Sampled`](Self::Sampled), with a sampler that answers whether the reference is less or equal.
    Compared(vk::ImageView),
    StorageImage(vk::ImageView),
}

impl Bound {
    fn descriptor_type(self) -> vk::DescriptorType {
        match self {
            Self::Storage(..) => vk::DescriptorType::STORAGE_BUFFER,
            Self::Uniform(..) => vk::DescriptorType::UNIFORM_BUFFER,
            Self::UniformTexel(_) => vk::DescriptorType::UNIFORM_TEXEL_BUFFER,
            Self::StorageTexel(_) => vk::DescriptorType::STORAGE_TEXEL_BUFFER,
            Self::Sampled(_) | Self::Compared(_) => vk::DescriptorType::COMBINED_IMAGE_SAMPLER,
            Self::StorageImage(_) => vk::DescriptorType::STORAGE_IMAGE,
        }
    }
}

/// How many workgroups run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Groups {
    Direct([u32; 3]),
    /// `VkDispatchIndirectCommand` in a buffer at an offset.
    Indirect(vk::Buffer, u64),
}

/// One dispatch with its resources and push constants.
pub(crate) struct Dispatch {
    pub(crate) shader: Shader,
    pub(crate) bound: Vec<Bound>,
    pub(crate) push: Vec<u32>,
    pub(crate) groups: Groups,
}

impl Dispatch {
    pub(crate) fn new(shader: Shader, bound: Vec<Bound>, push: Vec<u32>, groups: [u32; 3]) -> Self {
        Self { shader, bound, push, groups: Groups::Direct(groups) }
    }

    pub(crate) fn indirect(
        shader: Shader,
        bound: Vec<Bound>,
        push: Vec<u32>,
        buffer: vk::Buffer,
        at: u64,
    ) -> Self {
        Self { shader, bound, push, groups: Groups::Indirect(buffer, at) }
    }
}

/// A compute pipeline with what its descriptor sets look like.
#[derive(Clone, Copy)]
pub(crate) struct Pipeline {
    pub(super) set_layout: vk::DescriptorSetLayout,
    pub(super) layout: vk::PipelineLayout,
    pub(super) handle: vk::Pipeline,
}

/// Bytes of push constants that every layout declares: what the largest shader of the suite takes.
pub(super) const PUSH_BYTES: u32 = 32;

impl Gpu {
    /// Runs dispatches one after another in one command buffer and waits.
    pub(crate) fn dispatch(&self, dispatches: &[Dispatch]) -> Outcome {
        let prepared = self.prepare(dispatches)?;
        self.run(|command| self.record_dispatches(command, dispatches, &prepared.sets))?;
        self.destroy(Owned::DescriptorPool(prepared.pool));
        Ok(())
    }

    /// Pipelines and descriptor sets for `dispatches`, to be recorded later.
    pub(crate) fn prepare(&self, dispatches: &[Dispatch]) -> Outcome<Prepared> {
        let pool = self.descriptor_pool(dispatches.iter().map(|dispatch| &dispatch.bound[..]))?;
        let sets = dispatches
            .iter()
            .map(|dispatch| {
                let pipeline = self.compute_pipeline(dispatch)?;
                Ok((pipeline, self.descriptor_set(pool, pipeline.set_layout, &dispatch.bound)?))
            })
            .collect::<Outcome<_>>()?;
        Ok(Prepared { pool, sets })
    }

    /// Records prepared dispatches, with a barrier after each.
    pub(crate) fn record_dispatches(
        &self,
        command: vk::CommandBuffer,
        dispatches: &[Dispatch],
        sets: &[(Pipeline, vk::DescriptorSet)],
    ) {
        for (dispatch, (pipeline, set)) in dispatches.iter().zip(sets) {
            let push = super::memory::to_bytes(&dispatch.push);
            // SAFETY: the command buffer is recording; pipeline, set and buffers are this device's and alive.
            unsafe {
                let point = vk::PipelineBindPoint::COMPUTE;
                self.raw.cmd_bind_pipeline(command, point, pipeline.handle);
                self.raw.cmd_bind_descriptor_sets(command, point, pipeline.layout, 0, &[*set], &[]);
                if !push.is_empty() {
                    let stages = vk::ShaderStageFlags::COMPUTE;
                    self.raw.cmd_push_constants(command, pipeline.layout, stages, 0, &push);
                }
                match dispatch.groups {
                    Groups::Direct([x, y, z]) => self.raw.cmd_dispatch(command, x, y, z),
                    Groups::Indirect(buffer, offset) => {
                        self.raw.cmd_dispatch_indirect(command, buffer, offset)
                    }
                }
            }
            self.barrier(command);
        }
    }

    fn compute_pipeline(&self, dispatch: &Dispatch) -> Outcome<Pipeline> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(dispatch.shader.name) {
            return Ok(*pipeline);
        }
        let stage = vk::ShaderStageFlags::COMPUTE;
        let (set_layout, layout) = self.layouts(&dispatch.bound, stage)?;
        let module = self.shader_module(dispatch.shader)?;
        let stage = vk::PipelineShaderStageCreateInfo::default().stage(stage).module(module).name(c"main");
        let info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout);
        // SAFETY: module and layout are this device's; the module may go once the pipeline is there.
        let result = unsafe {
            let result = self.raw.create_compute_pipelines(vk::PipelineCache::null(), &[info], None);
            self.raw.destroy_shader_module(module, None);
            result
        };
        let handle = result.map_err(|(_, error)| error).called("vkCreateComputePipelines")?[0];
        self.own(Owned::Pipeline(handle));
        let pipeline = Pipeline { set_layout, layout, handle };
        pipelines.insert(dispatch.shader.name, pipeline);
        Ok(pipeline)
    }

    pub(super) fn shader_module(&self, shader: Shader) -> Outcome<vk::ShaderModule> {
        let code = super::memory::to_words(shader.code);
        // SAFETY: the code is glslang's output.
        unsafe { self.raw.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&code), None) }
            .called("vkCreateShaderModule")
    }

    pub(super) fn layouts(
        &self,
        bound: &[Bound],
        stage: vk::ShaderStageFlags,
    ) -> Outcome<(vk::DescriptorSetLayout, vk::PipelineLayout)> {
        let bindings: Vec<_> = bound
            .iter()
            .enumerate()
            .map(|(index, bound)| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(index as u32)
                    .descriptor_type(bound.descriptor_type())
                    .descriptor_count(1)
                    .stage_flags(stage)
            })
            .collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: the structures live until the call returns.
        let set_layout = unsafe { self.raw.create_descriptor_set_layout(&info, None) }
            .called("vkCreateDescriptorSetLayout")?;
        self.own(Owned::DescriptorSetLayout(set_layout));
        let (sets, ranges) =
            ([set_layout], [vk::PushConstantRange { stage_flags: stage, offset: 0, size: PUSH_BYTES }]);
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets).push_constant_ranges(&ranges);
        // SAFETY: as above.
        let layout =
            unsafe { self.raw.create_pipeline_layout(&info, None) }.called("vkCreatePipelineLayout")?;
        self.own(Owned::PipelineLayout(layout));
        Ok((set_layout, layout))
    }

    pub(super) fn descriptor_pool<'a>(
        &self,
        sets: impl Iterator<Item = &'a [Bound]>,
    ) -> Outcome<vk::DescriptorPool> {
        let mut sizes: Vec<vk::DescriptorPoolSize> = Vec::new();
        let mut count = 0;
        for bound in sets {
            count += 1;
            for bound in bound {
                let ty = bound.descriptor_type();
                match sizes.iter_mut().find(|size| size.ty == ty) {
                    Some(size) => size.descriptor_count += 1,
                    None => sizes.push(vk::DescriptorPoolSize { ty, descriptor_count: 1 }),
                }
            }
        }
        let info = vk::DescriptorPoolCreateInfo::default().max_sets(count).pool_sizes(&sizes);
        // SAFETY: the structures live until the call returns.
        let pool =
            unsafe { self.raw.create_descriptor_pool(&info, None) }.called("vkCreateDescriptorPool")?;
        self.own(Owned::DescriptorPool(pool));
        Ok(pool)
    }

    pub(super) fn descriptor_set(
        &self,
        pool: vk::DescriptorPool,
        layout: vk::DescriptorSetLayout,
        bound: &[Bound],
    ) -> Outcome<vk::DescriptorSet> {
        let layouts = [layout];
        let info = vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts);
        // SAFETY: pool and layout are this device's.
        let set = unsafe { self.raw.allocate_descriptor_sets(&info) }.called("vkAllocateDescriptorSets")?[0];
        for (index, &bound) in bound.iter().enumerate() {
            let (mut buffers, mut images, mut views) = (
                [vk::DescriptorBufferInfo::default()],
                [vk::DescriptorImageInfo::default()],
                [vk::BufferView::null()],
            );
            let mut write = vk::WriteDescriptorSet::default()
                .dst_set(set)
                .dst_binding(index as u32)
                .descriptor_type(bound.descriptor_type());
            match bound {
                Bound::Storage(buffer, offset, range) | Bound::Uniform(buffer, offset, range) => {
                    buffers = [vk::DescriptorBufferInfo { buffer, offset, range }];
                    write = write.buffer_info(&buffers);
                }
                Bound::UniformTexel(view) | Bound::StorageTexel(view) => {
                    views = [view];
                    write = write.texel_buffer_view(&views);
                }
                Bound::Sampled(view) | Bound::Compared(view) | Bound::StorageImage(view) => {
                    let compares = matches!(bound, Bound::Compared(_));
                    images = [vk::DescriptorImageInfo {
                        sampler: if compares { self.comparing_sampler } else { self.sampler },
                        image_view: view,
                        image_layout: vk::ImageLayout::GENERAL,
                    }];
                    write = write.image_info(&images);
                }
            }
            // SAFETY: the set is new and the arrays live until the call returns.
            unsafe { self.raw.update_descriptor_sets(&[write], &[]) };
            let _ = (&mut buffers, &mut images, &mut views);
        }
        Ok(set)
    }
}

/// Descriptor sets of dispatches that are recorded later.
pub(crate) struct Prepared {
    pub(crate) pool: vk::DescriptorPool,
    pub(crate) sets: Vec<(Pipeline, vk::DescriptorSet)>,
}

//! Draws without a picture: vertex shaders that write to a buffer what the vertex input fetched.

use super::{Bound, Gpu, Owned, Shader};
use crate::outcome::{Called as _, Outcome};
use ash::vk;

/// Where a draw's fixed-function inputs come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum VertexInput {
    /// One R32_UINT attribute from this buffer at location 0.
    Attribute(vk::Buffer),
    /// 32-bit indices from this buffer.
    Index(vk::Buffer),
}

/// One draw call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Draw {
    /// Vertices from `first` on.
    Vertices { first: u32, count: u32 },
    /// One index, seen by the shader as instance `instance`.
    OneIndex { index: u32, instance: u32 },
}

impl Gpu {
    /// Draws points with `shader`, whose storage buffer is `result`, and waits.
    pub(crate) fn draw(&self, shader: Shader, input: VertexInput, result: Bound, draws: &[Draw]) -> Outcome {
        let bound = [result];
        let stage = vk::ShaderStageFlags::VERTEX;
        let (set_layout, layout) = self.layouts(&bound, stage)?;
        let pool = self.descriptor_pool(std::iter::once(&bound[..]))?;
        let set = self.descriptor_set(pool, set_layout, &bound)?;
        let extent = vk::Extent2D { width: 1, height: 1 };
        let subpasses =
            [vk::SubpassDescription::default().pipeline_bind_point(vk::PipelineBindPoint::GRAPHICS)];
        let info = vk::RenderPassCreateInfo::default().subpasses(&subpasses);
        // SAFETY: the structures live until the call returns.
        let pass = unsafe { self.raw.create_render_pass(&info, None) }.called("vkCreateRenderPass")?;
        self.own(Owned::RenderPass(pass));
        let info = vk::FramebufferCreateInfo::default()
            .render_pass(pass)
            .width(extent.width)
            .height(extent.height)
            .layers(1);
        // SAFETY: the render pass is this device's and has no attachment.
        let framebuffer =
            unsafe { self.raw.create_framebuffer(&info, None) }.called("vkCreateFramebuffer")?;
        self.own(Owned::Framebuffer(framebuffer));
        let pipeline = self.point_pipeline(shader, input, layout, pass)?;
        self.run(|command| {
            let begin = vk::RenderPassBeginInfo::default()
                .render_pass(pass)
                .framebuffer(framebuffer)
                .render_area(vk::Rect2D { offset: vk::Offset2D::default(), extent });
            let point = vk::PipelineBindPoint::GRAPHICS;
            // SAFETY: the command buffer is recording; everything bound is this device's and alive.
            unsafe {
                self.raw.cmd_begin_render_pass(command, &begin, vk::SubpassContents::INLINE);
                self.raw.cmd_bind_pipeline(command, point, pipeline);
                self.raw.cmd_bind_descriptor_sets(command, point, layout, 0, &[set], &[]);
                match input {
                    VertexInput::Attribute(buffer) => {
                        self.raw.cmd_bind_vertex_buffers(command, 0, &[buffer], &[0]);
                    }
                    VertexInput::Index(buffer) => {
                        self.raw.cmd_bind_index_buffer(command, buffer, 0, vk::IndexType::UINT32);
                    }
                }
                for draw in draws {
                    match *draw {
                        Draw::Vertices { first, count } => self.raw.cmd_draw(command, count, 1, first, 0),
                        Draw::OneIndex { index, instance } => {
                            self.raw.cmd_draw_indexed(command, 1, 1, index, 0, instance);
                        }
                    }
                }
                self.raw.cmd_end_render_pass(command);
            }
        })
    }

    fn point_pipeline(
        &self,
        shader: Shader,
        input: VertexInput,
        layout: vk::PipelineLayout,
        pass: vk::RenderPass,
    ) -> Outcome<vk::Pipeline> {
        let module = self.shader_module(shader)?;
        let stages = [vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::VERTEX)
            .module(module)
            .name(c"main")];
        let bindings = [vk::VertexInputBindingDescription::default().stride(4)];
        let attributes = [vk::VertexInputAttributeDescription::default().format(vk::Format::R32_UINT)];
        let mut vertex = vk::PipelineVertexInputStateCreateInfo::default();
        if matches!(input, VertexInput::Attribute(_)) {
            vertex = vertex.vertex_binding_descriptions(&bindings).vertex_attribute_descriptions(&attributes);
        }
        let assembly =
            vk::PipelineInputAssemblyStateCreateInfo::default().topology(vk::PrimitiveTopology::POINT_LIST);
        let raster = vk::PipelineRasterizationStateCreateInfo::default()
            .rasterizer_discard_enable(true)
            .line_width(1.0);
        let info = vk::GraphicsPipelineCreateInfo::default()
            .stages(&stages)
            .vertex_input_state(&vertex)
            .input_assembly_state(&assembly)
            .rasterization_state(&raster)
            .layout(layout)
            .render_pass(pass);
        // SAFETY: the structures live until the call returns; the module may go once the pipeline is there.
        let result = unsafe {
            let result = self.raw.create_graphics_pipelines(vk::PipelineCache::null(), &[info], None);
            self.raw.destroy_shader_module(module, None);
            result
        };
        let pipeline = result.map_err(|(_, error)| error).called("vkCreateGraphicsPipelines")?[0];
        self.own(Owned::Pipeline(pipeline));
        Ok(pipeline)
    }
}

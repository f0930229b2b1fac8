//! The two passes over a view: the feedback that finds out which tiles it wants, and the picture.

use anyhow::Result;
use ash::vk;

use crate::camera::Camera;
use crate::gpu::{FORMAT, Gpu, HostBuffer, Image, transition};
use crate::pool::{Layout, Tile};
use crate::texture::{Texture, record_host_read};

/// The feedback pass looks at one pixel of every square of this side.
const FEEDBACK_STEP: u32 = 4;
/// Answer of the feedback pass for a pixel of sky.
const NO_TILE: u32 = u32::MAX;

/// What both passes are told, as `View` in shaders/demo/view.glsl.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct View {
    eye: [f32; 4],
    right: [f32; 4],
    up: [f32; 4],
    forward: [f32; 4],
    sun: [f32; 4],
    grid: [u32; 4],
}

/// Pipelines, the picture and the buffers it travels through.
pub(crate) struct Renderer {
    extent: vk::Extent2D,
    feedback_extent: vk::Extent2D,
    layout: Layout,
    set_layout: vk::DescriptorSetLayout,
    descriptor_pool: vk::DescriptorPool,
    set: vk::DescriptorSet,
    pipeline_layout: vk::PipelineLayout,
    feedback_pipeline: vk::Pipeline,
    picture_pipeline: vk::Pipeline,
    trilinear: vk::Sampler,
    nearest: vk::Sampler,
    picture: Image,
    residency: Image,
    residency_upload: HostBuffer,
    feedback: HostBuffer,
    readback: HostBuffer,
}

impl Renderer {
    pub(crate) fn new(gpu: &Gpu, texture: &Texture, width: u32, height: u32) -> Result<Self> {
        let layout = texture.layout;
        let extent = vk::Extent2D { width, height };
        let feedback_extent =
            vk::Extent2D { width: width.div_ceil(FEEDBACK_STEP), height: height.div_ceil(FEEDBACK_STEP) };
        let cells = layout.tiles(0);
        let device = &gpu.device;
        let stages = vk::ShaderStageFlags::FRAGMENT | vk::ShaderStageFlags::COMPUTE;
        let binding = |index, kind| {
            vk::DescriptorSetLayoutBinding::default()
                .binding(index)
                .descriptor_type(kind)
                .descriptor_count(1)
                .stage_flags(stages)
        };
        let bindings = [
            binding(0, vk::DescriptorType::COMBINED_IMAGE_SAMPLER),
            binding(1, vk::DescriptorType::COMBINED_IMAGE_SAMPLER),
            binding(2, vk::DescriptorType::STORAGE_BUFFER).stage_flags(vk::ShaderStageFlags::COMPUTE),
        ];
        let sizes = [
            vk::DescriptorPoolSize { ty: vk::DescriptorType::COMBINED_IMAGE_SAMPLER, descriptor_count: 2 },
            vk::DescriptorPoolSize { ty: vk::DescriptorType::STORAGE_BUFFER, descriptor_count: 1 },
        ];
        let ranges =
            [vk::PushConstantRange { stage_flags: stages, offset: 0, size: size_of::<View>() as u32 }];
        let nearest = vk::SamplerCreateInfo::default();
        let trilinear = vk::SamplerCreateInfo::default()
            .min_filter(vk::Filter::LINEAR)
            .mag_filter(vk::Filter::LINEAR)
            .mipmap_mode(vk::SamplerMipmapMode::LINEAR)
            .address_mode_u(vk::SamplerAddressMode::REPEAT)
            .address_mode_v(vk::SamplerAddressMode::REPEAT)
            .max_lod(vk::LOD_CLAMP_NONE);
        // SAFETY: plain creation of objects of one device; every structure lives through its call.
        let (set_layout, descriptor_pool, set, pipeline_layout, trilinear, nearest) = unsafe {
            let set_layout = device.create_descriptor_set_layout(
                &vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings),
                None,
            )?;
            let set_layouts = [set_layout];
            let pool = device.create_descriptor_pool(
                &vk::DescriptorPoolCreateInfo::default().max_sets(1).pool_sizes(&sizes),
                None,
            )?;
            let sets = device.allocate_descriptor_sets(
                &vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&set_layouts),
            )?;
            let pipeline_layout = device.create_pipeline_layout(
                &vk::PipelineLayoutCreateInfo::default()
                    .set_layouts(&set_layouts)
                    .push_constant_ranges(&ranges),
                None,
            )?;
            let trilinear = device.create_sampler(&trilinear, None)?;
            (set_layout, pool, sets[0], pipeline_layout, trilinear, device.create_sampler(&nearest, None)?)
        };
        let (feedback_pipeline, picture_pipeline) = pipelines(device, pipeline_layout)?;
        let residency_usage = vk::ImageUsageFlags::SAMPLED | vk::ImageUsageFlags::TRANSFER_DST;
        let residency_extent = vk::Extent2D { width: cells, height: cells };
        let feedback_bytes = u64::from(feedback_extent.width * feedback_extent.height) * 4;
        let renderer = Self {
            extent,
            feedback_extent,
            layout,
            set_layout,
            descriptor_pool,
            set,
            pipeline_layout,
            feedback_pipeline,
            picture_pipeline,
            trilinear,
            nearest,
            picture: gpu.image(
                FORMAT,
                extent,
                vk::ImageUsageFlags::COLOR_ATTACHMENT | vk::ImageUsageFlags::TRANSFER_SRC,
            )?,
            residency: gpu.image(vk::Format::R8_UINT, residency_extent, residency_usage)?,
            residency_upload: gpu
                .host_buffer(u64::from(cells * cells), vk::BufferUsageFlags::TRANSFER_SRC)?,
            feedback: gpu.host_buffer(feedback_bytes, vk::BufferUsageFlags::STORAGE_BUFFER)?,
            readback: gpu.host_buffer(u64::from(width * height) * 4, vk::BufferUsageFlags::TRANSFER_DST)?,
        };
        renderer.write_set(device, texture);
        Ok(renderer)
    }

    fn write_set(&self, device: &ash::Device, texture: &Texture) {
        let image = |sampler, view| {
            [vk::DescriptorImageInfo {
                sampler,
                image_view: view,
                image_layout: vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL,
            }]
        };
        let (map, residency) =
            (image(self.trilinear, texture.view), image(self.nearest, self.residency.view));
        let feedback =
            [vk::DescriptorBufferInfo { buffer: self.feedback.buffer, offset: 0, range: vk::WHOLE_SIZE }];
        let write = |index, kind| {
            vk::WriteDescriptorSet::default().dst_set(self.set).dst_binding(index).descriptor_type(kind)
        };
        let writes = [
            write(0, vk::DescriptorType::COMBINED_IMAGE_SAMPLER).image_info(&map),
            write(1, vk::DescriptorType::COMBINED_IMAGE_SAMPLER).image_info(&residency),
            write(2, vk::DescriptorType::STORAGE_BUFFER).buffer_info(&feedback),
        ];
        // SAFETY: the set and all that it points at are of this device, and nothing uses it yet.
        unsafe { device.update_descriptor_sets(&writes, &[]) };
    }

    fn push(
        &self,
        device: &ash::Device,
        commands: vk::CommandBuffer,
        view: &View,
        point: vk::PipelineBindPoint,
    ) {
        let stages = vk::ShaderStageFlags::FRAGMENT | vk::ShaderStageFlags::COMPUTE;
        // SAFETY: the command buffer is being recorded; set, layout and range fit together.
        unsafe {
            device.cmd_bind_descriptor_sets(commands, point, self.pipeline_layout, 0, &[self.set], &[]);
            device.cmd_push_constants(commands, self.pipeline_layout, stages, 0, bytemuck::bytes_of(view));
        }
    }

    fn view(&self, camera: &Camera, frame: u32, time: f32) -> View {
        let with = |v: glam::Vec3, w: f32| [v.x, v.y, v.z, w];
        View {
            eye: with(camera.eye, self.layout.size as f32),
            right: with(camera.right, self.extent.width as f32),
            up: with(camera.up, self.extent.height as f32),
            forward: with(camera.forward, time),
            sun: with(Camera::sun(), (self.layout.levels() - 1) as f32),
            grid: [self.layout.tiles(0), self.feedback_extent.width, self.feedback_extent.height, frame],
        }
    }

    /// Fills the residency map for the first time; `before` records what has to happen first.
    pub(crate) fn prepare(
        &mut self,
        gpu: &mut Gpu,
        commands: vk::CommandBuffer,
        residency: &[u8],
        before: impl FnOnce(&ash::Device),
    ) -> Result<()> {
        self.residency_upload.bytes().copy_from_slice(residency);
        gpu.run(commands, |device| {
            before(device);
            self.record_residency(device, commands);
        })
    }

    /// The tiles that this view would sample, with repetitions.
    pub(crate) fn wanted(
        &mut self,
        gpu: &mut Gpu,
        commands: vk::CommandBuffer,
        camera: &Camera,
        frame: u32,
    ) -> Result<Vec<Tile>> {
        let view = self.view(camera, frame, 0.0);
        gpu.run(commands, |device| {
            let point = vk::PipelineBindPoint::COMPUTE;
            self.push(device, commands, &view, point);
            let groups = (self.feedback_extent.width.div_ceil(8), self.feedback_extent.height.div_ceil(8));
            // SAFETY: the command buffer is being recorded; the shader writes one word for each pixel of the buffer.
            unsafe {
                device.cmd_bind_pipeline(commands, point, self.feedback_pipeline);
                device.cmd_dispatch(commands, groups.0, groups.1, 1);
                record_host_read(device, commands);
            }
        })?;
        let answers: &[u32] = bytemuck::cast_slice(self.feedback.bytes());
        let tiles = answers.iter().filter(|answer| **answer != NO_TILE);
        Ok(tiles.map(|word| Tile { level: word >> 24, x: word & 0xfff, y: word >> 12 & 0xfff }).collect())
    }

    /// Draws the view and returns it as RGBA8 rows; `before` records what has to happen first.
    pub(crate) fn draw(
        &mut self,
        gpu: &mut Gpu,
        commands: vk::CommandBuffer,
        (camera, time): (&Camera, f32),
        residency: &[u8],
        before: impl FnOnce(&ash::Device),
    ) -> Result<&[u8]> {
        let view = self.view(camera, 0, time);
        self.residency_upload.bytes().copy_from_slice(residency);
        gpu.run(commands, |device| {
            before(device);
            self.record_residency(device, commands);
            self.record_picture(device, commands, &view);
        })?;
        Ok(self.readback.bytes())
    }

    /// Copies the new residency map. The old one may be forgotten.
    fn record_residency(&self, device: &ash::Device, commands: vk::CommandBuffer) {
        let copied = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
        transition(device, commands, self.residency.image, 1, vk::ImageLayout::UNDEFINED, copied);
        // SAFETY: the command buffer is being recorded; buffer and image have a byte for each cell.
        unsafe {
            device.cmd_copy_buffer_to_image(
                commands,
                self.residency_upload.buffer,
                self.residency.image,
                copied,
                &[whole_image(self.layout.tiles(0), self.layout.tiles(0))],
            );
        }
        transition(
            device,
            commands,
            self.residency.image,
            1,
            copied,
            vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL,
        );
    }

    fn record_picture(&self, device: &ash::Device, commands: vk::CommandBuffer, view: &View) {
        let drawn = vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL;
        let copied = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        let area = vk::Rect2D { offset: vk::Offset2D::default(), extent: self.extent };
        let attachments = [vk::RenderingAttachmentInfo::default()
            .image_view(self.picture.view)
            .image_layout(drawn)
            .load_op(vk::AttachmentLoadOp::DONT_CARE)
            .store_op(vk::AttachmentStoreOp::STORE)];
        let rendering =
            vk::RenderingInfo::default().render_area(area).layer_count(1).color_attachments(&attachments);
        let viewport = vk::Viewport {
            width: self.extent.width as f32,
            height: self.extent.height as f32,
            max_depth: 1.0,
            ..Default::default()
        };
        let point = vk::PipelineBindPoint::GRAPHICS;
        transition(device, commands, self.picture.image, 1, vk::ImageLayout::UNDEFINED, drawn);
        self.push(device, commands, view, point);
        // SAFETY: the command buffer is being recorded; all objects are of its device and the triangle covers the picture.
        unsafe {
            device.cmd_begin_rendering(commands, &rendering);
            device.cmd_bind_pipeline(commands, point, self.picture_pipeline);
            device.cmd_set_viewport(commands, 0, &[viewport]);
            device.cmd_set_scissor(commands, 0, &[area]);
            device.cmd_draw(commands, 3, 1, 0, 0);
            device.cmd_end_rendering(commands);
        }
        transition(device, commands, self.picture.image, 1, drawn, copied);
        // SAFETY: as above; the buffer has four bytes for each pixel.
        unsafe {
            device.cmd_copy_image_to_buffer(
                commands,
                self.picture.image,
                copied,
                self.readback.buffer,
                &[whole_image(self.extent.width, self.extent.height)],
            );
            record_host_read(device, commands);
        }
    }

    pub(crate) fn destroy(&self, gpu: &Gpu) {
        gpu.destroy_image(&self.picture);
        gpu.destroy_image(&self.residency);
        for buffer in [&self.residency_upload, &self.feedback, &self.readback] {
            gpu.destroy_buffer(buffer);
        }
        // SAFETY: all work has been waited for, and the renderer is given up.
        unsafe {
            gpu.device.destroy_pipeline(self.feedback_pipeline, None);
            gpu.device.destroy_pipeline(self.picture_pipeline, None);
            gpu.device.destroy_pipeline_layout(self.pipeline_layout, None);
            gpu.device.destroy_descriptor_pool(self.descriptor_pool, None);
            gpu.device.destroy_descriptor_set_layout(self.set_layout, None);
            gpu.device.destroy_sampler(self.trilinear, None);
            gpu.device.destroy_sampler(self.nearest, None);
        }
    }
}

/// The compute pipeline of the feedback pass and the graphics pipeline of the picture.
fn pipelines(device: &ash::Device, layout: vk::PipelineLayout) -> Result<(vk::Pipeline, vk::Pipeline)> {
    const FEEDBACK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/feedback.comp.spv"));
    const VERTEX: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sky_and_ground.vert.spv"));
    const FRAGMENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sky_and_ground.frag.spv"));
    let module = |code: &[u8]| -> Result<vk::ShaderModule> {
        let words = ash::util::read_spv(&mut std::io::Cursor::new(code))?;
        // SAFETY: the words are SPIR-V that glslangValidator made.
        Ok(unsafe { device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&words), None) }?)
    };
    let modules = [module(FEEDBACK)?, module(VERTEX)?, module(FRAGMENT)?];
    let stage = |module, stage| {
        vk::PipelineShaderStageCreateInfo::default().module(module).stage(stage).name(c"main")
    };
    let compute = vk::ComputePipelineCreateInfo::default()
        .stage(stage(modules[0], vk::ShaderStageFlags::COMPUTE))
        .layout(layout);
    let stages =
        [stage(modules[1], vk::ShaderStageFlags::VERTEX), stage(modules[2], vk::ShaderStageFlags::FRAGMENT)];
    let vertex_input = vk::PipelineVertexInputStateCreateInfo::default();
    let assembly =
        vk::PipelineInputAssemblyStateCreateInfo::default().topology(vk::PrimitiveTopology::TRIANGLE_LIST);
    let viewport = vk::PipelineViewportStateCreateInfo::default().viewport_count(1).scissor_count(1);
    let raster = vk::PipelineRasterizationStateCreateInfo::default().line_width(1.0);
    let samples =
        vk::PipelineMultisampleStateCreateInfo::default().rasterization_samples(vk::SampleCountFlags::TYPE_1);
    let opaque =
        [vk::PipelineColorBlendAttachmentState::default().color_write_mask(vk::ColorComponentFlags::RGBA)];
    let blend = vk::PipelineColorBlendStateCreateInfo::default().attachments(&opaque);
    let dynamic = vk::PipelineDynamicStateCreateInfo::default()
        .dynamic_states(&[vk::DynamicState::VIEWPORT, vk::DynamicState::SCISSOR]);
    let mut formats = vk::PipelineRenderingCreateInfo::default().color_attachment_formats(&[FORMAT]);
    let graphics = vk::GraphicsPipelineCreateInfo::default()
        .stages(&stages)
        .vertex_input_state(&vertex_input)
        .input_assembly_state(&assembly)
        .viewport_state(&viewport)
        .rasterization_state(&raster)
        .multisample_state(&samples)
        .color_blend_state(&blend)
        .dynamic_state(&dynamic)
        .layout(layout)
        .push_next(&mut formats);
    // SAFETY: every structure lives through the calls; the modules are no longer needed once the pipelines exist.
    unsafe {
        let compute = device.create_compute_pipelines(vk::PipelineCache::null(), &[compute], None);
        let graphics = device.create_graphics_pipelines(vk::PipelineCache::null(), &[graphics], None);
        modules.iter().for_each(|module| device.destroy_shader_module(*module, None));
        Ok((compute.map_err(|(_, error)| error)?[0], graphics.map_err(|(_, error)| error)?[0]))
    }
}

fn whole_image(width: u32, height: u32) -> vk::BufferImageCopy {
    vk::BufferImageCopy::default()
        .image_subresource(vk::ImageSubresourceLayers {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            mip_level: 0,
            base_array_layer: 0,
            layer_count: 1,
        })
        .image_extent(vk::Extent3D { width, height, depth: 1 })
}

// Copies `count` words from word `source` on to word `target` on of a storage buffer, read through one of the ways to read a buffer.
#version 460
#ifdef SRC_ADDRESS
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#endif
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
    uint source;
    uint count;
    uint target;
    uint pad;
    uvec2 address;
} push;
layout(set = 0, binding = 0) buffer Result { uint result[]; };

#if defined(SRC_STORAGE)
layout(set = 0, binding = 1) readonly buffer Words { uint words[]; };
#define GET(i) words[i]
#elif defined(SRC_UNIFORM)
// 16 KiB: what every implementation allows for one uniform buffer descriptor.
layout(set = 0, binding = 1, std140) uniform Words { uvec4 vectors[1024]; };
#define GET(i) vectors[(i) >> 2][(i) & 3]
#elif defined(SRC_UNIFORM_TEXEL)
layout(set = 0, binding = 1) uniform usamplerBuffer texels;
#define GET(i) texelFetch(texels, int(i)).x
#elif defined(SRC_STORAGE_TEXEL)
layout(set = 0, binding = 1, r32ui) readonly uniform uimageBuffer texels;
#define GET(i) imageLoad(texels, int(i)).x
#elif defined(SRC_ADDRESS)
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer Words { uint words[]; };
#define GET(i) Words(push.address).words[i]
#endif

void main() {
    uint i = gl_GlobalInvocationID.x;
    if (i < push.count) {
        result[push.target + i] = GET(push.source + i);
    }
}

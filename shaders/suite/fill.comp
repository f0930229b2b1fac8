// Writes pattern(seed, first + i) to `count` words from word `first` on, through one of the three ways to write a buffer.
#version 460
#extension GL_GOOGLE_include_directive : require
#ifdef DST_ADDRESS
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#endif
#include "pattern.glsl"
layout(local_size_x = 64) in;
layout(push_constant) uniform Push {
    uint first;
    uint count;
    uint seed;
    uint pad;
    uvec2 address;
} push;

#if defined(DST_STORAGE)
layout(set = 0, binding = 0) buffer Words { uint words[]; };
#define PUT(i, v) words[i] = (v)
#elif defined(DST_TEXEL)
layout(set = 0, binding = 0, r32ui) uniform uimageBuffer texels;
#define PUT(i, v) imageStore(texels, int(i), uvec4(v))
#elif defined(DST_ADDRESS)
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { uint words[]; };
#define PUT(i, v) Words(push.address).words[i] = (v)
#endif

void main() {
    uint i = gl_GlobalInvocationID.x;
    if (i < push.count) {
        PUT(push.first + i, pattern(push.seed, push.first + i));
    }
}

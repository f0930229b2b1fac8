// Writes pattern(seed, index of the texel in its level) to one level of an R32_UINT storage image.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "pattern.glsl"
layout(local_size_x = 8, local_size_y = 8) in;
layout(push_constant) uniform Push {
    ivec4 extent; // w: seed
} push;
#ifdef DIM_3D
layout(set = 0, binding = 0, r32ui) writeonly uniform uimage3D image;
#else
layout(set = 0, binding = 0, r32ui) writeonly uniform uimage2DArray image;
#endif

void main() {
    ivec3 p = ivec3(gl_GlobalInvocationID);
    if (any(greaterThanEqual(p, push.extent.xyz))) {
        return;
    }
    uint index = uint((p.z * push.extent.y + p.y) * push.extent.x + p.x);
    imageStore(image, p, uvec4(pattern(uint(push.extent.w), index)));
}

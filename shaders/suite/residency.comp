// Reads every texel of one level of an R32_UINT image with a sparse instruction: result[2i] is 1 where the residency
// code says resident, result[2i+1] the texel; of a depth image, whether 0.5 is less or equal.
#version 460
#extension GL_ARB_sparse_texture2 : require
layout(local_size_x = 8, local_size_y = 8) in;
layout(push_constant) uniform Push {
    ivec4 extent; // w: level
} push;
layout(set = 0, binding = 0) buffer Result { uint result[]; };

#ifdef OP_LOAD
#if defined(DIM_3D)
layout(set = 0, binding = 1, r32ui) readonly uniform uimage3D source;
#elif defined(DIM_ARRAY)
layout(set = 0, binding = 1, r32ui) readonly uniform uimage2DArray source;
#else
layout(set = 0, binding = 1, r32ui) readonly uniform uimage2D source;
#endif
#elif defined(OP_COMPARE)
layout(set = 0, binding = 1) uniform sampler2DShadow source;
#else
#if defined(DIM_3D)
layout(set = 0, binding = 1) uniform usampler3D source;
#elif defined(DIM_ARRAY)
layout(set = 0, binding = 1) uniform usampler2DArray source;
#else
layout(set = 0, binding = 1) uniform usampler2D source;
#endif
#endif

void main() {
    ivec3 p = ivec3(gl_GlobalInvocationID);
    if (any(greaterThanEqual(p, push.extent.xyz))) {
        return;
    }
#ifdef DIM_2D
    ivec2 at = p.xy;
    vec2 where = (vec2(at) + 0.5) / vec2(push.extent.xy);
#else
    ivec3 at = p;
#ifdef DIM_ARRAY
    vec3 where = vec3((vec2(p.xy) + 0.5) / vec2(push.extent.xy), float(p.z));
#else
    vec3 where = (vec3(p) + 0.5) / vec3(push.extent.xyz);
#endif
#endif
    uvec4 texel = uvec4(0u);
#if defined(OP_FETCH)
    int code = sparseTexelFetchARB(source, at, push.extent.w, texel);
#elif defined(OP_SAMPLE)
    int code = sparseTextureLodARB(source, where, float(push.extent.w), texel);
#elif defined(OP_COMPARE)
    float passes = 0.0;
    int code = sparseTextureLodARB(source, vec3(where, 0.5), float(push.extent.w), passes);
    texel.x = uint(passes);
#else
    int code = sparseImageLoadARB(source, at, texel);
#endif
    uint index = uint((p.z * push.extent.y + p.y) * push.extent.x + p.x);
    result[2u * index] = sparseTexelsResidentARB(code) ? 1u : 0u;
    result[2u * index + 1u] = texel.x;
}

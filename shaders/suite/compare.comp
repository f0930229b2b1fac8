// Compares a box of texels of two images, bit for bit as a shader sees them. tally[0] counts differences, tally[1] texels compared.
#version 460
layout(local_size_x = 8, local_size_y = 8) in;
layout(push_constant) uniform Push {
    ivec4 origin; // w: level
    ivec4 extent;
} push;
layout(set = 0, binding = 0) buffer Tally { uint tally[]; };

#ifdef AS_UINT
#define BITS(v) (v)
#if defined(DIM_1D)
#define SAMPLER usampler1DArray
#elif defined(DIM_2D)
#define SAMPLER usampler2DArray
#else
#define SAMPLER usampler3D
#endif
#else
#define BITS(v) floatBitsToUint(v)
#if defined(DIM_1D)
#define SAMPLER sampler1DArray
#elif defined(DIM_2D)
#define SAMPLER sampler2DArray
#else
#define SAMPLER sampler3D
#endif
#endif
layout(set = 0, binding = 1) uniform SAMPLER left;
layout(set = 0, binding = 2) uniform SAMPLER right;

#ifdef DIM_1D
#define AT(p) (p).xz
#else
#define AT(p) p
#endif

// Counted by workgroup first: an atomic on the buffer for every texel would take most of the time.
shared uint differences;
shared uint compared;

void main() {
    if (gl_LocalInvocationIndex == 0u) {
        differences = 0u;
        compared = 0u;
    }
    barrier();
    ivec3 offset = ivec3(gl_GlobalInvocationID);
    if (all(lessThan(offset, push.extent.xyz))) {
        ivec3 p = push.origin.xyz + offset;
        uvec4 a = BITS(texelFetch(left, AT(p), push.origin.w));
        uvec4 b = BITS(texelFetch(right, AT(p), push.origin.w));
        if (any(notEqual(a, b))) {
            atomicAdd(differences, 1u);
        }
        atomicAdd(compared, 1u);
    }
    barrier();
    if (gl_LocalInvocationIndex == 0u) {
        atomicAdd(tally[0], differences);
        atomicAdd(tally[1], compared);
    }
}

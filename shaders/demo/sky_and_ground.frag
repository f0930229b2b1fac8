#version 460
#extension GL_GOOGLE_include_directive : require
// The plane under the camera, sampled from the sparse texture no finer than what is resident, and the sky above it.
#include "view.glsl"

layout(set = 0, binding = 0) uniform sampler2D map;
layout(location = 0) out vec4 colour;

uint mix_bits(uvec2 p) {
    uint h = p.x * 0x9e3779b1u ^ p.y * 0x85ebca77u;
    h = (h ^ h >> 15) * 0x2c1b3c6du;
    return h ^ h >> 13;
}

float noise(vec2 p) {
    vec2 i = floor(p), f = p - i, s = f * f * (3.0 - 2.0 * f);
    uvec2 c = uvec2(ivec2(i));
    vec4 h = vec4(uvec4(mix_bits(c), mix_bits(c + uvec2(1, 0)), mix_bits(c + uvec2(0, 1)), mix_bits(c + uvec2(1, 1))) & 0xffffu);
    h *= 1.0 / 65535.0;
    return mix(mix(h.x, h.y, s.x), mix(h.z, h.w, s.x), s.y);
}

// The sky without clouds, towards a unit vector with z >= 0.
vec3 clear_sky(vec3 d) {
    float height = max(d.z, 0.0);
    float towards = max(dot(d, view.sun.xyz), 0.0);
    vec3 zenith = vec3(0.13, 0.29, 0.55), middle = vec3(0.42, 0.62, 0.82), low = vec3(0.90, 0.86, 0.80);
    vec3 c = mix(mix(low, middle, smoothstep(0.0, 0.16, height)), zenith, smoothstep(0.08, 0.65, height));
    float wide = towards * towards;
    wide *= wide;
    // Warm light lies along the horizon under the sun.
    c = mix(c, vec3(1.0, 0.80, 0.55), 0.50 * wide * (1.0 - smoothstep(0.0, 0.30, height)));
    return c + vec3(0.30, 0.20, 0.10) * pow(towards, 24.0);
}

vec3 sky(vec3 d) {
    vec3 c = clear_sky(d);
    float towards = max(dot(d, view.sun.xyz), 0.0);
    c += vec3(1.0, 0.92, 0.75) * smoothstep(0.99925, 0.99965, towards);
    // Clouds on a plane high above; they thin out where their octaves become finer than pixels.
    vec2 p = d.xy / (d.z + 0.09) * 1.1 + view.eye.xy * 2.0e-5 + vec2(view.forward.w * 0.6, 0.0);
    float cover = 0.0, amplitude = 0.5;
    vec2 q = p + 40.0;
    for (int i = 0; i < 5; ++i) {
        cover += amplitude * noise(q);
        q = mat2(1.6, 1.2, -1.2, 1.6) * q;
        amplitude *= 0.5;
    }
    float density = smoothstep(0.47, 0.80, cover) * smoothstep(0.015, 0.14, d.z);
    vec3 lit = mix(vec3(0.80, 0.84, 0.90), vec3(1.0, 0.97, 0.92), smoothstep(0.45, 0.75, cover) * 0.6 + 0.4 * towards);
    return mix(c, lit, 0.85 * density);
}

vec4 sample_map(Footprint f, float lod) {
    // Taps as wide as a texel of the level really used: a coarser one needs fewer of them.
    float taps = clamp(ceil(f.taps * exp2(f.lod - lod)), 1.0, f.taps);
    vec4 sum = vec4(0.0);
    for (float i = 0.0; i < taps; ++i) {
        // The limit only concerns lanes that wait for their neighbours' last taps: a driver may let them sample as well.
        vec2 at = f.at + f.axis * ((min(i, taps - 1.0) + 0.5) / taps - 0.5);
        // Wrapped here, because far away a coordinate of many repeats has no bits left for the texel.
        sum += textureLod(map, fract(at / view.eye.w), lod);
    }
    return sum / taps;
}

void main() {
    vec3 direction = ray(gl_FragCoord.xy);
    vec3 d = normalize(direction);
    bool above = d.z >= -1e-4;
    // Pixels of the sky go on, with a coarse sample straight below. Of the lanes that leave, a driver may still execute the
    // sampling with whatever coordinates are in their registers, and those may lie in tiles without memory.
    Footprint f = footprint(above ? vec3(0.0, 0.0, -1.0) : direction);
    float lod = view.sun.w;
    if (!above)
        lod = resident_lod(f, f.lod);
    vec4 ground = sample_map(f, lod);
    if (above) {
        colour = vec4(sky(vec3(d.xy, max(d.z, 0.0))), 1.0);
        return;
    }

    // The map's alpha is 1 on land and falls to 0 over water, which mirrors the sky.
    float water = 1.0 - ground.a;
    vec3 mirrored = vec3(d.xy, -d.z);
    float grazing = 1.0 - mirrored.z;
    float fresnel = 0.03 + 0.75 * grazing * grazing * grazing * grazing * grazing;
    float glint = pow(max(dot(mirrored, view.sun.xyz), 0.0), 90.0);
    vec3 c = mix(ground.rgb, clear_sky(mirrored), water * fresnel) + water * glint * vec3(0.55, 0.45, 0.30);

    // Haze of the horizon's own colour.
    float range = view.eye.z / -d.z;
    float haze = 1.0 - exp2(-range * range * 1.3e-9 - range * 1.6e-5);
    vec3 horizon = clear_sky(normalize(vec3(d.xy, 0.015)));
    colour = vec4(mix(c, horizon, haze), 1.0);
}

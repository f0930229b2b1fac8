#version 460
#extension GL_GOOGLE_include_directive : require
// Which tiles does this view want? One answer a pixel of a coarse grid: level << 24 | row << 12 | column.
#include "view.glsl"

layout(local_size_x = 8, local_size_y = 8) in;
layout(set = 0, binding = 2, std430) writeonly buffer Feedback { uint wanted[]; };

void main() {
    uvec2 id = gl_GlobalInvocationID.xy;
    if (id.x >= view.grid.y || id.y >= view.grid.z)
        return;
    uint answer = 0xffffffffu;
    // The sampled point moves within its cell from frame to frame, so that small pieces of a tile are found as well.
    uint n = view.grid.w * 5u + id.x * 3u + id.y * 7u;
    vec2 jitter = fract(vec2(float(n & 255u) * 0.754877666, float(n & 255u) * 0.569840291) + 0.5);
    vec2 scale = vec2(view.right.w, view.up.w) / vec2(view.grid.yz);
    vec3 direction = ray((vec2(id) + jitter) * scale);
    if (direction.z < 0.0) {
        Footprint f = footprint(direction);
        // Neighbours ask for the four corners of what their samples touch in turn.
        vec2 corner = vec2((id.x & 1u) == 0u ? -1.0 : 1.0, (id.y & 1u) == 0u ? -1.0 : 1.0);
        vec2 at = f.at + corner * reach(f, f.lod);
        uint level = uint(f.lod);
        int side = max(int(view.grid.x) >> level, 1);
        ivec2 tile = ivec2(floor(at / (TILE * exp2(float(level))))) & (side - 1);
        answer = level << 24 | uint(tile.y) << 12 | uint(tile.x);
    }
    wanted[id.y * view.grid.y + id.x] = answer;
}

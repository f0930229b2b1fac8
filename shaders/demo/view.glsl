// What both passes share: the camera's rays, where they meet the plane, and which mip level a pixel there wants.
// One unit of the plane is one texel of level 0; the plane is z = 0 and repeats the texture without end.

layout(push_constant, std430) uniform View {
    vec4 eye;     // xyz position; w: texels of level 0 a side
    vec4 right;   // half the picture's width at distance 1; w: picture width in pixels
    vec4 up;      // half the picture's height at distance 1; w: picture height in pixels
    vec4 forward; // xyz unit vector; w: time in the flight, 0 to 1
    vec4 sun;     // xyz unit vector towards the sun; w: last mip level
    uvec4 grid;   // x: residency cells a side; y, z: feedback width and height; w: frame number
} view;

layout(set = 0, binding = 1) uniform usampler2D residency;

const float MAX_TAPS = 6.0;        // along the longer axis of a pixel's footprint
const float RESIDENCY_UNIT = 16.0; // the residency map counts in 1/16 of a level
const float TILE = 128.0;

vec3 ray(vec2 pixel) {
    vec2 ndc = vec2(2.0 * pixel.x / view.right.w - 1.0, 1.0 - 2.0 * pixel.y / view.up.w);
    return view.forward.xyz + view.right.xyz * ndc.x + view.up.xyz * ndc.y;
}

struct Footprint {
    vec2 at;     // texels of level 0; v runs down, so that north is up on the map
    vec2 axis;   // the longer axis, whole length
    float taps;  // samples along it
    float lod;   // level whose texel is as wide as one tap
};

// Precondition: direction.z < 0.
Footprint footprint(vec3 direction) {
    float t = -view.eye.z / direction.z;
    vec3 dx = view.right.xyz * (2.0 / view.right.w);
    vec3 dy = view.up.xyz * (2.0 / view.up.w);
    vec2 flip = vec2(1.0, -1.0);
    vec2 a = flip * (dx.xy - direction.xy * (dx.z / direction.z)) * t;
    vec2 b = flip * (dy.xy - direction.xy * (dy.z / direction.z)) * t;
    // The pixel's image is an ellipse: the eigenvalues of J J^T are its squared axes.
    float xx = a.x * a.x + b.x * b.x, yy = a.y * a.y + b.y * b.y, xy = a.x * a.y + b.x * b.y;
    float mean = 0.5 * (xx + yy);
    float spread = sqrt(max(0.25 * (xx - yy) * (xx - yy) + xy * xy, 0.0));
    float major = sqrt(mean + spread), minor = sqrt(max(mean - spread, 1e-12));
    // Of the two ways to write the eigenvector, the one that does not cancel.
    vec2 along = xx > yy ? vec2(spread + 0.5 * (xx - yy), xy) : vec2(xy, spread + 0.5 * (yy - xx));
    float len = length(along);
    Footprint f;
    f.at = flip * (view.eye.xy + direction.xy * t);
    f.axis = len > 0.0 ? along / len * major : vec2(major, 0.0);
    f.taps = clamp(ceil(major / minor), 1.0, MAX_TAPS);
    f.lod = clamp(log2(major / f.taps), 0.0, view.sun.w);
    return f;
}

// Half the box of texels of level 0 that trilinear taps at `lod` can touch: the taps' spread and, of the coarser of
// the two levels, half a texel to each side of the outermost tap.
vec2 reach(Footprint f, float lod) {
    return 0.5 * abs(f.axis) + exp2(floor(lod) + 1.0) * 0.5 + 0.5;
}

uint cell(vec2 at) {
    ivec2 side = ivec2(int(view.grid.x));
    // Both sides are powers of two, so that the mask is the wrap of negative numbers as well.
    return texelFetch(residency, ivec2(floor(at / TILE)) & (side - 1), 0).x;
}

// The level at which every texel that the taps touch is resident. A box smaller than a tile touches no tile beyond those of its
// corners; a coarser level has a wider box, hence the loop. It ends at the levels that always stay.
float resident_lod(Footprint f, float lod) {
    for (int i = 0; i < 16; ++i) {
        vec2 r = reach(f, lod);
        uint worst = max(max(cell(f.at - r), cell(f.at + r)),
                         max(cell(f.at + vec2(r.x, -r.y)), cell(f.at + vec2(-r.x, r.y))));
        float allowed = float(worst) / RESIDENCY_UNIT;
        if (allowed <= lod)
            break;
        lod = allowed;
    }
    return lod;
}

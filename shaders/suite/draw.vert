// Hands to a storage buffer what the fixed-function vertex input fetched: an attribute, or the index itself.
#version 460
layout(set = 0, binding = 0) buffer Result { uint result[]; };
#ifdef FROM_ATTRIBUTE
layout(location = 0) in uint fetched;
#endif

void main() {
#ifdef FROM_ATTRIBUTE
    result[gl_VertexIndex] = fetched;
#else
    result[gl_InstanceIndex] = gl_VertexIndex;
#endif
    gl_Position = vec4(0.0, 0.0, 0.0, 1.0);
    gl_PointSize = 1.0;
}

// Counts workgroups: what an indirect dispatch read from its buffer shows in result[slot].
#version 460
layout(local_size_x = 1) in;
layout(push_constant) uniform Push { uint slot; } push;
layout(set = 0, binding = 0) buffer Result { uint result[]; };

void main() { atomicAdd(result[push.slot], 1u); }

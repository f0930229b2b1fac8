// The suite's data pattern, the same as gpu::pattern on the CPU: one PCG output step over a mix of seed and index.
uint pattern(uint seed, uint index) {
    uint state = index * 747796405u + seed * 2891336453u + 1u;
    uint word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

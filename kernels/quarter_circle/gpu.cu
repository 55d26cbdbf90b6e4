// Points in the quarter circle: see __init__.py. Threads take the blocks in turn, and each adds up its own hits.

// Whether point 0 (bit 0) and point 1 (bit 1) of a block are hits.
__device__ int block_hits(unsigned long long seed, unsigned int stream, unsigned long long index) {
    unsigned int k0 = (unsigned int)seed, k1 = (unsigned int)(seed >> 32);
    unsigned int c0 = (unsigned int)index, c1 = (unsigned int)(index >> 32), c2 = 0, c3 = stream;
    for (int round = 0; round < 10; ++round) {
        unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = (unsigned int)(p1 >> 32) ^ c1 ^ k0;
        c2 = (unsigned int)(p0 >> 32) ^ c3 ^ k1;
        c1 = (unsigned int)p1;
        c3 = (unsigned int)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    unsigned long long x = c0 >> 1, y = c1 >> 1, u = c2 >> 1, v = c3 >> 1;
    return (x * x + y * y < 1ull << 62) | (u * u + v * v < 1ull << 62) << 1;
}

extern "C" __global__ void quarter_circle(unsigned long long seed, unsigned int stream, unsigned long long first,
                                          unsigned long long end, unsigned long long* hits) {
    unsigned long long thread = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long threads = (unsigned long long)gridDim.x * blockDim.x, mine = 0;
    for (unsigned long long index = (first >> 1) + thread; index < (end + 1) >> 1; index += threads) {
        int both = block_hits(seed, stream, index);
        if (index << 1 < first) both &= 2;
        if ((index << 1 | 1) >= end) both &= 1;
        mine += (both & 1) + (both >> 1);
    }
    atomicAdd(hits, mine);
}

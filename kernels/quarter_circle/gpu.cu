// Points in the quarter circle: see __init__.py. The threads share the blocks of the range cyclically; each processes
// GROUPS blocks at a time.
//
// A block of two points takes 21 multiplications of 32 by 32 to 64 bits, 25 logical operations and shifts, and 3
// additions. Hopper issues 64 32-bit multiplications per clock and multiprocessor. If a 64-bit result takes two
// issues, as reported for Ada, the bound of an H200 (132 multiprocessors, 1.98 GHz) is 132 · 1.98e9 · 32 / 21 · 2 =
// 796e9 points per second. The other 28 operations, 64 per clock, are issued in parallel.
#include "common.h"

enum { GROUPS = 4 };

// The number of misses in the next GROUPS blocks of a thread; `first` is word 0 of their counters times M0. In the
// first three rounds, terms that are equal for all blocks are computed once.
__device__ __forceinline__ unsigned int misses_of(const common_terms& same, const unsigned long long* first) {
    block c[GROUPS];
    unsigned int misses = 0;
    UNROLL for (int g = 0; g < GROUPS; ++g) {
        multiply(M1, (WORD)(first[g] >> 32) ^ same.word2, &c[g].c0, &c[g].c1);
        c[g].c0 ^= same.key0[1], c[g].c2 = (WORD)first[g] ^ same.next2, c[g].c3 = 0;
        philox_round(&c[g], same.key0[2], same.next3);
    }
    UNROLL for (int round = 3; round < 10; ++round)
        UNROLL for (int g = 0; g < GROUPS; ++g) philox_round(&c[g], same.key0[round], same.key1[round]);
    UNROLL for (int g = 0; g < GROUPS; ++g) misses += miss(c[g].c0, c[g].c1) + miss(c[g].c2, c[g].c3);
    return misses;
}

// Adds to `hits` the hits of the blocks from `index` on, which all have the same high word: GROUPS · `bundles` blocks
// per thread, then `rest` blocks.
extern "C" __global__ void quarter_circle(unsigned long long seed, unsigned int stream, unsigned long long index,
                                          unsigned int bundles, unsigned int rest, unsigned long long* hits) {
    __shared__ unsigned int total;
    if (threadIdx.x == 0) total = 0;
    __syncthreads();
    const common_terms same = common_of(seed, stream, index);
    const unsigned int threads = gridDim.x * blockDim.x, thread = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long first[GROUPS];
    WORD high, low;
    multiply(M0, GROUPS * threads, &high, &low);  // `*` would multiply in the loop instead
    UNROLL for (int g = 0; g < GROUPS; ++g) first[g] = (unsigned long long)M0 * ((WORD)index + thread + g * threads);
    unsigned int mine = 2 * GROUPS * bundles;
    for (unsigned int done = 0; done < bundles; ++done) {
        mine -= misses_of(same, first);
        UNROLL for (int g = 0; g < GROUPS; ++g) first[g] += (unsigned long long)high << 32 | low;
    }
    for (unsigned int i = thread; i < rest; i += threads)
        mine += __popc(block_hits(&same, (WORD)index + GROUPS * threads * bundles + i));
    atomicAdd(&total, mine);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(hits, (unsigned long long)total);
}

// Subtracts the hit of point 0 or 1 of a block that has only its other point in the range.
extern "C" __global__ void without(unsigned long long seed, unsigned int stream, unsigned long long index,
                                   unsigned int point, unsigned long long* hits) {
    const common_terms same = common_of(seed, stream, index);
    *hits -= block_hits(&same, (WORD)index) >> point & 1;
}

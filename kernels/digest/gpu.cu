// The digest of a block: see __init__.py. Words of any width are read as they are; keys, like addresses, only step on.

#include "../rows.h"

enum { BATCH = 8, THREADS = 256 };

__shared__ u64 sums[THREADS];

enum : u64 { GOLDEN = 0x9e3779b97f4a7c15 };

// The terms of a thread's next COUNT words.
template <int COUNT, class Word> __device__ inline u64 mixed(const Word* bits, Walk<2>& walk) {
    u64 batch[COUNT], keys[COUNT], sum = 0;
    for (int j = 0; j < COUNT; ++j, walk.go_on()) {
        batch[j] = bits[(long long)walk.place[0]];
        keys[j] = walk.place[1];
    }
    for (int j = 0; j < COUNT; ++j) {
        u64 h = batch[j] ^ keys[j];
        h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9;
        h = (h ^ h >> 27) * 0x94d049bb133111eb;
        sum += h ^ h >> 31;
    }
    walk.left -= COUNT;
    return sum;
}

template <class Word> __device__ inline u64 mixed(const Word* bits, Walk<2> walk) {
    u64 sum = 0;
    while (walk.left >= BATCH) sum += mixed<BATCH>(bits, walk);
    while (walk.left > 0) sum += mixed<1>(bits, walk);
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) digest(
    const unsigned char* bits, int size, long long pitch, unsigned int columns, unsigned long long words,
    unsigned long long first, unsigned long long row_step, unsigned long long* total)
{
    const unsigned int t = threadIdx.x;
    Walk<2> walk(columns, words, {{(u64)pitch, 1}, {row_step * GOLDEN, GOLDEN}});
    walk.place[1] += (first + 1) * GOLDEN;
    if (size == 8) sums[t] = mixed((const u64*)bits, walk);
    if (size == 4) sums[t] = mixed((const unsigned int*)bits, walk);
    if (size == 2) sums[t] = mixed((const unsigned short*)bits, walk);
    if (size == 1) sums[t] = mixed(bits, walk);
    for (unsigned int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) atomicAdd(total, sums[0]);
}

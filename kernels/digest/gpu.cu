// The digest of a block: see __init__.py. Words of any width are read directly. A key, the global index times GOLDEN,
// advances by addition like an address.

#include "../rows.h"

enum { BATCH = 8, THREADS = 256, TILE = BATCH * THREADS };

__shared__ u64 sums[THREADS];

enum : u64 { GOLDEN = 0x9e3779b97f4a7c15 };

// The words of a thread in one tile of a row: all increments are constants.
struct InTile {
    u64 place[2];
    int left;

    __device__ void go_on() {
        place[0] += THREADS;
        place[1] += THREADS * GOLDEN;
    }
};

// The sum of the terms of a thread's next COUNT words.
template <int COUNT, class Word, class Path> __device__ inline u64 mixed(const Word* bits, Path& path) {
    u64 batch[COUNT], keys[COUNT], sum = 0;
    for (int j = 0; j < COUNT; ++j, path.go_on()) {
        batch[j] = bits[(long long)path.place[0]];
        keys[j] = path.place[1];
    }
    for (int j = 0; j < COUNT; ++j) {
        u64 h = batch[j] ^ keys[j];
        h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9;
        h = (h ^ h >> 27) * 0x94d049bb133111eb;
        sum += h ^ h >> 31;
    }
    path.left -= COUNT;
    return sum;
}

template <class Word, class Path> __device__ inline u64 mixed(const Word* bits, Path path) {
    u64 sum = 0;
#pragma unroll 1
    while (path.left >= BATCH) sum += mixed<BATCH>(bits, path);
#pragma unroll 1
    while (path.left > 0) sum += mixed<1>(bits, path);
    return sum;
}

// The same for rows of at least one tile: blocks share the tiles cyclically, and only an advance to the next tile tests
// for the end of a row.
template <class Word> __device__ inline u64 tiled(const Word* bits, Walk<2> tiles, unsigned int columns) {
    u64 sum = 0;
#pragma unroll 1
    for (; tiles.left > 0; --tiles.left, tiles.go_on()) {
        InTile words = {{tiles.place[0], tiles.place[1]}, BATCH};
        const unsigned int rest = columns - tiles.column * TILE;
        if (rest >= TILE) {
            sum += mixed<BATCH>(bits, words);
            continue;
        }
        words.left = (int)(rest + THREADS - 1 - threadIdx.x) / THREADS;
#pragma unroll 1
        while (words.left > 0) sum += mixed<1>(bits, words);
    }
    return sum;
}

template <class Word>
__device__ inline u64 mixed(const Word* bits, u64 pitch, unsigned int columns, u64 words, u64 key, u64 row_step) {
    if (columns < TILE) {
        Walk<2> walk(columns, words, {{pitch, 1}, {row_step, GOLDEN}});
        walk.place[1] += key;
        return mixed(bits, walk);
    }
    const unsigned int across = (columns - 1) / TILE + 1, t = threadIdx.x;
    Walk<2> tiles(across, words / columns * across, {{pitch, TILE}, {row_step, TILE * GOLDEN}}, blockIdx.x, gridDim.x);
    tiles.place[0] += t;
    tiles.place[1] += key + t * GOLDEN;
    return tiled(bits, tiles, columns);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) digest(
    const unsigned char* bits, int size, long long pitch, unsigned int columns, unsigned long long words,
    unsigned long long first, unsigned long long row_step, unsigned long long* total)
{
    const unsigned int t = threadIdx.x;
    const u64 key = (first + 1) * GOLDEN, step = row_step * GOLDEN;
    if (size == 8) sums[t] = mixed((const u64*)bits, pitch, columns, words, key, step);
    if (size == 4) sums[t] = mixed((const unsigned int*)bits, pitch, columns, words, key, step);
    if (size == 2) sums[t] = mixed((const unsigned short*)bits, pitch, columns, words, key, step);
    if (size == 1) sums[t] = mixed(bits, pitch, columns, words, key, step);
    for (unsigned int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) atomicAdd(total, sums[0]);
}

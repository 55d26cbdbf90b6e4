// The digest of a block: see __init__.py. Words of any width are read directly. The key of a word is (g + 1)·GOLDEN for
// its global index g. A key is linear in row and column, like an offset, so both advance by additions only.

#include "../rows.h"

enum { BATCH = 8, THREADS = 256, TILE = BATCH * THREADS };

__shared__ u64 sums[THREADS];

enum : u64 { GOLDEN = 0x9e3779b97f4a7c15 };

// Iterates over the words of a thread in one tile, which lies in one row. As in Walk, value[0] is the offset of the
// present word and value[1] its key. The increments are constants, because the row does not end within the tile.
struct TileWalk {
    u64 value[2];
    int left;

    __device__ void advance() {
        value[0] += THREADS;
        value[1] += THREADS * GOLDEN;
    }
};

// Sums the terms of a thread's next COUNT words. All words are loaded before the first one is used, so that the thread
// waits for the memory only once.
template <int COUNT, class Word, class AnyWalk> __device__ inline u64 sum_batch(const Word* bits, AnyWalk& walk) {
    u64 batch[COUNT], keys[COUNT], sum = 0;
    for (int j = 0; j < COUNT; ++j, walk.advance()) {
        batch[j] = bits[(long long)walk.value[0]];
        keys[j] = walk.value[1];
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

// Sums the terms of all words of a thread, BATCH words at a time.
template <class Word, class AnyWalk> __device__ inline u64 sum_walk(const Word* bits, AnyWalk walk) {
    u64 sum = 0;
#pragma unroll 1
    while (walk.left >= BATCH) sum += sum_batch<BATCH>(bits, walk);
#pragma unroll 1
    while (walk.left > 0) sum += sum_batch<1>(bits, walk);
    return sum;
}

// The same for rows of at least one tile. The blocks take the tiles in turn, and only the advance to the next tile must
// test for the end of a row. The last tile of a row may be shorter.
template <class Word> __device__ inline u64 sum_tiles(const Word* bits, Walk<2> tiles, unsigned int columns) {
    u64 sum = 0;
#pragma unroll 1
    for (; tiles.left > 0; --tiles.left, tiles.advance()) {
        TileWalk words = {{tiles.value[0], tiles.value[1]}, BATCH};
        const unsigned int rest = columns - tiles.column * TILE;
        if (rest >= TILE) {
            sum += sum_batch<BATCH>(bits, words);
            continue;
        }
        words.left = (int)(rest + THREADS - 1 - threadIdx.x) / THREADS;
#pragma unroll 1
        while (words.left > 0) sum += sum_batch<1>(bits, words);
    }
    return sum;
}

template <class Word>
__device__ inline u64 sum_thread(const Word* bits, u64 pitch, unsigned int columns, u64 words, u64 key, u64 row_step) {
    if (columns < TILE) {
        Walk<2> walk(columns, words, {{pitch, 1}, {row_step, GOLDEN}});
        walk.value[1] += key;
        return sum_walk(bits, walk);
    }
    const unsigned int tiles_per_row = (columns - 1) / TILE + 1, t = threadIdx.x;
    Walk<2> tiles(tiles_per_row, words / columns * tiles_per_row, {{pitch, TILE}, {row_step, TILE * GOLDEN}},
                  blockIdx.x, gridDim.x);
    tiles.value[0] += t;
    tiles.value[1] += key + t * GOLDEN;
    return sum_tiles(bits, tiles, columns);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) digest(
    const unsigned char* bits, int size, long long pitch, unsigned int columns, unsigned long long words,
    unsigned long long first, unsigned long long row_step, unsigned long long* total)
{
    const unsigned int t = threadIdx.x;
    const u64 key = (first + 1) * GOLDEN, step = row_step * GOLDEN;
    if (size == 8) sums[t] = sum_thread((const u64*)bits, pitch, columns, words, key, step);
    if (size == 4) sums[t] = sum_thread((const unsigned int*)bits, pitch, columns, words, key, step);
    if (size == 2) sums[t] = sum_thread((const unsigned short*)bits, pitch, columns, words, key, step);
    if (size == 1) sums[t] = sum_thread(bits, pitch, columns, words, key, step);
    for (unsigned int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (t < half) sums[t] += sums[t + half];
    }
    if (t == 0) atomicAdd(total, sums[0]);
}

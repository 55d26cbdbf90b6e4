/* Sorting by digits from the top, out of place: see __init__.py.

   A pass puts keys into buckets by the leading bits in which the least and the greatest differ; each bucket is then
   sorted by itself, until it has few enough keys for a network of AVX-512 (cpu_small.h), or for an insertion sort. As
   every pass narrows the range by many bits, few passes do, however the keys are spread. There are as many buckets
   as lie in the caches of a core and of its address translation. */

#include <stdint.h>
#include <string.h>

#include "../clones.h"

enum { MOST_BITS = 10, BUCKETS = 1 << MOST_BITS, ROWS = 64, FEW = 8 };

static int has_rows;

static inline int width(uint64_t number) { return number ? 64 - __builtin_clzll(number) : 0; }

/* Bits that leave buckets of such a size that few are too long for what sorts them at last. */
static inline int digits(int64_t n) {
    int bits = width((uint64_t)(n - 1) / (has_rows ? 48 : 6));
    return bits < 1 ? 1 : bits > MOST_BITS ? MOST_BITS : bits;
}

#ifdef __x86_64__
#include "cpu_small.h"

static void use_rows(int wanted) { has_rows = wanted && __builtin_cpu_supports("avx512f"); }
#define SMALL_OF(name) small_##name
#else
static void use_rows(int wanted) {}
#define SMALL_OF(name) insert_##name
#endif

#define KEY int32_t
#define RANK uint32_t
#define FLIP ((uint32_t)1 << 31)
#define FN(name) name##_i32
#define SMALL SMALL_OF(i32)
#include "cpu_keys.h"

#define KEY uint32_t
#define RANK uint32_t
#define FLIP 0
#define FN(name) name##_u32
#define SMALL SMALL_OF(u32)
#include "cpu_keys.h"

#define KEY int64_t
#define RANK uint64_t
#define FLIP ((uint64_t)1 << 63)
#define FN(name) name##_i64
#define SMALL SMALL_OF(i64)
#include "cpu_keys.h"

#define KEY uint64_t
#define RANK uint64_t
#define FLIP 0
#define FN(name) name##_u64
#define SMALL SMALL_OF(u64)
#include "cpu_keys.h"

/* Puts `order`, the places of `ranks`, into the order of these, those of equal ranks left as they are. `packed` and
   `scratch` have room for n.

   The leading bits of a rank and its place share a word, and the words are sorted. Ranks that agree in these bits
   are then told apart by the others in the same way: their range is so much narrower that twice does it. */
static void order_ranks(const uint64_t *ranks, int64_t *order, int64_t n, uint64_t *packed, uint64_t *scratch) {
    uint64_t low = UINT64_MAX, high = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t rank = ranks[order[i]];
        low = rank < low ? rank : low;
        high = rank > high ? rank : high;
    }
    if (low >= high) return;
    const int place = width((uint64_t)(n - 1)), extra = width(high - low) + place - 64, drop = extra > 0 ? extra : 0;
    const uint64_t mask = ((uint64_t)1 << place) - 1;
    for (int64_t i = 0; i < n; i++) packed[i] = (ranks[order[i]] - low) >> drop << place | (uint64_t)i;
    sort_u64(packed, packed, scratch, n, 1);
    for (int64_t i = 0; i < n; i++) scratch[i] = (uint64_t)order[packed[i] & mask];
    memcpy(order, scratch, (size_t)n * sizeof *order);
    if (!drop) return;
    for (int64_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && packed[end] >> place == packed[begin] >> place;) end++;
        if (end > begin + 1) order_ranks(ranks, order + begin, end - begin, packed + begin, scratch + begin);
    }
}

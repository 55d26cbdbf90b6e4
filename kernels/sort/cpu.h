/* Most-significant-digit radix sort, out of place: see __init__.py.

   A pass distributes keys to buckets by the leading bits in which the smallest and the largest key differ. Each bucket
   is then sorted recursively, until it is small enough for a sorting network in AVX-512 (cpu_small.h) or AVX2
   (cpu_avx2.h), or an insertion sort. Every pass narrows the range by many bits, so few passes are needed for any distribution of keys. The number of
   buckets is limited by the caches and the address translation (TLB) of a core. */

#include <stdint.h>
#include <string.h>

#include "../clones.h"

enum { BITS = 10, MOST_BITS = 11, BUCKETS = 1 << MOST_BITS, FEW = 8 };

/* The largest number of keys for a network: 64 with AVX-512, 32 with AVX2, 0 with neither. */
static int network;

static inline int width(uint64_t number) { return number ? 64 - __builtin_clzll(number) : 0; }

/* The number of digit bits for n keys: buckets are then mostly small enough for the final network or insertion sort.
   One bit more than usual saves a pass for the last bit or two. */
static inline int digits(int64_t n) {
    int bits = width((uint64_t)(n - 1) / (network ? network * 3 / 4 : 6));
    return bits < 1 ? 1 : bits <= BITS ? bits : bits % BITS == 1 || bits % BITS == 2 ? MOST_BITS : BITS;
}

#ifdef __x86_64__
#include "cpu_small.h"
#include "cpu_avx2.h"

static void use_network(int most) {
    network = most >= 64 && __builtin_cpu_supports("avx512f") ? 64 : most >= 32 && __builtin_cpu_supports("avx2") ? 32 : 0;
}
#define SMALL(name, from, to, n) (network == 64 ? small_##name(from, to, n) : narrow_##name(from, to, n))
#else
static void use_network(int most) {}
#define SMALL(name, from, to, n) insert_##name(from, to, n)
#endif

#define KEY int32_t
#define RANK uint32_t
#define FLIP ((uint32_t)1 << 31)
#define FN(name) name##_i32
#define NETWORK(from, to, n) SMALL(i32, from, to, n)
#include "cpu_keys.h"

#define KEY uint32_t
#define RANK uint32_t
#define FLIP 0
#define FN(name) name##_u32
#define NETWORK(from, to, n) SMALL(u32, from, to, n)
#include "cpu_keys.h"

#define KEY int64_t
#define RANK uint64_t
#define FLIP ((uint64_t)1 << 63)
#define FN(name) name##_i64
#define NETWORK(from, to, n) SMALL(i64, from, to, n)
#include "cpu_keys.h"

#define KEY uint64_t
#define RANK uint64_t
#define FLIP 0
#define FN(name) name##_u64
#define NETWORK(from, to, n) SMALL(u64, from, to, n)
#include "cpu_keys.h"

/* Sorts `order`, indices into `ranks`, stably by rank. `packed` and `scratch` are work arrays of n elements.

   The leading bits of a rank and its position are packed into one word, and the words are sorted. Groups of ranks that
   are equal in these bits are then sorted in the same way; their range is so narrow that the second pass uses all
   bits. */
static void order_ranks(const uint64_t *ranks, int64_t *order, int64_t n, uint64_t *packed, uint64_t *scratch) {
    uint64_t low = UINT64_MAX, high = 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t rank = ranks[order[i]];
        low = rank < low ? rank : low;
        high = rank > high ? rank : high;
    }
    if (low >= high) return;
    const int index_bits = width((uint64_t)(n - 1)), extra = width(high - low) + index_bits - 64;
    const int drop = extra > 0 ? extra : 0;
    const uint64_t mask = ((uint64_t)1 << index_bits) - 1;
    for (int64_t i = 0; i < n; i++) packed[i] = (ranks[order[i]] - low) >> drop << index_bits | (uint64_t)i;
    sort_u64(packed, packed, scratch, n, 1);
    for (int64_t i = 0; i < n; i++) scratch[i] = (uint64_t)order[packed[i] & mask];
    memcpy(order, scratch, (size_t)n * sizeof *order);
    if (!drop) return;
    for (int64_t begin = 0, end; begin < n; begin = end) {
        for (end = begin + 1; end < n && packed[end] >> index_bits == packed[begin] >> index_bits;) end++;
        if (end > begin + 1) order_ranks(ranks, order + begin, end - begin, packed + begin, scratch + begin);
    }
}

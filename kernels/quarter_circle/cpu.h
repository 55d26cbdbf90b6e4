/* Points in the quarter circle, with AVX-512, AVX2, SSE2 or plain C: see __init__.py. */
#include <stdint.h>

#include "common.h"

enum { bundle_plain = 1 };

static uint64_t hits_plain(const struct common_terms *common, uint32_t low, uint64_t blocks)
{
    uint64_t hits = 0;
    for (; blocks; blocks--) {
        int both = block_hits(common, low++);
        hits += (uint64_t)((both & 1) + (both >> 1));
    }
    return hits;
}

#ifdef __x86_64__
#include <immintrin.h>

#define FN(name) name##_sse2
#define TARGET
#define V __m128i
#define LANES 2
#define GROUPS 3
#define ALL(word) _mm_set1_epi64x((long long)(uint64_t)(word))
#define LOAD(from) _mm_loadu_si128((const V *)(from))
#define STORE(to, a) _mm_storeu_si128((V *)(to), a)
#define MUL _mm_mul_epu32
#define ADD _mm_add_epi64
#define XOR _mm_xor_si128
#define XOR3(a, b, c) XOR(a, XOR(b, c))
#define HIGH(a) _mm_shuffle_epi32(a, 0xB1)
#define HALVE(a) _mm_srli_epi32(a, 1)
#define BIT62(a) _mm_srli_epi64(a, 62)
#include "cpu_lanes.h"

#define FN(name) name##_avx2
#define TARGET __attribute__((target("avx2")))
#define V __m256i
#define LANES 4
#define GROUPS 4
#define ALL(word) _mm256_set1_epi64x((long long)(uint64_t)(word))
#define LOAD(from) _mm256_loadu_si256((const V *)(from))
#define STORE(to, a) _mm256_storeu_si256((V *)(to), a)
#define MUL _mm256_mul_epu32
#define ADD _mm256_add_epi64
#define XOR _mm256_xor_si256
#define XOR3(a, b, c) XOR(a, XOR(b, c))
#define HIGH(a) _mm256_shuffle_epi32(a, 0xB1)
#define HALVE(a) _mm256_srli_epi32(a, 1)
#define BIT62(a) _mm256_srli_epi64(a, 62)
#include "cpu_lanes.h"

#define FN(name) name##_avx512
#define TARGET __attribute__((target("avx512f")))
#define V __m512i
#define LANES 8
#define GROUPS 6
#define ALL(word) _mm512_set1_epi64((long long)(uint64_t)(word))
#define LOAD(from) _mm512_loadu_si512(from)
#define STORE(to, a) _mm512_storeu_si512(to, a)
#define MUL _mm512_mul_epu32
#define ADD _mm512_add_epi64
#define XOR _mm512_xor_si512
#define XOR3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define HIGH(a) _mm512_shuffle_epi32(a, 0xB1)
#define HALVE(a) _mm512_srli_epi32(a, 1)
#define BIT62(a) _mm512_srli_epi64(a, 62)
#include "cpu_lanes.h"
#endif

static const struct {
    uint64_t (*hits)(const struct common_terms *common, uint32_t low, uint64_t blocks);
    uint64_t bundle;
} INSTRUCTIONS[] = {
    {hits_plain, bundle_plain},
#ifdef __x86_64__
    {hits_sse2, bundle_sse2},
    {hits_avx2, bundle_avx2},
    {hits_avx512, bundle_avx512},
#endif
};

/* The index of the best of INSTRUCTIONS that this processor supports. */
static int best_instructions(void)
{
#ifdef __x86_64__
    return __builtin_cpu_supports("avx512f") ? 3 : __builtin_cpu_supports("avx2") ? 2 : 1;
#else
    return 0;
#endif
}

static uint64_t count_hits(int instructions, uint64_t seed, uint32_t stream, uint64_t first, uint64_t end)
{
    const uint64_t bundle = INSTRUCTIONS[instructions].bundle, last = (end + 1) >> 1;
    uint64_t hits = 0;
    struct common_terms common;
    for (uint64_t index = first >> 1, blocks; index < last; index += blocks) {
        const uint32_t low = (uint32_t)index;
        const uint64_t same_high = ((uint64_t)1 << 32) - low;
        blocks = last - index < same_high ? last - index : same_high;
        common = common_of(seed, stream, index);
        uint64_t bundled = blocks - blocks % bundle;
        hits += INSTRUCTIONS[instructions].hits(&common, low, bundled);
        hits += hits_plain(&common, low + (uint32_t)bundled, blocks - bundled);
    }
    if (first & 1) { /* the point before the range is in the first block */
        common = common_of(seed, stream, first >> 1);
        hits -= (uint64_t)(block_hits(&common, (uint32_t)(first >> 1)) & 1);
    }
    if (end & 1) {
        common = common_of(seed, stream, end >> 1);
        hits -= (uint64_t)(block_hits(&common, (uint32_t)(end >> 1)) >> 1);
    }
    return hits;
}

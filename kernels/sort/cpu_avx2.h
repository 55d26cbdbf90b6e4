/* Sorts up to 32 keys in eight AVX2 registers, as cpu_small.h does up to 64 in AVX-512: a network sorts the four
   columns, a transposition makes each of them two rows, and bitonic networks merge the rows. */

#define AVX2 __attribute__((target("avx2"), always_inline)) static inline
typedef __m256i Half;

AVX2 void exchange_half(Half *v, int a, int b) {
    Half more = _mm256_cmpgt_epi64(v[a], v[b]), low = _mm256_blendv_epi8(v[a], v[b], more);
    v[b] = _mm256_blendv_epi8(v[b], v[a], more);
    v[a] = low;
}

AVX2 void sort_half_columns(Half *v) {
    static const char pairs[19][2] = {{0, 2}, {1, 3}, {4, 6}, {5, 7}, {0, 4}, {1, 5}, {2, 6}, {3, 7}, {0, 1}, {2, 3},
                                      {4, 5}, {6, 7}, {2, 4}, {3, 5}, {1, 4}, {3, 6}, {1, 2}, {3, 4}, {5, 6}};
#pragma GCC unroll 19
    for (int i = 0; i < 19; i++) exchange_half(v, pairs[i][0], pairs[i][1]);
}

/* Makes column c the rows 2c and 2c + 1. */
AVX2 void transpose_halves(Half *v) {
    Half t[8];
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        Half a = _mm256_unpacklo_epi64(v[i], v[i + 1]), b = _mm256_unpackhi_epi64(v[i], v[i + 1]);
        Half c = _mm256_unpacklo_epi64(v[i + 2], v[i + 3]), d = _mm256_unpackhi_epi64(v[i + 2], v[i + 3]);
        t[i / 4] = _mm256_permute2x128_si256(a, c, 0x20), t[i / 4 + 2] = _mm256_permute2x128_si256(b, d, 0x20);
        t[i / 4 + 4] = _mm256_permute2x128_si256(a, c, 0x31), t[i / 4 + 6] = _mm256_permute2x128_si256(b, d, 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) v[i] = t[i];
}

/* Sorts a bitonic row. */
AVX2 Half tidied_half(Half v) {
    Half t = _mm256_permute4x64_epi64(v, 0x4e), more = _mm256_cmpgt_epi64(v, t);
    v = _mm256_blend_epi32(_mm256_blendv_epi8(v, t, more), _mm256_blendv_epi8(t, v, more), 0xf0);
    t = _mm256_shuffle_epi32(v, 0x4e), more = _mm256_cmpgt_epi64(v, t);
    return _mm256_blend_epi32(_mm256_blendv_epi8(v, t, more), _mm256_blendv_epi8(t, v, more), 0xcc);
}

/* Merges two sorted sequences, the halves of m rows. */
AVX2 void merge_halves(Half *v, const int m) {
    Half high[4];
#pragma GCC unroll 4
    for (int i = 0; i < m / 2; i++) {
        Half pair[2] = {v[i], _mm256_permute4x64_epi64(v[m - 1 - i], 0x1b)};
        exchange_half(pair, 0, 1);
        v[i] = pair[0], high[i] = pair[1];
    }
#pragma GCC unroll 4
    for (int i = 0; i < m / 2; i++) v[m / 2 + i] = high[i];
#pragma GCC unroll 2
    for (int apart = m / 4; apart; apart /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++)
            if (!(i & apart)) exchange_half(v, i, i + apart);
#pragma GCC unroll 8
    for (int i = 0; i < m; i++) v[i] = tidied_half(v[i]);
}

/* The keys of the last row that is not full are loaded under a mask, and stored through a buffer, because masked stores
   are slow. LOAD and STORE move four keys, as signed 64-bit words in the same order. */
static const int64_t mask_of[8] = {-1, -1, -1, -1, 0, 0, 0, 0};
#define AVX2_SORT(NAME, KEY, LOAD, LOAD_FIRST, STORE)                                                 \
    __attribute__((target("avx2"))) static void NAME(const KEY *from, KEY *to, int n) {               \
        const Half last = _mm256_set1_epi64x(INT64_MAX), flip = _mm256_set1_epi64x(INT64_MIN);        \
        const int full = n / 4, rest = n % 4;                                                         \
        const Half mask = _mm256_loadu_si256((const Half *)(mask_of + 4 - rest));                     \
        Half v[8];                                                                                    \
        (void)flip;                                                                                   \
        for (int i = 0; i < 8; i++) v[i] = last;                                                      \
        for (int i = 0; i < full; i++) v[i] = LOAD(from + 4 * i);                                     \
        if (rest) v[full] = _mm256_blendv_epi8(last, LOAD_FIRST(from + 4 * full, mask), mask);        \
        sort_half_columns(v);                                                                         \
        transpose_halves(v);                                                                          \
        merge_halves(v, 4), merge_halves(v + 4, 4), merge_halves(v, 8);                               \
        KEY words[8];                                                                                 \
        for (int i = 0; i < full; i++) STORE(to + 4 * i, v[i]);                                       \
        if (rest) STORE(words, v[full]);                                                              \
        for (int i = 0; i < rest; i++) to[4 * full + i] = words[i];                                   \
    }
#define WORDS(p) _mm256_loadu_si256((const Half *)(p))
#define WORDS_FIRST(p, m) _mm256_maskload_epi64((const long long *)(p), m)
#define WORDS_STORE(p, v) _mm256_storeu_si256((Half *)(p), v)
#define FLIPPED(p) _mm256_xor_si256(flip, WORDS(p))
#define FLIPPED_FIRST(p, m) _mm256_xor_si256(flip, WORDS_FIRST(p, m))
#define FLIPPED_WORDS_STORE(p, v) WORDS_STORE(p, _mm256_xor_si256(flip, v))
#define EVEN(v) _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)))
#define SHORTS(p) _mm_loadu_si128((const __m128i *)(p))
#define SHORTS_FIRST(p, m) _mm_maskload_epi32((const int *)(p), EVEN(m))
#define SHORTS_STORE(p, v) _mm_storeu_si128((__m128i *)(p), EVEN(v))
#define SIGNED(p) _mm256_cvtepi32_epi64(SHORTS(p))
#define SIGNED_FIRST(p, m) _mm256_cvtepi32_epi64(SHORTS_FIRST(p, m))
#define UNSIGNED(p) _mm256_cvtepu32_epi64(SHORTS(p))
#define UNSIGNED_FIRST(p, m) _mm256_cvtepu32_epi64(SHORTS_FIRST(p, m))
AVX2_SORT(narrow_i64, int64_t, WORDS, WORDS_FIRST, WORDS_STORE)
AVX2_SORT(narrow_u64, uint64_t, FLIPPED, FLIPPED_FIRST, FLIPPED_WORDS_STORE)
AVX2_SORT(narrow_i32, int32_t, SIGNED, SIGNED_FIRST, SHORTS_STORE)
AVX2_SORT(narrow_u32, uint32_t, UNSIGNED, UNSIGNED_FIRST, SHORTS_STORE)

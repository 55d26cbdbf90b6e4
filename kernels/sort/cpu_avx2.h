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

/* Keys are moved through a buffer of signed 64-bit words in the same order: BIAS is added, modulo 2^64. */
#define AVX2_SORT(NAME, KEY, BIAS)                                                              \
    __attribute__((target("avx2"))) static void NAME(const KEY *from, KEY *to, int n) {           \
        _Alignas(32) int64_t words[32];                                                           \
        Half v[8];                                                                                \
        for (int i = 0; i < n; i++) words[i] = (int64_t)((uint64_t)from[i] + BIAS);               \
        for (int i = n; i < 32; i++) words[i] = INT64_MAX;                                        \
        for (int i = 0; i < 8; i++) v[i] = _mm256_load_si256((const Half *)words + i);            \
        sort_half_columns(v);                                                                     \
        transpose_halves(v);                                                                      \
        merge_halves(v, 4), merge_halves(v + 4, 4), merge_halves(v, 8);                           \
        for (int i = 0; i < 8; i++) _mm256_store_si256((Half *)words + i, v[i]);                  \
        for (int i = 0; i < n; i++) to[i] = (KEY)((uint64_t)words[i] - BIAS);                     \
    }
AVX2_SORT(narrow_i64, int64_t, 0)
AVX2_SORT(narrow_u64, uint64_t, ((uint64_t)1 << 63))
AVX2_SORT(narrow_i32, int32_t, 0)
AVX2_SORT(narrow_u32, uint32_t, 0)

/* Sorts up to 64 keys in eight AVX-512 registers: a network sorts the eight columns, a transposition makes them rows,
   and bitonic networks merge the rows (Batcher, AFIPS 1968). 32-bit keys are widened when they are loaded. */

#include <immintrin.h>

#define WIDE __attribute__((target("avx512f"), always_inline)) static inline
typedef __m512i Row;

WIDE void exchange(Row *v, int a, int b) {
    Row low = _mm512_min_epi64(v[a], v[b]);
    v[b] = _mm512_max_epi64(v[a], v[b]);
    v[a] = low;
}

/* The network of 19 comparators for eight keys: Knuth, The Art of Computer Programming 3 (1998), 5.3.4. */
WIDE void sort_columns(Row *v) {
    exchange(v, 0, 2), exchange(v, 1, 3), exchange(v, 4, 6), exchange(v, 5, 7);
    exchange(v, 0, 4), exchange(v, 1, 5), exchange(v, 2, 6), exchange(v, 3, 7);
    exchange(v, 0, 1), exchange(v, 2, 3), exchange(v, 4, 5), exchange(v, 6, 7);
    exchange(v, 2, 4), exchange(v, 3, 5);
    exchange(v, 1, 4), exchange(v, 3, 6);
    exchange(v, 1, 2), exchange(v, 3, 4), exchange(v, 5, 6);
}

WIDE void transpose(Row *v) {
    Row t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi64(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi64(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            v[i + j] = _mm512_shuffle_i64x2(t[i + j], t[i + j + 2], 0x88);
            v[i + j + 2] = _mm512_shuffle_i64x2(t[i + j], t[i + j + 2], 0xdd);
        }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i64x2(v[i], v[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i64x2(v[i], v[i + 4], 0xdd);
    }
    for (int i = 0; i < 8; i++) v[i] = t[i];
}

/* Sorts a bitonic row. */
WIDE Row tidied(Row v) {
    Row t = _mm512_shuffle_i64x2(v, v, 0x4e);
    v = _mm512_mask_max_epi64(_mm512_min_epi64(v, t), 0xf0, v, t);
    t = _mm512_permutex_epi64(v, 0x4e);
    v = _mm512_mask_max_epi64(_mm512_min_epi64(v, t), 0xcc, v, t);
    t = _mm512_permutex_epi64(v, 0xb1);
    return _mm512_mask_max_epi64(_mm512_min_epi64(v, t), 0xaa, v, t);
}

/* Merges two sorted sequences, the halves of m rows. */
WIDE void merge_rows(Row *v, const int m) {
    const Row backwards = _mm512_set_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    Row high[4];
#pragma GCC unroll 4
    for (int i = 0; i < m / 2; i++) {
        Row other = _mm512_permutexvar_epi64(backwards, v[m - 1 - i]);
        high[i] = _mm512_max_epi64(v[i], other);
        v[i] = _mm512_min_epi64(v[i], other);
    }
#pragma GCC unroll 4
    for (int i = 0; i < m / 2; i++) v[m / 2 + i] = high[i];
#pragma GCC unroll 2
    for (int apart = m / 4; apart; apart /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < m; i++)
            if (!(i & apart)) exchange(v, i, i + apart);
#pragma GCC unroll 8
    for (int i = 0; i < m; i++) v[i] = tidied(v[i]);
}

WIDE void sort_rows(Row *v) {
    sort_columns(v);
    transpose(v);
    merge_rows(v, 2), merge_rows(v + 2, 2), merge_rows(v + 4, 2), merge_rows(v + 6, 2);
    merge_rows(v, 4), merge_rows(v + 4, 4);
    merge_rows(v, 8);
}

WIDE __mmask8 first_of(int n) { return (__mmask8)(n >= 8 ? 0xff : n > 0 ? (1 << n) - 1 : 0); }

/* LOAD and STORE move up to eight keys under a mask, as signed 64-bit words in the same order. */
#define SMALL_SORT(NAME, KEY, LOAD, STORE)                                                        \
    __attribute__((target("avx512f"))) static void NAME(const KEY *from, KEY *to, int n) {        \
        const Row last = _mm512_set1_epi64(INT64_MAX), flip = _mm512_set1_epi64(INT64_MIN);       \
        Row v[8];                                                                                 \
        (void)flip;                                                                               \
        for (int i = 0; i < 8; i++) v[i] = _mm512_mask_mov_epi64(last, first_of(n - 8 * i), LOAD(first_of(n - 8 * i), from + 8 * i)); \
        sort_rows(v);                                                                             \
        for (int i = 0; i < 8; i++) STORE(to + 8 * i, first_of(n - 8 * i), v[i]);                 \
    }
#define FLIPPED_LOAD(m, p) _mm512_xor_si512(flip, _mm512_maskz_loadu_epi64(m, p))
#define FLIPPED_STORE(p, m, v) _mm512_mask_storeu_epi64(p, m, _mm512_xor_si512(flip, v))
#define NARROW(m, p) _mm512_castsi512_si256(_mm512_maskz_loadu_epi32(m, p))
#define SIGNED_LOAD(m, p) _mm512_cvtepi32_epi64(NARROW(m, p))
#define UNSIGNED_LOAD(m, p) _mm512_cvtepu32_epi64(NARROW(m, p))
SMALL_SORT(small_i64, int64_t, _mm512_maskz_loadu_epi64, _mm512_mask_storeu_epi64)
SMALL_SORT(small_u64, uint64_t, FLIPPED_LOAD, FLIPPED_STORE)
SMALL_SORT(small_i32, int32_t, SIGNED_LOAD, _mm512_mask_cvtepi64_storeu_epi32)
SMALL_SORT(small_u32, uint32_t, UNSIGNED_LOAD, _mm512_mask_cvtepi64_storeu_epi32)

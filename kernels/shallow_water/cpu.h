/* The shallow-water step in one sweep over the rows: every value of p, u, v and the old level is read from memory
 * once, and every new value is written once, 96 bytes per cell. The fluxes of the previous row are in four row
 * buffers, those of the current row in registers. The code uses vectors of 8, 4, 2 or 1 columns (cpu_lanes.h): at
 * every width, each cell has the same operations in the same order. */

#ifndef SHALLOW_WATER_CPU_H
#define SHALLOW_WATER_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "formulas.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* An array: its first element, and its row stride in elements. */
typedef struct { double *at; ptrdiff_t row; } View;

/* p, u, v in this order: the new level, the current level with its halo of 1, the old level. */
typedef struct {
    View new_level[3], level[3], old_level[3];
    double t8, tx, ty, fsdx, fsdy, alpha;
    int first, lanes;
} Step;

/* Two rows of the current level, and the rows of the other arrays. Column j is the column of the halo array. */
typedef struct {
    const double *p0, *p1, *u0, *u1, *v0, *v1;
    double *new_level[3], *old_level[3];
    double *cu, *cv, *z, *h;    /* in: of the previous row; out: of this row */
    double west[7];             /* values of column j - 1 that column j needs */
} Row;

typedef enum { FLUXES, FIRST, PLAIN, STREAM } Mode;
typedef ptrdiff_t (*Columns)(const Step *, Row *, ptrdiff_t, ptrdiff_t, Mode);

/* From this total size of the nine arrays, stores of the new level bypass the cache, because the sweep does not read it
 * again. Smaller arrays stay in a last-level cache of 32 MB, and plain stores are faster. */
#define STREAM_BYTES (24u << 20)
/* Prefetch distance in columns. */
#define AHEAD 128
#define LINE 64

#define LANES 1
#define TARGET
#include "cpu_lanes.h"

#define LANES 2
#define TARGET
#define WEST 1, 2
#if defined(__x86_64__)
#define STREAM_OUT(to, x) _mm_stream_pd(to, (__m128d)(x))
#endif
#include "cpu_lanes.h"

#if defined(__x86_64__)
#define LANES 4
#define TARGET __attribute__((target("avx2")))
#define WEST 3, 4, 5, 6
#define STREAM_OUT(to, x) _mm256_stream_pd(to, (__m256d)(x))
#include "cpu_lanes.h"

#define LANES 8
#define TARGET __attribute__((target("avx512f")))
#define WEST 7, 8, 9, 10, 11, 12, 13, 14
#define STREAM_OUT(to, x) _mm512_stream_pd(to, (__m512d)(x))
#include "cpu_lanes.h"
#endif

/* The row function for the widest vectors of this processor, of at most `lanes` columns. */
static Columns widest(int lanes)
{
#if defined(__x86_64__)
    if (lanes >= 8 && __builtin_cpu_supports("avx512f"))
        return columns_8;
    if (lanes >= 4 && __builtin_cpu_supports("avx2"))
        return columns_4;
#endif
    return lanes >= 2 ? columns_2 : columns_1;
}

/* The number of columns before the new rows reach a cache line, or -1 if the three rows are aligned differently. */
static ptrdiff_t lead(const Row *r)
{
    uintptr_t past = (uintptr_t)r->new_level[0] % LINE;
    for (int q = 1; q < 3; q++)
        if ((uintptr_t)r->new_level[q] % LINE != past)
            return -1;
    return (ptrdiff_t)((LINE - past) % LINE / sizeof(double));
}

static Row row_at(const Step *s, ptrdiff_t i, double *buffer, ptrdiff_t width)
{
    const View *a = s->level;
    Row r = {
        .p0 = a[0].at + i * a[0].row, .p1 = a[0].at + (i + 1) * a[0].row,
        .u0 = a[1].at + i * a[1].row, .u1 = a[1].at + (i + 1) * a[1].row,
        .v0 = a[2].at + i * a[2].row, .v1 = a[2].at + (i + 1) * a[2].row,
        .cu = buffer, .cv = buffer + width, .z = buffer + 2 * width, .h = buffer + 3 * width,
    };
    for (int q = 0; q < 3 && i > 0; q++) {
        r.new_level[q] = s->new_level[q].at + (i - 1) * s->new_level[q].row;
        r.old_level[q] = s->old_level[q].at + (i - 1) * s->old_level[q].row;
    }
    return r;
}

/* One row: with stores that bypass the cache, scalar columns up to a cache line; then vectors; then the tail. */
static void one_row(const Step *s, Row *r, ptrdiff_t n, Mode mode, Columns wide)
{
    ptrdiff_t j = columns_1(s, r, 0, 1, FLUXES), head = mode == STREAM ? lead(r) : 0;
    Mode rest = mode == STREAM ? PLAIN : mode;
    if (head > 0)
        j = columns_1(s, r, j, head < n ? 1 + head : 1 + n, rest);
    if (j + 1 < n + 1)
        j = wide(s, r, j, n + 1, head < 0 ? rest : mode);
    if (j + 1 < n + 1)
        j = columns_2(s, r, j, n + 1, rest);
    if (j < n + 1)
        columns_1(s, r, j, n + 1, rest);
}

/* Advances m x n cells; returns 0, or -1 if there is no memory for the row buffers. */
static int shallow_water_sweep(const Step *s, ptrdiff_t m, ptrdiff_t n)
{
    const size_t bytes = 9 * sizeof(double) * (size_t)m * (size_t)n;
    const Mode mode = s->first ? FIRST : bytes > STREAM_BYTES ? STREAM : PLAIN;
    const Columns wide = widest(s->lanes);
    double *buffer = calloc((size_t)(n + 1), 4 * sizeof(double));
    if (!buffer)
        return -1;
    for (ptrdiff_t i = 0; i <= m; i++) {
        Row r = row_at(s, i, buffer, n + 1);
        one_row(s, &r, n, i == 0 ? FLUXES : mode, wide);
    }
#if defined(__x86_64__)
    if (mode == STREAM)
        _mm_sfence();
#endif
    free(buffer);
    return 0;
}

#endif

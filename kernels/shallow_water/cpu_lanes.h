/* One row of the sweep with vectors of LANES columns. cpu.h includes this file once for each width and defines TARGET,
 * the instruction set for the width, WEST, the shuffle indices of the vector one column to the west, and STREAM_OUT,
 * a store that bypasses the cache. */

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define OF(name) JOIN(name, LANES)
#define INLINE static inline __attribute__((always_inline)) TARGET

#if LANES == 1
typedef double OF(Vector), OF(Unaligned);
#define SHIFT(before, x) (before)
#define LAST(x) (x)
#else
typedef double OF(Vector) __attribute__((vector_size(8 * LANES)));
typedef double OF(Unaligned) __attribute__((vector_size(8 * LANES), aligned(8)));
#define LAST(x) (x)[LANES - 1]
#if defined(__clang__)
#define SHIFT(before, x) __builtin_shufflevector(before, x, WEST)
#else
typedef long long OF(Lanes) __attribute__((vector_size(8 * LANES)));
#define SHIFT(before, x) __builtin_shuffle(before, x, (OF(Lanes)){WEST})
#endif
#endif
#define V OF(Vector)
#define LOAD(at) ((V) * (const OF(Unaligned) *)(at))
#define STORE(to, x) (*(OF(Unaligned) *)(to) = (x))
#define ALL(x) ((x) - (V){0})    /* the number in every lane; x - 0 is x for either sign of zero */
#ifndef STREAM_OUT
#define STREAM_OUT(to, x) STORE(to, x)
#endif

/* Stores one quantity of an interior column: its new value, and the old level filtered in time. */
INLINE void OF(write)(double *new_level, double *old_level, V next, V now, V old, double alpha, Mode mode)
{
    if (mode == STREAM)
        STREAM_OUT(new_level, next);
    else
        STORE(new_level, next);
    STORE(old_level, mode == FIRST ? now : FILTERED(next, now, old));
    __builtin_prefetch(old_level + AHEAD, 1);
}

/* Processes columns j, j + LANES, ... while a whole vector fits before `end`; returns the next column. Names are as in
 * formulas.h. `mode` is a compile-time constant in each inlined copy. */
INLINE ptrdiff_t OF(lanes)(const Step *s, Row *r, ptrdiff_t j, ptrdiff_t end, const Mode mode)
{
    const double t8 = s->t8, tx = s->tx, ty = s->ty, fsdx = s->fsdx, fsdy = s->fsdy, alpha = s->alpha;
    const Row a = *r;    /* a local copy, so that no store can alias it */
    double *west = r->west;
    V w_cu = ALL(west[0]), w_cv = ALL(west[1]), w_z = ALL(west[2]), w_h = ALL(west[3]);
    V w_up_cu = ALL(west[4]), w_up_cv = ALL(west[5]), w_up_z = ALL(west[6]);
    for (; j + LANES <= end; j += LANES) {
        const V p0 = LOAD(a.p0 + j), p0_e = LOAD(a.p0 + j + 1);
        const V p1 = LOAD(a.p1 + j), p1_e = LOAD(a.p1 + j + 1);
        const V u0 = LOAD(a.u0 + j), u1 = LOAD(a.u1 + j), u1_e = LOAD(a.u1 + j + 1);
        const V v0 = LOAD(a.v0 + j), v0_e = LOAD(a.v0 + j + 1), v1_e = LOAD(a.v1 + j + 1);
        const V up_cu = LOAD(a.cu + j), up_cv = LOAD(a.cv + j), up_z = LOAD(a.z + j), up_h = LOAD(a.h + j);
        DECLARE_FLUXES(V);
        __builtin_prefetch(a.p1 + j + AHEAD);
        __builtin_prefetch(a.u1 + j + AHEAD);
        __builtin_prefetch(a.v1 + j + AHEAD);
        STORE(a.cu + j, cu), STORE(a.cv + j, cv), STORE(a.z + j, z), STORE(a.h + j, h);
        if (mode != FLUXES) {
            const V cu_w = SHIFT(w_cu, cu), cv_w = SHIFT(w_cv, cv), z_w = SHIFT(w_z, z), h_w = SHIFT(w_h, h);
            const V up_cu_w = SHIFT(w_up_cu, up_cu), up_cv_w = SHIFT(w_up_cv, up_cv), up_z_w = SHIFT(w_up_z, up_z);
            const V p = LOAD(a.old_level[0] + j - 1), u = LOAD(a.old_level[1] + j - 1);
            const V v = LOAD(a.old_level[2] + j - 1);
            DECLARE_NEXT(V);
            OF(write)(a.new_level[0] + j - 1, a.old_level[0] + j - 1, next_p, p0, p, alpha, mode);
            OF(write)(a.new_level[1] + j - 1, a.old_level[1] + j - 1, next_u, u0, u, alpha, mode);
            OF(write)(a.new_level[2] + j - 1, a.old_level[2] + j - 1, next_v, v0, v, alpha, mode);
        }
        w_cu = cu, w_cv = cv, w_z = z, w_h = h, w_up_cu = up_cu, w_up_cv = up_cv, w_up_z = up_z;
    }
    west[0] = LAST(w_cu), west[1] = LAST(w_cv), west[2] = LAST(w_z), west[3] = LAST(w_h);
    west[4] = LAST(w_up_cu), west[5] = LAST(w_up_cv), west[6] = LAST(w_up_z);
    return j;
}

static TARGET ptrdiff_t OF(columns)(const Step *s, Row *r, ptrdiff_t j, ptrdiff_t end, Mode mode)
{
    switch (mode) {
    case FLUXES: return OF(lanes)(s, r, j, end, FLUXES);
    case FIRST: return OF(lanes)(s, r, j, end, FIRST);
    case STREAM: return OF(lanes)(s, r, j, end, STREAM);
    default: return OF(lanes)(s, r, j, end, PLAIN);
    }
}

#undef JOIN_
#undef JOIN
#undef OF
#undef INLINE
#undef SHIFT
#undef LAST
#undef V
#undef LOAD
#undef STORE
#undef ALL
#undef STREAM_OUT
#undef LANES
#undef TARGET
#undef WEST

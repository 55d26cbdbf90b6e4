"""Reductions by group for the CPU, compiled ahead of time; the loops are in cpu.h."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

import numpy as np

from anyrank.kernels.group import MOST


cdef extern from "cpu.h" nogil:
    ctypedef struct Gather:
        int64_t *limbs
        uint8_t *specials
        const uint32_t *gids
        const void *x
        int64_t n, groups
        int words, kind, origin, square
    int beyond(const uint32_t *gids, int64_t n, uint64_t groups)
    void add_rows(int64_t *sums, const uint32_t *gids, const int64_t *x, int64_t n)
    void extreme_rows(void *values, const uint32_t *gids, const void *x, int64_t n, int kind, int largest)
    void gather_rows(const Gather *g)
    void merge_rows(int64_t *limbs, const uint32_t *gids, const int64_t *other, int64_t n, int words)
    void span_of_bits(const double *x, int64_t n, uint64_t *lowest, uint64_t *highest)
    int all_within(const double *x, int64_t n, int least, int greatest)
    int exponent_of(uint64_t bits)
    void quotients(const int64_t *limbs, const int64_t *counts, int origin, const uint8_t *specials, int64_t groups,
                   int words, double *results)
    void variances(const int64_t *limbs, int words, const int64_t *squares, int square_words, const int64_t *counts,
                   int origin, const uint8_t *specials, int64_t ddof, int64_t groups, double *results)


def add(int64_t[::1] sums, const uint32_t[::1] gids, x):
    """Add every x, or 1, to the sum of its group."""
    cdef const int64_t[::1] terms = x
    cdef const int64_t *first = NULL
    _check(gids, sums.shape[0], gids.shape[0] if x is None else terms.shape[0])
    if gids.shape[0]:
        if x is not None:
            first = &terms[0]
        with nogil:
            add_rows(&sums[0], &gids[0], first, gids.shape[0])


def least(values, const uint32_t[::1] gids, x):
    """Update the minimum of every group."""
    _extreme(values, gids, x, 0)


def greatest(values, const uint32_t[::1] gids, x):
    """Update the maximum of every group."""
    _extreme(values, gids, x, 1)


def limbs(limbs, specials, gids, x, origin):
    """Add every x to the sum of its group."""
    _gather(limbs, specials, gids, x, _kind(x), origin, 0)


def squares(limbs, specials, gids, x, origin):
    """Add the square of every x to the sum of its group."""
    _gather(limbs, specials, gids, x, _kind(x), origin, 1)


def merge(int64_t[:, ::1] limbs, const uint32_t[::1] gids, const int64_t[:, ::1] other):
    """Add rows of limbs to the sums of their groups."""
    if limbs.shape[1] != other.shape[1]:
        raise ValueError(f"limbs of {limbs.shape[1]} words cannot take those of {other.shape[1]}")
    _check(gids, limbs.shape[0], other.shape[0])
    if gids.shape[0]:
        with nogil:
            merge_rows(&limbs[0, 0], &gids[0], &other[0, 0], gids.shape[0], limbs.shape[1])


def span(const double[::1] x):
    """Return the exponents of the smallest unit and of the largest magnitude, or EMPTY."""
    cdef uint64_t low, high
    with nogil:
        span_of_bits(&x[0], x.shape[0], &low, &high)
    return exponent_of(low), exponent_of(high)


def within(const double[::1] x, int least, int greatest):
    """Return whether the span of x is surely within the given one."""
    cdef int inside
    with nogil:
        inside = all_within(&x[0], x.shape[0], least, greatest)
    return bool(inside)


def quotient(const int64_t[:, ::1] limbs, const int64_t[::1] counts, int origin, const uint8_t[::1] specials):
    """Return the sums divided by the counts, correctly rounded."""
    cdef int64_t groups = limbs.shape[0]
    cdef double[::1] results = np.empty(groups)
    _check_groups(limbs.shape[1], groups, counts.shape[0], specials.shape[0])
    if groups:
        with nogil:
            quotients(&limbs[0, 0], &counts[0], origin, &specials[0], groups, limbs.shape[1], &results[0])
    return np.asarray(results)


def variance(const int64_t[:, ::1] limbs, const int64_t[:, ::1] squares, const int64_t[::1] counts, int origin,
             const uint8_t[::1] specials, int64_t ddof):
    """Return the variances, correctly rounded."""
    cdef int64_t groups = limbs.shape[0]
    cdef double[::1] results = np.empty(groups)
    _check_groups(limbs.shape[1], groups, counts.shape[0], specials.shape[0])
    _check_groups(squares.shape[1], groups, squares.shape[0], groups)
    if groups:
        with nogil:
            variances(&limbs[0, 0], limbs.shape[1], &squares[0, 0], squares.shape[1], &counts[0], origin,
                      &specials[0], ddof, groups, &results[0])
    return np.asarray(results)


cdef _kind(x):
    if x.dtype not in (np.float64, np.int64, np.uint64):
        raise TypeError(f"values are float64, int64 or uint64, not {x.dtype}")
    return "fiu".index(x.dtype.kind)


cdef _check(const uint32_t[::1] gids, int64_t groups, int64_t values):
    cdef int wrong
    if values != gids.shape[0]:
        raise ValueError(f"{values} values of {gids.shape[0]} rows")
    with nogil:
        wrong = gids.shape[0] and beyond(&gids[0], gids.shape[0], groups)
    if wrong:
        raise IndexError(f"group {np.max(gids)} of {groups}")


cdef _check_groups(int64_t words, int64_t groups, int64_t counts, int64_t specials):
    if not 2 <= words <= MOST or counts != groups or specials != groups:
        raise ValueError(f"{groups} groups of {words} words, {counts} counts and {specials} specials do not go together")


cdef _extreme(values, const uint32_t[::1] gids, x, int largest):
    cdef int kind = _kind(x)
    cdef char[::1] gathered = values.view(np.int8)
    cdef const char[::1] terms = x.view(np.int8)
    if values.dtype != x.dtype:
        raise TypeError(f"values are {values.dtype} and x is {x.dtype}")
    _check(gids, len(values), len(x))
    if gids.shape[0]:
        with nogil:
            extreme_rows(&gathered[0], &gids[0], &terms[0], gids.shape[0], kind, largest)


cdef _gather(int64_t[:, ::1] limbs, uint8_t[::1] specials, const uint32_t[::1] gids, x, int kind, int origin,
             int square):
    cdef const char[::1] terms = x.view(np.int8)
    cdef Gather g
    if kind and origin:
        raise ValueError(f"integers have the origin 0, not {origin}")
    _check_groups(limbs.shape[1], limbs.shape[0], limbs.shape[0], specials.shape[0])
    _check(gids, limbs.shape[0], len(x))
    if gids.shape[0]:
        g = Gather(&limbs[0, 0], &specials[0], &gids[0], &terms[0], gids.shape[0], limbs.shape[0], limbs.shape[1], kind,
                   origin, square)
        with nogil:
            gather_rows(&g)

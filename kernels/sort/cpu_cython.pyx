"""Sort and merge for the CPU, compiled ahead of time; the loops are in cpu.h."""

from itertools import zip_longest

import numpy as np

from anyrank.kernels.sort import reference, segments_of

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t


cdef extern from "cpu.h" nogil:
    void use_network(int most)
    void sort_i32(const int32_t *source, int32_t *here, int32_t *there, int64_t n, int stay)
    void sort_u32(const uint32_t *source, uint32_t *here, uint32_t *there, int64_t n, int stay)
    void sort_i64(const int64_t *source, int64_t *here, int64_t *there, int64_t n, int stay)
    void sort_u64(const uint64_t *source, uint64_t *here, uint64_t *there, int64_t n, int stay)
    void merge_i32(const int32_t *a, int64_t m, const int32_t *b, int64_t n, int32_t *out)
    void merge_u32(const uint32_t *a, int64_t m, const uint32_t *b, int64_t n, uint32_t *out)
    void merge_i64(const int64_t *a, int64_t m, const int64_t *b, int64_t n, int64_t *out)
    void merge_u64(const uint64_t *a, int64_t m, const uint64_t *b, int64_t n, uint64_t *out)
    void merge_order_i32(const int32_t *a, int64_t m, const int32_t *b, int64_t n, int64_t *order)
    void merge_order_u32(const uint32_t *a, int64_t m, const uint32_t *b, int64_t n, int64_t *order)
    void merge_order_i64(const int64_t *a, int64_t m, const int64_t *b, int64_t n, int64_t *order)
    void merge_order_u64(const uint64_t *a, int64_t m, const uint64_t *b, int64_t n, int64_t *order)
    void order_ranks(const uint64_t *ranks, int64_t *order, int64_t n, uint64_t *packed, uint64_t *scratch)


ctypedef fused Key:
    int32_t
    uint32_t
    int64_t
    uint64_t

#: With more segments, sorting all keys is faster than merging the segments in pairs.
MOST_SEGMENTS = 8

use_network(64)


def choose(most):
    """Choose the largest number of keys for a sorting network: 64 (AVX-512), 32 (AVX2) or 0. Only for tests."""
    use_network(most)


def sort(keys, scratch=None, out=None):
    """Sort in place, or into `out`; `scratch` is a work array of the same dtype."""
    _sort(keys, np.empty_like(keys) if scratch is None else scratch, keys if out is None else out)


def _sort(const Key[::1] keys, Key[::1] scratch, Key[::1] out):
    if min(scratch.shape[0], out.shape[0]) < keys.shape[0]:
        raise ValueError(f"scratch for {scratch.shape[0]} keys and out for {out.shape[0]}, not {keys.shape[0]}")
    if not keys.shape[0]:
        return
    with nogil:
        if Key is int32_t:
            sort_i32(&keys[0], &out[0], &scratch[0], keys.shape[0], 1)
        elif Key is uint32_t:
            sort_u32(&keys[0], &out[0], &scratch[0], keys.shape[0], 1)
        elif Key is int64_t:
            sort_i64(&keys[0], &out[0], &scratch[0], keys.shape[0], 1)
        else:
            sort_u64(&keys[0], &out[0], &scratch[0], keys.shape[0], 1)


def argsort(keys):
    """Return the stable order of keys, int64."""
    order = np.arange(keys.size)
    if keys.size < 2:
        return order
    for ranks in reversed(_words(keys)) if keys.dtype.kind == "S" else [_ranks(keys)]:
        _order(ranks, order, np.empty(keys.size, np.uint64), np.empty(keys.size, np.uint64))
    return order


def _words(keys):
    """Return the bytes of keys, eight at a time, as numbers in the same order."""
    width = -(-keys.itemsize // 8)
    padded = np.ascontiguousarray(keys).astype(f"S{8 * width}", copy=False)
    words = padded.view(">u8").reshape(keys.size, width)
    return [words[:, word].astype(np.uint64) for word in range(width)]


def _ranks(keys):
    """Return integers as uint64 in the same order."""
    ranks = keys.astype(np.uint64)
    if np.iinfo(keys.dtype).min < 0:
        ranks ^= np.uint64(1 << 63)
    return ranks


def _order(const uint64_t[::1] ranks, int64_t[::1] order, uint64_t[::1] packed, uint64_t[::1] scratch):
    with nogil:
        order_ranks(&ranks[0], &order[0], ranks.shape[0], &packed[0], &scratch[0])


def merge(keys, borders, out):
    """Write the keys of all segments into `out`, sorted."""
    segments = segments_of(keys, borders, out)
    if len(segments) > MOST_SEGMENTS:
        start = int(borders[0])
        out[...] = keys[start : start + out.size]
        sort(out)
    elif segments:
        _merge_levels(segments, out)


def _merge_levels(segments, out):
    """Merge pairs of segments until one is left; levels write to a work array and to `out` alternately."""
    levels = max((len(segments) - 1).bit_length(), 1)
    between = np.empty_like(out) if levels > 1 else None
    for level in range(levels, 0, -1):
        target, start, merged = out if level % 2 else between, 0, []
        for first, second in zip_longest(segments[::2], segments[1::2], fillvalue=out[:0]):
            stop = start + first.size + second.size
            merged.append(target[start:stop])
            if start < stop:
                _merge(first, second, merged[len(merged) - 1])
            start = stop
        segments = merged


def _merge(const Key[:] a, const Key[:] b, Key[:] out):
    with nogil:
        if Key is int32_t:
            merge_i32(&a[0], a.shape[0], &b[0], b.shape[0], &out[0])
        elif Key is uint32_t:
            merge_u32(&a[0], a.shape[0], &b[0], b.shape[0], &out[0])
        elif Key is int64_t:
            merge_i64(&a[0], a.shape[0], &b[0], b.shape[0], &out[0])
        else:
            merge_u64(&a[0], a.shape[0], &b[0], b.shape[0], &out[0])


def merge_order(keys, borders):
    """Return the stable order of the keys of all segments, int64."""
    segments = segments_of(keys, borders)
    if not segments:
        return np.empty(0, np.int64)
    start = int(borders[0])
    part = keys[start : start + sum(segment.size for segment in segments)]
    if keys.dtype.kind == "S":
        order = reference.argsort(part)  # timsort detects the sorted segments
    elif len(segments) != 2 or not part.size:
        order = argsort(part)
    else:
        order = np.empty(part.size, np.int64)
        _merge_order(part, segments[0].size, order)
    return np.add(order, start, out=order)


def _merge_order(const Key[::1] keys, int64_t border, int64_t[::1] order):
    cdef const Key *second = &keys[0] + border
    cdef int64_t rest = keys.shape[0] - border
    with nogil:
        if Key is int32_t:
            merge_order_i32(&keys[0], border, second, rest, &order[0])
        elif Key is uint32_t:
            merge_order_u32(&keys[0], border, second, rest, &order[0])
        elif Key is int64_t:
            merge_order_i64(&keys[0], border, second, rest, &order[0])
        else:
            merge_order_u64(&keys[0], border, second, rest, &order[0])

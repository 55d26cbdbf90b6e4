"""Sorting keys, and merging sorted ones.

Keys are one contiguous axis of int32, int64, uint32 or uint64; those of which an order is asked may also be fixed
bytes (`S`), in the order of their bytes.

`sort(keys, scratch=None, out=None)` puts the keys into ascending order where they lie, or into `out`, and then leaves
them. `scratch` and `out`, if given, are other arrays of their dtype, at least as long; what `scratch` holds afterwards
means nothing.

`argsort(keys)` returns their stable order: int64 indices, those of equal keys ascending.

`merge(keys, borders, out)` merges the segments keys[borders[i] : borders[i + 1]], each in ascending order, into `out`.

`merge_order(keys, borders)` returns the stable order (int64 indices into `keys`) of that merge: equal keys by
segment, then by place.

Source: D. Knuth, The Art of Computer Programming 3 (1998), 5.2.4 and 5.2.5.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

OPERATIONS = ("sort", "argsort", "merge", "merge_order")


def segments_of(keys: Any, borders: Sequence[int], out: Any = None) -> list[Any]:
    """The segments that the borders cut; raises ValueError where they cut none, or do not fill `out`."""
    cuts = [int(border) for border in borders]
    if cuts != sorted(cuts) or any(not 0 <= cut <= keys.size for cut in cuts):
        raise ValueError(f"borders {cuts} must rise from 0 or more to at most the {keys.size} keys")
    segments = [keys[a:b] for a, b in pairwise(cuts)]
    size = sum(segment.size for segment in segments)
    if out is not None and (out.shape, out.dtype) != ((size,), keys.dtype):
        raise ValueError(f"out is {out.dtype} {out.shape}, not {keys.dtype} {(size,)}")
    return segments


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Arguments for `size` random keys, cut into two sorted segments where they are to be merged."""
    keys = np.random.default_rng(size).integers(-(1 << 63), (1 << 63) - 1, size, np.int64)
    if operation in ("sort", "argsort"):
        return (keys,), size, "keys"
    borders = np.array([0, size // 2, size])
    keys[: size // 2].sort()
    keys[size // 2 :].sort()
    return ((keys, borders) if operation == "merge_order" else (keys, borders, np.empty_like(keys))), size, "keys"

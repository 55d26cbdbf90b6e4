"""Sort keys, and merge sorted keys.

Keys are a contiguous one-dimensional array of int32, int64, uint32 or uint64. `argsort` and `merge_order` also accept
fixed-length bytes (`S`), compared as bytes.

`sort(keys, scratch=None, out=None)` sorts the keys in place in ascending order, or writes them sorted into `out` and
leaves `keys` unchanged. `scratch` and `out` are other arrays of the same dtype, at least as long; the contents of
`scratch` are undefined afterwards.

`argsort(keys)` returns the stable order: int64 indices, ascending for equal keys.

`merge(keys, borders, out)` merges the sorted segments keys[borders[i] : borders[i + 1]] into `out`.

`merge_order(keys, borders)` returns the stable order (int64 indices into `keys`) of that merge: equal keys are
ordered by segment, then by index.

Source: D. Knuth, The Art of Computer Programming 3 (1998), 5.2.4 and 5.2.5.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

OPERATIONS = ("sort", "argsort", "merge", "merge_order")


def segments_of(keys: Any, borders: Sequence[int], out: Any = None) -> list[Any]:
    """Return the segments between borders. Raises ValueError for invalid borders or an `out` that does not fit."""
    cuts = [int(border) for border in borders]
    if cuts != sorted(cuts) or any(not 0 <= cut <= keys.size for cut in cuts):
        raise ValueError(f"borders {cuts} must be ascending, from 0 or more to at most {keys.size} keys")
    segments = [keys[a:b] for a, b in pairwise(cuts)]
    size = sum(segment.size for segment in segments)
    if out is not None and (out.shape, out.dtype) != ((size,), keys.dtype):
        raise ValueError(f"out is {out.dtype} {out.shape}, not {keys.dtype} {(size,)}")
    return segments


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments for `size` random keys, in two sorted segments for a merge."""
    keys = np.random.default_rng(size).integers(-(1 << 63), (1 << 63) - 1, size, np.int64)
    if operation in ("sort", "argsort"):
        return (keys,), size, "keys"
    borders = np.array([0, size // 2, size])
    keys[: size // 2].sort()
    keys[size // 2 :].sort()
    return ((keys, borders) if operation == "merge_order" else (keys, borders, np.empty_like(keys))), size, "keys"

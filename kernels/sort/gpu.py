"""Sorting on a GPU, by CuPy's own sorts, which are stable. Keys and orders stay there; fixed bytes are the host's."""

from typing import Any

import numpy as np

from anyrank.kernels.sort import segments_of


def sort(gpu: Any, keys: Any, scratch: Any = None, out: Any = None) -> None:
    """Sort in place, or into `out`."""
    (keys if out is None else out)[: keys.size] = np.sort(keys)


def argsort(gpu: Any, keys: Any) -> Any:
    """The stable order of keys, int64."""
    return np.argsort(keys, kind="stable")


def merge(gpu: Any, keys: Any, borders: Any, out: Any) -> None:
    """Write the keys of all segments into `out`, in order: merging would be no faster than sorting there."""
    if segments_of(keys, borders, out):
        out[...] = np.sort(keys[int(borders[0]) : int(borders[0]) + out.size])


def merge_order(gpu: Any, keys: Any, borders: Any) -> Any:
    """The stable order of the segments' keys, int64."""
    segments = segments_of(keys, borders)
    start = int(borders[0]) if segments else 0
    return np.argsort(keys[start : start + sum(segment.size for segment in segments)], kind="stable") + np.int64(start)

"""Sort and merge in plain NumPy."""

from typing import Any

import numpy as np

from anyrank.kernels.sort import segments_of


def sort(keys: np.ndarray, scratch: np.ndarray | None = None, out: np.ndarray | None = None) -> None:
    """Sort in place, or into `out`."""
    (keys if out is None else out)[: keys.size] = np.sort(keys)


def argsort(keys: np.ndarray) -> np.ndarray:
    """Return the stable order of keys, int64."""
    return np.argsort(keys, kind="stable")


def merge(keys: np.ndarray, borders: Any, out: np.ndarray) -> None:
    """Write the keys of all segments into `out`, sorted."""
    segments = segments_of(keys, borders, out)
    out[...] = np.sort(np.concatenate([out[:0], *segments]))


def merge_order(keys: np.ndarray, borders: Any) -> np.ndarray:
    """Return the stable order of the keys of all segments, int64."""
    segments = segments_of(keys, borders)
    return np.argsort(np.concatenate([keys[:0], *segments]), kind="stable") + (int(borders[0]) if segments else 0)

"""Gathering by group on a GPU, by CuPy's sorts and scans, which have no order: counts, sums and extremes.

Exact sums are the host's: a card has no carry between words of 64 bits that many threads add to.
"""

from typing import Any

import numpy as np

_SIGN = np.int64(-(2**63))


def _numbers(like: Any) -> Any:
    """0, 1, 2, … on the device, as many as there are elements: int64."""
    return np.cumsum(np.ones_like(like, dtype=np.int64)) - 1


def _check(gathered: Any, gids: Any, x: Any) -> None:
    if x is not None and len(x) != len(gids):
        raise ValueError(f"{len(x)} values of {len(gids)} rows")
    if len(gids) and int(gids.max()) >= len(gathered):
        raise IndexError(f"group {int(gids.max())} of {len(gathered)}")


def add(gpu: Any, sums: Any, gids: Any, x: Any) -> None:
    """Add every x to its group; 1 each where it is None."""
    _check(sums, gids, x)
    order = np.argsort(gids, kind="stable")
    running = np.cumsum(np.ones_like(gids, dtype=np.int64) if x is None else x[order])
    ends = np.searchsorted(gids[order], _numbers(sums).astype(gids.dtype), side="right")
    upto = np.where(ends > 0, running[np.maximum(ends - 1, 0)], 0) if len(gids) else np.zeros_like(sums)
    sums[:1] += upto[:1]
    sums[1:] += upto[1:] - upto[:-1]


def least(gpu: Any, values: Any, gids: Any, x: Any) -> None:
    """Keep the smallest of each group."""
    _extreme(values, gids, x, largest=False)


def greatest(gpu: Any, values: Any, gids: Any, x: Any) -> None:
    """Keep the largest of each group."""
    _extreme(values, gids, x, largest=True)


def _extreme(values: Any, gids: Any, x: Any, largest: bool) -> None:
    _check(values, gids, x)
    nan = np.int64(2**63 - 1) if largest else _SIGN
    own = _numbers(values)
    codes = np.concatenate((_codes(values, nan), _codes(x, nan)))
    groups = np.concatenate((own, gids.astype(np.int64)))
    order = np.argsort(codes, kind="stable")
    order = order[np.argsort(groups[order], kind="stable")]
    place = np.searchsorted(groups[order], own, side="right" if largest else "left")
    values[...] = _values(codes[order][place - 1 if largest else place], values.dtype, nan)


def _codes(x: Any, nan: np.int64) -> Any:
    """Integers in the order of the values, with NaN where it wins."""
    if x.dtype.kind != "f":
        return x if x.dtype.kind == "i" else x.view(np.int64) ^ _SIGN
    bits = x.view(np.int64)
    return np.where(x == x, bits ^ ((bits >> 63) & ~_SIGN), nan)


def _values(codes: Any, dtype: Any, nan: np.int64) -> Any:
    if dtype.kind != "f":
        return codes if dtype.kind == "i" else (codes ^ _SIGN).view(np.uint64)
    values = (codes ^ ((codes >> 63) & ~_SIGN)).view(np.float64)
    return np.where(codes == nan, np.nan, values)

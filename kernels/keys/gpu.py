"""Rows put into parts on a GPU, by CuPy's stable sort; tables of keys are the host's."""

from typing import Any

import numpy as np


def partition(gpu: Any, hashes: Any, parts: int, places: Any, starts: Any) -> None:
    """Where each row goes when rows are ordered by the part that their hashes fall in."""
    if not 1 <= parts < 1 << 31:
        raise ValueError(f"{parts} parts")
    half, factor = np.uint64(32), np.uint64(parts)
    low = (hashes & np.uint64(0xFFFFFFFF)) * factor >> half
    part = (((hashes >> half) * factor + low) >> half).astype(np.int64)
    order = np.argsort(part, kind="stable")
    places[order] = np.cumsum(np.ones_like(part)) - 1
    starts[: parts + 1] = np.searchsorted(part[order], np.cumsum(np.ones_like(starts[: parts + 1])) - 1)

"""Gather: a split array, or a sample of it, as one array on rank 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from anyrank.layout import Layout


def gather(
    layout: Layout, block: Any, stride: int = 1, to_host: Callable[[Any], np.ndarray] = np.asarray
) -> np.ndarray | None:
    """Every `stride`-th element along every axis of an array whose blocks the ranks hold. Collective.

    `block` has the layout's local shape; what is wanted of it is brought `to_host`. The array is returned on rank 0,
    None elsewhere.
    """
    first = tuple(-start % stride for start in layout.start)
    corner = tuple(-(-start // stride) for start in layout.start)
    mine = np.ascontiguousarray(to_host(block[tuple(slice(a, None, stride) for a in first)]))
    parts = layout.world.gather((corner, mine))
    if parts is None:
        return None
    # Of the type that holds every rank's values: rank 0's own may be another, where it has none.
    kind = np.result_type(*({part.dtype for _, part in parts if part.size} or {mine.dtype}))
    whole = np.zeros(tuple(-(-n // stride) for n in layout.shape), kind)
    for at, part in parts:
        whole[tuple(slice(a, a + n) for a, n in zip(at, part.shape, strict=True))] = part
    return whole

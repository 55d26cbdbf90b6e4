"""Gather: a split array, or a sample of it, as one array on rank 0."""

from __future__ import annotations

import numpy as np

from anyrank.layout import Layout


def gather(layout: Layout, block: np.ndarray, stride: int = 1) -> np.ndarray | None:
    """Every `stride`-th element along every axis of an array whose blocks the ranks hold. Collective.

    `block` has the layout's local shape. The array is returned on rank 0, None elsewhere.
    """
    first = tuple(-start % stride for start in layout.start)
    corner = tuple(-(-start // stride) for start in layout.start)
    mine = np.ascontiguousarray(block[tuple(slice(a, None, stride) for a in first)])
    parts = layout.world.gather((corner, mine))
    if parts is None:
        return None
    whole = np.zeros(tuple(-(-n // stride) for n in layout.shape), block.dtype)
    for at, part in parts:
        whole[tuple(slice(a, a + n) for a, n in zip(at, part.shape, strict=True))] = part
    return whole

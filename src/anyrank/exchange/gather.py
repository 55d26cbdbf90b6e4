"""Gather a distributed array on all ranks; or it, or every n-th element of it, on rank 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from anyrank.exchange.shuffle import MESSAGE
from anyrank.layout import Layout


def gather(
    layout: Layout, block: Any, stride: int = 1, to_host: Callable[[Any], np.ndarray] = np.asarray
) -> np.ndarray | None:
    """Gather every `stride`-th element along every axis of a distributed array on rank 0. Collective.

    Parameters
    ----------
    layout : Layout
        The domain decomposition of the array.
    block : array
        This rank's elements, of shape `layout.local_shape`, on the host or a device.
    stride : int
        The distance of gathered elements along every axis.
    to_host : callable
        Copies an array of the device to the host.

    Returns
    -------
    ndarray or None
        The gathered array on rank 0; None on other ranks.
    """
    first = tuple(-start % stride for start in layout.start)
    corner = tuple(-(-start // stride) for start in layout.start)
    own = np.ascontiguousarray(to_host(block[tuple(slice(a, None, stride) for a in first)]))
    parts = layout.world.gather((corner, own))
    if parts is None:
        return None
    # The dtype holds the values of every rank; an empty part may have another dtype, also on rank 0.
    dtype = np.result_type(*({part.dtype for _, part in parts if part.size} or {own.dtype}))
    whole = np.zeros(tuple(-(-n // stride) for n in layout.shape), dtype)
    for start, part in parts:
        whole[tuple(slice(a, a + n) for a, n in zip(start, part.shape, strict=True))] = part
    return whole


def allgather(layout: Layout, block: np.ndarray) -> np.ndarray:
    """Return a distributed array on all ranks, from this rank's elements on the host. Collective.

    Each rank broadcasts its block, so that a rank holds the array and one block, and never the array twice.
    """
    whole = np.empty(layout.shape, block.dtype)
    for rank, brick in layout.bricks_of_all():
        own = rank == layout.world.rank
        part = np.ascontiguousarray(block) if own else np.empty(whole[brick].shape, block.dtype)
        data = part.reshape(-1).view(np.uint8)
        for first in range(0, data.size, MESSAGE):
            layout.world.comm.Bcast(data[first : first + MESSAGE], rank)
        whole[brick] = part
    return whole

"""Exact sums on a GPU. The numbers are in device memory; `limbs` is a NumPy array."""

from typing import Any

import numpy as np

from anyrank.kernels.exact_sum import SLOTS, reference
from anyrank.kernels.rows import THREADS, walk


def accumulate(gpu: Any, x: Any, limbs: np.ndarray, blocks: int | None = None) -> None:
    """Add every element of `x` to `limbs`, with `blocks` thread blocks (None: a suitable number)."""
    _add(gpu, "accumulate", (x,), limbs, blocks)


def accumulate_products(gpu: Any, x: Any, y: Any, limbs: np.ndarray, blocks: int | None = None) -> None:
    """Add the products of the elements of `x` and `y` to `limbs`, with `blocks` thread blocks."""
    if x.shape != y.shape:
        raise ValueError(f"products of shapes {x.shape} and {y.shape}")
    _add(gpu, "accumulate_products", (x, y), limbs, blocks)


def _add(gpu: Any, function: str, arrays: tuple[Any, ...], limbs: np.ndarray, blocks: int | None) -> None:
    if arrays[0].size:
        total = gpu.zeros(SLOTS, np.uint64)
        grid, arguments = walk(arrays, blocks)
        gpu.launch(function, grid, (THREADS,), (*arguments, total))
        limbs[:SLOTS] += gpu.to_host(total).view(np.int64)
    reference.accumulate(np.empty(0), limbs)  # propagates the carries

"""Exact sums on a GPU. The numbers are in device memory; `limbs` is a NumPy array."""

from typing import Any

import numpy as np

from anyrank.kernels.exact_sum import SLOTS, reference
from anyrank.kernels.rows import THREADS, walk


def accumulate(gpu: Any, x: Any, limbs: np.ndarray, blocks: int | None = None) -> None:
    """Add every element of `x` to `limbs`, or each row to its row, with `blocks` thread blocks for each sum.

    `blocks=None` stands for a suitable number.
    """
    _add(gpu, "accumulate", (x,), limbs, blocks)


def accumulate_products(gpu: Any, x: Any, y: Any, limbs: np.ndarray, blocks: int | None = None) -> None:
    """Add the products of the elements of `x` and `y` to `limbs`: see `accumulate`."""
    if x.shape != y.shape:
        raise ValueError(f"products of shapes {x.shape} and {y.shape}")
    _add(gpu, "accumulate_products", (x, y), limbs, blocks)


def _add(gpu: Any, function: str, arrays: tuple[Any, ...], limbs: np.ndarray, blocks: int | None) -> None:
    sums = limbs.reshape(-1, limbs.shape[-1])
    if arrays[0].size:
        totals = gpu.zeros((len(sums), SLOTS), np.uint64)
        grid, arguments = walk(arrays, blocks, len(limbs) if limbs.ndim == 2 else 1)
        gpu.launch(function, grid, (THREADS,), (*arguments, totals))
        sums[:, :SLOTS] += gpu.to_host(totals).view(np.int64)
    for own in sums:
        reference.accumulate(np.empty(0), own)  # propagates the carries

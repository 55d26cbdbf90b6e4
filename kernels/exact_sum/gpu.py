"""Exact sums on a GPU. The limbs that come in and go out are NumPy's; the numbers stay where they are."""

from typing import Any

import numpy as np

from anyrank.kernels.exact_sum import SLOTS, reference
from anyrank.kernels.rows import THREADS, walk


def accumulate(gpu: Any, x: Any, limbs: np.ndarray, blocks: int | None = None) -> None:
    """Add every element of `x` to `limbs`, on so many blocks of threads, or as many as are good."""
    _add(gpu, "accumulate", (x,), limbs, blocks)


def accumulate_products(gpu: Any, x: Any, y: Any, limbs: np.ndarray, blocks: int | None = None) -> None:
    """Add the product of every element of `x` with that of `y` to `limbs`, likewise."""
    if x.shape != y.shape:
        raise ValueError(f"products of shapes {x.shape} and {y.shape}")
    _add(gpu, "accumulate_products", (x, y), limbs, blocks)


def _add(gpu: Any, function: str, arrays: tuple[Any, ...], limbs: np.ndarray, blocks: int | None) -> None:
    if arrays[0].size:
        found = gpu.zeros(SLOTS, np.uint64)
        grid, told = walk(arrays, blocks)
        gpu.launch(function, grid, (THREADS,), (*told, found))
        limbs[:SLOTS] += gpu.to_host(found).view(np.int64)
    reference.accumulate(np.empty(0), limbs)  # settles the carries

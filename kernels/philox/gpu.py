"""Philox4x32-10 for the GPU: one thread for each index."""

from typing import Any

import numpy as np

THREADS = 256


def words(gpu: Any, seed: int, stream: int, step: int, index: Any, out: Any) -> None:
    """Write the four words of each index into a row of `out`."""
    n = index.shape[0]
    if n:
        key = (np.uint64(seed), np.uint32(stream), np.uint32(step))
        gpu.launch("words", (-(-n // THREADS),), (THREADS,), (*key, index, out, np.int64(n)))

"""Points in the quarter circle for the GPU."""

from typing import Any

import numpy as np

THREADS = 256
MOST_BLOCKS = 4096  # enough to fill any card; each thread then takes many points


def quarter_circle(gpu: Any, seed: int, stream: int, first: int, count: int) -> int:
    """The number of hits among the points first … first + count − 1."""
    hits = gpu.zeros(1, np.uint64)
    grid = min(-(-(count + 1) // (2 * THREADS)), MOST_BLOCKS)
    gpu.launch(
        "quarter_circle",
        (grid,),
        (THREADS,),
        (np.uint64(seed), np.uint32(stream), np.uint64(first), np.uint64(first + count), hits),
    )
    return int(gpu.to_host(hits)[0])

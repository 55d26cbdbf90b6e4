"""Points in the quarter circle on a GPU: one launch per range of blocks with equal high words, one per odd end."""

from typing import Any

import numpy as np

THREADS = 256
MOST_BLOCKS = 8192  # thread blocks: eight times the number that runs at once, so that little time is lost at the end
GROUPS = 4  # as in gpu.cu


def quarter_circle(gpu: Any, seed: int, stream: int, first: int, count: int) -> int:
    """Return the number of hits among the points first … first + count − 1."""
    hits, key = gpu.zeros(1, np.uint64), (np.uint64(seed), np.uint32(stream))
    end = first + count
    index, last = first >> 1, (end + 1) >> 1
    while index < last:
        blocks = min(last - index, (1 << 32) - index % (1 << 32))
        grid = max(1, min(blocks // (GROUPS * THREADS), MOST_BLOCKS))
        bundles, rest = divmod(blocks, GROUPS * THREADS * grid)
        arguments = (*key, np.uint64(index), np.uint32(bundles), np.uint32(rest), hits)
        gpu.launch("quarter_circle", (grid,), (THREADS,), arguments)
        index += blocks
    for point, k in enumerate((first, end)):
        if k & 1:  # the range contains only one point of this block
            gpu.launch("without", (1,), (1,), (*key, np.uint64(k >> 1), np.uint32(point), hits))
    return int(gpu.to_host(hits)[0])

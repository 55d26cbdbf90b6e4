"""The digest on a GPU, of words of any width."""

from typing import Any

import numpy as np

from anyrank.kernels.rows import THREADS, walk


def digest(gpu: Any, bits: Any, first: int, row_step: int, blocks: int | None = None) -> int:
    """The sum of the mixed elements mod 2^64. `bits` may be of any unsigned type; it counts as widened by zeros."""
    if not bits.size:
        return 0
    total = gpu.zeros(1, np.uint64)
    grid, (words, *rows) = walk((bits,), blocks)
    index = (np.uint64(first % (1 << 64)), np.uint64(row_step % (1 << 64)))
    arguments = (words.view(np.uint8), np.int32(words.itemsize), *rows, *index, total)
    gpu.launch("digest", grid, (THREADS,), arguments)
    return int(gpu.to_host(total)[0])

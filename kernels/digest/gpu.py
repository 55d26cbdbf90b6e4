"""The digest on a GPU, of words of any width."""

from typing import Any

import numpy as np

from anyrank.kernels.rows import THREADS, walk


def digest(gpu: Any, bits: Any, first: int, row_step: int, blocks: int | None = None) -> int:
    """Return the digest. `bits` may have any unsigned type; elements are zero-extended to 64 bits."""
    if not bits.size:
        return 0
    total = gpu.zeros(1, np.uint64)
    grid, (words, *rows) = walk((bits,), blocks)
    index = (np.uint64(first % (1 << 64)), np.uint64(row_step % (1 << 64)))
    arguments = (words.view(np.uint8), np.int32(words.itemsize), *rows, *index, total)
    gpu.launch("digest", grid, (THREADS,), arguments)
    return int(gpu.to_host(total)[0])

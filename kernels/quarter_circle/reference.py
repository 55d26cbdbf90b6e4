"""Points in the quarter circle, in plain NumPy."""

import numpy as np

from anyrank.kernels.philox.reference import words

_CHUNK = 1 << 17  # blocks at a time, to limit memory
_ONE, _62 = np.uint64(1), np.uint64(62)


def quarter_circle(seed: int, stream: int, first: int, count: int) -> int:
    """Return the number of hits among the points first … first + count − 1."""
    hits, begin, end = 0, first // 2, (first + count + 1) // 2
    for block in range(begin, end, _CHUNK):
        index = np.uint64(block) + np.arange(min(_CHUNK, end - block), dtype=np.uint64)
        word = np.empty((index.size, 4), np.uint32)
        words(seed, stream, 0, index, word)
        x, y = word[:, 0::2].astype(np.uint64) >> _ONE, word[:, 1::2].astype(np.uint64) >> _ONE
        hit = ((x * x + y * y) >> _62 == 0).reshape(-1)
        hits += int(np.count_nonzero(hit[max(first - 2 * block, 0) : first + count - 2 * block]))
    return hits

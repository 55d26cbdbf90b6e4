"""Random words that belong to global indices: Philox4x32 with 10 rounds.

`words(seed, stream, step, index, out)` writes into `out` (uint32, n × 4, C-contiguous) the four words of
every element of `index` (uint64, n, contiguous). The key is the seed, its low half first; the counter is

    word 0   low half of the index        word 2   step, in [0, 2^32)
    word 1   high half of the index       word 3   stream, in [0, 2^32)

The stream's low 24 bits are the user's stream and its high 8 bits the number of the attempt, for numbers
that are drawn again where the first were rejected. So a word is a function of seed, stream, step and index
alone, and this keying never changes: stored results depend on it.

The body for GPUs has more operations, so that numbers made of words need no memory but their own: see gpu.py.

Source: J. Salmon, M. Moraes, R. Dror and D. Shaw, Parallel random numbers: as easy as 1, 2, 3, SC'11.
"""

from typing import Any

import numpy as np

OPERATIONS = ("words",)

ROUNDS = 10
MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Arguments for `size` indices spread over all 64 bits."""
    index = np.random.default_rng(size).integers(0, 1 << 64, size, np.uint64)
    return (0x0123456789ABCDEF, 5, 7, index, np.zeros((size, 4), np.uint32)), size, "blocks"

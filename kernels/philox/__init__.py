"""Random words as functions of global indices: Philox4x32 with 10 rounds.

`words(seed, stream, step, index, out)` writes into `out` (uint32, n × 4, C-contiguous) the four words of
every element of `index` (uint64, n, contiguous). The key is the seed, low half first. The counter is

    word 0   low half of the index        word 2   step, in [0, 2^32)
    word 1   high half of the index       word 3   stream, in [0, 2^32)

The low 24 bits of the stream are the user's stream. The high 8 bits are the number of the attempt, for numbers
that are drawn again after a rejection. A word therefore depends only on seed, stream, step and index. This scheme must
never change, because stored results depend on it.

The GPU body has more operations, which convert words to numbers without storing the words: see gpu.py.

Source: J. Salmon, M. Moraes, R. Dror and D. Shaw, Parallel random numbers: as easy as 1, 2, 3, SC'11.
"""

from typing import Any

import numpy as np

OPERATIONS = ("words",)

ROUNDS = 10
MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments for `size` random 64-bit indices."""
    index = np.random.default_rng(size).integers(0, 1 << 64, size, np.uint64)
    return (0x0123456789ABCDEF, 5, 7, index, np.zeros((size, 4), np.uint32)), size, "blocks"

"""The digest of a block of a global array: Σ mix(global index, bits) mod 2^64, which has no order.

`digest(bits, first, row_step)` takes a uint64 array of two axes, the last contiguous, whose element
[r, c] has the global index g = first + r·row_step + c (mod 2^64), and returns an int in [0, 2^64):

    Σ f(bits[r, c] xor (g + 1)·0x9e3779b97f4a7c15)

where f is the finaliser of splitmix64, two rounds of xor-shift and multiply and a last xor-shift. For one
index, f is one-to-one in the bits, so that a change of a single element is always seen; any other change
escapes with probability 2^−64.

Source: G. Steele, D. Lea and C. Flood, Fast splittable pseudorandom number generators, OOPSLA 2014, with
Stafford's "Mix13" constants; sums of hashes as order-free hashes of sets: M. Bellare and D. Micciancio, A new
paradigm for collision-free hashing, EUROCRYPT 1997 (no claim here to resist an adversary).
"""

from typing import Any

import numpy as np

OPERATIONS = ("digest",)

GOLDEN = 0x9E3779B97F4A7C15
ROUND_1 = 0xBF58476D1CE4E5B9
ROUND_2 = 0x94D049BB133111EB


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Arguments for about `size` words in rows of a wider array, as a field with a halo has them."""
    rows = max(1, int(size**0.5))
    wide = np.random.default_rng(size).integers(0, 1 << 64, (rows, -(-size // rows) + 2), np.uint64)
    bits = wide[:, 1:-1]
    return (bits, 12345, bits.shape[1] + 17), bits.size, "words"

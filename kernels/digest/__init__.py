"""The digest of a block of a global array: Σ mix(global index, bits) mod 2^64, independent of order.

`digest(bits, first, row_step)` takes a two-dimensional uint64 array with a contiguous last axis. Element
[r, c] has the global index g = first + r·row_step + c (mod 2^64). It returns an int in [0, 2^64):

    Σ f(bits[r, c] xor (g + 1)·0x9e3779b97f4a7c15)

where f is the finaliser of splitmix64: two rounds of xor-shift and multiply and a final xor-shift. For a fixed
index, f is a bijection of the bits, so a change of a single element always changes the digest. Any other change is
missed with probability 2^−64.

Source: G. Steele, D. Lea and C. Flood, Fast splittable pseudorandom number generators, OOPSLA 2014, with
Stafford's "Mix13" constants. Sums of hashes as hashes of sets: M. Bellare and D. Micciancio, A new paradigm for
collision-free hashing, EUROCRYPT 1997 (this digest does not resist an adversary).
"""

from typing import Any

import numpy as np

OPERATIONS = ("digest",)

GOLDEN = 0x9E3779B97F4A7C15
ROUND_1 = 0xBF58476D1CE4E5B9
ROUND_2 = 0x94D049BB133111EB


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments for about `size` words in rows of a wider array, like a field with a halo."""
    rows = max(1, int(size**0.5))
    wide = np.random.default_rng(size).integers(0, 1 << 64, (rows, -(-size // rows) + 2), np.uint64)
    bits = wide[:, 1:-1]
    return (bits, 12345, bits.shape[1] + 17), bits.size, "words"

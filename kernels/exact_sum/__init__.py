"""Exact sums of doubles, and of products of doubles, in integer limbs.

`accumulate(x, limbs)` adds every element of `x` (float64, one or two axes, the last contiguous) to
`limbs`; `accumulate_products(x, y, limbs)` adds every x·y, for `x` and `y` of one shape. Neither rounds.

`limbs` is an int64 array of SLOTS, changed in place. Its first LIMBS are a fixed-point number,

    Σ limbs[k] · 2^(32k − ORIGIN),   k = 0 … LIMBS − 1,

wide enough for the smallest product of two doubles, 2^−2148, and for the sum of 2^127 of the largest,
2^2048. PLUS, MINUS and NANS count the terms that are +∞, −∞ and NaN; further elements are left alone.
On return the limbs are canonical: all but the last in [0, 2^32), the last with the sign. They then
depend on the terms alone and not on their order, so every body gives the same, bit for bit, and limbs
of up to 2^30 ranks can be added element by element. Any limbs below 2^62 in magnitude may come in.

A term adds less than 2^33 to a limb, so that 2^28 of them may be added before the carries must be
settled; every body settles them that often, and at the end.

Source: U. Kulisch, Computer Arithmetic and Validity (2013), ch. 8; R. Neal, Fast exact summation using
small and large superaccumulators, arXiv:1505.05571 (2015).
"""

from typing import Any

import numpy as np

OPERATIONS = ("accumulate", "accumulate_products")
#: `limbs` is NumPy's array wherever the numbers are.
ON_HOST = (-1,)

LIMBS = 136
ORIGIN = 2176
PLUS, MINUS, NANS = LIMBS, LIMBS + 1, LIMBS + 2
SLOTS = LIMBS + 3


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Arguments for about `size` numbers in rows of a wider array, as a field with a halo has them."""
    rows = max(1, int(size**0.5))
    wide = np.random.default_rng(size).standard_normal((2, rows, -(-size // rows) + 2))
    x, y = wide[:, :, 1:-1]
    limbs = np.zeros(SLOTS, np.int64)
    return ((x, y, limbs) if operation == "accumulate_products" else (x, limbs)), x.size, "numbers"

"""Exact sums of doubles, and of products of doubles, in integer limbs.

`accumulate(x, limbs)` adds every element of `x` (float64, one or two axes, the last contiguous) to `limbs`.
`accumulate_products(x, y, limbs)` adds every product x·y, for `x` and `y` of the same shape. Neither rounds. If `limbs`
has two axes, each row of `x` and `y` is added to its row of `limbs`.

`limbs` is an int64 array of SLOTS elements, changed in place. The first LIMBS elements are a fixed-point number,

    Σ limbs[k] · 2^(32k − ORIGIN),   k = 0 … LIMBS − 1,

wide enough for the smallest product of two doubles, 2^−2148, and for the sum of 2^127 of the largest products, 2^2048.
Elements PLUS, MINUS and NANS count the terms that are +∞, −∞ and NaN; further elements are not changed. On return the
limbs are canonical: all but the last are in [0, 2^32), and the last has the sign. Canonical limbs depend only on the
terms, not on their order. Every body therefore returns the same bits, and limbs of up to 2^30 ranks can be added
element by element. Limbs passed in must be less than 2^62 in magnitude.

A term adds less than 2^33 to a limb, so that carries must be propagated at least every 2^28 terms; every body does
this, and again at the end.

Source: U. Kulisch, Computer Arithmetic and Validity (2013), ch. 8; R. Neal, Fast exact summation using
small and large superaccumulators, arXiv:1505.05571 (2015).
"""

from typing import Any

import numpy as np

OPERATIONS = ("accumulate", "accumulate_products")
#: `limbs` is a NumPy array for every body, also on a GPU.
ON_HOST = (-1,)

LIMBS = 136
ORIGIN = 2176
PLUS, MINUS, NANS = LIMBS, LIMBS + 1, LIMBS + 2
SLOTS = LIMBS + 3


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments for about `size` numbers in rows of a wider array, like a field with a halo."""
    rows = max(1, int(size**0.5))
    wide = np.random.default_rng(size).standard_normal((2, rows, -(-size // rows) + 2))
    x, y = wide[:, :, 1:-1]
    limbs = np.zeros(SLOTS, np.int64)
    return ((x, y, limbs) if operation == "accumulate_products" else (x, limbs)), x.size, "numbers"

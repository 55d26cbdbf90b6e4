"""Values gathered by the number of their group: counts, sums, extremes, and exact sums of doubles and of squares.

`gids` (uint32 [n]) says to which group each row belongs; what is gathered is an array with one element or row per
group, changed in place. Nothing here has an order: rows in any order, cut anywhere and merged, give the same bits.
Values x are float64, int64 or uint64, contiguous. A gid beyond the groups raises IndexError, before anything changes.

`add(sums, gids, x)`
    int64 sums[gid] += x (int64), mod 2^64; where x is None each row adds 1.
`least(values, gids, x)`, `greatest(values, gids, x)`
    The smallest and largest x, of the type of `values`. NaN wins, as the one NaN of NumPy, and −0 is below +0.
`limbs(limbs, specials, gids, x, origin)`, `squares(limbs, specials, gids, x, origin)`
    Adds every x, or x², exactly. `limbs` is int64 [groups, W], 2 ≤ W ≤ MOST: a whole number of 64·W bits in two's
    complement, lowest word first, in units of 2^origin. The caller sees to it that finite terms are multiples of the
    unit and that sums fit: see `anyrank.keyed.window`. An x that is not finite sets PLUS, MINUS or NANS in uint8
    specials[gid], by both alike, so that they may share it. Integers are in units of 1: their origin is 0.
`merge(limbs, gids, other)`
    Adds the rows of `other` (int64 [n, W]), limbs of the same unit.
`span(x)`
    Returns (least, greatest): every finite x (float64) is a multiple of 2^least and below 2^(greatest + 1) in
    magnitude; as narrow as can be, EMPTY where no x is finite and not zero.
`quotient(limbs, counts, origin, specials)`
    Returns float64 [groups]: the sums over the counts (int64), correctly rounded, NaN where the count is 0. With
    counts of 1 these are the sums. +∞ with −∞ gives NaN, and a sum of zero is +0.
`variance(limbs, squares, counts, origin, specials, ddof)`
    Returns float64 [groups]: (Σx² − (Σx)²/n)/(n − ddof), rounded once, NaN where n ≤ ddof and where an x is not
    finite. `squares` is in units of 2^(2·origin).

Source: as `exact_sum`; U. Kulisch, Computer Arithmetic and Validity (2013), ch. 8.
"""

from typing import Any

import numpy as np

OPERATIONS = ("add", "least", "greatest", "limbs", "squares", "merge", "span", "quotient", "variance")

PLUS, MINUS, NANS = 1, 2, 4
EMPTY = (1024, -1075)
#: The most words of limbs: the squares of all doubles, 2^63 of each.
MOST = 68


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Arguments for about `size` rows of a thousand groups, or fewer; or about `size` groups."""
    random = np.random.default_rng(size)
    size = max(1, size)
    groups = min(size, 1000)
    gids = random.integers(0, groups, size).astype(np.uint32)
    x, specials = random.integers(-(2**40), 2**40, size) * 2.0**-20, np.zeros(groups, np.uint8)
    if operation == "span":
        return (x,), size, "numbers"
    if operation in ("quotient", "variance"):
        sums = np.stack([random.integers(0, 2**63, size), random.integers(-100, 100, size)], 1)
        counts, specials = random.integers(1, 1000, size), np.zeros(size, np.uint8)
        if operation == "quotient":
            return (sums, counts, -40, specials), size, "groups"
        squares = np.stack([*random.integers(0, 2**63, (2, size)), np.full(size, 2**40), np.zeros(size, int)], 1)
        return (sums, squares, counts, -40, specials, 1), size, "groups"
    gathered: tuple[Any, ...] = {
        "add": (np.zeros(groups, np.int64), gids, random.integers(-100, 100, size)),
        "least": (np.full(groups, np.inf), gids, x),
        "greatest": (np.full(groups, -np.inf), gids, x),
        "limbs": (np.zeros((groups, 2), np.int64), specials, gids, x, -20),
        "squares": (np.zeros((groups, 2), np.int64), specials, gids, x, -40),
        "merge": (np.zeros((groups, 2), np.int64), gids, random.integers(-100, 100, (size, 2))),
    }[operation]
    return gathered, size, "rows"

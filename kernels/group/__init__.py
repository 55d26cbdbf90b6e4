"""Reductions by group number: counts, sums, minimum, maximum, and exact sums of doubles and of squares.

`gids` (uint32 [n]) is the group of each row. Results are accumulated in place in an array with one element or row per
group. All reductions are independent of order: rows in any order, in any parts that are merged later, give the same
bits. Values x are float64, int64 or uint64, contiguous. A gid that is not a group raises IndexError before any change.

`add(sums, gids, x)`
    int64 sums[gid] += x (int64), mod 2^64; if x is None, each row adds 1.
`least(values, gids, x)`, `greatest(values, gids, x)`
    Minimum and maximum of x, of the type of `values`. If any x is NaN, the result is NumPy's NaN; −0 is less than +0.
`limbs(limbs, specials, gids, x, origin)`, `squares(limbs, specials, gids, x, origin)`
    Add every x, or x², exactly. `limbs` is int64 [groups, W], 2 ≤ W ≤ MOST: a 64·W-bit integer in two's complement,
    lowest word first, in units of 2^origin. The caller ensures that finite terms are multiples of the unit and that
    sums fit, see `anyrank.keyed.window`. An x that is not finite sets PLUS, MINUS or NANS in uint8 specials[gid];
    both operations set the same flags and may share the array. Integers are in units of 1: their origin is 0.
`merge(limbs, gids, other)`
    Adds the rows of `other` (int64 [n, W]), limbs of the same unit.
`span(x)`
    Returns (least, greatest): every finite x (float64) is a multiple of 2^least and less than 2^(greatest + 1) in
    magnitude; the narrowest such range, or EMPTY if all finite x are zero.
`within(x, least, greatest)`
    Returns True only if every x is finite and the span of x is within (least, greatest). It takes a quarter of the time
    of `span`. False for least > 0, least < -1023, and for numbers of 2^(least + 1024) and more.
`quotient(limbs, counts, origin, specials)`
    Returns float64 [groups]: the sums divided by the counts (int64), correctly rounded; NaN if the count is 0. Counts
    of 1 give the sums. The sum of +∞ and −∞ is NaN, and a sum of zero is +0.
`variance(limbs, squares, counts, origin, specials, ddof)`
    Returns float64 [groups]: (Σx² − (Σx)²/n)/(n − ddof), rounded once; NaN if n ≤ ddof or if an x is not finite.
    `squares` is in units of 2^(2·origin).

Source: see `exact_sum`; U. Kulisch, Computer Arithmetic and Validity (2013), ch. 8.
"""

from typing import Any

import numpy as np

OPERATIONS = ("add", "least", "greatest", "limbs", "squares", "merge", "span", "within", "quotient", "variance")

PLUS, MINUS, NANS = 1, 2, 4
EMPTY = (1024, -1075)
#: Maximum number of words of a sum: enough for 2^63 squares of any doubles.
MOST = 68


def example(operation: str, size: int) -> tuple[tuple[Any, ...], int, str]:
    """Return arguments for about `size` rows of up to a thousand groups, or for about `size` groups."""
    random = np.random.default_rng(size)
    size = max(1, size)
    groups = min(size, 1000)
    gids = random.integers(0, groups, size).astype(np.uint32)
    x, specials = random.integers(-(2**40), 2**40, size) * 2.0**-20, np.zeros(groups, np.uint8)
    if operation == "span":
        return (x,), size, "numbers"
    if operation == "within":
        return (x, -20, 40), size, "numbers"
    if operation in ("quotient", "variance"):
        sums = np.stack([random.integers(0, 2**63, size), random.integers(-100, 100, size)], 1)
        counts, specials = random.integers(1, 1000, size), np.zeros(size, np.uint8)
        if operation == "quotient":
            return (sums, counts, -40, specials), size, "groups"
        squares = np.stack([*random.integers(0, 2**63, (2, size)), np.full(size, 2**40), np.zeros(size, int)], 1)
        return (sums, squares, counts, -40, specials, 1), size, "groups"
    arguments: tuple[Any, ...] = {
        "add": (np.zeros(groups, np.int64), gids, random.integers(-100, 100, size)),
        "least": (np.full(groups, np.inf), gids, x),
        "greatest": (np.full(groups, -np.inf), gids, x),
        "limbs": (np.zeros((groups, 2), np.int64), specials, gids, x, -20),
        "squares": (np.zeros((groups, 2), np.int64), specials, gids, x, -40),
        "merge": (np.zeros((groups, 2), np.int64), gids, random.integers(-100, 100, (size, 2))),
    }[operation]
    return arguments, size, "rows"
